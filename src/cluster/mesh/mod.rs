//! The peer mesh: authenticated, framed, versioned, multiplexed calls between the nodes of a cluster. It knows nothing of what they
//! say: a call is a method number and bytes, and so is its reply.
//!
//! Every node dials every other one, twice: a connection for each [`Lane`]. A call goes over a connection that its caller dialled, and
//! its reply comes back on the same. So a call passes [`Mesh::send_call`] (`calls` numbers it, `outbox` queues it), the writing half of
//! a `session` that gathers many frames a write, the reading half at the other end, the [`Handler`], a [`Reply`], and all the way back
//! to the [`PendingReply`]. Before any of that `handshake` has made sure of both nodes; `dial` keeps the connections up and publishes
//! each peer's [`PeerState`], `accept` takes those of others, `net` is what both stand on, `frame` has the bytes.
//!
//! Why a connection a lane, and not priorities within one: TCP has one order and one window. A bulk body that is half written, or a
//! callee that is too busy to read on, would hold every vote behind it; two sockets share nothing but the wire. Why one each way: the
//! caller's connection is the caller's evidence, and nobody needs to agree on who dials.
//!
//! What is always true:
//! - Calls of one lane to one peer reach its handler in the order of `send_call`, each at most once, while a connection lasts. A new
//!   connection never carries an older one's calls.
//! - `NotSent` is a proof that no byte of the call left. `Lost` and `Timeout` are not: the call may have been done.
//! - Every queue is bounded; when one is full the caller hears `Overloaded`, or waits if it asked to.
//! - Whatever a stranger or a broken peer sends costs that connection only.
//!
//! Not done here: encryption (see `handshake`), retries of calls, and any judgement of what a dead peer means.

mod accept;
mod calls;
mod dial;
mod frame;
mod handshake;
mod net;
mod options;
mod outbox;
mod session;
mod state;
#[cfg(test)]
mod tests;

pub use calls::PendingReply;
pub use frame::BODY_BYTES_MAX;
pub use net::{Accept, Dial, Listener, Network, ReadHalf, Stream, WriteHalf};
pub use options::{Identity, Lane, NodeId, Options, PROTOCOLS, Secret};
pub use session::{Handler, Peer, Reply};
pub use state::{CallError, Counters, DownReason, NotSent, PeerState, PeerStates, code};

use bytes::Bytes;
use calls::Calls;
use dial::Link;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handle to this node's mesh; clones are the same mesh. Its tasks live until `stop`.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
    runtime: Handle,
}

/// What the tasks of one mesh share.
struct Inner {
    options: Options,
    counters: Arc<Counters>,
    identity: watch::Sender<Identity>,
    states: watch::Sender<PeerStates>,
    /// The version of the protocol that was spoken last with each peer, also with those that are down.
    spoken: Mutex<BTreeMap<NodeId, u16>>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Inner {
    fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Link>>> {
        self.links.lock().expect("nothing panics while it holds the links")
    }

    fn spoken(&self) -> MutexGuard<'_, BTreeMap<NodeId, u16>> {
        self.spoken.lock().expect("nothing panics while it holds this")
    }

    async fn is_member(&self) {
        let mut identity = self.identity.subscribe();
        identity.wait_for(Identity::is_member).await.expect("this holds the sender");
    }

    /// A node has dialled this one, so it lives: dial it now if it is down.
    fn heard_of(&self, node: NodeId) {
        if let Some(link) = self.links().get(&node) {
            link.nudge.notify_one();
        }
    }

    fn calls(&self, to: NodeId, lane: Lane, deadline: Instant) -> Result<Arc<Calls>, NotSent> {
        if self.token.is_cancelled() {
            return Err(NotSent::Stopping);
        }
        if deadline <= Instant::now() {
            return Err(NotSent::Expired);
        }
        let links = self.links();
        let link = links.get(&to).ok_or(NotSent::UnknownPeer(to))?;
        link.calls(lane).ok_or(NotSent::Down)
    }

    fn count<T>(&self, sent: Result<T, NotSent>) -> Result<T, CallError> {
        if let Err(NotSent::Overloaded) = sent {
            Counters::add(&self.counters.calls_overloaded, 1);
        }
        Ok(sent?)
    }
}

impl Mesh {
    /// Listens and dials. Must be called inside a runtime, which runs all of the mesh's tasks; every other function may be called
    /// from anywhere. Until the identity is a member's, no peer is dialled and none is let in; `call_address` works.
    pub fn start(listener: impl Into<Listener>, identity: Identity, options: Options, handler: Arc<dyn Handler>) -> Mesh {
        let inner = Arc::new(Inner {
            options,
            counters: Arc::default(),
            identity: watch::Sender::new(identity),
            states: watch::Sender::new(PeerStates::default()),
            spoken: Mutex::default(),
            links: Mutex::default(),
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
        });
        inner.tracker.spawn(accept::listen(inner.clone(), listener.into(), handler));
        Mesh { inner, runtime: Handle::current() }
    }

    /// Takes effect for every later handshake. This node is dropped from its own peers.
    pub fn set_identity(&self, identity: Identity) {
        let node = identity.node;
        self.inner.identity.send_replace(identity);
        let mut links = self.inner.links();
        if let Some(link) = links.remove(&node) {
            link.token.cancel();
            self.publish(&links);
        }
    }

    /// The peers to keep connections to, by `host:port`; this node itself may be among them. One that is no longer named, or has
    /// another address, is dropped and its calls end as `Lost`.
    pub fn set_peers(&self, mut peers: BTreeMap<NodeId, String>) {
        peers.remove(&self.inner.identity.borrow().node);
        let mut links = self.inner.links();
        links.retain(|node, link| {
            let keep = peers.get(node) == Some(&link.address);
            if !keep {
                link.token.cancel();
            }
            keep
        });
        let fresh: Vec<Arc<Link>> = peers.into_iter().filter(|(node, _)| !links.contains_key(node)).map(|peer| self.link(peer)).collect();
        links.extend(fresh.iter().map(|link| (link.node, link.clone())));
        self.publish(&links);
        // Only now that its state is listed, so that nothing that it publishes is overwritten.
        for link in fresh {
            self.inner.tracker.spawn_on(dial::keep(self.inner.clone(), link), &self.runtime);
        }
    }

    fn link(&self, (node, address): (NodeId, String)) -> Arc<Link> {
        Link::new(node, address, self.inner.token.child_token())
    }

    /// Makes the states' keys those of the links. A link that is new, or has replaced another, begins as down.
    fn publish(&self, links: &BTreeMap<NodeId, Arc<Link>>) {
        self.inner.states.send_modify(|states| {
            let state = |node: &NodeId, link: &Link| match (link.list(), states.get(node)) {
                (true, Some(known)) => known.clone(),
                _ => PeerState::Down { since: link.since, reason: DownReason::New },
            };
            *states = Arc::new(links.iter().map(|(node, link)| (*node, state(node, link))).collect());
        });
    }

    /// Every peer's state; changes are told at once, but for the round-trip time.
    pub fn peers(&self) -> watch::Receiver<PeerStates> {
        self.inner.states.subscribe()
    }

    /// Whether the node speaks this version of the peer protocol; one that is down, as when it was heard last.
    pub fn knows_protocol(&self, node: NodeId, version: u16) -> bool {
        let own = self.inner.identity.borrow().node;
        match node == own {
            true => *self.inner.options.protocols().end() >= version,
            false => self.inner.spoken().get(&node).is_some_and(|spoken| *spoken >= version),
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Queues the call now, behind those of the same lane and peer that were queued before, and returns its reply to be awaited.
    /// A full queue is `NotSent(Overloaded)`.
    pub fn send_call(&self, to: NodeId, lane: Lane, method: u16, body: Bytes, deadline: Instant) -> Result<PendingReply, CallError> {
        let sent = self.inner.calls(to, lane, deadline).and_then(|calls| calls.send(method, body, deadline));
        self.inner.count(sent)
    }

    /// As `send_call`, but waits for room in the queue until the deadline; who waits first is served first.
    pub async fn send_call_with_room(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<PendingReply, CallError> {
        let calls = self.inner.calls(to, lane, deadline)?;
        Ok(calls.send_with_room(method, body, deadline).await?)
    }

    /// `send_call` and its reply.
    pub async fn call(&self, to: NodeId, lane: Lane, method: u16, body: Bytes, deadline: Instant) -> Result<Bytes, CallError> {
        self.send_call(to, lane, method, body, deadline)?.await
    }

    /// One call to an address whose node is not known, over a connection of its own; it runs in the caller's task. A node that has
    /// not joined is node 0 to the other's handler.
    pub async fn call_address(&self, address: &str, method: u16, body: Bytes, deadline: Instant) -> Result<Bytes, CallError> {
        let (mesh, lane) = (&*self.inner, Lane::Bulk);
        if mesh.token.is_cancelled() {
            return Err(NotSent::Stopping.into());
        }
        let connecting = timeout_at(deadline, dial::connect(mesh, address, 0, lane)).await;
        let (_, connection) = connecting.map_err(|_| NotSent::Expired)?.map_err(NotSent::Unreachable)?;
        let calls = Calls::new(mesh.options.queue_bytes_max, mesh.options.calls_max, mesh.counters.clone());
        let mut reply = calls.send(method, body, deadline)?;
        tokio::select! {
            biased;
            answer = &mut reply => answer,
            _ = session::run_dialled(connection, &calls, &mesh.options, &mesh.token, |_| ()) => reply.await,
        }
    }

    /// Closes every connection, after what is queued was written if that is quick, and waits for every task.
    pub async fn stop(&self) {
        self.inner.token.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }
}
