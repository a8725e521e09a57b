//! Replicas that went back behind what they acknowledged: how a leader notices, what it says, and how such a replica takes it.
//!
//! A node's data that is put back to an older state as a whole, with everything that counts along, looks sound to the node itself. Its
//! leader knows better. Towards openraft such a replica is one that cannot be reached; it is told, fences itself, and is made anew.
//!
//! - To one leader, from the beginning of a session on, a replica never lacks again what it acknowledged: only its disk can take that.

use super::encoding::{get_log_id, get_vote, message, put_log_id, put_vote, writer};
use super::types::{LogId, Vote};
use crate::core::codec::Corrupt;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The last entry of one group that each peer acknowledged to this leader, over all ways to that peer.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<HashMap<u64, (Vote, LogId)>>>);

impl Acknowledged {
    fn peers(&self) -> MutexGuard<'_, HashMap<u64, (Vote, LogId)>> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// A session with the peer begins: it may be another replica than before, one that was made anew.
    pub fn forget(&self, peer: u64) {
        self.peers().remove(&peer);
    }

    /// The peer has everything up to this entry, as it answered the leader of `vote`.
    pub fn note(&self, peer: u64, vote: &Vote, upto: LogId) {
        let mut peers = self.peers();
        let known = peers.entry(peer).or_insert((*vote, upto));
        if *vote > known.0 || (*vote == known.0 && upto.index() > known.1.index()) {
            *known = (*vote, upto);
        }
    }

    /// What the peer acknowledged to the leader of `vote`, if that is not before the entry that it now says it lacks.
    pub fn contradicts(&self, peer: u64, vote: &Vote, lacks: Option<LogId>) -> Option<LogId> {
        let known = self.peers().get(&peer).copied();
        let (_, upto) = known.filter(|(to, _)| to == vote)?;
        lacks.is_some_and(|lacks| lacks.index() <= upto.index()).then_some(upto)
    }
}

/// What a leader says to a replica that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reverted {
    pub vote: Vote,
    /// What the replica acknowledged to the leader of `vote`.
    pub acknowledged: LogId,
}

impl Reverted {
    pub fn encode(&self, group: u64) -> Bytes {
        let mut w = writer();
        w.varint(group);
        put_vote(&mut w, &self.vote);
        put_log_id(&mut w, &self.acknowledged);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<(u64, Reverted), Corrupt> {
        let mut r = message("news of a replica's loss", bytes)?;
        let group = r.varint()?;
        let reverted = Reverted { vote: get_vote(&mut r)?, acknowledged: get_log_id(&mut r)? };
        r.end()?;
        Ok((group, reverted))
    }

    /// Whether a replica that follows `vote` and whose last entry is `last` has lost something. One that follows a later leader may
    /// lack those entries rightly.
    pub fn is_true_of(&self, vote: &Vote, last: Option<LogId>) -> bool {
        let same_leader = vote.leader_id <= self.vote.leader_id;
        same_leader && last.is_none_or(|last| last.index() < self.acknowledged.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::types::LeaderId;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId { term, node_id: 1 }, committed: true }
    }

    fn entry(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    #[test]
    fn only_what_the_same_leader_was_told_contradicts() {
        let acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.contradicts(2, &vote(1), Some(entry(5))), None, "nothing is known");
        acknowledged.note(2, &vote(1), entry(9));
        acknowledged.note(2, &vote(1), entry(7));
        assert_eq!(acknowledged.contradicts(2, &vote(1), Some(entry(9))), Some(entry(9)));
        assert_eq!(acknowledged.contradicts(2, &vote(1), Some(entry(10))), None, "it lacks what it did not acknowledge");
        assert_eq!(acknowledged.contradicts(2, &vote(2), Some(entry(5))), None, "another leader's probe");
        assert_eq!(acknowledged.contradicts(3, &vote(1), Some(entry(5))), None, "another peer");
        acknowledged.note(2, &vote(2), entry(4));
        acknowledged.note(2, &vote(1), entry(20));
        assert_eq!(acknowledged.contradicts(2, &vote(2), Some(entry(4))), Some(entry(4)), "an older leader's late answer says nothing");
        acknowledged.forget(2);
        assert_eq!(acknowledged.contradicts(2, &vote(2), Some(entry(4))), None);
    }

    #[test]
    fn a_replica_knows_whether_it_is_true() {
        let reverted = Reverted { vote: vote(3), acknowledged: entry(9) };
        assert!(reverted.is_true_of(&vote(3), Some(entry(8))));
        assert!(reverted.is_true_of(&vote(2), None), "it lost the vote as well");
        assert!(!reverted.is_true_of(&vote(3), Some(entry(9))));
        assert!(!reverted.is_true_of(&vote(4), Some(entry(8))), "a later leader may have cut its log");
        assert_eq!(Reverted::decode(reverted.encode(5)).unwrap(), (5, reverted));
    }
}
