//! What happened to the probe's publishes, and what that says: acknowledged, lost, twice, out of order, and how long nobody was served.
//!
//! - Times are microseconds since the drill began, taken when an answer was read; acknowledgements are kept in that order.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// What one probe event says: its publisher's number, and the publisher's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    pub publisher: u32,
    pub count: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub at_us: u64,
    pub took_us: u64,
    pub value: Value,
    pub seq: u64,
}

#[derive(Default)]
pub struct History {
    pub acks: Vec<Ack>,
    /// Publishes that ended with an error after all their attempts, and a few of the reasons.
    pub failed: u64,
    pub reasons: Vec<String>,
    /// Acknowledged as known already: the first attempt was stored and its answer lost.
    pub recognised: u64,
}

/// Different errors that are shown in words.
const REASONS_MAX: usize = 5;

impl History {
    pub fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.reasons.len() < REASONS_MAX && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
    }

    /// The longest time without an acknowledgement that overlaps `from..to`, as (begin, end); what has not ended ends at `to`.
    pub fn longest_gap(&self, from_us: u64, to_us: u64) -> (u64, u64) {
        self.longest_gap_begun(from_us, to_us, to_us)
    }

    /// The same of those that begin before `before_us`.
    pub fn longest_gap_begun(&self, from_us: u64, to_us: u64, before_us: u64) -> (u64, u64) {
        let after = self.acks.partition_point(|ack| ack.at_us <= from_us);
        let mut begin = if after > 0 { self.acks[after - 1].at_us } else { from_us };
        let mut longest = (begin, begin);
        let inside = self.acks[after..].iter().map(|ack| ack.at_us);
        for at in inside.take_while(|at| *at <= to_us).chain([to_us]) {
            if begin < before_us && at - begin > longest.1 - longest.0 {
                longest = (begin, at);
            }
            begin = at;
        }
        longest
    }

    /// The longest time without an acknowledgement between the first and the last.
    pub fn longest_gap_of_all(&self) -> Duration {
        let (Some(first), Some(last)) = (self.acks.first(), self.acks.last()) else { return Duration::ZERO };
        let (begin, end) = self.longest_gap(first.at_us, last.at_us);
        Duration::from_micros(end - begin)
    }

    /// How long publishes took, with all their attempts, at this percentile.
    pub fn took(&self, percentile: f64) -> Duration {
        let mut took: Vec<u64> = self.acks.iter().map(|ack| ack.took_us).collect();
        took.sort_unstable();
        let at = (took.len() as f64 * percentile / 100.0).ceil() as usize;
        Duration::from_micros(took.get(at.saturating_sub(1)).copied().unwrap_or(0))
    }
}

/// What the stream says of the publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged, and not at the seq that the acknowledgement named.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Behind an event that its publisher sent later.
    pub reordered: u64,
    /// Not of this drill, or not to be read.
    pub foreign: u64,
}

/// Compares what was acknowledged with the stream: `log` is by seq, `None` where an event is no probe's.
pub fn judge(acks: &[Ack], log: &BTreeMap<u64, Option<Value>>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut times: HashMap<Value, u64> = HashMap::new();
    let mut newest: HashMap<u32, u32> = HashMap::new();
    for value in log.values() {
        let Some(value) = value else {
            verdict.foreign += 1;
            continue;
        };
        *times.entry(*value).or_default() += 1;
        let newest = newest.entry(value.publisher).or_default();
        verdict.reordered += u64::from(value.count < *newest);
        *newest = value.count.max(*newest);
    }
    verdict.lost = acks.iter().filter(|ack| log.get(&ack.seq) != Some(&Some(ack.value))).count() as u64;
    verdict.duplicated = times.values().map(|times| times - 1).sum();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(publisher: u32, count: u32) -> Value {
        Value { publisher, count }
    }

    fn acks(times_ms: &[u64]) -> History {
        let ack = |(at, ms): (usize, &u64)| Ack {
            at_us: ms * 1000,
            took_us: 1000 * (at as u64 + 1),
            value: value(0, at as u32),
            seq: at as u64 + 1,
        };
        History { acks: times_ms.iter().enumerate().map(ack).collect(), ..History::default() }
    }

    #[test]
    fn a_gap_is_found_where_it_is() {
        let history = acks(&[10, 20, 30, 330, 340, 350, 500]);
        let gap = |from: u64, to: u64| {
            let (begin, end) = history.longest_gap(from * 1000, to * 1000);
            (begin / 1000, end / 1000)
        };
        assert_eq!(gap(0, 400), (30, 330));
        assert_eq!(gap(100, 345), (30, 330), "it began before the fault");
        assert_eq!(gap(335, 360), (330, 340));
        assert_eq!(gap(335, 900), (500, 900), "it has not ended");
        assert_eq!(gap(0, 5), (0, 5));
        assert_eq!(history.longest_gap_begun(15_000, 900_000, 400_000), (30_000, 330_000));
        assert_eq!(history.longest_gap_of_all(), Duration::from_millis(300));
        assert_eq!(History::default().longest_gap_of_all(), Duration::ZERO);
    }

    #[test]
    fn percentiles_are_of_what_was_acknowledged() {
        let history = acks(&[1; 100]);
        assert_eq!([50.0, 99.0, 100.0].map(|at| history.took(at).as_millis()), [50, 99, 100]);
        assert_eq!(History::default().took(99.0), Duration::ZERO);
    }

    fn check(log: &[(u64, Option<Value>)], acked: &[(u64, Value)], expected: Verdict) {
        let acks: Vec<_> = acked.iter().map(|(seq, value)| Ack { at_us: 0, took_us: 0, value: *value, seq: *seq }).collect();
        assert_eq!(judge(&acks, &log.iter().copied().collect()), expected, "{log:?} {acked:?}");
    }

    #[test]
    fn the_stream_is_judged() {
        let (a1, a2, b1) = (value(1, 1), value(1, 2), value(2, 1));
        let fine = Verdict::default();
        check(&[(1, Some(a1)), (2, Some(b1)), (3, Some(a2))], &[(1, a1), (3, a2), (2, b1)], fine);
        check(&[(1, Some(a1)), (2, Some(a2))], &[(1, a1)], fine);
        check(&[(1, Some(a1))], &[(1, a1), (2, a2)], Verdict { lost: 1, ..fine });
        check(&[(1, Some(b1)), (2, Some(a1))], &[(1, a1)], Verdict { lost: 1, ..fine });
        check(&[(1, Some(a1)), (2, Some(a1))], &[(1, a1)], Verdict { duplicated: 1, ..fine });
        check(&[(1, Some(a2)), (2, Some(a1))], &[(1, a2), (2, a1)], Verdict { reordered: 1, ..fine });
        check(&[(1, None), (2, Some(a1))], &[(2, a1)], Verdict { foreign: 1, ..fine });
    }
}
