//! What happened, and what must be true of it: every publish with its outcome, every event that anybody was given, in one place.
//!
//! The checks that can be made at once are made at once, so that a trace ends where something went wrong; the others are in `check`.

use super::net::HostId;
use super::world::now;
use evermesh::node::{Error, Published};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};

/// Where an event comes from: the operation that published it, and its place in that batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    pub op: u64,
    pub at: u64,
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.op, self.at)
    }
}

impl Value {
    pub fn parse(data: &[u8]) -> Option<Value> {
        let (op, at) = std::str::from_utf8(data).ok()?.trim_end().split_once('.')?;
        Some(Value { op: op.parse().ok()?, at: at.parse().ok()? })
    }
}

/// Who publishes in order: a publisher of one boot of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    pub host: HostId,
    pub boot: u64,
    pub publisher: usize,
}

pub struct Op {
    pub stream: usize,
    pub session: Session,
    pub count: u64,
    pub id: Option<String>,
    pub expected: Option<u64>,
    /// The largest seq of the stream that was acknowledged to anybody before this began.
    pub acked_before: u64,
    /// When it began, in milliseconds, and how long it took.
    pub at: u64,
    pub took: Option<u64>,
    pub outcome: Option<Result<Published, Error>>,
}

#[derive(Default)]
pub struct StreamHistory {
    /// What anybody was ever given at a seq.
    pub truth: BTreeMap<u64, (Value, Option<String>)>,
    pub place: BTreeMap<Value, u64>,
    /// The largest seq that was acknowledged.
    pub acked: u64,
    /// Each host's follower: where it goes on.
    pub cursors: BTreeMap<HostId, u64>,
    /// The largest seq that was ever told as a gap.
    pub gap: u64,
    /// Events may be removed: by retention or by a purge.
    pub trims: bool,
}

#[derive(Default)]
pub struct History {
    pub streams: Vec<StreamHistory>,
    pub ops: BTreeMap<u64, Op>,
    next_op: u64,
    pub violations: Vec<String>,
    digest: DefaultHasher,
    /// Hosts whose disk was told to fail: that their node gives up is right.
    failing: BTreeSet<HostId>,
    /// Hosts whose node ended because it was removed; whether that was wanted, the scenario knows.
    pub left: BTreeSet<HostId>,
    /// Event ids that were published, by stream, for repeating them.
    pub ids: BTreeMap<usize, Vec<String>>,
    /// Clients work from when this is set until `stopped` is.
    pub begun: bool,
    pub stopped: bool,
    /// How long publishers pause at most, in milliseconds.
    pub pause_ms: u64,
    /// The boot of each node that runs.
    alive: BTreeMap<HostId, u64>,
    pub counts: Counts,
    verbose: bool,
}

#[derive(Default, Clone, Copy, Debug)]
pub struct Counts {
    pub acked: u64,
    pub refused: u64,
    pub unknown: u64,
    pub events: u64,
    pub reads: u64,
    pub faults: u64,
    /// Times that nodes merged segments since their last starts.
    pub merges: u64,
    /// Times that nodes put streams to sleep since their last starts.
    pub naps: u64,
}

/// The history, shared by everything in the simulation.
pub struct Shared(Mutex<History>);

impl Shared {
    pub fn new(streams: usize, verbose: bool) -> Shared {
        let streams = (0..streams).map(|_| StreamHistory::default()).collect();
        Shared(Mutex::new(History { streams, next_op: 1, verbose, ..History::default() }))
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().expect("nobody panics while holding it")
    }

    pub fn trace(&self, what: Arguments<'_>) {
        self.history().trace(what);
    }

    pub fn violation(&self, what: String) {
        self.history().violation(what);
    }

    pub fn stopped(&self) -> bool {
        self.history().stopped
    }

    pub fn begun(&self) -> bool {
        self.history().begun
    }

    pub fn started(&self, host: HostId, boot: u64) {
        self.history().alive.insert(host, boot);
    }

    pub fn died(&self, host: HostId) {
        let mut history = self.history();
        history.failing.remove(&host);
        history.alive.remove(&host);
    }

    pub fn expect_failure(&self, host: HostId) {
        self.history().failing.insert(host);
    }

    pub fn node_failed(&self, host: HostId, why: &str) {
        let mut history = self.history();
        history.trace(format_args!("host {host} gives up: {why}"));
        if why.contains("was removed from the cluster") {
            history.left.insert(host);
            return;
        }
        if !history.failing.contains(&host) {
            history.violation(format!("host {host} gave up though nothing is wrong with its disk: {why}"));
        }
    }
}

impl History {
    /// Publishes that were never answered, though their node runs on since.
    pub fn unanswered(&self) -> impl Iterator<Item = u64> {
        let waiting = self.ops.iter().filter(|(_, op)| op.outcome.is_none());
        waiting.filter(|(_, op)| self.alive.get(&op.session.host) == Some(&op.session.boot)).map(|(number, _)| *number)
    }

    /// The longest wait of a publish that ended since `from` or has not, at any host but one; and its number.
    pub fn longest_wait(&self, from: u64, but: HostId) -> (u64, u64) {
        let waits = self.ops.iter().filter(|(_, op)| op.session.host != but && op.took.is_none_or(|took| op.at + took >= from));
        waits.map(|(number, op)| (op.took.unwrap_or_else(|| now() - op.at), *number)).max().unwrap_or_default()
    }

    /// Whatever decides or comes out is said here: the digest is over these lines.
    pub fn trace(&mut self, what: Arguments<'_>) {
        let line = format!("{:>6} {what}", now());
        line.hash(&mut self.digest);
        if self.verbose {
            eprintln!("{line}");
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub fn violation(&mut self, what: String) {
        self.trace(format_args!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    /// A publish begins. Gives its number, which its events carry.
    pub fn begin(&mut self, stream: usize, session: Session, count: u64, id: Option<String>, expected: Option<u64>) -> u64 {
        let number = self.next_op;
        self.next_op += 1;
        let acked_before = self.streams[stream].acked;
        self.trace(format_args!(
            "op {number}: host {} publisher {} publishes {count} to s{stream} (id {id:?}, expects {expected:?})",
            session.host, session.publisher
        ));
        if let Some(id) = &id {
            self.ids.entry(stream).or_default().push(id.clone());
        }
        self.ops.insert(number, Op { stream, session, count, id, expected, acked_before, at: now(), took: None, outcome: None });
        number
    }

    pub fn end(&mut self, number: u64, outcome: Result<Published, Error>) {
        self.trace(format_args!("op {number}: {outcome:?}"));
        let op = self.ops.get_mut(&number).expect("it was begun");
        op.outcome = Some(outcome.clone());
        op.took = Some(now() - op.at);
        let Op { stream, count, expected, acked_before, .. } = *op;
        let id = op.id.clone();
        match outcome {
            Ok(published) => {
                self.counts.acked += 1;
                self.acknowledged(number, published, (stream, count, expected, acked_before), id);
            }
            Err(Error::ExpectationFailed { last_seq }) => {
                self.counts.refused += 1;
                if expected == Some(last_seq) || last_seq < acked_before {
                    self.violation(format!(
                        "op {number} expected {expected:?} and was told {last_seq}, after {acked_before} was acknowledged"
                    ));
                }
            }
            Err(Error::OutcomeUnknown) => self.counts.unknown += 1,
            Err(Error::Internal(why)) => self.violation(format!("op {number} met an internal error: {why}")),
            Err(_) => self.counts.refused += 1,
        }
    }

    fn acknowledged(&mut self, number: u64, published: Published, op: (usize, u64, Option<u64>, u64), id: Option<String>) {
        let (stream, count, expected, acked_before) = op;
        let Published { first_seq, last_seq, count: stored, duplicates, .. } = published;
        if u64::from(stored) + u64::from(duplicates) != count {
            self.violation(format!("op {number} had {count} events and was answered {published:?}"));
        }
        if duplicates == 0 {
            if last_seq + 1 - first_seq != count {
                self.violation(format!("op {number} had {count} events and was answered {published:?}"));
            }
            if first_seq <= acked_before {
                self.violation(format!("op {number} got {first_seq} though {acked_before} was acknowledged before it began"));
            }
            for at in 0..count {
                self.saw(stream, first_seq + at, Value { op: number, at }, id.clone(), "its acknowledgement");
            }
        }
        if let Some(expected) = expected.filter(|expected| duplicates == 0 && *expected + 1 != first_seq) {
            self.violation(format!("op {number} expected {expected} and got {first_seq}"));
        }
        if duplicates > 0
            && stored == 0
            && let Some((_, known)) = self.streams[stream].truth.get(&first_seq)
            && *known != id
        {
            let known = known.clone();
            self.violation(format!("op {number} with id {id:?} is said to be {first_seq}, which has id {known:?}"));
        }
        let acked = &mut self.streams[stream].acked;
        *acked = (*acked).max(last_seq);
    }

    /// Somebody was given this event: the same one as anybody else ever at that seq, and at no other.
    pub fn saw(&mut self, stream: usize, seq: u64, value: Value, id: Option<String>, by: &str) {
        let history = &mut self.streams[stream];
        let before = history.truth.entry(seq).or_insert_with(|| (value, id)).0;
        let place = *history.place.entry(value).or_insert(seq);
        if before != value {
            self.violation(format!("s{stream} has {before} at {seq}, but {value} for {by}"));
        } else if place != seq {
            self.violation(format!("s{stream} has {value} at {place}, and at {seq} for {by}"));
        } else {
            self.counts.events += 1;
        }
    }
}
