//! What a mesh is told from outside: who this node is, the shared secret, and its clocks.

use super::net::Network;
use crate::core::limits;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The number of a node, given by the catalog and never reused; 0 is a node that has none yet.
pub type NodeId = u64;

/// The cluster's secret: whoever knows it is a peer. It never leaves this process and is never printed.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub fn new(secret: impl AsRef<[u8]>) -> Secret {
        Secret(secret.as_ref().into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who this node is. A node that has not joined yet is `joining`: it may dial, and what it may call is the handler's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id; 0 while joining.
    pub cluster: u128,
    /// This node's id; 0 while joining.
    pub node: NodeId,
    /// Counts the starts of this node; a later start has a larger one.
    pub boot: u64,
    /// The software's version, for people; cut to `PEER_VERSION_BYTES_MAX`.
    pub version: Arc<str>,
}

impl Identity {
    pub fn joining(version: &str) -> Identity {
        Identity { cluster: 0, node: 0, boot: 0, version: version.into() }
    }

    /// Whether this node has its place in a cluster: only then it dials its peers and lets them in.
    pub fn is_member(&self) -> bool {
        self.node != 0 && self.cluster != 0
    }
}

/// Which of the two connections to a peer a call uses. Each is its own TCP connection with its own order and its own backpressure,
/// so that a full bulk lane never delays consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, appends, heartbeats: small or latency-bound.
    Consensus,
    /// Forwarded publishes, reads, snapshots.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Consensus, Lane::Bulk];
}

#[derive(Clone, Debug)]
pub struct Options {
    pub secret: Secret,
    pub network: Network,
    /// The newest version of the peer protocol that this node speaks, of [`PROTOCOLS`]: smaller to pass for an older build.
    pub protocol_max: u16,
    /// How often an otherwise quiet consensus connection says that its node lives.
    pub ping_every: Duration,
    /// A peer that sent nothing for so long is down. Sixteen signs of life must be missing: busy cores delay
    /// one or two, not sixteen.
    pub silent_after: Duration,
    /// Longest TCP connect.
    pub connect_timeout: Duration,
    /// Longest handshake, from the connect or accept on.
    pub handshake_timeout: Duration,
    /// First and longest pause between two dials of a peer that is down; each is shortened by up to half at random.
    pub redial_min: Duration,
    pub redial_max: Duration,
    /// Bytes that may wait to be written to one connection; a single call always fits into an empty queue.
    pub queue_bytes_max: usize,
    /// Calls of one connection that may be unanswered at the caller.
    pub calls_max: usize,
}

/// The versions of the peer protocol that this build speaks. Two nodes speak the highest that both know.
///
/// | version | brings |
/// |---|---|
/// | 1 | frames, consensus, and what nodes ask of each other |
/// | 2 | what survivors say about a peer that is gone (`cluster::evidence`) |
/// | 3 | packed commands in the logs of streams (`core::pack`) |
pub const PROTOCOLS: RangeInclusive<u16> = 1..=3;

impl Options {
    pub fn new(secret: Secret) -> Options {
        Options {
            secret,
            network: Network::default(),
            protocol_max: *PROTOCOLS.end(),
            ping_every: Duration::from_millis(50),
            silent_after: Duration::from_millis(800),
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(1),
            queue_bytes_max: limits::PEER_QUEUE_BYTES_MAX,
            calls_max: limits::PEER_CALLS_MAX,
        }
    }

    /// The versions that this node offers and takes.
    pub(super) fn protocols(&self) -> RangeInclusive<u16> {
        *PROTOCOLS.start()..=self.protocol_max.clamp(*PROTOCOLS.start(), *PROTOCOLS.end())
    }

    /// The bulk connection's news of life may be rarer: the consensus connection is the failure detector.
    pub(super) fn ping_every(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Consensus => self.ping_every,
            Lane::Bulk => self.ping_every.max(self.silent_after / 4),
        }
    }
}
