//! Opening the segments: which are whole, what is in them, and whose logs are not known without those that are not.
//!
//! The newest one gets what the journal has for it; without that it is not whole.
//!
//! Always true: a segment that is not whole is moved aside only after the fences of its groups are durable.

use super::error::Error;
use super::file::DbFile;
use super::journal::{self, Found, Journal};
use super::manifest::Manifest;
use super::meta::{Records, SegmentTables};
use super::segments::{Segment, Segments, Span, cuts_of};
use super::tables::{self, JOURNAL, LOG, META, segment_name};
use super::{Options, meta::MetaTables};
use redb::ReadTransaction;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Where each group's rows are, oldest first.
pub(super) type Spans = BTreeMap<u64, Vec<Span>>;

pub(super) struct Log {
    pub active: Arc<Segment>,
    pub journal: Journal,
    pub spans: Spans,
}

/// What is found out about the segments, and becomes durable in one commit.
#[derive(Default)]
struct Findings {
    whole: BTreeMap<u32, (Arc<Segment>, Manifest)>,
    /// Segments that are gone or not whole, and why.
    lost: BTreeMap<u32, String>,
    /// Files that nobody knows any more.
    strays: BTreeSet<u32>,
    /// Retired segments, whose files have gone by now.
    gone: BTreeSet<u32>,
    /// Why the metadata cannot be the newest.
    all: Option<String>,
    /// The journal lacks what the newest segment needs of it.
    journal_lost: bool,
}

/// Opens every segment, the last one for writing if it has room, and finds the groups' spans. Adds to the fences in `records`.
pub(super) fn open(
    found: BTreeSet<u32>,
    records: &mut Records,
    meta: &DbFile,
    segments: &Segments,
    options: &Options,
    next_segment: u32,
) -> Result<Log, Error> {
    let files = &*segments.place.files;
    let mut journal = Found::read(files)?;
    let newest = records.segments.last().copied().unwrap_or(0).max(journal.segment());
    let next_segment = next_segment.max(newest + 1);
    let found = without_retired(found, records, segments)?;
    let findings = look(&found, records, segments, &journal)?;
    if journal.is_missing() && !findings.journal_lost {
        // Nobody needs anything of it, or this is the beginning. It is there before the next segment: from then on its absence means something.
        journal::create(files, options.journal_bytes)?;
        journal = Found::read(files)?;
    }
    let last = findings.whole.last_key_value().map(|(number, (segment, _))| (*number, segment.clone()));
    let active = match last {
        Some((number, last)) if found.last() == Some(&number) && last.file.len.load(Relaxed) <= options.segment_file_bytes() => last,
        last => {
            last.iter().try_for_each(|(_, full)| full.file.close())?;
            segments.create(next_segment)?
        }
    };
    let groups = fence(&findings, records);
    records.fenced = findings.all.clone().or(records.fenced.take());
    conclude(&findings, &groups, records, meta, &active)?;
    for number in findings.lost.keys().chain(&findings.strays) {
        segments.forget(*number);
        segments.place.move_aside(&segment_name(*number))?;
    }
    if !findings.lost.is_empty() || !findings.strays.is_empty() {
        segments.place.files.sync_dir()?;
    }
    if findings.journal_lost {
        segments.place.move_aside(JOURNAL)?;
        journal = Found::default();
    }
    let journal = journal.begin(&segments.place, options.journal_bytes, active.number, active.file.journaled())?;
    let mut spans = Spans::new();
    for (segment, manifest) in findings.whole.values() {
        add_spans(segment, manifest, &mut spans);
    }
    Ok(Log { active, journal, spans })
}

/// Removes the files of retired segments that a crash has left.
fn without_retired(found: BTreeSet<u32>, records: &Records, segments: &Segments) -> Result<BTreeSet<u32>, Error> {
    let (retired, found): (BTreeSet<u32>, BTreeSet<u32>) = found.into_iter().partition(|number| records.removed.contains(number));
    retired.iter().try_for_each(|number| segments.place.files.remove(&segment_name(*number)))?;
    if !retired.is_empty() {
        segments.place.files.sync_dir()?;
    }
    Ok(found)
}

fn look(found: &BTreeSet<u32>, records: &Records, segments: &Segments, journal: &Found) -> Result<Findings, Error> {
    let mut findings = Findings { gone: records.removed.clone(), ..Findings::default() };
    let newest_known = records.segments.last().copied().unwrap_or(0);
    for &number in found.union(&records.segments) {
        if !found.contains(&number) {
            findings.lost.insert(number, format!("{} is missing", segment_name(number)));
            continue;
        }
        if !records.segments.contains(&number) && number < newest_known {
            findings.strays.insert(number);
            continue;
        }
        let active = found.last() == Some(&number);
        match open_one(number, active, records, segments, journal) {
            Ok((segment, _)) if !records.segments.contains(&number) && segment.file.commits() > 0 => {
                findings.strays.insert(number);
                findings.all = Some(format!("{META} was rolled back: it does not know of {}", segment.file.name));
            }
            Ok(whole) => drop(findings.whole.insert(number, whole)),
            Err(Error::Broken { file, why }) if records.segments.contains(&number) => {
                findings.journal_lost |= file == JOURNAL;
                findings.lost.insert(number, format!("{file} is damaged: {why}"));
            }
            // A crash came between its making and its mention; it never had rows.
            Err(Error::Broken { .. }) => drop(findings.strays.insert(number)),
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Opens a segment and compares it with what is known of it. Reads no rows of one that has a manifest: that one was closed in good
/// order, and has what the journal had for it.
fn open_one(number: u32, active: bool, records: &Records, segments: &Segments, journal: &Found) -> Result<(Arc<Segment>, Manifest), Error> {
    let segment = segments.open(number, active)?;
    let (commits, seen) = (segment.file.commits(), segments.place.witness.seen());
    let manifest = records.manifests.get(&number);
    let promised = manifest.map(|manifest| manifest.commits).or((seen.segment == number).then_some(seen.segment_commits));
    if commits < promised.unwrap_or(0) || manifest.is_some_and(|manifest| manifest.commits != commits) {
        let why = format!("it was rolled back: it has had {commits} commits, of {} that were promised", promised.unwrap_or(0));
        return Err(Error::broken(&segment.file.name, &why));
    }
    let manifest = match manifest {
        Some(manifest) => manifest.clone(),
        None => {
            complete(&segment, active, journal, if seen.segment == number { seen.batches } else { 0 })?;
            let (rows, cuts) = segments.read(&segment, |txn| Ok((ranges(txn)?, cuts_of(txn)?)))?.ok_or(Error::Closed)?;
            Manifest { commits: segment.file.commits(), rows, cuts }
        }
    };
    segment.cuts.store(!manifest.cuts.is_empty(), Relaxed);
    segment.rows.store(manifest.row_count(), Relaxed);
    Ok((segment, manifest))
}

/// Puts into a segment what the journal has for it, durably on return. One that is not written to any more got it long since.
fn complete(segment: &Arc<Segment>, active: bool, journal: &Found, promised: u64) -> Result<(), Error> {
    let pending = journal.pending(segment.number, segment.file.journaled(), promised).map_err(|why| Error::broken(JOURNAL, &why))?;
    let Some((newest, _)) = pending.last() else { return Ok(()) };
    if !active {
        return Err(Error::broken(JOURNAL, "it has batches of a segment that is not the newest"));
    }
    segment.file.write_journaled(*newest, |txn| {
        let mut log = txn.open_table(LOG)?;
        for row in pending.iter().flat_map(|(_, rows)| rows) {
            log.insert((row.group, row.index), row.bytes)?;
        }
        Ok(())
    })
}

/// Fences whoever has anything in a lost segment; everybody that is known, where nobody knows who has. Gives the new ones.
fn fence(findings: &Findings, records: &mut Records) -> BTreeMap<u64, String> {
    let mut fences = std::mem::take(&mut records.damaged);
    for (number, why) in &findings.lost {
        let groups = match records.manifests.get(number) {
            Some(manifest) => manifest.groups(),
            None => {
                let rows = findings.whole.values().flat_map(|(_, manifest)| manifest.groups());
                records.groups().into_iter().chain(rows).collect()
            }
        };
        for group in groups {
            fences.entry(group).or_insert_with(|| why.clone());
        }
    }
    if let Some(why) = &findings.all {
        // A group that was begun anew may have been so before.
        let anew = records.fences.iter().filter(|(_, row)| **row == tables::FenceRow::Anew);
        fences.extend(anew.map(|(group, _)| (*group, why.clone())).collect::<Vec<_>>());
    }
    fences.retain(|group, _| !matches!(records.fences.get(group), Some(tables::FenceRow::Fenced(_))));
    for (group, why) in &fences {
        records.fences.insert(*group, tables::FenceRow::Fenced(why.clone()));
    }
    fences
}

/// Makes everything durable that was concluded, in one commit.
fn conclude(
    findings: &Findings,
    fences: &BTreeMap<u64, String>,
    records: &Records,
    meta: &DbFile,
    active: &Arc<Segment>,
) -> Result<(), Error> {
    let sealed = findings.whole.iter().filter(|(number, _)| **number != active.number && !records.manifests.contains_key(*number));
    let unknown = findings.whole.keys().chain([&active.number]).filter(|number| !records.segments.contains(*number));
    let (sealed, unknown): (Vec<_>, Vec<_>) = (sealed.collect(), unknown.collect());
    let unsealed = records.manifests.contains_key(&active.number);
    let news = !(findings.lost.is_empty() && fences.is_empty() && sealed.is_empty() && unknown.is_empty() && findings.gone.is_empty());
    if !news && !unsealed && findings.all.is_none() {
        return Ok(());
    }
    meta.write(|txn, digest| {
        {
            let mut tables = SegmentTables::open(txn, digest)?;
            findings.lost.keys().try_for_each(|number| tables.remove(*number))?;
            findings.gone.iter().try_for_each(|number| tables.is_gone(*number))?;
            unknown.iter().try_for_each(|number| tables.add(**number))?;
            sealed.iter().try_for_each(|(number, (_, manifest))| tables.seal(**number, manifest))?;
            tables.unseal(active.number)?;
        }
        let mut tables = MetaTables::open(txn, digest)?;
        findings.all.iter().try_for_each(|why| tables.put_fenced(why))?;
        fences.iter().try_for_each(|(group, why)| tables.put_fence(*group, &tables::FenceRow::Fenced(why.clone())))
    })
}

/// Adds a segment's spans to those of the segments before it. Where it begins anew, the older rows are dead.
fn add_spans(segment: &Arc<Segment>, manifest: &Manifest, spans: &mut Spans) {
    let starts = manifest.rows.iter().map(|(group, first, _)| (*group, *first));
    for (group, at) in manifest.cuts.iter().copied().chain(starts) {
        cut(spans.entry(group).or_default(), at);
    }
    for (group, first, last) in &manifest.rows {
        spans.entry(*group).or_default().push(Span::new(segment, *first, *last));
    }
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
