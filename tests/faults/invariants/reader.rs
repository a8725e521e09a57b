//! A reader meets every seq from its cursor on, once and in order, through every resume (promise 3). Judged event by event, so
//! that nothing of what was read has to be kept.

use super::{Kind, Violation};

/// Where a reader is: it survives its connections.
#[derive(Clone, Debug)]
pub struct Cursor {
    pub next: u64,
}

impl Cursor {
    pub fn new(next: u64) -> Cursor {
        Cursor { next }
    }

    /// The next event that a connection brought.
    pub fn meet(&mut self, who: &str, seq: u64) -> Result<(), Violation> {
        let expected = self.next;
        self.next = self.next.max(seq + 1);
        match seq.cmp(&expected) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(Violation::new(Kind::Lost, format!("{who} met {seq} where {expected} was next"))),
            std::cmp::Ordering::Less if seq + 1 == expected => {
                Err(Violation::new(Kind::Duplicated, format!("{who} met {seq} twice in a row")))
            }
            std::cmp::Ordering::Less => Err(Violation::new(Kind::Reordered, format!("{who} met {seq} where {expected} was next"))),
        }
    }

    /// It was told that events are gone.
    pub fn gap(&mut self, who: &str, from: u64, to: u64, retention: bool) -> Result<(), Violation> {
        let expected = self.next;
        self.next = self.next.max(to + 1);
        match retention && from == expected && to >= from {
            true => Ok(()),
            false => Err(Violation::new(Kind::Lost, format!("{who} was told that {from} to {to} are gone; {expected} was next"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(seqs: &[u64]) -> Vec<Kind> {
        let mut cursor = Cursor::new(1);
        seqs.iter().filter_map(|seq| cursor.meet("reader", *seq).err()).map(|violation| violation.kind).collect()
    }

    #[test]
    fn holes_repetitions_and_swaps_are_seen_once_each() {
        assert!(meet(&[1, 2, 3]).is_empty());
        assert_eq!(meet(&[1, 3, 4]), [Kind::Lost]);
        assert_eq!(meet(&[1, 1, 2]), [Kind::Duplicated]);
        assert_eq!(meet(&[1, 2, 3, 1, 4]), [Kind::Reordered]);
    }

    #[test]
    fn a_gap_is_right_only_where_retention_is_on_and_only_at_the_cursor() {
        assert!(Cursor::new(3).gap("reader", 3, 9, true).is_ok());
        assert!(Cursor::new(3).gap("reader", 3, 9, false).is_err());
        assert!(Cursor::new(3).gap("reader", 2, 9, true).is_err());
    }
}
