//! How much room the file system below the store has, and when that is too little.
//!
//! Always true: a bound is left only with an eighth of the reserve to spare, so that a disk at a bound does not flicker.

use super::shared::Shared;
use crate::core::limits::{DISK_FLOOR_BYTES, DISK_RESERVE_BYTES, SMALL_APPEND_BYTES};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// How often the keeper looks when nothing else makes somebody look.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a file system says of itself, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What this process may still write.
    pub free: u64,
    pub total: u64,
}

/// How the disk is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Enough,
    /// Less than the reserve is left: nothing new should come in here.
    Short,
    /// Less than half of the reserve is left: what is left is for votes, and for what makes room.
    Full,
}

/// The room that the store last saw, in bytes. All zero where the files cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Without what waits in the queue for the disk.
    pub free: u64,
    pub total: u64,
    pub reserve: u64,
    pub level: Level,
}

impl Space {
    /// Whether entries of so many bytes may still be appended. Small ones, such as a trim, may for longer: they make room.
    pub fn takes(&self, bytes: usize) -> bool {
        self.level != Level::Full || (bytes <= SMALL_APPEND_BYTES && self.free >= self.reserve / 4)
    }
}

/// The reserve where nobody set one: a twentieth of the disk, within bounds, and never more than a quarter.
fn default_reserve(total: u64) -> u64 {
    (total / 20).clamp(DISK_FLOOR_BYTES, DISK_RESERVE_BYTES).min(total / 4)
}

fn level(before: Level, free: u64, reserve: u64) -> Level {
    let below = |bound: u64, was: bool| free < bound + if was { reserve / 8 } else { 0 };
    match () {
        () if below(reserve / 2, before == Level::Full) => Level::Full,
        () if below(reserve, before != Level::Enough) => Level::Short,
        () => Level::Enough,
    }
}

/// What was seen last, and how much was written since.
#[derive(Default)]
pub(super) struct Gauge {
    pub now: watch::Sender<Space>,
    written: AtomicU64,
}

impl Shared {
    /// Asks the files how much room there is. Files that cannot tell, or fail to, leave what was known.
    pub fn look_at_space(&self) {
        self.space.written.store(0, Relaxed);
        let Ok(Some(room)) = self.segments.place.files.room() else { return };
        let reserve = self.options.disk_reserve_bytes.unwrap_or_else(|| default_reserve(room.total));
        let free = room.free.saturating_sub(self.queue.len().1 as u64);
        self.space.now.send_if_modified(|space| {
            let level = level(space.level, free, reserve);
            let before = std::mem::replace(space, Space { free, total: room.total, reserve, level });
            before.level != level
        });
    }

    /// Counts what was written; looks again before it can have used up much of the reserve.
    pub fn wrote(&self, bytes: u64) {
        let space = *self.space.now.borrow();
        if self.space.written.fetch_add(bytes, Relaxed) + bytes >= space.reserve / 16 && space.total > 0 {
            self.look_at_space();
        }
    }
}

/// Files with as much room as a test says.
#[cfg(test)]
pub struct Rationed {
    pub files: std::sync::Arc<dyn super::Files>,
    pub free: std::sync::Arc<AtomicU64>,
}

#[cfg(test)]
impl super::Files for Rationed {
    fn list(&self) -> Result<Vec<String>, super::Error> {
        self.files.list()
    }
    fn open(&self, name: &str) -> Result<Box<dyn redb::StorageBackend>, super::Error> {
        self.files.open(name)
    }
    fn create(&self, name: &str) -> Result<Box<dyn redb::StorageBackend>, super::Error> {
        self.files.create(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), super::Error> {
        self.files.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), super::Error> {
        self.files.remove(name)
    }
    fn sync_dir(&self) -> Result<(), super::Error> {
        self.files.sync_dir()
    }
    fn room(&self) -> Result<Option<Room>, super::Error> {
        Ok(Some(Room { free: self.free.load(Relaxed), total: 1 << 40 }))
    }
    fn release(&self) {
        self.files.release();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Options, Store, crash::Disk};
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_bound_is_left_with_room_to_spare() {
        let mut now = Level::Enough;
        for (free, expected) in [
            (1000, Level::Enough),
            (800, Level::Enough),
            (799, Level::Short),
            (899, Level::Short),
            (400, Level::Short),
            (399, Level::Full),
            (499, Level::Full),
            (500, Level::Short),
            (900, Level::Enough),
            (0, Level::Full),
            (900, Level::Enough),
        ] {
            now = level(now, free, 800);
            assert_eq!(now, expected, "{free} free");
        }
        assert_eq!(level(Level::Enough, 0, 0), Level::Enough, "without a reserve nothing is ever short");
    }

    #[test]
    fn the_reserve_fits_the_disk() {
        let check = |total: u64, expected: u64| assert_eq!(default_reserve(total), expected, "{total}");
        check(0, 0);
        check(64 * MIB, 16 * MIB);
        check(256 * MIB, 32 * MIB);
        check(4096 * MIB, 4096 * MIB / 20);
        check(1 << 40, 512 * MIB);
    }

    #[test]
    fn small_appends_are_taken_for_longer() {
        let space = |free| Space { free, total: 1 << 40, reserve: 800, level: level(Level::Enough, free, 800) };
        assert!(space(400).takes(1 << 30));
        assert!(!space(399).takes(1 << 30) && space(399).takes(100) && space(200).takes(100));
        assert!(!space(199).takes(1));
    }

    #[test]
    fn the_store_looks_by_itself_and_after_large_writes() {
        let free = Arc::new(AtomicU64::new(100 * MIB));
        let files = Rationed { files: Arc::new(Disk::default()), free: free.clone() };
        let store = Store::open(Arc::new(files), Options { disk_reserve_bytes: Some(16 * MIB), ..Options::default() }).unwrap();
        let mut space = store.space();
        assert_eq!((space.borrow().level, space.borrow().reserve), (Level::Enough, 16 * MIB));
        free.store(10 * MIB, Relaxed);
        let payload = Bytes::from(vec![7; 2 << 20]);
        let (done, written) = std::sync::mpsc::channel();
        let entry = Entry { index: 0, term: 1, leader: 1, payload };
        store.group(1).append(vec![entry], move |result| done.send(result).unwrap()).unwrap();
        written.recv().unwrap().unwrap();
        assert_eq!(store.space_now().level, Level::Short, "the writer looked before it answered");
        free.store(MIB, Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let full = runtime.block_on(async { space.wait_for(|space| space.level == Level::Full).await.map(|space| *space) });
        assert_eq!(full.unwrap().free, MIB, "the keeper looks when nobody writes");
        store.close().unwrap();
    }
}
