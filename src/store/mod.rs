//! What is kept: the logs, votes and checkpoints of many Raft groups, in redb files. The only room that names redb.
//!
//! It knows nothing of consensus or events: entries are opaque bytes with an index, a term and a leader. Below it is a [`Files`],
//! above it the room that agrees.
//!
//! # One append, from end to end
//!
//! [`Group::append`] puts the entries into the group's tail in memory, where every reader finds them, and an operation into the one
//! queue (`queue`). The one writer (`writer`, a thread) takes everything that waits, of all groups, and makes few phases of it: all
//! appends of a batch are one transaction on the active segment (`commit`), with one `fdatasync`. After it returned, the groups
//! learn where their rows lie, the tails let go of what is beyond their bounds, and the callbacks are called.
//!
//! # On disk
//!
//! `meta.redb` is small and holds what must be found at once: identity, votes, purge points, checkpoints. The entries are in
//! *segments* (`segments`), bounded files of which only the newest is written. After a crash redb reads a whole file before it opens
//! it; that is then the newest segment and the metadata, nothing else. Purging deletes no rows: it moves the purge point, and a
//! segment in which nothing lives is removed as a file. `tables` has every key and value, `format` and `migrations/` their history,
//! `recover` how it all is found again.
//!
//! # Order
//!
//! What one group asks for reaches disk in the order of its calls, across both files. Truncations and purges change memory at once
//! and are durable at the latest with the next thing of the group that is answered.
//!
//! # Faults
//!
//! The first error of the disk is latched: everything that waits and every later call gets it, [`Store::failed`] tells, and the
//! process must stop; after a failed commit nobody knows what is on disk but the next start. A row that does not carry what was
//! written is [`Error::Damaged`], for the reader that met it.
//!
//! # What is not done
//!
//! A segment kept alive by few rows is not rewritten. Sealed segments are opened one by one at start to find their groups.

mod cell;
mod commit;
mod error;
mod fence;
mod file;
mod files;
mod format;
mod group;
mod keeper;
mod queue;
mod read;
mod recover;
mod segments;
mod shared;
mod stats;
mod tables;
mod types;
mod writer;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use fence::{Fence, Fences};
pub use files::{Directory, Files};
pub use format::FORMAT_VERSION;
pub use group::Group;
pub use stats::{COMMIT_BUCKETS, Stats};
pub use tables::ROW_HEADER_BYTES;
pub use types::{Done, Durable, Entry, LogId, LogState, Options};

use crate::core::limits::KEEPER_JOBS_MAX;
use bytes::Bytes;
use keeper::Job;
use queue::{Kind, Op};
use shared::Shared;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::watch;
use writer::Writer;

/// Everything one node keeps. A clone is another handle to the same store; the last one to go closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens what is in the directory, or begins anew in an empty one. Blocks; after a crash for as long as it takes to read the
    /// newest segment.
    pub fn open(files: Arc<dyn Files>, options: Options) -> Result<Store, Error> {
        let (store, writer, jobs) = Store::open_parts(files, options)?;
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work).map_err(Error::io("starting a thread"))
        };
        let shared = store.0.shared.clone();
        let keeper = spawn("store-keeper", Box::new(move || keeper::run(&shared, &jobs)))?;
        let writer = spawn("store-writer", Box::new(move || writer.run()))?;
        store.0.threads.lock().unwrap_or_else(PoisonError::into_inner).extend([writer, keeper]);
        Ok(store)
    }

    /// Opens a real directory; [`Error::InUse`] if another process has it.
    pub fn open_dir(path: &Path, options: Options) -> Result<Store, Error> {
        Store::open(Arc::new(Directory::open(path)?), options)
    }

    /// A store whose writer and keeper somebody else runs.
    fn open_parts(files: Arc<dyn Files>, options: Options) -> Result<(Store, Writer, Receiver<Job>), Error> {
        let recovered = recover::open(files, options)?;
        let shared = Arc::new(recovered.shared);
        let (tell, jobs) = sync_channel(KEEPER_JOBS_MAX);
        let writer = Writer::new(shared.clone(), recovered.active, tell);
        for cell in recovered.dropped {
            let mut state = cell.state();
            let mut op = |kind| Op { cell: Some(cell.clone()), number: state.next_op(), kind, done: None };
            shared.queue.push([op(Kind::DropRows), op(Kind::DropMark)])?;
        }
        Ok((Store(Arc::new(Inner { shared, threads: Mutex::default() })), writer, jobs))
    }

    /// What this node once saved of itself.
    pub fn identity(&self) -> Option<Bytes> {
        self.0.shared.identity().clone()
    }

    /// Readable at return; durable when the answer resolves.
    pub fn save_identity(&self, identity: Bytes) -> Result<Durable, Error> {
        self.0.shared.check()?;
        let (done, durable) = Durable::new();
        let mut current = self.0.shared.identity();
        self.0.shared.queue.push([Op { cell: None, number: 0, kind: Kind::Identity(identity.clone()), done: Some(done) }])?;
        *current = Some(identity);
        Ok(durable)
    }

    /// Groups of which there is anything, ascending.
    pub fn groups(&self) -> Vec<u64> {
        let cells: Vec<_> = self.0.shared.cells().values().cloned().collect();
        let mut groups: Vec<u64> = cells.iter().filter(|cell| !cell.state().is_empty()).map(|cell| cell.id).collect();
        groups.sort_unstable();
        groups
    }

    /// A handle to a group, which need not exist yet.
    pub fn group(&self, id: u64) -> Group {
        Group { shared: self.0.shared.clone(), cell: self.0.shared.cell(id) }
    }

    /// Deletes everything of a group. Only on positive knowledge that the group does not live here: never because something else is
    /// missing. Invisible at return, and gone for good when the answer resolves; the id may be used again at once.
    pub fn drop_group(&self, id: u64) -> Result<Durable, Error> {
        let shared = &self.0.shared;
        shared.check()?;
        let (done, durable) = Durable::new();
        let mut done = Some(done);
        let cell = shared.cell(id);
        shared.with_tail(&cell, |state| {
            let mut op = |kind, done| Op { cell: Some(cell.clone()), number: state.next_op(), kind, done };
            shared.queue.push([op(Kind::DropMeta, None), op(Kind::DropRows, None), op(Kind::DropMark, done.take())])?;
            state.clear();
            Ok(durable)
        })
    }

    /// Becomes `Some` with the first fault; the process must stop then.
    pub fn failed(&self) -> watch::Receiver<Option<Error>> {
        self.0.shared.failed.subscribe()
    }

    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let (ops, bytes) = shared.queue.len();
        Stats {
            queued: ops as u64,
            queued_bytes: bytes as u64,
            tail_bytes: shared.tail_bytes.load(Relaxed) as u64,
            segments: shared.segments.len() as u64,
            ..shared.segments.counters.snapshot()
        }
    }

    /// Writes what is queued, closes every file cleanly, and joins the threads. Later calls give [`Error::Closed`]. Blocks.
    pub fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}

impl Inner {
    fn close(&self) -> Result<(), Error> {
        self.shared.queue.close();
        let threads: Vec<_> = self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        let running = !threads.is_empty();
        for thread in threads {
            // The last handle may be dropped by a callback, on the writer's thread.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        let closed = if running { self.shared.segments.close() } else { Ok(()) };
        let closed = self.shared.close().and(closed);
        if running {
            self.shared.segments.files.release();
        }
        closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
