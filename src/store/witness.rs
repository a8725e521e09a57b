//! The witness: a small file beside the databases that says how many commits each of them has had, and how many batches the journal, so
//! that one that was put back to an older state is noticed.
//!
//! Every database counts its commits within itself. After a commit is durable, and before anybody is told, its count is written here
//! by one plain write: it survives the end of the process. It is synced about once a second, so after a power loss it may say less
//! than what is there; that is no contradiction. A database that has *fewer* commits than it says was rolled back.
//!
//! Always true: of the two slots, the one that is not being written holds the state before.

use super::file::UNFINISHED;
use super::tables::WITNESS;
use super::{Error, Files};
use redb::StorageBackend;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The slots are a page apart, so that no torn write reaches both.
const SLOT_BYTES: u64 = 4096;
const MAGIC: [u8; 4] = *b"evw2";
const RECORD_BYTES: usize = 44;
/// Before there was a journal.
const MAGIC_V1: [u8; 4] = *b"evw1";
const RECORD_BYTES_V1: usize = 36;

/// Commits that were durable when this was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Grows with every write; its parity is the slot.
    sequence: u64,
    /// Of the metadata.
    pub meta: u64,
    /// Of the segment that was written to last.
    pub segment: u32,
    pub segment_commits: u64,
    /// Batches of that segment in the journal.
    pub batches: u64,
}

impl Seen {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.meta.to_le_bytes());
        out[24..28].copy_from_slice(&self.segment.to_le_bytes());
        out[28..36].copy_from_slice(&self.segment_commits.to_le_bytes());
        out[36..].copy_from_slice(&self.batches.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Seen> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let is = |magic: [u8; 4], len: usize| bytes[..4] == magic && word(4) == crc32fast::hash(&bytes[8..len]);
        let batches = match () {
            () if is(MAGIC, RECORD_BYTES) => long(36),
            () if is(MAGIC_V1, RECORD_BYTES_V1) => 0,
            () => return None,
        };
        Some(Seen { sequence: long(8), meta: long(16), segment: word(24), segment_commits: long(28), batches })
    }
}

/// Whose commits are counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    Meta,
    Segment(u32),
    /// The journal's batches of this segment.
    Journal(u32),
}

/// Without a file it remembers for nobody: until [`Witness::keep_in`].
#[derive(Default)]
pub(super) struct Witness(Mutex<State>);

#[derive(Default)]
struct State {
    seen: Seen,
    file: Option<Arc<dyn StorageBackend>>,
    unsynced: bool,
}

impl Witness {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file says; `None` if neither slot is whole. Later notes go to it.
    pub fn open(&self, files: &dyn Files) -> Result<Option<Seen>, Error> {
        let file: Arc<dyn StorageBackend> = match files.open(WITNESS) {
            Ok(file) => file.into(),
            Err(Error::Broken { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let slot = |at: u64| {
            let mut bytes = [0; RECORD_BYTES];
            file.read(at * SLOT_BYTES, &mut bytes).ok()?;
            Seen::decode(&bytes)
        };
        let seen = [slot(0), slot(1)].into_iter().flatten().max_by_key(|seen| seen.sequence);
        if let Some(seen) = seen {
            *self.state() = State { seen, file: Some(file), unsynced: false };
        }
        Ok(seen)
    }

    pub fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Makes the file anew, with what was noted so far. It is durable on return.
    pub fn create(&self, files: &dyn Files) -> Result<(), Error> {
        let mut state = self.state();
        let unfinished = format!("{WITNESS}{UNFINISHED}");
        let file: Arc<dyn StorageBackend> = files.create(&unfinished)?.into();
        let slot = state.seen.encode();
        let written = file.set_len(2 * SLOT_BYTES).and_then(|()| file.write(0, &slot)).and_then(|()| file.write(SLOT_BYTES, &slot));
        written.and_then(|()| file.sync_data()).map_err(Error::io("writing the witness"))?;
        files.rename(&unfinished, WITNESS)?;
        files.sync_dir()?;
        (state.file, state.unsynced) = (Some(file), false);
        Ok(())
    }

    /// One plain write; no sync.
    pub fn note(&self, whose: Whose, commits: u64) -> Result<(), Error> {
        let mut state = self.state();
        if let Whose::Segment(number) | Whose::Journal(number) = whose
            && state.seen.segment != number
        {
            (state.seen.segment, state.seen.segment_commits, state.seen.batches) = (number, 0, 0);
        }
        match whose {
            Whose::Meta => state.seen.meta = commits,
            Whose::Segment(_) => state.seen.segment_commits = commits,
            Whose::Journal(_) => state.seen.batches = commits,
        }
        state.seen.sequence += 1;
        let Some(file) = &state.file else { return Ok(()) };
        let slot = state.seen.sequence % 2 * SLOT_BYTES;
        file.write(slot, &state.seen.encode()).map_err(Error::io("writing the witness"))?;
        state.unsynced = true;
        Ok(())
    }

    /// Has what was noted survive a power loss too.
    pub fn sync(&self) -> Result<(), Error> {
        let file = {
            let mut state = self.state();
            match std::mem::take(&mut state.unsynced) {
                true => state.file.clone(),
                false => None,
            }
        };
        // Outside of the lock: the writer does not wait for it.
        file.map_or(Ok(()), |file| file.sync_data()).map_err(Error::io("syncing the witness"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::crash::{Disk, Random};
    use super::*;

    #[test]
    fn it_says_what_was_noted_last_and_after_a_power_loss_no_more() {
        for seed in 0..200 {
            let (disk, witness, mut random) = (Disk::default(), Witness::default(), Random(seed));
            witness.create(&disk).unwrap();
            for commits in 1..=random.below(20) {
                witness.note(Whose::Meta, commits).unwrap();
                witness.note(Whose::Segment(1), commits + 1).unwrap();
                witness.note(Whose::Journal(1), 2 * commits).unwrap();
                if random.chance(10) {
                    witness.sync().unwrap();
                }
            }
            let (killed, lost) = (Witness::default(), Witness::default());
            assert_eq!(killed.open(&disk.kill()).unwrap(), Some(witness.seen()), "seed {seed}");
            let found = lost.open(&disk.crash(&mut random)).unwrap().unwrap_or_else(|| panic!("seed {seed}: both slots are gone"));
            let seen = witness.seen();
            assert!(
                found.meta <= seen.meta && found.segment_commits <= seen.segment_commits && found.batches <= seen.batches,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn one_damaged_slot_leaves_the_state_before() {
        let (disk, witness) = (Disk::default(), Witness::default());
        witness.create(&disk).unwrap();
        (1..=9).for_each(|commits| witness.note(Whose::Meta, commits).unwrap());
        for slot in [0, SLOT_BYTES as usize] {
            let disk = disk.kill();
            disk.damage(WITNESS, |bytes| bytes[slot + 17] ^= 4);
            let found = Witness::default().open(&disk).unwrap().unwrap();
            assert!([8, 9].contains(&found.meta), "{found:?}");
        }
        disk.damage(WITNESS, |bytes| bytes.iter_mut().for_each(|byte| *byte = !*byte));
        assert_eq!(Witness::default().open(&disk).unwrap(), None);
    }
}
