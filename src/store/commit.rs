//! One commit of the log: a batch for the journal, or the net effect of what is in the journal and a phase's appends and truncations on the
//! active segment, group by group, in the order of the keys.

use super::Error;
use super::cell::Cell;
use super::queue::{Kind, Op, Target};
use super::segments::Segment;
use super::tables::{CUTS, LOG, ROW_HEADER_BYTES, put_row};
use super::writer::Writer;
use super::{Entry, cell::State};
use crate::core::limits::JOURNAL_ROWS_MAX;
use redb::{ReadableTable, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What a phase does to one group's log: delete everything at and above `cut`, then add the rows.
struct Change<'a> {
    cell: &'a Arc<Cell>,
    cut: Option<u64>,
    rows: Vec<(&'a Entry, Option<u64>)>,
    /// The number of the group's last operation in the phase.
    op: u64,
    /// Where the cut meets rows: in the active segment, in earlier ones.
    cuts_active: bool,
    cuts_earlier: bool,
}

impl<'a> Change<'a> {
    fn new(cell: &'a Arc<Cell>) -> Change<'a> {
        Change { cell, cut: None, rows: Vec::new(), op: 0, cuts_active: false, cuts_earlier: false }
    }

    fn add(&mut self, op: &'a Op) {
        self.op = op.number;
        match &op.kind {
            Kind::Append(entries, committed) => self.rows.extend(entries.iter().map(|entry| (entry, *committed))),
            Kind::Truncate(keep) => self.cut_at(keep.map_or(0, |keep| keep.saturating_add(1))),
            Kind::DropRows => {
                self.cut_at(0);
                // Purged rows are in no span, but without the purge point only a cut keeps them dead.
                (self.cuts_active, self.cuts_earlier) = (true, true);
            }
            _ => {}
        }
    }

    fn cut_at(&mut self, at: u64) {
        self.rows.retain(|(entry, _)| entry.index < at);
        self.cut = Some(self.cut.map_or(at, |cut| cut.min(at)));
    }

    fn find_cuts(&mut self, active: &Arc<Segment>) {
        let Some(cut) = self.cut else { return };
        for span in self.cell.state().spans.iter().filter(|span| span.last >= cut) {
            match Arc::ptr_eq(&span.segment, active) {
                true => self.cuts_active = true,
                false => self.cuts_earlier = true,
            }
        }
    }

    fn put(&self, log: &mut Table<(u64, u64), &'static [u8]>, cuts: &mut Table<u64, u64>) -> Result<u64, redb::Error> {
        let group = self.cell.id;
        if let Some(cut) = self.cut {
            if self.cuts_active {
                log.retain_in((group, cut)..=(group, u64::MAX), |_, _| false)?;
            }
            if self.cuts_earlier {
                let before = cuts.get(group)?.map_or(u64::MAX, |cut| cut.value());
                cuts.insert(group, before.min(cut))?;
            }
        }
        let mut bytes = 0;
        for (entry, committed) in &self.rows {
            let len = ROW_HEADER_BYTES + entry.payload.len();
            put_row(log.insert_reserve((group, entry.index), len)?.as_mut(), group, entry, *committed);
            bytes += len as u64;
        }
        Ok(bytes)
    }

    fn is_durable(&self, state: &mut State, active: &Arc<Segment>) {
        if let Some(cut) = self.cut {
            state.cut_spans(cut);
        }
        if let (Some((first, _)), Some((last, _))) = (self.rows.first(), self.rows.last()) {
            state.extend_spans(active, first.index, last.index);
        }
        state.stored(self.op);
    }
}

impl Writer {
    /// Makes a phase durable. What is in the journal afterwards is moved out of the operations and into `journaled`.
    pub(super) fn commit_log(&mut self, ops: &mut [Op]) -> Result<(), Error> {
        if ops.iter().any(|op| op.kind.target() == Target::Log) {
            self.roll_if_full()?;
        }
        match self.is_for_journal(ops) && !self.journal.is_full() {
            true => self.write_journal(ops),
            false => self.write_segment(ops),
        }
    }

    /// Whether the phase only appends, and not much.
    fn is_for_journal(&self, ops: &[Op]) -> bool {
        let (mut rows, mut bytes) = (0, 0);
        for op in ops {
            match &op.kind {
                Kind::Append(entries, _) => {
                    rows += entries.len();
                    bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
                }
                Kind::Truncate(_) | Kind::DropRows | Kind::Settle => return false,
                _ => {}
            }
        }
        self.journal.takes(rows, bytes)
    }

    fn write_journal(&mut self, ops: &mut [Op]) -> Result<(), Error> {
        let appends = ops.iter().filter_map(|op| match (&op.cell, &op.kind) {
            (Some(cell), Kind::Append(entries, committed)) => Some((cell.id, entries, *committed)),
            _ => None,
        });
        let rows = appends.clone().map(|(_, entries, _)| entries.len()).sum::<usize>();
        if rows > 0 {
            let started = Instant::now();
            let place = &self.shared.segments.place;
            let all = appends.flat_map(|(group, entries, committed)| entries.iter().map(move |entry| (group, entry, committed)));
            let bytes = self.journal.append(place, all)?;
            place.counters.commit(started.elapsed());
            place.counters.rows.fetch_add(rows as u64, Relaxed);
            self.shared.wrote(bytes);
            self.journaled_rows += rows;
        }
        for op in ops {
            let Some(cell) = &op.cell else { continue };
            cell.state().synced(op.number);
            if matches!(op.kind, Kind::Append(..)) {
                let kind = std::mem::replace(&mut op.kind, Kind::Flush);
                self.journaled.push(Op { cell: Some(cell.clone()), number: op.number, kind, done: None });
            }
        }
        Ok(())
    }

    /// Puts what is in the journal into the segment, if that is due.
    pub(super) fn empty_journal_if_full(&mut self) -> Result<(), Error> {
        match self.journal.is_full() || self.journaled_rows >= JOURNAL_ROWS_MAX {
            true => self.empty_journal(),
            false => Ok(()),
        }
    }

    /// Before rows are purged they are in the segment: what the journal has is never older than a purge point.
    pub(super) fn empty_journal_before(&mut self, ops: &[Op]) -> Result<(), Error> {
        let purges = |op: &Op| match (&op.cell, &op.kind) {
            (Some(cell), Kind::Purge(upto)) => self.journaled.iter().any(|journaled| journaled.has_row_up_to(cell.id, upto.index)),
            _ => false,
        };
        if ops.iter().any(purges) { self.empty_journal() } else { Ok(()) }
    }

    pub(super) fn empty_journal(&mut self) -> Result<(), Error> {
        if self.journaled.is_empty() { Ok(()) } else { self.write_segment(&[]) }
    }

    /// Commits what is in the journal and the phase to the active segment.
    fn write_segment(&mut self, ops: &[Op]) -> Result<(), Error> {
        let journaled = std::mem::take(&mut self.journaled);
        self.journaled_rows = 0;
        let changes = changes(journaled.iter().chain(ops), &self.active);
        let rows: usize = changes.iter().map(|change| change.rows.len()).sum();
        let cuts = changes.iter().any(|change| change.cuts_earlier);
        if rows > 0 || cuts || !journaled.is_empty() || changes.iter().any(|change| change.cuts_active) {
            // Before the commit, since a failed one may still have become durable.
            self.active.cuts.fetch_or(cuts, Relaxed);
            let bytes = self.active.file.write_journaled(self.journal.number(), |txn| {
                let (mut log, mut cuts) = (txn.open_table(LOG)?, txn.open_table(CUTS)?);
                changes.iter().try_fold(0, |bytes, change| Ok(bytes + change.put(&mut log, &mut cuts)?))
            })?;
            self.journal.begin_again();
            self.active_bytes += bytes;
            self.shared.wrote(bytes);
            let new: usize = ops.iter().map(Op::rows).sum();
            self.shared.segments.place.counters.rows.fetch_add(new as u64, Relaxed);
        }
        for change in &changes {
            let keep = self.shared.options.tail_bytes;
            self.shared.with_tail(change.cell, |state| {
                change.is_durable(state, &self.active);
                state.shrink_tail(keep, change.op);
            });
            self.age(change.cell, change.op);
        }
        Ok(())
    }
}

fn changes<'a>(ops: impl Iterator<Item = &'a Op>, active: &Arc<Segment>) -> Vec<Change<'a>> {
    let mut changes: BTreeMap<u64, Change<'a>> = BTreeMap::new();
    for op in ops {
        if let Some(cell) = &op.cell {
            changes.entry(cell.id).or_insert_with(|| Change::new(cell)).add(op);
        }
    }
    let mut changes: Vec<_> = changes.into_values().collect();
    changes.iter_mut().for_each(|change| change.find_cuts(active));
    changes
}
