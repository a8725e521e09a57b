//! What a stream's group agrees on: the commands in its log, and their encoding.

use super::{SubjectFilter, Time, codec::Corrupt};
use bytes::Bytes;

/// An entry of a stream's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Publish(Publish),
    /// Removes every event before `before_seq`.
    Trim { before_seq: u64, /// Cumulative bytes of the stream at the event `before_seq` (all events before it, ever).
        bytes_before: u64 },
    /// Removes every event before `before_seq` whose subject the filter takes.
    PurgeSubject { filter: SubjectFilter, before_seq: u64, /// How many events and bytes that is: counted by the proposer, which read them.
        events: u64, bytes: u64 },
}

/// Everything that waited for a stream when the last entry was on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The leader's clock, at least the time of the entry before.
    pub time: Time,
    /// The stream's settings that decide, as the leader had them.
    pub dedup_window_ms: u64,
    /// Bounds for `discard: new`; `None` otherwise.
    pub max_events: Option<u64>,
    pub max_bytes: Option<u64>,
    /// Encoded requests (`batch::encode_request`), in order.
    pub requests: Vec<Bytes>,
}

impl Command {
    pub fn encode(&self) -> Bytes { todo!("core") }
    pub fn decode(bytes: Bytes) -> Result<Command, Corrupt> { todo!("core") }
}
