//! A publish that expects a last seq is stored right behind it or nowhere, and a refusal tells a last seq that the stream had
//! (compare-and-set, linearizable per stream).

use super::{Kind, Violation};
use crate::history::{Outcome, StreamHistory};
use crate::value::Value;
use std::collections::HashMap;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let name = &history.name;
    let mut found = Vec::new();
    let mut wrong = |text: String| found.push(Violation::new(Kind::Reordered, format!("{name}: {text}")));
    let expecting: HashMap<Value, u64> = history.ops.iter().filter_map(|op| Some((op.first, op.expected?))).collect();
    for (seq, event) in (1u64..).zip(history.log()) {
        if let Some((value, expected)) = event.value.and_then(|value| Some((value, *expecting.get(&value)?)))
            && expected + 1 != seq
        {
            wrong(format!("{value} expected {expected} to be the last, and is at {seq}"));
        }
    }
    let mut ends: Vec<(u64, u64)> =
        history.ops.iter().filter_map(|op| Some((op.done_us, op.acked_at()? + u64::from(op.count) - 1))).collect();
    ends.sort_unstable();
    ends.iter_mut().fold(0, |most, (_, seq)| {
        *seq = most.max(*seq);
        *seq
    });
    let begun: HashMap<Value, u64> = history.ops.iter().flat_map(|op| op.values().map(move |value| (value, op.invoked_us))).collect();
    for op in &history.ops {
        let (Outcome::Mismatch { actual }, Some(expected)) = (op.outcome, op.expected) else { continue };
        let value = op.first;
        if actual == expected {
            wrong(format!("{value} was refused for the last seq {actual}, which it had expected"));
        }
        let before = ends.partition_point(|(done_us, _)| *done_us < op.invoked_us);
        let least = before.checked_sub(1).map_or(0, |at| ends[at].1);
        if actual < least {
            wrong(format!("{value} was told the last seq {actual} after {least} had been acknowledged"));
        }
        let stored = actual.checked_sub(1).and_then(|at| history.log().get(at as usize)).and_then(|event| event.value);
        if actual > history.log().len() as u64 || stored.is_some_and(|stored| begun.get(&stored).is_some_and(|at| *at > op.done_us)) {
            wrong(format!("{value} was told the last seq {actual} before there was one"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;
    use crate::history::Op;

    fn expecting(counter: u64, expected: u64, outcome: Outcome) -> Op {
        Op { expected: Some(expected), ..with(acked(counter, 0), outcome) }
    }

    #[test]
    fn only_the_expected_place_will_do() {
        let first = expecting(1, 0, Outcome::Acked { seq: 1 });
        let second = expecting(2, 1, Outcome::Acked { seq: 2 });
        assert!(check(&history(&[first, second], &[1, 2])).is_empty());
        assert_eq!(check(&history(&[first, expecting(2, 0, Outcome::Unknown)], &[1, 2])).len(), 1);
    }

    #[test]
    fn a_refusal_tells_the_truth() {
        let first = expecting(1, 0, Outcome::Acked { seq: 1 });
        let refused = |expected, actual| expecting(2, expected, Outcome::Mismatch { actual });
        assert!(check(&history(&[first, refused(0, 1)], &[1])).is_empty());
        assert_eq!(check(&history(&[first, refused(1, 1)], &[1])).len(), 1, "it had expected just that");
        assert_eq!(check(&history(&[first, refused(3, 0)], &[1])).len(), 1, "one was acknowledged before");
        assert_eq!(check(&history(&[first, refused(3, 2)], &[1])).len(), 1, "there never was a second");
        assert_eq!(check(&history(&[first, refused(3, 2), acked(3, 2)], &[1, 3])).len(), 1, "the second came later");
    }
}
