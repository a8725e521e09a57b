//! The cluster's replicated state: its nodes, its streams with their settings, and who holds what.

use super::{NodeName, Settings, StreamName, Time, codec::Corrupt};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState { Active, Draining, Removed }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub id: u64,
    pub name: NodeName,
    /// What clients use, `http://host:port`.
    pub url: String,
    /// What peers use, `host:port`.
    pub peer: String,
    pub version: String,
    pub state: NodeState,
    /// Chosen at random by the joining node, so that a repeated join gets the same id.
    pub token: u128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    pub name: StreamName,
    /// Its Raft group; never reused. 0 is the catalog's own.
    pub group: u64,
    pub settings: Settings,
    /// The members with which the group was created; never changes.
    pub initial: Vec<u64>,
    /// The nodes that hold it; the first is the preferred leader.
    pub placement: Vec<u64>,
    pub created: Time,
}

/// An entry of the catalog's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first entry of a cluster.
    Found { cluster: u128 },
    AddNode { token: u128, name: NodeName, url: String, peer: String, version: String },
    UpdateNode { id: u64, url: String, peer: String, version: String },
    SetNodeState { id: u64, state: NodeState },
    CreateStream { name: StreamName, settings: Settings, placement: Vec<u64>, time: Time },
    ChangeStream { name: StreamName, settings: Settings },
    DeleteStream { name: StreamName },
    /// Taken only if the placement still is `from`.
    SetPlacement { group: u64, from: Vec<u64>, to: Vec<u64> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NodeAdded { id: u64 },
    StreamCreated { group: u64 },
    /// The stream is there already (its record is in the catalog).
    StreamExists { group: u64 },
    Rejected(Reject),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject { NameTaken, NoSuchNode, NoSuchStream, TooManyStreams, TooManyNodes, PlacementChanged, AlreadyFounded, BadPlacement }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub cluster: u128,
    pub nodes: BTreeMap<u64, NodeRecord>,
    pub streams: BTreeMap<StreamName, StreamRecord>,
    /// Group ids from here on were never given out; a group below that no stream has was deleted.
    pub next_group: u64,
    pub next_node: u64,
}

impl Catalog {
    pub fn new() -> Catalog { todo!("core") }
    pub fn apply(&mut self, command: &Command) -> Outcome { todo!("core") }
    pub fn stream_of_group(&self, group: u64) -> Option<&StreamRecord> { todo!("core") }
    pub fn encode(&self) -> Bytes { todo!("core") }
    pub fn decode(bytes: Bytes) -> Result<Catalog, Corrupt> { todo!("core") }
}

impl Command {
    pub fn encode(&self) -> Bytes { todo!("core") }
    pub fn decode(bytes: Bytes) -> Result<Command, Corrupt> { todo!("core") }
}
