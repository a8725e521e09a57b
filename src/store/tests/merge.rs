//! Segments in which little lives: merged, with nothing lost and nothing brought back, whenever the power fails.

use super::*;
use crate::store::crash::{Fault, Random};
use std::sync::atomic::Ordering::Relaxed;

/// Whose entries live, whose are purged, and whose are truncated and written anew.
const KEPT: u64 = 1;
const BUSY: u64 = 2;
const CUT: u64 = 3;

const ROUNDS: u64 = 12;

/// Small segments, each with one living entry among purged ones.
fn sparse() -> Rig {
    let mut rig = Rig::new(options(1, 0));
    let (kept, busy, cut) = (rig.store.group(KEPT), rig.store.group(BUSY), rig.store.group(CUT));
    append(&cut, 1..=2, 1);
    rig.settle();
    for round in 1..=ROUNDS {
        kept.append(vec![entry(round, 1, &format!("kept in round {round}."))], |result| result.unwrap()).unwrap();
        append(&busy, 5 * round..=5 * round + 4, 1);
        rig.step();
        cut.truncate_after(Some(1)).unwrap();
        append(&cut, 2..=3, round + 1);
        rig.settle();
    }
    busy.purge(id(5 * ROUNDS + 4, 1)).unwrap();
    rig.settle();
    rig
}

/// What all the groups have.
fn all(rig: &Rig) -> Vec<(Option<LogId>, Vec<Entry>)> {
    let one = |group| {
        let group = rig.store.group(group);
        (group.log_state().purged, read_all(&group))
    };
    [KEPT, BUSY, CUT].map(one).to_vec()
}

/// Looks until there is nothing more to do.
fn merge_all(rig: &mut Rig) {
    for _ in 0..10 {
        rig.look();
        rig.settle();
    }
}

fn healthy(rig: &Rig) {
    assert_eq!(*rig.store.fences().borrow().clone(), crate::store::Fences::default());
    assert_eq!(rig.store.stats().files_aside, 0);
    rig.store.0.shared.check().unwrap();
}

#[test]
fn what_lives_stays_and_the_room_comes_back() {
    let mut rig = sparse();
    let (before, expected) = (rig.store.stats(), all(&rig));
    assert!(before.segments > ROUNDS, "{before:?}");
    merge_all(&mut rig);
    let after = rig.store.stats();
    assert!(after.merges > 0 && after.segments <= 3, "{after:?}");
    assert!(after.file_bytes < before.file_bytes / 3, "{} of {}", after.file_bytes, before.file_bytes);
    assert_eq!(after.file_bytes, rig.disk.database_bytes(), "the count of bytes is right");
    assert_eq!(all(&rig), expected);
    let merges = after.merges;
    merge_all(&mut rig);
    assert_eq!(rig.store.stats().merges, merges, "it comes to an end");
    // Goes on as if nothing had been, over a kill and a clean stop.
    append(&rig.store.group(KEPT), ROUNDS + 1..=ROUNDS + 1, 2);
    rig.settle();
    let expected = all(&rig);
    let rig = Rig::open(&rig.disk.kill(), options(1, 0)).unwrap();
    assert_eq!(all(&rig), expected);
    let rig = rig.reopen(options(1, 0));
    assert_eq!(all(&rig), expected);
    healthy(&rig);
}

#[test]
fn a_merged_segment_goes_when_nothing_lives_in_it() {
    let mut rig = sparse();
    merge_all(&mut rig);
    for group in [KEPT, CUT] {
        let group = rig.store.group(group);
        let last = group.log_state().last.unwrap();
        group.purge(last).unwrap();
    }
    rig.settle();
    merge_all(&mut rig);
    assert_eq!(rig.store.stats().segments, 1);
    let rig = rig.reopen(options(1, 0));
    assert!(all(&rig).iter().all(|(_, entries)| entries.is_empty()));
    healthy(&rig);
}

#[test]
fn a_reader_does_not_notice() {
    let mut rig = sparse();
    let expected = all(&rig);
    let kept = rig.store.group(KEPT);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let reading = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Relaxed) {
                assert_eq!(read_all(&kept), expected[0].1);
                reads += 1;
            }
            reads
        });
        merge_all(&mut rig);
        stop.store(true, Relaxed);
        reader.join().unwrap()
    });
    assert!(reading > 0 && rig.store.stats().merges > 0);
    healthy(&rig);
}

#[test]
fn power_that_fails_at_any_moment_of_a_merge_loses_nothing() {
    let mut random = Random(1);
    let mut merged = 0;
    for after in 0.. {
        let mut rig = sparse();
        let expected = all(&rig);
        rig.look();
        rig.disk.fail(after, Fault::PowerOff);
        rig.look();
        rig.settle();
        if !rig.disk.failed() {
            assert!(after > 20 && merged > 0, "it failed {after} times, after {merged} merges");
            return;
        }
        merged += rig.store.stats().merges;
        for disk in [rig.disk.kill(), rig.disk.crash(&mut random), rig.disk.crash(&mut random)] {
            let mut rig = Rig::open(&disk, options(1, 0)).unwrap();
            assert_eq!(all(&rig), expected, "after {after} operations");
            healthy(&rig);
            merge_all(&mut rig);
            assert_eq!(all(&rig), expected, "after {after} operations and the merge that follows");
            healthy(&rig);
        }
    }
}

#[test]
fn damage_is_not_copied() {
    let mut rig = sparse();
    rig.look();
    let segment = rig.store.group(KEPT).cell.state().spans[2].segment.clone();
    let name = segment.file.name.clone();
    segment.file.close().unwrap();
    let needle = b"kept in round 3.";
    rig.disk.damage(&name, |bytes| {
        let at = bytes.windows(needle.len()).position(|window| window == needle).expect("the entry is in this segment");
        bytes[at] ^= 1;
    });
    merge_all(&mut rig);
    assert!(rig.store.0.shared.segments.has(&segment), "it is let be");
    let read = rig.store.group(KEPT).read(1..ROUNDS + 1, 1 << 20);
    assert!(matches!(read, Err(Error::Fenced { group: KEPT, .. })), "{read:?}");
    assert_eq!(read_all(&rig.store.group(CUT)).len(), 3);
}
