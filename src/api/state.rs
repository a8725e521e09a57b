//! What all handlers share: the node's slot, the bounds that are counted over all requests, and the signal to leave.

use crate::{core::limits, node::Node};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where the node is put once it has started.
pub type Slot = Arc<OnceLock<Node>>;

/// What whoever runs the API may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at a time.
    pub connections_max: usize,
    /// Publish requests over HTTP at a time.
    pub publishes_max: usize,
    /// Whether pages of other origins may read the answers.
    pub cors: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { connections_max: limits::CONNECTIONS_MAX, publishes_max: limits::PUBLISHES_MAX, cors: true }
    }
}

/// The shared state; a cheap handle.
#[derive(Clone)]
pub struct App(Arc<Shared>);

pub struct Shared {
    pub slot: Slot,
    pub options: Options,
    pub publishes: Arc<Semaphore>,
    /// In units of [`BODY_UNIT`] bytes.
    pub bodies: Arc<Semaphore>,
    /// Cancelled when this server stops.
    pub closing: CancellationToken,
    /// Cancelled when it has waited long enough.
    pub killing: CancellationToken,
    /// Connections, upgraded ones too.
    pub tracker: TaskTracker,
    /// Numbers the long-lived responses, to spread their ends.
    leavers: AtomicU64,
    request_ids: AtomicU64,
}

/// The unit in which held body bytes are counted.
pub const BODY_UNIT: usize = 1024;

impl App {
    pub fn new(slot: Slot, options: Options) -> App {
        let mut seed = [0; 8];
        // Without randomness request ids only begin at the same number after every start.
        let _ = getrandom::fill(&mut seed);
        App(Arc::new(Shared {
            publishes: Arc::new(Semaphore::new(options.publishes_max)),
            bodies: Arc::new(Semaphore::new(limits::BODIES_BYTES_MAX / BODY_UNIT)),
            closing: CancellationToken::new(),
            killing: CancellationToken::new(),
            tracker: TaskTracker::new(),
            leavers: AtomicU64::new(0),
            request_ids: AtomicU64::new(u64::from_ne_bytes(seed)),
            slot,
            options,
        }))
    }

    pub fn next_request_id(&self) -> String {
        format!("{:016x}", self.request_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// How long the next long-lived response stays after the node said that it leaves: evenly spread, whatever their number.
    pub fn leave_after(&self) -> Duration {
        // Multiples of the golden ratio fill an interval evenly.
        let turn = self.leavers.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Duration::from_millis(((turn >> 32) * limits::GOAWAY_SPREAD_MS) >> 32)
    }
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leavers_are_spread_over_the_whole_time() {
        let app = App::new(Slot::default(), Options::default());
        let mut quarters = [0; 4];
        for _ in 0..1000 {
            let after = app.leave_after().as_millis() as u64;
            quarters[(after * 4 / limits::GOAWAY_SPREAD_MS) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| (240..=260).contains(count)), "{quarters:?}");
    }
}
