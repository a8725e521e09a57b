//! Opening the metadata, or beginning it anew where it is not whole: then every group is fenced.
//!
//! Always true: an interrupted start that found the metadata damaged, missing or rolled back comes to that conclusion again, because
//! what proves it is still there until the new metadata is; and nothing that was there is deleted.

use super::file::{DbFile, Place, UNFINISHED};
use super::format::Kind;
use super::meta::{MetaTables, Records};
use super::tables::{self, DAMAGED, IDENTITY, JOURNAL, Ledger, META, WITNESS};
use super::{Error, journal, plain};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const META_CACHE_BYTES: usize = 8 << 20;

pub(super) struct Metadata {
    pub meta: DbFile,
    pub records: Records,
    /// The segments whose files are there.
    pub found: BTreeSet<u32>,
    /// No segment has this number or a higher one, nor had.
    pub next_segment: u32,
}

/// What is in the directory, after sweeping out what never was finished.
pub(super) fn names(place: &Place) -> Result<BTreeSet<String>, Error> {
    let list = place.files.list()?.into_iter();
    let (unfinished, names): (BTreeSet<_>, BTreeSet<_>) = list.partition(|name| name.ends_with(UNFINISHED));
    for name in &unfinished {
        let ours = name.trim_end_matches(UNFINISHED);
        if [META, IDENTITY, WITNESS, JOURNAL].contains(&ours) || tables::segment_number(ours).is_some() {
            place.files.remove(name)?;
        }
    }
    let aside = names.iter().filter(|name| name.contains(DAMAGED)).count();
    place.counters.files_aside.store(aside as u64, Relaxed);
    Ok(names)
}

pub(super) fn open(names: &BTreeSet<String>, place: &Arc<Place>) -> Result<Metadata, Error> {
    let has = |name: &str| names.contains(name);
    let seen = if has(WITNESS) { place.witness.open(&*place.files)? } else { None };
    let copy = if has(IDENTITY) { plain::read(&*place.files, IDENTITY)? } else { None };
    let found_segments: BTreeSet<u32> = names.iter().filter_map(|name| tables::segment_number(name)).collect();
    let next_segment = names.iter().filter_map(|name| segment_of(name)).chain([place.witness.seen().segment]).max().unwrap_or(0) + 1;
    if !has(META) && !is_evidence(names) && seen.is_none_or(|seen| seen.meta == 0) {
        // Nothing was ever promised here. The witness comes first: from then on its absence means something.
        place.witness.create(&*place.files)?;
        let meta = file(place).create(None, |_, _| Ok(()), || Ok(()))?;
        meta.begin_digest(0);
        return Ok(Metadata { meta, records: Records::default(), found: BTreeSet::new(), next_segment });
    }
    let found = match has(META) {
        true => existing(place, seen.is_some(), has(JOURNAL)),
        false => Err(Error::broken(META, "it is missing")),
    };
    match found {
        Ok((meta, mut records)) => {
            keep_identity(place, &mut records, copy)?;
            Ok(Metadata { meta, records, found: found_segments, next_segment })
        }
        Err(error @ Error::Broken { .. }) => begin_anew(names, place, &error.to_string(), copy, next_segment),
        Err(error) => Err(error),
    }
}

fn file(place: &Arc<Place>) -> DbFile {
    DbFile::new(META.into(), Kind::Meta, place, [META_CACHE_BYTES; 2])
}

/// The number of a segment, be it whole or moved aside.
fn segment_of(name: &str) -> Option<u32> {
    tables::segment_number(name.split_once(DAMAGED).map_or(name, |(name, _)| name))
}

/// Whether something shows that there was metadata.
fn is_evidence(names: &BTreeSet<String>) -> bool {
    names.iter().any(|name| name == IDENTITY || segment_of(name).is_some() || name.starts_with(META))
}

/// The format that brought the witness, and the one that brought the journal: later on both must be there.
const WITNESS_SINCE: u32 = 2;
const JOURNAL_SINCE: u32 = 3;

fn existing(place: &Arc<Place>, witnessed: bool, has_journal: bool) -> Result<(DbFile, Records), Error> {
    let meta = file(place).open_writable(&|format| {
        match witnessed {
            true => {}
            false if format < WITNESS_SINCE => place.witness.create(&*place.files)?,
            false => return Err(Error::broken(META, "the witness, which says how new it must be, is missing or damaged")),
        }
        match has_journal || format >= JOURNAL_SINCE {
            true => Ok(()),
            false => journal::create(&*place.files, journal::BLOCK_BYTES),
        }
    })?;
    let seen = place.witness.seen().meta;
    if meta.commits() < seen {
        let why = format!("it was rolled back: it has had {} commits, of {seen} that were promised", meta.commits());
        return Err(Error::broken(META, &why));
    }
    let records = Records::read(&meta)?;
    meta.begin_digest(records.digest);
    Ok((meta, records))
}

/// The copy of the identity follows the metadata's.
fn keep_identity(place: &Place, records: &mut Records, copy: Option<Bytes>) -> Result<(), Error> {
    match &records.identity {
        Some(identity) if copy.as_ref() != Some(identity) => plain::write(&*place.files, IDENTITY, identity),
        _ => Ok(()),
    }
}

/// Moves everything aside and begins with metadata that knows who the node is, and that every group is fenced.
fn begin_anew(
    names: &BTreeSet<String>,
    place: &Arc<Place>,
    why: &str,
    identity: Option<Bytes>,
    next_segment: u32,
) -> Result<Metadata, Error> {
    let Some(identity) = identity else { return Err(Error::Lost(why.into())) };
    tracing::error!("this node's votes are lost, so nothing that it has is used until its groups are rebuilt: {why}");
    // Counting goes on, so that the witness stays true.
    let ledger = Ledger { commits: place.witness.seen().meta + 1, ..Ledger::default() };
    let fill = |txn: &redb::WriteTransaction, digest: &mut u64| {
        let mut tables = MetaTables::open(txn, digest)?;
        tables.put_identity(&identity)?;
        tables.put_fenced(why)
    };
    let move_all = || {
        for name in names.iter().filter(|name| tables::segment_number(name).is_some()) {
            place.move_aside(name)?;
        }
        place.move_aside(META)?;
        place.files.sync_dir()
    };
    let meta = file(place).create(Some(ledger), fill, move_all)?;
    // Last, as a missing witness may be what proves the loss.
    place.witness.create(&*place.files)?;
    let records = Records { identity: Some(identity), fenced: Some(why.into()), ..Records::default() };
    Ok(Metadata { meta, records, found: BTreeSet::new(), next_segment })
}
