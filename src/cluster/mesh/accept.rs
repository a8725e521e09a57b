//! The listening side: takes connections, makes sure of who dialled, and serves each in a task of its own.
//!
//! - Unknown dialers are bounded in number, bytes and time, and cannot touch anything else.
//! - A failure of one connection is logged and ends that connection only.

use super::Inner;
use super::frame::Inbox;
use super::handshake::{self, Dialler, Local};
use super::net::{Listener, Stream};
use super::session::{Connection, End, Handler, Peer, run_accepted};
use super::state::Counters;
use crate::core::limits;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

/// Pause after a failed accept: the machine is short of something, usually descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The same complaint about the same machine is logged again only after so long: a misconfigured peer dials every second.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The newest complaint about a connection that was not let in.
#[derive(Default)]
struct Complaints(Mutex<Option<(IpAddr, String, Instant)>>);

impl Complaints {
    fn log(&self, address: SocketAddr, why: String) {
        let mut last = self.0.lock().expect("nothing panics while it holds this");
        let known = last.as_ref().is_some_and(|(ip, said, at)| *ip == address.ip() && *said == why && at.elapsed() < COMPLAIN_EVERY);
        if !known {
            tracing::warn!(%address, %why, "a connection to the peer port was not let in");
            *last = Some((address.ip(), why, Instant::now()));
        }
    }
}

/// Accepts until the mesh stops.
pub async fn listen(mesh: Arc<Inner>, mut listener: Listener, handler: Arc<dyn Handler>) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(limits::PEER_CONNECTIONS_MAX));
    let complaints = Arc::new(Complaints::default());
    loop {
        let accepted = tokio::select! {
            () = mesh.token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer's connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (Ok(handshake), Ok(connection)) = (handshakes.clone().try_acquire_owned(), connections.clone().try_acquire_owned()) else {
            complaints.log(address, "too many connections from peers".into());
            continue;
        };
        let (serving, handler, complaints) = (mesh.clone(), handler.clone(), complaints.clone());
        mesh.tracker.spawn(async move {
            let greeted = tokio::select! {
                () = serving.token.cancelled() => return,
                greeted = greet(&serving, &complaints, stream, address) => greeted,
            };
            drop(handshake);
            if let Some((peer, opened)) = greeted {
                serve(&serving, opened, peer, &*handler).await;
            }
            drop(connection);
        });
    }
}

/// The handshake, within its time; a failure is logged here.
async fn greet(mesh: &Inner, complaints: &Complaints, mut stream: Box<dyn Stream>, address: SocketAddr) -> Option<(Peer, Connection)> {
    let mut inbox = Inbox::new();
    match timeout(mesh.options.handshake_timeout, shake(mesh, &mut stream, &mut inbox)).await {
        Ok(Ok(Dialler { identity, lane })) => {
            mesh.heard_of(identity.node);
            Some((Peer { node: identity.node, boot: identity.boot, address, lane }, Connection { stream, inbox, lane }))
        }
        Ok(Err(error)) => {
            count_failure(mesh, &error);
            complaints.log(address, error.to_string());
            None
        }
        Err(_) => {
            complaints.log(address, "it did not introduce itself in time".into());
            None
        }
    }
}

async fn shake(mesh: &Inner, stream: &mut Box<dyn Stream>, inbox: &mut Inbox) -> Result<Dialler, handshake::Error> {
    let identity = mesh.identity.borrow().clone();
    let local = Local { secret: &mesh.options.secret, identity: &identity, versions: handshake::VERSIONS };
    handshake::accept(stream, inbox, &local).await
}

fn count_failure(mesh: &Inner, error: &handshake::Error) {
    match error {
        handshake::Error::Rejected(_) => Counters::add(&mesh.counters.rejects, 1),
        handshake::Error::Garbage(_) => Counters::add(&mesh.counters.garbage, 1),
        handshake::Error::Closed(_) => (),
    }
}

async fn serve(mesh: &Inner, connection: Connection, peer: Peer, handler: &dyn Handler) {
    let end = run_accepted(connection, peer, handler, &mesh.options, &mesh.counters, &mesh.token).await;
    let Peer { node, address, lane, .. } = peer;
    match end {
        End::Garbage(error) => {
            Counters::add(&mesh.counters.garbage, 1);
            tracing::warn!(node, %address, ?lane, %error, "a peer's connection was closed");
        }
        end => tracing::debug!(node, %address, ?lane, ?end, "a peer's connection ended"),
    }
}
