//! One stream as this node deals with it: its record in the catalog, and its replica here, if there is one.

use super::forwarder::Forwarder;
use super::proposer::Proposer;
use super::replica::Replica;
use crate::cluster::{Group, Leadership, changed_within};
use crate::core::catalog::StreamRecord;
use crate::core::{Settings, StreamName};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, watch};

/// The open replica of a stream on this node.
#[derive(Clone)]
pub struct Local {
    pub group: Group,
    pub replica: Arc<Replica>,
    pub proposer: Proposer,
}

/// - `record` follows the catalog; name and group never change.
pub struct Stream {
    pub group: u64,
    pub name: StreamName,
    record: RwLock<Arc<StreamRecord>>,
    settings: RwLock<Arc<Settings>>,
    local: watch::Sender<Option<Local>>,
    forwarder: OnceLock<Forwarder>,
    opening: Mutex<()>,
    /// A leadership that nobody changes, for a stream without a replica here.
    nobody: watch::Sender<Leadership>,
}

impl Stream {
    pub fn new(record: &StreamRecord) -> Stream {
        Stream {
            group: record.group,
            name: record.name.clone(),
            record: RwLock::new(Arc::new(record.clone())),
            settings: RwLock::new(Arc::new(record.settings.clone())),
            local: watch::Sender::new(None),
            forwarder: OnceLock::new(),
            opening: Mutex::default(),
            nobody: watch::Sender::default(),
        }
    }

    pub fn update(&self, record: &StreamRecord) {
        if *self.record() != *record {
            *self.settings.write().expect("nobody panics while holding it") = Arc::new(record.settings.clone());
            *self.record.write().expect("nobody panics while holding it") = Arc::new(record.clone());
        }
    }

    pub fn record(&self) -> Arc<StreamRecord> {
        self.record.read().expect("nobody panics while holding it").clone()
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().expect("nobody panics while holding it").clone()
    }

    /// The nodes that hold it; the first is the preferred leader.
    pub fn placement(&self) -> Vec<u64> {
        self.record().placement.clone()
    }

    pub fn local(&self) -> Option<Local> {
        self.local.borrow().clone()
    }

    /// Held by whoever opens the replica here.
    pub async fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Changes when the replica here is opened or closed.
    pub fn locals(&self) -> watch::Receiver<Option<Local>> {
        self.local.subscribe()
    }

    pub fn set_local(&self, local: Option<Local>) -> Option<Local> {
        self.local.send_replace(local)
    }

    /// Who leads, as the replica here knows it; without one it never changes and nobody leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        match self.local() {
            Some(local) => local.group.leadership(),
            None => self.nobody.subscribe(),
        }
    }

    pub fn current(&self) -> Leadership {
        *self.leadership().borrow()
    }

    /// Waits until the leadership is another one than `seen`, at most for `pause`.
    pub async fn changed_within(&self, seen: Leadership, pause: Duration) {
        changed_within(self.leadership(), seen, pause).await;
    }

    pub fn forwarder(&self, start: impl FnOnce() -> Forwarder) -> &Forwarder {
        self.forwarder.get_or_init(start)
    }
}
