//! The event ids that a stream remembers for deduplication.

use crate::core::{
    Time,
    codec::{Corrupt, Reader, Writer},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Where an id was first stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub seq: u64,
    pub time: Time,
}

impl Known {
    pub fn is_expired(&self, now: Time, window_ms: u64) -> bool {
        let age_us = now.0.saturating_sub(self.time.0).max(0) as u64;
        age_us > window_ms.saturating_mul(1_000)
    }
}

/// The remembered ids.
///
/// - `order` has every id of `known` once, in the order in which they were stored.
/// - The ids are copies: they must not keep the requests alive that they came in.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    order: VecDeque<Arc<str>>,
    known: HashMap<Arc<str>, Known>,
}

impl Window {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn get(&self, id: &str) -> Option<Known> {
        self.known.get(id).copied()
    }

    /// Remembers an id that is not known.
    pub fn add(&mut self, id: &str, known: Known) {
        let id: Arc<str> = id.into();
        let before = self.known.insert(id.clone(), known);
        debug_assert!(before.is_none(), "an id is stored once");
        self.order.push_back(id);
    }

    /// Forgets the ids that are older than the window.
    pub fn evict(&mut self, now: Time, window_ms: u64) {
        while let Some(oldest) = self.order.front() {
            if !self.known[oldest].is_expired(now, window_ms) {
                break;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
    }

    /// In order: id, seq, and time since the one before.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.order.len() as u64);
        let mut before = 0i64;
        for id in &self.order {
            let known = self.known[id];
            out.str(id);
            out.varint(known.seq);
            out.varint(known.time.0.wrapping_sub(before) as u64);
            before = known.time.0;
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<Window, Corrupt> {
        let mut window = Window::default();
        let mut before = 0i64;
        for _ in 0..reader.count()? {
            let id: Arc<str> = reader.text()?.as_str().into();
            let seq = reader.varint()?;
            before = before.wrapping_add(reader.varint()? as i64);
            if window.known.insert(id.clone(), Known { seq, time: Time(before) }).is_some() {
                return Err(reader.corrupt("an event id is there twice"));
            }
            window.order.push_back(id);
        }
        Ok(window)
    }
}
