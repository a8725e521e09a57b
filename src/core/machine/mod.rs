//! A stream's replicated state: folds the commands of its log into seqs, deduplication and bounds.
//!
//! The log keeps the events; the machine keeps what is needed to find them and to decide about the next ones:
//! - [`window`]: the event ids of the deduplication window,
//! - [`origins`]: the outcomes of the newest requests of every origin, for requests that are sent again,
//! - [`index`]: where in the log an event is, and which events of the log were not stored,
//! - [`purges`]: the subject purges.
//!
//! The same commands give the same outcomes on every replica: nothing here reads a clock, draws a number, or lets the order of
//! a hash map reach a result.

mod index;
mod origins;
mod purges;
mod window;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use index::{Place, Skipped, events_of};

use super::{
    Text, Time,
    batch::{self, EventHead, RequestHead},
    codec::{Corrupt, Reader, Writer},
    command::{Command, Publish},
    limits,
};
use bytes::Bytes;
use index::Index;
use origins::{Origins, Seen};
use purges::Purges;
use std::collections::HashSet;
use window::{Known, Window};

const VERSION: u8 = 1;

/// A deterministic no: part of the replicated result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `expected_last_seq` was not the last seq.
    Expectation { last_seq: u64 },
    /// `discard: new` and no room.
    Full { limit: u64, bytes: bool },
    /// `limits::DEDUP_IDS_MAX` ids are remembered already.
    DedupFull,
    /// The origin had settled this counter, or has a newer boot: nobody waits for the outcome.
    Stale,
    /// A subject purge too many (`limits::TOMBSTONES_MAX`).
    TombstonesFull,
}

/// What became of one request, or of one other command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `count` events were stored as `first_seq..=last_seq`, `duplicates` were known already. When nothing was stored,
    /// `count` is 0, the seqs are those of the first and last original, and the time is that of the first.
    Published {
        first_seq: u64,
        last_seq: u64,
        count: u32,
        duplicates: u32,
        time: Time,
    },
    Trimmed {
        events: u64,
        bytes: u64,
    },
    Rejected(Reject),
}

/// What applying one entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// One a request for `Publish`, else one.
    pub outcomes: Vec<Outcome>,
    /// The seq that the entry's first stored event has or would have.
    pub first_seq: u64,
    /// Positions, over all events of the entry in order, that were not stored (ascending).
    pub skipped: Vec<u32>,
}

/// A stream's size, for everybody to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The first event that retention left; `last_seq + 1` when it left none. A subject purge may have removed it.
    pub first_seq: u64,
    pub last_seq: u64,
    /// Number of events without the purged ones; see [`purges`] for how exact this is after a trim.
    pub events: u64,
    pub bytes: u64,
    pub last_time: Time,
}

impl State {
    /// Whether retention left no event.
    pub fn is_empty(&self) -> bool {
        self.first_seq > self.last_seq
    }
}

/// A stream's replicated state.
///
/// - `first_seq <= last_seq + 1`, and neither ever decreases.
/// - `trimmed_bytes <= total_bytes`, and neither ever decreases.
/// - Every index in `index` and `origins` is at most `applied`.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Index of the newest folded entry; 0 before the first.
    applied: u64,
    first_seq: u64,
    last_seq: u64,
    /// Bytes of all events that were ever stored.
    total_bytes: u64,
    /// Bytes of those before `first_seq`.
    trimmed_bytes: u64,
    last_time: Time,
    window: Window,
    origins: Origins,
    index: Index,
    purges: Purges,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Machine {
    pub fn new() -> Machine {
        Machine {
            applied: 0,
            first_seq: 1,
            last_seq: 0,
            total_bytes: 0,
            trimmed_bytes: 0,
            last_time: Time::default(),
            window: Window::default(),
            origins: Origins::default(),
            index: Index::default(),
            purges: Purges::default(),
        }
    }

    /// Folds one entry. Entries come in order of `index`, each once. After an error the machine is as it was before.
    pub fn apply(&mut self, index: u64, command: &Command) -> Result<Applied, Corrupt> {
        if index <= self.applied {
            return Err(Corrupt { what: "a stream's log", why: "an entry came twice or out of order" });
        }
        let applied = match command {
            Command::Publish(publish) => self.publish(index, publish)?,
            Command::Trim { before_seq, bytes_before } => self.alone(|machine| machine.trim(*before_seq, *bytes_before)),
            Command::PurgeSubject { filter, before_seq, events, bytes } => self.alone(|machine| {
                let State { events: had, bytes: had_bytes, .. } = machine.state();
                let before_seq = (*before_seq).min(machine.last_seq + 1);
                machine.purges.add(filter, machine.first_seq, before_seq, (*events).min(had), (*bytes).min(had_bytes))
            }),
        };
        self.applied = index;
        Ok(applied)
    }

    /// The result of a command that stores no events.
    fn alone(&mut self, fold: impl FnOnce(&mut Machine) -> Outcome) -> Applied {
        Applied { outcomes: vec![fold(self)], first_seq: self.last_seq + 1, skipped: Vec::new() }
    }

    fn publish(&mut self, index: u64, publish: &Publish) -> Result<Applied, Corrupt> {
        let decode = |request| Ok((batch::decode_head(request)?, batch::event_heads(request)?));
        let requests = publish.requests.iter().map(decode).collect::<Result<Vec<_>, Corrupt>>()?;
        self.window.evict(publish.time, publish.dedup_window_ms);
        self.last_time = self.last_time.max(publish.time);
        let (first_seq, bytes_before) = (self.last_seq + 1, self.total_bytes);
        let mut skipped = Vec::new();
        let mut position = 0u32;
        let mut outcomes = Vec::with_capacity(requests.len());
        for (head, events) in &requests {
            outcomes.push(self.request(index, publish, head, events, position, &mut skipped));
            position += head.count;
        }
        if self.last_seq >= first_seq {
            let place = Place { index, seq: first_seq, bytes: bytes_before };
            self.index.stored(place, self.last_time, &skipped);
        } else if position > 0 {
            self.index.skipped_all(index);
        }
        Ok(Applied { outcomes, first_seq, skipped })
    }

    /// Folds one request whose events begin at `position` in its entry.
    fn request(
        &mut self,
        index: u64,
        publish: &Publish,
        head: &RequestHead,
        events: &[EventHead],
        position: u32,
        skipped: &mut Vec<u32>,
    ) -> Outcome {
        let skipped_before = skipped.len();
        let outcome = match self.origins.look(index, head) {
            Seen::Settled => Outcome::Rejected(Reject::Stale),
            Seen::Before(outcome) => outcome,
            Seen::Never => {
                let outcome = self.decide(publish, head, events, position, skipped);
                self.origins.remember(head, outcome.clone());
                return outcome;
            }
        };
        debug_assert_eq!(skipped.len(), skipped_before);
        skipped.extend(position..position + head.count);
        outcome
    }

    /// Decides about a request that is seen for the first time, and stores it, all or none.
    fn decide(&mut self, publish: &Publish, head: &RequestHead, events: &[EventHead], position: u32, skipped: &mut Vec<u32>) -> Outcome {
        let news = self.news(events);
        let outcome = match self.refuse(publish, head, &news) {
            // A request that was stored before, sent again by a publisher whose expectation its own first sending has outdated.
            _ if news.count == 0 && !events.is_empty() => self.originals(events),
            Some(reject) => Outcome::Rejected(reject),
            None => {
                skipped.extend((position..).zip(&news.is_new).filter(|(_, is_new)| !**is_new).map(|(position, _)| position));
                return self.store(publish, events, &news);
            }
        };
        skipped.extend(position..position + head.count);
        outcome
    }

    /// Which events of a request are new: those without an id, and the first with an id that the window does not know.
    fn news(&self, events: &[EventHead]) -> News {
        let mut news = News { is_new: Vec::with_capacity(events.len()), count: 0, ids: 0, bytes: 0 };
        let mut in_request: HashSet<&str> = HashSet::new();
        for event in events {
            let is_new = match &event.id {
                None => true,
                Some(id) => self.window.get(id).is_none() && in_request.insert(id),
            };
            news.is_new.push(is_new);
            if is_new {
                news.count += 1;
                news.ids += event.id.is_some() as usize;
                news.bytes += event.bytes;
            }
        }
        news
    }

    fn refuse(&self, publish: &Publish, head: &RequestHead, news: &News) -> Option<Reject> {
        let state = self.state();
        let over = |limit: Option<u64>, now: u64, more: u64| limit.filter(|limit| now.saturating_add(more) > *limit);
        if head.expected_last_seq.is_some_and(|expected| expected != self.last_seq) {
            return Some(Reject::Expectation { last_seq: self.last_seq });
        }
        if let Some(limit) = over(publish.max_events, state.events, news.count as u64) {
            return Some(Reject::Full { limit, bytes: false });
        }
        if let Some(limit) = over(publish.max_bytes, state.bytes, news.bytes) {
            return Some(Reject::Full { limit, bytes: true });
        }
        (self.window.len() + news.ids > limits::DEDUP_IDS_MAX && news.ids > 0).then_some(Reject::DedupFull)
    }

    /// The outcome for events that are all known.
    fn originals(&self, events: &[EventHead]) -> Outcome {
        let known = |event: Option<&EventHead>| {
            let id: Option<&Text> = event.and_then(|event| event.id.as_ref());
            id.and_then(|id| self.window.get(id)).expect("an event that is not new has an id that the window knows")
        };
        let (first, last) = (known(events.first()), known(events.last()));
        Outcome::Published { first_seq: first.seq, last_seq: last.seq, count: 0, duplicates: events.len() as u32, time: first.time }
    }

    fn store(&mut self, publish: &Publish, events: &[EventHead], news: &News) -> Outcome {
        let first_seq = self.last_seq + 1;
        for (event, _) in events.iter().zip(&news.is_new).filter(|(_, is_new)| **is_new) {
            self.last_seq += 1;
            if let Some(id) = &event.id {
                self.window.add(id, Known { seq: self.last_seq, time: publish.time });
            }
        }
        self.total_bytes += news.bytes;
        let duplicates = (events.len() - news.count) as u32;
        Outcome::Published { first_seq, last_seq: self.last_seq, count: news.count as u32, duplicates, time: publish.time }
    }

    fn trim(&mut self, before_seq: u64, bytes_before: u64) -> Outcome {
        let old = self.state();
        let first_seq = before_seq.min(self.last_seq + 1);
        if first_seq > self.first_seq {
            self.purges.trim(self.first_seq, first_seq);
            self.first_seq = first_seq;
            self.trimmed_bytes = match first_seq > self.last_seq {
                true => self.total_bytes,
                false => bytes_before.clamp(self.trimmed_bytes, self.total_bytes),
            };
            self.index.trim(first_seq);
        }
        let new = self.state();
        Outcome::Trimmed { events: old.events.saturating_sub(new.events), bytes: old.bytes.saturating_sub(new.bytes) }
    }

    pub fn state(&self) -> State {
        let (purged_events, purged_bytes) = self.purges.sums();
        State {
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            events: (self.last_seq + 1 - self.first_seq).saturating_sub(purged_events),
            bytes: (self.total_bytes - self.trimmed_bytes).saturating_sub(purged_bytes),
            last_time: self.last_time,
        }
    }

    /// The newest mark at or before `seq`; `None` when every mark is after it (the entries are gone).
    pub fn locate(&self, seq: u64) -> Option<Place> {
        self.index.locate(seq)
    }

    /// The newest mark whose entry is older than `time`, or the oldest mark.
    pub fn locate_time(&self, time: Time) -> Option<Place> {
        self.index.locate_time(time)
    }

    /// Which events of the entry were not stored. Known from the mark on that `locate` gives for `first_seq`.
    pub fn skipped(&self, index: u64) -> Skipped {
        self.index.skipped(index)
    }

    /// Whether a subject purge removed the event.
    pub fn is_purged(&self, seq: u64, subject: Option<&str>) -> bool {
        self.purges.takes(seq, subject)
    }

    /// The seq and time under which an event id is remembered (not older than the window at `now`).
    pub fn find_id(&self, id: &str, now: Time, window_ms: u64) -> Option<(u64, Time)> {
        let known = self.window.get(id)?;
        (!known.is_expired(now, window_ms)).then_some((known.seq, known.time))
    }

    /// The last entry that no reader needs any more, because retention removed its events: the log may be purged up to it.
    pub fn needless_through(&self) -> Option<u64> {
        self.locate(self.first_seq).map(|place| place.index.saturating_sub(1))
    }

    /// There is a checkpoint here, and so a place that the log may be purged to: the next entry with an event is marked, so that
    /// `needless_through` can be exactly here.
    pub fn mark_next(&mut self) {
        self.index.mark_next();
    }

    /// Forgets marks and skips of entries up to and including `index`: they are purged from the log.
    pub fn forget_through(&mut self, index: u64) {
        self.index.forget_through(index);
    }

    /// Everything, version 1.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(256);
        out.u8(VERSION);
        for number in [self.applied, self.first_seq, self.last_seq, self.total_bytes, self.trimmed_bytes] {
            out.varint(number);
        }
        out.i64(self.last_time.0);
        self.window.encode(&mut out);
        self.origins.encode(&mut out);
        self.index.encode(&mut out);
        self.purges.encode(&mut out);
        out.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Machine, Corrupt> {
        let mut reader = Reader::new("a stream's state", bytes);
        if reader.u8()? != VERSION {
            return Err(reader.corrupt("its version is not known"));
        }
        let machine = Machine {
            applied: reader.varint()?,
            first_seq: reader.varint()?,
            last_seq: reader.varint()?,
            total_bytes: reader.varint()?,
            trimmed_bytes: reader.varint()?,
            last_time: Time(reader.i64()?),
            window: Window::decode(&mut reader)?,
            origins: Origins::decode(&mut reader)?,
            index: Index::decode(&mut reader)?,
            purges: Purges::decode(&mut reader)?,
        };
        let seqs = machine.last_seq < u64::MAX && (1..=machine.last_seq + 1).contains(&machine.first_seq);
        if !seqs || machine.trimmed_bytes > machine.total_bytes || !machine.index.is_within(machine.last_seq, machine.total_bytes) {
            return Err(reader.corrupt("its counts contradict each other"));
        }
        reader.end()?;
        Ok(machine)
    }
}

/// What is new in a request.
struct News {
    /// Of every event.
    is_new: Vec<bool>,
    count: usize,
    /// New ids.
    ids: usize,
    bytes: u64,
}
