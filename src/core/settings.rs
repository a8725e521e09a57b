//! A stream's settings, and the rules that they obey.

use super::{limits, name::Invalid};

/// What happens when a stream with a bound is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discard {
    /// The oldest events make room.
    #[default]
    Old,
    /// New events are rejected.
    New,
}

/// The settings of one stream, as the catalog keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// 1, 3 or 5.
    pub replicas: u8,
    /// Events older than this are removed, in milliseconds; `None`: kept.
    pub max_age_ms: Option<u64>,
    /// Bound of the stream's event bytes; `None`: unbounded.
    pub max_bytes: Option<u64>,
    /// Bound of the stream's number of events; `None`: unbounded.
    pub max_events: Option<u64>,
    pub discard: Discard,
    /// How long an event id is remembered, in milliseconds.
    pub dedup_window_ms: u64,
    /// Most data bytes of one event.
    pub max_event_bytes: u64,
    pub description: String,
}

impl Settings {
    /// The defaults, with the number of replicas that the cluster's size suggests.
    pub fn with_replicas(replicas: u8) -> Settings {
        Settings {
            replicas,
            max_age_ms: None,
            max_bytes: None,
            max_events: None,
            discard: Discard::Old,
            dedup_window_ms: limits::DEDUP_WINDOW_MS,
            max_event_bytes: limits::EVENT_BYTES_MAX as u64,
            description: String::new(),
        }
    }

    pub fn check(&self) -> Result<(), Invalid> {
        let fail = |text: String| Err(Invalid(text));
        if !matches!(self.replicas, 1 | 3 | 5) {
            return fail(format!("replicas is 1, 3 or 5, not {}", self.replicas));
        }
        for (name, value) in [("max_age", self.max_age_ms), ("max_bytes", self.max_bytes), ("max_events", self.max_events)] {
            if value == Some(0) {
                return fail(format!("{name} is at least 1; leave it out for no bound"));
            }
        }
        if self.dedup_window_ms > limits::DEDUP_WINDOW_MS_MAX {
            return fail(format!("dedup_window is at most {} ms", limits::DEDUP_WINDOW_MS_MAX));
        }
        if !(1..=limits::EVENT_BYTES_MAX as u64).contains(&self.max_event_bytes) {
            return fail(format!("max_event_bytes is 1 to {}", limits::EVENT_BYTES_MAX));
        }
        if self.description.len() > limits::DESCRIPTION_BYTES_MAX {
            return fail(format!("description has at most {} bytes", limits::DESCRIPTION_BYTES_MAX));
        }
        Ok(())
    }
}

/// What a user asks to change; `None` leaves a field as it is (or at its default, at creation).
/// The inner `None` of a bound takes the bound away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsPatch {
    pub replicas: Option<u8>,
    pub max_age_ms: Option<Option<u64>>,
    pub max_bytes: Option<Option<u64>>,
    pub max_events: Option<Option<u64>>,
    pub discard: Option<Discard>,
    pub dedup_window_ms: Option<u64>,
    pub max_event_bytes: Option<u64>,
    pub description: Option<String>,
}

impl SettingsPatch {
    /// The settings with the patch's fields in place, checked.
    pub fn apply(&self, mut to: Settings) -> Result<Settings, Invalid> {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut to.replicas, &self.replicas);
        set(&mut to.max_age_ms, &self.max_age_ms);
        set(&mut to.max_bytes, &self.max_bytes);
        set(&mut to.max_events, &self.max_events);
        set(&mut to.discard, &self.discard);
        set(&mut to.dedup_window_ms, &self.dedup_window_ms);
        set(&mut to.max_event_bytes, &self.max_event_bytes);
        set(&mut to.description, &self.description);
        to.check()?;
        Ok(to)
    }
}
