//! Reading a group's log: the tail from memory, the rest from segments in short transactions that end before this returns.

use super::cell::State;
use super::segments::Segment;
use super::tables::{LOG, get_row};
use super::{Entry, Error, Group, LogId};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How often a read begins anew because the log changed under it. Each time is a truncation, purge or deletion of this one group.
const ATTEMPTS_MAX: usize = 100;
/// Most segments that one read visits.
const SEGMENTS_MAX: usize = 8;

/// What is to be read from disk, and the state's version that it is right for.
struct Plan {
    version: u64,
    parts: Vec<(Arc<Segment>, Range<u64>)>,
    end: u64,
}

/// Entries up to a number of bytes; always takes the first.
struct Chunk {
    entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Chunk {
    fn takes(&self, payload: usize) -> bool {
        self.entries.is_empty() || self.bytes + payload <= self.bytes_max
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.payload.len();
        self.entries.push(entry);
    }
}

impl Group {
    /// Contiguous entries from `range.start` on: at least one if there is one, else up to `max_bytes` of payload. It may end before
    /// the range or the bytes do; ask again from there. Empty when `range.start` is purged or beyond the last entry.
    ///
    /// May touch the disk: call it where blocking is allowed, unless [`Group::in_memory`] says otherwise.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        self.shared.check()?;
        for _ in 0..ATTEMPTS_MAX {
            let mut chunk = Chunk { entries: Vec::new(), bytes: 0, bytes_max: max_bytes };
            let plan = {
                let state = self.cell.state();
                state.check_fence(self.cell.id)?;
                plan(&state, range.clone(), &mut chunk)
            };
            let Some(plan) = plan else { return Ok(chunk.entries) };
            let read = self.read_parts(&plan, &mut chunk);
            if self.cell.state().version != plan.version {
                continue;
            }
            let full = self.shared.fenced(&self.cell, read)?;
            let state = self.cell.state();
            if state.version != plan.version {
                continue;
            }
            let next = chunk.entries.last().map_or(range.start, |last| last.index + 1);
            if !full && next == plan.end {
                read_tail(&state, next..range.end, &mut chunk);
            }
            return Ok(chunk.entries);
        }
        let why = "the log keeps changing under a read".into();
        Err(Error::Io { what: format!("reading group {}", self.cell.id), why })
    }

    /// Whether a read from `index` on is served without waiting for a disk.
    pub fn in_memory(&self, index: u64) -> bool {
        if self.shared.stepped.load(Relaxed) {
            return true;
        }
        let state = self.cell.state();
        index >= state.tail_start() || state.entries().is_none_or(|(first, _)| index < first)
    }

    /// The log id of an entry, or of the purge point; none if there is no such entry. May read one row.
    pub fn log_id(&self, index: u64) -> Result<Option<LogId>, Error> {
        {
            let state = self.cell.state();
            state.check_fence(self.cell.id)?;
            let ends = [state.purged, state.last];
            if let Some(id) = ends.into_iter().flatten().find(|id| id.index == index) {
                return Ok(Some(id));
            }
        }
        let Some(end) = index.checked_add(1) else { return Ok(None) };
        Ok(self.read(index..end, 0)?.first().map(Entry::id))
    }

    /// Reads the plan's parts in order; true if the chunk is full.
    fn read_parts(&self, plan: &Plan, chunk: &mut Chunk) -> Result<bool, Error> {
        for (segment, range) in &plan.parts {
            if self.read_part(segment, range.clone(), chunk)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_part(&self, segment: &Arc<Segment>, range: Range<u64>, chunk: &mut Chunk) -> Result<bool, Error> {
        let group = self.cell.id;
        let damaged = |index, why| Error::Damaged { group, index, segment: segment.number, why };
        let mut next = range.start;
        let full = self.shared.segments.read(segment, |txn| {
            for row in txn.open_table(LOG)?.range((group, next)..(group, range.end))? {
                let (key, value) = row?;
                let index = key.value().1;
                if index != next {
                    break;
                }
                let row = match get_row(group, index, value.value()) {
                    Ok(row) => row,
                    Err(why) => return Ok(Err(damaged(index, why))),
                };
                if !chunk.takes(row.payload.len()) {
                    return Ok(Ok(true));
                }
                let (term, leader, payload) = (row.term, row.leader, Bytes::copy_from_slice(row.payload));
                chunk.push(Entry { index, term, leader, payload });
                next += 1;
            }
            Ok(Ok(false))
        })?;
        match full {
            Some(Ok(false)) if next < range.end => Err(damaged(next, "the row is missing")),
            Some(full) => full,
            None => Err(damaged(next, "the segment was removed")),
        }
    }
}

/// A piece of a log that was read from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub rows: u64,
    /// Of payload.
    pub bytes: u64,
    /// Where the next piece begins.
    pub next: u64,
}

impl Group {
    /// Reads about `max_bytes` of rows from an index on from segments, even those that memory holds too, and checks every checksum; `None`
    /// beyond the last that is in one (see [`Group::settle`]). What is damaged is fenced, and said. Blocks.
    pub fn read_again(&self, from: u64, max_bytes: usize) -> Result<Option<Slice>, Error> {
        self.shared.check()?;
        for _ in 0..ATTEMPTS_MAX {
            let (version, part) = {
                let state = self.cell.state();
                state.check_fence(self.cell.id)?;
                // Dead rows are none of ours, and where a truncation is under way, rows vanish.
                let (from, end) = (state.purged.map_or(from, |purged| from.max(purged.index + 1)), state.settled_end());
                let span = state.spans.iter().find(|span| span.last >= from);
                let range = span.map(|span| (span.segment.clone(), span.first.max(from)..span.last.saturating_add(1).min(end)));
                (state.version, range.filter(|(_, range)| !range.is_empty()))
            };
            let Some((segment, range)) = part else { return Ok(None) };
            let mut chunk = Chunk { entries: Vec::new(), bytes: 0, bytes_max: max_bytes };
            let read = self.read_part(&segment, range.clone(), &mut chunk);
            if self.cell.state().version != version {
                continue;
            }
            self.shared.fenced(&self.cell, read)?;
            let (rows, bytes) = (chunk.entries.len() as u64, chunk.bytes as u64);
            let next = chunk.entries.last().map_or(range.end, |last| last.index + 1);
            return Ok(Some(Slice { rows, bytes, next }));
        }
        Ok(None)
    }
}

/// Where to read; `None` when the chunk already has all that there is, from the tail.
fn plan(state: &State, range: Range<u64>, chunk: &mut Chunk) -> Option<Plan> {
    let (first, _) = state.entries()?;
    if range.start < first || range.is_empty() {
        return None;
    }
    let tail = state.tail_start();
    if range.start >= tail {
        read_tail(state, range, chunk);
        return None;
    }
    let wanted = range.start..range.end.min(tail);
    let spans = state.spans.iter().skip_while(|span| span.last < wanted.start).take_while(|span| span.first < wanted.end);
    let part = |first: u64, last: u64| first.max(wanted.start)..last.saturating_add(1).min(wanted.end);
    let parts = spans.take(SEGMENTS_MAX).map(|span| (span.segment.clone(), part(span.first, span.last))).collect();
    Some(Plan { version: state.version, parts, end: wanted.end })
}

fn read_tail(state: &State, range: Range<u64>, chunk: &mut Chunk) {
    for index in range {
        match state.in_tail(index) {
            Some(entry) if chunk.takes(entry.payload.len()) => chunk.push(entry.clone()),
            _ => break,
        }
    }
}
