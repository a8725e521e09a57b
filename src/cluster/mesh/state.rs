//! What the mesh tells the layer above: each peer's state, the fate of a call, and counters.

use super::options::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;

/// Every peer that is dialled and its state.
pub type PeerStates = Arc<BTreeMap<NodeId, PeerState>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Both connections to it are up and it was heard within `silent_after`.
    Connected {
        since: Instant,
        /// The peer's boot: a larger one than before is a restart.
        boot: u64,
        version: Arc<str>,
        /// The version of the peer protocol that is spoken with it.
        protocol: u16,
        /// The last measured round trip of the consensus connection, 0 before the first. It changes without a notification.
        rtt_us: u64,
    },
    /// It is not reachable. `since` is when it was lost (or named by `set_peers`); `reason` is the newest one.
    Down { since: Instant, reason: DownReason },
}

impl PeerState {
    pub fn is_connected(&self) -> bool {
        matches!(self, PeerState::Connected { .. })
    }
}

/// Why a peer is down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// It was not dialled yet.
    #[error("not dialled yet")]
    New,
    /// Nobody listens there: the machine answers, the process is gone.
    #[error("connection refused")]
    Refused,
    /// It closed the connection, or the connection broke.
    #[error("connection closed: {0}")]
    Closed(String),
    /// Nothing came for `silent_after`, or a connect or handshake was not answered in time.
    #[error("silent")]
    Silent,
    /// The connect failed in another way: no such host, no route.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The handshake was refused, by the peer or by this node.
    #[error("rejected: {0}")]
    Rejected(String),
}

impl DownReason {
    /// Whether trying again gives the same answer until somebody changes a configuration.
    pub fn is_final(&self) -> bool {
        matches!(self, DownReason::Rejected(why) if !why.contains(super::handshake::NOT_JOINED))
    }
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It provably never left this node: it may be sent again anywhere.
    #[error("not sent: {0}")]
    NotSent(NotSent),
    /// The connection broke after it may have left: it may have been done.
    #[error("the connection was lost before the reply")]
    Lost,
    /// Its deadline passed after it may have left: it may have been, or may still be, done.
    #[error("no reply in time")]
    Timeout,
    /// The peer's handler said no; codes from `code::MESH_FIRST` on are the mesh's own.
    #[error("refused with code {code}: {message}")]
    Refused { code: u16, message: String },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("node {0} is not a peer")]
    UnknownPeer(NodeId),
    /// The peer is down, or it went down while the call waited in the queue.
    #[error("the peer is down")]
    Down,
    /// The queue to the peer is full.
    #[error("too many calls wait for the peer")]
    Overloaded,
    #[error("a body of {0} bytes is too large for a frame")]
    TooLarge(usize),
    /// The deadline passed while the call waited for room or for a connection.
    #[error("its deadline passed before it could be sent")]
    Expired,
    #[error("this node is stopping")]
    Stopping,
    /// `call_address` could not connect.
    #[error("{0}")]
    Unreachable(DownReason),
}

impl From<NotSent> for CallError {
    fn from(reason: NotSent) -> CallError {
        CallError::NotSent(reason)
    }
}

/// Refusal codes of the mesh itself; a handler uses smaller ones.
pub mod code {
    pub const MESH_FIRST: u16 = 0xff00;
    /// The handler dropped the call without an answer: the outcome is as unknown as after `Lost`.
    pub const DROPPED: u16 = 0xff00;
    /// The handler's answer does not fit into a frame.
    pub const REPLY_TOO_LARGE: u16 = 0xff01;
}

/// What the mesh counted since its start, over all peers.
#[derive(Debug, Default)]
pub struct Counters {
    pub frames_sent: AtomicU64,
    pub frames_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    pub calls_sent: AtomicU64,
    pub calls_received: AtomicU64,
    /// Calls refused here because a queue was full.
    pub calls_overloaded: AtomicU64,
    pub calls_timed_out: AtomicU64,
    pub calls_lost: AtomicU64,
    /// Times that a peer became connected.
    pub connects: AtomicU64,
    /// Times that a connected peer went down.
    pub disconnects: AtomicU64,
    /// Connections refused in the handshake, by either side.
    pub rejects: AtomicU64,
    /// Connections closed for bytes that are no frame.
    pub garbage: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, value: usize) {
        counter.fetch_add(value as u64, Relaxed);
    }

    /// Name and value of each, for a metrics page.
    pub fn list(&self) -> [(&'static str, u64); 13] {
        [
            ("frames_sent", self.frames_sent.load(Relaxed)),
            ("frames_received", self.frames_received.load(Relaxed)),
            ("bytes_sent", self.bytes_sent.load(Relaxed)),
            ("bytes_received", self.bytes_received.load(Relaxed)),
            ("calls_sent", self.calls_sent.load(Relaxed)),
            ("calls_received", self.calls_received.load(Relaxed)),
            ("calls_overloaded", self.calls_overloaded.load(Relaxed)),
            ("calls_timed_out", self.calls_timed_out.load(Relaxed)),
            ("calls_lost", self.calls_lost.load(Relaxed)),
            ("connects", self.connects.load(Relaxed)),
            ("disconnects", self.disconnects.load(Relaxed)),
            ("rejects", self.rejects.load(Relaxed)),
            ("garbage", self.garbage.load(Relaxed)),
        ]
    }
}
