//! Opening a data directory: uses what is whole, fences the groups that are not, repairs what a crash left, and finds where every
//! group's entries lie.
//!
//! Nothing is deleted here but files that never were finished; what metadata does not know is kept.

use super::cell::{Cell, State};
use super::error::shielded;
use super::fence::Fences;
use super::file::Place;
use super::journal::Journal;
use super::meta::{MetaTables, Records};
use super::recover_log::Spans;
use super::segments::{Segment, Segments, Span};
use super::shared::Shared;
use super::stats::Counters;
use super::tables::{self, FenceRow, LOG};
use super::witness::Witness;
use super::{Error, Fence, Files, LogId, Options, recover_log, recover_meta};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(super) struct Recovered {
    pub shared: Shared,
    pub active: Arc<Segment>,
    pub journal: Journal,
    /// Groups whose deletion a crash interrupted.
    pub dropped: Vec<Arc<Cell>>,
}

pub(super) fn open(files: Arc<dyn Files>, options: Options) -> Result<Recovered, Error> {
    shielded("the data directory", || open_all(files, options))
}

fn open_all(files: Arc<dyn Files>, options: Options) -> Result<Recovered, Error> {
    let place = Arc::new(Place { files, counters: Arc::<Counters>::default(), witness: Witness::default() });
    let names = recover_meta::names(&place)?;
    let mut metadata = recover_meta::open(&names, &place)?;
    let segments = Segments::new(place.clone(), options.clone());
    let records = &mut metadata.records;
    let log = recover_log::open(metadata.found, records, &metadata.meta, &segments, &options, metadata.next_segment)?;
    let shared = Shared::new(options, metadata.meta, segments);
    *shared.identity() = metadata.records.identity.take();
    let dropped = build_cells(&shared, metadata.records, log.spans)?;
    place.witness.sync()?;
    Ok(Recovered { shared, active: log.active, journal: log.journal, dropped })
}

/// The fences that the metadata knows. A group that is being deleted has none any more.
fn fences(records: &Records) -> Fences {
    let mut fences = Fences { all: records.fenced.clone(), ..Fences::default() };
    for (group, row) in &records.fences {
        match row {
            _ if records.dropped.contains(group) => {}
            FenceRow::Fenced(why) => drop(fences.groups.insert(*group, Fence { why: why.clone() })),
            FenceRow::Anew => drop(fences.anew.insert(*group)),
        }
    }
    if fences.all.is_some() {
        fences.anew.extend(&records.dropped);
    }
    fences
}

/// Makes the groups' memory, and fences those whose logs turn out not to be whole; returns those that were being deleted.
fn build_cells(shared: &Shared, mut records: Records, mut spans: Spans) -> Result<Vec<Arc<Cell>>, Error> {
    let mut fences = fences(&records);
    let mut groups: BTreeSet<u64> = spans.keys().copied().collect();
    groups.extend(records.groups());
    let (mut dropped, mut found, mut lost) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for group in groups {
        let mut state = State::with_spans(spans.remove(&group).unwrap_or_default());
        let deleting = records.dropped.contains(&group);
        if !deleting && fences.of(group).is_none() {
            match fill(shared, group, &mut records, &mut state) {
                Ok(()) => {}
                Err(Error::Broken { file, why }) => drop(lost.insert(file, why)),
                Err(error @ Error::Damaged { .. }) => drop(found.insert(group, error.to_string())),
                Err(error @ Error::Fenced { .. }) => drop(found.insert(group, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        let cell = Cell::new(group, state);
        if deleting {
            dropped.push(cell.clone());
        }
        shared.cells().insert(group, cell);
    }
    fence_more(shared, &records, &lost, &mut fences, found)?;
    for (group, cell) in shared.cells().iter() {
        cell.state().fence = fences.of(*group).map(Into::into);
    }
    shared.fences.send_replace(Arc::new(fences));
    Ok(dropped)
}

/// Fences what showed itself damaged only when it was read: groups, and segments with everybody in them. Durable on return.
fn fence_more(
    shared: &Shared,
    records: &Records,
    lost: &BTreeMap<String, String>,
    fences: &mut Fences,
    mut found: BTreeMap<u64, String>,
) -> Result<(), Error> {
    for (file, why) in lost {
        let Some(segment) = shared.segments.sealed(file) else { return Err(Error::broken(file, why)) };
        segment.damaged.store(true, Relaxed);
        for (group, cell) in shared.cells().iter().filter(|(group, _)| !records.dropped.contains(group)) {
            if cell.state().spans.iter().any(|span| Arc::ptr_eq(&span.segment, &segment)) {
                found.entry(*group).or_insert_with(|| format!("{file} is damaged: {why}"));
            }
        }
    }
    found.retain(|group, _| !fences.groups.contains_key(group));
    if !found.is_empty() {
        shared.meta.write(|txn, digest| {
            let mut tables = MetaTables::open(txn, digest)?;
            found.iter().try_for_each(|(group, why)| tables.put_fence(*group, &FenceRow::Fenced(why.clone())))
        })?;
    }
    fences.groups.extend(found.into_iter().map(|(group, why)| (group, Fence { why })));
    for (group, fence) in &fences.groups {
        tracing::error!("group {group} is fenced on this node, nothing of it is used until it is rebuilt: {}", fence.why);
    }
    Ok(())
}

fn fill(shared: &Shared, group: u64, records: &mut Records, state: &mut State) -> Result<(), Error> {
    let purged = records.purged.get(&group).copied();
    let checkpoints = records.checkpoints.remove(&group).unwrap_or_default();
    state.vote = records.votes.remove(&group);
    state.checkpoints = checkpoints.into_iter().map(|index| (index, None)).collect();
    (state.purged, state.last, state.committed) = (purged, purged, purged);
    if let Some(purged) = purged {
        state.purge_spans(purged.index);
    }
    check_whole(group, state)?;
    if let (Some(first), Some(last)) = (state.spans.first(), state.spans.last()) {
        state.first = first.first;
        let (id, hint) = read_id(shared, group, last, last.last)?;
        state.last = Some(id);
        state.committed = committed(shared, group, state, hint, records.committed.get(&group))?.or(purged);
    }
    state.committed_saved = records.committed.remove(&group);
    Ok(())
}

/// A log has no holes, whatever files were lost or kept.
fn check_whole(group: u64, state: &State) -> Result<(), Error> {
    let mut expected = state.purged.map(|purged| purged.index.saturating_add(1));
    for span in &state.spans {
        if let Some(expected) = expected.filter(|expected| *expected != span.first) {
            let why = format!("its log has a hole: there is entry {}, but not {expected}", span.first);
            return Err(Error::Fenced { group, why });
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
