//! The rolling hash of a group's applied entries: replicas that applied the same entries have the same hash at the same index.
//!
//! A hash covers the one before it, the entry's place (index, term, leader), its kind and its bytes; blank and membership entries are
//! in it like all others. It finds what hardware and mistakes do, not what an attacker who knows it does. The bytes that are hashed
//! are the ones of `encoding`'s version 1, whatever the encodings of the day are: a hash is compared between builds.

use super::encoding;
use super::types::{EntryPayload, LogId};
use crate::core::limits;
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_128;

/// The hash of nothing.
pub const BEGINNING: u128 = 0;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The hash after one more entry.
pub fn next(before: u128, id: &LogId, payload: &EntryPayload) -> u128 {
    let (kind, content) = match payload {
        EntryPayload::Blank => (BLANK, 0),
        EntryPayload::Normal(command) => (NORMAL, xxh3_128(&command.0)),
        EntryPayload::Membership(_) => (MEMBERSHIP, xxh3_128(&encoding::encode_payload(payload))),
    };
    let leader = id.committed_leader_id();
    let mut link = [0; 57];
    link[..16].copy_from_slice(&before.to_le_bytes());
    link[16..24].copy_from_slice(&id.index().to_le_bytes());
    link[24..32].copy_from_slice(&leader.term.to_le_bytes());
    link[32..40].copy_from_slice(&leader.node_id.to_le_bytes());
    link[40] = kind;
    link[41..].copy_from_slice(&content.to_le_bytes());
    xxh3_128(&link)
}

/// What a replica had after the entry at `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub index: u64,
    pub hash: u128,
    /// The fold's own count of what it holds.
    pub seq: u64,
}

/// The newest points.
///
/// - Their indexes are consecutive and end with `last`.
/// - At most `limits::HASHES_KEPT_MAX`.
#[derive(Default)]
pub struct Recent {
    last: u64,
    /// Halves of the hash, and the seq: 24 bytes and not 32.
    points: VecDeque<[u64; 3]>,
}

impl Recent {
    pub fn push(&mut self, point: Point) {
        if self.points.len() >= limits::HASHES_KEPT_MAX {
            self.points.pop_front();
        }
        if self.last.checked_add(1) != Some(point.index) {
            self.points.clear();
        }
        self.last = point.index;
        self.points.push_back([point.hash as u64, (point.hash >> 64) as u64, point.seq]);
    }

    pub fn clear(&mut self) {
        self.points.clear();
    }

    fn first(&self) -> u64 {
        self.last + 1 - self.points.len() as u64
    }

    pub fn at(&self, index: u64) -> Option<Point> {
        let at = index.checked_sub(self.first())?;
        self.points.get(usize::try_from(at).ok()?).map(|point| decode(index, point))
    }

    pub fn newest(&self) -> Option<Point> {
        self.at(self.last)
    }

    pub fn all(&self) -> Vec<Point> {
        (self.first()..).zip(&self.points).map(|(index, point)| decode(index, point)).collect()
    }
}

fn decode(index: u64, [low, high, seq]: &[u64; 3]) -> Point {
    Point { index, hash: u128::from(*high) << 64 | u128::from(*low), seq: *seq }
}

#[cfg(test)]
mod tests {
    use super::super::types::{LeaderId, Membership, Payload};
    use super::*;
    use bytes::Bytes;
    use openraft::impls::EmptyNode;
    use std::collections::{BTreeMap, BTreeSet};

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id }, index)
    }

    fn normal(bytes: &'static [u8]) -> EntryPayload {
        EntryPayload::Normal(Payload(Bytes::from_static(bytes)))
    }

    /// Builds compare hashes with each other: these never change.
    #[test]
    fn goldens() {
        let check = |id: LogId, payload: EntryPayload, expected: &str| {
            assert_eq!(format!("{:032x}", next(BEGINNING, &id, &payload)), expected, "{id} {payload:?}");
        };
        check(id(1, 2, 3), EntryPayload::Blank, "94da860d54b336f291875eabe4b4be15");
        check(id(1, 2, 3), normal(b"x"), "29cdbeaed51e229a5f4c0edde749eed5");
        let members = Membership::new(vec![BTreeSet::from([1, 2])], BTreeMap::from([1, 2].map(|id| (id, EmptyNode::new())))).unwrap();
        check(id(1, 2, 3), EntryPayload::Membership(members), "d330b8cc65e47da04fd7c9a7e4654d82");
    }

    #[test]
    fn everything_of_an_entry_counts() {
        let hashes = BTreeSet::from([
            next(0, &id(1, 2, 3), &normal(b"x")),
            next(1, &id(1, 2, 3), &normal(b"x")),
            next(0, &id(9, 2, 3), &normal(b"x")),
            next(0, &id(1, 9, 3), &normal(b"x")),
            next(0, &id(1, 2, 9), &normal(b"x")),
            next(0, &id(1, 2, 3), &normal(b"y")),
            next(0, &id(1, 2, 3), &EntryPayload::Blank),
        ]);
        assert_eq!(hashes.len(), 7);
    }

    #[test]
    fn the_newest_points_are_kept() {
        let mut recent = Recent::default();
        assert_eq!((recent.at(0), recent.all().len()), (None, 0));
        let point = |index: u64| Point { index, hash: u128::MAX - u128::from(index), seq: index / 2 };
        (0..2_000).for_each(|index| recent.push(point(index)));
        assert_eq!(recent.at(1_999), Some(point(1_999)));
        assert_eq!(recent.at(2_000 - limits::HASHES_KEPT_MAX as u64), Some(point(2_000 - limits::HASHES_KEPT_MAX as u64)));
        assert_eq!((recent.at(2_000), recent.at(10), recent.all().len()), (None, None, limits::HASHES_KEPT_MAX));
        recent.push(point(5_000));
        assert_eq!(recent.all(), [point(5_000)], "a hole begins anew");
    }
}
