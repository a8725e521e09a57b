//! Every table, key and value on disk, on one page. Pure: bytes in, values out.
//!
//! A data directory holds `meta.redb` (small: identity, votes, purge points, checkpoints) and log segments `log-00000001.redb`,
//! `log-00000002.redb`, … of bounded size. Beside them are two small plain files, `witness` (how many commits the files have had) and
//! `identity` (a copy, for the day that `meta.redb` is damaged), the `journal` (rows that the newest segment lacks), and whatever was moved aside as `NAME.damaged`. Integers inside values are little-endian. Every value starts with a version byte and
//! carries a CRC-32 over its key and itself, so that a row can neither change nor change places unnoticed.
//!
//! | file | table | key | value |
//! |---|---|---|---|
//! | both | `format` | `"format"` | format number |
//! | both | `commits` | `"commits"` | record: commits of this file so far; digest of the metadata's keys (0 in a segment); number of the newest batch of the journal that the segment has (0 in the metadata) |
//! | meta | `node` | name | record: `identity`; `fenced`: why every group is fenced that was not begun anew since |
//! | meta | `votes` | group | record: the room above's vote |
//! | meta | `purged` | group | record: log id up to which the group's log is deleted |
//! | meta | `committed` | group | record: log id known committed (a hint; rows carry a newer one) |
//! | meta | `checkpoints` | group, index | record: the machine's state at that index |
//! | meta | `segments` | segment | 0. One row for every segment that must be there |
//! | meta | `manifests` | segment | record: what is in a segment that gets no more rows |
//! | meta | `removed` | segment | 0. Nothing lives in the segment: its file goes, if it has not gone yet |
//! | meta | `dropped` | group | 0. The group is being deleted: its rows are dead |
//! | meta | `fences` | group | record: 0 and why the group's data must not be used; or 1, it was begun anew since `fenced` |
//! | segment | `log` | group, index | row: an entry |
//! | segment | `cuts` | group | in *earlier* segments, the group's rows at and above this index are dead |
//!
//! The digest covers the keys of every table of `meta.redb` but `node`, `committed` and `commits`: no row of them can vanish, appear or
//! change its key unnoticed. A damaged value is its group's affair as long as the digest is right.
//!
//! Lifetimes: a row of `log` is dead when its index is at or below the group's purge point, or cut; dead rows go with their segment.

use super::{Entry, LogId};
use redb::TableDefinition;

pub(super) const FORMAT: TableDefinition<&str, u64> = TableDefinition::new("format");
pub(super) const FORMAT_KEY: &str = "format";

pub(super) const COMMITS: TableDefinition<&str, &[u8]> = TableDefinition::new("commits");
pub(super) const COMMITS_KEY: &str = "commits";

pub(super) const NODE: TableDefinition<&str, &[u8]> = TableDefinition::new("node");
pub(super) const IDENTITY_KEY: &str = "identity";
pub(super) const FENCED_KEY: &str = "fenced";
pub(super) const VOTES: TableDefinition<u64, &[u8]> = TableDefinition::new("votes");
pub(super) const PURGED: TableDefinition<u64, &[u8]> = TableDefinition::new("purged");
pub(super) const COMMITTED: TableDefinition<u64, &[u8]> = TableDefinition::new("committed");
pub(super) const CHECKPOINTS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("checkpoints");
pub(super) const SEGMENTS: TableDefinition<u32, u64> = TableDefinition::new("segments");
pub(super) const MANIFESTS: TableDefinition<u32, &[u8]> = TableDefinition::new("manifests");
pub(super) const REMOVED: TableDefinition<u32, u64> = TableDefinition::new("removed");
pub(super) const FENCES: TableDefinition<u64, &[u8]> = TableDefinition::new("fences");
pub(super) const DROPPED: TableDefinition<u64, u64> = TableDefinition::new("dropped");

pub(super) const LOG: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("log");
pub(super) const CUTS: TableDefinition<u64, u64> = TableDefinition::new("cuts");

/// Names the metadata file.
pub(super) const META: &str = "meta.redb";

/// Names plain files; see `witness` and `plain`.
pub(super) const WITNESS: &str = "witness";
pub(super) const IDENTITY: &str = "identity";

/// Names the journal; see `journal`.
pub(super) const JOURNAL: &str = "journal";

/// What a damaged file's name gets appended when it is moved aside; the second one of a name gets a number as well.
pub(super) const DAMAGED: &str = ".damaged";

pub(super) fn segment_name(number: u32) -> String {
    format!("log-{number:08}.redb")
}

/// The number of a segment's file, if the name is one's.
pub(super) fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("log-")?.strip_suffix(".redb")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

const VERSION: u8 = 1;

/// Bytes that a row of `log` has before its payload. The database rounds values beyond a page up to the next power of two, so
/// payloads that fill a power of two less this (and some page overhead) pack best.
pub const ROW_HEADER_BYTES: usize = 29;

/// A row of `log`: version, crc, term, leader, committed index plus one (0: none), payload.
pub(super) struct Row<'a> {
    pub term: u64,
    pub leader: u64,
    /// Highest index that the writer knew to be committed when it wrote the row.
    pub committed: Option<u64>,
    pub payload: &'a [u8],
}

/// Fills `out`, which is [`ROW_HEADER_BYTES`] longer than the payload.
pub(super) fn put_row(out: &mut [u8], group: u64, entry: &Entry, committed: Option<u64>) {
    out[0] = VERSION;
    out[5..13].copy_from_slice(&entry.term.to_le_bytes());
    out[13..21].copy_from_slice(&entry.leader.to_le_bytes());
    out[21..29].copy_from_slice(&committed.map_or(0, |index| index.saturating_add(1)).to_le_bytes());
    out[29..].copy_from_slice(&entry.payload);
    let crc = checksum((group, entry.index), out[0], &out[5..]);
    out[1..5].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn get_row(group: u64, index: u64, bytes: &[u8]) -> Result<Row<'_>, &'static str> {
    if bytes.len() < ROW_HEADER_BYTES {
        return Err("the row is too short");
    }
    check((group, index), bytes)?;
    Ok(Row {
        term: u64_at(bytes, 5),
        leader: u64_at(bytes, 13),
        committed: u64_at(bytes, 21).checked_sub(1),
        payload: &bytes[ROW_HEADER_BYTES..],
    })
}

const RECORD_HEADER_BYTES: usize = 5;

/// A value of a table of `meta.redb`: version, crc, bytes. `key` is the row's (0 for a part that it does not have).
pub(super) fn put_record(key: (u64, u64), bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEADER_BYTES + bytes.len());
    out.push(VERSION);
    out.extend_from_slice(&checksum(key, VERSION, bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

pub(super) fn get_record(key: (u64, u64), bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err("the record is too short");
    }
    check(key, bytes)?;
    Ok(&bytes[RECORD_HEADER_BYTES..])
}

pub(super) fn put_log_id(group: u64, id: LogId) -> Vec<u8> {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&id.index.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.term.to_le_bytes());
    bytes[16..].copy_from_slice(&id.leader.to_le_bytes());
    put_record((group, 0), &bytes)
}

pub(super) fn get_log_id(group: u64, bytes: &[u8]) -> Result<LogId, &'static str> {
    let bytes = get_record((group, 0), bytes)?;
    match bytes.len() {
        24 => Ok(LogId { index: u64_at(bytes, 0), term: u64_at(bytes, 8), leader: u64_at(bytes, 16) }),
        _ => Err("a log id has the wrong length"),
    }
}

/// What a file says of itself: its commits so far, the digest of its keys, and the newest batch of the journal that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub commits: u64,
    pub digest: u64,
    pub journaled: u64,
}

pub(super) fn put_ledger(ledger: Ledger) -> Vec<u8> {
    put_record((0, 0), &[ledger.commits, ledger.digest, ledger.journaled].map(u64::to_le_bytes).concat())
}

pub(super) fn get_ledger(bytes: &[u8]) -> Result<Ledger, &'static str> {
    let bytes = get_record((0, 0), bytes)?;
    match bytes.len() {
        // Format 2 had no journal.
        16 => Ok(Ledger { commits: u64_at(bytes, 0), digest: u64_at(bytes, 8), journaled: 0 }),
        24 => Ok(Ledger { commits: u64_at(bytes, 0), digest: u64_at(bytes, 8), journaled: u64_at(bytes, 16) }),
        _ => Err("the count of its commits has the wrong length"),
    }
}

/// A key's share in the digest. Shares are combined by exclusive or, so whoever adds or removes a row toggles its key's share.
pub(super) fn key_digest(table: &str, key: (u64, u64)) -> u64 {
    // A hash of the key, finished as SplitMix64 does (Steele et al. 2014): it need not resist anybody, only spread.
    let name = u64::from(crc32fast::hash(table.as_bytes()));
    [name, key.0, key.1].into_iter().fold(0x9e37_79b9_7f4a_7c15, |seed: u64, word| {
        let mut z = (seed ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A row of `fences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FenceRow {
    Fenced(String),
    Anew,
}

pub(super) fn put_fence(group: u64, row: &FenceRow) -> Vec<u8> {
    match row {
        FenceRow::Fenced(why) => put_record((group, 0), &[&[0], why.as_bytes()].concat()),
        FenceRow::Anew => put_record((group, 0), &[1]),
    }
}

pub(super) fn get_fence(group: u64, bytes: &[u8]) -> Result<FenceRow, &'static str> {
    match get_record((group, 0), bytes)? {
        [0, why @ ..] => Ok(FenceRow::Fenced(String::from_utf8_lossy(why).into_owned())),
        [1] => Ok(FenceRow::Anew),
        _ => Err("a fence says something unknown"),
    }
}

fn check(key: (u64, u64), bytes: &[u8]) -> Result<(), &'static str> {
    if bytes[0] != VERSION {
        return Err("its version is unknown");
    }
    let crc = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    match crc == checksum(key, bytes[0], &bytes[5..]) {
        true => Ok(()),
        false => Err("its checksum does not match"),
    }
}

fn checksum(key: (u64, u64), version: u8, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key.0.to_le_bytes());
    hasher.update(&key.1.to_le_bytes());
    hasher.update(&[version]);
    hasher.update(rest);
    hasher.finalize()
}

/// Callers checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn row() -> (Entry, Vec<u8>) {
        let entry = Entry { index: 7, term: 3, leader: 2, payload: Bytes::from_static(b"hello") };
        let mut bytes = vec![0; ROW_HEADER_BYTES + 5];
        put_row(&mut bytes, 9, &entry, Some(6));
        (entry, bytes)
    }

    #[test]
    fn a_row_comes_back() {
        let (entry, bytes) = row();
        let row = get_row(9, 7, &bytes).unwrap();
        assert_eq!((row.term, row.leader, row.committed, row.payload), (3, 2, Some(6), &entry.payload[..]));
    }

    #[test]
    fn a_changed_or_misplaced_row_is_noticed() {
        let (_, bytes) = row();
        assert!(get_row(9, 8, &bytes).is_err());
        assert!(get_row(8, 7, &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(get_row(9, 7, &changed).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(get_row(9, 7, &bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_record_comes_back_only_under_its_key() {
        let id = LogId { index: 1, term: 2, leader: 3 };
        assert_eq!(get_log_id(4, &put_log_id(4, id)), Ok(id));
        assert!(get_log_id(5, &put_log_id(4, id)).is_err());
        assert!(get_record((0, 0), b"1234").is_err());
    }

    #[test]
    fn ledgers_and_fences_come_back() {
        let ledger = Ledger { commits: 3, digest: 4, journaled: 5 };
        assert_eq!(get_ledger(&put_ledger(ledger)), Ok(ledger));
        let older = put_record((0, 0), &[3u64, 4].map(u64::to_le_bytes).concat());
        assert_eq!(get_ledger(&older), Ok(Ledger { journaled: 0, ..ledger }));
        for row in [FenceRow::Fenced("a segment is missing".into()), FenceRow::Fenced(String::new()), FenceRow::Anew] {
            assert_eq!(get_fence(5, &put_fence(5, &row)), Ok(row.clone()));
            assert!(get_fence(6, &put_fence(5, &row)).is_err());
        }
    }

    #[test]
    fn digests_of_keys_are_frozen_and_differ() {
        assert_eq!(key_digest("votes", (1, 0)), 0x0000_0e08_6634_df92);
        let digests: std::collections::BTreeSet<u64> =
            ["votes", "purged"].iter().flat_map(|table| (0..50).map(|key| key_digest(table, (key / 7, key % 7)))).collect();
        assert_eq!(digests.len(), 100);
    }

    #[test]
    fn segment_names() {
        assert_eq!(segment_number(&segment_name(12)), Some(12));
        for other in ["log-12.redb", "log-00000012.redb.new", "meta.redb", "log-.redb", "log-+0000012.redb"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }
}
