//! Keeps this node's replicas as the catalog says: opens those that belong here, closes and deletes those that do not any more.
//!
//! Data is deleted only on positive knowledge: the stream was deleted, or the catalog places it elsewhere and its group no longer counts
//! this node as a member. A group that the catalog does not know stays where it is, closed.

use super::Inner;
use super::proposer::Proposer;
use super::replica::Replica;
use super::stream::{Local, Stream};
use crate::core::catalog::StreamRecord;
use futures_util::{StreamExt, stream};
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
    loop {
        changes.borrow_and_update();
        open_wanted(&node).await;
        close_unwanted(&node).await;
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = changes.changed() => (),
            _ = tokio::time::sleep(SWEEP) => (),
        }
    }
}

async fn open_wanted(node: &Arc<Inner>) {
    let wanted: Vec<StreamRecord> = {
        let catalog = node.directory.read();
        catalog.streams.values().filter(|record| is_new(node, record)).cloned().collect()
    };
    stream::iter(wanted).for_each_concurrent(OPENING, |record| open(node, record)).await;
}

/// Whether the record says something that this node has not acted on.
fn is_new(node: &Inner, record: &StreamRecord) -> bool {
    match node.stream_of_group(record.group) {
        Some(stream) => *stream.record() != *record || (record.placement.contains(&node.id) && stream.local().is_none()),
        None => record.placement.contains(&node.id),
    }
}

async fn open(node: &Arc<Inner>, record: StreamRecord) {
    let stream = node.handle(&record);
    if !record.placement.contains(&node.id) || stream.local().is_some() || node.stop.is_cancelled() {
        return;
    }
    let replica = Arc::new(Replica::default());
    let group = match node.groups.open(record.group, node.id, replica.clone()).await {
        Ok(group) => group,
        Err(failure) => return node.fail(failure),
    };
    let (clock, disk) = (node.clock.clone(), node.disk.clone());
    let proposer = Proposer::start(&node.runtime, &stream, group.clone(), replica.state(), clock, disk);
    stream.set_local(Some(Local { group: group.clone(), replica, proposer }));
    if record.initial.contains(&node.id) {
        node.tasks.spawn_on(begin(node.clone(), stream, record), &node.runtime);
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
        let record = {
            let catalog = node.directory.read();
            catalog.streams.get(&stream.name).filter(|record| record.group == stream.group).cloned()
        };
        match record {
            None => delete(node, &stream).await,
            Some(record) if !record.placement.contains(&node.id) => leave(node, &stream).await,
            Some(_) => (),
        }
    }
    sweep(node).await;
}

/// The stream was deleted.
async fn delete(node: &Arc<Inner>, stream: &Arc<Stream>) {
    stream.set_local(None);
    node.groups.close(stream.group).await;
    node.streams.write().expect("nobody panics while holding it").remove(&stream.group);
}

/// The stream lives elsewhere: this replica goes once its group counts it out. It may never hear of that by itself: nobody replicates
/// to somebody who is out. So the leader is asked.
async fn leave(node: &Arc<Inner>, stream: &Arc<Stream>) {
    let Some(local) = stream.local() else { return };
    if local.group.current().mine.is_some() {
        return;
    }
    let knows = !local.group.progress().is_empty() && !local.group.progress().contains_key(&node.id);
    if !knows && !node.leader_counts_out(stream, node.id).await {
        return;
    }
    stream.set_local(None);
    node.groups.close(stream.group).await;
}

/// Deletes the data of closed groups that the catalog knows to be deleted or placed elsewhere.
async fn sweep(node: &Arc<Inner>) {
    let leftovers: Vec<u64> = {
        let catalog = node.directory.read();
        let known = |group: &u64| *group != 0 && *group < catalog.next_group;
        let placed_here = |group: &u64| catalog.stream_of_group(*group).is_some_and(|record| record.placement.contains(&node.id));
        node.store.groups().into_iter().filter(|group| known(group) && !placed_here(group) && node.groups.get(*group).is_none()).collect()
    };
    for group in leftovers {
        let before = Instant::now();
        match node.store.drop_group(group) {
            Ok(dropped) => match dropped.await {
                Ok(()) => tracing::info!(group, took = ?before.elapsed(), "the replica's data was deleted"),
                Err(error) => tracing::warn!(group, %error, "the replica's data could not be deleted"),
            },
            Err(error) => tracing::warn!(group, %error, "the replica's data could not be deleted"),
        }
    }
}
