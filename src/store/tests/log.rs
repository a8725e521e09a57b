//! What one group's log does, step by step, in memory and on disk.

use super::*;
use crate::store::Durable;
use crate::store::tables::segment_name;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[test]
fn entries_are_readable_at_once_and_answered_after_the_commit() {
    let mut rig = Rig::new(options(1 << 20, 0));
    let group = rig.store.group(7);
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    group.append(entries(1..=3, 1), move |result| assert!(result.is_ok() && count.fetch_add(1, SeqCst) == 0)).unwrap();
    assert_eq!(read_all(&group), entries(1..=3, 1));
    assert_eq!(group.log_state().last, Some(id(3, 1)));
    assert!(group.in_memory(1));
    assert_eq!(answered.load(SeqCst), 0);
    rig.settle();
    assert_eq!(answered.load(SeqCst), 1);
    assert!(!group.in_memory(1));
    assert_eq!(read_all(&group), entries(1..=3, 1));
}

#[test]
fn appends_of_all_groups_are_one_commit() {
    let mut rig = Rig::new(options(1 << 20, 0));
    rig.settle();
    let before = rig.store.stats();
    for group in 0..50 {
        append(&rig.store.group(group), 1..=2, 1);
    }
    assert_eq!(rig.store.stats().queued, 50);
    rig.step();
    let after = rig.store.stats();
    assert_eq!((after.commits - before.commits, after.rows - before.rows, after.queued), (1, 100, 0));
    assert_eq!(rig.store.groups(), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_read_is_bounded_but_never_empty() {
    let mut rig = Rig::new(options(1 << 20, 0));
    let group = rig.store.group(1);
    let big = |index| entry(index, 1, &"x".repeat(600));
    group.append((1..=5).map(big).collect(), |_| ()).unwrap();
    for durable in [false, true] {
        assert_eq!(group.read(1..6, 0).unwrap().len(), 1, "durable: {durable}");
        assert_eq!(group.read(1..6, 1500).unwrap().len(), 2, "durable: {durable}");
        assert_eq!(group.read(4..100, 10_000).unwrap().len(), 2, "durable: {durable}");
        assert!(group.read(6..100, 10_000).unwrap().is_empty() && group.read(0..3, 10_000).unwrap().is_empty());
        rig.settle();
    }
    // Half from disk, half from memory.
    group.append((6..=7).map(big).collect(), |_| ()).unwrap();
    assert_eq!(group.read(4..8, 10_000).unwrap().iter().map(|entry| entry.index).collect::<Vec<_>>(), [4, 5, 6, 7]);
}

#[test]
fn holes_are_refused() {
    let rig = Rig::new(options(1 << 20, 0));
    let group = rig.store.group(1);
    append(&group, 5..=6, 1);
    assert_eq!(group.append(entries(8..=8, 1), |_| ()), Err(Error::Gap { group: 1, expected: 7, found: 8 }));
    let mut gap = entries(7..=8, 1);
    gap[1].index = 9;
    assert_eq!(group.append(gap, |_| ()), Err(Error::Gap { group: 1, expected: 8, found: 9 }));
    assert_eq!(read_all(&group), entries(5..=6, 1));
}

#[test]
fn truncation_holds_across_segments_and_restarts() {
    let options = options(1, 0);
    let mut rig = Rig::new(options.clone());
    let group = rig.store.group(1);
    for start in [1, 4, 7] {
        append(&group, start..=start + 2, 1);
        rig.settle();
    }
    assert_eq!(rig.store.stats().segments, 3);
    group.truncate_after(Some(5)).unwrap();
    assert_eq!(read_all(&group), entries(1..=5, 1));
    assert_eq!(group.log_state().last, Some(id(5, 1)));
    let mut rig = rig.reopen(options.clone());
    let group = rig.store.group(1);
    assert_eq!(read_all(&group), entries(1..=5, 1));
    append(&group, 6..=6, 2);
    let expected = [entries(1..=5, 1), entries(6..=6, 2)].concat();
    assert_eq!(read_all(&group), expected);
    rig.settle();
    assert_eq!(read_all(&group), expected);
    let rig = rig.reopen(options);
    assert_eq!(read_all(&rig.store.group(1)), expected);
    rig.store.group(1).truncate_after(None).unwrap();
    assert_eq!(rig.store.group(1).log_state().last, None);
}

#[test]
fn purging_removes_segments_and_survives() {
    let options = options(1, 0);
    let mut rig = Rig::new(options.clone());
    let group = rig.store.group(1);
    for start in [1, 4, 7] {
        append(&group, start..=start + 2, 1);
        rig.settle();
    }
    group.purge(id(7, 1)).unwrap();
    assert_eq!(read_all(&group), entries(8..=9, 1));
    rig.settle();
    assert_eq!(rig.store.stats().segments, 1);
    assert!(!crate::store::Files::list(&rig.disk).unwrap().contains(&segment_name(1)));
    let mut rig = rig.reopen(options.clone());
    let group = rig.store.group(1);
    assert_eq!((read_all(&group), group.log_state().purged), (entries(8..=9, 1), Some(id(7, 1))));
    // Beyond the end: a snapshot was installed.
    group.purge(id(20, 3)).unwrap();
    assert_eq!(group.log_state().last, Some(id(20, 3)));
    append(&group, 21..=22, 3);
    rig.settle();
    let rig = rig.reopen(options);
    assert_eq!(read_all(&rig.store.group(1)), entries(21..=22, 3));
}

#[test]
fn a_segment_with_cuts_outlives_the_rows_they_cut() {
    let options = options(1, 0);
    let mut rig = Rig::new(options.clone());
    let (short, long) = (rig.store.group(1), rig.store.group(2));
    append(&short, 1..=60, 1);
    append(&long, 1..=1, 1);
    rig.settle();
    short.truncate_after(Some(40)).unwrap();
    append(&short, 41..=50, 2);
    rig.settle();
    append(&short, 51..=55, 2);
    rig.settle();
    // Everything of the second segment is purged, but its cut still keeps 56..=60 of the first dead.
    short.purge(id(55, 2)).unwrap();
    rig.settle();
    assert_eq!(rig.store.stats().segments, 3);
    let mut rig = rig.reopen(options);
    assert_eq!(rig.store.group(1).log_state().last, Some(id(55, 2)));
    // Once the first goes, so does the second.
    rig.store.group(2).purge(id(1, 1)).unwrap();
    rig.settle();
    assert!(rig.store.stats().segments <= 2);
}

#[test]
fn votes_checkpoints_identity_and_hints_survive() {
    let options = options(1 << 20, 0);
    let mut rig = Rig::new(options.clone());
    let group = rig.store.group(3);
    let mut answers: Vec<Durable> = vec![rig.store.save_identity(Bytes::from_static(b"node 1")).unwrap()];
    answers.push(group.save_vote(Bytes::from_static(b"vote")).unwrap());
    append(&group, 1..=4, 1);
    group.save_committed(id(3, 1));
    for index in [2, 3, 4] {
        group.save_checkpoint(index, Bytes::from(format!("at {index}")), Box::new(|result| result.unwrap())).unwrap();
    }
    group.drop_checkpoints_before(3).unwrap();
    answers.push(group.flush().unwrap());
    for durable in [false, true] {
        assert_eq!(group.checkpoints(), [3, 4], "durable: {durable}");
        assert_eq!(group.checkpoint(4).unwrap().as_deref(), Some(&b"at 4"[..]));
        assert_eq!(group.checkpoint(2).unwrap(), None);
        rig.settle();
    }
    answers.into_iter().for_each(|answer| answer.wait().unwrap());
    let rig = rig.reopen(options);
    let group = rig.store.group(3);
    assert_eq!(rig.store.identity().as_deref(), Some(&b"node 1"[..]));
    assert_eq!(group.vote().as_deref(), Some(&b"vote"[..]));
    assert_eq!((group.checkpoints(), group.checkpoint(3).unwrap()), (vec![3, 4], Some(Bytes::from_static(b"at 3"))));
    assert_eq!(group.committed(), Some(id(3, 1)));
    assert_eq!(group.log_id(2).unwrap(), Some(id(2, 1)));
}

#[test]
fn a_row_carries_the_committed_hint() {
    let options = options(1 << 20, 0);
    let mut rig = Rig::new(options.clone());
    let group = rig.store.group(3);
    append(&group, 1..=4, 1);
    group.save_committed(id(2, 1));
    append(&group, 5..=5, 1);
    group.save_committed(id(5, 1));
    rig.settle();
    let rig = Rig::open(&rig.disk.kill(), options).unwrap();
    assert_eq!(rig.store.group(3).committed(), Some(id(2, 1)));
}

#[test]
fn a_hint_about_entries_that_never_were_durable_is_not_believed() {
    let options = options(1 << 20, 0);
    let mut rig = Rig::new(options.clone());
    let group = rig.store.group(3);
    append(&group, 1..=6, 1);
    rig.settle();
    drop(group.save_vote(Bytes::from_static(b"vote")).unwrap());
    group.truncate_after(Some(5)).unwrap();
    append(&group, 6..=6, 2);
    group.save_committed(id(6, 2));
    let mut batch = rig.store.0.shared.queue.take();
    batch.truncate(1);
    rig.writer.step(batch);
    let rig = Rig::open(&rig.disk.kill(), options).unwrap();
    assert_eq!(read_all(&rig.store.group(3)), entries(1..=6, 1));
    assert_eq!(rig.store.group(3).committed(), None);
}

#[test]
fn a_dropped_group_is_gone_and_its_id_free() {
    let options = options(1, 0);
    let mut rig = Rig::new(options.clone());
    let group = rig.store.group(1);
    for start in [1, 4] {
        append(&group, start..=start + 2, 1);
        rig.settle();
    }
    let vote = group.save_vote(Bytes::from_static(b"vote")).unwrap();
    let dropped = rig.store.drop_group(1).unwrap();
    assert!(read_all(&group).is_empty() && group.vote().is_none() && rig.store.groups().is_empty());
    append(&group, 1..=2, 9);
    rig.settle();
    vote.wait().unwrap();
    dropped.wait().unwrap();
    assert_eq!(read_all(&group), entries(1..=2, 9));
    let rig = rig.reopen(options.clone());
    assert_eq!(read_all(&rig.store.group(1)), entries(1..=2, 9));
    let dropped = rig.store.drop_group(1).unwrap();
    let rig = rig.reopen(options);
    dropped.wait().unwrap();
    assert!(rig.store.groups().is_empty());
}

#[test]
fn purged_rows_of_a_dropped_group_stay_dead() {
    let options = options(1, 0);
    let mut rig = Rig::new(options.clone());
    append(&rig.store.group(2), 1..=1, 1);
    append(&rig.store.group(1), 1..=3, 1);
    rig.settle();
    append(&rig.store.group(1), 4..=6, 1);
    rig.store.group(1).purge(id(6, 1)).unwrap();
    rig.settle();
    let dropped = rig.store.drop_group(1).unwrap();
    let rig = rig.reopen(options);
    dropped.wait().unwrap();
    assert_eq!(rig.store.groups(), [2]);
}

#[test]
fn tails_are_bounded() {
    let mut rig = Rig::new(Options { tail_bytes: 2000, tails_bytes: 10_000, ..options(1 << 20, 0) });
    for round in 0..20 {
        for group in 0..10 {
            rig.store.group(group).append(vec![entry(round, 1, &"x".repeat(200))], |_| ()).unwrap();
        }
        rig.settle();
    }
    let bytes: usize = (0..10).map(|group| rig.store.group(group).cell.state().tail_bytes()).sum();
    assert_eq!(rig.store.stats().tail_bytes, bytes as u64);
    assert!(bytes <= 10_000, "{bytes}");
    assert!(rig.store.group(9).in_memory(19) && !rig.store.group(9).in_memory(0));
    (0..10).for_each(|group| assert_eq!(read_all(&rig.store.group(group)).len(), 20));
}

#[test]
fn small_appends_are_one_write_and_reach_the_segment_many_at_a_time() {
    let mut rig = Rig::new(Options { journal_bytes: 64 << 10, ..options(1 << 20, 0) });
    let (one, two) = (rig.store.group(1), rig.store.group(2));
    let before = rig.store.stats();
    append(&one, 1..=3, 1);
    append(&two, 1..=2, 1);
    rig.settle();
    let after = rig.store.stats();
    assert_eq!((after.commits - before.commits, after.rows - before.rows, after.syncs - before.syncs), (1, 5, 1));
    assert_eq!(after.bytes_written - before.bytes_written, 4096, "a block of the journal");
    assert!(one.in_memory(1) && one.read_again(0, 1).unwrap().is_none());
    let settled = one.settle().unwrap();
    rig.settle();
    settled.wait().unwrap();
    assert!(!one.in_memory(1) && !two.in_memory(1), "one commit for everybody");
    assert_eq!(one.read_again(0, usize::MAX).unwrap().unwrap().rows, 3);
    // A large append goes to the segment at once, and what waits in the journal goes with it.
    append(&one, 4..=4, 1);
    rig.settle();
    let before = rig.store.stats();
    two.append(vec![entry(3, 1, &"x".repeat(9000))], |result| result.unwrap()).unwrap();
    rig.settle();
    assert_eq!(rig.store.stats().commits - before.commits, 1);
    assert!(rig.writer.journaled.is_empty() && !one.in_memory(4));
    // So does a truncation, and a purge only where it meets what is in the journal.
    append(&one, 5..=8, 1);
    append(&two, 4..=5, 1);
    rig.settle();
    one.purge(id(4, 1)).unwrap();
    rig.settle();
    assert_eq!(rig.writer.journaled.len(), 2);
    one.purge(id(6, 1)).unwrap();
    rig.settle();
    assert!(rig.writer.journaled.is_empty());
    append(&two, 6..=7, 1);
    rig.settle();
    two.truncate_after(Some(6)).unwrap();
    rig.settle();
    assert!(rig.writer.journaled.is_empty());
    // Without any of it the rows go when there are many.
    for index in 9..=300 {
        append(&one, index..=index, 1);
        rig.settle();
    }
    assert!(!one.in_memory(9) && one.in_memory(300));
    let rig = Rig::open(&rig.disk.kill(), rig.writer.shared.options.clone()).unwrap();
    let (one, two) = (rig.store.group(1), rig.store.group(2));
    assert_eq!(read_all(&one), entries(7..=300, 1));
    assert_eq!((two.log_state().last, read_all(&two).len()), (Some(id(6, 1)), 6));
}
