//! Tests of the whole room. The rig runs writer and keeper step by step, so that a seed repeats a run exactly.

mod crash;
mod damage;
mod format;
mod log;
mod merge;
mod threads;

use super::crash::Disk;
use super::keeper::{self, Job};
use super::merge::Merger;
use super::writer::Writer;
use super::{Entry, Error, Group, LogId, Options, Store};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

struct Rig {
    disk: Disk,
    store: Store,
    writer: Writer,
    jobs: Receiver<Job>,
    merger: Merger,
}

impl Rig {
    fn open(disk: &Disk, options: Options) -> Result<Rig, Error> {
        let (store, writer, jobs) = Store::open_parts(Arc::new(disk.clone()), options)?;
        let merger = Merger::new(&store.0.shared);
        Ok(Rig { disk: disk.clone(), store, writer, jobs, merger })
    }

    fn new(options: Options) -> Rig {
        Rig::open(&Disk::default(), options).unwrap()
    }

    /// One batch of the writer; false if nothing waited.
    fn step(&mut self) -> bool {
        let batch = self.store.0.shared.queue.take();
        let some = !batch.is_empty();
        self.writer.step(batch);
        some
    }

    /// One job of the keeper; false if there was none.
    fn keep(&mut self) -> bool {
        let Ok(job) = self.jobs.try_recv() else { return false };
        keeper::work(&self.store.0.shared, job);
        true
    }

    /// One look for segments to merge; what it finds the writer has to put in place.
    fn look(&mut self) {
        keeper::guarded(&self.store.0.shared, || self.merger.look());
    }

    fn settle(&mut self) {
        while self.step() || self.keep() {}
    }

    /// A clean stop; gives the disk that the next start finds.
    fn close(mut self) -> Disk {
        self.settle();
        self.writer.finish();
        self.store.0.shared.segments.close().unwrap();
        self.store.0.shared.check().unwrap();
        self.disk.kill()
    }

    fn reopen(self, options: Options) -> Rig {
        let disk = self.close();
        Rig::open(&disk, options).unwrap()
    }
}

/// Small files, small caches; segments of `segment_bytes` of rows.
fn options(segment_bytes: u64, tail_bytes: usize) -> Options {
    Options {
        segment_bytes,
        tail_bytes,
        tails_bytes: 1 << 20,
        // Too short for any batch, so that segments get their rows at once.
        journal_bytes: 0,
        cache_bytes: 1 << 20,
        sealed_cache_bytes: 1 << 16,
        open_segments: 2,
        merge_freed_bytes: 1,
        ..Options::default()
    }
}

fn entry(index: u64, term: u64, payload: &str) -> Entry {
    Entry { index, term, leader: 1, payload: Bytes::copy_from_slice(payload.as_bytes()) }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term, &format!("{index} of term {term}"))).collect()
}

fn id(index: u64, term: u64) -> LogId {
    LogId { index, term, leader: 1 }
}

fn append(group: &Group, range: std::ops::RangeInclusive<u64>, term: u64) {
    group.append(entries(range, term), |result| result.unwrap()).unwrap();
}

/// Everything a group has, read in small chunks.
fn read_all(group: &Group) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let mut next = group.log_state().purged.map_or(0, |purged| purged.index + 1);
    if let Some((first, _)) = group.cell.state().entries() {
        next = first;
    }
    loop {
        let chunk = group.read(next..u64::MAX, 1000).unwrap();
        let Some(last) = chunk.last() else { return all };
        assert!(chunk.iter().zip(next..).all(|(entry, index)| entry.index == index), "a hole in {chunk:?}");
        next = last.index + 1;
        all.extend(chunk);
    }
}
