//! The files below the store, behind a trait: the seam where tests inject faults and crashes.

use super::{Error, Room};
use redb::StorageBackend;
use redb::backends::FileBackend;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// A flat directory of files.
///
/// Creating, renaming and removing a file survive a crash only after [`Files::sync_dir`]; bytes and lengths only after the
/// file's own `sync_data`.
pub trait Files: Send + Sync + 'static {
    /// The names of all files, in no order.
    fn list(&self) -> Result<Vec<String>, Error>;
    /// Opens a file that exists; [`Error::Broken`] if it does not, or cannot be read.
    fn open(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error>;
    /// Creates an empty file, or empties the one that has this name.
    fn create(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error>;
    /// Gives a file another name; it may be open.
    fn rename(&self, from: &str, to: &str) -> Result<(), Error>;
    fn remove(&self, name: &str) -> Result<(), Error>;
    fn sync_dir(&self) -> Result<(), Error>;
    /// The room of the file system; none where there is no such thing.
    fn room(&self) -> Result<Option<Room>, Error> {
        Ok(None)
    }
    /// The store is closed: somebody else may have the directory. Nothing is asked of these files afterwards.
    fn release(&self) {}
}

const LOCK: &str = "lock";

/// A real directory, held exclusively until it is released or dropped.
///
/// redb locks each of its files as well, but segments come and go; the lock of this one file says who owns the directory.
pub struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Creates the directory if need be, and locks it: [`Error::InUse`] if another process has it.
    pub fn open(path: &Path) -> Result<Directory, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("creating the data directory"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(Error::io("opening the data directory's lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.display().to_string())),
            Err(TryLockError::Error(why)) => return Err(Error::io("locking the data directory")(why)),
        }
        let directory = Directory { path: path.to_owned(), lock };
        directory.sync_dir()?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
        Ok(directory)
    }

    fn backend(&self, name: &str, options: &OpenOptions) -> Result<Box<dyn StorageBackend>, Error> {
        let file = options.open(self.path.join(name)).map_err(Error::opening(name))?;
        Ok(Box::new(FileBackend::new(file).map_err(Error::db(name))?))
    }
}

fn sync(directory: &Path) -> Result<(), Error> {
    let directory = File::open(directory).map_err(Error::io("opening a directory"))?;
    directory.sync_all().map_err(Error::io("syncing a directory"))
}

impl Files for Directory {
    fn list(&self) -> Result<Vec<String>, Error> {
        let entries = std::fs::read_dir(&self.path).map_err(Error::io("listing the data directory"))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("listing the data directory"))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error> {
        self.backend(name, OpenOptions::new().read(true).write(true))
    }

    fn create(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error> {
        self.backend(name, OpenOptions::new().read(true).write(true).create(true).truncate(true))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        std::fs::rename(self.path.join(from), self.path.join(to)).map_err(Error::io("renaming a file"))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        std::fs::remove_file(self.path.join(name)).map_err(Error::io("removing a file"))
    }

    fn sync_dir(&self) -> Result<(), Error> {
        sync(&self.path)
    }

    fn room(&self) -> Result<Option<Room>, Error> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|why| Error::io("asking for the free space")(why.into()))?;
        Ok(Some(Room { free: stat.f_bavail.saturating_mul(stat.f_frsize), total: stat.f_blocks.saturating_mul(stat.f_frsize) }))
    }

    fn release(&self) {
        // An unlock that fails leaves the lock to the end of the process.
        let _ = self.lock.unlock();
    }
}
