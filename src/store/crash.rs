//! A disk in memory that can lose power, for tests and the simulation: what was written and not synced may or may not be there afterwards, in any mixture.
//!
//! The model: bytes and lengths of a file are certain after its `sync_data`, names after `sync_dir`. At a crash a random subset of
//! the unsynced writes of each file arrives, some torn at 512-byte sectors, changes of length are dropped or not, and of the
//! unsynced changes of names a prefix arrives (a journal keeps their order). Everything random comes from a seed.

use super::{Error, Files};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// A small random number generator (SplitMix64, Steele et al. 2014), so that a seed means the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// Letters that do not compress.
    pub fn letters(&mut self, count: usize) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        std::iter::repeat_with(|| char::from(LETTERS[self.below(64) as usize])).take(count).collect()
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes wrong at a chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This one operation fails; what it was to do is not done.
    Once,
    /// This operation and every later one fails: the power is off.
    PowerOff,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    /// Names as they are now, and as they are certain to be after a crash.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    /// Changes and syncs so far, and the one at which a fault comes.
    operations: u64,
    fault: Option<(u64, Fault)>,
}

#[derive(Default, Clone)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, file) => drop(names.insert(name, file)),
            NameChange::Remove(name) => drop(names.remove(&name)),
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl File {
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(at, data) => write(&mut self.durable, at, &data),
                Change::Len(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// What a crash leaves of it.
    fn crash(&self, random: &mut Random) -> File {
        let mut bytes = self.durable.clone();
        let arrives = [0, 50, 90, 100][random.below(4) as usize];
        for change in &self.unsynced {
            match change {
                Change::Write(at, data) if random.chance(15) => {
                    for (sector, data) in data.chunks(SECTOR).enumerate() {
                        if random.chance(50) {
                            write(&mut bytes, at + sector * SECTOR, data);
                        }
                    }
                }
                Change::Write(at, data) if random.chance(arrives) => write(&mut bytes, *at, data),
                Change::Len(len) if random.chance(50) => bytes.resize(*len, 0),
                _ => {}
            }
        }
        File { now: bytes.clone(), durable: bytes, unsynced: Vec::new() }
    }
}

impl State {
    /// Counts a change or sync, and fails it if a fault is due.
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Once)) if self.operations == at => Err(io::Error::other("injected fault")),
            Some((at, Fault::PowerOff)) if self.operations >= at => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) -> Result<(), Error> {
        self.operation().map_err(Error::io("changing a name"))?;
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
        Ok(())
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// Has an operation fail, `after` as many changes and syncs from now.
    pub fn fail(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + 1 + after, fault));
    }

    /// Whether the fault has come.
    pub fn failed(&self) -> bool {
        let state = self.state();
        state.fault.is_some_and(|(at, _)| state.operations >= at)
    }

    /// The disk that the next start finds if the power goes now. This one is not changed.
    pub fn crash(&self, random: &mut Random) -> Disk {
        let state = self.state();
        let mut names = state.durable_names.clone();
        let arrive = random.below(state.unsynced_names.len() as u64 + 1) as usize;
        state.unsynced_names.iter().take(arrive).for_each(|change| change.clone().apply(&mut names));
        let mut files = Vec::new();
        for file in names.values_mut() {
            files.push(state.files[*file].crash(random));
            *file = files.len() - 1;
        }
        Disk(Arc::new(Mutex::new(State { files, names: names.clone(), durable_names: names, ..State::default() })))
    }

    /// The disk that the next start finds if the process is killed now: everything that was written is there.
    pub fn kill(&self) -> Disk {
        let state = self.state();
        let (mut names, mut files) = (state.names.clone(), Vec::new());
        for file in names.values_mut() {
            let now = state.files[*file].now.clone();
            files.push(File { now: now.clone(), durable: now, unsynced: Vec::new() });
            *file = files.len() - 1;
        }
        Disk(Arc::new(Mutex::new(State { files, names: names.clone(), durable_names: names, ..State::default() })))
    }

    /// A file as it is now.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].now.clone()
    }

    /// The lengths of all database files and the journal together.
    pub fn database_bytes(&self) -> u64 {
        let state = self.state();
        let databases = state.names.iter().filter(|(name, _)| name.ends_with(".redb") || *name == super::tables::JOURNAL);
        databases.map(|(_, file)| state.files[*file].now.len() as u64).sum()
    }

    /// Changes bytes of a file behind everybody's back.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        change(&mut state.files[file].now);
        state.files[file].durable = state.files[file].now.clone();
    }
}

impl Files for Disk {
    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error> {
        match self.state().names.get(name) {
            Some(file) => Ok(Box::new(Handle { disk: self.clone(), file: *file })),
            None => Err(Error::broken(name, "it is not there")),
        }
    }

    fn create(&self, name: &str) -> Result<Box<dyn StorageBackend>, Error> {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(File::default());
        state.change_name(NameChange::Set(name.into(), file))?;
        Ok(Box::new(Handle { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.state().change_name(NameChange::Rename(from.into(), to.into()))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.state().change_name(NameChange::Remove(name.into()))
    }

    fn sync_dir(&self) -> Result<(), Error> {
        let mut state = self.state();
        state.operation().map_err(Error::io("syncing a directory"))?;
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }
}

struct Handle {
    disk: Disk,
    file: usize,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let file = &mut state.files[self.file];
        match &change {
            Change::Write(at, data) => write(&mut file.now, *at, data),
            Change::Len(len) => file.now.resize(*len, 0),
        }
        file.unsynced.push(change);
        Ok(())
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let bytes = state.files[self.file].now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        state.files[self.file].sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset as usize, data.to_vec()))
    }
}
