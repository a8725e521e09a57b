//! What was sent one after the other over one socket is stored in that order, whatever of it was answered (the contract:
//! publishes on one socket to one stream are ordered as sent).

use super::{Kind, Violation};
use crate::history::StreamHistory;
use crate::value::Value;
use std::collections::HashMap;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let lanes: HashMap<Value, u32> = history.ops.iter().filter(|op| op.lane != 0).map(|op| (op.first, op.lane)).collect();
    let mut last: HashMap<u32, (Value, u64)> = HashMap::new();
    let mut found = Vec::new();
    for (seq, event) in (1u64..).zip(history.log()) {
        let Some((value, lane)) = event.value.and_then(|value| Some((value, *lanes.get(&value)?))) else { continue };
        if let Some((before, before_seq)) = last.insert(lane, (value, seq))
            && before > value
        {
            let text = format!("{}: {value} was sent before {before} on one socket, and is at {seq}, behind {before_seq}", history.name);
            found.push(Violation::new(Kind::Reordered, text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;
    use crate::history::{Op, Outcome};

    #[test]
    fn a_swap_within_a_lane_is_seen() {
        let lane = |counter, lane| Op { lane, outcome: Outcome::Unknown, ..acked(counter, 0) };
        assert!(check(&history(&[lane(1, 1), lane(2, 1), lane(3, 1)], &[1, 3])).is_empty());
        assert_eq!(check(&history(&[lane(1, 1), lane(2, 1)], &[2, 1])).len(), 1);
        assert!(check(&history(&[lane(1, 1), lane(2, 2)], &[2, 1])).is_empty(), "two sockets have no order");
        assert!(check(&history(&[lane(1, 0), lane(2, 0)], &[2, 1])).is_empty(), "neither has what was sent again");
    }
}
