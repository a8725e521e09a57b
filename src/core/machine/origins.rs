//! What a stream remembers of the nodes that sent it requests, so that a request that is sent again is not done again.

use super::{Outcome, Reject};
use crate::core::{
    Time,
    batch::RequestHead,
    codec::{Corrupt, Reader, Writer},
    limits,
};
use std::collections::BTreeMap;

/// Whether a request was seen before.
pub(super) enum Seen {
    Never,
    /// This is what became of it.
    Before(Outcome),
    /// Its origin has its outcome or waits no longer, or has started again since: it must not be done.
    Settled,
}

/// The requests of one node's newest boot.
///
/// - Every counter in `outcomes` is at least `floor`.
/// - `outcomes` has at most `limits::PENDING_REQUESTS_MAX`: an origin never waits for more.
#[derive(Clone, Debug)]
struct Origin {
    epoch: u64,
    floor: u64,
    outcomes: BTreeMap<u64, Outcome>,
    /// Index of the newest entry with a request of this origin.
    used: u64,
}

impl Origin {
    fn new(epoch: u64, index: u64) -> Origin {
        Origin { epoch, floor: 0, outcomes: BTreeMap::new(), used: index }
    }

    fn raise_floor(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.outcomes = self.outcomes.split_off(&floor);
        }
    }
}

/// The origins by node: at most `limits::ORIGINS_MAX`, those used last.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(BTreeMap<u64, Origin>);

impl Origins {
    /// Whether the request in the entry at `index` was seen before; takes over its boot and its floor.
    pub fn look(&mut self, index: u64, head: &RequestHead) -> Seen {
        let origin = self.0.entry(head.origin.node).or_insert_with(|| Origin::new(head.origin.epoch, index));
        if head.origin.epoch < origin.epoch {
            return Seen::Settled;
        }
        if head.origin.epoch > origin.epoch {
            *origin = Origin::new(head.origin.epoch, index);
        }
        origin.used = index;
        origin.raise_floor(head.floor);
        let seen = match origin.outcomes.get(&head.counter) {
            _ if head.counter < origin.floor => Seen::Settled,
            Some(outcome) => Seen::Before(outcome.clone()),
            None => Seen::Never,
        };
        self.evict();
        seen
    }

    /// Makes room for the newest origin, which is never the one to go: no other has a larger `used`.
    fn evict(&mut self) {
        while self.0.len() > limits::ORIGINS_MAX {
            let Some((_, oldest)) = self.0.iter().map(|(node, origin)| (origin.used, *node)).min() else { return };
            self.0.remove(&oldest);
        }
    }

    /// Remembers the outcome of a request that `look` had not seen.
    pub fn remember(&mut self, head: &RequestHead, outcome: Outcome) {
        let Some(origin) = self.0.get_mut(&head.origin.node) else { return };
        origin.outcomes.insert(head.counter, outcome);
        while origin.outcomes.len() > limits::PENDING_REQUESTS_MAX {
            if let Some((oldest, _)) = origin.outcomes.pop_first() {
                origin.floor = oldest + 1;
            }
        }
    }

    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.0.len() as u64);
        for (node, origin) in &self.0 {
            for number in [*node, origin.epoch, origin.floor, origin.used, origin.outcomes.len() as u64] {
                out.varint(number);
            }
            for (counter, outcome) in &origin.outcomes {
                out.varint(counter - origin.floor);
                encode_outcome(out, outcome);
            }
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<Origins, Corrupt> {
        let mut origins = Origins::default();
        for _ in 0..reader.count()? {
            let node = reader.varint()?;
            let mut origin = Origin { epoch: reader.varint()?, floor: reader.varint()?, outcomes: BTreeMap::new(), used: reader.varint()? };
            for _ in 0..reader.count()? {
                let counter = origin.floor.checked_add(reader.varint()?).ok_or_else(|| reader.corrupt("a counter is too large"))?;
                origin.outcomes.insert(counter, decode_outcome(reader)?);
            }
            origins.0.insert(node, origin);
        }
        Ok(origins)
    }
}

const PUBLISHED: u8 = 1;
const TRIMMED: u8 = 2;
const EXPECTATION: u8 = 3;
const FULL_EVENTS: u8 = 4;
const FULL_BYTES: u8 = 5;
const DEDUP_FULL: u8 = 6;
const STALE: u8 = 7;
const TOMBSTONES_FULL: u8 = 8;

fn encode_outcome(out: &mut Writer, outcome: &Outcome) {
    match outcome {
        Outcome::Published { first_seq, last_seq, count, duplicates, time } => {
            out.u8(PUBLISHED);
            for number in [*first_seq, *last_seq, u64::from(*count), u64::from(*duplicates)] {
                out.varint(number);
            }
            out.i64(time.0);
        }
        Outcome::Trimmed { events, bytes } => {
            out.u8(TRIMMED);
            out.varint(*events);
            out.varint(*bytes);
        }
        Outcome::Rejected(reject) => encode_reject(out, reject),
    }
}

fn encode_reject(out: &mut Writer, reject: &Reject) {
    let (tag, number) = match reject {
        Reject::Expectation { last_seq } => (EXPECTATION, Some(*last_seq)),
        Reject::Full { limit, bytes: false } => (FULL_EVENTS, Some(*limit)),
        Reject::Full { limit, bytes: true } => (FULL_BYTES, Some(*limit)),
        Reject::DedupFull => (DEDUP_FULL, None),
        Reject::Stale => (STALE, None),
        Reject::TombstonesFull => (TOMBSTONES_FULL, None),
    };
    out.u8(tag);
    if let Some(number) = number {
        out.varint(number);
    }
}

fn decode_outcome(reader: &mut Reader) -> Result<Outcome, Corrupt> {
    let small = |reader: &mut Reader| u32::try_from(reader.varint()?).map_err(|_| reader.corrupt("a count is too large"));
    Ok(match reader.u8()? {
        PUBLISHED => Outcome::Published {
            first_seq: reader.varint()?,
            last_seq: reader.varint()?,
            count: small(reader)?,
            duplicates: small(reader)?,
            time: Time(reader.i64()?),
        },
        TRIMMED => Outcome::Trimmed { events: reader.varint()?, bytes: reader.varint()? },
        EXPECTATION => Outcome::Rejected(Reject::Expectation { last_seq: reader.varint()? }),
        FULL_EVENTS => Outcome::Rejected(Reject::Full { limit: reader.varint()?, bytes: false }),
        FULL_BYTES => Outcome::Rejected(Reject::Full { limit: reader.varint()?, bytes: true }),
        DEDUP_FULL => Outcome::Rejected(Reject::DedupFull),
        STALE => Outcome::Rejected(Reject::Stale),
        TOMBSTONES_FULL => Outcome::Rejected(Reject::TombstonesFull),
        _ => return Err(reader.corrupt("an outcome is not known")),
    })
}
