//! The bytes on disk: a golden of today's, and every older format opened with today's code.
//!
//! `EVERMESH_REGENERATE=1 cargo test --lib store::tests::format` writes the newest fixture anew; look at it before committing.

use super::*;
use crate::store::crash::{Fault, Random};
use crate::store::tables::{self, META};
use crate::store::{FORMAT_VERSION, Fences, Files};
use redb::{Builder, ReadableDatabase, ReadableTable, TableDefinition};
use std::fmt::Write;
use std::path::PathBuf;

/// A store with a row in every table that lasts: two segments, a cut, votes, checkpoints.
fn sample() -> Disk {
    let mut rig = Rig::new(Options { journal_bytes: 32 << 10, ..options(1, 0) });
    let (one, two) = (rig.store.group(1), rig.store.group(2));
    let mut answers = vec![rig.store.save_identity(Bytes::from_static(b"node 1")).unwrap()];
    answers.push(one.save_vote(Bytes::from_static(b"vote for 1")).unwrap());
    append(&one, 0..=3, 1);
    append(&two, 1..=2, 1);
    rig.settle();
    rig.writer.empty_journal().unwrap();
    one.truncate_after(Some(2)).unwrap();
    append(&one, 3..=4, 2);
    one.save_committed(id(4, 2));
    rig.settle();
    append(&one, 5..=5, 2);
    two.purge(id(1, 1)).unwrap();
    two.save_checkpoint(1, Bytes::from_static(b"state at 1"), Box::new(|_| ())).unwrap();
    rig.settle();
    answers.into_iter().for_each(|answer| answer.wait().unwrap());
    rig.close()
}

fn check_sample(disk: &Disk) {
    let rig = Rig::open(disk, options(1, 0)).unwrap();
    let (one, two) = (rig.store.group(1), rig.store.group(2));
    assert_eq!((&**rig.store.fences().borrow(), rig.store.stats().files_aside), (&Fences::default(), 0));
    assert_eq!(rig.store.identity().as_deref(), Some(&b"node 1"[..]));
    assert_eq!(rig.store.groups(), [1, 2]);
    assert_eq!(one.vote().as_deref(), Some(&b"vote for 1"[..]));
    assert_eq!(read_all(&one), [entries(0..=2, 1), entries(3..=5, 2)].concat());
    assert_eq!((one.committed(), one.log_state().purged), (Some(id(4, 2)), None));
    assert_eq!((read_all(&two), two.log_state().purged), (entries(2..=2, 1), Some(id(1, 1))));
    assert_eq!(two.checkpoint(1).unwrap().as_deref(), Some(&b"state at 1"[..]));
}

fn fixture(format: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("migrations/fixtures/v{format:04}.txt"))
}

#[test]
fn what_is_written_is_the_golden() {
    let dump = dump(&sample());
    let path = fixture(FORMAT_VERSION);
    if std::env::var_os("EVERMESH_REGENERATE").is_some() {
        std::fs::write(&path, &dump).unwrap();
    }
    assert_eq!(dump, std::fs::read_to_string(&path).unwrap(), "see migrations/README.md");
}

#[test]
fn every_format_opens() {
    for format in 1..=FORMAT_VERSION {
        check_sample(&load(&std::fs::read_to_string(fixture(format)).unwrap()));
    }
}

/// Metadata is brought up first, so a segment that names a newer format than it is damaged.
#[test]
fn a_newer_format_is_refused() {
    let disk = sample();
    let db = Builder::new().create_with_backend(Backend(disk.open(META).unwrap())).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(tables::FORMAT).unwrap().insert(tables::FORMAT_KEY, 7).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Rig::open(&disk, options(1, 0)).err().unwrap();
    let message = format!("this data was written by a newer Evermesh (format 7); this build knows up to {FORMAT_VERSION}");
    assert_eq!(error.to_string(), message);
}

/// A crash at any moment of bringing an older directory up is no damage, and leaves nothing behind.
#[test]
fn an_interrupted_migration_is_repeated() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut disk = load(&std::fs::read_to_string(fixture(1)).unwrap()).kill();
        for _ in 0..random.below(4) {
            disk.fail(random.below(60), Fault::PowerOff);
            drop(Rig::open(&disk, options(1, 0)));
            disk = disk.crash(&mut random);
        }
        check_sample(&disk);
    }
}

/// One line a row: file, table, key, value. A plain file is one line: `plain`, its length, and what in it is not
/// zero, as `offset:bytes`.
fn dump(disk: &Disk) -> String {
    let mut out = String::new();
    for file in disk.list().unwrap() {
        if !file.ends_with(".redb") {
            let plain = disk.open(&file).unwrap();
            let mut bytes = vec![0; plain.len().unwrap() as usize];
            plain.read(0, &mut bytes).unwrap();
            let blocks = bytes.chunks(64).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            let blocks: Vec<_> = blocks.map(|(at, block)| format!("{}:{}", at * 64, hex(block))).collect();
            writeln!(out, "{file} plain {} {}", bytes.len(), blocks.join(",")).unwrap();
            continue;
        }
        let db = Builder::new().create_with_backend(Backend(disk.open(&file).unwrap())).unwrap();
        let txn = db.begin_read().unwrap();
        let number = |value: u64| value.to_string();
        dump_table(&mut out, &file, &txn, tables::FORMAT, |key, value| (key.to_owned(), number(value)));
        dump_table(&mut out, &file, &txn, tables::COMMITS, |key, value| (key.to_owned(), hex(value)));
        if file == META {
            dump_table(&mut out, &file, &txn, tables::NODE, |key, value| (key.to_owned(), hex(value)));
            for table in [tables::VOTES, tables::PURGED, tables::COMMITTED] {
                dump_table(&mut out, &file, &txn, table, |key, value| (number(key), hex(value)));
            }
            dump_table(&mut out, &file, &txn, tables::CHECKPOINTS, |key, value| (format!("{}/{}", key.0, key.1), hex(value)));
            dump_table(&mut out, &file, &txn, tables::SEGMENTS, |key, value| (key.to_string(), number(value)));
            dump_table(&mut out, &file, &txn, tables::MANIFESTS, |key, value| (key.to_string(), hex(value)));
            dump_table(&mut out, &file, &txn, tables::REMOVED, |key, value| (key.to_string(), number(value)));
            dump_table(&mut out, &file, &txn, tables::FENCES, |key, value| (number(key), hex(value)));
            dump_table(&mut out, &file, &txn, tables::DROPPED, |key, value| (number(key), number(value)));
        } else {
            dump_table(&mut out, &file, &txn, tables::LOG, |key, value| (format!("{}/{}", key.0, key.1), hex(value)));
            dump_table(&mut out, &file, &txn, tables::CUTS, |key, value| (number(key), number(value)));
        }
    }
    out
}

fn dump_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    out: &mut String,
    file: &str,
    txn: &redb::ReadTransaction,
    table: TableDefinition<K, V>,
    row: impl Fn(K::SelfType<'_>, V::SelfType<'_>) -> (String, String),
) {
    for found in txn.open_table(table).unwrap().iter().unwrap() {
        let (key, value) = found.unwrap();
        let (key, value) = row(key.value(), value.value());
        writeln!(out, "{file} {} {key} {value}", redb::TableHandle::name(&table)).unwrap();
    }
}

/// The directory that a dump describes. Table types are those of format 1; a later format that changes one adds its own here.
fn load(dump: &str) -> Disk {
    let disk = Disk::default();
    let lines: Vec<Vec<&str>> = dump.lines().map(|line| line.split(' ').collect()).collect();
    let files: std::collections::BTreeSet<&str> = lines.iter().map(|line| line[0]).collect();
    for file in files {
        if !file.ends_with(".redb") {
            let line = lines.iter().find(|line| line[0] == file).unwrap();
            let plain = disk.create(file).unwrap();
            plain.set_len(line[2].parse().unwrap()).unwrap();
            for block in line[3].split(',').filter(|block| !block.is_empty()) {
                let (at, bytes) = block.split_once(':').unwrap();
                plain.write(at.parse().unwrap(), &unhex(bytes)).unwrap();
            }
            continue;
        }
        let format = lines.iter().find(|line| line[0] == file && line[1] == "format").unwrap()[3].parse::<u32>().unwrap();
        let db = Builder::new().create_with_backend(Backend(disk.create(file).unwrap())).unwrap();
        let txn = db.begin_write().unwrap();
        let known: &[&str] = match file == META {
            true => &["votes", "purged", "committed", "node", "checkpoints", "segments", "dropped"],
            false => &["log", "cuts"],
        };
        let since: &[&str] = match (format, file == META) {
            (1, _) => &[],
            // Format 3 has the tables of format 2.
            (_, true) => &["commits", "manifests", "removed", "fences"],
            (_, false) => &["commits"],
        };
        since.iter().for_each(|table| put(&txn, table, None));
        known.iter().for_each(|table| put(&txn, table, None));
        lines.iter().filter(|line| line[0] == file).for_each(|line| put(&txn, line[1], Some((line[2], line[3]))));
        txn.commit().unwrap();
    }
    disk
}

/// Puts a row into a table, or only makes the table.
fn put(txn: &redb::WriteTransaction, table: &str, row: Option<(&str, &str)>) {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let pair = |text: &str| text.split_once('/').map(|(group, index)| (number(group), number(index))).unwrap();
    macro_rules! insert {
        ($types:ty, $key:expr, $value:expr) => {{
            let definition: $types = TableDefinition::new(table);
            let mut table = txn.open_table(definition).unwrap();
            if let Some((key, value)) = row {
                table.insert($key(key), $value(value)).unwrap();
            }
        }};
    }
    match table {
        "format" => insert!(TableDefinition<&str, u64>, |key| key, number),
        "node" | "commits" => insert!(TableDefinition<&str, &[u8]>, |key| key, |value| unhex(value).leak() as &[u8]),
        "manifests" => insert!(TableDefinition<u32, &[u8]>, |key| number(key) as u32, |value| unhex(value).leak() as &[u8]),
        "removed" => insert!(TableDefinition<u32, u64>, |key| number(key) as u32, number),
        "votes" | "purged" | "committed" | "fences" => insert!(TableDefinition<u64, &[u8]>, number, |value| unhex(value).leak() as &[u8]),
        "checkpoints" | "log" => insert!(TableDefinition<(u64, u64), &[u8]>, pair, |value| unhex(value).leak() as &[u8]),
        "segments" => insert!(TableDefinition<u32, u64>, |key| number(key) as u32, number),
        "dropped" | "cuts" => insert!(TableDefinition<u64, u64>, number, number),
        other => panic!("unknown table {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A boxed backend is not one itself.
#[derive(Debug)]
struct Backend(Box<dyn redb::StorageBackend>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}
