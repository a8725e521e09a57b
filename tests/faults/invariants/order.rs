//! A publish that began after another one was acknowledged has a larger seq (linearizability of each stream's log).

use super::{Kind, Violation};
use crate::history::StreamHistory;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let acked = || history.ops.iter().filter_map(|op| Some((op, op.acked_at()?)));
    let mut ended: Vec<_> = acked().map(|(op, seq)| (op.done_us, seq, op.first)).collect();
    let mut began: Vec<_> = acked().map(|(op, seq)| (op.invoked_us, seq, op.first)).collect();
    ended.sort_unstable();
    began.sort_unstable();
    let mut found = Vec::new();
    let mut ended = ended.into_iter().peekable();
    let mut last = None;
    for (invoked_us, seq, value) in began {
        while let Some((done_us, done_seq, done)) = ended.next_if(|(done_us, _, _)| *done_us < invoked_us) {
            if last.is_none_or(|(before, _, _)| done_seq > before) {
                last = Some((done_seq, done, done_us));
            }
        }
        if let Some((before, earlier, done_us)) = last.filter(|(before, _, _)| seq <= *before) {
            let text = format!(
                "{}: {value} was sent at {invoked_us} us and is at {seq}, though {earlier} had been acknowledged at {before} at {done_us} us",
                history.name
            );
            found.push(Violation::new(Kind::Reordered, text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;
    use crate::history::Op;

    #[test]
    fn going_back_in_time_is_seen_and_overlap_is_not() {
        assert!(check(&history(&[acked(1, 1), acked(2, 2)], &[])).is_empty());
        assert_eq!(check(&history(&[acked(1, 2), acked(2, 1)], &[])).len(), 1);
        let overlapping = Op { invoked_us: 12, ..acked(2, 1) };
        assert!(check(&history(&[acked(1, 2), overlapping], &[])).is_empty());
    }
}
