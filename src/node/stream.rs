//! One stream as this node deals with it: its record in the catalog, and its replica here, if there is one.

use super::forwarder::Forwarder;
use super::proposer::Proposer;
use super::replica::Replica;
use crate::cluster::{Group, Leadership, changed_within};
use crate::core::catalog::StreamRecord;
use crate::core::machine::State;
use crate::core::{Settings, StreamName};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard as SyncMutexGuard, OnceLock, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

/// The open replica of a stream on this node.
#[derive(Clone)]
pub struct Local {
    pub group: Group,
    pub replica: Arc<Replica>,
    pub proposer: Proposer,
}

/// What this node does with its replica of a stream, and who uses it.
struct Use {
    /// Whether the replica here is to be open. A change of the record wakes it: somebody has to act on that.
    awake: bool,
    users: usize,
    /// When it was used last since it was opened.
    used: Option<Instant>,
    /// How it fell asleep last; `None`: it was not open since this node's start.
    slept: Option<Slept>,
}

/// How a replica was when it fell asleep.
#[derive(Clone, Debug)]
pub struct Slept {
    pub state: State,
    pub term: u64,
    pub since: Instant,
    /// Nodes that could not be reached, and whose replicas may lack something.
    pub lacking: Arc<[u64]>,
}

/// Somebody uses the replica here: it does not fall asleep meanwhile.
pub struct Attendance(Arc<Stream>);

impl Drop for Attendance {
    fn drop(&mut self) {
        let mut in_use = self.0.in_use();
        in_use.users -= 1;
        in_use.used = Some(Instant::now());
    }
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
    in_use: SyncMutex<Use>,
    /// A leadership that nobody changes, for a stream without a replica here.
    nobody: watch::Sender<Leadership>,
}

impl Stream {
    pub fn new(record: &StreamRecord, awake: bool) -> Stream {
        Stream {
            group: record.group,
            name: record.name.clone(),
            record: RwLock::new(Arc::new(record.clone())),
            settings: RwLock::new(Arc::new(record.settings.clone())),
            local: watch::Sender::new(None),
            forwarder: OnceLock::new(),
            opening: Mutex::default(),
            in_use: SyncMutex::new(Use { awake, users: 0, used: None, slept: None }),
            nobody: watch::Sender::default(),
        }
    }

    pub fn update(&self, record: &StreamRecord) {
        if *self.record() != *record {
            *self.settings.write().expect("nobody panics while holding it") = Arc::new(record.settings.clone());
            *self.record.write().expect("nobody panics while holding it") = Arc::new(record.clone());
            self.in_use().awake = true;
        }
    }

    fn in_use(&self) -> SyncMutexGuard<'_, Use> {
        self.in_use.lock().expect("nobody panics while holding it")
    }

    /// Whether the replica here is to be open.
    pub fn is_awake(&self) -> bool {
        self.in_use().awake
    }

    /// From now on the replica here is to be open; true if it was not.
    pub fn wake(&self) -> bool {
        !std::mem::replace(&mut self.in_use().awake, true)
    }

    /// From now on the replica here is to be closed; false: somebody uses it, or the record is another than this one and has to be acted
    /// on.
    pub fn fall_asleep(&self, slept: Slept, record: &Arc<StreamRecord>) -> bool {
        let mut in_use = self.in_use();
        // Whoever changes it says so after the change.
        if in_use.users > 0 || !Arc::ptr_eq(&self.record(), record) {
            return false;
        }
        (in_use.awake, in_use.slept) = (false, Some(slept));
        true
    }

    /// How the sleeping replica here fell asleep; `None`: it is awake, or was not since this node's start.
    pub fn slept(&self) -> Option<Slept> {
        let in_use = self.in_use();
        if in_use.awake { None } else { in_use.slept.clone() }
    }

    /// Keeps the replica here awake until it is dropped.
    pub fn attend(self: &Arc<Stream>) -> Attendance {
        self.in_use().users += 1;
        Attendance(self.clone())
    }

    /// Somebody used the replica here.
    pub fn touch(&self) {
        self.in_use().used = Some(Instant::now());
    }

    /// When the replica here was used last since it was opened; somebody who uses it still, uses it now.
    pub fn used(&self) -> Option<Instant> {
        let in_use = self.in_use();
        if in_use.users > 0 { Some(Instant::now()) } else { in_use.used }
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

    pub fn is_held_by(&self, node: u64) -> bool {
        self.record().placement.contains(&node)
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

    /// Opens or closes the replica here; whoever reads from the one before is nudged.
    pub fn set_local(&self, local: Option<Local>) {
        self.in_use().used = None;
        if let Some(before) = self.local.send_replace(local) {
            before.replica.nudge();
        }
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
