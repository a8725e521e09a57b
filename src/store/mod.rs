//! What is kept: the logs, votes and checkpoints of many Raft groups, in redb files. The only room that names redb.
//!
//! It knows nothing of consensus or events: entries are opaque bytes with an index, a term and a leader. Below it is a [`Files`],
//! above it the room that agrees.
//!
//! # One append, from end to end
//!
//! [`Group::append`] puts the entries into the group's tail in memory, where every reader finds them, and an operation into the one
//! queue (`queue`). The one writer (`writer`, a thread) takes everything that waits, of all groups, and makes few phases of it: all
//! appends of a batch are one write to the journal (`journal`) with one `fdatasync`, after which the callbacks are called. Some
//! batches later the rows go into the active segment in one redb commit (`commit`); then the groups learn where their rows lie, and
//! the tails let go of what is beyond their bounds. A large batch goes there at once.
//!
//! # On disk
//!
//! `meta.redb` is small and holds what must be found at once: identity, votes, purge points, checkpoints. The entries are in
//! *segments* (`segments`), bounded files of which only the newest is written, and the newest of them in the journal. After a crash redb
//! reads a whole file before it opens it; that is then the newest segment and the metadata, nothing else: what is in a sealed segment its
//! *manifest* in the metadata says (`manifest`). Purging deletes no rows: it moves the purge point, and a segment in which nothing lives is removed as a file.
//! Segments in which little lives are merged (`merge`).
//! Two plain files stand beside them, a copy of the identity (`plain`) and the *witness* (`witness`). `tables` has every key and
//! value, `format` and `migrations/` their history, `recover` how it all is found again.
//!
//! # Order
//!
//! What one group asks for reaches disk in the order of its calls, across both files. Truncations and purges change memory at once
//! and are durable at the latest with the next thing of the group that is answered.
//!
//! # Faults
//!
//! The first error of the disk is latched: everything that waits and every later call gets it, [`Store::failed`] tells, and the
//! process must stop; after a failed commit nobody knows what is on disk but the next start.
//!
//! # Damage
//!
//! Bytes that are not what was written fence the groups that they belong to ([`Fences`], `fence`): a fenced group gives
//! [`Error::Fenced`] for everything, over restarts, until [`Store::begin_anew`]. The others go on. It is noticed like this:
//!
//! - A row or record carries a checksum over key and value, and a log has no holes: met by a read, by the scrub (`scrub`), at start.
//! - A sealed segment that cannot be opened, is missing, or has not had the commits that its manifest says: whoever has anything in
//!   it. The metadata and the newest segment have all their pages verified at each start; without the newest one's manifest (it is
//!   made at a clean close) everybody who is known is fenced.
//! - Metadata that is damaged, missing or rolled back: votes are lost, and nobody can say whose, so every group is fenced that is not
//!   begun anew. The node still knows who it is, by the copy of its identity.
//! - A batch of the journal that the newest segment lacks and that is damaged or missing, though a later one or the witness says that it
//!   was there: it counts as damage of the newest segment.
//! - An older state of a file, put back whole: every file counts its commits within itself, and the witness knows how many there were.
//!   It lags behind after a power loss, so that no crash looks like damage.
//!
//! A file that cannot be used is moved aside under another name, never deleted. A file's damage is told from a machine that lacks
//! something now (descriptors, space, power) by the error's kind; the latter is a fault, as above.
//!
//! # What is not done
//!
//! Of metadata with one damaged page all counts as damaged, and nothing is saved from it row by row. Each row has a checksum, but redb
//! writes new pages beside the old: behind a page that leads elsewhere lies a row that is whole and older, with all its neighbours, and a
//! node that takes an older vote for its own may vote twice. Only the pages' checksums tell, and they say *that*, not *where*. There is
//! no second copy of a vote to compare with, and without the votes nothing else of a group can be used; what has one, the identity, is
//! taken from there.
//!
//! A whole directory that is put back to an older state, witness included, is not noticed here, but by its leaders. Nor is it noticed
//! when a power loss takes the witness's last second and a bit of the newest commit flips as well. Damage to the structure of the
//! segment that is being written is found at the next start, or stops the node.

mod cell;
mod commit;
pub mod crash;
mod error;
mod fence;
mod file;
mod files;
mod format;
mod group;
mod journal;
mod keeper;
mod manifest;
mod merge;
mod meta;
mod plain;
mod queue;
mod read;
mod recover;
mod recover_log;
mod recover_meta;
mod scrub;
mod segments;
mod shared;
mod space;
mod stats;
mod stepped;
mod tables;
mod types;
mod witness;
mod worth;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use fence::{Fence, Fences};
pub use files::{Directory, Files};
pub use format::FORMAT_VERSION;
pub use group::Group;
pub use read::Slice;
pub use space::{Level, Room, Space};
pub use stats::{COMMIT_BUCKETS, Stats};
pub use stepped::Stepper;
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
        let files: Arc<dyn Files> = Arc::new(Directory::open(path)?);
        #[cfg(test)]
        let files = match options.free_bytes.clone() {
            Some(free) => Arc::new(space::Rationed { files, free }),
            None => files,
        };
        Store::open(files, options)
    }

    /// A store whose writer and keeper somebody else runs.
    fn open_parts(files: Arc<dyn Files>, mut options: Options) -> Result<(Store, Writer, Receiver<Job>), Error> {
        if let Some(room) = files.room()? {
            options.fit(room.total);
        }
        let recovered = recover::open(files, options)?;
        let shared = Arc::new(recovered.shared);
        shared.look_at_space();
        let (tell, jobs) = sync_channel(KEEPER_JOBS_MAX);
        let writer = Writer::new(shared.clone(), recovered.active, recovered.journal, tell);
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

    /// Whether there is anything of the group.
    pub fn has_group(&self, id: u64) -> bool {
        // One lock at a time.
        let cell = self.0.shared.cells().get(&id).cloned();
        cell.is_some_and(|cell| !cell.state().is_empty())
    }

    /// A handle to a group, which need not exist yet.
    pub fn group(&self, id: u64) -> Group {
        Group { shared: self.0.shared.clone(), cell: self.0.shared.cell(id) }
    }

    /// Deletes everything of a group. Only on positive knowledge that the group does not live here: never because something else is
    /// missing. Invisible at return, and gone for good when the answer resolves; the id may be used again at once. Lifts the group's
    /// fence, if it has one.
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
            shared.lift_fence(id);
            Ok(durable)
        })
    }

    /// Becomes `Some` with the first fault; the process must stop then.
    pub fn failed(&self) -> watch::Receiver<Option<Error>> {
        self.0.shared.failed.subscribe()
    }

    /// The room on the disk; notifies when its level changes.
    pub fn space(&self) -> watch::Receiver<Space> {
        self.0.shared.space.now.subscribe()
    }

    /// The room on the disk as it was last seen.
    pub fn space_now(&self) -> Space {
        *self.0.shared.space.now.borrow()
    }

    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let (ops, bytes) = shared.queue.len();
        Stats {
            queued: ops as u64,
            queued_bytes: bytes as u64,
            tail_bytes: shared.tail_bytes.load(Relaxed) as u64,
            segments: shared.segments.len() as u64,
            fenced_groups: self.fenced_groups(),
            ..shared.segments.place.counters.snapshot()
        }
    }

    fn fenced_groups(&self) -> u64 {
        let fences = self.0.shared.fences.borrow().clone();
        match fences.all {
            None => fences.groups.len() as u64,
            Some(_) => self.0.shared.cells().keys().filter(|group| fences.of(**group).is_some()).count() as u64,
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
        if self.shared.stepped.load(Relaxed) {
            return Ok(());
        }
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
            self.shared.segments.place.files.release();
        }
        closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
