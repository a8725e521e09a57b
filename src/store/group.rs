//! One group's log, vote and checkpoints: a cheap handle.

use super::{Done, Durable, Entry, Error, LogId, LogState};
use bytes::Bytes;
use std::ops::Range;

/// A handle to one group. Every write is visible to every handle when the call returns, and reaches disk in the order of the calls.
#[derive(Clone)]
pub struct Group {}

impl Group {
    pub fn id(&self) -> u64 {
        todo!()
    }

    pub fn log_state(&self) -> LogState {
        todo!()
    }

    /// Appends contiguous entries after the last one. Never blocks. `done` comes from the writer's thread after the commit.
    pub fn append(&self, _entries: Vec<Entry>, _done: impl FnOnce(Result<(), Error>) + Send + 'static) -> Result<(), Error> {
        todo!()
    }

    /// Keeps the entries up to and including `keep`, or none.
    pub fn truncate_after(&self, _keep: Option<u64>) -> Result<(), Error> {
        todo!()
    }

    /// Forgets every entry up to and including `upto`; may lie beyond the last entry (a snapshot was installed).
    pub fn purge(&self, _upto: LogId) -> Result<(), Error> {
        todo!()
    }

    /// Readable at return; durable when the answer resolves.
    pub fn save_vote(&self, _vote: Bytes) -> Result<Durable, Error> {
        todo!()
    }

    pub fn vote(&self) -> Option<Bytes> {
        todo!()
    }

    /// A hint that rides on later commits; never durable by itself.
    pub fn save_committed(&self, _id: LogId) {
        todo!()
    }

    pub fn committed(&self) -> Option<LogId> {
        todo!()
    }

    /// Contiguous entries from `range.start` on, at least one if there is one, else up to `max_bytes` of payload.
    /// Empty when `range.start` is purged or beyond the last entry. May touch the disk: call it where blocking is allowed
    /// unless [`Group::in_memory`] says otherwise.
    pub fn read(&self, _range: Range<u64>, _max_bytes: usize) -> Result<Vec<Entry>, Error> {
        todo!()
    }

    /// Whether a read from `index` on is served from the tail, without the disk.
    pub fn in_memory(&self, _index: u64) -> bool {
        todo!()
    }

    /// The log id of one entry, of the purge point, or none.
    pub fn log_id(&self, _index: u64) -> Result<Option<LogId>, Error> {
        todo!()
    }

    pub fn save_checkpoint(&self, _index: u64, _bytes: Bytes, _done: Done) -> Result<(), Error> {
        todo!()
    }

    /// The indexes that have a checkpoint, ascending.
    pub fn checkpoints(&self) -> Vec<u64> {
        todo!()
    }

    pub fn checkpoint(&self, _index: u64) -> Result<Option<Bytes>, Error> {
        todo!()
    }

    /// Deletes the checkpoints below `index`.
    pub fn drop_checkpoints_before(&self, _index: u64) -> Result<(), Error> {
        todo!()
    }

    /// Resolves when everything queued by this handle so far is durable.
    pub fn flush(&self) -> Result<Durable, Error> {
        todo!()
    }
}
