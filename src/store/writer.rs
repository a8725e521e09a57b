//! The one writer: takes everything that waits, commits it in few durable transactions, and only then answers.
//!
//! Always true: an operation is answered `Ok` after the commit that holds it, in the journal, the segment or the metadata, returned `Ok`,
//! and so did every commit before it; after the first error nothing is committed any more and everything is answered with that error.

use super::cell::Cell;
use super::journal::Journal;
use super::keeper::Job;
use super::manifest::Manifest;
use super::meta::{MetaTables, SegmentTables, committed_hints};
use super::plain;
use super::queue::{Kind, Op, Target, phases};
use super::segments::{Segment, cuts_of};
use super::shared::Shared;
use super::tables::IDENTITY;
use super::types::FILE_BYTES_MIN;
use super::{Error, Level};
use crate::core::limits::AGED_COMMITS_MAX;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) active: Arc<Segment>,
    /// Bytes of rows written to the active segment by this process.
    pub(super) active_bytes: u64,
    pub(super) journal: Journal,
    /// Appends that are in the journal and not in the segment, in their order, and the rows of them.
    pub(super) journaled: Vec<Op>,
    pub(super) journaled_rows: usize,
    keeper: SyncSender<Job>,
    aged: VecDeque<(Arc<Cell>, u64)>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, active: Arc<Segment>, journal: Journal, keeper: SyncSender<Job>) -> Writer {
        Writer { shared, active, active_bytes: 0, journal, journaled: Vec::new(), journaled_rows: 0, keeper, aged: VecDeque::new() }
    }

    /// Runs until the queue is closed and empty, then closes the files.
    pub fn run(mut self) {
        while let Some(batch) = self.shared.queue.wait() {
            self.step(batch);
        }
        self.finish();
    }

    /// Commits one batch and answers it.
    pub fn step(&mut self, batch: Vec<Op>) {
        let makes_room = batch.iter().any(|op| matches!(op.kind, Kind::Purge(_) | Kind::DropRows));
        for (at, mut ops) in phases(batch).into_iter().enumerate() {
            let result = self.guarded(|writer| match at % 2 {
                0 => writer.commit_meta(&ops),
                _ => writer.commit_log(&mut ops),
            });
            for op in &mut ops {
                if let Some(done) = op.done.take() {
                    done(result.clone());
                }
            }
        }
        let _ = self.guarded(Writer::empty_journal_if_full);
        if makes_room {
            let _ = self.guarded(Writer::roll_to_make_room);
        }
        let _ = self.guarded(Writer::collect);
    }

    /// Runs a piece of work unless there was a fault, and latches its fault; a panic of the database library is one.
    fn guarded(&mut self, work: impl FnOnce(&mut Writer) -> Result<(), Error>) -> Result<(), Error> {
        self.shared.check()?;
        let result = catch_unwind(AssertUnwindSafe(|| work(self)));
        let result = result.unwrap_or_else(|_| Err(Error::Io { what: "writing".into(), why: "the writer panicked".into() }));
        if let Err(error) = &result {
            self.shared.fail(error.clone());
        }
        result
    }

    fn commit_meta(&mut self, ops: &[Op]) -> Result<(), Error> {
        self.empty_journal_before(ops)?;
        if ops.iter().any(|op| op.kind.target() == Target::Meta) {
            let hints = committed_hints(ops.iter().filter_map(|op| op.cell.as_ref()));
            let all = self.shared.fences.borrow().all.is_some();
            self.shared.meta.write(|txn, digest| {
                let mut tables = MetaTables::open(txn, digest)?;
                ops.iter().try_for_each(|op| tables.put(op, all))?;
                hints.iter().try_for_each(|(cell, id)| tables.put_committed(cell.id, *id))
            })?;
            hints.into_iter().for_each(|(cell, id)| cell.state().committed_saved = Some(id));
        }
        for op in ops {
            match &op.kind {
                Kind::Identity(bytes) => plain::write(&*self.shared.segments.place.files, IDENTITY, bytes)?,
                Kind::Merge(merge) => self.finish_merge(merge)?,
                _ => {}
            }
        }
        ops.iter().for_each(meta_is_durable);
        Ok(())
    }

    /// Begins the next segment when the active one is full, and leaves closing the full one to the keeper.
    pub(super) fn roll_if_full(&mut self) -> Result<(), Error> {
        let options = &self.shared.options;
        if self.active_bytes <= options.segment_bytes && self.active.file.len.load(Relaxed) <= options.segment_file_bytes() {
            return Ok(());
        }
        self.roll()
    }

    /// On a disk that is short of room: what was deleted in the active segment gives room back only once that is sealed.
    fn roll_to_make_room(&mut self) -> Result<(), Error> {
        let short = self.shared.space.now.borrow().level != Level::Enough;
        if short && self.active.file.len.load(Relaxed) > FILE_BYTES_MIN { self.roll() } else { Ok(()) }
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.empty_journal()?;
        let next = self.shared.segments.create(self.active.number + 1)?;
        let manifest = self.manifest()?;
        self.active.rows.store(manifest.row_count(), Relaxed);
        self.shared.meta.write(|txn, digest| {
            let mut tables = SegmentTables::open(txn, digest)?;
            tables.add(next.number)?;
            tables.seal(self.active.number, &manifest)
        })?;
        let full = std::mem::replace(&mut self.active, next);
        self.active_bytes = 0;
        self.journal.begin_segment(self.active.number);
        self.tell(Job::Seal(full))
    }

    /// What is in the active segment, to be kept when it gets no more rows.
    fn manifest(&self) -> Result<Manifest, Error> {
        let cuts = self.active.file.read(cuts_of)?.ok_or(Error::Closed)?;
        let pieces = self.shared.pieces(|segment| Arc::ptr_eq(segment, &self.active)).into_iter();
        let rows = pieces.map(|piece| (piece.cell.id, piece.first, piece.last)).collect();
        Ok(Manifest { commits: self.active.file.commits(), rows, cuts })
    }

    /// Has segments removed in which nothing lives. That they may be missing is durable before they are.
    fn collect(&mut self) -> Result<(), Error> {
        let dead = self.shared.segments.take_dead(self.active.number);
        if dead.is_empty() {
            return Ok(());
        }
        self.shared.meta.write(|txn, digest| {
            let mut tables = SegmentTables::open(txn, digest)?;
            dead.iter().try_for_each(|segment| tables.retire(segment.number))
        })?;
        dead.into_iter().try_for_each(|segment| self.tell(Job::Remove(segment)))
    }

    /// A segment was retired durably: its file goes.
    pub(super) fn retired(&self, segment: Arc<Segment>) -> Result<(), Error> {
        self.shared.segments.take(&segment);
        self.tell(Job::Remove(segment))
    }

    fn tell(&self, job: Job) -> Result<(), Error> {
        self.keeper.send(job).map_err(|_| Error::Closed)
    }

    /// Lets go of what the tails hold beyond their bounds, after a group's commit.
    pub(super) fn age(&mut self, cell: &Arc<Cell>, op: u64) {
        self.aged.push_back((cell.clone(), op));
        while self.shared.tail_bytes.load(Relaxed) > self.shared.options.tails_bytes || self.aged.len() > AGED_COMMITS_MAX {
            let Some((cell, op)) = self.aged.pop_front() else { break };
            self.shared.with_tail(&cell, |state| state.shrink_tail(0, op));
        }
    }

    /// The last words: hints that no commit took along, what is in the active segment, then a clean close.
    pub fn finish(&mut self) {
        let _ = self.guarded(|writer| {
            writer.empty_journal()?;
            let cells: Vec<_> = writer.shared.cells().values().cloned().collect();
            let hints = committed_hints(cells.iter());
            let manifest = writer.manifest()?;
            writer.shared.meta.write(|txn, digest| {
                SegmentTables::open(txn, digest)?.seal(writer.active.number, &manifest)?;
                let mut tables = MetaTables::open(txn, digest)?;
                hints.iter().try_for_each(|(cell, id)| tables.put_committed(cell.id, *id))
            })?;
            writer.shared.segments.place.witness.sync()?;
            writer.active.file.close()?;
            writer.shared.meta.close_for_good()
        });
    }
}

fn meta_is_durable(op: &Op) {
    let Some(cell) = &op.cell else { return };
    let mut state = cell.state();
    state.synced(op.number);
    match &op.kind {
        Kind::Purge(id) => state.purge_spans(id.index),
        Kind::Checkpoint(index, _) => state.checkpoint_saved(*index, op.number),
        _ => {}
    }
}
