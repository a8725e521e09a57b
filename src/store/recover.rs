//! Opening a data directory: checks that it is whole, repairs what a crash left, and finds where every group's entries lie.
//!
//! Nothing is deleted here but files that never were finished; what metadata does not know is kept.

use super::cell::{Cell, State};
use super::error::shielded;
use super::file::{DbFile, UNFINISHED};
use super::format::Kind;
use super::segments::{Segment, Segments, Span};
use super::shared::Shared;
use super::stats::Counters;
use super::tables::{self, CHECKPOINTS, COMMITTED, CUTS, DROPPED, IDENTITY_KEY, LOG, META, NODE, PURGED, SEGMENTS, VOTES};
use super::{Error, Files, LogId, Options};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const META_CACHE_BYTES: usize = 8 << 20;

pub(super) struct Recovered {
    pub shared: Shared,
    pub active: Arc<Segment>,
    /// Groups whose deletion a crash interrupted.
    pub dropped: Vec<Arc<Cell>>,
}

pub(super) fn open(files: Arc<dyn Files>, options: Options) -> Result<Recovered, Error> {
    shielded("the data directory", || open_all(files, options))
}

fn open_all(files: Arc<dyn Files>, options: Options) -> Result<Recovered, Error> {
    let names = names(&*files)?;
    let counters = Arc::<Counters>::default();
    let meta = open_meta(&names, &files, &counters)?;
    let records = read_meta(&meta)?;
    let segments = Segments::new(files, counters, options.clone());
    let (active, spans) = open_segments(&names, &records, &meta, &segments, &options)?;
    let shared = Shared::new(options, meta, segments);
    *shared.identity() = records.identity.clone();
    let dropped = build_cells(&shared, records, spans)?;
    Ok(Recovered { shared, active, dropped })
}

/// What is in the directory, after sweeping out what never was finished.
fn names(files: &dyn Files) -> Result<BTreeSet<String>, Error> {
    let (unfinished, names): (BTreeSet<_>, BTreeSet<_>) = files.list()?.into_iter().partition(|name| name.ends_with(UNFINISHED));
    for name in &unfinished {
        let ours = name.trim_end_matches(UNFINISHED);
        if ours == META || tables::segment_number(ours).is_some() {
            files.remove(name)?;
        }
    }
    Ok(names)
}

fn open_meta(names: &BTreeSet<String>, files: &Arc<dyn Files>, counters: &Arc<Counters>) -> Result<DbFile, Error> {
    let open = if names.contains(META) {
        DbFile::open_writable
    } else if names.iter().any(|name| tables::segment_number(name).is_some()) {
        // Its votes are gone: taking part again could vote twice in one term.
        return Err(Error::Missing(META.into()));
    } else {
        DbFile::create
    };
    open(META.into(), Kind::Meta, files, counters, META_CACHE_BYTES, META_CACHE_BYTES)
}

/// Everything in the metadata, decoded.
#[derive(Default)]
struct Records {
    identity: Option<Bytes>,
    votes: BTreeMap<u64, Bytes>,
    purged: BTreeMap<u64, LogId>,
    committed: BTreeMap<u64, LogId>,
    checkpoints: BTreeMap<u64, BTreeSet<u64>>,
    segments: BTreeSet<u32>,
    dropped: BTreeSet<u64>,
}

fn read_meta(meta: &DbFile) -> Result<Records, Error> {
    let records = meta.read(|txn| Ok(decode_meta(txn)))?;
    records.ok_or(Error::Closed)?.map_err(|fault| match fault {
        Fault::Db(error) => Error::db(META)(error),
        Fault::Record(why) => Error::broken(META, why),
    })
}

/// Why a table could not be read: the database's reason or ours.
enum Fault {
    Db(redb::Error),
    Record(&'static str),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Db(error.into())
    }
}

fn decode_meta(txn: &ReadTransaction) -> Result<Records, Fault> {
    let mut records = Records::default();
    if let Some(bytes) = txn.open_table(NODE)?.get(IDENTITY_KEY)? {
        records.identity = Some(record((0, 0), bytes.value())?);
    }
    for row in txn.open_table(VOTES)?.iter()? {
        let (group, bytes) = row?;
        records.votes.insert(group.value(), record((group.value(), 0), bytes.value())?);
    }
    for (table, ids) in [(PURGED, &mut records.purged), (COMMITTED, &mut records.committed)] {
        for row in txn.open_table(table)?.iter()? {
            let (group, bytes) = row?;
            ids.insert(group.value(), tables::get_log_id(group.value(), bytes.value()).map_err(Fault::Record)?);
        }
    }
    for row in txn.open_table(CHECKPOINTS)?.iter()? {
        let (group, index) = row?.0.value();
        records.checkpoints.entry(group).or_default().insert(index);
    }
    for row in txn.open_table(SEGMENTS)?.iter()? {
        records.segments.insert(row?.0.value());
    }
    for row in txn.open_table(DROPPED)?.iter()? {
        records.dropped.insert(row?.0.value());
    }
    Ok(records)
}

fn record(key: (u64, u64), bytes: &[u8]) -> Result<Bytes, Fault> {
    tables::get_record(key, bytes).map(Bytes::copy_from_slice).map_err(Fault::Record)
}

type Spans = BTreeMap<u64, Vec<Span>>;

/// Opens every segment, the last one for writing if it has room, and finds the groups' spans.
fn open_segments(
    names: &BTreeSet<String>,
    records: &Records,
    meta: &DbFile,
    segments: &Segments,
    options: &Options,
) -> Result<(Arc<Segment>, Spans), Error> {
    let found: BTreeSet<u32> = names.iter().filter_map(|name| tables::segment_number(name)).collect();
    if let Some(missing) = records.segments.difference(&found).next() {
        return Err(Error::Missing(tables::segment_name(*missing)));
    }
    let mut spans = Spans::new();
    let last = found.last().copied();
    for &number in &found {
        let segment = segments.open(number, Some(number) == last)?;
        add_spans(segments, &segment, &mut spans)?;
    }
    let active = match segments.last() {
        Some(last) if last.file.len.load(Relaxed) <= options.segment_file_bytes() => last,
        last => {
            last.iter().try_for_each(|full| full.file.close())?;
            segments.create(last.map_or(1, |full| full.number + 1))?
        }
    };
    let unknown: Vec<u32> = found.into_iter().chain([active.number]).filter(|number| !records.segments.contains(number)).collect();
    if !unknown.is_empty() {
        meta.write(|txn| {
            let mut table = txn.open_table(SEGMENTS)?;
            unknown.iter().try_for_each(|number| table.insert(number, 0).map(drop))?;
            Ok(())
        })?;
    }
    Ok((active, spans))
}

/// Adds a segment's spans to those of the segments before it. Where it begins anew, the older rows are dead.
fn add_spans(segments: &Segments, segment: &Arc<Segment>, spans: &mut Spans) -> Result<(), Error> {
    let ranges = segments.read(segment, |txn| {
        let mut cuts = Vec::new();
        for row in txn.open_table(CUTS)?.iter()? {
            let (group, at) = row?;
            cuts.push((group.value(), at.value()));
        }
        Ok((cuts, ranges(txn)?))
    })?;
    let (cuts, ranges) = ranges.ok_or(Error::Closed)?;
    segment.cuts.store(!cuts.is_empty(), Relaxed);
    let starts = ranges.iter().map(|(group, first, _)| (*group, *first));
    for (group, at) in cuts.iter().copied().chain(starts) {
        cut(spans.entry(group).or_default(), at);
    }
    for (group, first, last) in ranges {
        spans.entry(group).or_default().push(Span::new(segment, first, last));
    }
    Ok(())
}

fn cut(spans: &mut Vec<Span>, at: u64) {
    while spans.pop_if(|span| span.first >= at).is_some() {}
    if let Some(span) = spans.last_mut() {
        span.last = span.last.min(at.saturating_sub(1));
    }
}

/// The first and last index of every group that has rows, without reading the rows between.
fn ranges(txn: &ReadTransaction) -> Result<Vec<(u64, u64, u64)>, redb::Error> {
    let log = txn.open_table(LOG)?;
    let mut ranges = Vec::new();
    let mut from = Some(0);
    while let Some(group) = from {
        let Some(first) = log.range((group, 0)..)?.next() else { break };
        let (group, first) = first?.0.value();
        let last = log.range((group, first)..=(group, u64::MAX))?.next_back();
        let last = last.transpose()?.map_or(first, |(key, _)| key.value().1);
        ranges.push((group, first, last));
        from = group.checked_add(1);
    }
    Ok(ranges)
}

/// Makes the groups' memory; returns those that were being deleted.
fn build_cells(shared: &Shared, mut records: Records, mut spans: Spans) -> Result<Vec<Arc<Cell>>, Error> {
    let mut groups: BTreeSet<u64> = spans.keys().copied().collect();
    groups.extend(records.votes.keys());
    groups.extend(records.purged.keys());
    groups.extend(records.checkpoints.keys());
    groups.extend(&records.dropped);
    let mut dropped = Vec::new();
    for group in groups {
        let spans = spans.remove(&group).unwrap_or_default();
        let deleting = records.dropped.contains(&group);
        let state = if deleting { State::with_spans(spans) } else { state(shared, group, &mut records, spans)? };
        let cell = Cell::new(group, state);
        if deleting {
            dropped.push(cell.clone());
        }
        shared.cells().insert(group, cell);
    }
    Ok(dropped)
}

fn state(shared: &Shared, group: u64, records: &mut Records, spans: Vec<Span>) -> Result<State, Error> {
    let purged = records.purged.get(&group).copied();
    let checkpoints = records.checkpoints.remove(&group).unwrap_or_default();
    let mut state = State::with_spans(spans);
    state.vote = records.votes.remove(&group);
    state.checkpoints = checkpoints.into_iter().map(|index| (index, None)).collect();
    (state.purged, state.last, state.committed) = (purged, purged, purged);
    if let Some(purged) = purged {
        state.purge_spans(purged.index);
    }
    check_whole(group, &state)?;
    if let (Some(first), Some(last)) = (state.spans.first(), state.spans.last()) {
        state.first = first.first;
        let (id, hint) = read_id(shared, group, last, last.last)?;
        state.last = Some(id);
        state.committed = committed(shared, group, &state, hint, records.committed.get(&group))?.or(purged);
    }
    state.committed_saved = records.committed.remove(&group);
    Ok(state)
}

/// A log has no holes, whatever files were lost or kept.
fn check_whole(group: u64, state: &State) -> Result<(), Error> {
    let mut expected = state.purged.map(|purged| purged.index.saturating_add(1));
    for span in &state.spans {
        if let Some(expected) = expected.filter(|expected| *expected != span.first) {
            let why = format!("group {group} has entry {}, but not {expected}", span.first);
            return Err(Error::broken(&span.segment.file.name, &why));
        }
        expected = Some(span.last.saturating_add(1));
    }
    Ok(())
}

/// The log id of one row, and the committed index that it carries.
fn read_id(shared: &Shared, group: u64, span: &Span, index: u64) -> Result<(LogId, Option<u64>), Error> {
    let damaged = |why| Error::Damaged { group, index, segment: span.segment.number, why };
    let row = shared.segments.read(&span.segment, |txn| {
        let row = txn.open_table(LOG)?.get((group, index))?;
        Ok(row.map(|row| {
            tables::get_row(group, index, row.value())
                .map(|row| (LogId { index, term: row.term, leader: row.leader }, row.committed.filter(|committed| *committed < index)))
        }))
    })?;
    row.flatten().ok_or(damaged("the row is missing"))?.map_err(damaged)
}

/// The newest committed id that is certain: the last row's hint is of the row's own history; the metadata's may be of a history
/// whose rows never became durable, so it counts only if its very entry is in the log.
fn committed(shared: &Shared, group: u64, state: &State, row: Option<u64>, meta: Option<&LogId>) -> Result<Option<LogId>, Error> {
    let at = |index| match state.spans.iter().find(|span| (span.first..=span.last).contains(&index)) {
        Some(span) => read_id(shared, group, span, index).map(|(id, _)| Some(id)),
        None => Ok(None),
    };
    let (row, found) = (row.map_or(Ok(None), at)?, meta.map_or(Ok(None), |id| at(id.index))?);
    let meta = found.filter(|found| Some(found) == meta);
    Ok(row.into_iter().chain(meta).max_by_key(|id| id.index))
}
