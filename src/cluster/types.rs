//! The types that openraft is told to use, and the short names under which this room speaks of them.

use crate::core::{catalog, machine};
use bytes::Bytes;
use std::fmt;

/// What an entry carries: an encoded command, opaque to consensus. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answers to whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Blank and membership entries.
    None,
    /// One outcome a request of the entry.
    Stream(Vec<machine::Outcome>),
    Catalog(catalog::Outcome),
}

/// What a snapshot has besides its place and the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The rolling hash of all entries up to here; `None` where it was made by a build that had none.
    pub hash: Option<u128>,
    /// The folded state.
    pub state: Bytes,
}

openraft::declare_raft_types!(
    /// One configuration for every group, the catalog's and the streams'.
    pub TypeConfig:
        D = Payload,
        R = Response,
        NodeId = u64,
        Node = openraft::impls::EmptyNode,
);

pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub type LogId = openraft::LogId<LeaderId>;
pub type Vote = openraft::impls::Vote<LeaderId>;
pub type Entry = openraft::impls::Entry<LeaderId, EntryPayload>;
pub type EntryPayload = openraft::EntryPayload<Payload, u64, openraft::impls::EmptyNode>;
pub type Membership = openraft::Membership<u64, openraft::impls::EmptyNode>;
pub type StoredMembership = openraft::StoredMembership<LeaderId, u64, openraft::impls::EmptyNode>;
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub type SnapshotMeta = openraft::storage::SnapshotMeta<LeaderId, u64, openraft::impls::EmptyNode>;
pub type Snapshot = openraft::storage::Snapshot<LeaderId, u64, openraft::impls::EmptyNode, Content>;
pub type Raft = openraft::Raft<TypeConfig, super::machine::Folded>;

pub fn log_id(id: crate::store::LogId) -> LogId {
    LogId::new(LeaderId { term: id.term, node_id: id.leader }, id.index)
}

pub fn store_id(id: &LogId) -> crate::store::LogId {
    let leader = id.committed_leader_id();
    crate::store::LogId { index: id.index(), term: leader.term, leader: leader.node_id }
}
