//! One task a peer: dials both of its connections, keeps them, and tells what became of them.
//!
//! - The two connections are up together and down together: a peer is connected when both handshakes are done, and down when either
//!   ends. The first sign of a death on either is the peer's.
//! - Calls can be sent before `Connected` is published, and have ended before `Down` is.
//! - A peer that was taken out of the table publishes nothing any more.

use super::Inner;
use super::calls::Calls;
use super::frame::Inbox;
use super::handshake::{self, Acceptor, Local};
use super::options::{Lane, NodeId};
use super::session::{Connection, End, run_dialled};
use super::state::{Counters, DownReason, PeerState};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub struct Link {
    pub node: NodeId,
    pub address: String,
    pub token: CancellationToken,
    /// The peer was heard of: dial now.
    pub nudge: Notify,
    /// When it was named.
    pub since: Instant,
    /// Its state is in the table of states.
    listed: AtomicBool,
    /// The calls of the consensus and of the bulk connection while both are up.
    up: Mutex<Option<[Arc<Calls>; 2]>>,
}

impl Link {
    pub fn new(node: NodeId, address: String, token: CancellationToken) -> Arc<Link> {
        Arc::new(Link {
            node,
            address,
            token,
            nudge: Notify::new(),
            since: Instant::now(),
            listed: AtomicBool::new(false),
            up: Mutex::new(None),
        })
    }

    /// Whether its state was in the table of states before; it is from now on.
    pub fn list(&self) -> bool {
        self.listed.swap(true, Relaxed)
    }

    pub fn calls(&self, lane: Lane) -> Option<Arc<Calls>> {
        let up = self.up.lock().expect("nothing panics while it holds this");
        up.as_ref().map(|calls| calls[lane as usize].clone())
    }

    fn set(&self, calls: Option<[Arc<Calls>; 2]>) {
        *self.up.lock().expect("nothing panics while it holds this") = calls;
    }
}

/// Dials the peer until it is taken out of the table or the mesh stops.
pub async fn keep(mesh: Arc<Inner>, link: Arc<Link>) {
    tokio::select! {
        () = link.token.cancelled() => return,
        () = mesh.is_member() => (),
    }
    let mut pause = Pause::new(&mesh);
    loop {
        let started = Instant::now();
        let reason = tokio::select! {
            () = link.token.cancelled() => return,
            connected = connect_lanes(&mesh, &link) => match connected {
                Ok(connected) => stay(&mesh, &link, connected).await,
                Err(reason) => reason,
            },
        };
        if link.token.is_cancelled() {
            return;
        }
        publish_down(&mesh, &link, reason);
        // A connection that held is redialled at once: it shows whether the process is gone or only the connection.
        if started.elapsed() > mesh.options.redial_max + mesh.options.connect_timeout {
            pause = Pause::new(&mesh);
            continue;
        }
        tokio::select! {
            () = link.token.cancelled() => return,
            () = link.nudge.notified() => (),
            () = sleep(pause.next()) => (),
        }
    }
}

struct Connected {
    peer: Acceptor,
    connections: [Connection; 2],
}

async fn connect_lanes(mesh: &Inner, link: &Link) -> Result<Connected, DownReason> {
    let [consensus, bulk] = Lane::ALL.map(|lane| connect(mesh, &link.address, link.node, lane));
    let ((peer, consensus), (_, bulk)) = tokio::try_join!(consensus, bulk)?;
    Ok(Connected { peer, connections: [consensus, bulk] })
}

/// Connects to an address and makes sure of who is there; `wanted` 0 takes anybody of the cluster.
pub async fn connect(mesh: &Inner, address: &str, wanted: NodeId, lane: Lane) -> Result<(Acceptor, Connection), DownReason> {
    let options = &mesh.options;
    let connecting = timeout(options.connect_timeout, options.network.dial(address)).await;
    let mut stream = connecting.map_err(|_| DownReason::Silent)?.map_err(connect_failed)?;
    let mut inbox = Inbox::new();
    let identity = mesh.identity.borrow().clone();
    let local = Local { secret: &options.secret, identity: &identity, versions: options.protocols() };
    let dialling = handshake::dial(&mut stream, &mut inbox, &local, wanted, lane);
    let peer = timeout(options.handshake_timeout, dialling).await.map_err(|_| DownReason::Silent)?;
    let peer = peer.map_err(|error| handshake_failed(mesh, error))?;
    Ok((peer, Connection { stream, inbox, lane }))
}

fn connect_failed(error: io::Error) -> DownReason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DownReason::Refused,
        io::ErrorKind::TimedOut => DownReason::Silent,
        _ => DownReason::Unreachable(error.to_string()),
    }
}

fn handshake_failed(mesh: &Inner, error: handshake::Error) -> DownReason {
    match error {
        handshake::Error::Closed(why) => DownReason::Closed(why),
        handshake::Error::Rejected(why) => {
            Counters::add(&mesh.counters.rejects, 1);
            DownReason::Rejected(why)
        }
        handshake::Error::Garbage(corrupt) => {
            Counters::add(&mesh.counters.garbage, 1);
            DownReason::Rejected(corrupt.to_string())
        }
    }
}

/// Serves a connected peer until either connection ends.
async fn stay(mesh: &Arc<Inner>, link: &Link, Connected { peer, connections }: Connected) -> DownReason {
    let options = &mesh.options;
    let calls = Lane::ALL.map(|_| Calls::new(options.queue_bytes_max, options.calls_max, mesh.counters.clone()));
    link.set(Some(calls.clone()));
    publish_connected(mesh, link, &peer);
    let [consensus, bulk] = connections;
    let first = run_dialled(consensus, &calls[0], options, &link.token, |rtt_us| publish_rtt(mesh, link, rtt_us));
    let second = run_dialled(bulk, &calls[1], options, &link.token, |_| ());
    let end = either(first, second, &link.token).await;
    calls.iter().for_each(|calls| calls.close());
    link.set(None);
    Counters::add(&mesh.counters.disconnects, 1);
    if let End::Garbage(_) = end {
        Counters::add(&mesh.counters.garbage, 1);
    }
    end.into()
}

/// The end of one connection is the end of both, at once; only when this node wants the end, both may finish.
async fn either(first: impl Future<Output = End>, second: impl Future<Output = End>, token: &CancellationToken) -> End {
    let (mut first, mut second) = (pin!(first), pin!(second));
    tokio::select! {
        end = &mut first => {
            if token.is_cancelled() {
                second.await;
            }
            end
        }
        end = &mut second => {
            if token.is_cancelled() {
                first.await;
            }
            end
        }
    }
}

/// Changes the link's entry, unless the link was replaced or taken away. Says whether the watchers are to be told.
fn publish(mesh: &Inner, link: &Link, change: impl FnOnce(&mut PeerState) -> bool) {
    mesh.states.send_if_modified(|states| {
        if link.token.is_cancelled() {
            return false;
        }
        let states = Arc::make_mut(states);
        states.get_mut(&link.node).is_some_and(change)
    });
}

fn publish_connected(mesh: &Inner, link: &Link, Acceptor { identity: peer, protocol }: &Acceptor) {
    Counters::add(&mesh.counters.connects, 1);
    tracing::info!(node = link.node, address = link.address, boot = peer.boot, version = %peer.version, protocol, "peer connected");
    publish(mesh, link, |state| {
        let (since, version) = (Instant::now(), peer.version.clone());
        mesh.spoken().insert(link.node, *protocol);
        *state = PeerState::Connected { since, boot: peer.boot, version, protocol: *protocol, rtt_us: 0 };
        true
    });
}

fn publish_rtt(mesh: &Inner, link: &Link, measured: u64) {
    publish(mesh, link, |state| {
        if let PeerState::Connected { rtt_us, .. } = state {
            *rtt_us = measured;
        }
        false
    });
}

/// Logged once a change of the reason, however often it is dialled.
fn publish_down(mesh: &Inner, link: &Link, reason: DownReason) {
    publish(mesh, link, |state| {
        let since = match state {
            PeerState::Down { reason: known, .. } if *known == reason => return false,
            PeerState::Down { since, .. } => *since,
            PeerState::Connected { .. } => Instant::now(),
        };
        match reason {
            // A wrong secret or another cluster does not pass by itself. That a node is gone, the room above tells once.
            DownReason::Rejected(_) => tracing::warn!(node = link.node, address = link.address, %reason, "peer down"),
            _ => tracing::info!(node = link.node, address = link.address, %reason, "peer down"),
        }
        *state = PeerState::Down { since, reason };
        true
    });
}

/// The pauses between dials: doubling from the least to the longest, each shortened at random so that peers do not dial in step.
struct Pause {
    next: Duration,
    max: Duration,
}

impl Pause {
    fn new(mesh: &Inner) -> Pause {
        Pause { next: mesh.options.redial_min, max: mesh.options.redial_max }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        // Without randomness the pause is only less spread.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
    }
}
