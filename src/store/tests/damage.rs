//! Damage to files: whatever happens to one of them, a group is whole or fenced.
//!
//! What must hold after each start: a group that is not fenced has exactly what was acknowledged; one that is fenced gives nothing;
//! the next start says the same; and whoever has nothing in the file that was hurt is not concerned.

use super::*;
use crate::store::crash::Random;
use crate::store::tables::{IDENTITY, JOURNAL, META, WITNESS, segment_name};
use crate::store::{Fences, Files};
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: u64 = 4;

/// A directory with known contents: group 0 lives in the first segments only, the others come one by one.
struct Sample {
    disk: Disk,
    clean: bool,
    options: Options,
    logs: BTreeMap<u64, Vec<Entry>>,
    /// The directory as it was at earlier moments, each file by its name.
    earlier: Vec<BTreeMap<String, Vec<u8>>>,
    /// Groups with anything in a segment.
    within: BTreeMap<String, BTreeSet<u64>>,
}

fn files(disk: &Disk) -> BTreeMap<String, Vec<u8>> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.contents(&name))).collect()
}

/// Rows of a group's whole log, read from disk again, and its checkpoints with them.
fn read_all_again(group: &Group) -> Result<u64, Error> {
    let (mut rows, mut from) = (0, 0);
    while let Some(slice) = group.read_again(from, 256 * 1024)? {
        rows += slice.rows;
        from = slice.next;
    }
    group.checkpoints().into_iter().try_for_each(|index| group.checkpoint(index).map(drop))?;
    Ok(rows)
}

fn vote(group: u64) -> Bytes {
    Bytes::from(format!("vote of {group}"))
}

impl Sample {
    fn new(clean: bool) -> Sample {
        Sample::with(clean, options(12_000, 0))
    }

    /// One whose last entries are in the journal.
    fn journaled(clean: bool) -> Sample {
        Sample::with(clean, Options { journal_bytes: 32 << 10, ..options(5_000, 0) })
    }

    fn with(clean: bool, options: Options) -> Sample {
        let mut rig = Rig::new(options.clone());
        let (mut logs, mut earlier) = (BTreeMap::<u64, Vec<Entry>>::new(), Vec::new());
        let mut answers = vec![rig.store.save_identity(Bytes::from_static(b"me")).unwrap()];
        for group in 0..GROUPS {
            answers.push(rig.store.group(group).save_vote(vote(group)).unwrap());
            for index in 1..=25 {
                for group in [group, 3] {
                    let log = logs.entry(group).or_default();
                    let next = log.len() as u64 + 1;
                    let entry = entry(next, 1, &format!("{next} {}", "payload ".repeat(20)));
                    rig.store.group(group).append(vec![entry.clone()], |_| ()).unwrap();
                    log.push(entry);
                }
                rig.settle();
                if index % 6 == 0 {
                    earlier.push(files(&rig.disk));
                }
            }
            let checkpoint = Bytes::from(format!("checkpoint of {group}"));
            rig.store.group(group).save_checkpoint(25, checkpoint, Box::new(|result| result.unwrap())).unwrap();
            rig.settle();
        }
        answers.into_iter().for_each(|answer| answer.wait().unwrap());
        let mut within = BTreeMap::<String, BTreeSet<u64>>::new();
        for group in 0..GROUPS {
            for span in &rig.store.group(group).cell.state().spans {
                within.entry(span.segment.file.name.clone()).or_default().insert(group);
            }
        }
        assert!(within.len() > 3 && within[&segment_name(1)].len() < 4, "{within:?}");
        assert_eq!(rig.writer.journaled.is_empty(), options.journal_bytes == 0);
        let disk = if clean { rig.close() } else { rig.disk.kill() };
        Sample { disk, clean, options, logs, earlier, within }
    }

    fn names(&self) -> Vec<String> {
        self.disk.list().unwrap()
    }

    /// Opens the directory twice and checks every group; gives the fences.
    #[track_caller]
    fn check(&self, disk: &Disk, about: &str) -> Fences {
        let mut rig = Rig::open(disk, self.options.clone()).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(rig.store.identity().as_deref(), Some(&b"me"[..]), "{about}");
        for group in 0..GROUPS {
            self.check_group(&rig.store, group, about);
        }
        rig.settle();
        let fences = Fences::clone(&rig.store.fences().borrow());
        assert!(rig.store.0.shared.check().is_ok(), "{about}");
        for disk in [rig.disk.kill(), rig.close()] {
            let again = Rig::open(&disk, self.options.clone()).unwrap_or_else(|error| panic!("{about}, again: {error}"));
            assert_eq!(Fences::clone(&again.store.fences().borrow()), fences, "{about}, again");
        }
        fences
    }

    #[track_caller]
    fn check_group(&self, store: &Store, id: u64, about: &str) {
        let (group, log) = (store.group(id), &self.logs[&id]);
        let found = match group.read(1..u64::MAX, usize::MAX) {
            Err(Error::Fenced { .. }) => None,
            result => Some(result.unwrap_or_else(|error| panic!("{about}: group {id}: {error}"))),
        };
        let verified = read_all_again(&group);
        let Some(mut found) = found else {
            assert!(matches!(verified, Err(Error::Fenced { .. })), "{about}: group {id}: {verified:?}");
            assert!(store.fences().borrow().of(id).is_some(), "{about}: group {id}");
            assert!(matches!(group.append(entries(1..=1, 1), |_| ()), Err(Error::Fenced { .. })), "{about}: group {id}");
            assert!(matches!(group.save_vote(Bytes::new()), Err(Error::Fenced { .. })), "{about}: group {id}");
            return;
        };
        while let Some(last) = found.last().map(|last| last.index).filter(|last| *last < log.len() as u64) {
            match group.read(last + 1..u64::MAX, usize::MAX) {
                Ok(more) => found.extend(more),
                Err(Error::Fenced { .. }) => break,
                Err(error) => panic!("{about}: group {id}: {error}"),
            }
        }
        assert!(found == log[..found.len().min(log.len())], "{about}: group {id} is not what was written");
        if store.fences().borrow().of(id).is_none() {
            assert_eq!(found.len(), log.len(), "{about}: group {id} is shorter");
            assert_eq!(group.vote(), Some(vote(id)), "{about}: group {id}");
            let checkpoint = Bytes::from(format!("checkpoint of {id}"));
            assert_eq!(group.checkpoint(25), Ok(Some(checkpoint)), "{about}: group {id}");
            assert_eq!(verified.unwrap(), log.len() as u64, "{about}: group {id}");
        }
    }

    /// Whether nobody is fenced who has nothing in the file. The newest segment may concern everybody.
    #[track_caller]
    fn check_concerned(&self, fences: &Fences, name: &str, about: &str) {
        let newest = self.within.last_key_value().unwrap().0;
        if let Some(within) = self.within.get(name).filter(|_| name != newest) {
            assert_eq!(fences.all, None, "{about}");
            assert!(fences.groups.keys().all(|group| within.contains(group)), "{about}: {fences:?}");
        } else if name == WITNESS || name == IDENTITY || (self.clean && name == JOURNAL) {
            assert!(fences.groups.is_empty(), "{about}: {fences:?}");
        }
    }
}

/// Does something to a file; says what, or nothing if the file is as before.
fn hurt(sample: &Sample, disk: &Disk, name: &str, random: &mut Random) -> Option<String> {
    let len = disk.contents(name).len();
    let what = match random.below(6) {
        0 | 1 => {
            if disk.contents(name).iter().all(|byte| *byte == 0) {
                return None;
            }
            let count = [1, 1, 3, 40][random.below(4) as usize];
            disk.damage(name, |bytes| {
                // Most of a file is empty; aim at what is not.
                let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
                for _ in 0..count {
                    let at = used[random.below(used.len() as u64) as usize];
                    bytes[at] ^= 1 << random.below(8);
                }
            });
            format!("{count} flipped bits")
        }
        2 => {
            let left = [0, 100, len / 2, len - 1, random.below(len as u64) as usize][random.below(5) as usize];
            disk.damage(name, |bytes| bytes.truncate(left));
            format!("truncated to {left} of {len}")
        }
        3 => {
            let at = random.below(len as u64) as usize / 4096 * 4096;
            disk.damage(name, |bytes| bytes[at..(at + 4096).min(len)].fill(0));
            format!("a page of zeros at {at}")
        }
        4 => {
            disk.remove(name).unwrap();
            "removed".into()
        }
        _ => {
            let versions: Vec<_> = sample.earlier.iter().filter_map(|files| files.get(name)).collect();
            let version = versions.get(random.below(versions.len().max(1) as u64) as usize)?;
            disk.damage(name, |bytes| *bytes = version.to_vec());
            "rolled back".into()
        }
    };
    (disk.list().unwrap().iter().all(|other| other != name) || disk.contents(name) != sample.disk.contents(name)).then_some(what)
}

fn run(sample: &Sample, seed: u64) {
    let (mut random, disk) = (Random(seed), sample.disk.kill());
    let names = sample.names();
    let name = &names[random.below(names.len() as u64) as usize];
    let Some(what) = hurt(sample, &disk, name, &mut random) else { return };
    let about = format!("{name} {what} (to repeat: EVERMESH_SEED={seed} cargo test --lib store::tests::damage::any_damage)");
    let fences = sample.check(&disk, &about);
    sample.check_concerned(&fences, name, &about);
}

#[test]
fn any_damage_leaves_each_group_whole_or_fenced() {
    let samples = [Sample::new(false), Sample::new(true), Sample::journaled(false), Sample::journaled(true)];
    if let Ok(seed) = std::env::var("EVERMESH_SEED") {
        let seed = seed.parse().expect("EVERMESH_SEED is a number");
        return run(&samples[(seed % 4) as usize], seed);
    }
    let seeds: u64 = std::env::var("EVERMESH_SEEDS").map_or(1_200, |seeds| seeds.parse().expect("EVERMESH_SEEDS is a number"));
    std::thread::scope(|scope| {
        for half in 0..2 {
            let samples = &samples;
            scope.spawn(move || (0..seeds).filter(|seed| seed % 2 == half).for_each(|seed| run(&samples[(seed % 4) as usize], seed)));
        }
    });
}

#[test]
fn a_damaged_row_fences_its_group_only() {
    let sample = Sample::new(true);
    let disk = sample.disk.kill();
    let name = segment_name(1);
    disk.damage(&name, |bytes| {
        let at = bytes.windows(10).position(|window| window == b"12 payload").unwrap();
        bytes[at + 5] ^= 1;
    });
    let rig = Rig::open(&disk, sample.options.clone()).unwrap();
    assert_eq!(**rig.store.fences().borrow(), Fences::default(), "nobody has read it yet");
    let fences = sample.check(&disk, "a damaged row");
    assert_eq!((fences.all, fences.groups.len()), (None, 1), "{:?}", fences.groups);
}

#[test]
fn a_lost_segment_is_kept_aside_and_its_groups_are_fenced() {
    let sample = Sample::new(false);
    let disk = sample.disk.kill();
    disk.damage(&segment_name(1), |bytes| bytes.truncate(5000));
    let mut rig = Rig::open(&disk, sample.options.clone()).unwrap();
    let fenced: BTreeSet<u64> = rig.store.fences().borrow().groups.keys().copied().collect();
    assert_eq!(fenced, sample.within[&segment_name(1)]);
    assert_eq!((rig.store.stats().files_aside, rig.store.stats().fenced_groups), (1, fenced.len() as u64));
    assert!(disk.list().unwrap().contains(&format!("{}.damaged", segment_name(1))));
    // Begun anew, they take part again, and the others have not noticed.
    for group in fenced.clone() {
        let anew = rig.store.begin_anew(group).unwrap();
        assert_eq!(rig.store.group(group).log_state().last, None);
        append(&rig.store.group(group), 100..=101, 7);
        rig.settle();
        anew.wait().unwrap();
    }
    let rig = rig.reopen(sample.options.clone());
    assert_eq!(**rig.store.fences().borrow(), Fences::default());
    for group in 0..GROUPS {
        match fenced.contains(&group) {
            true => assert_eq!(read_all(&rig.store.group(group)), entries(100..=101, 7)),
            false => assert_eq!(read_all(&rig.store.group(group)), sample.logs[&group]),
        }
    }
    // Somebody puts the file back, or another one under its name.
    disk.rename(&format!("{}.damaged", segment_name(1)), &segment_name(1)).unwrap();
    let rig = Rig::open(&rig.close(), sample.options.clone()).unwrap();
    assert_eq!(**rig.store.fences().borrow(), Fences::default());
}

#[test]
fn lost_votes_fence_every_group_until_it_is_begun_anew() {
    let sample = Sample::new(true);
    for missing in [META, WITNESS] {
        let disk = sample.disk.kill();
        disk.remove(missing).unwrap();
        let mut rig = Rig::open(&disk, sample.options.clone()).unwrap();
        let why = rig.store.fences().borrow().all.clone().expect("everything is fenced");
        assert!(why.contains("missing"), "{why}");
        assert_eq!(rig.store.identity().as_deref(), Some(&b"me"[..]));
        // A group that was never heard of is fenced too: its vote may be among the lost.
        let refused = rig.store.group(99).append(entries(1..=1, 1), |_| ());
        assert_eq!(refused, Err(Error::Fenced { group: 99, why: why.clone() }));
        let anew = rig.store.begin_anew(99).unwrap();
        append(&rig.store.group(99), 1..=2, 1);
        rig.settle();
        anew.wait().unwrap();
        let rig = rig.reopen(sample.options.clone());
        let fences = Fences::clone(&rig.store.fences().borrow());
        assert_eq!((fences.all.as_ref(), fences.of(99), fences.of(1)), (Some(&why), None, Some(&*why)));
        assert_eq!(read_all(&rig.store.group(99)), entries(1..=2, 1));
        // Nothing that was there is gone.
        let aside = disk.list().unwrap().into_iter().filter(|name| name.contains(".damaged")).count();
        assert_eq!(aside as u64, rig.store.stats().files_aside);
        assert!(aside >= sample.within.len(), "{:?}", disk.list());
    }
}

#[test]
fn an_interrupted_start_over_damage_comes_to_the_same_conclusion() {
    use crate::store::crash::Fault;
    let sample = Sample::new(false);
    for seed in 0..300 {
        let (mut random, mut disk) = (Random(seed), sample.disk.kill());
        let name = [META.to_owned(), WITNESS.to_owned(), segment_name(2)][random.below(3) as usize].clone();
        match random.chance(50) {
            true => disk.remove(&name).unwrap(),
            false => disk.damage(&name, |bytes| bytes.iter_mut().take(8192).for_each(|byte| *byte = 7)),
        }
        disk = disk.kill();
        for _ in 0..random.below(4) {
            disk.fail(random.below(40), Fault::PowerOff);
            drop(Rig::open(&disk, sample.options.clone()));
            disk = disk.crash(&mut random);
        }
        let rig = Rig::open(&disk, sample.options.clone()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let fences = Fences::clone(&rig.store.fences().borrow());
        match name == META || name == WITNESS {
            true => assert!(fences.all.is_some(), "seed {seed}"),
            false => assert_eq!(fences.groups.keys().copied().collect::<BTreeSet<_>>(), sample.within[&name], "seed {seed}"),
        }
        drop(rig);
        let aside = disk.list().unwrap().into_iter().filter(|name| name.contains(".damaged")).count();
        assert!(aside <= sample.within.len() + 1, "seed {seed}: {:?}", disk.list());
    }
}

#[test]
fn fencing_lasts_and_beginning_anew_ends_it() {
    let options = options(1 << 20, 0);
    let mut rig = Rig::new(options.clone());
    for group in [1, 2] {
        append(&rig.store.group(group), 1..=3, 1);
    }
    let mut watch = rig.store.fences();
    let fenced = rig.store.fence(1, "its log is behind its vote").unwrap();
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().of(1), Some("its log is behind its vote"));
    let refused = Error::Fenced { group: 1, why: "its log is behind its vote".into() };
    assert_eq!(rig.store.group(1).read(1..2, 1), Err(refused.clone()));
    rig.settle();
    fenced.wait().unwrap();
    let mut rig = rig.reopen(options.clone());
    assert_eq!(rig.store.group(1).truncate_after(None), Err(refused.clone()));
    assert_eq!(rig.store.group(1).flush().err(), Some(refused));
    assert_eq!((rig.store.groups(), read_all(&rig.store.group(2))), (vec![1, 2], entries(1..=3, 1)));
    let anew = rig.store.begin_anew(1).unwrap();
    append(&rig.store.group(1), 5..=6, 2);
    rig.settle();
    anew.wait().unwrap();
    let rig = rig.reopen(options);
    assert_eq!(read_all(&rig.store.group(1)), entries(5..=6, 2));
    assert_eq!(**rig.store.fences().borrow(), Fences::default());
}

#[test]
fn the_scrub_finds_what_nobody_reads() {
    use crate::store::scrub::Scrub;
    let sample = Sample::new(true);
    let disk = sample.disk.kill();
    disk.damage(&segment_name(2), |bytes| {
        let at = bytes.windows(8).rposition(|window| window == b"payload ").unwrap();
        bytes[at] ^= 1;
    });
    let rig = Rig::open(&disk, sample.options.clone()).unwrap();
    let mut scrub = Scrub::new(&rig.store.0.shared);
    while rig.store.stats().scrub_passes < 2 {
        scrub.slice();
    }
    let stats = rig.store.stats();
    assert_eq!((stats.damaged_rows, stats.fenced_groups), (1, 1));
    assert!(stats.scrubbed_bytes > 10_000, "{stats:?}");
    assert!(rig.store.0.shared.check().is_ok());
}

#[test]
fn what_nobody_can_tell_apart_does_not_start() {
    let sample = Sample::new(true);
    let disk = sample.disk.kill();
    disk.remove(META).unwrap();
    disk.remove(IDENTITY).unwrap();
    let before = disk.list().unwrap();
    assert!(matches!(Rig::open(&disk, sample.options.clone()).err(), Some(Error::Lost(_))));
    assert_eq!(disk.list().unwrap(), before);
}

#[test]
fn a_journal_that_lacks_a_batch_fences_everybody_and_is_kept_aside() {
    let sample = Sample::journaled(false);
    for removed in [false, true] {
        let disk = sample.disk.kill();
        match removed {
            true => disk.remove(JOURNAL).unwrap(),
            // The first batch: others are behind it.
            false => disk.damage(JOURNAL, |bytes| bytes[100] ^= 1),
        }
        let mut rig = Rig::open(&disk, sample.options.clone()).unwrap();
        let fences = Fences::clone(&rig.store.fences().borrow());
        assert_eq!(fences.groups.keys().copied().collect::<Vec<_>>(), (0..GROUPS).collect::<Vec<_>>());
        assert!(fences.of(0).unwrap().contains("journal"), "{fences:?}");
        let aside: Vec<_> = disk.list().unwrap().into_iter().filter(|name| name.contains(".damaged")).collect();
        assert_eq!(aside.len(), 2 - usize::from(removed), "{aside:?}");
        // Begun anew, a group goes on with a journal of its own time.
        let anew = rig.store.begin_anew(1).unwrap();
        append(&rig.store.group(1), 7..=8, 9);
        rig.settle();
        anew.wait().unwrap();
        assert!(!rig.writer.journaled.is_empty());
        let rig = Rig::open(&rig.disk.kill(), sample.options.clone()).unwrap();
        assert_eq!(read_all(&rig.store.group(1)), entries(7..=8, 9));
    }
}
