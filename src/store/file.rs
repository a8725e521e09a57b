//! One redb file and its life: created under another name and renamed when whole, written, closed cleanly, opened again for reading.
//!
//! Every file counts its commits within itself, and the witness beside it is told before anybody else is: see `witness`.
//!
//! Always true: readers and the writer hold the lock shared and only while they use the database, so whoever closes or opens the
//! file (exclusively) waits for a bounded piece of work.

use super::error::shielded;
use super::format::{self, Kind};
use super::stats::{Counted, Counters};
use super::tables::{self, COMMITS, COMMITS_KEY, DAMAGED, Ledger};
use super::witness::{Whose, Witness};
use super::{Error, Files};
use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, WriteTransaction};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

/// What a new file is called until it is whole; a file that still has this end at start never was.
pub(super) const UNFINISHED: &str = ".new";

/// A file that is to take the place of another one of the same kind, and is not whole yet.
pub(super) struct Replacement {
    db: Database,
    name: String,
    place: Arc<Place>,
    len: Arc<AtomicU64>,
}

impl Replacement {
    /// Adds something in one durable transaction.
    pub fn write(&mut self, work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), Error> {
        commit(&self.db, work).map_err(Error::db(&self.name))
    }

    /// Makes it whole: with as many commits as the other one has had. Gives its length.
    pub fn finish(self, other: &DbFile) -> Result<u64, Error> {
        let ledger = other.ledger().unwrap_or_default();
        let put = |txn: &WriteTransaction| {
            txn.open_table(COMMITS)?.insert(COMMITS_KEY, &tables::put_ledger(ledger)[..])?;
            Ok(())
        };
        commit(&self.db, put).map_err(Error::db(&self.name))?;
        self.db.close().map_err(Error::db(&self.name))?;
        Ok(self.len.load(Relaxed))
    }

    pub fn discard(self) -> Result<(), Error> {
        self.db.close().map_err(Error::db(&self.name))?;
        self.place.files.remove(&self.name)?;
        self.place.counters.file_bytes.fetch_sub(self.len.load(Relaxed), Relaxed);
        Ok(())
    }
}

enum Db {
    Writable(Database),
    Readable(ReadOnlyDatabase),
    Closed,
    /// Not to be opened again: removed from the directory, or the store is closed.
    Gone,
}

/// The directory that the files are in.
pub(super) struct Place {
    pub files: Arc<dyn Files>,
    pub counters: Arc<Counters>,
    pub witness: Witness,
}

impl Place {
    /// Gives a damaged file another name, under which nobody looks for it and nothing deletes it. Durable with the next
    /// `sync_dir`.
    pub fn move_aside(&self, name: &str) -> Result<(), Error> {
        let names: BTreeSet<String> = self.files.list()?.into_iter().collect();
        if !names.contains(name) {
            return Ok(());
        }
        let numbered = (2..).map(|number| format!("{name}{DAMAGED}-{number}"));
        let free = std::iter::once(format!("{name}{DAMAGED}")).chain(numbered).find(|aside| !names.contains(aside));
        let aside = free.expect("there are more numbers than files");
        tracing::error!("{name} is damaged or out of place: it is kept as {aside}, and not used any more");
        self.files.rename(name, &aside)?;
        self.counters.files_aside.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// What happens to a file of an older format before it is brought up; gets the format.
pub(super) type Upgrading<'a> = &'a dyn Fn(u32) -> Result<(), Error>;

pub(super) struct DbFile {
    pub name: String,
    /// Length in bytes.
    pub len: Arc<AtomicU64>,
    kind: Kind,
    place: Arc<Place>,
    /// Bytes of page cache while it is written, and while it is only read.
    caches: [usize; 2],
    ledger: Mutex<Option<Ledger>>,
    db: RwLock<Db>,
}

impl DbFile {
    /// `caches`: bytes of page cache while it is written, and while it is only read.
    pub fn new(name: String, kind: Kind, place: &Arc<Place>, caches: [usize; 2]) -> DbFile {
        let (len, db) = (Arc::new(AtomicU64::new(0)), RwLock::new(Db::Closed));
        DbFile { name, len, kind, place: place.clone(), caches, ledger: Mutex::default(), db }
    }

    /// Makes a new file with the tables of today's format and what `fill` writes. `before` comes when it is whole, just before it gets
    /// its name; file and name are durable on return.
    pub fn create(
        self,
        ledger: Option<Ledger>,
        fill: impl FnOnce(&WriteTransaction, &mut u64) -> Result<(), redb::Error>,
        before: impl FnOnce() -> Result<(), Error>,
    ) -> Result<DbFile, Error> {
        let unfinished = self.unfinished();
        let db = self.make(&unfinished, &self.len, self.caches[0])?;
        if let Some(mut ledger) = ledger {
            commit(&db, |txn| write_ledger(txn, &mut ledger, |txn, ledger| fill(txn, &mut ledger.digest)))
                .map_err(Error::db(&self.name))?;
            *self.ledger() = Some(ledger);
        }
        before()?;
        self.place.files.rename(&unfinished, &self.name)?;
        self.place.files.sync_dir()?;
        self.set(Db::Writable(db));
        Ok(self)
    }

    /// Opens an existing file for writing and verifies all its pages: reads all of it.
    pub fn open_writable(self, upgrading: Upgrading<'_>) -> Result<DbFile, Error> {
        self.judged(|| self.make_writable(upgrading))?;
        Ok(self)
    }

    /// Opens an existing file for reading; one that was not closed cleanly, or is older, is repaired and closed first.
    pub fn open_readable(self) -> Result<DbFile, Error> {
        self.judged(|| self.make_readable())?;
        Ok(self)
    }

    /// Whatever goes wrong with the database library is the file's damage, unless the disk said before that it is failing.
    fn judged<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match shielded(&self.name, work) {
            Err(Error::Broken { why, .. }) if self.place.counters.io_failed.load(Relaxed) => {
                Err(Error::Io { what: format!("using {}", self.name), why })
            }
            result => result,
        }
    }

    fn make_readable(&self) -> Result<(), Error> {
        let current = match self.read_only() {
            Ok(db) => {
                let current = format::is_current(&db, &self.name)?;
                self.learn_ledger(&db)?;
                self.set(Db::Readable(db));
                current
            }
            Err(DatabaseError::RepairAborted) => false,
            Err(error) => return Err(Error::db_read(&self.name)(error)),
        };
        if !current {
            self.close()?;
            self.make_writable(&|_| Ok(()))?;
            self.close()?;
        }
        Ok(())
    }

    fn make_writable(&self, upgrading: Upgrading<'_>) -> Result<(), Error> {
        let backend = self.counted(self.place.files.open(&self.name)?, &self.len)?;
        if self.len.load(Relaxed) == 0 {
            return Err(Error::broken(&self.name, "it is empty"));
        }
        let repaired = Arc::new(AtomicBool::new(false));
        let repairing = repaired.clone();
        let mut builder = Builder::new();
        builder.set_cache_size(self.caches[0]).set_repair_callback(move |_| repairing.store(true, Relaxed));
        let mut db = builder.create_with_backend(backend).map_err(Error::db_read(&self.name))?;
        // A repair has verified every page, a file that was closed cleanly nobody has.
        if !repaired.load(Relaxed) && !db.check_integrity().map_err(Error::db_read(&self.name))? {
            return Err(Error::broken(&self.name, "its pages do not match their checksums"));
        }
        upgrading(format::of(&db, &self.name)?)?;
        format::bring_up(&db, &self.name, self.kind, false)?;
        self.learn_ledger(&db)?;
        self.set(Db::Writable(db));
        Ok(())
    }

    fn read_only(&self) -> Result<ReadOnlyDatabase, DatabaseError> {
        let backend = match self.place.files.open(&self.name) {
            Ok(backend) => backend,
            Err(Error::Broken { why, .. }) => return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why).into()),
            Err(why) => return Err(std::io::Error::other(why.to_string()).into()),
        };
        let backend = Counted::new(backend, self.place.counters.clone(), self.len.clone())?;
        Builder::new().set_cache_size(self.caches[1]).open_read_only_with_backend(backend)
    }

    fn counted(&self, backend: Box<dyn redb::StorageBackend>, len: &Arc<AtomicU64>) -> Result<Counted, Error> {
        Counted::new(backend, self.place.counters.clone(), len.clone()).map_err(Error::io("measuring a file"))
    }

    fn whose(&self) -> Whose {
        tables::segment_number(&self.name).map_or(Whose::Meta, Whose::Segment)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Option<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file's ledger; what it said before must not change while it is closed.
    fn learn_ledger(&self, db: &impl ReadableDatabase) -> Result<(), Error> {
        let found = read_ledger(db).map_err(Error::db_read(&self.name))?.map_err(|why| Error::broken(&self.name, why))?;
        let mut ledger = self.ledger();
        if ledger.is_some() && *ledger != found {
            return Err(Error::broken(&self.name, "it was changed while it was closed"));
        }
        *ledger = found;
        Ok(())
    }

    /// The newest batch of the journal that the segment has.
    pub fn journaled(&self) -> u64 {
        self.ledger().map_or(0, |ledger| ledger.journaled)
    }

    /// Commits that the file has had; none were counted in a file of format 1.
    pub fn commits(&self) -> u64 {
        self.ledger().map_or(0, |ledger| ledger.commits)
    }

    /// The digest of the keys; `None` if nothing was counted yet.
    pub fn digest(&self) -> Option<u64> {
        self.ledger().map(|ledger| ledger.digest)
    }

    /// What the digest of a file is that does not count yet.
    pub fn begin_digest(&self, digest: u64) {
        self.ledger().get_or_insert(Ledger { digest, ..Ledger::default() });
    }

    fn set(&self, db: Db) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = db;
    }

    /// Runs one short read transaction. `Ok(None)`: the file is gone, or closed; see [`DbFile::reopen_and_read`].
    pub fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<Option<T>, Error> {
        self.read_in(&self.db.read().unwrap_or_else(PoisonError::into_inner), work)
    }

    fn read_in<T>(&self, db: &Db, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<Option<T>, Error> {
        shielded(&self.name, || {
            let (txn, sealed) = match db {
                Db::Writable(db) => (db.begin_read(), false),
                Db::Readable(db) => (db.begin_read(), true),
                Db::Closed | Db::Gone => return Ok(None),
            };
            let result = txn.map_err(redb::Error::from).and_then(|txn| work(&txn));
            // A file that is being written has its faults found by the writer, too: they are the disk's.
            result.map(Some).map_err(|error| if sealed { Error::db_read(&self.name)(error) } else { Error::db(&self.name)(error) })
        })
    }

    pub fn is_writable(&self) -> bool {
        matches!(&*self.db.read().unwrap_or_else(PoisonError::into_inner), Db::Writable(_))
    }

    /// Begins a file that is to take this one's place.
    pub fn begin_replacement(&self) -> Result<Replacement, Error> {
        let (name, len) = (self.unfinished(), Arc::new(AtomicU64::new(0)));
        let db = self.make(&name, &len, self.caches[1])?;
        Ok(Replacement { db, name, place: self.place.clone(), len })
    }

    /// Gives a finished replacement of so many bytes this file's name, durably on return; whoever reads next reads there.
    pub fn put_in_place(&self, len: u64) -> Result<(), Error> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *db = Db::Closed;
        self.place.files.rename(&self.unfinished(), &self.name)?;
        self.place.files.sync_dir()?;
        self.place.counters.file_bytes.fetch_sub(self.len.swap(len, Relaxed), Relaxed);
        Ok(())
    }

    /// Removes a finished replacement of so many bytes.
    pub fn discard_replacement(&self, len: u64) -> Result<(), Error> {
        self.place.files.remove(&self.unfinished())?;
        self.place.counters.file_bytes.fetch_sub(len, Relaxed);
        Ok(())
    }

    /// Makes a file of this kind with the tables of today's format; its length is kept in `len`.
    fn make(&self, name: &str, len: &Arc<AtomicU64>, cache: usize) -> Result<Database, Error> {
        let backend = self.counted(self.place.files.create(name)?, len)?;
        let db = Builder::new().set_cache_size(cache).create_with_backend(backend).map_err(Error::db(name))?;
        format::bring_up(&db, name, self.kind, true)?;
        Ok(db)
    }

    fn unfinished(&self) -> String {
        format!("{}{UNFINISHED}", self.name)
    }

    /// The same, and a closed file is opened for reading. It stays open as long as the work takes: were it let go in between, many
    /// readers of many files could close each other's forever. `Ok(None)`: the file is gone.
    pub fn reopen_and_read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<Option<T>, Error> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*db, Db::Closed) {
            *db = Db::Readable(self.judged(|| {
                let db = self.read_only().map_err(Error::db_read(&self.name))?;
                self.learn_ledger(&db)?;
                Ok(db)
            })?);
        }
        self.read_in(&db, work)
    }

    /// Runs one durable transaction and tells the witness. The work also gets the digest of the file's keys, to keep it right.
    pub fn write<T>(&self, work: impl FnOnce(&WriteTransaction, &mut u64) -> Result<T, redb::Error>) -> Result<T, Error> {
        self.write_all(|txn, ledger| work(txn, &mut ledger.digest))
    }

    /// The same, of a segment that has all batches of the journal up to `number` afterwards.
    pub fn write_journaled<T>(&self, number: u64, work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        self.write_all(|txn, ledger| {
            ledger.journaled = number;
            work(txn)
        })
    }

    fn write_all<T>(&self, work: impl FnOnce(&WriteTransaction, &mut Ledger) -> Result<T, redb::Error>) -> Result<T, Error> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Db::Writable(db) = &*db else { return Err(Error::Closed) };
        let started = Instant::now();
        let mut ledger = self.ledger().unwrap_or_default();
        let done = commit(db, |txn| write_ledger(txn, &mut ledger, work)).map_err(Error::db(&self.name))?;
        *self.ledger() = Some(ledger);
        self.place.witness.note(self.whose(), ledger.commits)?;
        self.place.counters.commit(started.elapsed());
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
        self.place.files.remove(&self.name)?;
        self.forget_len();
        self.place.files.sync_dir()
    }

    /// Closes the file and moves it aside, durably on return.
    pub fn move_aside(&self) -> Result<(), Error> {
        // It is damaged: an error of closing it says nothing new.
        let _ = self.close_for_good();
        self.place.move_aside(&self.name)?;
        self.forget_len();
        self.place.files.sync_dir()
    }

    fn forget_len(&self) {
        self.place.counters.file_bytes.fetch_sub(self.len.swap(0, Relaxed), Relaxed);
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

fn write_ledger<T>(
    txn: &WriteTransaction,
    ledger: &mut Ledger,
    work: impl FnOnce(&WriteTransaction, &mut Ledger) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let done = work(txn, ledger)?;
    ledger.commits += 1;
    txn.open_table(COMMITS)?.insert(COMMITS_KEY, &tables::put_ledger(*ledger)[..])?;
    Ok(done)
}

/// `None` in a file that does not count, or has not begun to.
fn read_ledger(db: &impl ReadableDatabase) -> Result<Result<Option<Ledger>, &'static str>, redb::Error> {
    let table = match db.begin_read()?.open_table(COMMITS) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Ok(None)),
        table => table?,
    };
    Ok(table.get(COMMITS_KEY)?.map(|bytes| tables::get_ledger(bytes.value())).transpose())
}
