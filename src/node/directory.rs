//! The catalog on this node: the folded view of the cluster's nodes and streams.

use crate::cluster::{Fold, Response};
use crate::core::catalog::{Catalog, Command, NodeRecord, NodeState, StreamRecord};
use crate::core::{StreamName, codec::Corrupt, limits};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// - `version` counts what was folded, after the fold: who waits for a change reads the catalog that it announced, or a later one.
/// - While a catalog is made anew behind it, what is shown stays as it was: nobody acts on the cluster's past.
pub struct Directory {
    catalog: RwLock<Catalog>,
    /// What is folded into instead, until it is as new as the others'.
    anew: Mutex<Option<Catalog>>,
    news: Mutex<News>,
    version: watch::Sender<u64>,
}

/// What changed in the catalog since somebody asked.
#[derive(Debug, Default)]
pub struct News {
    /// Streams that were created, and by their groups those that were changed or deleted.
    pub created: Vec<StreamName>,
    pub changed: Vec<u64>,
    /// Anything else, or more than is worth to be told one by one.
    pub other: bool,
}

impl News {
    fn add(&mut self, catalog: &Catalog, command: &Command) {
        let group = |name: &StreamName| catalog.streams.get(name).map(|record| record.group);
        match command {
            Command::CreateStream { name, .. } => self.created.push(name.clone()),
            Command::ChangeStream { name, .. } | Command::DeleteStream { name } => self.changed.extend(group(name)),
            Command::SetPlacement { group, .. } | Command::Begun { group } => self.changed.push(*group),
            _ => self.other = true,
        }
        if self.created.len() + self.changed.len() > limits::NEWS_MAX {
            *self = News { other: true, ..News::default() };
        }
    }
}

impl Default for Directory {
    fn default() -> Directory {
        Directory {
            catalog: RwLock::new(Catalog::new()),
            anew: Mutex::default(),
            news: Mutex::new(News { other: true, ..News::default() }),
            version: watch::Sender::new(0),
        }
    }
}

impl Directory {
    pub fn read(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().expect("nobody panics while holding it")
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What changed since the last call; of one who asks. Told before `changes` announces it.
    pub fn news(&self) -> News {
        std::mem::take(&mut *self.lock_news())
    }

    fn lock_news(&self) -> MutexGuard<'_, News> {
        self.news.lock().expect("nobody panics while holding it")
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
            self.lock_news().other = true;
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
        let outcome = {
            let mut catalog = self.catalog.write().expect("nobody panics while holding it");
            self.lock_news().add(&catalog, &command);
            catalog.apply(&command)
        };
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
        self.lock_news().other = true;
        self.announce();
        Ok(())
    }

    fn forget_through(&self, _index: u64) {}
}
