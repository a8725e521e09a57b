//! Where in the log a stream's events are, and which events of the log were not stored.
//!
//! A reader starts at a mark and decodes the entries from there on, counting: every event of a publish takes the next seq,
//! except the skipped ones. What is known here is known from the mark on that holds the stream's first event.

use crate::core::{
    Event, Time, batch,
    codec::{Corrupt, Reader, Writer},
    command::Publish,
    limits,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Where reading starts: the entry at `index` begins with event `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub index: u64,
    pub seq: u64,
    /// Cumulative bytes of the stream before that event.
    pub bytes: u64,
}

/// Which events of an entry were not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    Nothing,
    /// Those at these positions, ascending, over all events of the entry.
    These(Arc<[u32]>),
    All,
}

impl Skipped {
    /// The stored events of an entry, the first of which has `first_seq`.
    pub fn events_of(&self, publish: &Publish, first_seq: u64) -> Result<Vec<Event>, Corrupt> {
        match self {
            Skipped::Nothing => events_of(publish, first_seq, &[]),
            Skipped::These(positions) => events_of(publish, first_seq, positions),
            Skipped::All => Ok(Vec::new()),
        }
    }

    /// How many events of an entry were stored, without decoding them.
    pub fn stored_of(&self, publish: &Publish) -> Result<u64, Corrupt> {
        let skipped = match self {
            Skipped::Nothing => 0,
            Skipped::These(positions) => positions.len() as u64,
            Skipped::All => return Ok(0),
        };
        let counts = publish.requests.iter().map(|request| Ok(u64::from(batch::decode_head(request)?.count)));
        let all = counts.sum::<Result<u64, Corrupt>>()?;
        all.checked_sub(skipped).ok_or(Corrupt { what: "a publish", why: "it has fewer events than were skipped" })
    }
}

/// The events of an applied entry, with their seqs: requests in order, without the skipped positions.
pub fn events_of(publish: &Publish, first_seq: u64, skipped: &[u32]) -> Result<Vec<Event>, Corrupt> {
    let mut events = Vec::new();
    let mut skipped = skipped.iter().copied().peekable();
    let mut position = 0u32;
    for request in &publish.requests {
        for event in batch::decode_events(request)? {
            if skipped.next_if_eq(&position).is_none() {
                let seq = first_seq + events.len() as u64;
                events.push(Event::new(event, seq, publish.time));
            }
            position += 1;
        }
    }
    Ok(events)
}

/// A place that is remembered, and the time of its entry.
#[derive(Clone, Copy, Debug)]
struct Mark {
    place: Place,
    time: Time,
}

#[derive(Clone, Debug)]
enum Skip {
    These(Arc<[u32]>),
    /// Of this entry and all publishes to the entry `through`: no event was stored in between.
    All {
        through: u64,
    },
}

/// Marks, sparse, and skips, complete.
///
/// - Marks ascend in index, seq, bytes and time; there are at most `limits::MARKS_MAX`.
/// - Two marks are at least `limits::MARK_EVENTS` events or `limits::MARK_BYTES` bytes apart, times two to the `coarseness`; but for
///   those that were asked for with `mark_next`, of which replicas have different ones.
/// - No run of `Skip::All` has an entry in it that stored an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    marks: VecDeque<Mark>,
    coarseness: u8,
    skips: BTreeMap<u64, Skip>,
    /// The newest entry that stored an event.
    stored: u64,
    /// The next entry that stores an event gets a mark wherever the last one is. Not kept.
    mark_next: bool,
}

impl Index {
    /// An entry stored events, the first of them at `place`.
    pub fn stored(&mut self, place: Place, time: Time, skipped: &[u32]) {
        if !skipped.is_empty() {
            self.skips.insert(place.index, Skip::These(skipped.into()));
        }
        self.stored = place.index;
        let far = |last: &Mark| {
            place.seq - last.place.seq >= limits::MARK_EVENTS << self.coarseness
                || place.bytes - last.place.bytes >= limits::MARK_BYTES << self.coarseness
        };
        if std::mem::take(&mut self.mark_next) || self.marks.back().is_none_or(far) {
            self.marks.push_back(Mark { place, time });
            self.fit();
        }
    }

    /// The log may be purged up to here: once its first event after this is the stream's first, nothing before is needed.
    pub fn mark_next(&mut self) {
        self.mark_next = true;
    }

    /// Keeps the marks few in a stream of any length: too many, and every second one goes.
    fn fit(&mut self) {
        if self.marks.len() > limits::MARKS_MAX {
            self.coarseness += 1;
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        } else if self.marks.len() < limits::MARKS_MAX / 8 {
            self.coarseness = self.coarseness.saturating_sub(1);
        }
    }

    /// An entry with events stored none of them.
    pub fn skipped_all(&mut self, index: u64) {
        if let Some(mut last) = self.skips.last_entry()
            && *last.key() > self.stored
            && let Skip::All { through } = last.get_mut()
        {
            *through = index;
            return;
        }
        self.skips.insert(index, Skip::All { through: index });
    }

    pub fn skipped(&self, index: u64) -> Skipped {
        match self.skips.range(..=index).next_back() {
            Some((at, Skip::These(positions))) if *at == index => Skipped::These(positions.clone()),
            Some((_, Skip::All { through })) if *through >= index => Skipped::All,
            _ => Skipped::Nothing,
        }
    }

    pub fn locate(&self, seq: u64) -> Option<Place> {
        let after = self.marks.partition_point(|mark| mark.place.seq <= seq);
        Some(self.marks.get(after.checked_sub(1)?)?.place)
    }

    pub fn locate_time(&self, time: Time) -> Option<Place> {
        let after = self.marks.partition_point(|mark| mark.time < time);
        Some(self.marks.get(after.saturating_sub(1))?.place)
    }

    /// Forgets what only readers of events before `first_seq` need.
    pub fn trim(&mut self, first_seq: u64) {
        let after = self.marks.partition_point(|mark| mark.place.seq <= first_seq);
        self.marks.drain(..after.saturating_sub(1));
        if let Some(first) = self.marks.front() {
            self.skips = self.skips.split_off(&first.place.index);
        }
    }

    /// Forgets everything about entries up to and including `index`.
    pub fn forget_through(&mut self, index: u64) {
        let gone = self.marks.partition_point(|mark| mark.place.index <= index);
        self.marks.drain(..gone);
        let Some(next) = index.checked_add(1) else { return self.skips.clear() };
        let later = self.skips.split_off(&next);
        if let Some((_, Skip::All { through })) = self.skips.pop_last()
            && through >= next
        {
            self.skips.insert(next, Skip::All { through });
        }
        self.skips.retain(|at, _| *at == next);
        self.skips.extend(later);
    }

    /// Whether no mark is past the stream's end.
    pub fn is_within(&self, last_seq: u64, bytes: u64) -> bool {
        self.marks.back().is_none_or(|mark| mark.place.seq <= last_seq && mark.place.bytes <= bytes)
    }

    /// Marks and skips, each as the difference to the one before.
    pub fn encode(&self, out: &mut Writer) {
        out.u8(self.coarseness);
        out.varint(self.stored);
        out.varint(self.marks.len() as u64);
        let mut before = Mark { place: Place { index: 0, seq: 0, bytes: 0 }, time: Time(0) };
        for mark in &self.marks {
            out.varint(mark.place.index - before.place.index);
            out.varint(mark.place.seq - before.place.seq);
            out.varint(mark.place.bytes - before.place.bytes);
            out.varint(mark.time.0.wrapping_sub(before.time.0) as u64);
            before = *mark;
        }
        out.varint(self.skips.len() as u64);
        let mut before = 0;
        for (index, skip) in &self.skips {
            out.varint(index - before);
            before = *index;
            encode_skip(out, *index, skip);
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<Index, Corrupt> {
        let coarseness = reader.u8()?;
        if coarseness > COARSENESS_MAX {
            return Err(reader.corrupt("its marks are too coarse"));
        }
        let mut index = Index { coarseness, stored: reader.varint()?, ..Index::default() };
        let mut mark = Mark { place: Place { index: 0, seq: 0, bytes: 0 }, time: Time(0) };
        for _ in 0..reader.count()? {
            mark.place.index = add(reader, mark.place.index)?;
            mark.place.seq = add(reader, mark.place.seq)?;
            mark.place.bytes = add(reader, mark.place.bytes)?;
            mark.time = Time(mark.time.0.wrapping_add(reader.varint()? as i64));
            index.marks.push_back(mark);
        }
        let mut at = 0;
        for _ in 0..reader.count()? {
            at = add(reader, at)?;
            let skip = decode_skip(reader, at)?;
            index.skips.insert(at, skip);
        }
        Ok(index)
    }
}

/// Far more than the longest stream reaches: it only keeps a damaged encoding from shifting too far.
const COARSENESS_MAX: u8 = 40;

fn encode_skip(out: &mut Writer, index: u64, skip: &Skip) {
    match skip {
        Skip::All { through } => {
            out.varint(0);
            out.varint(through - index);
        }
        Skip::These(positions) => {
            out.varint(positions.len() as u64);
            let mut before = 0;
            for position in positions.iter() {
                out.varint(u64::from(position - before));
                before = *position;
            }
        }
    }
}

fn decode_skip(reader: &mut Reader, index: u64) -> Result<Skip, Corrupt> {
    let count = reader.count()?;
    if count == 0 {
        return Ok(Skip::All { through: add(reader, index)? });
    }
    let mut positions = Vec::with_capacity(count);
    let mut at = 0u64;
    for _ in 0..count {
        at = add(reader, at)?;
        positions.push(u32::try_from(at).map_err(|_| reader.corrupt("a position is too large"))?);
    }
    Ok(Skip::These(positions.into()))
}

/// The next number of an ascending row.
fn add(reader: &mut Reader, before: u64) -> Result<u64, Corrupt> {
    let more = reader.varint()?;
    before.checked_add(more).ok_or_else(|| reader.corrupt("a number is too large"))
}
