//! A publisher: values of its own, one request after the other, each until its outcome is known or cannot be.
//!
//! - With an id, a request is repeated, at the next node, until its outcome is known; without one, only when it certainly was not
//!   taken.
//! - Some requests that were refused are given up on purpose: such a value must never show up.

use super::http::{Answer, Http};
use super::shared::{Check, OUTCOME_WAIT, Shared};
use crate::history::{Op, Outcome, Repeat};
use crate::invariants::{Kind, Violation};
use crate::random::Random;
use crate::value::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Single { ids: bool },
    Batch { ids: bool },
    Socket { ids: bool },
    Expecting { ids: bool },
}

const BATCH: u64 = 24;

impl Style {
    /// Events of one request, for the pace.
    pub fn events(self) -> u64 {
        match self {
            Style::Batch { .. } => BATCH,
            Style::Socket { .. } => 4,
            _ => 1,
        }
    }

    pub fn ids(self) -> bool {
        match self {
            Style::Single { ids } | Style::Batch { ids } | Style::Socket { ids } | Style::Expecting { ids } => ids,
        }
    }
}

/// What a publisher wrote down.
#[derive(Default)]
pub struct Recorded {
    pub ops: Vec<Op>,
    pub repeats: Vec<Repeat>,
}

pub struct Publisher {
    pub(super) shared: Arc<Shared>,
    pub(super) name: String,
    pub(super) stream: usize,
    pub(super) style: Style,
    pub(super) pause: Duration,
    pub(super) random: Random,
    pub(super) recorded: Recorded,
    id: u64,
    counter: u64,
    node: usize,
    /// What it believes to be the stream's last seq.
    expected: u64,
    http: Http,
}

impl Publisher {
    pub fn new(shared: Arc<Shared>, id: u64, stream: usize, style: Style, pause: Duration) -> Publisher {
        let mut random = Random::part(shared.seed, id);
        let node = random.index(64);
        let name = format!("publisher {id} ({style:?} to {})", shared.streams[stream].name);
        let recorded = Recorded::default();
        Publisher { shared, name, stream, style, pause, random, recorded, id, counter: 0, node, expected: 0, http: Http::new() }
    }

    pub async fn run(mut self) -> Recorded {
        if let Style::Socket { .. } = self.style {
            return self.run_socket().await;
        }
        while !self.shared.ending.is_cancelled() {
            let count = match self.style {
                Style::Batch { .. } => self.random.between(2, 2 * BATCH - 2) as u32,
                _ => 1,
            };
            let op = self.publish(count).await;
            self.record(op);
            self.wander();
            let pause = self.pause.mul_f64(0.5 + self.random.below(100) as f64 / 100.0);
            let _ = tokio::time::timeout(pause, self.shared.ending.cancelled()).await;
        }
        self.recorded
    }

    pub(super) fn record(&mut self, op: Op) {
        let counts = &self.shared.counts;
        match op.outcome {
            Outcome::Acked { .. } => {}
            Outcome::Unknown => drop(counts.unknown.fetch_add(1, Relaxed)),
            Outcome::Refused => drop(counts.refused.fetch_add(1, Relaxed)),
            Outcome::Mismatch { .. } => drop(counts.mismatches.fetch_add(1, Relaxed)),
        }
        self.recorded.ops.push(op);
    }

    pub(super) fn next_value(&mut self, count: u32) -> Value {
        let first = Value::new(self.id, self.counter);
        self.counter += u64::from(count);
        first
    }

    pub(super) fn url(&self) -> String {
        let urls = self.shared.roster.urls();
        urls[self.node % urls.len()].clone()
    }

    pub(super) fn next_node(&mut self) {
        self.node += 1;
    }

    /// Now and then a client goes elsewhere without a reason.
    fn wander(&mut self) {
        if self.random.chance(3) {
            self.node = self.random.index(64);
        }
    }

    async fn send(&self, first: Value, count: u32, expected: Option<u64>) -> Answer {
        let (url, stream) = (self.url(), &self.shared.streams[self.stream].name);
        match self.style {
            Style::Batch { ids } => self.http.batch(&url, stream, first, count, ids).await,
            _ => self.http.publish(&url, stream, first, self.style.ids(), expected).await,
        }
    }

    async fn publish(&mut self, count: u32) -> Op {
        let first = self.next_value(count);
        let expected = matches!(self.style, Style::Expecting { .. }).then_some(self.expected);
        let invoked_us = self.shared.now_us();
        let (mut attempts, mut maybe, mut patience) = (0, false, None);
        let outcome = loop {
            let answer = self.send(first, count, expected).await;
            attempts += 1;
            let wait = match answer {
                Answer::Acked { seq, duplicates } => {
                    if duplicates > 0 && attempts == 1 {
                        self.wrong(format!("{first} was called a duplicate when it was sent first"));
                    }
                    break self.acked(first, count, seq).await;
                }
                Answer::Mismatch { actual } => {
                    self.expected = actual;
                    break if maybe { Outcome::Unknown } else { Outcome::Mismatch { actual } };
                }
                Answer::Wrong(why) => {
                    self.wrong(why);
                    break Outcome::Unknown;
                }
                Answer::Unknown if !self.style.ids() => break Outcome::Unknown,
                Answer::Unknown => {
                    maybe = true;
                    Duration::from_millis(20)
                }
                Answer::Unsent => Duration::from_millis(50),
                Answer::Refused { .. } if !maybe && self.random.chance(20) => break Outcome::Refused,
                Answer::Refused { wait } => wait,
            };
            self.next_node();
            tokio::time::sleep(wait).await;
            if self.shared.ending.is_cancelled() {
                let ending = *patience.get_or_insert_with(tokio::time::Instant::now);
                if !maybe || ending.elapsed() > OUTCOME_WAIT {
                    break if maybe { Outcome::Unknown } else { Outcome::Refused };
                }
            }
        };
        Op { stream: self.stream as u16, lane: 0, first, count, invoked_us, done_us: self.shared.now_us(), expected, outcome }
    }

    async fn acked(&mut self, first: Value, count: u32, seq: u64) -> Outcome {
        self.shared.acked(&self.name, self.stream, first, count, seq);
        self.expected = seq;
        if self.random.chance(10) {
            let at = self.random.below(count.into());
            // Checks that nobody has time for are left out, not waited for.
            let _ = self.shared.checks.try_send(Check { stream: self.stream, seq: seq + at, value: first.plus(at) });
        }
        if self.style == (Style::Single { ids: true }) && self.random.chance(3) {
            self.repeat(first, seq).await;
        }
        Outcome::Acked { seq }
    }

    /// Sends an acknowledged publish once more, elsewhere.
    async fn repeat(&mut self, value: Value, first_seq: u64) {
        self.next_node();
        match self.send(value, 1, None).await {
            Answer::Acked { seq, duplicates } => {
                self.shared.counts.repeats.fetch_add(1, Relaxed);
                let told_duplicate = duplicates > 0;
                let stream = self.stream as u16;
                self.recorded.repeats.push(Repeat { stream, value, first_seq, told_seq: seq, told_duplicate });
            }
            Answer::Wrong(why) => self.wrong(why),
            _ => {}
        }
    }

    pub(super) fn wrong(&self, why: String) {
        self.shared.violate(Violation::new(Kind::Answer, format!("{}: {why}", self.name)));
    }
}
