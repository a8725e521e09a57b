//! This node's replica of the catalog, which may be out for a while: damaged, or not begun anew yet.

use crate::cluster::{Group, Leadership};
use tokio::sync::watch;

/// - Empty while this node's catalog takes no part; whoever needs it waits or says so.
pub struct Seat(watch::Sender<Option<Group>>);

impl Seat {
    pub fn new(group: Option<Group>) -> Seat {
        Seat(watch::Sender::new(group))
    }

    pub fn get(&self) -> Option<Group> {
        self.0.borrow().clone()
    }

    pub fn set(&self, group: Option<Group>) {
        self.0.send_replace(group);
    }

    /// Changes when the replica is opened or closed.
    pub fn changes(&self) -> watch::Receiver<Option<Group>> {
        self.0.subscribe()
    }

    /// Who leads the catalog, as far as this node knows.
    pub fn current(&self) -> Leadership {
        self.get().map(|group| group.current()).unwrap_or_default()
    }
}
