//! Figures of the store: plain counters, and the file backend that feeds them.

use super::error::is_unreadable;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of the commit times: bucket `i` counts those below 2^i microseconds that no lower bucket took.
pub const COMMIT_BUCKETS: usize = 32;

/// Figures since the store was opened, and its present size.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Durable transactions, of log segments and metadata.
    pub commits: u64,
    /// Entries written.
    pub rows: u64,
    /// Bytes that were handed to the files.
    pub bytes_written: u64,
    /// `fdatasync`s of files.
    pub syncs: u64,
    /// How many commits took how long; see [`COMMIT_BUCKETS`].
    pub commit_us: [u64; COMMIT_BUCKETS],
    /// Sum of all commit times, in microseconds.
    pub commit_us_sum: u64,
    /// Operations that wait for the writer.
    pub queued: u64,
    /// Payload bytes that wait for the writer.
    pub queued_bytes: u64,
    /// Payload bytes of all the tails in memory.
    pub tail_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Length of all files.
    pub file_bytes: u64,
    /// Bytes of rows that the scrub has verified.
    pub scrubbed_bytes: u64,
    /// Times that the scrub has come through all sealed segments.
    pub scrub_passes: u64,
    /// Times that sealed segments were merged, and their dead rows left out.
    pub merges: u64,
    /// Rows that were found damaged.
    pub damaged_rows: u64,
    /// Groups whose data must not be used; see [`super::Fences`].
    pub fenced_groups: u64,
    /// Damaged files that were moved aside, now and earlier, and are still there.
    pub files_aside: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub commits: AtomicU64,
    pub rows: AtomicU64,
    pub bytes_written: AtomicU64,
    pub syncs: AtomicU64,
    pub commit_us: [AtomicU64; COMMIT_BUCKETS],
    pub commit_us_sum: AtomicU64,
    pub file_bytes: AtomicU64,
    pub scrubbed_bytes: AtomicU64,
    pub scrub_passes: AtomicU64,
    pub merges: AtomicU64,
    pub damaged_rows: AtomicU64,
    pub files_aside: AtomicU64,
    /// The disk refused to write, or to read for want of something: whatever follows from it is not damage.
    pub io_failed: AtomicBool,
}

impl Counters {
    pub fn commit(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.commits.fetch_add(1, Relaxed);
        self.commit_us[bucket.min(COMMIT_BUCKETS - 1)].fetch_add(1, Relaxed);
        self.commit_us_sum.fetch_add(us, Relaxed);
    }

    pub fn snapshot(&self) -> Stats {
        Stats {
            commits: self.commits.load(Relaxed),
            rows: self.rows.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            commit_us: std::array::from_fn(|bucket| self.commit_us[bucket].load(Relaxed)),
            commit_us_sum: self.commit_us_sum.load(Relaxed),
            file_bytes: self.file_bytes.load(Relaxed),
            scrubbed_bytes: self.scrubbed_bytes.load(Relaxed),
            scrub_passes: self.scrub_passes.load(Relaxed),
            merges: self.merges.load(Relaxed),
            damaged_rows: self.damaged_rows.load(Relaxed),
            files_aside: self.files_aside.load(Relaxed),
            ..Stats::default()
        }
    }
}

/// A file that counts what is done to it. Locks are passed on: without them two processes could open one file.
#[derive(Debug)]
pub(super) struct Counted {
    pub file: Box<dyn StorageBackend>,
    pub counters: Arc<Counters>,
    /// The file's length.
    pub len: Arc<AtomicU64>,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counted {
    pub fn new(file: Box<dyn StorageBackend>, counters: Arc<Counters>, len: Arc<AtomicU64>) -> io::Result<Counted> {
        let counted = Counted { file, counters, len };
        counted.has_len(counted.file.len()?);
        Ok(counted)
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.counters.io_failed.store(true, Relaxed);
        }
        result
    }

    /// Keeps the sum of all files' lengths right; wrapping, as one file's may shrink.
    fn has_len(&self, len: u64) {
        let before = self.len.swap(len, Relaxed);
        self.counters.file_bytes.fetch_add(len.wrapping_sub(before), Relaxed);
    }
}

type Lock<T> = Result<T, BackendError>;

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.file.read(offset, out) {
            Err(why) if !is_unreadable(&why) => self.noted(Err(why)),
            result => result,
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted(self.file.set_len(len))?;
        self.has_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Relaxed);
        self.noted(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counters.bytes_written.fetch_add(data.len() as u64, Relaxed);
        self.noted(self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<bool> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<bool> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<()> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<()> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<()> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<bool> {
        self.file.query_lock_range(start, end)
    }
}
