//! The keeper: closes full segments, removes dead ones, merges nearly dead ones, syncs the witness and scrubs, beside the writer so that no commit waits.

use super::Error;
use super::merge::Merger;
use super::scrub::Scrub;
use super::segments::Segment;
use super::shared::Shared;
use super::space::LOOK_EVERY;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long the witness may go unsynced.
const WITNESS_SYNC: Duration = Duration::from_secs(1);
/// How often it is looked for segments to merge.
const MERGE_LOOK: Duration = Duration::from_secs(30);

pub(super) enum Job {
    /// Close a segment that takes no more rows.
    Seal(Arc<Segment>),
    /// Remove a segment in which nothing lives. Done in the order of the requests, each durable before the next.
    Remove(Arc<Segment>),
}

/// Does jobs until the writer is gone; in between it keeps an eye on the disk's room, and scrubs, slice by slice.
pub(super) fn run(shared: &Arc<Shared>, jobs: &Receiver<Job>) {
    let (mut scrub, mut merger) = (Scrub::new(shared), Merger::new(shared));
    let (mut synced, mut looked, mut next_slice) = (Instant::now(), Instant::now(), Instant::now() + scrub.pause());
    loop {
        let now = Instant::now();
        match jobs.recv_timeout(next_slice.saturating_duration_since(now).min(LOOK_EVERY)) {
            Ok(job) => work(shared, job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if synced.elapsed() >= WITNESS_SYNC {
            guarded(shared, || shared.segments.place.witness.sync());
            synced = Instant::now();
        }
        if looked.elapsed() >= MERGE_LOOK {
            guarded(shared, || merger.look());
            looked = Instant::now();
        }
        if Instant::now() >= next_slice {
            let mut wait = scrub.pause();
            guarded(shared, || {
                wait = scrub.slice();
                Ok(())
            });
            next_slice = Instant::now() + wait;
        }
        shared.look_at_space();
    }
}

/// Does one job; its fault is the store's.
pub(super) fn work(shared: &Shared, job: Job) {
    guarded(shared, || match job {
        Job::Seal(segment) => segment.file.close(),
        Job::Remove(segment) => {
            shared.segments.removed(&segment);
            match segment.damaged.load(Relaxed) {
                true => segment.file.move_aside(),
                false => segment.file.remove(),
            }
        }
    });
}

pub(super) fn guarded(shared: &Shared, work: impl FnOnce() -> Result<(), Error>) {
    let result = catch_unwind(AssertUnwindSafe(work));
    let result = result.unwrap_or_else(|_| Err(Error::Io { what: "keeping segments".into(), why: "the keeper panicked".into() }));
    if let Err(error) = result {
        shared.fail(error);
    }
}
