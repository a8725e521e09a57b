//! What waits for the writer: operations in the order of the calls, and how one batch of them becomes few commits.
//!
//! `append` never blocks, since its callers are consensus tasks of many groups. What keeps the queue small is above: each group has
//! a bounded number of entries in flight, and publishers are admitted against a bound on bytes. The bounds here are the last line:
//! far beyond what those let in, and refusing rather than swallowing memory when they are met.

use super::cell::{Cell, weight};
use super::merge::Merge;
use super::{Done, Entry, Error, LogId};
use crate::core::limits::{COMMIT_BYTES_MAX, COMMIT_ROWS_MAX, QUEUED_BYTES_MAX, QUEUED_OPS_MAX};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(super) enum Kind {
    /// Entries, and the index then known to be committed.
    Append(Vec<Entry>, Option<u64>),
    /// Keep up to this index, or nothing.
    Truncate(Option<u64>),
    Purge(LogId),
    Vote(Bytes),
    Checkpoint(u64, Bytes),
    /// Delete the checkpoints below this index.
    DropCheckpoints(u64),
    Identity(Bytes),
    /// The group's data must not be used, and why.
    Fence(String),
    /// Deleting a group takes three: mark it and delete its metadata; delete its rows; take the mark away, and its fence.
    DropMeta,
    DropRows,
    DropMark,
    /// A merge of segments is ready to be put in place.
    Merge(Arc<Merge>),
    /// Nothing to write; answered when everything before it is durable.
    Flush,
    /// The same, and when every row before it is in a segment.
    Settle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Meta,
    Log,
    None,
}

impl Kind {
    pub fn target(&self) -> Target {
        match self {
            Kind::Append(..) | Kind::Truncate(_) | Kind::DropRows | Kind::Settle => Target::Log,
            // A merge is no row of the metadata's group tables: it has a commit of its own.
            Kind::Merge(_) | Kind::Flush => Target::None,
            _ => Target::Meta,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Kind::Append(entries, _) => entries.iter().map(weight).sum(),
            Kind::Checkpoint(_, bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// How much it counts for in a commit.
    fn rows(&self) -> usize {
        match self {
            Kind::Append(entries, _) => entries.len(),
            _ => 1,
        }
    }
}

pub(super) struct Op {
    /// `None` for what belongs to the node.
    pub cell: Option<Arc<Cell>>,
    /// The group's number of this operation.
    pub number: u64,
    pub kind: Kind,
    pub done: Option<Done>,
}

impl Op {
    /// Entries that it appends.
    pub fn rows(&self) -> usize {
        match &self.kind {
            Kind::Append(entries, _) => entries.len(),
            _ => 0,
        }
    }

    /// Whether it appends an entry of the group with this index or a lower one.
    pub fn has_row_up_to(&self, group: u64, index: u64) -> bool {
        match (&self.cell, &self.kind) {
            (Some(cell), Kind::Append(entries, _)) => cell.id == group && entries.first().is_some_and(|entry| entry.index <= index),
            _ => false,
        }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of the operations, or none.
    pub fn push<const N: usize>(&self, ops: [Op; N]) -> Result<(), Error> {
        let bytes: usize = ops.iter().map(|op| op.kind.bytes()).sum();
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(Error::Closed);
        }
        if waiting.ops.len() + N > QUEUED_OPS_MAX || waiting.bytes + bytes > QUEUED_BYTES_MAX {
            return Err(Error::Full);
        }
        waiting.bytes += bytes;
        waiting.ops.extend(ops);
        self.ready.notify_one();
        Ok(())
    }

    /// Operations and bytes that wait.
    pub fn len(&self) -> (usize, usize) {
        let waiting = self.waiting();
        (waiting.ops.len(), waiting.bytes)
    }

    /// Takes what waits, bounded; empty if nothing does.
    pub fn take(&self) -> Vec<Op> {
        take(&mut self.waiting())
    }

    /// Waits for operations; `None` once the queue is closed and empty.
    pub fn wait(&self) -> Option<Vec<Op>> {
        let waiting = self.waiting();
        let mut waiting =
            self.ready.wait_while(waiting, |waiting| waiting.ops.is_empty() && !waiting.closed).unwrap_or_else(PoisonError::into_inner);
        let batch = take(&mut waiting);
        (!batch.is_empty()).then_some(batch)
    }

    /// Refuses further operations; what waits is still taken.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.ready.notify_all();
    }
}

fn take(waiting: &mut Waiting) -> Vec<Op> {
    let (mut rows, mut bytes) = (0, 0);
    let mut batch = Vec::new();
    while let Some(op) = waiting.ops.front() {
        rows += op.kind.rows();
        bytes += op.kind.bytes();
        if !batch.is_empty() && (rows > COMMIT_ROWS_MAX || bytes > COMMIT_BYTES_MAX) {
            break;
        }
        waiting.bytes -= op.kind.bytes();
        batch.extend(waiting.ops.pop_front());
    }
    batch
}

/// Splits a batch into phases, to be committed one after the other: even ones to the metadata, odd ones to the log.
///
/// Only the order within a group matters, so each operation goes to the first phase of its kind that is not before its group's
/// previous one. The common batch, appends of any number of groups, is one phase and so one commit.
pub(super) fn phases(batch: Vec<Op>) -> Vec<Vec<Op>> {
    let mut reached: HashMap<u64, usize> = HashMap::new();
    let mut phases: Vec<Vec<Op>> = Vec::new();
    for op in batch {
        let mut node = 0;
        let at = op.cell.as_ref().map_or(&mut node, |cell| reached.entry(cell.id).or_default());
        match op.kind.target() {
            Target::Meta => *at += *at % 2,
            Target::Log => *at += 1 - *at % 2,
            Target::None => {}
        }
        if phases.len() <= *at {
            phases.resize_with(*at + 1, Vec::new);
        }
        phases[*at].push(op);
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cell::State;

    fn op(group: u64, kind: Kind) -> Op {
        Op { cell: Some(Cell::new(group, State::default())), number: 0, kind, done: None }
    }

    fn append(group: u64) -> Op {
        op(group, Kind::Append(Vec::new(), None))
    }

    fn vote(group: u64) -> Op {
        op(group, Kind::Vote(Bytes::new()))
    }

    #[track_caller]
    fn check(batch: Vec<Op>, expected: &[&[u64]]) {
        let groups = |phase: &Vec<Op>| phase.iter().map(|op| op.cell.as_ref().unwrap().id).collect::<Vec<_>>();
        assert_eq!(phases(batch).iter().map(groups).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_batch_becomes_few_phases() {
        check(vec![append(1), append(2), append(1)], &[&[], &[1, 2, 1]]);
        check(vec![vote(1), append(1), append(2), vote(3)], &[&[1, 3], &[1, 2]]);
        check(vec![append(1), vote(1), append(1), vote(2)], &[&[2], &[1], &[1], &[1]]);
        check(vec![append(1), op(1, Kind::Flush), op(2, Kind::Flush)], &[&[2], &[1, 1]]);
        check(vec![op(1, Kind::DropMeta), op(1, Kind::DropRows), op(1, Kind::DropMark)], &[&[1], &[1], &[1]]);
    }
}
