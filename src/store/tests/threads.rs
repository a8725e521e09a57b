//! The store as it runs: with its threads, on a real directory.

use super::*;
use std::sync::mpsc;

#[test]
fn groups_append_side_by_side_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(64 << 10, 4096);
    let store = Store::open_dir(directory.path(), options.clone()).unwrap();
    let (answer, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for id in 0..4 {
            let (store, answer) = (store.clone(), answer.clone());
            scope.spawn(move || {
                let group = store.group(id);
                for index in 1..=200 {
                    let answer = answer.clone();
                    group.append(vec![entry(index, 1, &"x".repeat(400))], move |result| answer.send(result).unwrap()).unwrap();
                    let from = group.read(index / 2..index, 4096).unwrap();
                    assert!(index < 2 || !from.is_empty() || index / 2 == 0);
                }
                group.save_vote(Bytes::from_static(b"vote")).unwrap().wait().unwrap();
                group.purge(super::id(100, 1)).unwrap();
            });
        }
    });
    drop(answer);
    assert_eq!(answers.iter().filter(|result| *result == Ok(())).count(), 800);
    store.close().unwrap();
    assert_eq!(store.group(1).read(150..151, 1), Err(Error::Closed));
    assert_eq!(store.group(1).append(entries(201..=201, 1), |_| ()), Err(Error::Closed));
    drop(store);
    let store = Store::open_dir(directory.path(), options).unwrap();
    for id in 0..4 {
        assert_eq!(read_all(&store.group(id)).iter().map(|entry| entry.index).collect::<Vec<_>>(), (101..=200).collect::<Vec<_>>());
    }
}

#[test]
fn more_readers_than_files_may_be_open_all_get_on() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { open_segments: 1, ..options(1, 0) };
    let store = Store::open_dir(directory.path(), options).unwrap();
    let group = store.group(1);
    for index in 1..=8 {
        append(&group, index..=index, 1);
        group.flush().unwrap().wait().unwrap();
    }
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let group = group.clone();
            scope.spawn(move || {
                for round in 0..200 {
                    let index = 1 + (reader + round) % 7;
                    assert_eq!(group.read(index..index + 1, 1).unwrap(), entries(index..=index, 1));
                }
            });
        }
    });
    store.close().unwrap();
}

#[test]
fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_dir(directory.path(), Options::default()).unwrap();
    let refused = Store::open_dir(directory.path(), Options::default()).err();
    assert_eq!(refused, Some(Error::InUse(directory.path().display().to_string())));
    store.close().unwrap();
    drop(store);
    Store::open_dir(directory.path(), Options::default()).unwrap();
}

#[tokio::test]
async fn durability_can_be_awaited() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_dir(directory.path(), Options::default()).unwrap();
    let mut failed = store.failed();
    store.save_identity(Bytes::from_static(b"me")).unwrap().await.unwrap();
    store.group(1).save_vote(Bytes::from_static(b"vote")).unwrap().await.unwrap();
    assert_eq!(*failed.borrow_and_update(), None);
}
