//! One group's log, vote and checkpoints: a cheap handle. Reads are in `read.rs`.
//!
//! Always true: memory changes and the operation is queued under the group's lock, so that what handles see and what reaches disk
//! have one order. Log and vote of a group are written by one task, its consensus core; readers may be many.

use super::cell::{Cell, State};
use super::queue::Kind;
use super::shared::Shared;
use super::tables::{self, CHECKPOINTS};
use super::{Done, Durable, Entry, Error, LogId, LogState};
use bytes::Bytes;
use std::sync::Arc;

/// A handle to one group. Every write is visible to every handle when the call returns, and reaches disk in the order of the calls.
///
/// It stays usable as long as a [`super::Store`] handle lives.
#[derive(Clone)]
pub struct Group {
    pub(super) shared: Arc<Shared>,
    pub(super) cell: Arc<Cell>,
}

impl Group {
    pub fn id(&self) -> u64 {
        self.cell.id
    }

    /// Bytes of a segment, as they fit the disk.
    pub fn segment_bytes(&self) -> u64 {
        self.shared.options.segment_bytes
    }

    /// The number of the segment that rows are written to now; a larger one than before says that the earlier ones take no more.
    pub fn newest_segment(&self) -> u32 {
        self.shared.segments.newest()
    }

    /// Whether it keeps a segment that takes no more rows from being removed.
    pub fn holds_old_segment(&self) -> bool {
        let newest = self.newest_segment();
        self.cell.state().spans.first().is_some_and(|span| span.segment.number < newest)
    }

    pub fn log_state(&self) -> LogState {
        self.cell.state().log_state()
    }

    /// The index of the oldest entry, unless the log is empty.
    pub fn first_index(&self) -> Option<u64> {
        self.cell.state().entries().map(|(first, _)| first)
    }

    /// Appends contiguous entries after the last one; after none at all, they may begin anywhere. Never blocks.
    ///
    /// At return every handle reads them. `done` comes from the writer's thread after the commit that holds them, or with the fault
    /// that prevents it; it is dropped uncalled when this returns an error, and nothing was taken then.
    pub fn append(&self, entries: Vec<Entry>, done: impl FnOnce(Result<(), Error>) + Send + 'static) -> Result<(), Error> {
        self.shared.with_tail(&self.cell, |state| {
            if entries.is_empty() {
                return self.shared.push(&self.cell, state, Kind::Flush, Some(Box::new(done))).map(drop);
            }
            state.check_fence(self.cell.id)?;
            self.check_contiguous(state, &entries)?;
            let committed = state.committed.map(|id| id.index);
            // A clone of an entry shares its payload.
            let kind = Kind::Append(entries.clone(), committed);
            let op = self.shared.push(&self.cell, state, kind, Some(Box::new(done)))?;
            state.append(op, entries);
            Ok(())
        })
    }

    fn check_contiguous(&self, state: &State, entries: &[Entry]) -> Result<(), Error> {
        let mut expected = state.expected();
        for entry in entries {
            match expected {
                Some(expected) if expected != entry.index => {
                    return Err(Error::Gap { group: self.cell.id, expected, found: entry.index });
                }
                _ => expected = entry.index.checked_add(1),
            }
        }
        Ok(())
    }

    /// Keeps the entries up to and including `keep`, or none. Purged entries stay purged. May read one row.
    pub fn truncate_after(&self, keep: Option<u64>) -> Result<(), Error> {
        let kept = match keep {
            Some(index) => self.log_id(index)?,
            None => None,
        };
        self.shared.with_tail(&self.cell, |state| {
            state.check_fence(self.cell.id)?;
            match (state.last, keep) {
                (None, _) => return Ok(()),
                (Some(last), Some(keep)) if last.index <= keep => return Ok(()),
                _ => {}
            }
            self.shared.push(&self.cell, state, Kind::Truncate(keep), None)?;
            state.truncate(kept);
            Ok(())
        })
    }

    /// Forgets every entry up to and including `upto`; may lie beyond the last entry (a snapshot was installed).
    pub fn purge(&self, upto: LogId) -> Result<(), Error> {
        self.shared.with_tail(&self.cell, |state| {
            state.check_fence(self.cell.id)?;
            if state.purged.is_some_and(|purged| purged.index >= upto.index) {
                return Ok(());
            }
            self.shared.push(&self.cell, state, Kind::Purge(upto), None)?;
            state.purge(upto);
            Ok(())
        })
    }

    /// Readable at return; durable when the answer resolves.
    pub fn save_vote(&self, vote: Bytes) -> Result<Durable, Error> {
        let (done, durable) = Durable::new();
        let mut state = self.cell.state();
        self.shared.push(&self.cell, &mut state, Kind::Vote(vote.clone()), Some(done))?;
        state.vote = Some(vote);
        Ok(durable)
    }

    pub fn vote(&self) -> Option<Bytes> {
        self.cell.state().vote.clone()
    }

    /// A hint that rides on later commits of this group (and on a clean close); never durable by itself. It only grows.
    pub fn save_committed(&self, id: LogId) {
        let mut state = self.cell.state();
        if state.fence.is_none() && state.committed.is_none_or(|committed| committed.index < id.index) {
            state.committed = Some(id);
        }
    }

    /// An id that was saved, or the purge point; after a restart it may be an older one.
    pub fn committed(&self) -> Option<LogId> {
        self.cell.state().committed
    }

    /// Keeps the machine's state at `index`. Readable at return; reaches disk after everything that this group wrote before.
    pub fn save_checkpoint(&self, index: u64, bytes: Bytes, done: Done) -> Result<(), Error> {
        let mut state = self.cell.state();
        let op = self.shared.push(&self.cell, &mut state, Kind::Checkpoint(index, bytes.clone()), Some(done))?;
        state.checkpoints.insert(index, Some((op, bytes)));
        Ok(())
    }

    /// The indexes that have a checkpoint, ascending.
    pub fn checkpoints(&self) -> Vec<u64> {
        self.cell.state().checkpoints.keys().copied().collect()
    }

    /// May read the disk.
    pub fn checkpoint(&self, index: u64) -> Result<Option<Bytes>, Error> {
        let state = self.cell.state();
        state.check_fence(self.cell.id)?;
        match state.checkpoints.get(&index) {
            None => return Ok(None),
            Some(Some((_, bytes))) => return Ok(Some(bytes.clone())),
            Some(None) => drop(state),
        }
        let key = (self.cell.id, index);
        let record = self.shared.meta.read(|txn| {
            let record = txn.open_table(CHECKPOINTS)?.get(key)?;
            Ok(record.map(|record| tables::get_record(key, record.value()).map(Bytes::copy_from_slice)))
        });
        let record = self.shared.fenced(&self.cell, record)?.ok_or(Error::Closed)?;
        record.transpose().map_err(|why| {
            let why = format!("its checkpoint at {index} is damaged: {why}");
            let mut state = self.cell.state();
            let _ = self.shared.fence(&self.cell, &mut state, &why, None);
            Error::Fenced { group: self.cell.id, why }
        })
    }

    /// Deletes the checkpoints below `index`.
    pub fn drop_checkpoints_before(&self, index: u64) -> Result<(), Error> {
        let mut state = self.cell.state();
        state.check_fence(self.cell.id)?;
        if state.checkpoints.first_key_value().is_none_or(|(first, _)| *first >= index) {
            return Ok(());
        }
        self.shared.push(&self.cell, &mut state, Kind::DropCheckpoints(index), None)?;
        state.checkpoints = state.checkpoints.split_off(&index);
        Ok(())
    }

    /// Resolves when everything that was asked of this group so far is durable.
    pub fn flush(&self) -> Result<Durable, Error> {
        let (done, durable) = Durable::new();
        self.shared.push(&self.cell, &mut self.cell.state(), Kind::Flush, Some(done))?;
        Ok(durable)
    }

    /// Resolves when everything that was appended so far is in a segment, where [`Group::read_again`] finds it.
    pub fn settle(&self) -> Result<Durable, Error> {
        let (done, durable) = Durable::new();
        self.shared.push(&self.cell, &mut self.cell.state(), Kind::Settle, Some(done))?;
        Ok(durable)
    }
}
