//! openraft's state machine around a [`Fold`]: counts, checkpoints, snapshots and the rolling hash; what an entry means is the fold's.
//!
//! Log = store: the log entries *are* the events, and the folded state is small metadata. So a snapshot is never taken to shorten the
//! log; it is an older checkpoint, taken exactly where retention lets the log begin, and a new replica gets it plus the whole log
//! after it. See `ARCHITECTURE.md`, "Log = store".

use super::chain::{self, Point, Recent};
use super::encoding;
use super::types::{Content, EntryPayload, LogId, Membership, Response, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::core::{codec::Corrupt, limits};
use crate::store;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::watch;

/// What a group's committed commands are folded into. Applied in order, each index once; deterministic.
pub trait Fold: Send + Sync + 'static {
    fn apply(&self, index: u64, command: Bytes) -> Result<Response, Corrupt>;
    /// The whole folded state.
    fn encode(&self) -> Bytes;
    /// Replaces the whole folded state.
    fn restore(&self, state: Bytes) -> Result<(), Corrupt>;
    /// The entries up to and including `index` are gone from the log.
    fn forget_through(&self, index: u64);
    /// A count of what it holds, the same on every replica at the same index.
    fn seq(&self) -> u64 {
        0
    }
}

/// The state machine of one group; clones are the same one.
#[derive(Clone)]
pub struct Folded {
    shared: Arc<Shared>,
}

/// - `position.applied` is what `fold` contains, exactly: whoever changes or captures both holds `folding`.
/// - A checkpoint at an index holds the state after that index.
/// - Once it is retired nothing is folded or written any more: the group may be another's by then.
/// - `recent` ends with `position`'s index and hash, or is empty; it is empty while the hash is not known.
struct Shared {
    folding: Mutex<Folding>,
    fold: Arc<dyn Fold>,
    group: store::Group,
    position: Mutex<Position>,
    recent: Mutex<Recent>,
    /// Index of the newest applied entry plus one: 0 before the first.
    applied: watch::Sender<u64>,
    /// Retention has no use for the entries before this index: the next snapshot is a checkpoint of one of them.
    purge_before: AtomicU64,
    /// Index of the newest snapshot that was built or installed since the start, plus one; 0: none.
    snapshot: AtomicU64,
}

#[derive(Default)]
struct Folding {
    retired: bool,
}

#[derive(Clone, Default)]
struct Position {
    applied: Option<LogId>,
    /// The rolling hash of all entries up to here; `None`: a build without hashes made the checkpoint that this began with.
    hash: Option<u128>,
    membership: StoredMembership,
    bytes: u64,
    entries: u64,
    checkpoint_bytes: u64,
    /// The store's newest segment when the last checkpoint was made.
    checkpoint_segment: u32,
}

impl Folded {
    /// Starts from the newest checkpoint that the log covers.
    pub fn open(group: store::Group, fold: Arc<dyn Fold>) -> io::Result<Folded> {
        let position = Position { hash: Some(chain::BEGINNING), checkpoint_segment: group.newest_segment(), ..Position::default() };
        let shared = Shared {
            folding: Mutex::default(),
            fold,
            group,
            position: Mutex::new(position),
            recent: Mutex::default(),
            applied: watch::Sender::new(0),
            purge_before: AtomicU64::new(0),
            snapshot: AtomicU64::new(0),
        };
        let folded = Folded { shared: Arc::new(shared) };
        let last = folded.shared.group.log_state().last.map(|id| id.index);
        let usable = folded.shared.group.checkpoints().into_iter().rev().find(|index| Some(*index) <= last);
        if let Some(index) = usable {
            let (meta, content) = folded.checkpoint_at(index)?;
            folded.restore(meta, content)?;
        }
        Ok(folded)
    }

    /// Changes when entries were applied: the index of the newest plus one.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    pub fn applied_log_id(&self) -> Option<LogId> {
        self.position().applied
    }

    /// Retention has no use for entries up to and including `index`. Where those are all that were applied, and `hurry` or the log
    /// keeps an old segment, a checkpoint is made for it: the next regular one may be far.
    pub fn allow_purge(&self, index: u64, hurry: bool) -> io::Result<()> {
        self.shared.purge_before.fetch_max(index.saturating_add(1), Relaxed);
        let all = self.applied_log_id().is_some_and(|applied| applied.index() <= index);
        let worth_it = hurry || self.shared.group.holds_old_segment();
        if all && worth_it && self.purgeable().is_none() { self.save_checkpoint_here() } else { Ok(()) }
    }

    /// The checkpoint that the next snapshot would be, if it is later than what was purged already.
    pub fn purgeable(&self) -> Option<u64> {
        let before = self.shared.purge_before.load(Relaxed);
        let purged = self.shared.group.log_state().purged.map(|id| id.index);
        self.shared.group.checkpoints().into_iter().rfind(|index| *index < before).filter(|index| Some(*index) > purged)
    }

    /// Forgets what describes purged entries.
    pub fn forget_purged(&self) -> io::Result<()> {
        let Some(purged) = self.shared.group.log_state().purged else { return Ok(()) };
        self.shared.fold.forget_through(purged.index);
        self.shared.group.drop_checkpoints_before(purged.index).map_err(io::Error::other)
    }

    /// Writes the folded state beside the log, so that a restart need not replay what is before it.
    pub fn save_checkpoint(&self) -> io::Result<()> {
        let (meta, content) = self.capture();
        let Some(applied) = meta.last_log_id else { return Ok(()) };
        let bytes = encoding::encode_snapshot(&meta, &content);
        {
            let mut position = self.position();
            (position.bytes, position.entries, position.checkpoint_bytes) = (0, 0, bytes.len() as u64);
            position.checkpoint_segment = self.shared.group.newest_segment();
        }
        let _still = self.hold_open()?;
        self.shared.group.save_checkpoint(applied.index(), bytes, Box::new(|_| ())).map_err(io::Error::other)
    }

    /// Writes a checkpoint at what is applied now, unless there is one.
    fn save_checkpoint_here(&self) -> io::Result<()> {
        let applied = self.applied_log_id().map(|id| id.index());
        if applied == self.shared.group.checkpoints().last().copied() { Ok(()) } else { self.save_checkpoint() }
    }

    /// Writes a checkpoint where the next opening would have much to fold again without it.
    pub fn save_checkpoint_at_closing(&self) -> io::Result<()> {
        let much = {
            let position = self.position();
            position.bytes >= limits::REPLAY_BYTES || position.entries >= limits::REPLAY_ENTRIES
        };
        if much { self.save_checkpoint() } else { Ok(()) }
    }

    /// What was applied up to `index`; `None` where that is not applied yet, too long ago, or not known.
    pub fn point_at(&self, index: u64) -> Option<Point> {
        self.recent().at(index)
    }

    /// What was applied last; `None` where that is nothing or not known.
    pub fn newest_point(&self) -> Option<Point> {
        self.recent().newest()
    }

    /// The newest points, oldest first.
    pub fn points(&self) -> Vec<Point> {
        self.recent().all()
    }

    /// Whether the rolling hash is known.
    pub fn has_hash(&self) -> bool {
        self.position().hash.is_some()
    }

    /// Makes this replica differ from the others.
    #[cfg(test)]
    pub fn corrupt_hash(&self) {
        let _still = self.hold();
        let mut position = self.position();
        position.hash = position.hash.map(|hash| hash ^ 1);
    }

    /// Makes this replica one that began with a checkpoint without a hash.
    #[cfg(test)]
    pub fn forget_hash(&self) {
        let _still = self.hold();
        self.position().hash = None;
        self.recent().clear();
    }

    /// The folded state and where it stands.
    fn capture(&self) -> (SnapshotMeta, Content) {
        let _still = self.hold();
        let position = self.position().clone();
        let content = Content { hash: position.hash, state: self.shared.fold.encode() };
        (SnapshotMeta { last_log_id: position.applied, last_membership: position.membership }, content)
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Folding> {
        self.shared.folding.lock().expect("nobody panics while holding it")
    }

    /// Holds what is folded still; an error once it is retired.
    fn hold_open(&self) -> io::Result<std::sync::MutexGuard<'_, Folding>> {
        let folding = self.hold();
        match folding.retired {
            true => Err(io::Error::other("the group was closed")),
            false => Ok(folding),
        }
    }

    /// Returns when nothing is being folded; nothing will be later.
    pub fn retire(&self) {
        self.hold().retired = true;
    }

    fn position(&self) -> std::sync::MutexGuard<'_, Position> {
        self.shared.position.lock().expect("nobody panics while holding it")
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.shared.recent.lock().expect("nobody panics while holding it")
    }

    fn checkpoint_at(&self, index: u64) -> io::Result<(SnapshotMeta, Content)> {
        let bytes = self.shared.group.checkpoint(index).map_err(io::Error::other)?;
        let bytes = bytes.ok_or_else(|| io::Error::other(format!("the checkpoint at {index} is gone")))?;
        encoding::decode_snapshot(bytes).map_err(io::Error::other)
    }

    fn restore(&self, meta: SnapshotMeta, content: Content) -> io::Result<()> {
        let _still = self.hold_open()?;
        self.shared.fold.restore(content.state).map_err(io::Error::other)?;
        let applied = meta.last_log_id;
        let (membership, checkpoint_segment) = (meta.last_membership, self.shared.group.newest_segment());
        *self.position() = Position { applied, hash: content.hash, membership, checkpoint_segment, ..Position::default() };
        self.recent().clear();
        if let (Some(id), Some(hash)) = (applied, content.hash) {
            self.recent().push(Point { index: id.index(), hash, seq: self.shared.fold.seq() });
        }
        self.shared.applied.send_replace(applied.map_or(0, |id| id.index() + 1));
        Ok(())
    }

    /// Applies one entry; answers what its proposer is told.
    fn fold(&self, log_id: LogId, payload: EntryPayload) -> io::Result<Response> {
        let _still = self.hold_open()?;
        let hash = self.position().hash.map(|before| chain::next(before, &log_id, &payload));
        let (response, bytes) = match payload {
            EntryPayload::Blank => (Response::None, 0),
            EntryPayload::Normal(command) => {
                let bytes = command.0.len() as u64;
                (self.shared.fold.apply(log_id.index(), command.0).map_err(io::Error::other)?, bytes)
            }
            EntryPayload::Membership(membership) => {
                self.change_members(log_id, membership);
                (Response::None, 0)
            }
        };
        let mut position = self.position();
        position.applied = Some(log_id);
        position.hash = hash;
        if let Some(hash) = hash {
            self.recent().push(Point { index: log_id.index(), hash, seq: self.shared.fold.seq() });
        }
        position.bytes += bytes;
        position.entries += 1;
        Ok(response)
    }

    fn change_members(&self, log_id: LogId, membership: Membership) {
        self.position().membership = StoredMembership::new(Some(log_id), membership);
    }

    fn checkpoint_is_due(&self) -> bool {
        let position = self.position();
        // A large state is written more rarely, so that checkpoints stay a small share of what is written.
        let least = 16 * position.checkpoint_bytes;
        // The log is purged from checkpoint to checkpoint: without one in each segment that the group writes to, a group with little
        // traffic would keep all that the others wrote meanwhile.
        let passed = self.shared.group.newest_segment().saturating_sub(position.checkpoint_segment);
        position.bytes >= self.checkpoint_every().max(least)
            || position.entries >= limits::CHECKPOINT_ENTRIES
            || (passed > 0 && u64::from(passed).saturating_mul(self.shared.group.segment_bytes()) >= least)
    }

    /// Bytes between two checkpoints: fewer where segments are small, since the log is purged from checkpoint to checkpoint.
    fn checkpoint_every(&self) -> u64 {
        limits::CHECKPOINT_BYTES.min(self.shared.group.segment_bytes() / 2)
    }

    /// The snapshot in force: the newest that was built or installed; after a restart, where the log was purged to.
    fn current(&self) -> Option<u64> {
        if let Some(index) = self.shared.snapshot.load(Relaxed).checked_sub(1) {
            return Some(index);
        }
        let purged = self.shared.group.log_state().purged?.index;
        self.shared.group.checkpoints().into_iter().find(|index| *index >= purged)
    }
}

impl RaftStateMachine<TypeConfig> for Folded {
    type SnapshotData = Content;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.position();
        Ok((position.applied, position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let index = entry.log_id.index();
            let response = self.fold(entry.log_id, entry.payload)?;
            self.shared.applied.send_replace(index + 1);
            if let Some(responder) = responder {
                responder.send(response);
            }
            if self.checkpoint_is_due() {
                self.save_checkpoint()?;
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let index = self.purgeable();
        (index.is_some() || force).then(|| Builder { folded: self.clone(), index })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { folded: self.clone(), index: self.purgeable() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Content) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index());
        let bytes = encoding::encode_snapshot(meta, &snapshot);
        drop(self.hold_open()?);
        self.shared.group.save_checkpoint(index, bytes, Box::new(|_| ())).map_err(io::Error::other)?;
        self.restore(meta.clone(), snapshot)?;
        self.shared.fold.forget_through(index);
        self.shared.snapshot.fetch_max(index + 1, Relaxed);
        self.shared.group.flush().map_err(io::Error::other)?.await.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(index) = self.current() else { return Ok(None) };
        let (meta, snapshot) = self.checkpoint_at(index)?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Gives an existing checkpoint as a snapshot; `None`: makes one of what is applied now.
pub struct Builder {
    folded: Folded,
    index: Option<u64>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Content;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if let Some(index) = self.index {
            let (meta, snapshot) = self.folded.checkpoint_at(index)?;
            self.folded.shared.snapshot.fetch_max(index + 1, Relaxed);
            return Ok(Snapshot { meta, snapshot });
        }
        let (meta, snapshot) = self.folded.capture();
        if let Some(applied) = meta.last_log_id {
            let bytes = encoding::encode_snapshot(&meta, &snapshot);
            let _still = self.folded.hold_open()?;
            self.folded.shared.group.save_checkpoint(applied.index(), bytes, Box::new(|_| ())).map_err(io::Error::other)?;
            self.folded.shared.snapshot.fetch_max(applied.index() + 1, Relaxed);
        }
        Ok(Snapshot { meta, snapshot })
    }
}
