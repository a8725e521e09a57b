//! There is one leader a term: whoever is asked, and whenever, names the same one (Raft: Election Safety).

use super::{Kind, Violation};
use std::collections::HashMap;

/// The leaders that were named, by stream and term; and how often the leadership moved.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    terms: HashMap<(String, u64), String>,
    last: HashMap<String, (u64, String)>,
    pub changes: u64,
}

impl Leaders {
    pub fn named(&mut self, who: &str, stream: &str, term: u64, leader: &str) -> Result<(), Violation> {
        let known = self.terms.entry((stream.into(), term)).or_insert_with(|| leader.into());
        if known != leader {
            let text = format!("{who} names {leader} as the leader of {stream} in term {term}, and {known} was named before");
            return Err(Violation::new(Kind::Diverged, text));
        }
        let last = self.last.entry(stream.into()).or_insert_with(|| (term, leader.into()));
        if term > last.0 {
            self.changes += 1;
            *last = (term, leader.into());
        }
        Ok(())
    }

    pub fn last(&self, stream: &str) -> Option<&str> {
        self.last.get(stream).map(|(_, leader)| leader.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_in_a_term_are_seen_and_terms_counted() {
        let mut leaders = Leaders::default();
        assert!(leaders.named("n1", "s", 3, "n1").is_ok());
        assert!(leaders.named("n2", "s", 4, "n2").is_ok());
        assert!(leaders.named("n3", "s", 3, "n1").is_ok(), "it is behind, and right");
        assert!(leaders.named("n3", "t", 3, "n3").is_ok());
        assert!(leaders.named("n3", "s", 4, "n3").is_err());
        assert_eq!((leaders.changes, leaders.last("s")), (1, Some("n2")));
    }
}
