//! Which format a file has, and how an older one is brought up to today's. The steps live in `migrations/`.

use super::Error;
use super::tables::{FORMAT, FORMAT_KEY};
use redb::{Database, ReadableDatabase, TableError};

#[path = "../../migrations/mod.rs"]
mod migrations;

use migrations::STEPS;

/// The format that this build writes.
pub const FORMAT_VERSION: u32 = STEPS.len() as u32;

/// The two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Meta,
    Segment,
}

/// The format of a file that exists, which this build must know.
pub(super) fn of(db: &impl ReadableDatabase, file: &str) -> Result<u32, Error> {
    is_current(db, file)?;
    Ok(found(db).map_err(Error::db(file))? as u32)
}

/// Checks a file that exists; true if it has today's format, false if it is older.
pub(super) fn is_current(db: &impl ReadableDatabase, file: &str) -> Result<bool, Error> {
    match found(db).map_err(Error::db(file))? {
        0 => Err(Error::broken(file, "it names no format")),
        format if format > u64::from(FORMAT_VERSION) => {
            Err(Error::Newer { found: u32::try_from(format).unwrap_or(u32::MAX), known: FORMAT_VERSION })
        }
        format => Ok(format == u64::from(FORMAT_VERSION)),
    }
}

/// Runs the steps that the file has not seen, in one durable transaction. `fresh` files may have no format yet.
pub(super) fn bring_up(db: &Database, file: &str, kind: Kind, fresh: bool) -> Result<(), Error> {
    if !fresh && is_current(db, file)? {
        return Ok(());
    }
    migrate(db, kind).map_err(Error::db(file))
}

fn migrate(db: &Database, kind: Kind) -> Result<(), redb::Error> {
    let from = found(db)? as usize;
    let txn = db.begin_write()?;
    for step in STEPS.iter().skip(from) {
        match kind {
            Kind::Meta => (step.meta)(&txn)?,
            Kind::Segment => (step.segment)(&txn)?,
        }
    }
    txn.open_table(FORMAT)?.insert(FORMAT_KEY, u64::from(FORMAT_VERSION))?;
    Ok(txn.commit()?)
}

/// The format that a file names; 0 if none.
fn found(db: &impl ReadableDatabase) -> Result<u64, redb::Error> {
    match db.begin_read()?.open_table(FORMAT) {
        Ok(table) => Ok(table.get(FORMAT_KEY)?.map_or(0, |format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
