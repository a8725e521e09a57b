//! One Raft group on this node: proposing, leadership, membership, and its life from opening to closing.

use super::elections::{Called, Elections};
use super::evidence::Standing;
use super::leadership::{Herald, Leadership, changed_within};
use super::machine::{Fold, Folded};
use super::members::Voters;
use super::network::Factory;
use super::types::{EntryPayload, LeaderId, LogId, Payload, Raft, Response, TransferRequest, TypeConfig};
use super::{log::Log, mesh::Mesh};
use crate::store;
use bytes::Bytes;
use futures_util::{FutureExt, future, future::Either};
use openraft::{
    Config, RaftMetrics, ReadPolicy, SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, Fatal, InitializeError, RaftError},
    impls::{EmptyNode, ProgressResponder},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

/// Timers of a group, in milliseconds.
///
/// A follower campaigns when it heard nothing for `election_max` plus a random time between `election_min` and `election_max`
/// (openraft gives the leader a lease of `election_max`). Shorter is faster at a failover and riskier under load.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    pub heartbeat: u64,
    pub election_min: u64,
    pub election_max: u64,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers { heartbeat: 150, election_min: 450, election_max: 750 }
    }
}

/// How long it may take to make a snapshot of a checkpoint …
const SNAPSHOT_WAIT: Duration = Duration::from_secs(10);
/// … and how long a purge is awaited.
const PURGE_WAIT: Duration = Duration::from_millis(250);
/// Longest wait for what a group has in its queue.
const STANDING_WAIT: Duration = Duration::from_millis(200);

/// Why a proposal has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProposed {
    /// It is provably not in the log: it may be proposed again anywhere.
    Refused,
    /// It may have been, or may still be, committed.
    Unknown,
}

/// A replica's distance from its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub voter: bool,
    /// Log entries that the leader has and the replica has not acknowledged; `None` if it never answered this leader.
    pub lag: Option<u64>,
}

/// A handle to one open group; clones are the same one.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    opening: u64,
    quiet_until: Option<u64>,
    node: u64,
    raft: Raft,
    folded: Folded,
    log: Log,
    leadership: watch::Receiver<Leadership>,
    called: Called,
}

/// Applied commands read back from the log, and the index at which to go on.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    pub commands: Vec<(u64, Bytes)>,
    pub next: u64,
}

/// What one step of reading a log found: rows that carry what was written to them, up to the first that does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub rows: u64,
    /// Of their payloads.
    pub bytes: u64,
    /// Where to go on; `None` at the end of the log, or at damage.
    pub next: Option<u64>,
    pub damage: Option<String>,
}

/// The end of a replica's log; of two the greater is the better candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidacy {
    pub term: u64,
    pub leader: u64,
    pub index: u64,
}

/// Why a group, or with it the node, cannot go on.
#[derive(Clone, Debug)]
pub struct Failure {
    pub group: u64,
    pub why: String,
}

/// A group that ended by itself: its data is damaged, the disk failed, or its task panicked. The room above tells which, and acts.
#[derive(Clone, Debug)]
pub struct Ended {
    pub group: u64,
    /// Which opening of the group: it may have been opened again since.
    pub opening: u64,
    pub why: String,
}

pub struct Open<'a> {
    pub id: u64,
    /// Counts the openings of groups.
    pub opening: u64,
    pub node: u64,
    /// This replica does not stand for election before its log reaches this index: up to there it may read of members of long ago,
    /// among them itself, whose votes it gave and has forgotten.
    pub quiet_until: Option<u64>,
    pub mesh: &'a Mesh,
    pub store: store::Group,
    pub fold: Arc<dyn Fold>,
    pub timers: Timers,
    pub ended: mpsc::Sender<Ended>,
    pub elections: Elections,
}

fn config(timers: Timers) -> Config {
    Config {
        cluster_name: "evermesh".into(),
        heartbeat_interval: timers.heartbeat,
        election_timeout_min: timers.election_min,
        election_timeout_max: timers.election_max,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(timers.election_max * 2 + timers.election_min),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 128,
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(64),
        log_stage_capacity: Some(1),
        // A leader sends entries out while its own disk still writes them. Killed then, it comes back without entries that others
        // have, and as the leader of the same term it would give their log ids to other entries: only a new term may follow.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}

impl Group {
    pub async fn open(open: Open<'_>) -> Result<Group, Failure> {
        let id = open.id;
        let failure = |why: String| Failure { group: id, why };
        let folded = Folded::open(open.store.clone(), open.fold).map_err(|why| failure(why.to_string()))?;
        let last = open.store.log_state().last.map(|id| id.index);
        let quiet_until = open.quiet_until.filter(|until| last < Some(*until));
        let config = Config { enable_elect: quiet_until.is_none(), ..config(open.timers) };
        let config = config.validate().map_err(|why| failure(why.to_string()))?;
        let factory = Factory::new(open.mesh.clone(), id);
        let log = Log::new(open.store);
        let raft = Raft::new(open.node, Arc::new(config), factory, log.clone(), folded.clone());
        let raft = raft.await.map_err(|why| failure(why.to_string()))?;
        let called = Called::default();
        let (group, opening) = (id, open.opening);
        let herald = Herald { group, opening, node: open.node, ended: open.ended, elections: open.elections, called: called.clone() };
        let leadership = herald.watch(&raft);
        let voters: Vec<u64> = raft.metrics().borrow_watched().membership_config.membership().voter_ids().collect();
        if let Some(until) = quiet_until {
            tokio::spawn(end_quiet(raft.clone(), until));
        } else if voters == [open.node] {
            // Nobody else could be elected: no need to wait for that.
            raft.trigger().elect(false).await.map_err(|why| failure(why.to_string()))?;
        }
        Ok(Group { inner: Arc::new(Inner { id, opening, quiet_until, node: open.node, raft, folded, log, leadership, called }) })
    }

    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// The node that this replica is on.
    pub(super) fn node(&self) -> u64 {
        self.inner.node
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// The number of this opening of the group.
    pub fn opening(&self) -> u64 {
        self.inner.opening
    }

    /// Whether both are handles to the same opening of a group.
    pub fn is(&self, other: &Group) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub fn folded(&self) -> &Folded {
        &self.inner.folded
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Who leads now.
    pub fn current(&self) -> Leadership {
        *self.inner.leadership.borrow()
    }

    /// Waits until the leadership is another one than `seen`, at most for `pause`.
    pub async fn changed_within(&self, seen: Leadership, pause: Duration) {
        changed_within(self.leadership(), seen, pause).await;
    }

    /// What this replica would bring into an election, and who votes; `None` where there is a leader besides the one that is gone, or
    /// this replica has no vote.
    pub(super) async fn standing(&self, gone: u64) -> Option<(Standing, Voters)> {
        let (standing, voters) = self.footing().await?;
        let led = standing.vote.committed && standing.vote.leader_id.node_id != gone;
        (!led).then_some((standing, voters))
    }

    /// The same whoever leads; `None` where this replica has no vote, or must not stand yet.
    async fn footing(&self) -> Option<(Standing, Voters)> {
        let state = self.inner.raft.with_raft_state(|state| {
            let voters: Voters = state.membership_state.effective().membership().get_joint_config().clone();
            (Standing { vote: *state.vote_ref(), last: state.log_ids.last().copied() }, voters)
        });
        let (standing, voters) = timeout(STANDING_WAIT, state).await.ok()?.ok()?;
        let votes = voters.iter().any(|set| set.contains(&self.inner.node));
        let quiet = self.inner.quiet_until.is_some_and(|until| standing.last.is_none_or(|last| last.index() < until));
        (votes && !quiet).then_some((standing, voters))
    }

    /// Stands for election in the place of a leader that was seen gone at `since`, whatever lease voters gave it.
    pub(super) fn stand(&self, standing: Standing, since: Instant) {
        let group = self.clone();
        tokio::spawn(async move {
            group.inner.called.verdict(since);
            let request = TransferRequest::new(standing.vote, group.inner.node, standing.last);
            if let Ok(Err(error)) = group.inner.raft.handle_transfer_leader(request).await {
                tracing::debug!(group = group.inner.id, %error, "this replica could not stand for election");
            }
        });
    }

    /// The end of the log that this replica would bring into an election, in the order in which voters judge it; `None` where it must not
    /// stand, or has no vote.
    pub async fn candidacy(&self) -> Option<Candidacy> {
        let (standing, _) = self.footing().await?;
        standing.candidacy()
    }

    /// Stands for election, where no voter has heard of a leader of late.
    pub async fn stand_up(&self) {
        self.inner.called.opened();
        if let Err(error) = self.inner.raft.trigger().elect(true).await {
            tracing::debug!(group = self.inner.id, %error, "this replica could not stand for election");
        }
    }

    /// A leader hands over.
    pub(super) fn expect_transfer(&self, request: &TransferRequest) {
        if *request.to_node_id() == self.inner.node {
            self.inner.called.transfer();
        }
    }

    /// Makes these the first members. Harmless where the group has a log already.
    pub async fn initialize(&self, members: &[u64]) -> Result<(), String> {
        let members: BTreeMap<u64, EmptyNode> = members.iter().map(|id| (*id, EmptyNode::new())).collect();
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn is_initialized(&self) -> bool {
        self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// Puts a command at the end of the leader's log, if this node still leads as `leader`. When the outer future is done the command
    /// has its place after everything proposed before, or was refused; the inner one gives what became of it.
    ///
    /// A leader may refuse one command and take the next: its lease ran out and was renewed in between. Whoever must keep an order
    /// learns of the refusal here, before it proposes the next.
    pub async fn propose(
        &self,
        leader: LeaderId,
        command: Bytes,
    ) -> Result<impl Future<Output = Result<Response, NotProposed>> + Send + 'static + use<>, NotProposed> {
        let (responder, done) = ProgressResponder::complete_only();
        let sent = self.inner.raft.write(Payload(command)).with_leader(leader).responder(responder).await;
        sent.map_err(|_| NotProposed::Refused)?;
        // Answered in its turn, so what was sent before has been looked at.
        self.inner.raft.with_raft_state(|_| ()).await.map_err(|_| NotProposed::Unknown)?;
        let mut done = Box::pin(async move {
            match done.await {
                Ok(Ok(response)) => Ok(response.data),
                Ok(Err(ClientWriteError::ForwardToLeader(_) | ClientWriteError::PreconditionFailed(_))) => Err(NotProposed::Refused),
                Ok(Err(_)) | Err(_) => Err(NotProposed::Unknown),
            }
        });
        match (&mut done).now_or_never() {
            Some(settled) => settled.map(|response| Either::Left(future::ready(Ok(response)))),
            None => Ok(Either::Right(done)),
        }
    }

    /// Confirms with a quorum that this node leads; afterwards everything acknowledged by anyone before the call is applied here.
    /// Also renews the lease without which a leader refuses proposals. Gives the number of applied entries (index plus one).
    pub async fn confirm_leadership(&self) -> Result<u64, String> {
        let read = self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map_err(|error| error.to_string())?;
        Ok(read.log_id().index() + 1)
    }

    /// Waits until the entries before `upto` are applied here.
    pub async fn wait_applied(&self, upto: u64) {
        let mut applied = self.inner.folded.applied();
        // The sender lives as long as the group; after its end nobody needs the answer.
        let _ = applied.wait_for(|applied| *applied >= upto).await;
    }

    /// Applied commands from `index` on, about `max_bytes` of them; empty commands with an advanced `next` are possible.
    /// `Ok(None)` when `index` was purged or is not applied yet.
    pub async fn read_commands(&self, index: u64, max_bytes: usize) -> Result<Option<Commands>, String> {
        let end = *self.inner.folded.applied().borrow();
        if index >= end {
            return Ok(None);
        }
        let entries = self.inner.log.read(index..end, max_bytes).await.map_err(|error| error.to_string())?;
        let Some(last) = entries.last() else { return Ok(None) };
        let next = last.log_id.index() + 1;
        let commands = entries.into_iter().filter_map(|entry| match entry.payload {
            EntryPayload::Normal(payload) => Some((entry.log_id.index(), payload.0)),
            _ => None,
        });
        Ok(Some(Commands { commands: commands.collect(), next }))
    }

    /// Reads about `max_bytes` of the log, from `index` on or from its beginning; every row is checked. An error says nothing about the log.
    pub async fn check_log(&self, index: u64, max_bytes: usize) -> Result<Checked, String> {
        let log = self.inner.log.clone();
        log.settle().await.map_err(|error| error.to_string())?;
        let blocking = tokio::task::spawn_blocking(move || log.check(index, max_bytes));
        blocking.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The members and, at the leader, how far each is. Somebody who is on the way out is one until that is committed.
    pub fn progress(&self) -> BTreeMap<u64, Progress> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let lag = |id: &u64| {
            if *id == self.inner.node {
                return Some(0);
            }
            let matched = metrics.replication.as_ref()?.get(id)?;
            Some(entries_behind(metrics.last_log_index, *matched))
        };
        let committed = metrics.committed_membership_config.membership();
        let members = membership.nodes().chain(committed.nodes());
        members.map(|(id, _)| (*id, Progress { voter: voters.contains(id), lag: lag(id) })).collect()
    }

    /// At the leader: the others that are more than so many entries behind, or were not heard of.
    pub fn behind(&self, lag_max: u64) -> Vec<u64> {
        let watched = self.inner.raft.metrics();
        let metrics = watched.borrow_watched();
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != self.inner.node);
        let far = others.filter(|(_, matched)| entries_behind(metrics.last_log_index, **matched) > lag_max);
        far.map(|(id, _)| *id).collect()
    }

    /// Whether the members are exactly these, all of them voters, and no change is under way.
    pub fn members_are(&self, wanted: &BTreeSet<u64>) -> bool {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let stored = &metrics.membership_config;
        let membership = stored.membership();
        let uniform = membership.get_joint_config().len() == 1;
        uniform && membership.voter_ids().collect::<BTreeSet<_>>() == *wanted && membership.learner_ids().next().is_none()
    }

    /// Hands the leadership to a voter that is up to date and waits until somebody else leads.
    pub async fn transfer_leader(&self, to: u64, within: Duration) -> Result<u64, String> {
        let mut leadership = self.leadership();
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())?;
        let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != self.inner.node));
        match timeout(within, moved).await {
            Ok(Ok(now)) => Ok(now.leader.unwrap_or(to)),
            _ => Err("the new leader was not elected in time".into()),
        }
    }

    /// Deletes the log up to the newest checkpoint that retention allows, and what describes the part before.
    pub async fn purge(&self) -> Result<(), String> {
        let Some(index) = self.inner.folded.purgeable() else { return Ok(()) };
        let fatal = |error: Fatal<TypeConfig>| error.to_string();
        self.inner.raft.trigger().snapshot().await.map_err(fatal)?;
        let reached = |metrics: &RaftMetrics<TypeConfig>| metrics.snapshot.is_some_and(|id| id.index() >= index);
        let wait = self.inner.raft.wait(Some(SNAPSHOT_WAIT));
        wait.metrics(reached, "a snapshot for purging").await.map_err(|error| error.to_string())?;
        self.inner.raft.trigger().purge_log(index).await.map_err(fatal)?;
        let purged = |metrics: &RaftMetrics<TypeConfig>| metrics.purged.is_some_and(|id| id.index() >= index);
        // A leader whose entries are on their way to somebody purges them later.
        let _ = self.inner.raft.wait(Some(PURGE_WAIT)).metrics(purged, "the purge").await;
        self.inner.folded.forget_purged().map_err(|error| error.to_string())
    }

    /// Stops taking part. What is acknowledged is durable already; the checkpoint only shortens the next start.
    pub async fn close(&self) {
        if let Err(error) = self.inner.folded.save_checkpoint_at_closing() {
            tracing::warn!(group = self.inner.id, %error, "no checkpoint at closing");
        }
        self.shut_down().await;
        self.retire();
    }

    /// Stops taking part and writes nothing more: for a group whose storage cannot be relied on. May be called by several.
    pub async fn abandon(&self) {
        self.retire();
        self.shut_down().await;
    }

    fn retire(&self) {
        self.inner.log.retire();
        self.inner.folded.retire();
    }

    /// Whether it is closed, or about to be.
    pub fn is_retired(&self) -> bool {
        self.inner.log.is_retired()
    }

    async fn shut_down(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = self.inner.id, %error, "the group did not close cleanly");
        }
    }
}

/// Entries between the end of the leader's log and what a follower has of it.
fn entries_behind(last_index: Option<u64>, matched: Option<LogId>) -> u64 {
    let end = |index: Option<u64>| index.map_or(0, |index| index + 1);
    end(last_index).saturating_sub(end(matched.map(|matched| matched.index())))
}

/// Lets a replica stand for election once its log has reached the index.
async fn end_quiet(raft: Raft, until: u64) {
    let wait = raft.wait(None);
    let reached = wait.metrics(|metrics| metrics.last_log_index >= Some(until), "the end of its quiet").await;
    if reached.is_ok() {
        raft.runtime_config().elect(true);
    }
}
