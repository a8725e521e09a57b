//! A replica whose data here is damaged takes no part, and is made anew from the others.
//!
//! The store fences a group when it meets damage. From then on nothing of it is read here, voted or acknowledged: the group is closed,
//! and requests to its stream go to the other replicas. This node asks the group's leader to be counted out; once that is committed it
//! forgets the group, opens it empty, and the leader counts it in again, first as a learner. `ARCHITECTURE.md` says why that is safe.
//!
//! - Nothing is deleted before the leader has answered. Where nobody can answer (the only replica, or a majority is damaged) everything
//!   stays as it is, the stream is reported as damaged, and what becomes of it is a person's decision.

use super::Inner;
use super::identity::Identity;
use super::lifecycle::CATALOG;
use super::placing;
use super::remote::{self, ReplicaAnswer, method, refusal};
use super::types::ReplicaState;
use crate::cluster::mesh::{CallError, Lane};
use crate::cluster::{CountedOut, Group, encode_followed_vote};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Replicas that are rebuilt at a time, besides the catalog's.
const AT_A_TIME: usize = 8;
/// A rebuild that takes longer lets others begin beside it.
const SLOT_WAIT: Duration = Duration::from_secs(60);
/// Longest wait for a leader to count this node out: a change of members is two entries.
const OUT_WAIT: Duration = Duration::from_secs(8);
/// Longest wait for a node to tell how a replica of it is.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Pause before asking again, longer with every time.
const PAUSES_MS: [u64; 5] = [50, 200, 500, 1_000, 2_000];
/// How often a rebuilt replica is looked at until it votes.
const LOOK: Duration = Duration::from_millis(50);
/// So many times nobody could count this node out before that is said: an election is no damage.
const PATIENCE: usize = 3;

/// A replica of this node that takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// What was found.
    pub why: String,
    /// Why it cannot be made anew at present.
    pub stuck: Option<String>,
}

/// The replicas of this node that take no part: from the fence until they vote again.
pub struct Rebuilds {
    out: Mutex<BTreeMap<u64, Out>>,
    slots: Semaphore,
    /// Groups from here on did not exist when this node, without its metadata, heard from the others: they are new, not lost.
    new_from: OnceLock<u64>,
}

impl Default for Rebuilds {
    fn default() -> Rebuilds {
        Rebuilds { out: Mutex::default(), slots: Semaphore::new(AT_A_TIME), new_from: OnceLock::new() }
    }
}

impl Rebuilds {
    fn out(&self) -> MutexGuard<'_, BTreeMap<u64, Out>> {
        self.out.lock().expect("nobody panics while holding it")
    }

    pub fn get(&self, group: u64) -> Option<Out> {
        self.out().get(&group).cloned()
    }

    /// How many cannot be rebuilt at present, and how many are being rebuilt.
    pub fn counts(&self) -> (u64, u64) {
        let out = self.out();
        let stuck = out.values().filter(|out| out.stuck.is_some()).count();
        (stuck as u64, (out.len() - stuck) as u64)
    }

    /// Whether nobody works on it yet.
    fn begin(&self, group: u64, why: &str) -> bool {
        let mut out = self.out();
        let is_new = !out.contains_key(&group);
        out.entry(group).or_insert_with(|| Out { why: why.into(), stuck: None });
        is_new
    }

    fn set_stuck(&self, group: u64, stuck: Option<String>) -> bool {
        let mut out = self.out();
        let Some(out) = out.get_mut(&group) else { return false };
        std::mem::replace(&mut out.stuck, stuck.clone()) != stuck
    }

    fn end(&self, group: u64) {
        self.out().remove(&group);
    }
}

/// Runs until the node stops.
pub async fn run(node: Arc<Inner>) {
    let mut fences = node.store.fences();
    let mut changes = node.directory.changes();
    loop {
        let fenced = {
            let fences = fences.borrow_and_update();
            fences.all.is_some() || !fences.groups.is_empty()
        };
        changes.borrow_and_update();
        if fenced {
            take_out(&node).await;
            begin(&node);
        }
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = fences.changed() => (),
            _ = changes.changed() => (),
        }
    }
}

/// Starts the rebuild of every fenced replica that belongs here.
fn begin(node: &Arc<Inner>) {
    let mut fenced: BTreeSet<u64> = BTreeSet::new();
    if node.fence_of(CATALOG).is_some() {
        fenced.insert(CATALOG);
    }
    {
        let catalog = node.directory.read();
        let here = catalog.streams.values().filter(|record| record.placement.contains(&node.id));
        fenced.extend(here.map(|record| record.group).filter(|group| node.fence_of(*group).is_some()));
    }
    for group in fenced {
        let Some(why) = node.fence_of(group) else { continue };
        if node.rebuilds.begin(group, &why) {
            tracing::error!(target: "evermesh::events", "the replica of {} on {} is damaged and takes no part: {why}", node.name_of(group), node.name);
            node.metrics.replicas_fenced.inc();
            node.tasks.spawn_on(rebuild(node.clone(), group), &node.runtime);
        }
    }
}

/// Closes every group that is open and fenced.
async fn take_out(node: &Arc<Inner>) {
    for group in node.groups.all().into_iter().filter(|group| node.fence_of(group.id()).is_some()) {
        close(node, group.id()).await;
    }
}

/// Closes a group without writing anything more of it.
pub async fn close(node: &Inner, group: u64) {
    if group == CATALOG {
        node.catalog.set(None);
    } else if let Some(stream) = node.stream_of_group(group) {
        stream.set_local(None);
    }
    node.groups.abandon(group).await;
}

async fn rebuild(node: Arc<Inner>, group: u64) {
    let stopped = node.stop.clone().cancelled_owned();
    tokio::select! {
        _ = stopped => (),
        _ = until_whole(&node, group) => (),
    }
    node.rebuilds.end(group);
}

/// Works on a fenced replica until it votes again, or belongs elsewhere.
async fn until_whole(node: &Arc<Inner>, group: u64) {
    let begun = Instant::now();
    let mut failures = 0;
    while node.belongs_here(group) {
        let slot = if group == CATALOG { None } else { node.rebuilds.slots.acquire().await.ok() };
        if node.fence_of(group).is_some() {
            // Nothing of it may be under way any more when it is begun anew.
            close(node, group).await;
            match count_out_and_forget(node, group).await {
                Ok(()) => node.rebuilds.set_stuck(group, None),
                Err(stuck) => {
                    drop(slot);
                    failures += 1;
                    tell_stuck(node, group, stuck.filter(|_| failures >= PATIENCE));
                    tokio::time::sleep(Duration::from_millis(PAUSES_MS[failures.min(PAUSES_MS.len()) - 1])).await;
                    continue;
                }
            };
        }
        if !open(node, group).await {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let whole = timeout(SLOT_WAIT, votes(node, group)).await;
        drop(slot);
        let whole = match whole {
            Ok(whole) => whole,
            Err(_) => votes(node, group).await,
        };
        if whole {
            end_quiet(node, group).await;
            node.metrics.rebuilds_done.inc();
            let name = node.name_of(group);
            tracing::info!(target: "evermesh::events", "the replica of {name} on {} is rebuilt, in {:.1?}", node.name, begun.elapsed());
            return;
        }
    }
}

fn tell_stuck(node: &Inner, group: u64, stuck: Option<String>) {
    if let Some(why) = &stuck
        && node.rebuilds.set_stuck(group, stuck.clone())
    {
        tracing::error!(target: "evermesh::events", "the replica of {} on {} cannot be rebuilt: {why}", node.name_of(group), node.name);
    }
}

/// Has this node counted out of the group, and deletes what is here of it. The error says why that cannot be, where that is known.
async fn count_out_and_forget(node: &Inner, group: u64) -> Result<(), Option<String>> {
    if node.rebuilds.new_from.get().is_some_and(|new| group >= *new) {
        return forget(node, group, None).await;
    }
    let out = ask_out(node, group).await?;
    forget(node, group, Some(out)).await
}

/// Only after the group's leader has answered, or for a group that provably never was here.
async fn forget(node: &Inner, group: u64, out: Option<CountedOut>) -> Result<(), Option<String>> {
    let failed = |error: crate::store::Error| Some(error.to_string());
    if let Some(out) = &out {
        // First, so that the empty replica is quiet whatever comes between.
        note_quiet(node, group, out).await.map_err(failed)?;
    }
    node.store.begin_anew(group).map_err(failed)?.await.map_err(failed)?;
    match out {
        Some(out) => keep_word(node, group, &out).await.map_err(failed),
        None => Ok(()),
    }
}

/// The replica votes for nobody whom it could have voted against, and never begins the group by itself.
async fn keep_word(node: &Inner, group: u64, out: &CountedOut) -> Result<(), crate::store::Error> {
    node.store.group(group).save_vote(encode_followed_vote(out.leader.term, out.leader.node_id))?.await
}

/// Before a replica is opened here again that this node once deleted: asks from where on it may stand for election. False: nobody could
/// say so now.
pub async fn return_quietly(node: &Inner, group: u64) -> bool {
    if node.anew(group) != Some(None) {
        return true;
    }
    let Ok(out) = ask_out(node, group).await else { return false };
    note_quiet(node, group, &out).await.is_ok() && keep_word(node, group, &out).await.is_ok()
}

/// Remembers from where on the replica may stand for election.
async fn note_quiet(node: &Inner, group: u64, out: &CountedOut) -> Result<(), crate::store::Error> {
    let note = |identity: &mut Identity| identity.anew.extend([(group, Some(out.index))]);
    node.change_identity(note).await
}

/// Forgets that a replica was begun anew, once what it had to be quiet for is on disk.
async fn end_quiet(node: &Inner, group: u64) {
    let flushed = match node.store.group(group).flush() {
        Ok(flushed) => flushed.await,
        Err(error) => Err(error),
    };
    if flushed.is_ok() {
        let forget = |identity: &mut Identity| identity.anew.retain(|anew, _| *anew != group);
        let _ = node.change_identity(forget).await;
    }
}

/// Asks whoever leads the group to count this node out.
pub async fn ask_out(node: &Inner, group: u64) -> Result<CountedOut, Option<String>> {
    let mut waiting: VecDeque<u64> = candidates(node, group).into();
    let mut asked = BTreeSet::new();
    while let Some(id) = waiting.pop_front() {
        if !asked.insert(id) {
            continue;
        }
        match node.mesh.call(id, Lane::Bulk, method::COUNT_OUT, remote::encode_number(group), Instant::now() + OUT_WAIT).await {
            Ok(answer) => return remote::decode_counted_out(answer).map_err(|error| Some(error.to_string())),
            Err(CallError::Refused { code: refusal::NOT_LEADER, message }) => {
                if let Some(leader) = message.parse().ok().filter(|leader| *leader != node.id) {
                    waiting.push_front(leader);
                }
            }
            Err(CallError::Refused { code: refusal::REJECTED, message }) => return Err(Some(message)),
            Err(error) => tracing::debug!(group, id, %error, "not counted out yet"),
        }
    }
    Err(diagnose(node, group).await)
}

/// The nodes that may lead the group: its holders, and then everybody who can be reached.
fn candidates(node: &Inner, group: u64) -> Vec<u64> {
    let alive = node.alive();
    let holders = node.directory.read().stream_of_group(group).map(|record| record.placement.clone()).unwrap_or_default();
    let rest: Vec<u64> = alive.iter().copied().filter(|id| !holders.contains(id)).collect();
    holders.into_iter().filter(|id| alive.contains(id)).chain(rest).filter(|id| *id != node.id).collect()
}

/// Why nobody leads the group.
async fn diagnose(node: &Inner, group: u64) -> Option<String> {
    let holders: Vec<u64> = match group {
        CATALOG => node.known_nodes(),
        group => node.directory.read().stream_of_group(group)?.placement.clone(),
    };
    if holders.len() == 1 {
        return Some("there is no other replica to rebuild it from; nothing of it was deleted".into());
    }
    let answers = node.ask_replicas(&holders, group).await;
    let damaged = answers.values().filter(|answer| answer.as_ref().is_some_and(|answer| answer.state != ReplicaState::Ok)).count();
    let silent = answers.values().filter(|answer| answer.is_none()).count();
    let all = holders.len();
    Some(match no_majority_without(damaged, all) {
        true => format!("{damaged} of {all} replicas are damaged, so that no majority is left to rebuild from; nothing of it was deleted"),
        false => format!("it has no leader at present ({damaged} of {all} replicas are damaged, {silent} cannot be reached)"),
    })
}

/// Opens a group of this node again, where it belongs here. False: it is fenced, or cannot be opened yet.
pub async fn open(node: &Arc<Inner>, group: u64) -> bool {
    if group == CATALOG {
        return open_catalog(node).await;
    }
    let record = node.directory.read().stream_of_group(group).cloned();
    if let Some(record) = record {
        placing::wake(node, &node.handle(&record)).await;
    }
    node.groups.get(group).is_some()
}

/// Opens the catalog's replica; it is shown only once it is as new as the leader's, since nobody shall act on the cluster's past.
async fn open_catalog(node: &Arc<Inner>) -> bool {
    let _opening = node.catalog.opening().await;
    if node.groups.get(CATALOG).is_some() {
        return true;
    }
    node.directory.begin_anew();
    let group = match node.groups.open(CATALOG, node.id, node.anew(CATALOG).flatten(), node.directory.clone()).await {
        Ok(group) => group,
        Err(failure) => {
            if node.fence_of(CATALOG).is_none() {
                node.fail(failure);
            }
            return false;
        }
    };
    node.tasks.spawn_on(reveal_catalog(node.clone(), group), &node.runtime);
    true
}

async fn reveal_catalog(node: Arc<Inner>, group: Group) {
    let is_current = || node.groups.get(CATALOG).is_some_and(|open| open.is(&group));
    while is_current() && !node.stop.is_cancelled() {
        if node.catch_up(&group, Instant::now() + Duration::from_secs(2)).await.is_ok() && is_current() {
            node.directory.reveal();
            node.catalog.set(Some(group));
            return;
        }
    }
}

/// Waits until the replica votes and knows its leader; false if it was fenced again, closed, or belongs elsewhere.
async fn votes(node: &Arc<Inner>, group: u64) -> bool {
    loop {
        if node.fence_of(group).is_some() || !node.belongs_here(group) {
            return false;
        }
        let Some(open) = node.groups.get(group) else { return false };
        let shown = group != CATALOG || node.catalog.get().is_some();
        if shown && open.is_voter(node.id) && open.current().leader.is_some() {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Remembers which groups cannot have been here, once this node, having lost its metadata, knows the catalog.
pub async fn note_new_groups(node: Arc<Inner>) {
    if node.store.fences().borrow().all.is_none() {
        return;
    }
    while !node.stop.is_cancelled() {
        if node.catch_up_catalog().await.is_ok() {
            let _ = node.rebuilds.new_from.set(node.directory.read().next_group);
            return;
        }
    }
}

impl Inner {
    /// Why nothing of the group here may be used, if so.
    pub fn fence_of(&self, group: u64) -> Option<String> {
        self.store.fences().borrow().of(group).map(str::to_owned)
    }

    /// Whether readers must go elsewhere: the replica here is damaged, or not whole again.
    pub fn is_out(&self, group: u64) -> bool {
        self.rebuilds.out().contains_key(&group) || self.fence_of(group).is_some()
    }

    /// Whether this node once deleted what it had of the group, and from which index on it may stand for election in it again.
    pub fn anew(&self, group: u64) -> Option<Option<u64>> {
        self.identity.lock().expect("nobody panics while holding it").anew.get(&group).copied()
    }

    fn belongs_here(&self, group: u64) -> bool {
        group == CATALOG || self.directory.read().stream_of_group(group).is_some_and(|record| record.placement.contains(&self.id))
    }

    pub fn name_of(&self, group: u64) -> String {
        match group {
            CATALOG => "the catalog".into(),
            group => {
                self.directory.read().stream_of_group(group).map_or_else(|| format!("group {group}"), |record| record.name.to_string())
            }
        }
    }

    /// The ids of all nodes, this one included; from the identity where the catalog is not there.
    fn known_nodes(&self) -> Vec<u64> {
        let peers: Vec<u64> = self.identity.lock().expect("nobody panics while holding it").peers.keys().copied().collect();
        peers.into_iter().chain([self.id]).collect()
    }

    /// How the replica of a group on this node is.
    pub fn replica_here(&self, group: u64) -> ReplicaAnswer {
        let (open, begun) = (self.groups.get(group).is_some(), self.store.group(group).log_state().last.is_some());
        let out = self.rebuilds.get(group).or_else(|| self.fence_of(group).map(|why| Out { why, stuck: None }));
        match out {
            None => ReplicaAnswer { open, begun, state: ReplicaState::Ok, why: String::new() },
            Some(Out { why, stuck: None }) => ReplicaAnswer { open, begun, state: ReplicaState::Rebuilding, why },
            Some(Out { why, stuck: Some(stuck) }) => {
                ReplicaAnswer { open, begun, state: ReplicaState::Damaged, why: format!("{why}; {stuck}") }
            }
        }
    }

    pub async fn ask_replica(&self, id: u64, group: u64) -> Option<ReplicaAnswer> {
        if id == self.id {
            return Some(self.replica_here(group));
        }
        let body = remote::encode_number(group);
        let answer = self.mesh.call(id, Lane::Bulk, method::REPLICA, body, Instant::now() + ANSWER_WAIT).await.ok()?;
        ReplicaAnswer::decode(answer).ok()
    }

    pub async fn ask_replicas(&self, ids: &[u64], group: u64) -> BTreeMap<u64, Option<ReplicaAnswer>> {
        let asked = ids.iter().map(|id| async move { (*id, self.ask_replica(*id, group).await) });
        futures_util::future::join_all(asked).await.into_iter().collect()
    }
}

/// Whether so many damaged replicas leave no majority of all of them to rebuild from.
pub fn no_majority_without(damaged: usize, all: usize) -> bool {
    all - damaged < all / 2 + 1
}
