//! What happened, in few bytes an operation: publishes with their outcomes, logs as nodes gave them, and what readers met.
//!
//! Plain values: the workload records, the invariants judge. Times are microseconds since the run began.

use crate::value::Value;

/// One publish from its first attempt to its outcome: one event, or a batch whose values follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    pub stream: u16,
    /// Requests with the same lane were sent one after the other on one WebSocket, each once; 0 is no lane.
    pub lane: u32,
    pub first: Value,
    pub count: u32,
    pub invoked_us: u64,
    pub done_us: u64,
    /// The seq that it expected the stream to end with.
    pub expected: Option<u64>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, the first event at this seq and the others behind it.
    Acked { seq: u64 },
    /// It may have been stored, or may still be.
    Unknown,
    /// Certainly not stored: told so by a node, or never sent.
    Refused,
    /// Not stored, since the stream's last seq was this one.
    Mismatch { actual: u64 },
}

impl Op {
    pub fn values(&self) -> impl Iterator<Item = Value> + use<> {
        let first = self.first;
        (0..u64::from(self.count)).map(move |at| first.plus(at))
    }

    pub fn acked_at(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acked { seq } => Some(seq),
            _ => None,
        }
    }
}

/// An acknowledged publish that was sent once more under the same ids, and what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    pub stream: u16,
    pub value: Value,
    pub first_seq: u64,
    pub told_seq: u64,
    pub told_duplicate: bool,
}

/// One event as a node gave it, without what the event's bytes say again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// `None`: the bytes are none that were ever sent.
    pub value: Option<Value>,
    /// Of the whole event as the node gave it: seq, time, subject, id, content type, headers and data.
    pub hash: u64,
}

/// A stream's events from seq 1 on, as one node gave them at the end.
#[derive(Clone, Debug, Default)]
pub struct NodeLog {
    pub node: String,
    pub events: Vec<Stored>,
}

/// All of one stream.
#[derive(Clone, Debug, Default)]
pub struct StreamHistory {
    pub name: String,
    pub ops: Vec<Op>,
    pub repeats: Vec<Repeat>,
    pub logs: Vec<NodeLog>,
}

impl StreamHistory {
    /// The stream's log for the invariants that need one; `replicas` compares it with the others.
    pub fn log(&self) -> &[Stored] {
        self.logs.iter().map(|log| log.events.as_slice()).max_by_key(|events| events.len()).unwrap_or(&[])
    }
}
