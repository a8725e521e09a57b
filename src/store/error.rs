//! What can go wrong in this room, in its own words: no error of the database library leaves it.
//!
//! Always true: an error of kind [`Error::Io`] or [`Error::Broken`] that the writer met is latched, every later call returns it,
//! and the process above must stop. Damage that a reader meets fences the groups concerned, whose callers get [`Error::Fenced`] from
//! then on. The others leave the store as it was.

use std::io::ErrorKind;

/// A fault of this node's disk, or a call that the log cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk refused; what was being written may or may not be there after a restart.
    #[error("storage failed while {what}: {why}")]
    Io { what: String, why: String },
    /// A file, or its metadata, is not what this store wrote.
    #[error("the data in {file} is damaged: {why}")]
    Broken { file: String, why: String },
    /// A row of a log does not carry the bytes that were written to it. Readers get [`Error::Fenced`] for it.
    #[error("entry {index} of group {group} is damaged in segment {segment}: {why}")]
    Damaged { group: u64, index: u64, segment: u32, why: &'static str },
    /// Metadata and identity are both gone: there is data here, but nothing says whose.
    #[error("{0}, and nothing else in the data directory says which node this is: it cannot be started from this directory")]
    Lost(String),
    /// The group's data on this node must not be used: it is to be rebuilt from its peers. No fault of the store.
    #[error("group {group} is fenced on this node: {why}")]
    Fenced { group: u64, why: String },
    /// Another process holds the directory.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// A later release wrote this.
    #[error("this data was written by a newer Evermesh (format {found}); this build knows up to {known}")]
    Newer { found: u32, known: u32 },
    /// An append that would leave a hole: a mistake of the caller, nothing was taken.
    #[error("group {group} expects entry {expected}, not {found}")]
    Gap { group: u64, expected: u64, found: u64 },
    /// The writer's queue is at its bound; nothing was taken.
    #[error("too much waits to be written")]
    Full,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    pub(super) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |why| Error::Io { what: what.into(), why: why.to_string() }
    }

    /// Maps any error of the database library about a file; all of them implement `Into<redb::Error>`.
    pub(super) fn db<E: Into<redb::Error>>(file: &str) -> impl FnOnce(E) -> Error {
        move |why| match why.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Error::InUse(file.into()),
            redb::Error::Corrupted(why) => Error::Broken { file: file.into(), why },
            redb::Error::Io(why) if why.kind() == ErrorKind::InvalidData => Error::broken(file, &why.to_string()),
            why @ (redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)) => {
                Error::Io { what: format!("using {file}"), why: why.to_string() }
            }
            redb::Error::ValueTooLarge(_) => Error::Io { what: format!("using {file}"), why: "a value is too large".into() },
            // Tables that are not there, or are not what they were.
            why => Error::broken(file, &why.to_string()),
        }
    }

    /// The same where a file is only read: bytes that cannot be read are damage.
    pub(super) fn db_read<E: Into<redb::Error>>(file: &str) -> impl FnOnce(E) -> Error {
        move |why| match why.into() {
            redb::Error::Io(why) if is_unreadable(&why) => Error::broken(file, &why.to_string()),
            why => Error::db(file)(why),
        }
    }

    /// Why a file could not be opened: that it is not there, or cannot be read, is damage.
    pub(super) fn opening(file: &str) -> impl FnOnce(std::io::Error) -> Error {
        move |why| match is_unreadable(&why) {
            true => Error::broken(file, &why.to_string()),
            false => Error::Io { what: format!("opening {file}"), why: why.to_string() },
        }
    }

    pub(super) fn broken(file: &str, why: &str) -> Error {
        Error::Broken { file: file.into(), why: why.into() }
    }
}

/// Whether an error says that what was written is not there any more; others say that the machine lacks something now.
pub(super) fn is_unreadable(why: &std::io::Error) -> bool {
    // EIO, ENODATA, EBADMSG, EUCLEAN: what Linux reports for bytes that a disk cannot give back.
    matches!(why.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
        || why.raw_os_error().is_some_and(|code| [5, 61, 74, 117].contains(&code))
}

/// Runs what uses the database library on bytes that may be damaged: it may panic there, which says the same as an error.
pub(super) fn shielded<T>(file: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|_| Err(Error::broken(file, "the database library panicked over it")))
}
