//! No value is in the log twice, and none that was certainly not accepted or never sent (503 and 412 say: not stored).

use super::{Kind, Violation};
use crate::history::{Outcome, StreamHistory};
use crate::value::Value;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let name = &history.name;
    let mut found = Vec::new();
    let mut stored: Vec<(Value, u64)> = Vec::new();
    for (seq, event) in (1u64..).zip(history.log()) {
        match event.value {
            Some(value) => stored.push((value, seq)),
            None => found.push(Violation::new(Kind::Wrong, format!("{name}: the event at {seq} has bytes that nobody sent"))),
        }
    }
    stored.sort_unstable();
    for pair in stored.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        found.push(Violation::new(Kind::Duplicated, format!("{name}: {} is at {} and at {}", pair[0].0, pair[0].1, pair[1].1)));
    }
    let at = |value: Value| stored.binary_search_by_key(&value, |(value, _)| *value).ok().map(|at| stored[at].1);
    for op in history.ops.iter().filter(|op| matches!(op.outcome, Outcome::Refused | Outcome::Mismatch { .. })) {
        if let Some((value, seq)) = op.values().find_map(|value| Some((value, at(value)?))) {
            let text = format!("{name}: {value} was answered with {:?} at {} us and is at {seq}", op.outcome, op.done_us);
            found.push(Violation::new(Kind::Duplicated, text));
        }
    }
    let mut sent: Vec<(Value, u32)> = history.ops.iter().map(|op| (op.first, op.count)).collect();
    sent.sort_unstable();
    for (value, seq) in &stored {
        let before = sent.partition_point(|(first, _)| first <= value);
        let known = before > 0 && value.0 < sent[before - 1].0.0 + u64::from(sent[before - 1].1);
        if !known {
            found.push(Violation::new(Kind::Wrong, format!("{name}: nobody sent {value}, which is at {seq}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;

    fn kinds(history: &StreamHistory) -> Vec<Kind> {
        check(history).into_iter().map(|violation| violation.kind).collect()
    }

    #[test]
    fn twice_refused_and_invented_events_are_seen() {
        let refused = with(acked(2, 0), Outcome::Refused);
        let unknown = with(acked(2, 0), Outcome::Unknown);
        assert!(kinds(&history(&[acked(1, 1), refused], &[1])).is_empty());
        assert!(kinds(&history(&[acked(1, 1), unknown], &[1, 2])).is_empty());
        assert_eq!(kinds(&history(&[acked(1, 1)], &[1, 1])), [Kind::Duplicated]);
        assert_eq!(kinds(&history(&[acked(1, 1), refused], &[1, 2])), [Kind::Duplicated]);
        assert_eq!(kinds(&history(&[acked(1, 1), with(acked(2, 0), Outcome::Mismatch { actual: 4 })], &[1, 2])), [Kind::Duplicated]);
        assert_eq!(kinds(&history(&[acked(1, 1)], &[1, 9])), [Kind::Wrong]);
        let mut broken = history(&[acked(1, 1)], &[1]);
        broken.logs[0].events[0].value = None;
        assert_eq!(kinds(&broken), [Kind::Wrong]);
    }
}
