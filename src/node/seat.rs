//! This node's replica of the catalog, which may be out for a while: damaged, or not begun anew yet.

use crate::cluster::{Group, Leadership};
use tokio::sync::{Mutex, MutexGuard, watch};

/// - Empty while this node's catalog takes no part; whoever needs it waits or says so.
pub struct Seat {
    group: watch::Sender<Option<Group>>,
    opening: Mutex<()>,
}

impl Seat {
    pub fn new(group: Option<Group>) -> Seat {
        Seat { group: watch::Sender::new(group), opening: Mutex::default() }
    }

    pub fn get(&self) -> Option<Group> {
        self.group.borrow().clone()
    }

    pub fn set(&self, group: Option<Group>) {
        self.group.send_replace(group);
    }

    /// Held by whoever opens it.
    pub async fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Changes when the replica is opened or closed.
    pub fn changes(&self) -> watch::Receiver<Option<Group>> {
        self.group.subscribe()
    }

    /// Who leads the catalog, as far as this node knows.
    pub fn current(&self) -> Leadership {
        self.get().map(|group| group.current()).unwrap_or_default()
    }
}
