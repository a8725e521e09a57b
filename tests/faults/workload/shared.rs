//! What all tasks of the load share: the clock, where the nodes are, what was told, what went wrong, and counts.

use super::leaders::Leaders;
use crate::cluster::Roster;
use crate::invariants::{Kind, Violation, agreement::Told};
use crate::value::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Violations kept in words; all are counted.
const TOLD_MAX: usize = 40;
/// Acknowledged events that wait to be read back.
const CHECKS_WAITING_MAX: usize = 256;
/// How long an outcome is asked for after the end of the load.
pub const OUTCOME_WAIT: Duration = Duration::from_secs(90);

/// One stream as the load knows it.
pub struct Stream {
    pub name: String,
    pub told: Mutex<Told>,
    last_ack_us: AtomicU64,
    longest_gap_us: AtomicU64,
}

/// An acknowledged event to be read at some node.
pub struct Check {
    pub stream: usize,
    pub seq: u64,
    pub value: Value,
}

#[derive(Default)]
pub struct Counts {
    pub acked: AtomicU64,
    pub unknown: AtomicU64,
    pub refused: AtomicU64,
    pub mismatches: AtomicU64,
    pub delivered: AtomicU64,
    pub resumes: AtomicU64,
    pub reads: AtomicU64,
    pub reads_silent: AtomicU64,
    pub repeats: AtomicU64,
}

pub struct Shared {
    pub seed: u64,
    pub roster: Roster,
    pub streams: Vec<Stream>,
    pub counts: Counts,
    /// Publishers begin nothing new.
    pub ending: CancellationToken,
    /// Readers end when they are at the end.
    pub finishing: CancellationToken,
    /// Everybody ends now.
    pub closing: CancellationToken,
    /// Whether events may go away by retention.
    pub retention: bool,
    pub checks: mpsc::Sender<Check>,
    pub checks_due: tokio::sync::Mutex<mpsc::Receiver<Check>>,
    began: Instant,
    lanes: AtomicU32,
    violations: Mutex<Violations>,
    leaders: Mutex<Leaders>,
}

impl Stream {
    pub fn last_ack_us(&self) -> u64 {
        self.last_ack_us.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Default)]
pub struct Violations {
    pub counts: BTreeMap<Kind, u64>,
    pub told: Vec<Violation>,
}

impl Shared {
    pub fn new(seed: u64, roster: Roster, streams: &[String]) -> Shared {
        let (checks, due) = mpsc::channel(CHECKS_WAITING_MAX);
        let stream = |name: &String| Stream {
            name: name.clone(),
            told: Mutex::default(),
            last_ack_us: AtomicU64::new(0),
            longest_gap_us: AtomicU64::new(0),
        };
        Shared {
            seed,
            roster,
            streams: streams.iter().map(stream).collect(),
            counts: Counts::default(),
            ending: CancellationToken::new(),
            finishing: CancellationToken::new(),
            closing: CancellationToken::new(),
            retention: false,
            checks,
            checks_due: tokio::sync::Mutex::new(due),
            began: Instant::now(),
            lanes: AtomicU32::new(1),
            violations: Mutex::default(),
            leaders: Mutex::default(),
        }
    }

    /// Events may go away by retention.
    pub fn with_retention(mut self) -> Shared {
        self.retention = true;
        self
    }

    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    pub fn next_lane(&self) -> u32 {
        self.lanes.fetch_add(1, Ordering::Relaxed)
    }

    /// An acknowledgement came in: for one event, or for several in a row.
    pub fn acked(&self, who: &str, stream: usize, first: Value, count: u32, seq: u64) {
        let now = self.now_us();
        self.counts.acked.fetch_add(count.into(), Ordering::Relaxed);
        let it = &self.streams[stream];
        let before = it.last_ack_us.swap(now, Ordering::Relaxed);
        if before > 0 {
            it.longest_gap_us.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
        }
        let mut told = it.told.lock().expect("nobody panics while holding it");
        let results: Vec<_> = (0..u64::from(count)).map(|at| told.tell(who, seq + at, first.plus(at))).collect();
        drop(told);
        results.into_iter().for_each(|result| self.judge(result));
    }

    /// The longest time between two acknowledgements of one stream.
    pub fn longest_gap(&self) -> Duration {
        let longest = self.streams.iter().map(|stream| stream.longest_gap_us.load(Ordering::Relaxed)).max();
        Duration::from_micros(longest.unwrap_or(0))
    }

    /// A node said who leads.
    pub fn led(&self, stream: &str, term: u64, leader: &str) {
        self.leaders().named(stream, term, leader);
    }

    pub fn leader(&self, stream: &str) -> Option<String> {
        self.leaders().last(stream).map(str::to_owned)
    }

    pub fn leader_changes(&self) -> u64 {
        self.leaders().changes
    }

    fn leaders(&self) -> MutexGuard<'_, Leaders> {
        self.leaders.lock().expect("nobody panics while holding it")
    }

    pub fn judge(&self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violate(violation);
        }
    }

    pub fn violate(&self, violation: Violation) {
        let mut all = self.violations();
        *all.counts.entry(violation.kind).or_default() += 1;
        if all.told.len() < TOLD_MAX {
            eprintln!("{:8.3} s  VIOLATION ({}): {}", self.now_us() as f64 / 1e6, violation.kind.name(), violation.text);
            all.told.push(violation);
        }
    }

    /// A fault of the harness must not look like success.
    pub fn harness_failed(&self, why: &str) {
        self.violate(Violation::new(Kind::Hung, format!("the harness itself failed: {why}")));
    }

    pub fn violations(&self) -> MutexGuard<'_, Violations> {
        self.violations.lock().expect("nobody panics while holding it")
    }
}
