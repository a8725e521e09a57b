//! Who follows a leader that is gone, decided from what the voters of its group say. Values in, values out.
//!
//! Every voter that hears the same statements comes to the same verdict, so one of them stands and nobody competes. Where they heard
//! different ones two may stand: consensus allows one leader a term whatever is decided here, and the next round settles it.

use crate::cluster::group::Candidacy;
use crate::cluster::members::{Voters, agree};
use crate::cluster::mesh::NodeId;
use crate::cluster::types::{LeaderId, LogId, Vote};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::time::Instant;

/// What a voter would bring into an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub vote: Vote,
    pub last: Option<LogId>,
}

impl Standing {
    /// The order of logs: a voter grants its vote to nobody whose log is before its own.
    pub fn candidacy(&self) -> Option<Candidacy> {
        let last = self.last?;
        let LeaderId { term, node_id: leader } = *last.committed_leader_id();
        Some(Candidacy { term, leader, index: last.index() })
    }
}

/// One group whose leader is gone, as one of its voters sees it.
pub struct Case<'a> {
    pub group: u64,
    pub own: NodeId,
    pub gone: NodeId,
    pub voters: &'a Voters,
    /// Who says that the leader is gone, this node included.
    pub said: &'a BTreeMap<NodeId, Standing>,
    /// Others that can be reached and might still say so.
    pub awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This node is the one to stand for election.
    Stand,
    /// That one is.
    Yield(NodeId),
    /// Too few agree so far, for good if nobody is awaited.
    Wait,
    /// Enough agree, but somebody who has not spoken yet may have the longer log.
    Listen,
}

/// - Nobody stands unless a majority of the voters, this node included, says that the leader is gone: a broken connection alone, or a
///   bridge that only some cannot pass, unseats nobody who lives.
/// - The longest log stands. Of equal ones a mix of group and node decides, so that the streams of a lost node are spread over the
///   others.
pub fn judge(case: &Case<'_>) -> Verdict {
    let agrees = |id: NodeId| id != case.gone && case.said.contains_key(&id);
    if !case.said.contains_key(&case.own) || !agree(case.voters, agrees) {
        return Verdict::Wait;
    }
    if case.awaited {
        return Verdict::Listen;
    }
    let voters: BTreeSet<NodeId> = case.voters.iter().flatten().copied().filter(|id| agrees(*id)).collect();
    let best = voters.into_iter().max_by_key(|id| (case.said[id].candidacy(), mix(case.group, *id), *id));
    match best {
        Some(best) if best == case.own => Verdict::Stand,
        Some(best) => Verdict::Yield(best),
        None => Verdict::Wait,
    }
}

/// Spreads nodes differently for each group; every node must come to the same, so it is part of the peer protocol. (The finalizer of
/// SplitMix64, by Steele, Lea and Flood.)
fn mix(group: u64, node: NodeId) -> u64 {
    let mut z = group.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ node;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of which peer, and of which of its starts, something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    pub node: NodeId,
    pub boot: u64,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    about: About,
    standing: Standing,
    until: Instant,
}

/// The statements that count at the moment, this node's own among them.
///
/// - One a group and speaker: a newer one replaces it. It counts until it is retracted, used, or too old.
#[derive(Debug, Default)]
pub struct Book(HashMap<u64, BTreeMap<NodeId, Said>>);

impl Book {
    pub fn note(&mut self, group: u64, speaker: NodeId, about: About, standing: Standing, until: Instant) {
        self.0.entry(group).or_default().insert(speaker, Said { about, standing, until });
    }

    /// The speaker sees the peer again.
    pub fn retract(&mut self, speaker: NodeId, node: NodeId) {
        for said in self.0.values_mut() {
            if said.get(&speaker).is_some_and(|said| said.about.node == node) {
                said.remove(&speaker);
            }
        }
        self.0.retain(|_, said| !said.is_empty());
    }

    /// The statements about this peer, of those speakers that can be heard.
    pub fn said(&self, group: u64, about: About, now: Instant, heard: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, Standing> {
        let said = self.0.get(&group).into_iter().flatten();
        let counts = |(speaker, said): &(&NodeId, &Said)| said.about == about && said.until > now && heard(**speaker);
        said.filter(counts).map(|(speaker, said)| (*speaker, said.standing)).collect()
    }

    /// A verdict came of what was said: for another one everybody has to say it again.
    pub fn use_up(&mut self, group: u64) {
        self.0.remove(&group);
    }

    pub fn drop_old(&mut self, now: Instant) {
        self.0.values_mut().for_each(|said| said.retain(|_, said| said.until > now));
        self.0.retain(|_, said| !said.is_empty());
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GROUP: u64 = 7;

    /// The log ends with entry `index` of the leader 1 of `term`.
    fn standing(term: u64, index: u64) -> Standing {
        let leader = LeaderId { term, node_id: 1 };
        Standing { vote: Vote { leader_id: leader, committed: true }, last: Some(LogId::new(leader, index)) }
    }

    fn said(said: &[(NodeId, u64, u64)]) -> BTreeMap<NodeId, Standing> {
        said.iter().map(|(id, term, index)| (*id, standing(*term, *index))).collect()
    }

    fn voters(sets: &[&[NodeId]]) -> Voters {
        sets.iter().map(|set| set.iter().copied().collect()).collect()
    }

    /// The verdict at `own` on the loss of node 1.
    fn verdict(own: NodeId, sets: &[&[NodeId]], statements: &[(NodeId, u64, u64)], awaited: bool) -> Verdict {
        let (voters, said) = (voters(sets), said(statements));
        judge(&Case { group: GROUP, own, gone: 1, voters: &voters, said: &said, awaited })
    }

    /// Everybody who spoke comes to the same verdict: `winner` stands.
    fn check_winner(sets: &[&[NodeId]], statements: &[(NodeId, u64, u64)], winner: NodeId) {
        for (own, ..) in statements {
            let expected = if *own == winner { Verdict::Stand } else { Verdict::Yield(winner) };
            assert_eq!(verdict(*own, sets, statements, false), expected, "{sets:?} {statements:?}");
        }
    }

    #[test]
    fn the_longest_log_stands() {
        const THREE: &[&[NodeId]] = &[&[1, 2, 3]];
        check_winner(THREE, &[(2, 5, 10), (3, 5, 9)], 2);
        check_winner(THREE, &[(2, 5, 9), (3, 5, 10)], 3);
        check_winner(THREE, &[(2, 4, 99), (3, 5, 1)], 3);
        const FIVE: &[&[NodeId]] = &[&[1, 2, 3, 4, 5]];
        check_winner(FIVE, &[(2, 5, 8), (3, 5, 9), (5, 5, 10)], 5);
        check_winner(FIVE, &[(2, 5, 8), (3, 5, 9), (4, 5, 7), (5, 5, 2)], 3);
    }

    #[test]
    fn of_equal_logs_one_stands_and_the_groups_are_spread() {
        let (voters, said) = (voters(&[&[1, 2, 3]]), said(&[(2, 5, 9), (3, 5, 9)]));
        let stands = |group: u64, own| judge(&Case { group, own, gone: 1, voters: &voters, said: &said, awaited: false }) == Verdict::Stand;
        let two = (0..1_000).filter(|group| stands(*group, 2)).count();
        assert!((400..600).contains(&two), "{two}");
        assert!((0..1_000).all(|group| stands(group, 2) != stands(group, 3)));
    }

    #[test]
    fn without_a_majority_nobody_stands() {
        assert_eq!(verdict(2, &[&[1, 2, 3]], &[(2, 5, 9)], false), Verdict::Wait);
        assert_eq!(verdict(2, &[&[1, 2, 3, 4, 5]], &[(2, 5, 9), (3, 5, 9)], false), Verdict::Wait);
        assert_eq!(verdict(2, &[&[1, 2]], &[(2, 5, 9)], false), Verdict::Wait);
        assert_eq!(verdict(2, &[], &[(2, 5, 9)], false), Verdict::Wait);
        // Who is no voter does not count, and who is gone cannot say so itself.
        assert_eq!(verdict(2, &[&[1, 2, 3]], &[(2, 5, 9), (9, 5, 9)], false), Verdict::Wait);
        assert_eq!(verdict(2, &[&[1, 2, 3]], &[(2, 5, 9), (1, 5, 9)], false), Verdict::Wait);
    }

    #[test]
    fn who_does_not_see_it_itself_does_not_act() {
        assert_eq!(verdict(2, &[&[1, 2, 3]], &[(3, 5, 9)], false), Verdict::Wait);
        assert_eq!(verdict(2, &[&[1, 2, 3, 4, 5]], &[(3, 5, 9), (4, 5, 9), (5, 5, 9)], false), Verdict::Wait);
    }

    #[test]
    fn a_changing_group_needs_both_majorities() {
        const CHANGE: &[&[NodeId]] = &[&[1, 2, 3], &[3, 4, 5]];
        assert_eq!(verdict(2, CHANGE, &[(2, 5, 9), (3, 5, 9)], false), Verdict::Wait);
        check_winner(CHANGE, &[(2, 5, 9), (3, 5, 8), (4, 5, 7)], 2);
        check_winner(&[&[1, 2, 3], &[2, 3, 4]], &[(2, 5, 9), (3, 5, 10)], 3);
    }

    #[test]
    fn whoever_may_have_more_is_listened_to() {
        const FIVE: &[&[NodeId]] = &[&[1, 2, 3, 4, 5]];
        let heard = [(2, 5, 9), (3, 5, 8), (4, 5, 8)];
        assert_eq!(verdict(2, FIVE, &heard, true), Verdict::Listen);
        assert_eq!(verdict(2, FIVE, &heard, false), Verdict::Stand);
        assert_eq!(verdict(2, FIVE, &heard[..2], true), Verdict::Wait);
    }

    const DOWN: About = About { node: 1, boot: 3 };

    fn speakers(book: &Book, about: About, now: Instant) -> Vec<NodeId> {
        book.said(GROUP, about, now, |id| id != 9).into_keys().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_counts_while_it_is_meant() {
        let now = Instant::now();
        let soon = now + Duration::from_secs(1);
        let mut book = Book::default();
        for speaker in [2, 3, 9] {
            book.note(GROUP, speaker, DOWN, standing(5, 9), soon);
        }
        book.note(GROUP, 4, About { node: 1, boot: 2 }, standing(5, 9), soon);
        book.note(GROUP, 5, About { node: 6, boot: 3 }, standing(5, 9), soon);
        assert_eq!(speakers(&book, DOWN, now), [2, 3], "of the same start of the same node, by speakers that can be heard");
        assert!(speakers(&book, DOWN, soon).is_empty(), "old ones do not count");
        book.retract(3, 6);
        assert_eq!(speakers(&book, DOWN, now), [2, 3]);
        book.retract(3, 1);
        assert_eq!(speakers(&book, DOWN, now), [2]);
        book.note(GROUP, 2, About { node: 6, boot: 3 }, standing(5, 9), soon);
        assert!(speakers(&book, DOWN, now).is_empty(), "a newer statement replaces the older");
        book.use_up(GROUP);
        assert!(book.is_empty());
        book.note(GROUP, 2, DOWN, standing(5, 9), soon);
        book.drop_old(soon);
        assert!(book.is_empty());
    }
}
