//! A publish that is repeated under the same `Event-Id` within the window is told the first one's seq, and that it is a duplicate.

use super::{Kind, Violation};
use crate::history::StreamHistory;

pub fn check(history: &StreamHistory) -> Vec<Violation> {
    let wrong = history.repeats.iter().filter(|repeat| !repeat.told_duplicate || repeat.told_seq != repeat.first_seq);
    let tell = |repeat: &crate::history::Repeat| {
        let text = format!(
            "{}: {} is at {}, and its repetition was told {} ({})",
            history.name,
            repeat.value,
            repeat.first_seq,
            repeat.told_seq,
            if repeat.told_duplicate { "a duplicate" } else { "no duplicate" }
        );
        Violation::new(Kind::Duplicated, text)
    };
    wrong.map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::*;
    use super::*;
    use crate::history::Repeat;

    #[test]
    fn another_seq_and_a_second_storing_are_seen() {
        let repeat = Repeat { stream: 0, value: value(1), first_seq: 4, told_seq: 4, told_duplicate: true };
        let check = |repeat| check(&StreamHistory { repeats: vec![repeat], ..history(&[], &[]) }).len();
        assert_eq!(check(repeat), 0);
        assert_eq!(check(Repeat { told_seq: 5, ..repeat }), 1);
        assert_eq!(check(Repeat { told_duplicate: false, ..repeat }), 1);
    }
}
