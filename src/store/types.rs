//! The values that cross this room's door: log ids, entries, options, and the wait for durability.

use super::Error;
use crate::core::limits::{
    GROUP_TAIL_BYTES, JOURNAL_BYTES, MERGE_FREED_BYTES, OPEN_SEGMENTS, SCRUB_BYTES_PER_SECOND, SCRUB_PAUSE, SEGMENT_BYTES, TAILS_BYTES,
};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// The place of an entry: where it is, and who wrote it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId {
    pub index: u64,
    pub term: u64,
    pub leader: u64,
}

/// One entry of a group's log. The payload belongs to the room above and is opaque here; a clone shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    pub leader: u64,
    pub payload: Bytes,
}

impl Entry {
    pub fn id(&self) -> LogId {
        LogId { index: self.index, term: self.term, leader: self.leader }
    }
}

/// Both ends of a group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Everything up to here is deleted.
    pub purged: Option<LogId>,
    /// The newest entry; equal to `purged` while the log is empty.
    pub last: Option<LogId>,
}

/// What an operator or a test may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment that grew past this many bytes is sealed and the next one begun.
    pub segment_bytes: u64,
    /// Length of the journal; a batch that would fill more than an eighth of it is written to the segment at once.
    pub journal_bytes: u64,
    /// Payload bytes of a group's newest durable entries that stay in memory for readers.
    pub tail_bytes: usize,
    /// The same for all groups together; the oldest go first.
    pub tails_bytes: usize,
    /// Page cache of the active segment, in bytes.
    pub cache_bytes: usize,
    /// Page cache of every sealed segment that is open for reading, in bytes.
    pub sealed_cache_bytes: usize,
    /// Sealed segments that may be open for reading at a time.
    pub open_segments: usize,
    /// Bytes of rows that the scrub verifies in a second.
    pub scrub_bytes_per_second: u64,
    /// How long the scrub rests between two passes, and before the first.
    pub scrub_pause: Duration,
    /// Sealed segments in which little lives are merged where that gives back at least so many bytes.
    pub merge_freed_bytes: u64,
    /// With less room than this on the disk nothing new is taken; by default what fits the disk.
    pub disk_reserve_bytes: Option<u64>,
    /// What a test says is free.
    #[cfg(test)]
    pub free_bytes: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

/// redb's smallest file is a little over 1 MiB, and it grows by doubling; a length below this does not say how full a file is.
pub(super) const FILE_BYTES_MIN: u64 = 4 << 20;

impl Options {
    /// On a small disk segments are smaller: only whole ones give room back.
    pub(super) fn fit(&mut self, disk_bytes: u64) {
        self.segment_bytes = self.segment_bytes.min((disk_bytes / 32).max(FILE_BYTES_MIN));
    }

    /// The length of a segment's file at which it is full.
    pub(super) fn segment_file_bytes(&self) -> u64 {
        self.segment_bytes.max(FILE_BYTES_MIN)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            journal_bytes: JOURNAL_BYTES,
            tail_bytes: GROUP_TAIL_BYTES,
            tails_bytes: TAILS_BYTES,
            cache_bytes: 64 << 20,
            sealed_cache_bytes: 4 << 20,
            open_segments: OPEN_SEGMENTS,
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
            scrub_pause: SCRUB_PAUSE,
            merge_freed_bytes: MERGE_FREED_BYTES,
            disk_reserve_bytes: None,
            #[cfg(test)]
            free_bytes: None,
        }
    }
}

/// Called once, on the writer's thread, after the commit that holds what was asked for, or with the error that prevents it.
///
/// It must not block: every group waits behind it.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A write that is on its way to disk. Await it, or [`Durable::wait`] for it outside of async code; dropping it does not undo it.
#[must_use = "the write is durable only once this resolves"]
pub struct Durable(oneshot::Receiver<Result<(), Error>>);

impl Durable {
    pub(super) fn new() -> (Done, Durable) {
        let (tx, rx) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            let _ = tx.send(result);
        });
        (done, Durable(rx))
    }

    /// Blocks this thread until the write is durable. Must not be called from an async task.
    pub fn wait(self) -> Result<(), Error> {
        self.0.blocking_recv().unwrap_or(Err(Error::Closed))
    }
}

impl Future for Durable {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(Error::Closed)))
    }
}
