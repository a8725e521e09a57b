//! The files below the store, behind a trait: the seam where tests inject faults and crashes.

use super::Error;
use redb::StorageBackend;
use std::path::Path;

/// A flat directory of files.
///
/// Creating, renaming and removing a file survive a crash only after [`Files::sync_dir`]; bytes and lengths only after the
/// file's own `sync_data`.
pub trait Files: Send + Sync + 'static {
    /// The names of all files, in no order.
    fn list(&self) -> Result<Vec<String>, Error>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error>;
    /// Creates an empty file, or empties the one that has this name.
    fn create(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error>;
    /// Gives a file another name; it may be open.
    fn rename(&self, from: &str, to: &str) -> Result<(), Error>;
    fn remove(&self, name: &str) -> Result<(), Error>;
    fn sync_dir(&self) -> Result<(), Error>;
}

/// A real directory, held exclusively for as long as this value lives.
pub struct Directory {}

impl Directory {
    /// Creates the directory if need be, and locks it: [`Error::InUse`] if another process has it.
    pub fn open(_path: &Path) -> Result<Directory, Error> {
        todo!()
    }
}
