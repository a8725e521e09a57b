//! The cluster as this node sees it, and what an operator does to it.

use super::catalog::rejected;
use super::error::{Error, Result};
use super::lifecycle::CATALOG;
use super::remote::{self, method};
use super::streams::LAG_OK;
use super::types::{ClusterInfo, NodeInfo, Readiness};
use super::{Inner, Node};
use crate::cluster::Group;
use crate::cluster::mesh::{Lane, PeerState};
use crate::core::NodeName;
use crate::core::catalog::{Command, NodeState, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest wait for the other nodes to say how they are.
const HEALTH_WAIT: Duration = Duration::from_millis(500);
/// Longest wait for changes of the catalog's voters before a node may go, and how often it is looked at.
const VOTERS_WAIT: Duration = Duration::from_secs(5);
const VOTERS_LOOK: Duration = Duration::from_millis(20);

impl Node {
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        let node = &self.inner;
        let catalog_leader = node.catalog.current().leader;
        node.ask_health().await;
        Ok(ClusterInfo {
            cluster: format!("{:032x}", node.cluster),
            node: node.name.clone(),
            catalog_leader: catalog_leader.map(|id| node.node_name(id)),
            nodes: node.counted(node.picture()),
        })
    }

    /// Takes leaderships, and where other nodes have room replicas, away from a node that will be stopped. A restart ends it.
    pub async fn drain(&self, name: &NodeName) -> Result<()> {
        let id = self.inner.node_id(name)?;
        let others = self.inner.active().into_iter().filter(|other| *other != id).count();
        if others == 0 {
            return Err(Error::Conflict(format!("{name} is the last active node")));
        }
        self.inner.set_node_state(id, name, NodeState::Draining).await
    }

    /// Takes a node out of the cluster for good: its replicas are made anew elsewhere, and its id is never used again.
    pub async fn remove(&self, name: &NodeName) -> Result<()> {
        let id = self.inner.node_id(name)?;
        let members: Vec<u64> = self.inner.directory.members().iter().map(|node| node.id).collect();
        if members.len() == 1 {
            return Err(Error::Conflict(format!("{name} is the last node")));
        }
        let reachable = self.inner.alive();
        let left: Vec<u64> = members.iter().copied().filter(|other| *other != id).collect();
        // Now to decide it, and afterwards to go on.
        let quorum = |nodes: &[u64]| nodes.iter().filter(|id| reachable.contains(id)).count() > nodes.len() / 2;
        if !quorum(&members) || !quorum(&left) {
            return Err(Error::NoQuorum("too few of the other nodes can be reached to take one out".into()));
        }
        self.inner.catch_up_catalog().await?;
        self.inner.wait_for_voters().await?;
        if reachable.contains(&id) {
            self.inner.check_dispensable(id, name, &reachable)?;
        }
        if id == self.inner.id {
            // From its removal on nobody listens to it any more.
            self.inner.hand_over_catalog().await;
        }
        self.inner.set_node_state(id, name, NodeState::Removed).await
    }

    pub fn readiness(&self) -> Readiness {
        let node = &self.inner;
        if *node.leaving.borrow() {
            return Readiness::Draining;
        }
        if let Some(out) = node.rebuilds.get(CATALOG) {
            let stuck = out.stuck.map(|stuck| format!("; {stuck}")).unwrap_or_default();
            return Readiness::Rebuilding(format!("rebuilding: {}{stuck}", out.why));
        }
        if !node.catalog.get().is_some_and(|group| has_quorum(&group, &node.alive())) {
            return Readiness::NoQuorum("the catalog has no leader or no majority in reach".into());
        }
        if node.directory.node(node.id).is_none() {
            return Readiness::Starting("waiting for the catalog".into());
        }
        let (opening, stuck) = node.unready_streams();
        if opening > 0 {
            return Readiness::Starting(format!("{opening} replicas are opening"));
        }
        match stuck {
            0 => Readiness::Ready,
            _ => Readiness::NoQuorum(format!("{stuck} of the streams held here have no leader or no majority in reach")),
        }
    }

    /// Changes whenever a node comes, goes or changes its address or reachability; what it leads and holds is not counted here.
    pub fn nodes(&self) -> watch::Receiver<Arc<Vec<NodeInfo>>> {
        self.inner.nodes.subscribe()
    }

    /// Becomes true when this node drains or stops: long-lived connections then say goodbye.
    pub fn leaving(&self) -> watch::Receiver<bool> {
        self.inner.leaving.subscribe()
    }

    /// Prometheus text.
    pub fn metrics_text(&self) -> String {
        self.inner.metrics.text(&self.inner)
    }
}

impl Inner {
    /// Whether every stream of a node that lives has a quorum without it. One that is dead already makes no difference.
    fn check_dispensable(&self, id: u64, name: &NodeName, reachable: &BTreeSet<u64>) -> Result<()> {
        let catalog = self.directory.read();
        let stays = |other: &&u64| {
            **other != id && reachable.contains(*other) && catalog.nodes.get(*other).is_some_and(|node| node.state != NodeState::Removed)
        };
        let needs = |placement: &[u64]| placement.contains(&id) && placement.iter().filter(stays).count() <= placement.len() / 2;
        let mut needing = catalog.streams.values().filter(|stream| needs(&stream.placement));
        match (needing.next(), needing.count()) {
            (None, _) => Ok(()),
            (Some(stream), more) => {
                let others = if more > 0 { format!(" and {more} more streams") } else { String::new() };
                Err(Error::Conflict(format!(
                    "{}{others} would have no quorum without {name}: drain it first, or wait for their replicas",
                    stream.name
                )))
            }
        }
    }

    /// Waits until the catalog's voters are the members that can be reached, nobody who was removed, and no change of them is under way. A
    /// node that is removed stops: one that votes alone, in one half of a change too, or two at a time, would take the majority along.
    async fn wait_for_voters(&self) -> Result<()> {
        let deadline = Instant::now() + VOTERS_WAIT;
        while !self.catalog.get().is_some_and(|catalog| self.all_vote(&catalog)) {
            if Instant::now() >= deadline {
                return Err(Error::NoQuorum("other nodes are still on their way in or out of the catalog".into()));
            }
            tokio::time::sleep(VOTERS_LOOK).await;
        }
        Ok(())
    }

    fn all_vote(&self, catalog: &Group) -> bool {
        let members: BTreeSet<u64> = self.directory.members().iter().map(|member| member.id).collect();
        let voters = catalog.voters();
        let nobody_else = catalog.progress().keys().all(|id| members.contains(id));
        nobody_else && catalog.has_settled() && members.intersection(&self.alive()).all(|id| voters.contains(id))
    }

    pub async fn set_node_state(&self, id: u64, name: &NodeName, state: NodeState) -> Result<()> {
        match self.change_catalog(&Command::SetNodeState { id, state }).await? {
            Outcome::Rejected(reject) => Err(rejected(reject, name.as_str())),
            _ => Ok(()),
        }
    }

    /// How many replicas that belong here are not open, and how many open ones have no quorum.
    fn unready_streams(&self) -> (usize, usize) {
        let catalog = self.directory.read();
        let alive = self.alive();
        let mine = catalog.streams.values().filter(|record| record.placement.contains(&self.id));
        mine.fold((0, 0), |(opening, stuck), record| {
            // What is damaged is served by the other replicas.
            if self.is_out(record.group) {
                return (opening, stuck);
            }
            let stream = self.stream_of_group(record.group);
            let reachable = || record.has_majority_in(&alive);
            let ready = match stream.as_ref().and_then(|stream| stream.local()) {
                Some(local) => Some(has_quorum(&local.group, &alive)),
                None => stream.filter(|stream| self.is_asleep(stream)).map(|_| reachable()),
            };
            match ready {
                None => (opening + 1, stuck),
                Some(false) => (opening, stuck + 1),
                Some(true) => (opening, stuck),
            }
        })
    }

    /// Asks every node that can be reached how many of its replicas are not whole, for the next pictures.
    async fn ask_health(&self) {
        let deadline = Instant::now() + HEALTH_WAIT;
        let peers = self.others_alive();
        let asked = peers.map(|id| async move {
            let answer = self.mesh.call(id, Lane::Bulk, method::HEALTH, bytes::Bytes::new(), deadline).await.ok()?;
            Some((id, remote::decode_health(answer).ok()?))
        });
        let mut answers: BTreeMap<u64, (u64, u64)> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        answers.insert(self.id, self.rebuilds.counts());
        self.health.lock().expect("nobody panics while holding it").append(&mut answers);
    }

    /// The same with what each node leads and holds: a look at all streams.
    fn counted(&self, mut nodes: Vec<NodeInfo>) -> Vec<NodeInfo> {
        let (led, held) = self.counts();
        let behind = self.behind();
        for node in &mut nodes {
            node.replicas_behind = behind.get(&node.id).copied().unwrap_or(0);
            node.streams_led = led.get(&node.id).copied().unwrap_or(0);
            node.streams_held = held.get(&node.id).copied().unwrap_or(0);
        }
        nodes
    }

    /// Every node that was not removed; what it leads and holds is not counted.
    pub fn picture(&self) -> Vec<NodeInfo> {
        let alive = self.alive();
        let health = self.health.lock().expect("nobody panics while holding it").clone();
        let health = |id: u64| if id == self.id { self.rebuilds.counts() } else { health.get(&id).copied().unwrap_or_default() };
        let versions = self.mesh.peers().borrow().clone();
        let members = self.directory.members().into_iter();
        let info = members.map(|node| NodeInfo {
            reachable: alive.contains(&node.id),
            version: match versions.get(&node.id) {
                Some(PeerState::Connected { version, .. }) => version.to_string(),
                _ => node.version,
            },
            streams_led: 0,
            streams_held: 0,
            disk: self.disk.level(node.id),
            replicas_damaged: health(node.id).0,
            replicas_rebuilding: health(node.id).1,
            replicas_behind: 0,
            id: node.id,
            name: node.name,
            url: node.url,
            state: node.state,
        });
        info.collect()
    }

    /// Replicas that are behind in the streams led here, by node.
    fn behind(&self) -> BTreeMap<u64, u64> {
        let mut behind = BTreeMap::new();
        for group in self.groups.all().iter().filter(|group| group.id() != CATALOG) {
            for id in group.behind(LAG_OK) {
                *behind.entry(id).or_default() += 1;
            }
        }
        behind
    }

    /// Streams led and held, by node. Of a stream without a replica here the preferred leader is taken for the leader.
    fn counts(&self) -> (BTreeMap<u64, u64>, BTreeMap<u64, u64>) {
        let (mut led, mut held) = (BTreeMap::new(), BTreeMap::new());
        let catalog = self.directory.read();
        for record in catalog.streams.values() {
            let local = self.stream_of_group(record.group).and_then(|stream| stream.local());
            let leader = match local {
                Some(local) => local.group.current().leader,
                None => record.placement.first().copied(),
            };
            if let Some(leader) = leader {
                *led.entry(leader).or_default() += 1;
            }
            for id in &record.placement {
                *held.entry(*id).or_default() += 1;
            }
        }
        (led, held)
    }
}

/// Whether the group has a leader, and a majority of its voters can be reached. A leader that was left alone goes on calling itself
/// one, and a follower goes on believing in the last it knew: so the leader alone tells nothing.
fn has_quorum(group: &Group, alive: &BTreeSet<u64>) -> bool {
    group.current().leader.is_some() && (group.voters().is_empty() || group.is_quorum(alive))
}
