//! Every acknowledged event is in the log, at the seq that was told (promise 1: an acknowledged event is never lost).

use super::{Kind, Violation};
use crate::history::StreamHistory;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let log = history.log();
    let mut found = Vec::new();
    for op in &history.ops {
        let Some(first_seq) = op.acked_at() else { continue };
        for (value, seq) in op.values().zip(first_seq..) {
            let there = seq.checked_sub(1).and_then(|at| log.get(at as usize));
            match there {
                None => found.push(Violation::new(
                    Kind::Lost,
                    format!("{}: {value} was acknowledged at {seq}, and the log ends at {}", history.name, log.len()),
                )),
                Some(stored) if stored.value != Some(value) => {
                    let instead = stored.value.map_or("unknown bytes".into(), |value| value.to_string());
                    found.push(Violation::new(
                        Kind::Lost,
                        format!("{}: {value} was acknowledged at {seq}, and there is {instead}", history.name),
                    ));
                }
                Some(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;

    #[test]
    fn a_lost_tail_and_a_replaced_event_are_seen() {
        assert!(check(&history(&[acked(1, 1), acked(2, 2)], &[1, 2])).is_empty());
        assert_eq!(check(&history(&[acked(1, 1), acked(2, 2)], &[1])).len(), 1);
        assert_eq!(check(&history(&[acked(1, 1), acked(2, 2)], &[1, 3]))[0].kind, Kind::Lost);
        assert_eq!(check(&history(&[acked(1, 0)], &[1])).len(), 1);
    }
}
