//! Does what the schedule says and mends it afterwards; owns the cluster while a run lasts.
//!
//! - What takes a copy of the data away (a wiped disk, damage) waits until every stream has all its copies: two such faults
//!   together would be more than anybody promised.

use super::fault::{Fault, Kind, Shape, Who};
use super::schedule::Step;
use crate::cluster::{Cluster, READY_WAIT, Result, admin::Admin, network};
use crate::inside::Place;
use crate::invariants::{Kind as Broken, Violation};
use crate::workload::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long a membership change may take until it is given up as not possible now.
pub const CHANGE_WAIT: Duration = Duration::from_secs(40);
/// Nodes beyond those that a run began with.
pub const JOINED_MAX: usize = 2;

/// How a fault is mended.
#[derive(Debug)]
pub enum Undo {
    Start(Vec<usize>),
    Resume(Vec<usize>),
    Heal,
    Restart(Vec<usize>),
    /// The disk is well again; who could not go on with it is started again.
    MendDisk(usize),
    Rebuild(usize),
}

pub struct Nemesis {
    pub cluster: Cluster,
    pub admin: Admin,
    pub shared: Arc<Shared>,
    /// Faults that were injected.
    pub counts: BTreeMap<Kind, u64>,
    /// Longest time until everything was well again.
    pub slowest_recovery: Duration,
    /// Nodes whose disks were harmed, and those of them that could not go on by themselves.
    pub harmed: u64,
    pub replaced: u64,
    pub began_with: usize,
    /// Whether every stream is known to have all its copies.
    pub whole: bool,
    /// Nodes that may end by themselves, since their disk fails or lies.
    pub may_end: BTreeSet<usize>,
}

impl Nemesis {
    pub fn new(cluster: Cluster, admin: Admin, shared: Arc<Shared>) -> Nemesis {
        let began_with = cluster.members().len();
        Nemesis {
            cluster,
            admin,
            shared,
            counts: BTreeMap::new(),
            slowest_recovery: Duration::ZERO,
            harmed: 0,
            replaced: 0,
            began_with,
            whole: true,
            may_end: BTreeSet::new(),
        }
    }

    pub fn faults(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn say(&self, text: &str) {
        println!("{:8.3} s  {text}", self.shared.now_us() as f64 / 1e6);
    }

    pub async fn step(&mut self, step: &Step, recover: bool) {
        let mut undos = Vec::new();
        for fault in &step.faults {
            if matches!(fault, Fault::Rolling | Fault::Join | Fault::Replace(_) | Fault::Damage { .. }) {
                // They wait until every node is ready, and one that is cut off or drained never is.
                self.undo_all(&mut undos).await;
            }
            match self.inject(fault).await {
                Ok(Some((text, undo))) => {
                    *self.counts.entry(fault.kind()).or_default() += 1;
                    self.say(&format!("{}: {text}", fault.kind().name()));
                    undos.extend(undo);
                }
                Ok(None) => {}
                Err(why) => self.say(&format!("{}: could not: {why}", fault.kind().name())),
            }
        }
        sleep(Duration::from_millis(step.hold_ms)).await;
        self.undo_all(&mut undos).await;
        self.look_for_ended();
        if recover {
            self.recover().await;
        }
        sleep(Duration::from_millis(step.calm_ms)).await;
    }

    async fn undo_all(&mut self, undos: &mut Vec<Undo>) {
        for undo in undos.drain(..).rev() {
            if let Err(why) = self.undo(undo).await {
                self.shared.harness_failed(&why);
            }
        }
    }

    pub fn running(&self) -> Vec<usize> {
        self.cluster.members().into_iter().filter(|node| self.cluster.is_running(*node)).collect()
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.cluster.nodes.iter().position(|node| node.name == name)
    }

    pub fn resolve(&self, who: &Who) -> Vec<usize> {
        let running = self.running();
        if running.is_empty() {
            return Vec::new();
        }
        let nth = |n: usize| running[n % running.len()];
        match who {
            Who::Leader(stream) => {
                let leader = self.shared.leader(&self.shared.streams[*stream].name).and_then(|name| self.named(&name));
                vec![leader.filter(|node| running.contains(node)).unwrap_or(nth(*stream))]
            }
            Who::Nth(n) => vec![nth(*n)],
            Who::Majority(n) => {
                let members = self.cluster.members().len();
                (0..members / 2 + 1).map(|at| nth(n + at)).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
            }
            Who::All => running,
        }
    }

    pub fn names(&self, nodes: &[usize]) -> String {
        nodes.iter().map(|node| self.cluster.nodes[*node].name.clone()).collect::<Vec<_>>().join(", ")
    }

    pub fn someone(&self, not: usize) -> Option<String> {
        let other = self.running().into_iter().find(|node| *node != not && !self.cluster.is_paused(*node))?;
        Some(self.cluster.nodes[other].url.clone())
    }

    /// What was done, in words, and how it is undone. `None`: it does not apply now.
    async fn inject(&mut self, fault: &Fault) -> Result<Option<(String, Option<Undo>)>> {
        Ok(match fault {
            Fault::Kill(who) => {
                let nodes = self.resolve(who);
                self.cluster.kill(&nodes).await;
                Some((self.names(&nodes), Some(Undo::Start(nodes))))
            }
            Fault::Pause(who) => {
                let nodes = self.resolve(who);
                nodes.iter().for_each(|node| {
                    self.cluster.process(*node).into_iter().for_each(|process| process.pause());
                });
                Some((self.names(&nodes), Some(Undo::Resume(nodes))))
            }
            Fault::Cut(shape) if self.cluster.options.place == Place::Namespaces => {
                let (text, cut) = self.shape(shape);
                self.cluster.cut(&cut)?;
                Some((text, Some(Undo::Heal)))
            }
            Fault::Stop(who) => {
                let nodes = self.resolve(who);
                let mut text = self.names(&nodes);
                for node in &nodes {
                    match self.cluster.stop(*node).await {
                        Ok(took) => text += &format!(", which took {} ms", took.as_millis()),
                        Err(why) => self.shared.violate(Violation::new(Broken::Hung, why)),
                    }
                }
                Some((text, Some(Undo::Start(nodes))))
            }
            Fault::Rolling => {
                let nodes = self.cluster.members();
                for node in &nodes {
                    self.restart(*node).await?;
                    let url = self.cluster.nodes[*node].url.clone();
                    if let Err(why) = self.admin.ready(&url, READY_WAIT).await {
                        self.shared.violate(Violation::new(Broken::Hung, why));
                    }
                }
                Some((self.names(&nodes), None))
            }
            Fault::Transfer { stream, to } => {
                let stream = self.shared.streams[*stream].name.clone();
                let to = self.resolve(&Who::Nth(*to));
                let Some((to, url)) = to.first().and_then(|to| Some((*to, self.someone(usize::MAX)?))) else { return Ok(None) };
                let to = self.cluster.nodes[to].name.clone();
                let leader = self.admin.transfer(&url, &stream, Some(&to)).await?;
                Some((format!("{stream} to {leader}"), None))
            }
            Fault::Drain(who) => {
                let nodes = self.resolve(who);
                let Some((node, url)) = nodes.first().and_then(|node| Some((*node, self.someone(*node)?))) else { return Ok(None) };
                self.admin.drain(&url, &self.cluster.nodes[node].name).await?;
                Some((self.names(&[node]), Some(Undo::Restart(vec![node]))))
            }
            Fault::Join => self.join_or_leave().await?.map(|text| (text, None)),
            Fault::Replace(who) => {
                let nodes = self.resolve(who);
                let Some(node) = nodes.first() else { return Ok(None) };
                self.replace(*node).await?.map(|text| (text, None))
            }
            Fault::Power(who) => self.lose_power(who).await?,
            Fault::Slow { who, ms } => self.disturb(who, &format!("{ms} ms a sync"), |now| now.slow_ms = *ms)?,
            Fault::Clock { who, seconds } => self.disturb(who, &format!("{seconds} s ahead"), |now| now.clock_seconds = *seconds)?,
            Fault::Eio(who) => self.fail_disk(who)?,
            Fault::Full(who) => self.fill_disk(who)?,
            Fault::Damage { who, how, seed } => self.damage(who, *how, *seed).await?,
            Fault::Delay { .. } | Fault::Oneway { .. } => self.disturb_links(fault),
            Fault::Cut(_) => None,
        })
    }

    fn shape(&self, shape: &Shape) -> (String, network::Cut) {
        let members = self.cluster.members();
        let at = |n: usize| members[n % members.len()];
        match shape {
            Shape::Isolate(who) => {
                let alone = self.resolve(who);
                (format!("{} from its peers", self.names(&alone)), network::Cut::Groups(vec![vec![], alone]))
            }
            Shape::Halves(n) => {
                let side: Vec<_> = (0..members.len() / 2).map(|k| at(n + k)).collect();
                (format!("{} from the others", self.names(&side)), network::Cut::Groups(vec![vec![], side]))
            }
            Shape::Shattered => {
                let groups = members.iter().map(|node| vec![*node]).collect();
                ("everybody from everybody".into(), network::Cut::Groups(groups))
            }
            Shape::Bridge(n) => {
                let (a, b) = (at(*n), at(n + 1));
                (format!("{} and {} from each other only", self.names(&[a]), self.names(&[b])), network::Cut::Between(a, b))
            }
        }
    }

    /// What belongs to a node that was replaced or removed meanwhile is not undone: its process must not come back.
    async fn undo(&mut self, undo: Undo) -> Result<()> {
        let members = self.cluster.members();
        let staying = |mut nodes: Vec<usize>| {
            nodes.retain(|node| members.contains(node));
            nodes
        };
        match undo {
            Undo::MendDisk(node) | Undo::Rebuild(node) if !members.contains(&node) => Ok(()),
            Undo::Start(nodes) => staying(nodes).into_iter().try_for_each(|node| self.cluster.start(node)),
            Undo::Resume(nodes) => {
                nodes.into_iter().for_each(|node| self.cluster.process(node).into_iter().for_each(|process| process.resume()));
                Ok(())
            }
            Undo::Heal => self.cluster.heal(),
            Undo::MendDisk(node) => self.mend_disk(node).await,
            Undo::Rebuild(node) => self.rebuild(node).await,
            Undo::Restart(nodes) => {
                for node in staying(nodes) {
                    self.restart(node).await?;
                }
                Ok(())
            }
        }
    }

    pub async fn restart(&mut self, node: usize) -> Result<()> {
        if let Err(why) = self.cluster.stop(node).await {
            self.shared.violate(Violation::new(Broken::Hung, why));
        }
        self.cluster.start(node)
    }
}
