//! The catalog on this node: the folded view of the cluster's nodes and streams.

use crate::cluster::{Fold, Response};
use crate::core::catalog::{Catalog, Command, NodeRecord, NodeState, StreamRecord};
use crate::core::{StreamName, codec::Corrupt};
use bytes::Bytes;
use std::sync::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// - `version` counts what was folded, after the fold: who waits for a change reads the catalog that it announced, or a later one.
pub struct Directory {
    catalog: RwLock<Catalog>,
    version: watch::Sender<u64>,
}

impl Default for Directory {
    fn default() -> Directory {
        Directory { catalog: RwLock::new(Catalog::new()), version: watch::Sender::new(0) }
    }
}

impl Directory {
    pub fn read(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().expect("nobody panics while holding it")
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub fn stream(&self, name: &StreamName) -> Option<StreamRecord> {
        self.read().streams.get(name).cloned()
    }

    pub fn node(&self, id: u64) -> Option<NodeRecord> {
        self.read().nodes.get(&id).cloned()
    }

    /// The nodes that were not removed.
    pub fn members(&self) -> Vec<NodeRecord> {
        self.read().nodes.values().filter(|node| node.state != NodeState::Removed).cloned().collect()
    }

    fn announce(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl Fold for Directory {
    fn apply(&self, _index: u64, command: Bytes) -> Result<Response, Corrupt> {
        let command = Command::decode(command)?;
        let outcome = self.catalog.write().expect("nobody panics while holding it").apply(&command);
        self.announce();
        Ok(Response::Catalog(outcome))
    }

    fn encode(&self) -> Bytes {
        self.read().encode()
    }

    fn restore(&self, state: Bytes) -> Result<(), Corrupt> {
        *self.catalog.write().expect("nobody panics while holding it") = Catalog::decode(state)?;
        self.announce();
        Ok(())
    }

    fn forget_through(&self, _index: u64) {}
}
