//! Why a node did not do what it was asked: the three kinds of STYLE.md, never mixed, with what a program needs to go on.

use crate::core::{Invalid, StreamName};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    // Wrong requests and deterministic rejects: repeating them as they are gives the same answer.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("there is no stream {0}")]
    StreamNotFound(StreamName),
    #[error("there is no node {0}")]
    NodeNotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("stream ends at {last_seq}: there is no event {seq}")]
    EventNotFound { seq: u64, last_seq: u64 },
    #[error("event {seq} is gone: the stream starts at {first_seq}")]
    EventGone { seq: u64, first_seq: u64 },
    #[error("the stream's last seq is {last_seq}")]
    ExpectationFailed { last_seq: u64 },
    #[error("an event of {bytes} bytes is over the limit of {limit}")]
    EventTooLarge { bytes: u64, limit: u64 },
    #[error("a batch has at most {limit} {unit}")]
    BatchTooLarge { limit: u64, unit: &'static str },
    #[error("the stream is full and set to reject new events: its limit is {limit} {unit}")]
    StreamFull { limit: u64, unit: &'static str },
    #[error("the stream remembers {limit} event ids already: publish slower or shorten its dedup_window")]
    DedupFull { limit: u64 },
    #[error("{0}")]
    LimitReached(String),

    // Refusals: not accepted here and now; safe to repeat.
    #[error("no leader was found for the stream in time")]
    NoLeader,
    #[error("too much is waiting on this node: {0}")]
    Overloaded(&'static str),
    #[error("the disks of too many of the stream's replicas are nearly full")]
    DiskFull,
    #[error("this node is shutting down or drained")]
    Draining,
    #[error("this node is still starting")]
    Starting,
    #[error("{0}")]
    Damaged(String),
    #[error("not enough of the cluster could be reached in time: {0}")]
    NoQuorum(String),

    // It may have been done, or may still be.
    #[error("the outcome is unknown: the event may or may not have been accepted")]
    OutcomeUnknown,

    /// A fault of this node.
    #[error("internal error: {0}")]
    Internal(String),
}

pub type Result<T> = std::result::Result<T, Error>;
