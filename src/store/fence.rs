//! Groups whose data here is damaged: nothing of them is read or written until they begin anew.
//!
//! Always true: what handles see of a fenced group is [`Error::Fenced`].

use super::{Durable, Error, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Why a group is fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub why: String,
}

/// Every fence of this store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fences {
    /// Every group is fenced that was not begun anew since.
    pub all: Option<String>,
    pub groups: BTreeMap<u64, Fence>,
    pub anew: BTreeSet<u64>,
}

impl Fences {
    /// Why the group is fenced, if it is.
    pub fn of(&self, group: u64) -> Option<&str> {
        let own = self.groups.get(&group).map(|fence| fence.why.as_str());
        own.or_else(|| self.all.as_deref().filter(|_| !self.anew.contains(&group)))
    }
}

impl Store {
    pub fn fences(&self) -> watch::Receiver<Arc<Fences>> {
        self.0.shared.fences.subscribe()
    }

    pub fn fence(&self, group: u64, why: &str) -> Result<Durable, Error> {
        self.change_fences(|fences| drop(fences.groups.insert(group, Fence { why: why.into() })));
        self.flushed()
    }

    #[cfg(test)]
    pub fn fence_all(&self, why: &str) {
        self.change_fences(|fences| *fences = Fences { all: Some(why.into()), ..Fences::default() });
    }

    pub fn begin_anew(&self, group: u64) -> Result<Durable, Error> {
        let dropped = self.drop_group(group)?;
        self.change_fences(|fences| {
            fences.groups.remove(&group);
            fences.anew.insert(group);
        });
        Ok(dropped)
    }

    fn flushed(&self) -> Result<Durable, Error> {
        let (done, durable) = Durable::new();
        done(Ok(()));
        Ok(durable)
    }

    fn change_fences(&self, change: impl FnOnce(&mut Fences)) {
        self.0.shared.fences.send_modify(|fences| change(Arc::make_mut(fences)));
    }
}
