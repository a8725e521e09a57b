//! What ends a group by itself, and what of it ends the node: damage is fenced, a panic is tried again, a disk that fails stops all.

use super::lifecycle::CATALOG;
use super::{Inner, rebuild};
use crate::cluster::{Ended, Failure};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A group that ends by itself so many times within so long ends the node: opening it again does not help.
const ENDINGS_MAX: usize = 3;
const ENDINGS_WITHIN: Duration = Duration::from_secs(60);

/// Follows the groups' ends and the disk until the node stops or must stop.
pub async fn watch(node: Arc<Inner>, mut ended: mpsc::Receiver<Ended>) {
    let mut disk = node.store.failed();
    let mut endings: HashMap<u64, Vec<Instant>> = HashMap::new();
    loop {
        let failure = tokio::select! {
            _ = node.stop.cancelled() => return,
            Some(ended) = ended.recv() => after_end(&node, ended, &mut endings).await,
            why = disk_failure(&mut disk) => Some(Failure { group: CATALOG, why }),
        };
        if let Some(failure) = failure {
            return node.fail(failure);
        }
    }
}

/// Resolves with the first fault of the disk.
async fn disk_failure(disk: &mut watch::Receiver<Option<crate::store::Error>>) -> String {
    let failed = disk.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
    match failed {
        Some(error) => error.to_string(),
        None => std::future::pending().await,
    }
}

/// Opens a group again that ended by itself, unless the node must stop, or the group is fenced: then it is rebuilt.
async fn after_end(node: &Arc<Inner>, ended: Ended, endings: &mut HashMap<u64, Vec<Instant>>) -> Option<Failure> {
    let Ended { group, opening, why } = ended;
    if node.groups.get(group).is_none_or(|open| open.opening() != opening || open.is_retired()) {
        // It was closed meanwhile, or opened again.
        return None;
    }
    let failed = node.store.failed().borrow().clone();
    if let Some(error) = failed {
        return Some(Failure { group, why: error.to_string() });
    }
    if node.fence_of(group).is_some() {
        return None;
    }
    let endings = endings.entry(group).or_default();
    endings.retain(|at| at.elapsed() < ENDINGS_WITHIN);
    endings.push(Instant::now());
    if endings.len() >= ENDINGS_MAX {
        let why = format!("{} ended {ENDINGS_MAX} times within {} s: {why}", node.name_of(group), ENDINGS_WITHIN.as_secs());
        return Some(Failure { group, why });
    }
    tracing::error!(group, "{} ended and is opened again: {why}", node.name_of(group));
    rebuild::close(node, group).await;
    rebuild::open(node, group).await;
    None
}

impl Inner {
    /// A fault of this node: its process must end.
    pub fn fail(&self, failure: Failure) {
        tracing::error!(group = failure.group, "this node must stop: {}", failure.why);
        self.failed.send_if_modified(|failed| failed.is_none() && failed.replace(failure).is_none());
    }
}
