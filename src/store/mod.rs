//! What is kept: the logs, votes and checkpoints of many Raft groups, in redb files. The only room that names redb.

mod error;
mod files;
mod group;
mod types;

pub use error::Error;
pub use files::{Directory, Files};
pub use group::Group;
pub use types::{Done, Durable, Entry, LogId, LogState, Options};

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Everything one node keeps. A clone is another handle to the same store.
#[derive(Clone)]
pub struct Store {}

/// Figures since the store was opened, and its present size.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub commits: u64,
    pub rows: u64,
    /// Bytes that were handed to the files.
    pub bytes_written: u64,
    pub syncs: u64,
    /// Commits that took less than 2^i microseconds, and not less than 2^(i-1).
    pub commit_us: [u64; 32],
    /// Sum of all commit times, in microseconds.
    pub commit_us_sum: u64,
    /// Operations and payload bytes that wait for the writer.
    pub queued: u64,
    pub queued_bytes: u64,
    pub segments: u64,
    pub file_bytes: u64,
}

impl Store {
    pub fn open(_files: Arc<dyn Files>, _options: Options) -> Result<Store, Error> {
        todo!()
    }

    pub fn open_dir(_path: &Path, _options: Options) -> Result<Store, Error> {
        todo!()
    }

    pub fn identity(&self) -> Option<Bytes> {
        todo!()
    }

    pub fn save_identity(&self, _identity: Bytes) -> Result<Durable, Error> {
        todo!()
    }

    /// Groups of which anything is on disk, ascending.
    pub fn groups(&self) -> Vec<u64> {
        todo!()
    }

    pub fn group(&self, _id: u64) -> Group {
        todo!()
    }

    /// Deletes everything of a group, for good. Only on positive knowledge that the group does not live here.
    pub fn drop_group(&self, _id: u64) -> Result<Durable, Error> {
        todo!()
    }

    /// Becomes `Some` with the first fault; the process must stop then.
    pub fn failed(&self) -> watch::Receiver<Option<Error>> {
        todo!()
    }

    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Writes what is queued, closes every file cleanly, and joins the threads. Later calls give [`Error::Closed`]. Blocks.
    pub fn close(&self) -> Result<(), Error> {
        todo!()
    }
}
