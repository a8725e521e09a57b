//! Who was named as a stream's leader, and how often that moved. Not an invariant: openraft orders leaders by term and node, so one term
//! may have a second leader after its first. That both never decide differently shows in the logs, and in `agreement`.

use std::collections::HashMap;

/// The newest leader that was named, by stream; and how often the leadership moved to a later term.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    last: HashMap<String, (u64, String)>,
    pub changes: u64,
}

impl Leaders {
    pub fn named(&mut self, stream: &str, term: u64, leader: &str) {
        let last = self.last.entry(stream.into()).or_insert_with(|| (term, leader.into()));
        if term > last.0 {
            self.changes += 1;
            *last = (term, leader.into());
        }
    }

    pub fn last(&self, stream: &str) -> Option<&str> {
        self.last.get(stream).map(|(_, leader)| leader.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_terms_count() {
        let mut leaders = Leaders::default();
        for (stream, term, leader) in [("s", 3, "n1"), ("s", 4, "n2"), ("s", 3, "n1"), ("t", 3, "n3"), ("s", 4, "n3")] {
            leaders.named(stream, term, leader);
        }
        assert_eq!((leaders.changes, leaders.last("s"), leaders.last("t")), (1, Some("n2"), Some("n3")));
    }
}
