//! The subject purges of a stream: events that are in the log and that no reader gets.
//!
//! A purge keeps how many events and bytes it removed, so that the stream's counts stay without them. Where in its range they
//! were is not known. When retention passes through the range, the same share of them is taken to be gone as of the range itself:
//! the counts are exact before that and again once the whole range is gone, and never leave what the range can hold.

use super::{Outcome, Reject};
use crate::core::{
    SubjectFilter,
    codec::{Corrupt, Reader, Writer},
    command::read_filter,
    limits,
};

/// One subject purge.
///
/// - `events` is at most the number of seqs from the stream's first to `before_seq`.
#[derive(Clone, Debug)]
struct Tombstone {
    filter: SubjectFilter,
    before_seq: u64,
    events: u64,
    bytes: u64,
}

/// The purges whose range still has retained events, at most `limits::TOMBSTONES_MAX`, one a filter, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Purges(Vec<Tombstone>);

impl Purges {
    /// Whether a purge took the event.
    pub fn takes(&self, seq: u64, subject: Option<&str>) -> bool {
        self.0.iter().any(|tombstone| seq < tombstone.before_seq && tombstone.filter.matches(subject))
    }

    /// Events and bytes that are purged and not yet trimmed.
    pub fn sums(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(events, bytes), tombstone| {
            (u64::saturating_add(events, tombstone.events), u64::saturating_add(bytes, tombstone.bytes))
        })
    }

    /// Purges what the filter takes of `first_seq..before_seq`. The same filter again widens its purge, and its counts add up:
    /// the proposer counted only what was not purged before.
    pub fn add(&mut self, filter: &SubjectFilter, first_seq: u64, before_seq: u64, events: u64, bytes: u64) -> Outcome {
        let events = events.min(before_seq.saturating_sub(first_seq));
        if before_seq <= first_seq {
            return Outcome::Trimmed { events: 0, bytes: 0 };
        }
        if let Some(same) = self.0.iter_mut().find(|tombstone| tombstone.filter == *filter) {
            same.before_seq = same.before_seq.max(before_seq);
            same.events = same.events.saturating_add(events).min(same.before_seq - first_seq);
            same.bytes = same.bytes.saturating_add(bytes);
        } else if self.0.len() < limits::TOMBSTONES_MAX {
            self.0.push(Tombstone { filter: filter.clone(), before_seq, events, bytes });
        } else {
            return Outcome::Rejected(Reject::TombstonesFull);
        }
        Outcome::Trimmed { events, bytes }
    }

    /// Retention moved the stream's first seq from `old` to `new`.
    pub fn trim(&mut self, old: u64, new: u64) {
        self.0.retain_mut(|tombstone| {
            let (had, left) = (tombstone.before_seq.saturating_sub(old), tombstone.before_seq.saturating_sub(new));
            tombstone.events = share(tombstone.events, left, had);
            tombstone.bytes = share(tombstone.bytes, left, had);
            left > 0
        });
    }

    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.0.len() as u64);
        for tombstone in &self.0 {
            out.str(tombstone.filter.as_str());
            out.varint(tombstone.before_seq);
            out.varint(tombstone.events);
            out.varint(tombstone.bytes);
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<Purges, Corrupt> {
        let count = reader.count()?;
        let tombstone = |reader: &mut Reader| {
            Ok(Tombstone { filter: read_filter(reader)?, before_seq: reader.varint()?, events: reader.varint()?, bytes: reader.varint()? })
        };
        (0..count).map(|_| tombstone(reader)).collect::<Result<_, Corrupt>>().map(Purges)
    }
}

/// `part / whole` of `number`, rounded up; `part` is at most `whole`.
fn share(number: u64, part: u64, whole: u64) -> u64 {
    (u128::from(number) * u128::from(part)).div_ceil(u128::from(whole.max(1))) as u64
}
