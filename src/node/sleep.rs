//! Streams sleep: the replicas of a stream to which nothing happens are closed, all of them, until somebody needs one.
//!
//! A closed replica costs no timers, no tasks and next to no memory. For consensus it is one whose node is down, and comes back as such:
//! so nothing here has to be right for safety, and there is no state between open and closed that could get stuck.
//!
//! - **To sleep** is the leader's idea: every replica has all there is, nobody reads, nothing came for a while. It asks the others to close
//!   theirs ([`asked_to_sleep`]); each may refuse. When all have done so it closes its own, else it wakes those that did. Nodes that are
//!   down need not agree, as long as the others are a majority; these remember who was lacking.
//! - **Awake** it is again as soon as one replica is opened: by whoever publishes or reads, by a peer's message of consensus, or because
//!   the catalog says something new of the stream (`placing`). The replica that opens calls the others ([`rouse`]), and the one with
//!   the longest log stands for election; of equal ones the one that the catalog prefers. That takes some milliseconds; where it fails
//!   the timers of consensus elect.
//! - A node starts with all its replicas asleep, but those of streams that have not begun.
//! - **The round.** Somebody has to see what changed while everybody slept or was down: each node wakes once after its start what has not
//!   been awake since, and what fell asleep without a node that is back; and where a stream forgets by age, the node that would lead it does
//!   so now and then. What no majority could wake is left alone.

use super::error::Error;
use super::remote::{Sleep, Wake, Woken, method};
use super::stream::{Local, Slept, Stream};
use super::streams::Status;
use super::{Inner, placing};
use crate::cluster::{Candidacy, Group, mesh::Lane};
use crate::core::catalog::{NodeState, StreamRecord};
use crate::core::limits;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, timeout};

/// How often a leader looks for streams that may sleep, and a step of the round is taken.
const LOOK: Duration = Duration::from_millis(250);
/// Longest wait for a peer's replica to open, or to close.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for the leader of a stream that was woken.
const ELECTION_WAIT: Duration = Duration::from_millis(500);
/// Streams put to sleep at a time.
const AT_A_TIME: usize = 16;
/// Messages of consensus that come so soon after a replica fell asleep were on their way before.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// Streams that one step of the round looks at; it wakes one of them at most, and so many of those that a node lacks which is back.
const ROUND_STEP: usize = 1_000;
const LACKED_STEP: usize = 8;
/// A stream that forgets by age sleeps a part of that, but so long at least, or not at all …
const AGED_PART: u32 = 10;
const AGED_LEAST: Duration = Duration::from_secs(60);
/// … and so long at most.
const AGED_MOST: Duration = Duration::from_secs(3_600);

/// Runs until the node stops.
pub async fn run(node: Arc<Inner>) {
    let wait = node.stop.clone();
    let asleep = async {
        match node.sleep_after {
            Some(after) => put_to_sleep(&node, after).await,
            None => future::pending().await,
        }
    };
    wait.run_until_cancelled(future::join(open_missed(&node), asleep)).await;
}

/// Opens the replicas that peers call.
async fn open_missed(node: &Arc<Inner>) {
    let mut missed = node.groups.missed();
    while let Some(group) = missed.recv().await {
        let Some(stream) = node.stream_of_group(group) else { continue };
        let straggles = stream.slept().is_some_and(|slept| slept.since.elapsed() < STRAGGLERS);
        if !straggles {
            node.call(&stream);
        }
    }
}

async fn put_to_sleep(node: &Arc<Inner>, after: Duration) {
    let mut looks = tokio::time::interval(LOOK.min(after));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle: HashMap<u64, Idle> = HashMap::new();
    let mut round = Vec::new();
    loop {
        let now = looks.tick().await;
        let ripe = ripe(node, after, now, &mut idle);
        stream::iter(ripe).for_each_concurrent(AT_A_TIME, |(stream, local)| fall_asleep(node, stream, local)).await;
        go_round(node, &mut round);
    }
}

/// Since when nothing was applied in an opening of a group.
struct Idle {
    opening: u64,
    applied: u64,
    since: Instant,
}

/// The streams led here to which nothing happened for long enough.
fn ripe(node: &Inner, after: Duration, now: Instant, idle: &mut HashMap<u64, Idle>) -> Vec<(Arc<Stream>, Local)> {
    let groups = node.groups.all();
    let patience = patience(after, groups.len());
    let mut seen = HashMap::new();
    let mut ripe = Vec::new();
    for group in groups.into_iter().filter(|group| group.current().mine.is_some()) {
        let Some(stream) = node.stream_of_group(group.id()) else { continue };
        let Some(local) = stream.local().filter(|local| local.group.is(&group)) else { continue };
        let (opening, applied) = (group.opening(), *group.folded().applied().borrow());
        let before = idle.get(&group.id()).filter(|before| (before.opening, before.applied) == (opening, applied));
        let since = before.map_or(now, |before| before.since);
        seen.insert(group.id(), Idle { opening, applied, since });
        let long = match stream.used() {
            Some(used) => now.saturating_duration_since(used.max(since)) >= patience,
            None => now.duration_since(since) >= patience.min(least(after)),
        };
        if long && may_sleep(node, &stream, &local) {
            ripe.push((stream, local));
        }
    }
    *idle = seen;
    ripe
}

/// The more replicas are awake, the sooner those fall asleep to which nothing happens.
fn patience(after: Duration, awake: usize) -> Duration {
    let share = limits::AWAKE_MAX as f64 / awake.max(limits::AWAKE_MAX) as f64;
    after.mul_f64(share).max(least(after))
}

/// How long a stream stays awake that nobody has used since it was opened.
fn least(after: Duration) -> Duration {
    after.min(Duration::from_millis(limits::SLEEP_AFTER_LEAST_MS))
}

/// Whether a stream led here has nothing left to do: everybody who holds it and can be reached has everything, and is no minority.
fn may_sleep(node: &Inner, stream: &Stream, local: &Local) -> bool {
    let record = stream.record();
    let holders: BTreeSet<u64> = record.placement.iter().copied().collect();
    let alive = node.alive();
    let (here, lacking) = reachable(&alive, &record);
    let progress = local.group.progress();
    let all_have_all = progress.iter().all(|(id, progress)| progress.voter && (progress.lag == Some(0) || lacking.contains(id)));
    record.has_begun()
        && !forgets_soon(stream, local)
        && local.group.members_are(&holders)
        && all_have_all
        && record.has_majority_in(&alive)
        && here.iter().all(|id| node.stays(*id))
        && local.group.folded().purgeable().is_none()
}

/// Who holds the stream: the nodes that can be reached, and the others.
fn reachable(alive: &BTreeSet<u64>, record: &StreamRecord) -> (Vec<u64>, Vec<u64>) {
    record.placement.iter().partition(|id| alive.contains(id))
}

/// Whether a stream has events that it will forget by age before long.
fn forgets_soon(stream: &Stream, local: &Local) -> bool {
    longest_sleep(stream).is_some_and(|longest| longest < AGED_LEAST) && !local.replica.current().is_empty()
}

/// How long a stream with events may sleep that forgets by age.
fn longest_sleep(stream: &Stream) -> Option<Duration> {
    stream.settings().max_age_ms.map(|age| Duration::from_millis(age) / AGED_PART)
}

/// At the leader.
async fn fall_asleep(node: &Arc<Inner>, stream: Arc<Stream>, local: Local) {
    let Some(end) = local.group.candidacy().await else { return };
    let Some(leader) = local.group.current().mine else { return };
    let (mut others, lacking) = reachable(&node.alive(), &stream.record());
    others.retain(|id| *id != node.id);
    let ask = Sleep { group: stream.group, term: leader.term, end, lacking };
    let asked = others.iter().map(|id| node.mesh.call(*id, Lane::Consensus, method::SLEEP, ask.encode(), Instant::now() + ANSWER_WAIT));
    let agreed = future::join_all(asked).await.into_iter().all(|answer| answer.is_ok());
    if agreed && close(node, &stream, &local, &ask).await {
        node.metrics.fallen_asleep.inc();
        return;
    }
    // Whoever closed its replica is needed again.
    future::join_all(others.iter().map(|id| call_replica(node, *id, stream.group, false))).await;
}

/// Closes the replica here, if it still is as the leader said and nobody uses it.
async fn close(node: &Inner, stream: &Arc<Stream>, local: &Local, ask: &Sleep) -> bool {
    let _opening = stream.opening().await;
    let record = stream.record();
    let are_lacking = !ask.lacking.iter().any(|id| node.is_up(*id));
    let is_open = stream.local().is_some_and(|now| now.group.is(&local.group));
    let is_same = local.group.current().term == ask.term && local.group.candidacy().await == Some(ask.end);
    let has_applied = *local.group.folded().applied().borrow() == ask.end.index + 1;
    if !is_open || !is_same || !has_applied || !are_lacking || node.is_out(stream.group) {
        return false;
    }
    let (state, lacking) = (local.replica.current(), ask.lacking.as_slice().into());
    if !stream.fall_asleep(Slept { state, term: ask.term, since: Instant::now(), lacking }, &record) {
        return false;
    }
    stream.set_local(None);
    node.groups.close(stream.group).await;
    true
}

/// A leader asks this node to close its replica.
pub async fn asked_to_sleep(node: &Inner, from: u64, body: Bytes) -> super::Result<Bytes> {
    let ask = Sleep::decode(body)?;
    let stays_awake = || Error::Conflict("the replica stays awake".into());
    let stream = node.stream_of_group(ask.group).ok_or_else(stays_awake)?;
    let local = stream.local().filter(|local| local.group.current().leader == Some(from)).ok_or_else(stays_awake)?;
    let least = least(node.sleep_after.ok_or_else(stays_awake)?);
    let is_used = stream.used().is_some_and(|used| used.elapsed() < least);
    if is_used || !node.stays(node.id) || !close(node, &stream, &local, &ask).await {
        return Err(stays_awake());
    }
    Ok(Bytes::new())
}

/// Somebody needs the replica here.
pub async fn asked_to_wake(node: &Arc<Inner>, body: Bytes) -> super::Result<Bytes> {
    let ask = Wake::decode(body)?;
    let stream = node.stream_of_group(ask.group).ok_or(Error::NoLeader)?;
    let was_open = stream.local().is_some();
    let local = node.opened(&stream).await.ok_or(Error::NoLeader)?;
    let leads = local.group.current().mine.is_some();
    if was_open && !leads && ask.passes_on {
        let (node_too, stream) = (node.clone(), stream.clone());
        node.tasks.spawn_on(async move { rouse(&node_too, &stream, false).await }, &node.runtime);
    }
    Ok(Woken { leads, end: candidacy(node, &local).await }.encode())
}

async fn candidacy(node: &Inner, local: &Local) -> Option<Candidacy> {
    if !node.stays(node.id) || node.disk.is_short(node.id) { None } else { local.group.candidacy().await }
}

/// Once the replica here was opened: wakes the others, and has the best of them stand for election where nobody leads.
pub async fn rouse(node: &Arc<Inner>, stream: &Arc<Stream>, passes_on: bool) {
    let Some(local) = stream.local() else { return };
    let placement = stream.placement();
    let alive = node.alive();
    let others: BTreeSet<u64> =
        placement.iter().copied().chain(local.group.voters()).filter(|id| *id != node.id && alive.contains(id)).collect();
    let asked = others.iter().map(|id| async move { Some((*id, call_replica(node, *id, stream.group, passes_on).await?)) });
    let woken: Vec<(u64, Woken)> = future::join_all(asked).await.into_iter().flatten().collect();
    if woken.iter().any(|(_, woken)| woken.leads) || local.group.current().mine.is_some() {
        return;
    }
    let Some(own) = candidacy(node, &local).await else { return };
    // The earlier in the placement, the better.
    let rank = |id: u64| std::cmp::Reverse(placement.iter().position(|placed| *placed == id).unwrap_or(usize::MAX));
    let is_best = woken.iter().filter_map(|(id, woken)| Some((woken.end?, rank(*id)))).all(|other| other <= (own, rank(node.id)));
    if is_best {
        local.group.stand_up().await;
    }
}

async fn call_replica(node: &Inner, id: u64, group: u64, passes_on: bool) -> Option<Woken> {
    let body = Wake { group, passes_on }.encode();
    let answer = node.mesh.call(id, Lane::Consensus, method::WAKE, body, Instant::now() + ANSWER_WAIT).await.ok()?;
    Woken::decode(answer).ok()
}

/// One step of the round: looks at some streams, and wakes few of those that need it.
fn go_round(node: &Arc<Inner>, round: &mut Vec<u64>) {
    if round.is_empty() {
        *round = node.streams.read().expect("nobody panics while holding it").keys().copied().collect();
    }
    let step = round.split_off(round.len().saturating_sub(ROUND_STEP));
    let mut streams = step.into_iter().filter_map(|group| node.stream_of_group(group));
    let alive = node.alive();
    let (mut looks, mut lacked) = (1, LACKED_STEP);
    while looks > 0 && lacked > 0 {
        let Some(stream) = streams.next() else { break };
        let left = match look_for(node, &stream, &alive) {
            None => continue,
            Some(Look::Lacked) => &mut lacked,
            Some(Look::Unseen | Look::Aged) => &mut looks,
        };
        *left -= 1;
        node.call(&stream);
    }
    // Those behind have their turn first at the next step.
    round.extend(streams.map(|stream| stream.group));
}

/// Why a sleeping stream is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// It was not awake since this node's start.
    Unseen,
    /// A node is back without which it fell asleep.
    Lacked,
    /// It forgets by age, and slept long.
    Aged,
}

/// Why the stream is to be woken by this node, if it is; `alive` can be reached.
pub fn look_for(node: &Inner, stream: &Stream, alive: &BTreeSet<u64>) -> Option<Look> {
    if !node.is_asleep(stream) {
        return None;
    }
    let is_long = |slept: &Slept| {
        let longest = longest_sleep(stream).map(|longest| longest.clamp(AGED_LEAST, AGED_MOST));
        !slept.state.is_empty() && longest.is_some_and(|longest| slept.since.elapsed() >= longest)
    };
    let look = match stream.slept() {
        None => Look::Unseen,
        Some(slept) if slept.lacking.iter().any(|id| alive.contains(id)) => Look::Lacked,
        Some(slept) if is_long(&slept) && node.would_lead(stream) == Some(node.id) => Look::Aged,
        Some(_) => return None,
    };
    (stream.record().has_majority_in(alive) && !node.is_out(stream.group)).then_some(look)
}

impl Inner {
    /// The replica of a stream here, opened if it sleeps. `None`: none belongs here, or it is damaged.
    pub async fn opened(self: &Arc<Inner>, stream: &Arc<Stream>) -> Option<Local> {
        if stream.local().is_none() {
            placing::wake(self, stream).await;
        }
        stream.local()
    }

    /// The same for somebody who uses it, and may do so again.
    pub async fn awake(self: &Arc<Inner>, stream: &Arc<Stream>) -> Option<Local> {
        let local = self.opened(stream).await;
        stream.touch();
        local
    }

    /// The same for a group that a peer names.
    pub async fn awake_group(self: &Arc<Inner>, group: u64) -> Option<Local> {
        self.awake(&self.stream_of_group(group)?).await
    }

    /// A group of this node, the catalog's too. One that sleeps is opened, and has its leader then, if it can have one so soon.
    pub async fn open_group(self: &Arc<Inner>, group: u64) -> Option<Group> {
        if let Some(open) = self.groups.get(group) {
            return Some(open);
        }
        let stream = self.stream_of_group(group)?;
        let woken = self.awake(&stream).await?.group;
        // What it knows of a leader at first is of before it slept.
        let leads_here = self.would_lead(&stream) == Some(self.id);
        let mut leadership = woken.leadership();
        let elected = leadership.wait_for(|now| if leads_here { now.mine.is_some() } else { now.leader.is_some() });
        let _ = timeout(ELECTION_WAIT, elected).await;
        Some(woken)
    }

    /// Has the replica of a stream here opened, if it sleeps.
    pub fn call(self: &Arc<Inner>, stream: &Arc<Stream>) {
        if self.is_asleep(stream) && stream.wake() {
            let (node, stream) = (self.clone(), stream.clone());
            self.tasks.spawn_on(async move { placing::wake(&node, &stream).await }, &self.runtime);
        }
    }

    /// Whether a replica belongs here that is closed for want of use.
    pub fn is_asleep(&self, stream: &Stream) -> bool {
        !stream.is_awake() && stream.local().is_none() && stream.is_held_by(self.id)
    }

    /// What there is to say of a sleeping stream without waking it: all its replicas have what this one had, but those that were not
    /// there. `None`: it is awake, or was not since this node's start.
    pub fn status_asleep(&self, stream: &Stream) -> Option<Status> {
        let Slept { state, term, lacking, .. } = stream.slept().filter(|_| self.is_asleep(stream))?;
        let lag = |id: u64| if lacking.contains(&id) { None } else { Some(0) };
        let lags = stream.placement().into_iter().map(|id| (id, lag(id))).collect();
        Some(Status { state, term, leader: self.would_lead(stream), lags })
    }

    /// Who would lead the stream if it woke now, as this node sees it: all replicas of a sleeping stream are taken for equal.
    pub fn would_lead(&self, stream: &Stream) -> Option<u64> {
        let fit = |id: &u64| {
            self.stays(*id) && !self.disk.is_short(*id) && self.directory.node(*id).is_some_and(|node| node.state == NodeState::Active)
        };
        let placement = stream.placement();
        placement.iter().copied().find(fit).or_else(|| placement.into_iter().find(|id| self.is_up(*id)))
    }
}
