//! Faults of disks, clocks and links.

use super::act::{Nemesis, Undo};
use super::fault::{Fault, Harm, Who};
use crate::cluster::{READY_WAIT, Result, disk};
use crate::invariants::{Kind as Broken, Violation};
use crate::node::rules::Now;
use crate::random::Random;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// What is not synced gathers for so long before the power goes.
const GATHER: Duration = Duration::from_millis(400);
/// Between a backup and going back to it.
const BACKUP_AGE: Duration = Duration::from_secs(3);
/// How long a node with a harmed disk may take to be whole again by itself.
const REBUILD_WAIT: Duration = Duration::from_secs(60);

type Done = Option<(String, Option<Undo>)>;

impl Nemesis {
    /// All of them at once.
    pub(super) async fn lose_power(&mut self, who: &Who) -> Result<Done> {
        let nodes = self.resolve(who);
        for node in &nodes {
            self.cluster.set_rules(*node, Now { power: true, ..Now::default() })?;
        }
        sleep(GATHER).await;
        self.cluster.kill(&nodes).await;
        for node in &nodes {
            self.cluster.set_rules(*node, Now::default())?;
        }
        Ok(Some((self.names(&nodes), Some(Undo::Start(nodes)))))
    }

    pub(super) fn disturb(&mut self, who: &Who, what: &str, change: impl Fn(&mut Now)) -> Result<Done> {
        let Some(node) = self.resolve(who).first().copied() else { return Ok(None) };
        let mut now = Now::default();
        change(&mut now);
        self.cluster.set_rules(node, now)?;
        Ok(Some((format!("{}, {what}", self.names(&[node])), Some(Undo::MendDisk(node)))))
    }

    pub(super) fn fail_disk(&mut self, who: &Who) -> Result<Done> {
        let done = self.disturb(who, "every write fails", |now| now.failing = true)?;
        if let Some((_, Some(Undo::MendDisk(node)))) = &done {
            self.may_end.insert(*node);
        }
        Ok(done)
    }

    pub(super) fn fill_disk(&mut self, who: &Who) -> Result<Done> {
        let Some(node) = self.resolve(who).first().copied() else { return Ok(None) };
        let left = disk::fill(&self.cluster.nodes[node].folder, &mut Random::part(self.shared.seed, self.faults()))?;
        self.may_end.insert(node);
        Ok(Some((format!("{}, {left} bytes left", self.names(&[node])), Some(Undo::MendDisk(node)))))
    }

    pub(super) async fn mend_disk(&mut self, node: usize) -> Result<()> {
        self.cluster.set_rules(node, Now::default())?;
        disk::empty(&self.cluster.nodes[node].folder)?;
        // It may just be about to end.
        if self.may_end.contains(&node) {
            sleep(Duration::from_millis(500)).await;
            self.look_for_ended();
            self.may_end.remove(&node);
        }
        self.cluster.start(node)
    }

    /// Harms the files of one node, all others being whole.
    pub(super) async fn damage(&mut self, who: &Who, how: Harm, seed: u64) -> Result<Done> {
        if !self.make_whole().await {
            return Ok(None);
        }
        let Some(node) = self.resolve(who).first().copied() else { return Ok(None) };
        let (name, folder) = (self.cluster.nodes[node].name.clone(), self.cluster.nodes[node].folder.clone());
        let mut random = Random::new(seed);
        self.may_end.insert(node);
        self.whole = false;
        self.harmed += 1;
        let text = match how {
            Harm::FlipRunning => disk::harm(&folder, how, &mut random)?,
            Harm::FlipStopped | Harm::Truncate => {
                self.cluster.kill(&[node]).await;
                let text = disk::harm(&folder, how, &mut random)?;
                self.cluster.start(node)?;
                text
            }
            Harm::RollBack => {
                let backup = folder.with_extension("backup");
                self.cluster.kill(&[node]).await;
                disk::copy(&folder, &backup)?;
                self.cluster.start(node)?;
                sleep(BACKUP_AGE).await;
                self.cluster.kill(&[node]).await;
                disk::roll_back(&folder, &backup)?;
                self.cluster.start(node)?;
                format!("all files as they were {} s ago", BACKUP_AGE.as_secs())
            }
        };
        Ok(Some((format!("{name}: {text}"), Some(Undo::Rebuild(node)))))
    }

    /// A harmed node is started once more, and has to be whole by itself; one that stops, saying so, is replaced as an operator
    /// would do it.
    pub(super) async fn rebuild(&mut self, node: usize) -> Result<()> {
        let name = self.cluster.nodes[node].name.clone();
        self.cluster.kill(&[node]).await;
        self.cluster.start(node)?;
        let began = Instant::now();
        let ended = loop {
            self.look_for_ended();
            if !self.cluster.is_running(node) {
                break true;
            }
            let url = self.cluster.nodes[node].url.clone();
            if self.admin.is_ready(&url).await && self.has_all_copies().await {
                break false;
            }
            if began.elapsed() > REBUILD_WAIT {
                let text = format!("{name} was harmed, and neither stopped nor was whole again after {} s", REBUILD_WAIT.as_secs());
                self.shared.violate(Violation::new(Broken::Hung, text));
                break true;
            }
            sleep(Duration::from_millis(100)).await;
        };
        self.may_end.remove(&node);
        if !ended {
            self.say(&format!("{name} is whole again by itself after {} ms", began.elapsed().as_millis()));
            return Ok(());
        }
        self.replaced += 1;
        // Its disk is given up: what the others have is all that there is.
        self.whole = true;
        match self.replace(node).await {
            Ok(Some(text)) => self.say(&format!("{name} could not go on: replaced {text}")),
            Ok(None) => self.say(&format!("{name} could not go on, and could not be replaced")),
            Err(why) => self.shared.violate(Violation::new(Broken::Hung, why)),
        }
        if let Some(url) = self.someone(usize::MAX) {
            let _ = self.admin.ready(&url, READY_WAIT).await;
        }
        Ok(())
    }

    pub(super) fn disturb_links(&mut self, fault: &Fault) -> Done {
        let proxy = self.cluster.proxy.clone()?;
        let (who, text) = match fault {
            Fault::Delay { who, ms, jitter_ms, stall_percent } => (who, format!("{ms} to {} ms, {stall_percent} % stalls", ms + jitter_ms)),
            Fault::Oneway { who, inward } => (who, if *inward { "hears nobody" } else { "is heard by nobody" }.to_owned()),
            _ => return None,
        };
        let node = *self.resolve(who).first()?;
        proxy.set(|from, to, link| match fault {
            Fault::Delay { ms, jitter_ms, stall_percent, .. } if from == node || to == node => {
                (link.ms, link.jitter_ms, link.stall_percent) = (*ms, *jitter_ms, *stall_percent);
            }
            Fault::Oneway { inward, .. } => link.cut |= if *inward { to == node } else { from == node },
            _ => {}
        });
        Some((format!("{}: {text}", self.names(&[node])), Some(Undo::Heal)))
    }
}
