//! The peer transport (skeleton of its public API).

mod options;
mod state;

pub use options::{Identity, Lane, NodeId, Options, Secret};
pub use state::{CallError, Counters, DownReason, NotSent, PeerState, PeerStates, code};

use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// Who called: authenticated by the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// 0 for a node that is joining.
    pub node: NodeId,
    pub boot: u64,
    pub address: SocketAddr,
    pub lane: Lane,
}

/// Answers the calls of peers.
pub trait Handler: Send + Sync + 'static {
    /// Called in order of arrival from the connection's read loop: it must not block, and spawns what takes time.
    fn handle(&self, from: Peer, method: u16, body: Bytes, reply: Reply);
}

/// The way back of one call.
pub struct Reply(());

impl Reply {
    pub fn ok(self, _body: Bytes) {
        todo!("mesh")
    }
    pub fn refuse(self, _code: u16, _message: &str) {
        todo!("mesh")
    }
}

/// The reply of a call that was enqueued; dropping it forgets the call, not its effect.
pub struct PendingReply(());

impl Future for PendingReply {
    type Output = Result<Bytes, CallError>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!("mesh")
    }
}

/// A handle to this node's mesh; clones are the same mesh.
#[derive(Clone)]
pub struct Mesh(());

impl Mesh {
    /// Must be called inside a runtime, which runs all of the mesh's tasks.
    pub fn start(_listener: TcpListener, _identity: Identity, _options: Options, _handler: Arc<dyn Handler>) -> Mesh {
        todo!("mesh")
    }
    pub fn set_identity(&self, _identity: Identity) {
        todo!("mesh")
    }
    pub fn set_peers(&self, _peers: BTreeMap<NodeId, String>) {
        todo!("mesh")
    }
    pub fn peers(&self) -> watch::Receiver<PeerStates> {
        todo!("mesh")
    }
    pub fn counters(&self) -> &Counters {
        todo!("mesh")
    }
    /// Enqueues the call now, in the order of the calls of this function, and returns its reply to be awaited.
    pub fn send_call(&self, _to: NodeId, _lane: Lane, _method: u16, _body: Bytes, _deadline: Instant) -> Result<PendingReply, CallError> {
        todo!("mesh")
    }
    /// As `send_call`, but waits for room in the queue until the deadline.
    pub async fn send_call_with_room(
        &self,
        _to: NodeId,
        _lane: Lane,
        _method: u16,
        _body: Bytes,
        _deadline: Instant,
    ) -> Result<PendingReply, CallError> {
        todo!("mesh")
    }
    pub async fn call(&self, _to: NodeId, _lane: Lane, _method: u16, _body: Bytes, _deadline: Instant) -> Result<Bytes, CallError> {
        todo!("mesh")
    }
    /// One call to an address whose node is not known, over a connection of its own.
    pub async fn call_address(&self, _address: &str, _method: u16, _body: Bytes, _deadline: Instant) -> Result<Bytes, CallError> {
        todo!("mesh")
    }
    /// Closes every connection and waits for every task.
    pub async fn stop(&self) {
        todo!("mesh")
    }
}
