//! A stream's replicated state: folds the commands of its log into seqs, deduplication and bounds.

use super::{Event, SubjectFilter, Text, Time, codec::Corrupt, command::{Command, Publish}};
use bytes::Bytes;

/// A deterministic no: part of the replicated result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `expected_last_seq` was not the last seq.
    Expectation { last_seq: u64 },
    /// `discard: new` and no room.
    Full { limit: u64, bytes: bool },
    /// `limits::DEDUP_IDS_MAX` ids are remembered already.
    DedupFull,
    /// The origin had settled this counter, or has a newer boot: nobody waits for the outcome.
    Stale,
    /// A subject purge too many (`limits::TOMBSTONES_MAX`).
    TombstonesFull,
}

/// What became of one request, or of one other command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `count` events were stored as `first_seq..=last_seq`, `duplicates` were known already. When nothing was stored,
    /// `count` is 0 and the seqs are those of the first and last original.
    Published { first_seq: u64, last_seq: u64, count: u32, duplicates: u32, time: Time },
    Trimmed { events: u64, bytes: u64 },
    Rejected(Reject),
}

/// What applying one entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// One a request for `Publish`, else one.
    pub outcomes: Vec<Outcome>,
    /// The seq that the entry's first stored event has or would have.
    pub first_seq: u64,
    /// Positions, over all events of the entry in order, that were not stored (ascending).
    pub skipped: Vec<u32>,
}

/// Where reading starts: the entry at `index` begins with event `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place { pub index: u64, pub seq: u64, /// Cumulative bytes of the stream before that event.
    pub bytes: u64 }

/// A stream's size, for everybody to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State { pub first_seq: u64, pub last_seq: u64, pub events: u64, pub bytes: u64, pub last_time: Time }

pub struct Machine {}

impl Machine {
    pub fn new() -> Machine { todo!("core") }
    /// Folds one entry. Entries come in order of `index`, each once.
    pub fn apply(&mut self, index: u64, command: &Command) -> Result<Applied, Corrupt> { todo!("core") }
    pub fn state(&self) -> State { todo!("core") }
    /// The newest mark at or before `seq`; `None` when every mark is after it (the entries are gone).
    pub fn locate(&self, seq: u64) -> Option<Place> { todo!("core") }
    /// The newest mark whose entry is older than `time`, or the oldest mark.
    pub fn locate_time(&self, time: Time) -> Option<Place> { todo!("core") }
    /// The skipped positions of an entry, if any.
    pub fn skipped(&self, index: u64) -> Option<&[u32]> { todo!("core") }
    /// Whether a subject purge removed the event.
    pub fn is_purged(&self, seq: u64, subject: Option<&str>) -> bool { todo!("core") }
    /// The seq under which an event id is remembered (not older than the window at `now`).
    pub fn find_id(&self, id: &str, now: Time, window_ms: u64) -> Option<(u64, Time)> { todo!("core") }
    /// Forgets marks and skips of entries up to and including `index`: they are purged from the log.
    pub fn forget_through(&mut self, index: u64) { todo!("core") }
    /// Everything, version 1.
    pub fn encode(&self) -> Bytes { todo!("core") }
    pub fn decode(bytes: Bytes) -> Result<Machine, Corrupt> { todo!("core") }
}

/// The events of an applied entry, with their seqs: requests in order, without the skipped positions.
pub fn events_of(publish: &Publish, first_seq: u64, skipped: &[u32]) -> Result<Vec<Event>, Corrupt> { todo!("core") }
