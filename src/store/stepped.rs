//! A store without threads: whoever opened it does the writer's and the keeper's work, step by step, in the order that a seed says.
//! For the simulation, where everything runs on one thread.

use super::keeper::{self, Job};
use super::merge::Merger;
use super::shared::Shared;
use super::writer::Writer;
use super::{Error, Files, Options, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

/// What is written and kept happens in here, and only when it is told to.
pub struct Stepper {
    shared: Arc<Shared>,
    writer: Writer,
    jobs: Receiver<Job>,
    merger: Merger,
    steps: u64,
}

/// Of so many steps one looks for segments to merge as well.
const MERGE_LOOK_STEPS: u64 = 16;

impl Store {
    /// As [`Store::open`], but nothing is written before the stepper does it, and reads may be done in place. Closing the store only
    /// refuses what comes after: [`Stepper::finish`] closes the files.
    pub fn open_stepped(files: Arc<dyn Files>, options: Options) -> Result<(Store, Stepper), Error> {
        let (store, writer, jobs) = Store::open_parts(files, options)?;
        let shared = store.0.shared.clone();
        shared.stepped.store(true, Relaxed);
        let merger = Merger::new(&shared);
        Ok((store, Stepper { shared, writer, jobs, merger, steps: 0 }))
    }

    /// Whether somebody else does this store's work, in this very thread.
    pub fn is_stepped(&self) -> bool {
        self.0.shared.stepped.load(Relaxed)
    }
}

impl Stepper {
    /// Whether anything waits to be written.
    pub fn is_due(&self) -> bool {
        self.shared.queue.len().0 > 0
    }

    /// Commits one batch of what waits, answers it, and does what the keeper was told; false if nothing waited.
    pub fn step(&mut self) -> bool {
        let batch = self.shared.queue.take();
        let some = !batch.is_empty();
        if some {
            self.writer.step(batch);
        }
        while let Ok(job) = self.jobs.try_recv() {
            keeper::work(&self.shared, job);
        }
        self.steps += 1;
        if some && self.steps.is_multiple_of(MERGE_LOOK_STEPS) {
            keeper::guarded(&self.shared, || self.merger.look());
        }
        some
    }

    /// A clean stop: writes what is queued and closes every file.
    pub fn finish(mut self) -> Result<(), Error> {
        self.shared.queue.close();
        while self.step() {}
        self.writer.finish();
        let closed = self.shared.segments.close();
        let closed = self.shared.close().and(closed);
        self.shared.segments.place.files.release();
        closed
    }
}
