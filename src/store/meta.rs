//! The metadata's tables: what is written into them, and all of them read and verified at start.
//!
//! Always true: whoever adds or removes a row here keeps the digest of the keys right.

use super::cell::Cell;
use super::file::DbFile;
use super::manifest::Manifest;
use super::queue::{Kind, Op};
use super::tables::{self, CHECKPOINTS, COMMITTED, DROPPED, FENCED_KEY, FENCES, IDENTITY_KEY, MANIFESTS, META, NODE, PURGED, SEGMENTS};
use super::tables::{FenceRow, REMOVED, VOTES, key_digest};
use super::{Error, LogId};
use bytes::Bytes;
use redb::{Key, ReadTransaction, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};

/// Adds a row to a table whose keys the digest covers.
fn put<K: Key + 'static, V: redb::Value + 'static>(
    table: &mut Table<'_, K, V>,
    digest: &mut u64,
    share: (u64, u64),
    key: K::SelfType<'_>,
    value: V::SelfType<'_>,
) -> Result<(), redb::Error> {
    if table.insert(key, value)?.is_none() {
        *digest ^= key_digest(table.name(), share);
    }
    Ok(())
}

/// Removes a row from such a table.
fn take<K: Key + 'static, V: redb::Value + 'static>(
    table: &mut Table<'_, K, V>,
    digest: &mut u64,
    share: (u64, u64),
    key: K::SelfType<'_>,
) -> Result<(), redb::Error> {
    if table.remove(key)?.is_some() {
        *digest ^= key_digest(table.name(), share);
    }
    Ok(())
}

/// What operations of groups and of the node change.
pub(super) struct MetaTables<'a> {
    digest: &'a mut u64,
    node: Table<'a, &'static str, &'static [u8]>,
    votes: Table<'a, u64, &'static [u8]>,
    purged: Table<'a, u64, &'static [u8]>,
    committed: Table<'a, u64, &'static [u8]>,
    checkpoints: Table<'a, (u64, u64), &'static [u8]>,
    fences: Table<'a, u64, &'static [u8]>,
    dropped: Table<'a, u64, u64>,
}

impl<'a> MetaTables<'a> {
    pub fn open(txn: &'a WriteTransaction, digest: &'a mut u64) -> Result<MetaTables<'a>, redb::Error> {
        Ok(MetaTables {
            digest,
            node: txn.open_table(NODE)?,
            votes: txn.open_table(VOTES)?,
            purged: txn.open_table(PURGED)?,
            committed: txn.open_table(COMMITTED)?,
            checkpoints: txn.open_table(CHECKPOINTS)?,
            fences: txn.open_table(FENCES)?,
            dropped: txn.open_table(DROPPED)?,
        })
    }

    /// `all`: every group is fenced that was not begun anew.
    pub fn put(&mut self, op: &Op, all: bool) -> Result<(), redb::Error> {
        let group = op.cell.as_ref().map_or(0, |cell| cell.id);
        let share = (group, 0);
        match &op.kind {
            Kind::Identity(bytes) => self.put_identity(bytes),
            Kind::Vote(bytes) => put(&mut self.votes, self.digest, share, group, &tables::put_record(share, bytes)),
            Kind::Purge(id) => put(&mut self.purged, self.digest, share, group, &tables::put_log_id(group, *id)),
            Kind::Checkpoint(index, bytes) => {
                let key = (group, *index);
                put(&mut self.checkpoints, self.digest, key, key, &tables::put_record(key, bytes))
            }
            Kind::DropCheckpoints(before) => self.drop_checkpoints(group, *before),
            Kind::Fence(why) => self.put_fence(group, &FenceRow::Fenced(why.clone())),
            Kind::DropMeta => self.put_dropped(group),
            Kind::DropMark => self.drop_mark(group, all),
            Kind::Append(..) | Kind::Truncate(_) | Kind::DropRows | Kind::Merge(_) | Kind::Flush | Kind::Settle => Ok(()),
        }
    }

    pub fn put_identity(&mut self, bytes: &[u8]) -> Result<(), redb::Error> {
        self.node.insert(IDENTITY_KEY, &tables::put_record((0, 0), bytes)[..])?;
        Ok(())
    }

    pub fn put_fenced(&mut self, why: &str) -> Result<(), redb::Error> {
        self.node.insert(FENCED_KEY, &tables::put_record((1, 0), why.as_bytes())[..])?;
        Ok(())
    }

    pub fn put_fence(&mut self, group: u64, row: &FenceRow) -> Result<(), redb::Error> {
        put(&mut self.fences, self.digest, (group, 0), group, &tables::put_fence(group, row))
    }

    /// Deletes the checkpoints below an index; above it, with it, if it is the highest there is.
    fn drop_checkpoints(&mut self, group: u64, before: u64) -> Result<(), redb::Error> {
        let digest = &mut *self.digest;
        let end = if before == u64::MAX { (group, before) } else { (group, before.saturating_sub(1)) };
        if before == 0 {
            return Ok(());
        }
        self.checkpoints.retain_in((group, 0)..=end, |key, _| {
            *digest ^= key_digest(CHECKPOINTS.name(), key);
            false
        })?;
        Ok(())
    }

    fn put_dropped(&mut self, group: u64) -> Result<(), redb::Error> {
        let share = (group, 0);
        put(&mut self.dropped, self.digest, share, group, 0)?;
        take(&mut self.votes, self.digest, share, group)?;
        take(&mut self.purged, self.digest, share, group)?;
        self.committed.remove(group)?;
        self.drop_checkpoints(group, u64::MAX)
    }

    /// The group is gone: whatever fenced it is, too.
    fn drop_mark(&mut self, group: u64, all: bool) -> Result<(), redb::Error> {
        take(&mut self.dropped, self.digest, (group, 0), group)?;
        match all {
            true => self.put_fence(group, &FenceRow::Anew),
            false => take(&mut self.fences, self.digest, (group, 0), group),
        }
    }

    pub fn put_committed(&mut self, group: u64, id: LogId) -> Result<(), redb::Error> {
        self.committed.insert(group, &tables::put_log_id(group, id)[..])?;
        Ok(())
    }
}

/// Which segments there are, and what is in the sealed ones.
pub(super) struct SegmentTables<'a> {
    digest: &'a mut u64,
    segments: Table<'a, u32, u64>,
    manifests: Table<'a, u32, &'static [u8]>,
    removed: Table<'a, u32, u64>,
}

impl<'a> SegmentTables<'a> {
    pub fn open(txn: &'a WriteTransaction, digest: &'a mut u64) -> Result<SegmentTables<'a>, redb::Error> {
        let (segments, manifests, removed) = (txn.open_table(SEGMENTS)?, txn.open_table(MANIFESTS)?, txn.open_table(REMOVED)?);
        Ok(SegmentTables { digest, segments, manifests, removed })
    }

    pub fn add(&mut self, segment: u32) -> Result<(), redb::Error> {
        put(&mut self.segments, self.digest, (segment.into(), 0), segment, 0)
    }

    /// Nothing lives in the segment: from now on its file may be missing, and is removed where it is found.
    pub fn retire(&mut self, segment: u32) -> Result<(), redb::Error> {
        self.remove(segment)?;
        put(&mut self.removed, self.digest, (segment.into(), 0), segment, 0)
    }

    /// The retired segment's file is gone.
    pub fn is_gone(&mut self, segment: u32) -> Result<(), redb::Error> {
        take(&mut self.removed, self.digest, (segment.into(), 0), segment)
    }

    pub fn remove(&mut self, segment: u32) -> Result<(), redb::Error> {
        take(&mut self.segments, self.digest, (segment.into(), 0), segment)?;
        self.unseal(segment)
    }

    pub fn seal(&mut self, segment: u32, manifest: &Manifest) -> Result<(), redb::Error> {
        put(&mut self.manifests, self.digest, (segment.into(), 0), segment, &manifest.encode(segment))
    }

    /// The segment gets rows again.
    pub fn unseal(&mut self, segment: u32) -> Result<(), redb::Error> {
        take(&mut self.manifests, self.digest, (segment.into(), 0), segment)
    }
}

/// Everything in the metadata, decoded.
#[derive(Default)]
pub(super) struct Records {
    pub identity: Option<Bytes>,
    /// Why every group is fenced that was not begun anew since.
    pub fenced: Option<String>,
    pub fences: BTreeMap<u64, FenceRow>,
    pub votes: BTreeMap<u64, Bytes>,
    pub purged: BTreeMap<u64, LogId>,
    pub committed: BTreeMap<u64, LogId>,
    pub checkpoints: BTreeMap<u64, BTreeSet<u64>>,
    pub segments: BTreeSet<u32>,
    pub manifests: BTreeMap<u32, Manifest>,
    /// Segments whose files are to go, if they have not gone yet.
    pub removed: BTreeSet<u32>,
    pub dropped: BTreeSet<u64>,
    /// Groups with a record that does not carry what was written, and which.
    pub damaged: BTreeMap<u64, String>,
    /// Of the keys that were found.
    pub digest: u64,
}

impl Records {
    /// Reads all of the metadata; fails where it is not whole.
    pub fn read(meta: &DbFile) -> Result<Records, Error> {
        let mut records = Records::default();
        meta.read(|txn| records.decode(txn))?.ok_or(Error::Closed)?;
        match meta.digest() {
            Some(digest) if digest != records.digest => Err(Error::broken(META, "rows of it have vanished")),
            _ => Ok(records),
        }
    }

    /// Every group of which anything is known.
    pub fn groups(&self) -> BTreeSet<u64> {
        let mut groups: BTreeSet<u64> = self.votes.keys().chain(self.purged.keys()).copied().collect();
        groups.extend(self.committed.keys().chain(self.checkpoints.keys()).chain(self.damaged.keys()));
        groups.extend(self.fences.keys().chain(&self.dropped));
        groups.extend(self.manifests.values().flat_map(Manifest::groups));
        groups
    }

    fn decode(&mut self, txn: &ReadTransaction) -> Result<(), redb::Error> {
        self.decode_node(txn)?;
        self.each(txn, VOTES, |records, group, bytes| {
            let vote = Bytes::copy_from_slice(tables::get_record((group, 0), bytes)?);
            records.votes.insert(group, vote);
            Ok(())
        })?;
        self.each(txn, PURGED, |records, group, bytes| {
            records.purged.insert(group, tables::get_log_id(group, bytes)?);
            Ok(())
        })?;
        self.each(txn, FENCES, |records, group, bytes| {
            records.fences.insert(group, tables::get_fence(group, bytes)?);
            Ok(())
        })?;
        for row in txn.open_table(COMMITTED)?.iter()? {
            let (group, bytes) = row?;
            // A hint; without it the rows' own are believed.
            if let Ok(id) = tables::get_log_id(group.value(), bytes.value()) {
                self.committed.insert(group.value(), id);
            }
        }
        self.decode_checkpoints(txn)?;
        self.decode_segments(txn)?;
        for row in txn.open_table(DROPPED)?.iter()? {
            let group = row?.0.value();
            self.digest ^= key_digest(DROPPED.name(), (group, 0));
            self.dropped.insert(group);
        }
        Ok(())
    }

    fn decode_node(&mut self, txn: &ReadTransaction) -> Result<(), redb::Error> {
        let node = txn.open_table(NODE)?;
        let record = |name: &str, key| {
            let bytes = node.get(name)?;
            let record = bytes.map(|bytes| tables::get_record(key, bytes.value()).map(Bytes::copy_from_slice)).transpose();
            record.map_err(|why| redb::Error::Corrupted(why.into()))
        };
        self.identity = record(IDENTITY_KEY, (0, 0))?;
        self.fenced = record(FENCED_KEY, (1, 0))?.map(|why| String::from_utf8_lossy(&why).into_owned());
        Ok(())
    }

    /// Reads a table of one record a group; a damaged one is noted for its group.
    fn each(
        &mut self,
        txn: &ReadTransaction,
        table: TableDefinition<u64, &'static [u8]>,
        mut work: impl FnMut(&mut Records, u64, &[u8]) -> Result<(), &'static str>,
    ) -> Result<(), redb::Error> {
        for row in txn.open_table(table)?.iter()? {
            let (group, bytes) = row?;
            let group = group.value();
            self.digest ^= key_digest(table.name(), (group, 0));
            if let Err(why) = work(self, group, bytes.value()) {
                self.is_damaged(group, table.name(), why);
            }
        }
        Ok(())
    }

    fn decode_checkpoints(&mut self, txn: &ReadTransaction) -> Result<(), redb::Error> {
        for row in txn.open_table(CHECKPOINTS)?.iter()? {
            let (key, bytes) = row?;
            let key = key.value();
            self.digest ^= key_digest(CHECKPOINTS.name(), key);
            self.checkpoints.entry(key.0).or_default().insert(key.1);
            if let Err(why) = tables::get_record(key, bytes.value()) {
                self.is_damaged(key.0, CHECKPOINTS.name(), why);
            }
        }
        Ok(())
    }

    fn decode_segments(&mut self, txn: &ReadTransaction) -> Result<(), redb::Error> {
        for row in txn.open_table(SEGMENTS)?.iter()? {
            let segment = row?.0.value();
            self.digest ^= key_digest(SEGMENTS.name(), (segment.into(), 0));
            self.segments.insert(segment);
        }
        for row in txn.open_table(REMOVED)?.iter()? {
            let segment = row?.0.value();
            self.digest ^= key_digest(REMOVED.name(), (segment.into(), 0));
            self.removed.insert(segment);
        }
        for row in txn.open_table(MANIFESTS)?.iter()? {
            let (segment, bytes) = row?;
            let segment = segment.value();
            self.digest ^= key_digest(MANIFESTS.name(), (segment.into(), 0));
            let manifest = Manifest::decode(segment, bytes.value());
            self.manifests.insert(segment, manifest.map_err(|why| redb::Error::Corrupted(why.into()))?);
        }
        Ok(())
    }

    fn is_damaged(&mut self, group: u64, table: &str, why: &str) {
        self.damaged.entry(group).or_insert_with(|| format!("its record in {META}, table {table}, is damaged: {why}"));
    }
}

/// What is known committed of these groups and not yet said in the metadata.
pub(super) fn committed_hints<'a>(cells: impl Iterator<Item = &'a std::sync::Arc<Cell>>) -> Vec<(std::sync::Arc<Cell>, LogId)> {
    let cells: BTreeMap<u64, &std::sync::Arc<Cell>> = cells.map(|cell| (cell.id, cell)).collect();
    let hint = |cell: &&std::sync::Arc<Cell>| {
        let state = cell.state();
        state.committed.filter(|id| state.committed_saved != Some(*id))
    };
    cells.into_values().filter_map(|cell| Some((cell.clone(), hint(&cell)?))).collect()
}
