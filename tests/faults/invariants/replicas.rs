//! All nodes give the same bytes at the same seqs, and all of them (Raft: Log Matching, State Machine Safety).

use super::{Kind, Violation};
use crate::history::StreamHistory;

/// Differences told of one pair of nodes.
const TOLD_MAX: usize = 5;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let name = &history.name;
    let Some((first, others)) = history.logs.split_first() else { return Vec::new() };
    let mut found = Vec::new();
    for other in others {
        if other.events.len() != first.events.len() {
            let text =
                format!("{name}: {} gave {} events at the end, {} gave {}", first.node, first.events.len(), other.node, other.events.len());
            found.push(Violation::new(Kind::Diverged, text));
        }
        let pairs = (1u64..).zip(first.events.iter().zip(&other.events));
        for (seq, (a, b)) in pairs.filter(|(_, (a, b))| a != b).take(TOLD_MAX) {
            let text = format!("{name}: at {seq}, {} gives {:?} and {} gives {:?}", first.node, a, other.node, b);
            found.push(Violation::new(Kind::Diverged, text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;

    #[test]
    fn a_shorter_and_a_different_log_are_seen() {
        let mut history = history(&[], &[1, 2, 3]);
        history.logs.push(log(&[1, 2, 3]));
        assert!(check(&history).is_empty());
        history.logs.push(log(&[1, 2]));
        assert_eq!(check(&history).len(), 1);
        history.logs[2] = log(&[1, 3, 2]);
        assert_eq!(check(&history).len(), 2);
        history.logs[2] = log(&[1, 2, 3]);
        history.logs[2].events[1].hash = 77;
        assert_eq!(check(&history)[0].kind, Kind::Diverged, "another time or subject is a difference too");
    }
}
