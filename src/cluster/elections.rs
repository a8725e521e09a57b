//! The elections that replicas of this node win: why, how long each stage of a failover took, and the news of it.

use crate::core::limits;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::broadcast, time::Instant};

/// A call is the cause of an election that is won so soon after it.
const CALL_COUNTS: Duration = Duration::from_secs(2);
/// The upper bounds of the buckets of a stage's times, in milliseconds.
pub const STAGE_BOUNDS_MS: [u64; 8] = [5, 10, 20, 50, 100, 200, 500, 1_000];

/// Why a replica became the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A majority saw the leader before gone.
    Evidence,
    /// The leader before handed over.
    Transfer,
    /// Its replicas had been closed, or their nodes had been down.
    Opened,
    /// Nothing had come from a leader for too long.
    Timer,
}

/// A replica of this node leads now.
#[derive(Clone, Copy, Debug)]
pub struct Elected {
    pub group: u64,
    pub term: u64,
    pub cause: Cause,
    /// Since the leader before was seen gone.
    pub took: Option<Duration>,
}

/// An election of one group that was called for, and since when.
#[derive(Clone, Default)]
pub struct Called(Arc<Mutex<Option<Call>>>);

#[derive(Clone, Copy, Debug)]
struct Call {
    cause: Cause,
    at: Instant,
    /// When the leader before was seen gone.
    since: Instant,
}

impl Called {
    /// The leader hands over.
    pub fn transfer(&self) {
        let now = Instant::now();
        self.set(Call { cause: Cause::Transfer, at: now, since: now });
    }

    /// The verdict is that this replica stands in the place of a leader that was seen gone at `since`.
    pub fn verdict(&self, since: Instant) {
        self.set(Call { cause: Cause::Evidence, at: Instant::now(), since });
    }

    /// No replica that was just opened, here or elsewhere, knows of a leader.
    pub fn opened(&self) {
        let now = Instant::now();
        self.set(Call { cause: Cause::Opened, at: now, since: now });
    }

    fn set(&self, call: Call) {
        *self.0.lock().expect("nobody panics while holding it") = Some(call);
    }

    fn take(&self) -> Option<Call> {
        let call = self.0.lock().expect("nobody panics while holding it").take();
        call.filter(|call| call.at.elapsed() < CALL_COUNTS)
    }
}

/// Where groups tell that they lead.
#[derive(Clone)]
pub struct Elections {
    seen: Arc<ElectionsSeen>,
    news: broadcast::Sender<Elected>,
}

impl Default for Elections {
    fn default() -> Elections {
        Elections { seen: Arc::default(), news: broadcast::Sender::new(limits::ELECTIONS_WAITING_MAX) }
    }
}

impl Elections {
    pub fn news(&self) -> broadcast::Receiver<Elected> {
        self.news.subscribe()
    }

    pub fn seen(&self) -> &ElectionsSeen {
        &self.seen
    }

    /// A replica of this node leads, since now. Gives the cause.
    pub fn tell(&self, group: u64, term: u64, called: &Called) -> Cause {
        let call = called.take();
        let cause = call.map_or(Cause::Timer, |call| call.cause);
        let took = call.filter(|_| cause == Cause::Evidence).map(|call| call.since.elapsed());
        self.seen.count(cause, call);
        // Nobody has to listen.
        let _ = self.news.send(Elected { group, term, cause, took });
        cause
    }
}

/// Elections that this node won since its start, by cause, and how long the stages of its failovers took.
#[derive(Debug, Default)]
pub struct ElectionsSeen {
    pub by_evidence: AtomicU64,
    pub by_transfer: AtomicU64,
    pub by_opening: AtomicU64,
    pub by_timer: AtomicU64,
    /// From seeing a leader gone to the verdict that this node stands in its place.
    pub verdict: Times,
    /// From the verdict to leading.
    pub election: Times,
    /// From leading to the first entry of its own that is committed.
    pub first_commit: Times,
    /// Microseconds from seeing a leader gone to leading in its place, of the newest election by evidence.
    pub last_failover_us: AtomicU64,
}

impl ElectionsSeen {
    fn count(&self, cause: Cause, call: Option<Call>) {
        let counter = match cause {
            Cause::Evidence => &self.by_evidence,
            Cause::Transfer => &self.by_transfer,
            Cause::Opened => &self.by_opening,
            Cause::Timer => &self.by_timer,
        };
        counter.fetch_add(1, Relaxed);
        if let Some(call) = call.filter(|_| cause == Cause::Evidence) {
            self.verdict.add(call.at - call.since);
            self.election.add(call.at.elapsed());
            self.last_failover_us.store(call.since.elapsed().as_micros() as u64, Relaxed);
        }
    }
}

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Times {
    /// By the bounds of [`STAGE_BOUNDS_MS`], and what took longer than all of them.
    counts: [AtomicU64; STAGE_BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Times {
    pub fn add(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let bucket = STAGE_BOUNDS_MS.iter().position(|bound| us <= bound * 1_000).unwrap_or(STAGE_BOUNDS_MS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// The count of each bucket, those beyond the last bound at the end.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_stages_of_a_failover_are_told_apart() {
        let (elections, called) = (Elections::default(), Called::default());
        let mut news = elections.news();
        let gone = Instant::now();
        tokio::time::advance(Duration::from_millis(7)).await;
        called.verdict(gone);
        tokio::time::advance(Duration::from_millis(30)).await;
        assert_eq!(elections.tell(3, 9, &called), Cause::Evidence);
        assert_eq!(news.try_recv().unwrap().took, Some(Duration::from_millis(37)));
        let seen = elections.seen();
        assert_eq!((seen.verdict.sum_us(), seen.election.sum_us()), (7_000, 30_000));
        assert_eq!((seen.verdict.counts()[1], seen.election.counts()[3]), (1, 1));
        called.transfer();
        assert_eq!(elections.tell(3, 10, &called), Cause::Transfer);
        called.transfer();
        tokio::time::advance(CALL_COUNTS).await;
        assert_eq!(elections.tell(3, 11, &called), Cause::Timer, "that call was too long ago");
        assert_eq!(seen.election.counts().iter().sum::<u64>(), 1);
    }

    #[test]
    fn times_beyond_all_bounds_are_counted_too() {
        let times = Times::default();
        [5, 6, 1_000, 5_000].into_iter().for_each(|ms| times.add(Duration::from_millis(ms)));
        assert_eq!(times.counts(), [1, 1, 0, 0, 0, 0, 0, 1, 1]);
    }
}
