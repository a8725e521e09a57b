//! Keeps this node's replicas as the catalog says: opens those that belong here and are awake, closes and deletes those that do not any more.
//!
//! Data is deleted only on positive knowledge: the stream was deleted, or the catalog places it elsewhere and its group no longer counts
//! this node as a member. A group that the catalog does not know stays where it is, closed.

use super::directory::News;
use super::lifecycle::CATALOG;
use super::proposer::Proposer;
use super::replica::Replica;
use super::stream::{Local, Stream};
use super::{Inner, rebuild, sleep};
use crate::core::catalog::{Catalog, StreamRecord};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Groups that are opened at a time.
const OPENING: usize = 16;
/// How long the preferred leader alone may begin a new group; then any first member does.
const FIRST_TURN: Duration = Duration::from_secs(2);
/// How often leftovers are looked at when the catalog does not change.
const SWEEP: Duration = Duration::from_secs(2);

/// Follows the catalog until the node stops.
pub async fn run(node: Arc<Inner>) {
    let mut changes = node.directory.changes();
    let mut sweep_at = Instant::now();
    loop {
        changes.borrow_and_update();
        let news = node.directory.news();
        if news.other || Instant::now() >= sweep_at {
            look_at_all(&node).await;
            sweep_at = Instant::now() + SWEEP;
        } else {
            look_at(&node, news).await;
        }
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = changes.changed() => (),
            _ = tokio::time::sleep_until(sweep_at) => (),
        }
    }
}

async fn look_at_all(node: &Arc<Inner>) {
    let wanted = wanted(node);
    stream::iter(wanted).for_each_concurrent(OPENING, |record| open(node, record)).await;
    close_unwanted(node).await;
}

/// Acts on what changed, and looks at nothing else: thousands of streams are created one after the other.
async fn look_at(node: &Arc<Inner>, news: News) {
    let created = news.created.iter().filter_map(|name| node.directory.stream(name));
    let changed: Vec<Arc<Stream>> = news.changed.iter().filter_map(|group| node.stream_of_group(*group)).collect();
    let records = created.chain(changed.iter().filter_map(|stream| node.directory.stream(&stream.name)));
    let records: Vec<StreamRecord> = records.filter(|record| is_new(node, record)).collect();
    stream::iter(records).for_each_concurrent(OPENING, |record| open(node, record)).await;
    for stream in changed {
        close_elsewhere(node, &stream).await;
    }
}

fn wanted(node: &Inner) -> Vec<StreamRecord> {
    let catalog = node.directory.read();
    catalog.streams.values().filter(|record| is_new(node, record)).cloned().collect()
}

fn holds(node: &Inner, record: &StreamRecord) -> bool {
    record.placement.contains(&node.id) || holds_data(node, record.group)
}

/// Whether the record says something that this node has not acted on.
fn is_new(node: &Inner, record: &StreamRecord) -> bool {
    match node.stream_of_group(record.group) {
        Some(stream) => *stream.record() != *record || (stream.local().is_none() && stream.is_awake() && holds(node, record)),
        None => holds(node, record),
    }
}

/// Whether there is data here of a group that may still count on this node.
fn holds_data(node: &Inner, group: u64) -> bool {
    let left = node.left.lock().expect("nobody panics while holding it").contains(&group);
    !left && node.store.has_group(group)
}

/// Acts on what the catalog says of a stream.
async fn open(node: &Arc<Inner>, record: StreamRecord) {
    let stream = node.handle(&record);
    if !record.placement.contains(&node.id) {
        // What is kept here has to learn whether it may go.
        stream.wake();
    }
    let _opening = stream.opening().await;
    if stream.is_awake() {
        open_here(node, &stream, record).await;
    }
}

/// Opens the replica here if it sleeps, wherever it is needed.
pub async fn wake(node: &Arc<Inner>, stream: &Arc<Stream>) {
    let _opening = stream.opening().await;
    stream.wake();
    open_here(node, stream, (*stream.record()).clone()).await;
}

/// One opening of a stream at a time.
async fn open_here(node: &Arc<Inner>, stream: &Arc<Stream>, record: StreamRecord) {
    if !holds(node, &record) || stream.local().is_some() || node.stop.is_cancelled() || node.fence_of(record.group).is_some() {
        return;
    }
    // Whoever holds the handle of a stream that was deleted meanwhile would open what nobody closes any more.
    if is_deleted(node, stream) {
        return;
    }
    if !rebuild::return_quietly(node, record.group).await {
        return;
    }
    let quiet_until = node.anew(record.group).flatten();
    let replica = Arc::new(Replica::default());
    let group = match node.groups.open(record.group, node.id, quiet_until, replica.clone()).await {
        Ok(group) => group,
        // It was found damaged just now, and will be made anew.
        Err(_) if node.fence_of(record.group).is_some() => return,
        Err(failure) => return node.fail(failure),
    };
    let proposer = Proposer::start(node, stream, group.clone(), replica.state());
    stream.set_local(Some(Local { group, replica, proposer }));
    if record.has_begun() {
        let (node_too, stream) = (node.clone(), stream.clone());
        node.tasks.spawn_on(async move { sleep::rouse(&node_too, &stream, true).await }, &node.runtime);
    }
    // A replica that was begun anew here gets its log from the others, and never begins the group a second time.
    if record.initial.contains(&node.id) && node.anew(record.group).is_none() {
        node.tasks.spawn_on(begin(node.clone(), stream.clone(), record), &node.runtime);
    }
}

/// Begins a new group with its first members: the preferred leader at once, the others if it does not.
async fn begin(node: Arc<Inner>, stream: Arc<Stream>, record: StreamRecord) {
    if !is_to_begin(&node, &record).await {
        return;
    }
    let Some(local) = stream.local() else { return };
    if record.initial.first() != Some(&node.id) {
        let mut leadership = local.group.leadership();
        let begun = leadership.wait_for(|now| now.leader.is_some());
        let begun = tokio::time::timeout(FIRST_TURN, begun).await.is_ok();
        if begun || node.stop.is_cancelled() {
            return;
        }
    }
    // A replica that came back to where its group once began, or lost what it had, must not begin it a second time.
    let others = [&record.initial[..], &record.placement[..]].concat();
    let alive = node.alive();
    let others: Vec<u64> = others.into_iter().filter(|id| *id != node.id && alive.contains(id)).collect();
    if node.ask_replicas(&others, record.group).await.into_values().flatten().any(|answer| answer.begun) {
        return;
    }
    if !local.group.is_initialized().await
        && let Err(error) = local.group.initialize(&record.initial).await
    {
        tracing::warn!(stream = %stream.name, %error, "the new stream's group could not begin");
    }
}

/// Whether the newest catalog still waits for this node to begin the group. After a restart the catalog here may be an older one: what
/// began here then may have moved away since, with everything in it, and must not begin again without.
async fn is_to_begin(node: &Inner, record: &StreamRecord) -> bool {
    loop {
        tokio::select! {
            _ = node.stop.cancelled() => return false,
            caught_up = node.catch_up_catalog() => if caught_up.is_ok() { break },
        }
    }
    node.directory.stream(&record.name).is_some_and(|now| now.group == record.group && now.initial.contains(&node.id))
}

async fn close_unwanted(node: &Arc<Inner>) {
    let open: Vec<Arc<Stream>> = node.streams.read().expect("nobody panics while holding it").values().cloned().collect();
    for stream in open {
        close_elsewhere(node, &stream).await;
    }
    sweep(node).await;
}

/// Whether the catalog here knows that the stream is no more.
fn is_deleted(node: &Inner, stream: &Stream) -> bool {
    let catalog = node.directory.read();
    record_of(&catalog, stream).is_none() && stream.group < catalog.next_group
}

/// What the catalog says of this very stream; another one may have its name by now.
fn record_of<'a>(catalog: &'a Catalog, stream: &Stream) -> Option<&'a StreamRecord> {
    catalog.streams.get(&stream.name).filter(|record| record.group == stream.group)
}

/// Closes the replica here if the stream was deleted, or lives elsewhere.
async fn close_elsewhere(node: &Arc<Inner>, stream: &Arc<Stream>) {
    let is_placed_here = {
        let catalog = node.directory.read();
        record_of(&catalog, stream).map(|record| record.placement.contains(&node.id))
    };
    match is_placed_here {
        None => delete(node, stream).await,
        Some(false) => leave(node, stream).await,
        Some(true) => (),
    }
}

/// The stream was deleted.
async fn delete(node: &Arc<Inner>, stream: &Arc<Stream>) {
    close(node, stream).await;
    node.streams.write().expect("nobody panics while holding it").remove(&stream.group);
    if node.store.has_group(stream.group) {
        clear_away(node, stream.group).await;
    }
}

/// The stream lives elsewhere: this replica goes once its group counts it out. It may never hear of that by itself: nobody replicates
/// to somebody who is out. So the leader is asked; and again once the replica is closed, when nothing of it can be counted any more.
async fn leave(node: &Arc<Inner>, stream: &Arc<Stream>) {
    let Some(local) = stream.local() else { return };
    if local.group.current().mine.is_some() {
        return;
    }
    let knows = !local.group.progress().is_empty() && !local.group.progress().contains_key(&node.id);
    if !knows && !node.leader_counts_out(stream, node.id).await {
        return;
    }
    close(node, stream).await;
    settle(node, stream.group).await;
}

/// Closes the replica here; not while somebody opens it.
async fn close(node: &Inner, stream: &Stream) {
    let _opening = stream.opening().await;
    stream.set_local(None);
    node.groups.close(stream.group).await;
}

/// Makes sure that a closed group does not count this node. If nobody can say so now, it is opened again.
async fn settle(node: &Inner, group: u64) {
    if rebuild::ask_out(node, group).await.is_ok() {
        node.left.lock().expect("nobody panics while holding it").insert(group);
    }
}

/// Deletes the data of closed groups whose stream was deleted, or that count this node out.
///
/// A stream that is not in the catalog, with a group that was given out, was deleted: that is as true of an older catalog as of the
/// newest. That it is placed elsewhere says nothing about its group's members, so their leader must have.
async fn sweep(node: &Arc<Inner>) {
    let fenced: Vec<u64> = node.store.fences().borrow().groups.keys().copied().collect();
    let closed = node.store.groups().into_iter().chain(fenced).filter(|group| *group != CATALOG && node.groups.get(*group).is_none());
    let closed: BTreeSet<u64> = closed.collect();
    let here: BTreeSet<u64> = {
        let catalog = node.directory.read();
        catalog.streams.values().filter(|record| record.placement.contains(&node.id)).map(|record| record.group).collect()
    };
    node.left.lock().expect("nobody panics while holding it").retain(|group| !here.contains(group));
    for group in closed.difference(&here) {
        clear_away(node, *group).await;
    }
}

/// Deletes the data of one closed group, if it may go. Whoever was asked to wake it before it was counted out may be opening it still:
/// then it is closed again first, in its turn.
async fn clear_away(node: &Inner, group: u64) {
    let is_where = || {
        let catalog = node.directory.read();
        let record = catalog.stream_of_group(group);
        (record.is_none() && group < catalog.next_group, record.is_some_and(|record| !record.placement.contains(&node.id)))
    };
    let (_, elsewhere) = is_where();
    if elsewhere && node.fence_of(group).is_some() {
        settle(node, group).await;
    }
    let stream = node.stream_of_group(group);
    let _opening = match &stream {
        Some(stream) => Some(stream.opening().await),
        None => None,
    };
    if node.groups.get(group).is_some() {
        return;
    }
    let (deleted, elsewhere) = is_where();
    let left = node.left.lock().expect("nobody panics while holding it").contains(&group);
    if deleted || (elsewhere && left) {
        remove(node, group, deleted).await;
    }
}

async fn remove(node: &Inner, group: u64, deleted: bool) {
    let before = Instant::now();
    // A group that lives on may come back here, and must then not take itself for the member that it was.
    let remember = |anew: &mut BTreeMap<u64, Option<u64>>| match deleted {
        true => anew.remove(&group).is_some(),
        false => anew.insert(group, None) != Some(None),
    };
    if let Err(error) = node
        .change_identity(|identity| {
            remember(&mut identity.anew);
        })
        .await
    {
        return tracing::warn!(group, %error, "the replica's data could not be deleted");
    }
    let removed = match node.fence_of(group) {
        Some(_) => node.store.begin_anew(group),
        None => node.store.drop_group(group),
    };
    let removed = match removed {
        Ok(durable) => durable.await,
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => tracing::info!(group, took = ?before.elapsed(), "the replica's data was deleted"),
        Err(error) => tracing::warn!(group, %error, "the replica's data could not be deleted"),
    }
}
