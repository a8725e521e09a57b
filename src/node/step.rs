//! What one step of a reader collects, from the log, and what it has read of it for the next one.

use super::error::Result;
use super::scan::Scan;
use super::stream::Local;
use super::types::{Delivery, Item};
use crate::cluster::Group;
use crate::core::machine::{Machine, Place};
use crate::core::{Event, SubjectFilter, limits};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// What one step collects.
pub struct Taken<'a> {
    pub filter: Option<&'a SubjectFilter>,
    pub items: Vec<Item>,
    pub next: u64,
    pub events: usize,
    pub bytes: usize,
}

/// What becomes of the next event of the log.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// It is before the cursor.
    Past,
    /// The filter does not want it.
    Unwanted,
    /// A purge took it.
    Purged,
    /// It is taken; so many bytes of data.
    Wanted(usize),
    /// The step is full: it is for the next one.
    Full,
}

impl Taken<'_> {
    pub fn verdict(&self, machine: &Machine, event: &Event) -> Verdict {
        let subject = event.subject.as_deref();
        if event.seq < self.next {
            Verdict::Past
        } else if self.filter.is_some_and(|filter| !filter.matches(subject)) {
            Verdict::Unwanted
        } else if machine.is_purged(event.seq, subject) {
            Verdict::Purged
        } else if self.events == 0 || (event.data.len() > self.bytes && !self.items.is_empty()) {
            Verdict::Full
        } else {
            Verdict::Wanted(event.data.len())
        }
    }

    /// Takes an event into account, as the verdict is.
    pub fn count(&mut self, verdict: Verdict, seq: u64, delivery: impl FnOnce() -> Arc<Delivery>) {
        match verdict {
            Verdict::Past | Verdict::Full => return,
            Verdict::Unwanted => {}
            Verdict::Purged => self.gap(seq),
            Verdict::Wanted(bytes) => {
                self.events -= 1;
                self.bytes = self.bytes.saturating_sub(bytes);
                self.items.push(Item::Event(delivery()));
            }
        }
        self.next = seq + 1;
    }

    fn gap(&mut self, seq: u64) {
        match self.items.last_mut() {
            Some(Item::Gap { to, .. }) if *to + 1 == seq => *to = seq,
            _ => self.items.push(Item::Gap { from: seq, to: seq }),
        }
    }
}

/// What was read of the log and not taken: an entry may have more events than a step, and reading and decoding it again for each step
/// was most of what a reader cost that catches up.
pub struct Ahead {
    /// The replica that it is of.
    group: Group,
    /// Where the cursor has to be for it to go on.
    seq: u64,
    /// Of the entry that was given last; its bytes.
    events: VecDeque<Event>,
    entry_bytes: usize,
    scan: Scan,
}

impl Ahead {
    /// Whether it is of this replica and of what comes at the cursor.
    pub fn goes_on(&self, local: &Local, cursor: u64) -> bool {
        self.group.is(&local.group) && self.seq == cursor
    }

    /// Fills a step from what is here; true if it is full.
    fn fill(&mut self, taken: &mut Taken<'_>, machine: &Machine) -> bool {
        while let Some(event) = self.events.pop_front() {
            match taken.verdict(machine, &event) {
                Verdict::Full => {
                    self.events.push_front(event);
                    self.seq = taken.next;
                    return true;
                }
                verdict => taken.count(verdict, event.seq, || Arc::new(Delivery { event, json: OnceLock::new() })),
            }
        }
        (self.seq, self.entry_bytes) = (taken.next, 0);
        false
    }

    /// Itself, unless it is too much to be kept between two steps.
    fn kept(self) -> Option<Ahead> {
        let bytes = self.entry_bytes + self.scan.held();
        (bytes <= limits::READ_AHEAD_BYTES_MAX).then_some(self)
    }
}

/// Fills a step from the log; gives where the next one may begin, and what was read for it already.
pub async fn read_log(
    local: &Local,
    taken: &mut Taken<'_>,
    position: Option<Place>,
    ahead: Option<Ahead>,
) -> Result<(Option<Place>, Option<Ahead>)> {
    let cursor = taken.next;
    let begin = || {
        let (group, scan) = (local.group.clone(), Scan::new(local, cursor, position));
        Ahead { group, seq: cursor, events: VecDeque::new(), entry_bytes: 0, scan }
    };
    let (mut ahead, mut here) = (ahead.unwrap_or_else(begin), position);
    ahead.scan.bytes = 0;
    loop {
        if ahead.fill(taken, &local.replica.machine()) {
            return Ok((here, ahead.kept()));
        }
        if ahead.scan.bytes >= limits::CHUNK_BYTES_MAX {
            return Ok((ahead.scan.place(), ahead.kept()));
        }
        let before = ahead.scan.bytes;
        let Some((place, events)) = ahead.scan.next(local).await? else { break };
        (ahead.events, ahead.entry_bytes, here) = (events.into(), ahead.scan.bytes - before, Some(place));
    }
    if taken.next == cursor && taken.items.is_empty() {
        // What the machine counts as retained is not in the log of this replica: it began later.
        let first = local.replica.machine().locate(u64::MAX).map_or(cursor + 1, |place| place.seq.max(cursor + 1));
        taken.items.push(Item::Gap { from: cursor, to: first - 1 });
        taken.next = first;
    }
    Ok((ahead.scan.place(), None))
}
