//! The catalog on this node: the folded view of the cluster's nodes and streams.

use crate::cluster::{Fold, Response};
use crate::core::catalog::{Catalog, Command, NodeRecord, NodeState, StreamRecord};
use crate::core::{StreamName, codec::Corrupt};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// - `version` counts what was folded, after the fold: who waits for a change reads the catalog that it announced, or a later one.
/// - While a catalog is made anew behind it, what is shown stays as it was: nobody acts on the cluster's past.
pub struct Directory {
    catalog: RwLock<Catalog>,
    /// What is folded into instead, until it is as new as the others'.
    anew: Mutex<Option<Catalog>>,
    version: watch::Sender<u64>,
}

impl Default for Directory {
    fn default() -> Directory {
        Directory { catalog: RwLock::new(Catalog::new()), anew: Mutex::default(), version: watch::Sender::new(0) }
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

    /// From here on folds go into an empty catalog that nobody sees.
    pub fn begin_anew(&self) {
        *self.anew() = Some(Catalog::new());
    }

    /// Shows what was folded since `begin_anew`.
    pub fn reveal(&self) {
        if let Some(catalog) = self.anew().take() {
            *self.catalog.write().expect("nobody panics while holding it") = catalog;
            self.announce();
        }
    }

    fn anew(&self) -> MutexGuard<'_, Option<Catalog>> {
        self.anew.lock().expect("nobody panics while holding it")
    }

    fn announce(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl Fold for Directory {
    fn apply(&self, _index: u64, command: Bytes) -> Result<Response, Corrupt> {
        let command = Command::decode(command)?;
        let mut anew = self.anew();
        if let Some(catalog) = anew.as_mut() {
            return Ok(Response::Catalog(catalog.apply(&command)));
        }
        let outcome = self.catalog.write().expect("nobody panics while holding it").apply(&command);
        self.announce();
        Ok(Response::Catalog(outcome))
    }

    fn encode(&self) -> Bytes {
        let anew = self.anew();
        anew.as_ref().map_or_else(|| self.read().encode(), Catalog::encode)
    }

    fn restore(&self, state: Bytes) -> Result<(), Corrupt> {
        let restored = Catalog::decode(state)?;
        let mut anew = self.anew();
        if let Some(catalog) = anew.as_mut() {
            *catalog = restored;
            return Ok(());
        }
        *self.catalog.write().expect("nobody panics while holding it") = restored;
        self.announce();
        Ok(())
    }

    fn forget_through(&self, _index: u64) {}
}
