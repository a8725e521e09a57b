//! The keeper: closes full segments and removes dead ones, beside the writer so that no commit waits for it.

use super::Error;
use super::segments::Segment;
use super::shared::Shared;
use super::space::LOOK_EVERY;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

pub(super) enum Job {
    /// Close a segment that takes no more rows.
    Seal(Arc<Segment>),
    /// Remove a segment in which nothing lives. Done in the order of the requests, each durable before the next.
    Remove(Arc<Segment>),
}

/// Does jobs until the writer is gone, and keeps an eye on the disk's room.
pub(super) fn run(shared: &Shared, jobs: &Receiver<Job>) {
    loop {
        match jobs.recv_timeout(LOOK_EVERY) {
            Ok(job) => work(shared, job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        shared.look_at_space();
    }
}

/// Does one job; its fault is the store's.
pub(super) fn work(shared: &Shared, job: Job) {
    let result = catch_unwind(AssertUnwindSafe(|| match job {
        Job::Seal(segment) => segment.file.close(),
        Job::Remove(segment) => {
            shared.segments.removed(&segment);
            segment.file.remove()
        }
    }));
    let result = result.unwrap_or_else(|_| Err(Error::Io { what: "keeping segments".into(), why: "the keeper panicked".into() }));
    if let Err(error) = result {
        shared.fail(error);
    }
}
