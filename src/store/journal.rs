//! The journal: one small plain file that appends go to first, so that a commit costs one write in one place and one sync.
//!
//! A redb commit writes its pages wherever they lie and syncs them all; here a batch of rows is written behind the one before, into
//! blocks that the file has had from the beginning, so that the sync finds no length or map of the file to write as well. What is in
//! the journal is durable and in the tails; some batches later all of it goes into the active segment in one redb commit, which says
//! up to which batch, and the journal begins at its start again. A batch that is large is written to the segment at once: it gains
//! nothing here.
//!
//! # What is found after a crash
//!
//! A batch names its segment and has a number, counted within the segment from 1, and checksums. From the start of the file on, batches
//! with ascending numbers are what was written since the journal began there; those that the segment lacks are put into it, and the
//! rest of the file is of earlier rounds. Only the last batch can be torn, as the next is written after its sync, and nobody was told
//! of it. So a batch that is not whole although one behind it is there, or although the witness saw its number, is damage.
//!
//! Always true:
//! - a batch begins at a block, so that no write touches a block with something acknowledged in it that the segment lacks;
//! - it holds rows of one segment, the active one, and no row at or below a purge point that is durable;
//! - whatever takes rows away is committed by the segment, and not before everything in the journal is there.

use super::file::{Place, UNFINISHED};
use super::stats::Counted;
use super::tables::{JOURNAL, ROW_HEADER_BYTES, put_row};
use super::witness::Whose;
use super::{Entry, Error, Files};
use redb::StorageBackend;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What one write of a batch is rounded up to: a page of the kernel's, and no less than a disk's sector.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// A batch may fill this part of the file, as a divisor.
const BATCH_SHARE: u64 = 8;
/// No journal is longer; a length beyond it is damage.
const BYTES_MAX: u64 = 64 << 20;

const MAGIC: [u8; 4] = *b"evj1";
const HEADER_BYTES: usize = 32;
const ROW_KEY_BYTES: usize = 20;

/// One row as a batch holds it: the group, its index, the bytes of its row in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub group: u64,
    pub index: u64,
    pub bytes: &'a [u8],
}

/// The journal of a store that runs. Belongs to the writer.
pub(super) struct Journal {
    file: Counted,
    len: u64,
    segment: u32,
    /// The number of the newest batch.
    number: u64,
    /// Where the next batch goes.
    end: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Whether a batch of these rows may be written here.
    pub fn takes(&self, rows: usize, payload_bytes: usize) -> bool {
        blocks(HEADER_BYTES + rows * (ROW_KEY_BYTES + ROW_HEADER_BYTES) + payload_bytes) <= self.len / BATCH_SHARE
    }

    /// Whether there might be no room for the next batch.
    pub fn is_full(&self) -> bool {
        self.end + self.len / BATCH_SHARE > self.len
    }

    /// The number of the newest batch of the active segment; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Writes a batch, durably on return: group, entry, and the index then known to be committed. Gives the bytes that it took.
    pub fn append<'a>(&mut self, place: &Place, rows: impl Iterator<Item = (u64, &'a Entry, Option<u64>)>) -> Result<u64, Error> {
        encode(&mut self.buffer, self.segment, self.number + 1, rows);
        let bytes = self.buffer.len() as u64;
        assert!(self.end + bytes <= self.len, "the writer asks before it appends");
        self.file.write(self.end, &self.buffer).and_then(|()| self.file.sync_data()).map_err(Error::io("writing the journal"))?;
        self.end += bytes;
        self.number += 1;
        place.witness.note(Whose::Journal(self.segment), self.number)?;
        Ok(bytes)
    }

    /// Everything in it is durable in the segment.
    pub fn begin_again(&mut self) {
        self.end = 0;
    }

    /// The next batches are of another segment, a later one.
    pub fn begin_segment(&mut self, segment: u32) {
        (self.segment, self.number, self.end) = (segment, 0, 0);
    }
}

/// The length of a journal that is to have so many bytes.
fn bounded(len: u64) -> u64 {
    len.clamp(BLOCK_BYTES, BYTES_MAX).next_multiple_of(BLOCK_BYTES)
}

fn blocks(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(BLOCK_BYTES)
}

fn encode<'a>(out: &mut Vec<u8>, segment: u32, number: u64, rows: impl Iterator<Item = (u64, &'a Entry, Option<u64>)>) {
    out.clear();
    out.resize(HEADER_BYTES, 0);
    let mut count = 0u32;
    for (group, entry, committed) in rows {
        let len = ROW_HEADER_BYTES + entry.payload.len();
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&entry.index.to_le_bytes());
        out.extend_from_slice(&(len as u32).to_le_bytes());
        let at = out.len();
        out.resize(at + len, 0);
        put_row(&mut out[at..], group, entry, committed);
        count += 1;
    }
    let body = (out.len() - HEADER_BYTES) as u32;
    let body_crc = crc32fast::hash(&out[HEADER_BYTES..]);
    out.resize(blocks(out.len()) as usize, 0);
    out[..4].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&segment.to_le_bytes());
    out[12..16].copy_from_slice(&count.to_le_bytes());
    out[16..24].copy_from_slice(&number.to_le_bytes());
    out[24..28].copy_from_slice(&body.to_le_bytes());
    out[28..32].copy_from_slice(&body_crc.to_le_bytes());
    let crc = crc32fast::hash(&out[8..HEADER_BYTES]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
}

struct Header {
    segment: u32,
    rows: u32,
    number: u64,
    body: usize,
    body_crc: u32,
}

fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let whole = bytes[..4] == MAGIC && word(4) == crc32fast::hash(&bytes[8..]);
    let number = u64::from(word(16)) | u64::from(word(20)) << 32;
    whole.then(|| Header { segment: word(8), rows: word(12), number, body: word(24) as usize, body_crc: word(28) })
}

/// The rows of a batch, if all of it is there.
fn rows<'a>(header: &Header, bytes: &'a [u8]) -> Option<Vec<Row<'a>>> {
    let mut body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(header.body)?)?;
    if crc32fast::hash(body) != header.body_crc {
        return None;
    }
    let mut rows = Vec::new();
    while let Some((key, rest)) = body.split_first_chunk::<ROW_KEY_BYTES>() {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| key[at + byte]));
        let len = u32::from_le_bytes([key[16], key[17], key[18], key[19]]) as usize;
        let (row, rest) = rest.split_at_checked(len)?;
        rows.push(Row { group: long(0), index: long(8), bytes: row });
        body = rest;
    }
    (body.is_empty() && rows.len() == header.rows as usize).then_some(rows)
}

/// What a start finds.
#[derive(Default)]
pub(super) struct Found {
    bytes: Vec<u8>,
    /// Why there is nothing to be found.
    missing: Option<String>,
}

/// Batches that a segment lacks, ascending.
pub(super) type Pending<'a> = Vec<(u64, Vec<Row<'a>>)>;

impl Found {
    /// Reads the journal, whatever is left of it.
    pub fn read(files: &dyn Files) -> Result<Found, Error> {
        let file = match files.open(JOURNAL) {
            Ok(file) => file,
            Err(Error::Broken { why, .. }) => return Ok(Found { missing: Some(why), ..Found::default() }),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; file.len().map_err(Error::io("measuring the journal"))?.min(BYTES_MAX) as usize];
        let read = file.read(0, &mut bytes);
        file.close().map_err(Error::io("closing the journal"))?;
        match read {
            Ok(()) => Ok(Found { bytes, missing: None }),
            Err(why) if super::error::is_unreadable(&why) => Ok(Found { missing: Some(why.to_string()), ..Found::default() }),
            Err(why) => Err(Error::io("reading the journal")(why)),
        }
    }

    pub fn is_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// The newest segment that a batch names; 0 without any.
    pub fn segment(&self) -> u32 {
        self.headers().map(|header| header.segment).max().unwrap_or(0)
    }

    /// Every header that can be read, whatever round it is of.
    fn headers(&self) -> impl Iterator<Item = Header> {
        self.bytes.chunks(BLOCK_BYTES as usize).filter_map(header)
    }

    /// The batches that a segment lacks, which has everything up to number `stored`; or what is wrong. `promised`: the witness saw this
    /// number.
    pub fn pending(&self, segment: u32, stored: u64, promised: u64) -> Result<Pending<'_>, String> {
        if let Some(why) = &self.missing {
            return Err(format!("{JOURNAL} cannot be read: {why}"));
        }
        let (mut at, mut pending, mut expected) = (0, Pending::new(), None);
        while let Some(found) = self.bytes.get(at..).and_then(header)
            && found.segment == segment
            && expected.is_none_or(|expected| expected == found.number)
            && let Some(rows) = rows(&found, &self.bytes[at..])
        {
            at += blocks(HEADER_BYTES + found.body) as usize;
            expected = Some(found.number + 1);
            if found.number > stored {
                pending.push((found.number, rows));
            }
        }
        let first = pending.first().map_or(stored + 1, |(number, _)| *number);
        let last = pending.last().map_or(stored, |(number, _)| *number);
        let newest = self.headers().filter(|header| header.segment == segment).map(|header| header.number).max().unwrap_or(0);
        // The one after the last may be torn, and then nobody was told of it.
        let lacking =
            if first != stored + 1 { Some(stored + 1) } else { (newest.saturating_sub(1).max(promised) > last).then_some(last + 1) };
        match lacking {
            None => Ok(pending),
            Some(lacking) => Err(format!("{JOURNAL} is damaged or was rolled back: it lacks batch {lacking} of segment {segment}")),
        }
    }

    /// Goes on in this file, or in a new one if this one is not as long as it should be; everything in it is durable in segments.
    pub fn begin(self, place: &Arc<Place>, len: u64, segment: u32, number: u64) -> Result<Journal, Error> {
        let len = bounded(len);
        if self.missing.is_some() || self.bytes.len() as u64 != len {
            create(&*place.files, len)?;
        }
        let file = Counted::new(place.files.open(JOURNAL)?, place.counters.clone(), Arc::new(AtomicU64::new(0)));
        let file = file.map_err(Error::io("measuring the journal"))?;
        Ok(Journal { file, len, segment, number, end: 0, buffer: Vec::new() })
    }
}

/// Makes an empty journal in place of what there is, durably on return. All of it is written, so that later writes need no new blocks of
/// the file system.
pub(super) fn create(files: &dyn Files, len: u64) -> Result<(), Error> {
    let len = bounded(len);
    let unfinished = format!("{JOURNAL}{UNFINISHED}");
    let file = files.create(&unfinished)?;
    let written = file.set_len(len).and_then(|()| file.write(0, &vec![0; len as usize])).and_then(|()| file.sync_data());
    written.and_then(|()| file.close()).map_err(Error::io("making the journal"))?;
    files.rename(&unfinished, JOURNAL)?;
    files.sync_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(index: u64, payload: usize) -> Entry {
        Entry { index, term: 3, leader: 2, payload: Bytes::from(vec![index as u8; payload]) }
    }

    /// A file with these batches, one behind the other: segment, number, bytes of payload.
    fn file(batches: &[(u32, u64, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(segment, number, payload) in batches {
            let entries = [entry(number, payload), entry(number + 1, 1)];
            let mut batch = Vec::new();
            encode(&mut batch, segment, number, entries.iter().map(|entry| (7, entry, None)));
            bytes.extend(batch);
        }
        bytes
    }

    /// The numbers of the batches that segment 2 lacks.
    #[track_caller]
    fn check(bytes: Vec<u8>, stored: u64, promised: u64, expected: Result<&[u64], u64>) {
        let found = Found { bytes, missing: None };
        match (found.pending(2, stored, promised), expected) {
            (Ok(pending), Ok(expected)) => {
                assert_eq!(pending.iter().map(|(number, _)| *number).collect::<Vec<_>>(), expected);
                for (number, rows) in pending {
                    assert_eq!(rows.iter().map(|row| (row.group, row.index)).collect::<Vec<_>>(), [(7, number), (7, number + 1)]);
                }
            }
            (Err(why), Err(lacking)) => assert!(why.contains(&format!("lacks batch {lacking} ")), "{why}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_encoding_is_frozen() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let bytes = file(&[(2, 5, 3)]);
        assert_eq!(bytes.len() as u64, BLOCK_BYTES);
        assert_eq!(hex(&bytes[..HEADER_BYTES]), "65766a3108a36765020000000200000005000000000000006600000065675e2e");
        // The second row: group, index, length, and what `tables` says of a row.
        let row = concat!(
            "07000000000000000600000000000000",
            "1e000000",
            "0171798301",
            "0300000000000000",
            "0200000000000000",
            "0000000000000000",
            "06"
        );
        assert_eq!(hex(&bytes[HEADER_BYTES + 52..HEADER_BYTES + 102]), row);
        assert!(bytes[HEADER_BYTES + 102..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_the_segment_lacks_comes_back() {
        let three = || file(&[(2, 4, 10), (2, 5, 9000), (2, 6, 0)]);
        check(three(), 3, 6, Ok(&[4, 5, 6]));
        check(three(), 5, 6, Ok(&[6]));
        check(three(), 6, 6, Ok(&[]));
        check(vec![0; 8192], 0, 0, Ok(&[]));
        check(Vec::new(), 9, 9, Ok(&[]));
        // Behind it lie earlier rounds, and earlier segments.
        check(file(&[(2, 7, 10), (2, 5, 10), (2, 6, 10)]), 6, 7, Ok(&[7]));
        check(file(&[(2, 1, 10), (1, 2, 10), (1, 90, 10)]), 0, 1, Ok(&[1]));
        check(file(&[(1, 1, 10), (1, 2, 10)]), 0, 0, Ok(&[]));
    }

    #[test]
    fn a_torn_end_is_no_damage_and_a_damaged_middle_is() {
        let whole = file(&[(2, 4, 5000), (2, 5, 5000), (2, 6, 5000)]);
        let (second, third) = (8192, 16384);
        for at in [0, 10, 40, 4000, 5000] {
            let hurt = |from: usize| {
                let mut bytes = whole.clone();
                bytes[from + at] ^= 1;
                bytes
            };
            check(hurt(third), 3, 5, Ok(&[4, 5]));
            check(hurt(third), 3, 6, Err(6));
            check(hurt(second), 3, 5, Err(5));
            // Only the header of the newest says that there was more.
            check(hurt(0), 3, 0, Err(4));
            check(hurt(0), 6, 6, Ok(&[]));
        }
        check(whole[..second].to_vec(), 3, 5, Err(5));
        check(whole, 1, 6, Err(2));
    }

    #[test]
    fn without_a_file_nothing_is_known() {
        let found = Found { missing: Some("gone".into()), ..Found::default() };
        assert!(found.pending(1, 0, 0).unwrap_err().contains("gone"));
        assert_eq!(found.segment(), 0);
    }
}
