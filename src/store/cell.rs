//! What is known of one group in memory: both ends of its log, its newest entries, and where the others lie.
//!
//! The front half changes with the calls; `spans` and `synced` change on the writer's thread, after commits. No IO here.

use super::segments::{Segment, Span};
use super::{Entry, Error, LogId, LogState};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One group's memory, shared by its handles and the writer.
pub(super) struct Cell {
    pub id: u64,
    state: Mutex<State>,
}

impl Cell {
    pub fn new(id: u64, state: State) -> Arc<Cell> {
        Arc::new(Cell { id, state: Mutex::new(state) })
    }

    /// Short: no IO happens under it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Always true:
/// - the log is empty, or holds `first..=last.index` without holes, with `first` beyond `purged`;
/// - `tail` is the newest part of the log (or empty), contiguous, and holds every entry that is not in a segment;
/// - every entry below the tail lies in `spans`;
/// - operations have ascending numbers; those up to `synced` are durable, and the rows of those up to `stored` are in segments.
#[derive(Default)]
pub(super) struct State {
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub first: u64,
    pub vote: Option<Bytes>,
    pub committed: Option<LogId>,
    pub committed_saved: Option<LogId>,
    /// A checkpoint's bytes are here, with the number of the operation, until they are durable.
    pub checkpoints: BTreeMap<u64, Option<(u64, Bytes)>>,
    pub spans: Vec<Span>,
    /// Why nothing of the group may be used.
    pub fence: Option<String>,
    tail: VecDeque<(u64, Entry)>,
    tail_bytes: usize,
    asked: u64,
    synced: u64,
    stored: u64,
    /// The last operation that takes rows away.
    cutting: u64,
    /// Counts what makes a read that is under way stale: truncations, purges, deletion.
    pub version: u64,
}

impl State {
    /// A log of which only the place on disk is known.
    pub fn with_spans(spans: Vec<Span>) -> State {
        State { spans, ..State::default() }
    }

    /// A group of which nothing is known but its fence, if it has one.
    pub fn fenced(fence: Option<String>) -> State {
        State { fence, ..State::default() }
    }

    pub fn log_state(&self) -> LogState {
        LogState { purged: self.purged, last: self.last }
    }

    /// The indexes of the log, unless it is empty.
    pub fn entries(&self) -> Option<(u64, u64)> {
        let last = self.last?.index;
        (self.purged.is_none_or(|purged| purged.index < last)).then_some((self.first, last))
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_none() && self.vote.is_none() && self.checkpoints.is_empty() && (self.fence.is_none() || self.spans.is_empty())
    }

    pub fn check_fence(&self, group: u64) -> Result<(), Error> {
        match &self.fence {
            None => Ok(()),
            Some(why) => Err(Error::Fenced { group, why: why.clone() }),
        }
    }

    /// The index that an append must begin with; `None` if any will do.
    pub fn expected(&self) -> Option<u64> {
        self.last.map(|last| last.index.saturating_add(1))
    }

    /// A number for the next operation.
    pub fn next_op(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Where the tail begins; beyond the last entry if it is empty.
    pub fn tail_start(&self) -> u64 {
        match self.tail.front() {
            Some((_, entry)) => entry.index,
            None => self.last.map_or(0, |last| last.index.saturating_add(1)),
        }
    }

    /// Rows of `spans` before this index stay where they are, until `version` changes.
    pub fn settled_end(&self) -> u64 {
        if self.cutting > self.synced { self.tail_start() } else { u64::MAX }
    }

    pub fn in_tail(&self, index: u64) -> Option<&Entry> {
        let at = usize::try_from(index.checked_sub(self.tail.front()?.1.index)?).ok()?;
        self.tail.get(at).map(|(_, entry)| entry)
    }

    pub fn append(&mut self, op: u64, entries: Vec<Entry>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        debug_assert!(self.expected().is_none_or(|expected| expected == first.index));
        if self.entries().is_none() {
            self.first = first.index;
        }
        self.last = Some(last.id());
        self.tail_bytes += entries.iter().map(weight).sum::<usize>();
        self.tail.extend(entries.into_iter().map(|entry| (op, entry)));
    }

    /// Keeps the entries up to `kept`; `None` keeps none.
    pub fn truncate(&mut self, kept: Option<LogId>) {
        while let Some((_, entry)) = self.tail.back()
            && kept.is_none_or(|kept| entry.index > kept.index)
        {
            self.tail_bytes -= weight(entry);
            self.tail.pop_back();
        }
        self.last = kept.or(self.purged);
        self.cutting = self.asked;
        self.version += 1;
    }

    pub fn purge(&mut self, upto: LogId) {
        while let Some((_, entry)) = self.tail.front()
            && entry.index <= upto.index
        {
            self.tail_bytes -= weight(entry);
            self.tail.pop_front();
        }
        self.purged = Some(upto);
        self.first = upto.index.saturating_add(1);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        self.version += 1;
    }

    /// Forgets everything, its fence too, but what is needed to delete it from disk.
    pub fn clear(&mut self) {
        *self = State {
            spans: std::mem::take(&mut self.spans),
            asked: self.asked,
            synced: self.synced,
            stored: self.stored,
            cutting: self.asked,
            version: self.version + 1,
            ..State::default()
        };
    }

    // What the writer does, after commits.

    /// Operations up to this one are durable.
    pub fn synced(&mut self, op: u64) {
        self.synced = self.synced.max(op);
    }

    /// The rows of operations up to this one are in segments, and so durable.
    pub fn stored(&mut self, op: u64) {
        self.synced(op);
        self.stored = self.stored.max(op);
    }

    /// Lets go of entries at the tail's old end that are in segments: those of operations up to `op`, while the tail is over `keep` bytes.
    pub fn shrink_tail(&mut self, keep: usize, op: u64) {
        let stored = self.stored.min(op);
        while let Some((op, entry)) = self.tail.front()
            && self.tail_bytes > keep
            && *op <= stored
        {
            self.tail_bytes -= weight(entry);
            self.tail.pop_front();
        }
    }

    pub fn checkpoint_saved(&mut self, index: u64, op: u64) {
        if let Some(pending) = self.checkpoints.get_mut(&index) {
            pending.take_if(|(pending_op, _)| *pending_op == op);
        }
    }

    /// Rows at and above `at` are no more.
    pub fn cut_spans(&mut self, at: u64) {
        while self.spans.pop_if(|span| span.first >= at).is_some() {}
        if let Some(span) = self.spans.last_mut() {
            span.last = span.last.min(at.saturating_sub(1));
        }
    }

    /// Rows up to `upto` are no more.
    pub fn purge_spans(&mut self, upto: u64) {
        self.spans.retain(|span| span.last > upto);
        if let Some(span) = self.spans.first_mut() {
            span.first = span.first.max(upto.saturating_add(1));
        }
    }

    /// The rows of these segments are in another one now, a later one.
    pub fn move_spans(&mut self, from: &[Arc<Segment>], to: &Arc<Segment>) {
        let is_from = |span: &Span| from.iter().any(|segment| Arc::ptr_eq(segment, &span.segment));
        if !self.spans.iter().any(is_from) {
            return;
        }
        for span in std::mem::take(&mut self.spans) {
            let segment = if is_from(&span) { to } else { &span.segment };
            self.extend_spans(segment, span.first, span.last);
        }
        self.version += 1;
    }

    /// The rows `first..=last` were added to a segment, the newest.
    pub fn extend_spans(&mut self, segment: &Arc<Segment>, first: u64, last: u64) {
        match self.spans.last_mut() {
            Some(span) if Arc::ptr_eq(&span.segment, segment) && span.last.saturating_add(1) == first => span.last = last,
            _ => self.spans.push(Span::new(segment, first, last)),
        }
    }
}

/// Bytes that an entry counts for.
pub(super) fn weight(entry: &Entry) -> usize {
    entry.payload.len() + std::mem::size_of::<(u64, Entry)>()
}
