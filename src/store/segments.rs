//! The log's segments: bounded redb files, one active, the others closed cleanly and opened for reading when somebody reads.
//!
//! Always true: segment numbers only grow; a segment that is not active gets no rows any more; a segment is removed only when no
//! group has a live row in it, and, if it holds cuts (which kill rows of earlier segments), only after every earlier segment.

use super::file::{DbFile, Place};
use super::format::Kind;
use super::tables::{CUTS, segment_name, segment_number};
use super::{Error, Options};
use redb::{ReadTransaction, ReadableTable};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Segment {
    pub number: u32,
    pub file: DbFile,
    /// Spans of groups that lie in it.
    pub live: AtomicUsize,
    /// Whether it holds cuts.
    pub cuts: AtomicBool,
    /// Rows that were alive when it was sealed, or merged last; 0 in the active one.
    pub rows: AtomicU64,
    /// Its file is not what was written: it is moved aside and not removed, once nothing lives in it.
    pub damaged: AtomicBool,
    /// When it was read last, in ticks of [`Segments::clock`].
    used: AtomicU64,
}

impl Segment {
    pub fn new(number: u32, file: DbFile) -> Arc<Segment> {
        let (live, cuts, used, rows) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Segment { number, file, live, cuts, rows, damaged: AtomicBool::new(false), used })
    }
}

/// The entries `first..=last` of a group lie in this segment, durably. Counts as one of its `live` ones.
pub(super) struct Span {
    pub segment: Arc<Segment>,
    pub first: u64,
    pub last: u64,
}

impl Span {
    pub fn new(segment: &Arc<Segment>, first: u64, last: u64) -> Span {
        segment.live.fetch_add(1, Relaxed);
        Span { segment: segment.clone(), first, last }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.segment.live.fetch_sub(1, Relaxed);
    }
}

pub(super) struct Segments {
    pub place: Arc<Place>,
    options: Options,
    map: Mutex<BTreeMap<u32, Arc<Segment>>>,
    /// Segments open for reading only, at most `options.open_segments`.
    open: Mutex<Vec<Arc<Segment>>>,
    clock: AtomicU64,
    /// The number of the newest one.
    newest: AtomicU32,
}

impl Segments {
    pub fn new(place: Arc<Place>, options: Options) -> Segments {
        let (map, open, clock, newest) = (Mutex::default(), Mutex::default(), AtomicU64::new(0), AtomicU32::new(0));
        Segments { place, options, map, open, clock, newest }
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Segment>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// The number of the newest segment, the one that is written.
    pub fn newest(&self) -> u32 {
        self.newest.load(Relaxed)
    }

    /// The segment that has a file of this name, if it gets no more rows.
    pub fn sealed(&self, file: &str) -> Option<Arc<Segment>> {
        let number = segment_number(file)?;
        let map = self.map();
        let last = *map.last_key_value()?.0;
        map.get(&number).filter(|_| number < last).cloned()
    }

    /// Whether it is one of them, and was not retired.
    pub fn has(&self, segment: &Arc<Segment>) -> bool {
        self.map().get(&segment.number).is_some_and(|there| Arc::ptr_eq(there, segment))
    }

    /// Takes out one that was retired.
    pub fn take(&self, segment: &Arc<Segment>) {
        self.map().remove(&segment.number);
    }

    /// Every segment before this one, ascending.
    pub fn before(&self, number: u32) -> Vec<Arc<Segment>> {
        self.map().range(..number).map(|(_, segment)| segment.clone()).collect()
    }

    fn file(&self, number: u32) -> DbFile {
        let caches = [self.options.cache_bytes, self.options.sealed_cache_bytes];
        DbFile::new(segment_name(number), Kind::Segment, &self.place, caches)
    }

    /// Makes the next segment; its file is durable on return, and no row of it written.
    pub fn create(&self, number: u32) -> Result<Arc<Segment>, Error> {
        Ok(self.add(number, self.file(number).create(None, |_, _| Ok(()), || Ok(()))?))
    }

    /// Opens a segment that was there before; `active` for writing, else for reading.
    pub fn open(&self, number: u32, active: bool) -> Result<Arc<Segment>, Error> {
        let opened = if active { self.file(number).open_writable(&|_| Ok(())) } else { self.file(number).open_readable() };
        let newer = |_, _| Error::broken(&segment_name(number), "it names a format that the metadata does not have");
        let segment = self.add(
            number,
            opened.map_err(|error| match error {
                // The metadata is brought up first.
                Error::Newer { found, known } => newer(found, known),
                error => error,
            })?,
        );
        if !active {
            self.opened(&segment);
        }
        Ok(segment)
    }

    fn add(&self, number: u32, file: DbFile) -> Arc<Segment> {
        let segment = Segment::new(number, file);
        self.map().insert(number, segment.clone());
        self.newest.fetch_max(number, Relaxed);
        segment
    }

    /// Forgets a segment that is not to be used.
    pub fn forget(&self, number: u32) {
        if let Some(segment) = self.map().remove(&number) {
            self.removed(&segment);
        }
    }

    /// Runs one short read transaction on a segment, opening it if need be. `Ok(None)`: the segment was removed.
    pub fn read<T>(
        &self,
        segment: &Arc<Segment>,
        mut work: impl FnMut(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<Option<T>, Error> {
        segment.used.store(self.clock.fetch_add(1, Relaxed) + 1, Relaxed);
        if let Some(done) = segment.file.read(&mut work)? {
            return Ok(Some(done));
        }
        let done = segment.file.reopen_and_read(work)?;
        if done.is_some() {
            self.opened(segment);
        }
        Ok(done)
    }

    /// Notes that a segment is open for reading, and closes those that were not read for longest.
    fn opened(&self, segment: &Arc<Segment>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.iter().any(|other| Arc::ptr_eq(other, segment)) {
            open.push(segment.clone());
        }
        if open.len() > self.options.open_segments.max(1) {
            open.sort_by_key(|segment| std::cmp::Reverse(segment.used.load(Relaxed)));
            let mut surplus = open.split_off(self.options.open_segments.max(1));
            surplus.retain(|segment| !segment.file.try_close_readable());
            open.append(&mut surplus);
        }
    }

    /// Takes out the segments before `active` that nothing needs any more, ascending. They must be removed in this order.
    pub fn take_dead(&self, active: u32) -> Vec<Arc<Segment>> {
        let mut map = self.map();
        let mut oldest = true;
        let mut dead = Vec::new();
        for segment in map.values().take_while(|segment| segment.number < active) {
            let is_dead = segment.live.load(Relaxed) == 0 && (oldest || !segment.cuts.load(Relaxed));
            oldest &= is_dead;
            if is_dead {
                dead.push(segment.clone());
            }
        }
        for segment in &dead {
            map.remove(&segment.number);
        }
        dead
    }

    /// Forgets that a segment is open, before it is removed.
    pub fn removed(&self, segment: &Arc<Segment>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !Arc::ptr_eq(other, segment));
    }

    /// Closes every file for good; the first error counts.
    pub fn close(&self) -> Result<(), Error> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let segments: Vec<_> = self.map().values().cloned().collect();
        let closed: Vec<_> = segments.iter().map(|segment| segment.file.close_for_good()).collect();
        closed.into_iter().collect()
    }
}

/// The table of cuts: group, and the index at and above which its rows in earlier segments are dead.
pub(super) fn cuts_of(txn: &ReadTransaction) -> Result<Vec<(u64, u64)>, redb::Error> {
    let mut cuts = Vec::new();
    for row in txn.open_table(CUTS)?.iter()? {
        let (group, at) = row?;
        cuts.push((group.value(), at.value()));
    }
    Ok(cuts)
}
