//! What must hold, one file each, each a plain function over what was recorded, with tests that show it failing.
//!
//! | invariant | file | source |
//! |---|---|---|
//! | every acknowledged event is in the log, at its seq | `acknowledged` | promise 1: never lost; Jepsen's "lost writes" |
//! | no value is there twice, none that was refused or never sent | `once` | promise 1: exactly once; 503 is "not accepted" |
//! | all nodes give the same bytes at the same seqs | `replicas` | Raft, Log Matching and State Machine Safety (Ongaro 2014, 3.2) |
//! | a publish that began after another was acknowledged comes after it | `order` | linearizability per stream (Herlihy and Wing 1990) |
//! | what was sent in order over one socket is stored in order | `lanes` | the contract: publishes on one socket are ordered as sent |
//! | a batch is stored whole and in one piece, or not at all | `batches` | the contract: all or none |
//! | a publish that expects a last seq is stored there or nowhere | `expectations` | compare-and-set per stream |
//! | a repeated `Event-Id` is told the first seq | `repeats` | the contract: idempotence within the window |
//! | a reader meets every seq once, in order, through every resume | `reader` | promise 3 |
//! | nobody is told two events at one seq, at any time | `agreement` | promise 1: never changed, never in two orders |
//! | what was acknowledged is read at once, on every node | `recency` | the contract of `GET …/events/{seq}` |

pub mod acknowledged;
pub mod agreement;
pub mod batches;
pub mod expectations;
pub mod lanes;
pub mod once;
pub mod order;
pub mod reader;
pub mod recency;
pub mod repeats;
pub mod replicas;
#[cfg(test)]
pub mod sample;

use crate::history::StreamHistory;

/// What went wrong, as the last report counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Lost,
    Duplicated,
    Reordered,
    Diverged,
    /// Bytes that nobody sent.
    Wrong,
    /// Something acknowledged that a later read did not see.
    Stale,
    /// An answer that the contract does not allow.
    Answer,
    /// Nothing goes on although it should.
    Hung,
    /// A process ended or panicked by itself.
    Crashed,
}

impl Kind {
    pub const ALL: [Kind; 9] =
        [Kind::Lost, Kind::Duplicated, Kind::Reordered, Kind::Diverged, Kind::Wrong, Kind::Stale, Kind::Answer, Kind::Hung, Kind::Crashed];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Duplicated => "duplicated",
            Kind::Reordered => "reordered",
            Kind::Diverged => "diverged",
            Kind::Wrong => "wrong bytes",
            Kind::Stale => "stale",
            Kind::Answer => "wrong answers",
            Kind::Hung => "hung",
            Kind::Crashed => "crashed",
        }
    }
}

/// A broken invariant, in words that name the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

impl Violation {
    pub fn new(kind: Kind, text: impl Into<String>) -> Violation {
        Violation { kind, text: text.into() }
    }
}

/// Everything that can be judged when a run is over.
pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(replicas::check(history));
    found.extend(acknowledged::check(history));
    found.extend(once::check(history));
    found.extend(order::check(history));
    found.extend(lanes::check(history));
    found.extend(batches::check(history));
    found.extend(expectations::check(history));
    found.extend(repeats::check(history));
    found
}
