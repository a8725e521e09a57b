//! Looking for damage before somebody needs the bytes: a slow walk through everything that is on disk. [`Group::read_again`] is the same
//! of one group on demand.
//!
//! What is damaged is fenced by the reads themselves; see `fence`.

use super::Group;
use super::cell::Cell;
use super::segments::Segment;
use super::shared::Shared;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Bytes of rows that are read at once.
const SLICE_BYTES: usize = 256 * 1024;

/// The walk: segment by segment, in each of them group by group.
pub(super) struct Scrub {
    shared: Arc<Shared>,
    /// Segments of this pass that are still to come, oldest first.
    segments: VecDeque<Arc<Segment>>,
    /// Groups of the segment that is being read: their first index there that is to be read, and the last.
    groups: VecDeque<(Arc<Cell>, u64, u64)>,
    began: bool,
}

impl Scrub {
    pub fn new(shared: &Arc<Shared>) -> Scrub {
        Scrub { shared: shared.clone(), segments: VecDeque::new(), groups: VecDeque::new(), began: false }
    }

    /// How long it rests between two passes.
    pub fn pause(&self) -> Duration {
        self.shared.options.scrub_pause
    }

    /// Reads a bit more; gives how long to wait before the next slice.
    pub fn slice(&mut self) -> Duration {
        loop {
            if let Some((cell, from, last)) = self.groups.pop_front() {
                return self.read(cell, from, last);
            }
            match self.segments.pop_front() {
                Some(segment) => self.groups = self.groups_in(&segment),
                None if self.began => {
                    self.began = false;
                    self.shared.segments.place.counters.scrub_passes.fetch_add(1, Relaxed);
                    return self.pause();
                }
                None => {
                    self.segments = self.shared.segments.before(self.shared.segments.newest()).into();
                    self.began = true;
                }
            }
        }
    }

    fn groups_in(&self, segment: &Arc<Segment>) -> VecDeque<(Arc<Cell>, u64, u64)> {
        let pieces = self.shared.pieces(|other| Arc::ptr_eq(other, segment)).into_iter();
        pieces.map(|piece| (piece.cell, piece.first, piece.last)).collect()
    }

    fn read(&mut self, cell: Arc<Cell>, from: u64, last: u64) -> Duration {
        let group = Group { shared: self.shared.clone(), cell: cell.clone() };
        // Damage has been fenced and told by now, a failing disk has been latched.
        let Ok(Some(slice)) = group.read_again(from, SLICE_BYTES) else { return Duration::ZERO };
        self.shared.segments.place.counters.scrubbed_bytes.fetch_add(slice.bytes, Relaxed);
        if slice.next <= last {
            self.groups.push_front((cell, slice.next, last));
        }
        Duration::from_secs_f64(slice.bytes as f64 / self.shared.options.scrub_bytes_per_second.max(1) as f64)
    }
}
