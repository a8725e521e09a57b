//! A batch is stored whole and in one piece, or not at all, also where nobody was told (the contract: all or none).

use super::{Kind, Violation};
use crate::history::StreamHistory;
use crate::value::Value;
use std::collections::HashMap;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let batches: HashMap<Value, u32> = history.ops.iter().filter(|op| op.count > 1).map(|op| (op.first, op.count)).collect();
    let members: HashMap<Value, Value> =
        history.ops.iter().filter(|op| op.count > 1).flat_map(|op| op.values().map(move |value| (value, op.first))).collect();
    let log = history.log();
    let mut found = Vec::new();
    let mut at = 0;
    while at < log.len() {
        let Some((value, first)) = log[at].value.and_then(|value| Some((value, *members.get(&value)?))) else {
            at += 1;
            continue;
        };
        let whole = u64::from(batches[&first]);
        let run = (0..whole).take_while(|next| log.get(at + *next as usize).is_some_and(|e| e.value == Some(first.plus(*next)))).count();
        if run as u64 != whole {
            let text = format!("{}: the batch of {whole} from {first} is broken at {}: there is {value}", history.name, at + 1);
            found.push(Violation::new(Kind::Lost, text));
        }
        at += run.max(1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;
    use crate::history::{Op, Outcome};

    #[test]
    fn half_a_batch_and_one_in_two_pieces_are_seen() {
        let batch = Op { count: 3, outcome: Outcome::Unknown, ..acked(1, 0) };
        assert!(check(&history(&[batch, acked(9, 1)], &[9, 1, 2, 3])).is_empty());
        assert!(check(&history(&[batch, acked(9, 1)], &[9])).is_empty());
        assert!(!check(&history(&[batch, acked(9, 1)], &[9, 1, 2])).is_empty());
        assert!(!check(&history(&[batch, acked(9, 1)], &[1, 9, 2, 3])).is_empty());
        assert!(!check(&history(&[batch, acked(9, 1)], &[2, 3])).is_empty());
    }
}
