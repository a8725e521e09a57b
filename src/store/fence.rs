//! Fences: groups whose data on this node must not be used, because it is damaged, shortened or rolled back.
//!
//! Always true: a fenced group gives [`Error::Fenced`] for whatever is read or written of it. Its data stays until it is begun anew.

use super::cell::{Cell, State};
use super::queue::Kind;
use super::segments::Segment;
use super::shared::Shared;
use super::{Durable, Error, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;

/// Why a group's data on this node must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub why: String,
}

/// Every fence of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fences {
    /// Every group is fenced, but those that were begun anew since: votes were lost or rolled back, and nobody can say whose.
    pub all: Option<String>,
    /// Groups that are fenced by themselves.
    pub groups: BTreeMap<u64, Fence>,
    /// Groups that were begun anew since `all`.
    pub anew: BTreeSet<u64>,
}

impl Fences {
    /// Why the group must not be used, if so.
    pub fn of(&self, group: u64) -> Option<&str> {
        let own = self.groups.get(&group).map(|fence| &*fence.why);
        own.or_else(|| self.all.as_deref().filter(|_| !self.anew.contains(&group)))
    }

    fn add(&mut self, group: u64, why: &str) {
        self.groups.insert(group, Fence { why: why.into() });
    }

    fn lift(&mut self, group: u64) {
        self.groups.remove(&group);
        if self.all.is_some() {
            self.anew.insert(group);
        }
    }
}

impl Store {
    /// Groups that must not vote or serve from what is here. Changes as damage is found and groups are begun anew.
    pub fn fences(&self) -> watch::Receiver<Arc<Fences>> {
        self.0.shared.fences.subscribe()
    }

    /// Fences a group: nothing is read or written of it from now on; over restarts too, once this resolves. The first reason stays.
    pub fn fence(&self, group: u64, why: &str) -> Result<Durable, Error> {
        let shared = &self.0.shared;
        shared.check()?;
        let (done, durable) = Durable::new();
        let cell = shared.cell(group);
        let mut state = cell.state();
        shared.fence(&cell, &mut state, why, Some(done))?;
        Ok(durable)
    }

    /// Deletes everything of the group and lifts its fence: it is begun anew, and empty. Only on positive knowledge that the group has
    /// counted this node out. Invisible at return, and gone for good when the answer resolves.
    pub fn begin_anew(&self, group: u64) -> Result<Durable, Error> {
        self.drop_group(group)
    }
}

impl Shared {
    /// Fences a group in memory at once, and on disk as soon as the writer comes to it.
    pub fn fence(&self, cell: &Arc<Cell>, state: &mut State, why: &str, done: Option<super::Done>) -> Result<(), Error> {
        if state.fence.is_some() && self.fences.borrow().groups.contains_key(&cell.id) {
            return self.queue_op(cell, state, Kind::Flush, done).map(drop);
        }
        tracing::error!("group {} is fenced on this node, nothing of it is used until it is rebuilt: {why}", cell.id);
        state.fence = Some(why.into());
        state.version += 1;
        self.fences.send_modify(|fences| Arc::make_mut(fences).add(cell.id, why));
        self.queue_op(cell, state, Kind::Fence(why.into()), done).map(drop)
    }

    /// Lifts a group's fence in memory; its deletion does so on disk.
    pub fn lift_fence(&self, group: u64) {
        let fences = self.fences.borrow();
        if fences.all.is_some() || fences.groups.contains_key(&group) {
            drop(fences);
            self.fences.send_modify(|fences| Arc::make_mut(fences).lift(group));
        }
    }

    /// Turns damage that a reader of this group met into fences; other errors pass, those of a failing disk latched.
    pub fn fenced<T>(&self, cell: &Arc<Cell>, result: Result<T, Error>) -> Result<T, Error> {
        let error = match self.checked(result) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match &error {
            Error::Damaged { .. } => {
                self.segments.place.counters.damaged_rows.fetch_add(1, Relaxed);
                // The queue may refuse; damage is found again at the next start.
                let _ = self.fence(cell, &mut cell.state(), &error.to_string(), None);
            }
            Error::Broken { file, .. } => match self.segments.sealed(file) {
                Some(segment) => self.fence_segment(&segment, &error.to_string()),
                // The writer cannot go on either; the next start finds out what is whole.
                None => {
                    self.fail(error.clone());
                    return Err(error);
                }
            },
            _ => return Err(error),
        }
        let why = cell.state().fence.clone().unwrap_or_else(|| error.to_string());
        Err(Error::Fenced { group: cell.id, why })
    }

    /// A sealed segment is not what was written: everybody who has rows in it is fenced.
    fn fence_segment(&self, segment: &Arc<Segment>, why: &str) {
        segment.damaged.store(true, Relaxed);
        let cells: Vec<_> = self.cells().values().cloned().collect();
        for cell in cells {
            let mut state = cell.state();
            if state.spans.iter().any(|span| Arc::ptr_eq(&span.segment, segment)) {
                let _ = self.fence(&cell, &mut state, why, None);
            }
        }
    }
}
