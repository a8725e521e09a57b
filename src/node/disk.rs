//! Whose disk is nearly full: this node's, as the store sees it, and the peers', as they tell.
//!
//! A node that is *short* of room takes no publishes as a leader and hands its leaderships to replicas with room; one that is *full*
//! refuses new entries as a follower as well (`cluster::Groups`), and catches up later. Trims, purges, deletions and membership go
//! through: they make room. A stream whose replicas with room are no majority takes no publishes anywhere, so that every node keeps
//! what votes and repairs need.

use super::proposer::Failure;
use super::remote;
use super::{DiskLevel, Inner};
use crate::cluster::mesh::{Lane, PeerState};
use crate::core::codec::Corrupt;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a peer may take to hear it; then it is told again.
const TELL_WAIT: Duration = Duration::from_secs(2);
/// Pause before telling again who has not heard, and before trying again to give up the catalog.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// - `anyone` is false only while nobody is short, so that a publish costs nothing then.
pub struct Disk {
    me: u64,
    /// By node; one that is not here has enough, as far as is known.
    levels: watch::Sender<BTreeMap<u64, DiskLevel>>,
    anyone: AtomicBool,
    reachable: std::sync::RwLock<BTreeSet<u64>>,
}

impl Disk {
    pub fn new(me: u64, own: DiskLevel) -> Disk {
        let disk = Disk { me, levels: watch::Sender::default(), anyone: AtomicBool::new(false), reachable: Default::default() };
        disk.set(me, own);
        disk
    }

    pub fn level(&self, node: u64) -> DiskLevel {
        self.levels.borrow().get(&node).copied().unwrap_or_default()
    }

    pub fn is_short(&self, node: u64) -> bool {
        self.anyone.load(Relaxed) && self.level(node) != DiskLevel::Enough
    }

    /// Changes when somebody's level does.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<u64, DiskLevel>> {
        self.levels.subscribe()
    }

    /// Gives the level before.
    fn set(&self, node: u64, level: DiskLevel) -> DiskLevel {
        let mut before = DiskLevel::Enough;
        self.levels.send_if_modified(|levels| {
            before = levels.insert(node, level).unwrap_or_default();
            self.anyone.store(levels.values().any(|level| *level != DiskLevel::Enough), Relaxed);
            before != level
        });
        before
    }

    /// Forgets the nodes that are no peers any more.
    fn keep_only(&self, known: impl Fn(u64) -> bool) {
        self.levels.send_if_modified(|levels| {
            levels.retain(|id, _| *id == self.me || known(*id));
            self.anyone.store(levels.values().any(|level| *level != DiskLevel::Enough), Relaxed);
            false
        });
    }

    fn set_reachable(&self, nodes: BTreeSet<u64>) {
        *self.reachable.write().expect("nobody panics while holding it") = nodes;
    }

    /// Why this leader must not take publishes of a stream with such replicas, if it must not.
    pub fn refusal(&self, placement: impl FnOnce() -> Vec<u64>) -> Option<Failure> {
        if !self.anyone.load(Relaxed) {
            return None;
        }
        let levels = self.levels.borrow().clone();
        let short = |id: &u64| levels.get(id).is_some_and(|level| *level != DiskLevel::Enough);
        let replicas = placement();
        if !replicas.iter().any(short) {
            return None;
        }
        let reachable = self.reachable.read().expect("nobody panics while holding it");
        // One that is not there does not count: what it cannot take now, those that are short would have to.
        let fit = replicas.iter().filter(|id| !short(id) && (**id == self.me || reachable.contains(*id))).count();
        match (fit > replicas.len() / 2, short(&self.me)) {
            (false, _) => Some(Failure::DiskFull),
            // Somebody else will lead in a moment.
            (true, true) => Some(Failure::NotAccepted),
            (true, false) => None,
        }
    }
}

/// Follows the store and tells the peers, until the node stops.
pub async fn run(node: Arc<Inner>) {
    tokio::join!(follow_own(&node), follow_peers(&node));
}

/// Never waits for a peer: what this node refuses must follow its disk at once.
async fn follow_own(node: &Inner) {
    let mut space = node.store.space();
    loop {
        let own = *space.borrow_and_update();
        if node.disk.set(node.id, own.level) != own.level {
            announce(node, &own);
        }
        if own.level != DiskLevel::Enough {
            give_up_catalog(node).await;
        }
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = space.changed() => (),
            _ = tokio::time::sleep(LOOK_EVERY), if own.level != DiskLevel::Enough => (),
        }
    }
}

/// Tells every peer once in each of its connections, and again at every change.
async fn follow_peers(node: &Inner) {
    let mut peers = node.mesh.peers();
    let mut changes = node.disk.changes();
    let mut told: BTreeMap<u64, (Instant, DiskLevel)> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let states = peers.borrow_and_update().clone();
        let connected = connected(&states);
        node.disk.set_reachable(connected.keys().copied().collect());
        node.disk.keep_only(|id| states.contains_key(&id));
        let own = node.disk.level(node.id);
        told.retain(|id, heard| connected.get(id) == Some(&heard.0) && heard.1 == own);
        let news = connected.into_iter().filter(|(id, _)| !told.contains_key(id));
        let heard = news.map(|(id, since)| async move { tell(node, id, own).await.then_some((id, (since, own))) });
        let heard: Vec<_> = heard.collect();
        let all_told = tokio::select! {
            _ = node.stop.cancelled() => return,
            heard = join_all(heard) => {
                let asked = heard.len();
                let before = told.len();
                told.extend(heard.into_iter().flatten());
                told.len() == before + asked
            }
        };
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = peers.changed() => (),
            _ = changes.changed() => (),
            _ = tokio::time::sleep(LOOK_EVERY), if !all_told => (),
        }
    }
}

fn connected(peers: &crate::cluster::mesh::PeerStates) -> BTreeMap<u64, Instant> {
    let connected = peers.iter().filter_map(|(id, state)| match state {
        PeerState::Connected { since, .. } => Some((*id, *since)),
        PeerState::Down { .. } => None,
    });
    connected.collect()
}

async fn tell(node: &Inner, peer: u64, level: DiskLevel) -> bool {
    let deadline = Instant::now() + TELL_WAIT;
    node.mesh.call(peer, Lane::Consensus, remote::method::DISK, encode(level), deadline).await.is_ok()
}

fn announce(node: &Inner, space: &crate::store::Space) {
    let (name, free, reserve) = (&node.name, space.free >> 20, space.reserve >> 20);
    match space.level {
        DiskLevel::Enough => tracing::info!(target: "evermesh::events", "{name} has room on its disk again: {free} MiB"),
        DiskLevel::Short => tracing::warn!(
            target: "evermesh::events",
            "{name} is short of room on its disk, {free} MiB with a reserve of {reserve} MiB: others with room lead, and it takes no publishes itself"
        ),
        DiskLevel::Full => tracing::warn!(
            target: "evermesh::events",
            "{name} has next to no room on its disk, {free} MiB with a reserve of {reserve} MiB: it takes no new entries until it has more"
        ),
    }
}

/// The catalog's leader changes it, which needs room as well.
async fn give_up_catalog(node: &Inner) {
    if node.catalog.current().mine.is_some() && node.others_alive().any(|id| !node.disk.is_short(id)) {
        node.hand_over_catalog().await;
    }
}

/// A peer says how its disk is doing.
pub fn hear(node: &Inner, from: u64, body: Bytes) -> super::Result<Bytes> {
    let level = decode(body)?;
    let before = node.disk.set(from, level);
    if before != level {
        tracing::debug!(peer = from, ?level, "a peer's disk");
    }
    Ok(remote::writer(0).finish())
}

fn encode(level: DiskLevel) -> Bytes {
    let mut w = remote::writer(1);
    w.u8(match level {
        DiskLevel::Enough => 0,
        DiskLevel::Short => 1,
        DiskLevel::Full => 2,
    });
    w.finish()
}

fn decode(body: Bytes) -> Result<DiskLevel, Corrupt> {
    let mut r = remote::reader("a disk's level", body)?;
    match r.u8()? {
        0 => Ok(DiskLevel::Enough),
        1 => Ok(DiskLevel::Short),
        2 => Ok(DiskLevel::Full),
        _ => Err(r.corrupt("the level is not known to this build")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_needs_a_majority_with_room() {
        let check = |me: u64, short: &[u64], down: &[u64], replicas: &[u64], expected: Option<Failure>| {
            let disk = Disk::new(me, DiskLevel::Enough);
            for id in short {
                disk.set(*id, DiskLevel::Short);
            }
            disk.set_reachable((1..=5).filter(|id| *id != me && !down.contains(id)).collect());
            assert_eq!(disk.refusal(|| replicas.to_vec()), expected, "{me} {short:?} {down:?} {replicas:?}");
        };
        check(1, &[], &[], &[1, 2, 3], None);
        check(1, &[], &[2, 3], &[1, 2, 3], None);
        check(1, &[2], &[], &[1, 2, 3], None);
        check(1, &[4], &[2], &[1, 2, 3], None);
        check(1, &[1], &[], &[1, 2, 3], Some(Failure::NotAccepted));
        check(1, &[1, 2], &[], &[1, 2, 3], Some(Failure::DiskFull));
        check(1, &[2, 3], &[], &[1, 2, 3], Some(Failure::DiskFull));
        check(1, &[2], &[3], &[1, 2, 3], Some(Failure::DiskFull));
        check(1, &[1], &[], &[1], Some(Failure::DiskFull));
        check(1, &[2, 3], &[], &[1, 2, 3, 4, 5], None);
    }

    #[test]
    fn levels_have_fixed_bytes() {
        for (level, bytes) in [(DiskLevel::Enough, [1, 0]), (DiskLevel::Short, [1, 1]), (DiskLevel::Full, [1, 2])] {
            assert_eq!(encode(level)[..], bytes);
            assert_eq!(decode(encode(level)), Ok(level));
        }
        for bad in [&[][..], &[1], &[1, 3], &[2, 0]] {
            assert!(decode(Bytes::copy_from_slice(bad)).is_err());
        }
    }
}
