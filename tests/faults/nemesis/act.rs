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
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long streams may take to be written to again when nothing is broken any more.
const PROGRESS_WAIT: Duration = Duration::from_secs(40);
/// How long a membership change may take until it is given up as not possible now.
const CHANGE_WAIT: Duration = Duration::from_secs(40);
/// Nodes beyond those that a run began with.
const JOINED_MAX: usize = 2;

/// How a fault is mended.
#[derive(Debug)]
enum Undo {
    Start(Vec<usize>),
    Resume(Vec<usize>),
    Heal,
    Restart(Vec<usize>),
}

pub struct Nemesis {
    pub cluster: Cluster,
    pub admin: Admin,
    pub shared: Arc<Shared>,
    /// Faults that were injected.
    pub counts: BTreeMap<Kind, u64>,
    /// Longest time until everything was well again.
    pub slowest_recovery: Duration,
    began_with: usize,
    /// Whether every stream is known to have all its copies.
    whole: bool,
}

impl Nemesis {
    pub fn new(cluster: Cluster, admin: Admin, shared: Arc<Shared>) -> Nemesis {
        let began_with = cluster.members().len();
        Nemesis { cluster, admin, shared, counts: BTreeMap::new(), slowest_recovery: Duration::ZERO, began_with, whole: true }
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
        for undo in undos.into_iter().rev() {
            if let Err(why) = self.undo(undo).await {
                self.shared.harness_failed(&why);
            }
        }
        self.look_for_ended();
        if recover {
            self.recover().await;
        }
        sleep(Duration::from_millis(step.calm_ms)).await;
    }

    fn running(&self) -> Vec<usize> {
        self.cluster.members().into_iter().filter(|node| self.cluster.is_running(*node)).collect()
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.cluster.nodes.iter().position(|node| node.name == name)
    }

    fn resolve(&self, who: &Who) -> Vec<usize> {
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

    fn names(&self, nodes: &[usize]) -> String {
        nodes.iter().map(|node| self.cluster.nodes[*node].name.clone()).collect::<Vec<_>>().join(", ")
    }

    fn someone(&self, not: usize) -> Option<String> {
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
                network::cut(self.cluster.nodes.len(), &cut)?;
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
            _ => None,
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

    async fn undo(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Start(nodes) => nodes.into_iter().try_for_each(|node| self.cluster.start(node)),
            Undo::Resume(nodes) => {
                nodes.into_iter().for_each(|node| self.cluster.process(node).into_iter().for_each(|process| process.resume()));
                Ok(())
            }
            Undo::Heal => network::heal(self.cluster.nodes.len()),
            Undo::Restart(nodes) => {
                for node in nodes {
                    self.restart(node).await?;
                }
                Ok(())
            }
        }
    }

    async fn restart(&mut self, node: usize) -> Result<()> {
        if let Err(why) = self.cluster.stop(node).await {
            self.shared.violate(Violation::new(Broken::Hung, why));
        }
        self.cluster.start(node)
    }

    /// A new node joins; where enough have, the one that joined last leaves for good.
    async fn join_or_leave(&mut self) -> Result<Option<String>> {
        let members = self.cluster.members();
        if members.len() < self.began_with + JOINED_MAX {
            let node = self.cluster.place()?;
            self.cluster.start(node)?;
            return Ok(Some(format!("{} joins", self.names(&[node]))));
        }
        if !self.make_whole().await {
            return Ok(None);
        }
        let Some(&node) = members.last() else { return Ok(None) };
        let Some(url) = self.someone(node) else { return Ok(None) };
        let name = self.cluster.nodes[node].name.clone();
        self.admin.drain(&url, &name).await?;
        self.until_removed(&url, &name).await?;
        self.cluster.kill(&[node]).await;
        self.cluster.forget(node);
        self.whole = false;
        Ok(Some(format!("{name} drained and removed")))
    }

    /// A node dies with its disk; it is removed, and another one takes its place.
    async fn replace(&mut self, node: usize) -> Result<Option<String>> {
        if !self.make_whole().await {
            return Ok(None);
        }
        let Some(url) = self.someone(node) else { return Ok(None) };
        let name = self.cluster.nodes[node].name.clone();
        self.whole = false;
        self.cluster.kill(&[node]).await;
        self.until_removed(&url, &name).await?;
        self.cluster.forget(node);
        let new = self.cluster.place()?;
        self.cluster.start(new)?;
        Ok(Some(format!("{name} by {}", self.names(&[new]))))
    }

    async fn until_removed(&self, url: &str, name: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.admin.remove(url, name).await {
                Ok(()) => return Ok(()),
                Err(why) if began.elapsed() > CHANGE_WAIT => return Err(format!("{name} could not be removed: {why}")),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Processes that nobody ended: told, and started again so that the run goes on.
    pub fn look_for_ended(&mut self) {
        for (node, how) in self.cluster.ended_by_themselves() {
            let name = self.cluster.nodes[node].name.clone();
            self.shared.violate(Violation::new(Broken::Crashed, format!("{name} ended by itself: {how}")));
            if let Err(why) = self.cluster.start(node) {
                self.shared.harness_failed(&why);
            }
        }
    }

    /// Everything is mended; waits until it is well: every node ready, every stream written to.
    pub async fn recover(&mut self) {
        let began = Instant::now();
        for node in self.cluster.members() {
            if let Err(why) = self.cluster.start(node) {
                self.shared.harness_failed(&why);
            }
        }
        for node in self.cluster.members() {
            let url = self.cluster.nodes[node].url.clone();
            if let Err(why) = self.admin.ready(&url, READY_WAIT).await {
                self.shared.violate(Violation::new(Broken::Hung, format!("nothing is broken any more, and {why}")));
            }
            self.look_for_ended();
        }
        let before: Vec<_> = self.shared.streams.iter().map(|_| self.shared.now_us()).collect();
        let stuck = || -> Vec<&str> {
            let streams = self.shared.streams.iter().zip(&before);
            streams.filter(|(stream, before)| stream.last_ack_us() <= **before).map(|(stream, _)| stream.name.as_str()).collect()
        };
        let waiting = Instant::now();
        while !self.shared.ending.is_cancelled() && !stuck().is_empty() {
            if waiting.elapsed() > PROGRESS_WAIT {
                let text =
                    format!("nothing is broken any more, and nothing was written for {} s to: {:?}", PROGRESS_WAIT.as_secs(), stuck());
                self.shared.violate(Violation::new(Broken::Hung, text));
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.slowest_recovery = self.slowest_recovery.max(began.elapsed());
    }

    /// Whether every stream has all its copies; waits for it.
    async fn make_whole(&mut self) -> bool {
        if !self.whole {
            self.recover().await;
            let began = Instant::now();
            while !self.has_all_copies().await {
                if began.elapsed() > READY_WAIT {
                    self.shared.violate(Violation::new(Broken::Hung, "streams did not get all their copies back within a minute"));
                    return false;
                }
                sleep(Duration::from_millis(200)).await;
            }
            self.whole = true;
        }
        true
    }

    async fn has_all_copies(&self) -> bool {
        let Some(url) = self.someone(usize::MAX) else { return false };
        let alive: Vec<_> = self.running().into_iter().map(|node| self.cluster.nodes[node].name.clone()).collect();
        for stream in &self.shared.streams {
            let Ok(state) = self.admin.stream(&url, &stream.name).await else { return false };
            let good = |replica: &&evermesh::wire::Replica| replica.lag.is_some_and(|lag| lag < 100) && alive.contains(&replica.node);
            if state.replicas.iter().filter(good).count() < usize::from(state.settings.replicas) {
                return false;
            }
        }
        true
    }
}
