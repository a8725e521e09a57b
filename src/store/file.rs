//! One redb file and its life: created under another name and renamed when whole, written, closed cleanly, opened again for reading.
//!
//! Always true: readers and the writer hold the lock shared and only while they use the database, so whoever closes or opens the
//! file (exclusively) waits for a bounded piece of work.

use super::error::shielded;
use super::format::{self, Kind};
use super::stats::{Counted, Counters};
use super::{Error, Files};
use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, WriteTransaction};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

/// What a new file is called until it is whole; a file that still has this end at start never was.
pub(super) const UNFINISHED: &str = ".new";

enum Db {
    Writable(Database),
    Readable(ReadOnlyDatabase),
    Closed,
    /// Not to be opened again: removed from the directory, or the store is closed.
    Gone,
}

pub(super) struct DbFile {
    pub name: String,
    /// Length in bytes.
    pub len: Arc<AtomicU64>,
    files: Arc<dyn Files>,
    counters: Arc<Counters>,
    read_cache: usize,
    db: RwLock<Db>,
}

impl DbFile {
    fn new(name: String, files: &Arc<dyn Files>, counters: &Arc<Counters>, read_cache: usize) -> DbFile {
        let (len, db) = (Arc::new(AtomicU64::new(0)), RwLock::new(Db::Closed));
        DbFile { name, len, files: files.clone(), counters: counters.clone(), read_cache, db }
    }

    /// Makes a new file with the tables of today's format. It and its name are durable on return.
    pub fn create(
        name: String,
        kind: Kind,
        files: &Arc<dyn Files>,
        counters: &Arc<Counters>,
        cache: usize,
        read_cache: usize,
    ) -> Result<DbFile, Error> {
        let file = DbFile::new(name, files, counters, read_cache);
        let unfinished = format!("{}{UNFINISHED}", file.name);
        let backend = file.counted(files.create(&unfinished)?)?;
        let db = Builder::new().set_cache_size(cache).create_with_backend(backend).map_err(Error::db(&file.name))?;
        format::bring_up(&db, &file.name, kind, true)?;
        files.rename(&unfinished, &file.name)?;
        files.sync_dir()?;
        file.set(Db::Writable(db));
        Ok(file)
    }

    /// Opens an existing file for writing. After a crash this reads all of it.
    pub fn open_writable(
        name: String,
        kind: Kind,
        files: &Arc<dyn Files>,
        counters: &Arc<Counters>,
        cache: usize,
        read_cache: usize,
    ) -> Result<DbFile, Error> {
        let file = DbFile::new(name, files, counters, read_cache);
        shielded(&file.name, || file.make_writable(kind, cache))?;
        Ok(file)
    }

    /// Opens an existing file for reading; one that was not closed cleanly, or is older, is repaired and closed first.
    pub fn open_readable(
        name: String,
        kind: Kind,
        files: &Arc<dyn Files>,
        counters: &Arc<Counters>,
        cache: usize,
        read_cache: usize,
    ) -> Result<DbFile, Error> {
        let file = DbFile::new(name, files, counters, read_cache);
        shielded(&file.name, || file.make_readable(kind, cache))?;
        Ok(file)
    }

    fn make_readable(&self, kind: Kind, cache: usize) -> Result<(), Error> {
        let current = match self.read_only() {
            Ok(db) => {
                let current = format::is_current(&db, &self.name)?;
                self.set(Db::Readable(db));
                current
            }
            Err(DatabaseError::RepairAborted) => false,
            Err(error) => return Err(Error::db(&self.name)(error)),
        };
        if !current {
            self.close()?;
            self.make_writable(kind, cache)?;
            self.close()?;
        }
        Ok(())
    }

    fn make_writable(&self, kind: Kind, cache: usize) -> Result<(), Error> {
        let backend = self.counted(self.files.open(&self.name)?)?;
        if self.len.load(Relaxed) == 0 {
            return Err(Error::broken(&self.name, "it is empty"));
        }
        let db = Builder::new().set_cache_size(cache).create_with_backend(backend).map_err(Error::db(&self.name))?;
        format::bring_up(&db, &self.name, kind, false)?;
        self.set(Db::Writable(db));
        Ok(())
    }

    fn read_only(&self) -> Result<ReadOnlyDatabase, DatabaseError> {
        let backend = self.files.open(&self.name).map_err(|why| std::io::Error::other(why.to_string()))?;
        let backend = Counted::new(backend, self.counters.clone(), self.len.clone())?;
        Builder::new().set_cache_size(self.read_cache).open_read_only_with_backend(backend)
    }

    fn counted(&self, backend: Box<dyn redb::StorageBackend>) -> Result<Counted, Error> {
        Counted::new(backend, self.counters.clone(), self.len.clone()).map_err(Error::io("measuring a file"))
    }

    fn set(&self, db: Db) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = db;
    }

    /// Runs one short read transaction. `Ok(None)`: the file is gone, or closed; see [`DbFile::reopen`].
    pub fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<Option<T>, Error> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        shielded(&self.name, || {
            let txn = match &*db {
                Db::Writable(db) => db.begin_read(),
                Db::Readable(db) => db.begin_read(),
                Db::Closed | Db::Gone => return Ok(None),
            };
            let txn = txn.map_err(Error::db(&self.name))?;
            work(&txn).map(Some).map_err(Error::db(&self.name))
        })
    }

    /// Opens a closed file for reading; false if it is gone.
    pub fn reopen(&self) -> Result<bool, Error> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        match &*db {
            Db::Gone => Ok(false),
            Db::Writable(_) | Db::Readable(_) => Ok(true),
            Db::Closed => {
                *db = Db::Readable(self.read_only().map_err(Error::db(&self.name))?);
                Ok(true)
            }
        }
    }

    /// Runs one durable transaction.
    pub fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Db::Writable(db) = &*db else { return Err(Error::Closed) };
        let started = Instant::now();
        let done = commit(db, work).map_err(Error::db(&self.name))?;
        self.counters.commit(started.elapsed());
        Ok(done)
    }

    /// Closes the file cleanly, after whoever uses it now. It may be opened again for reading.
    pub fn close(&self) -> Result<(), Error> {
        self.replace(Db::Closed)
    }

    /// Closes the file cleanly; it is not opened again.
    pub fn close_for_good(&self) -> Result<(), Error> {
        self.replace(Db::Gone)
    }

    fn replace(&self, with: Db) -> Result<(), Error> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*db, Db::Gone) {
            return Ok(());
        }
        let before = std::mem::replace(&mut *db, with);
        shielded(&self.name, || match before {
            Db::Writable(db) => db.close().map_err(Error::db(&self.name)),
            Db::Readable(db) => db.close().map_err(Error::db(&self.name)),
            Db::Closed | Db::Gone => Ok(()),
        })
    }

    /// Closes the file if it is open for reading and nobody reads; true if it is closed now.
    pub fn try_close_readable(&self) -> bool {
        let Ok(mut db) = self.db.try_write() else { return false };
        if matches!(&*db, Db::Readable(_)) {
            *db = Db::Closed;
        }
        matches!(&*db, Db::Closed | Db::Gone)
    }

    /// Closes and removes the file; its absence is durable on return.
    pub fn remove(&self) -> Result<(), Error> {
        self.close_for_good()?;
        self.files.remove(&self.name)?;
        self.counters.file_bytes.fetch_sub(self.len.swap(0, Relaxed), Relaxed);
        self.files.sync_dir()
    }
}

impl Drop for DbFile {
    fn drop(&mut self) {
        let _ = self.close_for_good();
    }
}

fn commit<T>(db: &Database, work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // Durability::Immediate is the default; it is said here because every promise hangs on it.
    let mut txn = db.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    let done = work(&txn)?;
    txn.commit()?;
    Ok(done)
}
