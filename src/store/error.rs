//! What can go wrong in this room, in its own words: no error of the database library leaves it.
//!
//! Always true: an error of kind [`Error::Io`] or [`Error::Broken`] that the writer met is latched, every later call returns it,
//! and the process above must stop. The others leave the store as it was.

/// A fault of this node's disk, or a call that the log cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk refused; what was being written may or may not be there after a restart.
    #[error("storage failed while {what}: {why}")]
    Io { what: String, why: String },
    /// A file, or its metadata, is not what this store wrote.
    #[error("the data in {file} is damaged: {why}")]
    Broken { file: String, why: String },
    /// A row of a log does not carry the bytes that were written to it.
    #[error("entry {index} of group {group} is damaged in segment {segment}: {why}")]
    Damaged { group: u64, index: u64, segment: u32, why: &'static str },
    /// The group's data here is damaged: it takes no part until it begins anew.
    #[error("group {group} is fenced: {why}")]
    Fenced { group: u64, why: String },
    /// A file that must be there is not.
    #[error("{0} is missing from the data directory: this replica is not whole and must not serve")]
    Missing(String),
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
            redb::Error::Io(why) if why.kind() == std::io::ErrorKind::InvalidData => Error::broken(file, &why.to_string()),
            why => Error::Io { what: format!("using {file}"), why: why.to_string() },
        }
    }

    pub(super) fn broken(file: &str, why: &str) -> Error {
        Error::Broken { file: file.into(), why: why.into() }
    }
}

/// Runs what uses the database library on bytes that may be damaged: it may panic there, which says the same as an error.
pub(super) fn shielded<T>(file: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|_| Err(Error::broken(file, "the database library panicked over it")))
}
