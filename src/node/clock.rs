//! The wall clock of a node: the system's, or one that a test holds in its hand.

use crate::core::Time;
use std::sync::Arc;
use std::time::SystemTime;

/// A handle; clones are the same clock. It may jump in either direction: who stamps events keeps them ascending.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    pub fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> Time {
        (self.0)()
    }
}

impl Default for Clock {
    /// The system's.
    fn default() -> Clock {
        Clock::new(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Time(since.map_or(0, |since| since.as_micros() as i64))
        })
    }
}
