//! What leaders owe: retention, members as the catalog places them, leaderships where they belong, and an even spread.

use super::metrics::HandOver;
use super::moving::LAG_MAX;
use super::stream::{Local, Stream};
use super::{Inner, purge};
use crate::cluster::Group;
use crate::cluster::mesh::PeerState;
use crate::core::catalog::{Command, NodeState, StreamRecord};
use crate::core::placement;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often retention is looked at.
const RETENTION: Duration = Duration::from_millis(250);
/// Of so many looks at retention one looks at members and leaderships as well.
const MEMBERS_EVERY: u64 = 4;
/// How long nodes must have been as they are before replicas and leaderships move because of them.
const SETTLE: Duration = Duration::from_secs(3);
/// Placements changed at a time.
const MOVES: usize = 8;

/// Groups with a change under way, so that there is one at a time for each.
#[derive(Clone, Default)]
struct Busy(Arc<Mutex<HashSet<u64>>>);

impl Busy {
    /// Has the change made, unless one is under way for the group.
    fn run(&self, node: &Inner, group: u64, change: impl Future<Output = ()> + Send + 'static) {
        if !self.groups().insert(group) {
            return;
        }
        let busy = self.clone();
        let task = async move {
            change.await;
            busy.groups().remove(&group);
        };
        node.tasks.spawn_on(task, &node.runtime);
    }

    fn groups(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

/// Runs until the node stops.
pub async fn run(node: Arc<Inner>) {
    let busy = Busy::default();
    let mut spread = Spread::default();
    let mut ticks = tokio::time::interval(RETENTION);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0u64.. {
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = ticks.tick() => (),
        }
        // What sleeps owes nothing.
        let streams: Vec<Arc<Stream>> = node.groups.all().iter().filter_map(|group| node.stream_of_group(group.id())).collect();
        if tick % MEMBERS_EVERY == 0 && !node.stop.is_cancelled() {
            for stream in &streams {
                members(&node, stream, &busy);
            }
            catalog_members(&node, &busy);
            spread.look(&node).await;
        }
        // After the members: a stream with an age bound is looked at every time, and would leave them no turn.
        for stream in &streams {
            retain(&node, stream, &busy);
            make_way(&node, stream, &busy);
        }
        retain_catalog(&node, &busy);
    }
}

fn leads(group: &Group) -> bool {
    group.current().mine.is_some()
}

/// Removes what is too old or too much, and lets the log go up to where readers begin.
fn retain(node: &Arc<Inner>, stream: &Arc<Stream>, busy: &Busy) {
    let Some(local) = stream.local() else { return };
    let settings = stream.settings();
    let state = local.replica.current();
    let over = |bound: Option<u64>, value: u64| bound.is_some_and(|bound| value > bound);
    let too_much = over(settings.max_events, state.last_seq + 1 - state.first_seq) || over(settings.max_bytes, state.bytes);
    let may_be_old = settings.max_age_ms.is_some() && !state.is_empty();
    let trims = (too_much && settings.discard == crate::core::Discard::Old || may_be_old) && leads(&local.group);
    let purges = needless_through(&local).is_some_and(|index| may_purge(node, &local.group, index));
    if !trims && !purges {
        return;
    }
    let (group, clock) = (stream.group, node.clock.clone());
    busy.run(node, group, async move {
        if trims && let Err(error) = purge::retain(&local, &settings, clock.now()).await {
            tracing::debug!(group, %error, "retention has to wait");
        }
        if purges {
            purge_log(&local.group).await;
        }
    });
}

/// The last entry that no reader needs any more. All that is applied, where no event is left.
fn needless_through(local: &Local) -> Option<u64> {
    let applied = local.group.folded().applied_log_id().map(|id| id.index());
    let state = local.replica.current();
    if state.is_empty() { applied } else { local.replica.machine().needless_through() }
}

/// Whether the group's log can be purged, now that its entries up to the index are not needed.
fn may_purge(node: &Inner, group: &Group, needless: u64) -> bool {
    if let Err(error) = group.folded().allow_purge(needless, node.disk.is_short(node.id)) {
        tracing::warn!(group = group.id(), %error, "no checkpoint could be written");
    }
    group.folded().purgeable().is_some()
}

/// The catalog is what its log was folded into: nobody reads an entry again.
fn retain_catalog(node: &Arc<Inner>, busy: &Busy) {
    let Some(catalog) = node.catalog.get() else { return };
    let applied = catalog.folded().applied_log_id().map(|id| id.index());
    if applied.is_some_and(|applied| may_purge(node, &catalog, applied)) {
        busy.run(node, catalog.id(), async move { purge_log(&catalog).await });
    }
}

async fn purge_log(group: &Group) {
    if let Err(error) = group.purge().await {
        tracing::warn!(group = group.id(), %error, "the log could not be purged");
    }
}

/// At a leader whose disk is short of room: a replica that has room leads on.
fn make_way(node: &Arc<Inner>, stream: &Arc<Stream>, busy: &Busy) {
    let Some(local) = stream.local().filter(|local| node.disk.is_short(node.id) && leads(&local.group)) else { return };
    let alive = node.alive();
    let progress = local.group.progress();
    let fit = progress.iter().filter(|(id, progress)| {
        **id != node.id
            && progress.voter
            && alive.contains(*id)
            && !node.disk.is_short(**id)
            && progress.lag.is_some_and(|lag| lag <= LAG_MAX)
    });
    if let Some((best, _)) = fit.min_by_key(|(_, progress)| progress.lag) {
        let best = *best;
        hand_over(node, local, best, HandOver::Disk, stream, busy);
    }
}

/// At the leader: the members that the catalog wants, and then the leader that it prefers.
fn members(node: &Arc<Inner>, stream: &Arc<Stream>, busy: &Busy) {
    let Some(local) = stream.local() else { return };
    if !leads(&local.group) {
        return;
    }
    if !stream.record().has_begun() {
        return tell_begun(node, local.group, busy);
    }
    let placement = stream.placement();
    let wanted: BTreeSet<u64> = placement.iter().copied().collect();
    if !local.group.members_are(&wanted) {
        return change_members(node, &local.group, wanted, busy);
    }
    let Some(preferred) = placement.first().copied().filter(|preferred| *preferred != node.id) else { return };
    let progress = local.group.progress();
    let ready = progress.get(&preferred).is_some_and(|progress| progress.voter && progress.lag.is_some_and(|lag| lag <= LAG_MAX));
    if ready && is_settled(node, preferred) && !node.disk.is_short(preferred) {
        hand_over(node, local, preferred, HandOver::Placement, stream, busy);
    }
}

fn hand_over(node: &Arc<Inner>, local: Local, to: u64, why: HandOver, stream: &Stream, busy: &Busy) {
    let (node_too, name) = (node.clone(), stream.name.clone());
    busy.run(node, stream.group, async move {
        if let Err(error) = node_too.hand_over(&local, Some(to), why).await {
            tracing::debug!(stream = %name, %error, "the leader to be could not take over");
        }
    });
}

/// Tells the catalog that the group need not be begun any more: it has a leader whose first entry a quorum has.
fn tell_begun(node: &Arc<Inner>, group: Group, busy: &Busy) {
    let node_too = node.clone();
    busy.run(node, group.id(), async move {
        if group.confirm_leadership().await.is_ok()
            && let Err(error) = node_too.change_catalog(&Command::Begun { group: group.id() }).await
        {
            tracing::debug!(group = group.id(), %error, "the catalog does not know yet that the group has begun");
        }
    });
}

fn change_members(node: &Arc<Inner>, group: &Group, wanted: BTreeSet<u64>, busy: &Busy) {
    let (node_too, group) = (node.clone(), group.clone());
    busy.run(node, group.id(), async move {
        // The wait for a learner to catch up is as long as its log; a lost leadership ends it.
        let changed = match not_open(&node_too, &group, &wanted).await {
            // It has not heard of its place yet, or is damaged and has not begun anew: counting it in now could only wait for it.
            Some(id) => Err(format!("node {id} has not opened its replica")),
            None => group.change_members(&wanted).await,
        };
        if let Err(error) = changed {
            tracing::debug!(group = group.id(), %error, "the members could not be changed yet");
        }
    });
}

/// One of the new members that cannot take part yet.
async fn not_open(node: &Inner, group: &Group, wanted: &BTreeSet<u64>) -> Option<u64> {
    for id in wanted.iter().filter(|id| !group.is_voter(**id)) {
        if !node.ask_replica(*id, group.id()).await.is_some_and(|answer| answer.open) {
            return Some(*id);
        }
    }
    None
}

/// The catalog's members are all nodes that were not removed.
fn catalog_members(node: &Arc<Inner>, busy: &Busy) {
    let wanted: BTreeSet<u64> = node.directory.members().into_iter().map(|member| member.id).collect();
    let Some(catalog) = node.catalog.get() else { return };
    if leads(&catalog) && !wanted.is_empty() && !catalog.members_are(&wanted) {
        change_members(node, &catalog, wanted, busy);
    }
}

/// Whether the peer has been connected for a while and is not leaving.
fn is_settled(node: &Inner, id: u64) -> bool {
    let active = node.directory.node(id).is_some_and(|node| node.state == NodeState::Active);
    let peers = node.mesh.peers().borrow().clone();
    let connected = matches!(peers.get(&id), Some(PeerState::Connected { since, .. }) if since.elapsed() >= SETTLE);
    active && connected && node.stays(id)
}

/// When the spread was last found to be even, and for which nodes and streams.
#[derive(Default)]
struct Spread {
    seen: Option<Picture>,
    since: Option<Instant>,
    even: bool,
}

/// What an even spread depends on. A leadership that a person moved is not in it, and so is not moved back.
#[derive(Clone, PartialEq, Eq)]
struct Picture {
    nodes: BTreeMap<u64, NodeState>,
    alive: BTreeSet<u64>,
    /// Streams whose placement has not as many replicas as they should.
    odd: BTreeSet<u64>,
}

impl Spread {
    /// At the catalog's leader: once things have settled, moves a few replicas or leaderships towards evenness.
    async fn look(&mut self, node: &Arc<Inner>) {
        if node.catalog.current().mine.is_none() {
            *self = Spread::default();
            return;
        }
        let now = picture(node);
        if self.seen.as_ref() != Some(&now) {
            *self = Spread { seen: Some(now), since: Some(Instant::now()), even: false };
        }
        if self.even || self.since.is_none_or(|since| since.elapsed() < SETTLE) {
            return;
        }
        let moves = placement::rebalance(&node.directory.read(), &node.alive(), MOVES);
        // One that has not begun may still have to move once it has.
        let all_begun = node.directory.read().streams.values().all(StreamRecord::has_begun);
        self.even = moves.is_empty() && all_begun;
        for one in moves {
            let change = Command::SetPlacement { group: one.group, from: one.from, to: one.to };
            if node.propose_to_catalog(change.encode()).await.is_none() {
                return;
            }
        }
    }
}

fn picture(node: &Inner) -> Picture {
    let alive = node.alive();
    let catalog = node.directory.read();
    let odd = catalog.streams.values().filter(|record| record.placement.len() != usize::from(record.settings.replicas));
    Picture {
        nodes: catalog.nodes.iter().map(|(id, node)| (*id, node.state)).collect(),
        alive,
        odd: odd.map(|record| record.group).collect(),
    }
}
