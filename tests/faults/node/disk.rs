//! A data directory whose disk has a cache that forgets: what was not synced is kept in this process' memory, and gone with it.
//!
//! - Of what is not synced, some arrives on the disk before its time and torn at sectors, as a cache writes back when it likes.
//! - Names are the real directory's: a created or renamed file is there at once (the store's own crash tests forget names, too).

use super::rules::Rules;
use evermesh::store::{Directory, Error, Files};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const PAGE: u64 = 4096;
const SECTOR: usize = 512;
/// Of the pages that a write touches, so many arrive early, and so many of those torn; in percent.
const EARLY: u64 = 12;
const TORN: u64 = 40;

pub struct Disk {
    directory: Directory,
    rules: Arc<Rules>,
    random: Arc<Mutex<u64>>,
}

impl Disk {
    pub fn open(path: &Path, rules: Arc<Rules>) -> Result<Disk, Error> {
        // Each life of a node loses something else.
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        Ok(Disk { directory: Directory::open(path)?, rules, random: Arc::new(Mutex::new(seed)) })
    }

    fn cached(&self, inner: Box<dyn StorageBackend>) -> Result<Box<dyn StorageBackend>, Error> {
        let len = inner.len().map_err(|error| Error::Io { what: "asking for a file's length".into(), why: error.to_string() })?;
        let cache = Mutex::new(Cache { pages: BTreeMap::new(), len, solid: len });
        Ok(Box::new(Cached { inner, cache, rules: self.rules.clone(), random: self.random.clone() }))
    }

    fn check(&self) -> Result<(), Error> {
        match self.rules.now().failing {
            true => Err(Error::Io { what: "changing the directory".into(), why: broken().to_string() }),
            false => Ok(()),
        }
    }
}

fn broken() -> io::Error {
    // EIO, as the kernel says it.
    io::Error::from_raw_os_error(5)
}

impl Files for Disk {
    fn list(&self) -> Result<Vec<String>, Error> {
        self.directory.list()
    }

    fn open(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error> {
        self.cached(self.directory.open(name)?)
    }

    fn create(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error> {
        self.check()?;
        self.cached(self.directory.create(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.check()?;
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.check()?;
        self.directory.remove(name)
    }

    fn sync_dir(&self) -> Result<(), Error> {
        self.check()?;
        self.directory.sync_dir()
    }

    fn release(&self) {
        self.directory.release();
    }
}

/// A file behind the cache.
struct Cached {
    inner: Box<dyn StorageBackend>,
    cache: Mutex<Cache>,
    rules: Arc<Rules>,
    random: Arc<Mutex<u64>>,
}

/// - `pages` are what was written since the last sync, whole pages each.
/// - The file is `len` long for whoever reads it; of the file below, the bytes up to `solid` are still its bytes, the rest reads
///   as zeros.
struct Cache {
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    solid: u64,
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

impl Cached {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().expect("nobody panics while holding it")
    }

    fn chance(&self, percent: u64) -> bool {
        let mut state = self.random.lock().expect("nobody panics while holding it");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::random::mix(*state) % 100 < percent
    }

    fn changing(&self) -> io::Result<()> {
        if self.rules.now().failing { Err(broken()) } else { Ok(()) }
    }

    /// One page as it is now.
    fn page(&self, cache: &Cache, page: u64) -> io::Result<Box<[u8]>> {
        if let Some(bytes) = cache.pages.get(&page) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
        let from = page * PAGE;
        let solid = cache.solid.min(self.inner.len()?).saturating_sub(from).min(PAGE) as usize;
        if solid > 0 {
            self.inner.read(from, &mut bytes[..solid])?;
        }
        Ok(bytes)
    }

    /// Something of a page reaches the disk before it was asked for.
    fn arrive(&self, cache: &Cache, page: u64) -> io::Result<()> {
        let Some(bytes) = cache.pages.get(&page) else { return Ok(()) };
        let torn = self.chance(TORN);
        let room = self.inner.len()?.min(cache.solid).saturating_sub(page * PAGE).min(PAGE) as usize;
        for (sector, bytes) in bytes[..room].chunks(SECTOR).enumerate() {
            if !torn || self.chance(50) {
                self.inner.write(page * PAGE + (sector * SECTOR) as u64, bytes)?;
            }
        }
        Ok(())
    }

    fn write_through(&self, cache: &mut Cache) -> io::Result<()> {
        if cache.solid < self.inner.len()? {
            self.inner.set_len(cache.solid)?;
        }
        if self.inner.len()? != cache.len {
            self.inner.set_len(cache.len)?;
        }
        for (page, bytes) in std::mem::take(&mut cache.pages) {
            let from = page * PAGE;
            let room = cache.len.saturating_sub(from).min(PAGE) as usize;
            self.inner.write(from, &bytes[..room])?;
        }
        cache.solid = cache.len;
        Ok(())
    }
}

impl StorageBackend for Cached {
    fn len(&self) -> io::Result<u64> {
        Ok(self.cache().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let cache = self.cache();
        if offset + out.len() as u64 > cache.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = 0;
        while at < out.len() {
            let from = offset + at as u64;
            let (page, inside) = (from / PAGE, (from % PAGE) as usize);
            let take = (PAGE as usize - inside).min(out.len() - at);
            out[at..at + take].copy_from_slice(&self.page(&cache, page)?[inside..inside + take]);
            at += take;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.changing()?;
        let mut cache = self.cache();
        cache.len = len;
        cache.solid = cache.solid.min(len);
        cache.pages.retain(|page, _| page * PAGE < len);
        // What lay behind the new end must read as zeros if the file grows again.
        if let Some(bytes) = cache.pages.get_mut(&(len / PAGE)) {
            bytes[(len % PAGE) as usize..].fill(0);
        }
        if !self.rules.now().power {
            self.write_through(&mut cache)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let rules = self.rules.now();
        if rules.slow_ms > 0 {
            std::thread::sleep(Duration::from_millis(rules.slow_ms));
        }
        self.changing()?;
        self.write_through(&mut self.cache())?;
        // Under a loss of power that is a kill, the kernel's cache is the disk.
        if rules.power { Ok(()) } else { self.inner.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.changing()?;
        if !self.rules.now().power {
            let mut cache = self.cache();
            self.write_through(&mut cache)?;
            return self.inner.write(offset, data);
        }
        let mut cache = self.cache();
        cache.len = cache.len.max(offset + data.len() as u64);
        let mut at = 0;
        while at < data.len() {
            let from = offset + at as u64;
            let (page, inside) = (from / PAGE, (from % PAGE) as usize);
            let take = (PAGE as usize - inside).min(data.len() - at);
            let mut bytes = self.page(&cache, page)?;
            bytes[inside..inside + take].copy_from_slice(&data[at..at + take]);
            cache.pages.insert(page, bytes);
            if self.chance(EARLY) {
                self.arrive(&cache, page)?;
            }
            at += take;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Now;
    use super::*;
    use crate::random::Random;

    fn disk(folder: &Path, power: bool) -> Disk {
        let file = folder.join("rules");
        Now { power, ..Now::default() }.write(&file).unwrap();
        Disk::open(&folder.join("data"), Arc::new(Rules::new(file))).unwrap()
    }

    #[test]
    fn it_reads_like_a_file_and_keeps_what_was_synced() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(5);
        let mut model: Vec<u8> = Vec::new();
        let mut synced = Vec::new();
        let disk = disk(folder.path(), true);
        let file = disk.create("a").unwrap();
        for _ in 0..2_000 {
            match random.below(10) {
                0 => {
                    model.resize(random.index(40_000), 0);
                    file.set_len(model.len() as u64).unwrap();
                }
                1 => {
                    file.sync_data().unwrap();
                    synced = model.clone();
                }
                _ => {
                    let (at, len) = (random.index(40_000), random.index(9_000));
                    let data = vec![random.next() as u8; len];
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&data);
                    file.write(at as u64, &data).unwrap();
                }
            }
            let mut all = vec![0; model.len()];
            file.read(0, &mut all).unwrap();
            assert!(all == model && file.len().unwrap() == model.len() as u64);
        }
        file.sync_data().unwrap();
        synced.clone_from(&model);
        file.write(100, &[1; 20_000]).unwrap();
        drop(file);
        let kept = std::fs::read(folder.path().join("data/a")).unwrap();
        assert_eq!(kept.len(), synced.len(), "a length that was not synced is forgotten");
        let outside: Vec<_> = (0..kept.len()).filter(|at| !(100..20_100).contains(at) && kept[*at] != synced[*at]).collect();
        assert!(outside.is_empty(), "what was synced stays: {outside:?}");
        assert!((100..20_100.min(kept.len())).any(|at| kept[at] == synced[at]), "not everything arrives");
    }
}
