//! What the node's verbs take and give: plain values, no HTTP and no JSON.

use crate::core::{Event, NewEvent, NodeName, Settings, StreamName, SubjectFilter, Time, catalog::NodeState};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// A publish, checked at the edge.
#[derive(Clone, Debug)]
pub struct Publish {
    /// 1 to `limits::BATCH_EVENTS_MAX`.
    pub events: Vec<NewEvent>,
    pub expected_last_seq: Option<u64>,
    /// Answered by then, one way or another.
    pub deadline: Instant,
}

/// What became of a publish: durable on a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of the events that were stored; when all were duplicates, of the first and last original.
    pub first_seq: u64,
    pub last_seq: u64,
    /// Events stored.
    pub count: u32,
    /// Events known already and not stored again.
    pub duplicates: u32,
    pub time: Time,
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Seq(u64),
    Earliest,
    /// The last event and on.
    Latest,
    /// Only what comes.
    New,
    Time(Time),
}

/// An event on its way to readers, with its encodings made once for all of them.
#[derive(Debug)]
pub struct Delivery {
    pub event: Event,
    /// The JSON object of API.md; filled by the first reader that needs it (`wire` makes it).
    pub json: OnceLock<Bytes>,
}

/// What a reader meets.
#[derive(Clone, Debug)]
pub enum Item {
    Event(Arc<Delivery>),
    /// Retention or a purge removed these seqs (inclusive) before the reader came by.
    Gap {
        from: u64,
        to: u64,
    },
}

/// One step of a reader.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub items: Vec<Item>,
    /// Where the next step begins.
    pub next: u64,
    /// The stream's last seq as this node knew it.
    pub last_seq: u64,
}

/// How much one step may bring. `limits::CHUNK_EVENTS_MAX` and `CHUNK_BYTES_MAX` hold as well.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    pub events: usize,
    /// How long to wait for a first event; zero: what is there, after making sure with the leader that nothing
    /// acknowledged is missing.
    pub wait: Duration,
}

#[derive(Clone, Debug)]
pub struct StreamInfo {
    pub name: StreamName,
    pub settings: Settings,
    pub created: Time,
    pub first_seq: u64,
    pub last_seq: u64,
    pub events: u64,
    pub bytes: u64,
    pub leader: Option<NodeName>,
    pub term: u64,
    pub replicas: Vec<ReplicaInfo>,
}

#[derive(Clone, Debug)]
pub struct ReplicaInfo {
    pub node: NodeName,
    pub leader: bool,
    /// Log entries behind the leader; `None` when the leader has not heard of it.
    pub lag: Option<u64>,
    pub reachable: bool,
    pub state: ReplicaState,
    /// What is wrong with it, if something is.
    pub why: Option<String>,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// It takes part and is about as far as its leader.
    Ok,
    /// It takes part and has something to catch up with.
    Behind,
    /// The answering node cannot reach its node.
    Unreachable,
    /// Its data was damaged; it takes no part until it is made anew from the others.
    Rebuilding,
    /// Its data is damaged, and nothing can be done about that at present.
    Damaged,
}

/// A stream in a list: what the catalog knows, without asking the leader.
#[derive(Clone, Debug)]
pub struct StreamSummary {
    pub name: StreamName,
    pub settings: Settings,
    pub created: Time,
    pub leader: Option<NodeName>,
    pub replicas: Vec<NodeName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    Changed,
    Same,
}

#[derive(Clone, Debug)]
pub enum Purge {
    BeforeSeq(u64),
    Keep(u64),
    Subject(SubjectFilter),
}

#[derive(Clone, Copy, Debug)]
pub struct Purged {
    pub events: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
}

#[derive(Clone, Debug)]
pub struct ClusterInfo {
    /// 32 hexadecimal digits.
    pub cluster: String,
    /// The node that answers.
    pub node: NodeName,
    pub catalog_leader: Option<NodeName>,
    pub nodes: Vec<NodeInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    pub id: u64,
    pub name: NodeName,
    pub url: String,
    pub state: NodeState,
    pub version: String,
    /// Whether the answering node can reach it.
    pub reachable: bool,
    pub streams_led: u64,
    pub streams_held: u64,
    /// Its replicas that are damaged and cannot be rebuilt at present, and those that are being rebuilt; as it last said.
    pub replicas_damaged: u64,
    pub replicas_rebuilding: u64,
    /// Its replicas that are behind in the streams that the answering node leads.
    pub replicas_behind: u64,
    /// As the answering node last heard.
    pub disk: crate::store::Level,
}

/// Whether this node should get requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Starting(String),
    /// Its part of the catalog is damaged and is made anew from the others.
    Rebuilding(String),
    Draining,
    NoQuorum(String),
}
