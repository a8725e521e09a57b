//! Giving room back that dead rows hold: what still lives in adjacent sealed segments is copied into one file, which takes the place of
//! the newest of them, and the others go.
//!
//! Without it one entry of a stream that keeps everything would hold all that busier streams, purged long since, wrote beside it.
//!
//! # Why a crash at any moment is harmless
//!
//! The new file has the number, and counts the commits, of the segment whose place it takes; its rows are that segment's living ones,
//! and those of the segments before it. It is made under a name that the next start sweeps away. Renamed, it may be found with the old
//! manifest: the rows that this names live and are there, and those of the earlier segments, which are still there as well, are not
//! looked at. Then one commit of the metadata brings the new manifest and retires the earlier segments. The writer does both; the
//! keeper has made the file.
//!
//! Rows are dead for good and durably so before they leave a group's `spans`, so a row that is not copied is never asked for.

use super::file::Replacement;
use super::manifest::Manifest;
use super::meta::SegmentTables;
use super::queue::{Kind, Op};
use super::segments::{Segment, cuts_of};
use super::shared::{Piece, Shared};
use super::tables::{CUTS, LOG, get_row};
use super::worth::{Weight, worthiest};
use super::writer::Writer;
use super::{Error, Level};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes of rows that are read, and written, at a time.
const STEP_BYTES: usize = 4 << 20;
/// Of the length of a full segment, as a divisor: what may live in the segments of one merge.
const LIVE_SHARE: u64 = 4;

/// A merge that is ready to be put in place.
pub(super) struct Merge {
    /// Adjacent segments, ascending; the last one's place is taken.
    run: Vec<Arc<Segment>>,
    manifest: Manifest,
    /// Length of the new file.
    len: u64,
    done: AtomicBool,
}

/// Decides what to merge, a look at a time, and makes the new files. Belongs to the keeper.
pub(super) struct Merger {
    shared: Arc<Shared>,
    /// Living rows of each segment at the last look; and at its weighing, with what that gave.
    rows: HashMap<u32, u64>,
    weighed: HashMap<u32, (u64, Option<u64>)>,
    /// Segments with damage in them: the scrub and readers say it.
    avoided: BTreeSet<u32>,
    under_way: Option<Arc<Merge>>,
    /// Bytes that may still be read for weighing in this look, so that the keeper's other work does not wait for long.
    budget: u64,
}

impl Merger {
    pub fn new(shared: &Arc<Shared>) -> Merger {
        let (rows, weighed) = (HashMap::new(), HashMap::new());
        Merger { shared: shared.clone(), rows, weighed, avoided: BTreeSet::new(), under_way: None, budget: 0 }
    }

    /// Looks at all sealed segments, and has the worthiest of them merged, if any are worth it. To be called now and then: a segment
    /// whose rows die quickly between two looks will soon be gone as a whole, and is let be.
    pub fn look(&mut self) -> Result<(), Error> {
        if self.under_way.as_ref().is_some_and(|merge| !merge.done.load(Relaxed)) {
            return Ok(());
        }
        self.under_way = None;
        self.budget = self.shared.options.segment_file_bytes();
        let sealed = self.sealed();
        let rows = self.living_rows(&sealed);
        let weights = sealed.iter().map(|segment| self.weigh(segment, &rows)).collect::<Result<Vec<Weight>, Error>>()?;
        self.weighed.retain(|number, _| rows.contains_key(number));
        self.avoided.retain(|number| rows.contains_key(number));
        self.rows = rows;
        if self.shared.space.now.borrow().level != Level::Enough {
            // Purges make room at once; this would need some first.
            return Ok(());
        }
        match worthiest(&weights, self.live_max(), self.shared.options.merge_freed_bytes) {
            Some(range) => self.merge(sealed[range].to_vec()),
            None => Ok(()),
        }
    }

    /// Bytes that may live in the segments of one merge.
    fn live_max(&self) -> u64 {
        self.shared.options.segment_file_bytes() / LIVE_SHARE
    }

    /// Those that get no more rows and were closed.
    fn sealed(&self) -> Vec<Arc<Segment>> {
        let before = self.shared.segments.before(self.shared.segments.newest());
        before.into_iter().filter(|segment| !segment.file.is_writable()).collect()
    }

    fn living_rows(&self, sealed: &[Arc<Segment>]) -> HashMap<u32, u64> {
        let mut rows: HashMap<u32, u64> = sealed.iter().map(|segment| (segment.number, 0)).collect();
        for piece in self.shared.pieces(|segment| rows.contains_key(&segment.number)) {
            *rows.entry(piece.segment.number).or_default() += piece.last - piece.first + 1;
        }
        rows
    }

    /// What lives in a segment, if no more of it dies at present. It is read for that where it is not known, and the segment is small or
    /// has died in part: in one that is full and alive there is nothing to gain, and much to read.
    fn weigh(&mut self, segment: &Arc<Segment>, rows: &HashMap<u32, u64>) -> Result<Weight, Error> {
        let (number, now) = (segment.number, rows[&segment.number]);
        let (file_bytes, most) = (segment.file.len.load(Relaxed), self.live_max());
        let weight = |live_bytes| Ok(Weight { file_bytes, live_bytes });
        let is_less = |now: u64, before: u64| now < before - before / 10;
        let settled = self.rows.get(&number).is_some_and(|before| !is_less(now, *before));
        if !settled || self.avoided.contains(&number) || segment.damaged.load(Relaxed) {
            return weight(None);
        }
        match self.weighed.get(&number) {
            // It is there for its cuts.
            _ if now == 0 => return weight(Some(0)),
            Some((counted, live_bytes)) if !is_less(now, *counted) => return weight(*live_bytes),
            None if !is_less(now, segment.rows.load(Relaxed)) && file_bytes > most => return weight(None),
            _ if self.budget == 0 => return weight(None),
            _ => {}
        }
        let mut bytes = 0;
        let whole = self.each_row(&self.shared.pieces(|other| Arc::ptr_eq(other, segment)), |_, _, value| {
            bytes += value.len() as u64;
            bytes <= most
        })?;
        self.budget = self.budget.saturating_sub(bytes);
        if !whole {
            self.avoided.insert(number);
            return weight(None);
        }
        let live_bytes = (bytes <= most).then_some(bytes);
        self.weighed.insert(number, (now, live_bytes));
        weight(live_bytes)
    }

    /// Gives group, index and value of each row of the pieces, in order, until told to stop; in short read transactions. False: one is
    /// not whole.
    fn each_row(&self, pieces: &[Piece], mut work: impl FnMut(u64, u64, &[u8]) -> bool) -> Result<bool, Error> {
        for piece in pieces {
            let group = piece.cell.id;
            let (mut next, mut stopped) = (piece.first, false);
            while next <= piece.last && !stopped {
                let read = self.shared.segments.read(&piece.segment, |txn| {
                    let mut bytes = 0;
                    for row in txn.open_table(LOG)?.range((group, next)..=(group, piece.last))? {
                        let (key, value) = row?;
                        let index = key.value().1;
                        if index != next || get_row(group, index, value.value()).is_err() {
                            return Ok(false);
                        }
                        stopped = !work(group, index, value.value());
                        next += 1;
                        bytes += value.value().len();
                        if stopped || bytes >= STEP_BYTES {
                            return Ok(true);
                        }
                    }
                    Ok(next > piece.last)
                });
                match read {
                    Ok(Some(true)) => {}
                    Ok(Some(false) | None) | Err(Error::Broken { .. }) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if stopped {
                break;
            }
        }
        Ok(true)
    }

    /// Makes the file that takes the run's place, and asks the writer to put it there.
    fn merge(&mut self, run: Vec<Arc<Segment>>) -> Result<(), Error> {
        let Some(target) = run.last() else { return Ok(()) };
        let is_in = |segment: &Arc<Segment>| run.iter().any(|one| Arc::ptr_eq(one, segment));
        let (pieces, mut making) = (self.shared.pieces(is_in), target.file.begin_replacement()?);
        let (mut rows, mut bytes, mut written) = (Vec::new(), 0, Ok(()));
        let whole = self.each_row(&pieces, |group, index, value| {
            bytes += value.len();
            rows.push((group, index, value.to_vec()));
            if bytes >= STEP_BYTES {
                bytes = 0;
                written = write_rows(&mut making, &mut rows);
            }
            written.is_ok()
        })?;
        written?;
        let cuts = if whole { self.cuts(&run)? } else { None };
        let Some(cuts) = cuts else {
            self.avoided.extend(run.iter().map(|segment| segment.number));
            return making.discard();
        };
        write_rows(&mut making, &mut rows)?;
        making.write(|txn| {
            let mut table = txn.open_table(CUTS)?;
            cuts.iter().try_for_each(|(group, at)| table.insert(group, at).map(drop))?;
            Ok(())
        })?;
        let len = making.finish(&target.file)?;
        let manifest = Manifest { commits: target.file.commits(), rows: ranges(&pieces), cuts: cuts.into_iter().collect() };
        let merge = Arc::new(Merge { run, manifest, len, done: AtomicBool::new(false) });
        self.under_way = Some(merge.clone());
        match self.shared.queue.push([Op { cell: None, number: 0, kind: Kind::Merge(merge), done: None }]) {
            // The file is swept away at the next start.
            Err(Error::Closed) => Ok(()),
            pushed => pushed,
        }
    }

    /// What the run's segments kill in the segments before it. `None`: one is not whole.
    fn cuts(&self, run: &[Arc<Segment>]) -> Result<Option<BTreeMap<u64, u64>>, Error> {
        let mut all: BTreeMap<u64, u64> = BTreeMap::new();
        for segment in run {
            match self.shared.segments.read(segment, cuts_of) {
                Ok(Some(cuts)) => cuts.into_iter().for_each(|(group, at)| {
                    let lowest = all.entry(group).or_insert(at);
                    *lowest = at.min(*lowest);
                }),
                Ok(None) | Err(Error::Broken { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(all))
    }
}

/// The pieces as a manifest has them: of each group one row of indexes, since a log has no holes.
fn ranges(pieces: &[Piece]) -> Vec<(u64, u64, u64)> {
    let mut ranges: Vec<(u64, u64, u64)> = Vec::new();
    for piece in pieces {
        match ranges.last_mut() {
            Some((group, _, last)) if *group == piece.cell.id && *last + 1 == piece.first => *last = piece.last,
            _ => ranges.push((piece.cell.id, piece.first, piece.last)),
        }
    }
    ranges
}

/// Group, index, and the value of a row.
type Row = (u64, u64, Vec<u8>);

fn write_rows(making: &mut Replacement, rows: &mut Vec<Row>) -> Result<(), Error> {
    let rows = std::mem::take(rows);
    making.write(|txn| {
        let mut log = txn.open_table(LOG)?;
        rows.iter().try_for_each(|(group, index, value)| log.insert((*group, *index), &value[..]).map(drop))?;
        Ok(())
    })
}

impl Writer {
    /// Puts a merge's file in place, and retires the segments whose rows are in it.
    pub(super) fn finish_merge(&mut self, merge: &Merge) -> Result<(), Error> {
        let segments = &self.shared.segments;
        let Some((target, sources)) = merge.run.split_last() else { return Ok(()) };
        if segments.has(target) {
            target.file.put_in_place(merge.len)?;
            // Those that died meanwhile were retired.
            let sources: Vec<_> = sources.iter().filter(|source| segments.has(source)).cloned().collect();
            target.cuts.store(!merge.manifest.cuts.is_empty(), Relaxed);
            target.rows.store(merge.manifest.row_count(), Relaxed);
            self.shared.meta.write(|txn, digest| {
                let mut tables = SegmentTables::open(txn, digest)?;
                tables.seal(target.number, &merge.manifest)?;
                sources.iter().try_for_each(|source| tables.retire(source.number))
            })?;
            let cells: Vec<_> = self.shared.cells().values().cloned().collect();
            cells.iter().for_each(|cell| cell.state().move_spans(&sources, target));
            sources.into_iter().try_for_each(|source| self.retired(source))?;
            segments.place.counters.merges.fetch_add(1, Relaxed);
        } else {
            target.file.discard_replacement(merge.len)?;
        }
        merge.done.store(true, Relaxed);
        Ok(())
    }
}
