//! What the handles, the writer and the keeper share: files, groups in memory, the queue, and the first fault.

use super::cell::{Cell, State};
use super::file::DbFile;
use super::queue::{Kind, Op, Queue};
use super::segments::{Segment, Segments};
use super::space::Gauge;
use super::{Done, Error, Fences, Options};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::watch;

/// The entries `first..=last` of a group, which lie in a segment.
pub(super) struct Piece {
    pub cell: Arc<Cell>,
    pub segment: Arc<Segment>,
    pub first: u64,
    pub last: u64,
}

pub(super) struct Shared {
    pub options: Options,
    pub meta: DbFile,
    pub segments: Segments,
    pub queue: Queue,
    /// Bytes of all the tails.
    pub tail_bytes: AtomicUsize,
    pub identity: Mutex<Option<Bytes>>,
    pub failed: watch::Sender<Option<Error>>,
    pub fences: watch::Sender<Arc<Fences>>,
    /// There are no threads: whoever opened the store does its work, and may read in place.
    pub stepped: AtomicBool,
    pub space: Gauge,
    cells: Mutex<HashMap<u64, Arc<Cell>>>,
    fault: OnceLock<Error>,
}

impl Shared {
    pub fn new(options: Options, meta: DbFile, segments: Segments) -> Shared {
        Shared {
            options,
            meta,
            segments,
            queue: Queue::default(),
            tail_bytes: AtomicUsize::new(0),
            identity: Mutex::new(None),
            failed: watch::Sender::new(None),
            fences: watch::Sender::new(Arc::default()),
            stepped: AtomicBool::new(false),
            space: Gauge::default(),
            cells: Mutex::default(),
            fault: OnceLock::new(),
        }
    }

    pub fn cells(&self) -> MutexGuard<'_, HashMap<u64, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lives in these segments, ascending by group and index.
    pub fn pieces(&self, inside: impl Fn(&Arc<Segment>) -> bool) -> Vec<Piece> {
        let mut cells: Vec<_> = self.cells().values().cloned().collect();
        cells.sort_unstable_by_key(|cell| cell.id);
        let mut pieces = Vec::new();
        for cell in cells {
            let state = cell.state();
            let spans = state.spans.iter().filter(|span| inside(&span.segment));
            pieces.extend(spans.map(|span| Piece {
                cell: cell.clone(),
                segment: span.segment.clone(),
                first: span.first,
                last: span.last,
            }));
        }
        pieces
    }

    pub fn cell(&self, id: u64) -> Arc<Cell> {
        let cell = || {
            let fence = self.fences.borrow().of(id).map(Into::into);
            Cell::new(id, State::fenced(fence))
        };
        self.cells().entry(id).or_insert_with(cell).clone()
    }

    pub fn identity(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first fault, if there was one: nothing may be promised after it.
    pub fn check(&self) -> Result<(), Error> {
        match self.fault.get() {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    /// Latches a fault; the first one stays.
    pub fn fail(&self, error: Error) {
        if self.fault.set(error.clone()).is_ok() {
            self.failed.send_replace(Some(error));
        }
    }

    /// Refuses everything from now on; the fault, if there was one. Asking again is not one.
    pub fn close(&self) -> Result<(), Error> {
        match self.fault.get_or_init(|| Error::Closed) {
            Error::Closed => Ok(()),
            fault => Err(fault.clone()),
        }
    }

    /// Latches a read's error if it says that the disk is failing now.
    pub fn checked<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::Io { .. }) = &result {
            self.fail(error.clone());
        }
        result
    }

    /// Works on a group's state and keeps the count of all tails' bytes right.
    pub fn with_tail<T>(&self, cell: &Cell, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = cell.state();
        let before = state.tail_bytes();
        let done = work(&mut state);
        // Wrapping, as the difference may be negative; the sum is not.
        self.tail_bytes.fetch_add(state.tail_bytes().wrapping_sub(before), Relaxed);
        done
    }

    /// Queues one operation of a group whose state the caller holds, so that memory and queue have one order.
    pub fn push(&self, cell: &Arc<Cell>, state: &mut State, kind: Kind, done: Option<Done>) -> Result<u64, Error> {
        self.check()?;
        state.check_fence(cell.id)?;
        self.queue_op(cell, state, kind, done)
    }

    /// The same, of a group that may be fenced.
    pub fn queue_op(&self, cell: &Arc<Cell>, state: &mut State, kind: Kind, done: Option<Done>) -> Result<u64, Error> {
        self.check()?;
        let number = state.next_op();
        self.queue.push([Op { cell: Some(cell.clone()), number, kind, done }])?;
        Ok(number)
    }
}
