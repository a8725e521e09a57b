//! What must be true again when nothing is broken any more, and how long that is waited for.

use super::act::Nemesis;
use crate::cluster::READY_WAIT;
use crate::invariants::{Kind as Broken, Violation};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long streams may take to be written to again.
const PROGRESS_WAIT: Duration = Duration::from_secs(40);

/// Entries that a copy may be behind under load and still counts.
const LAG_MAX: u64 = 200;

impl Nemesis {
    /// Processes that nobody ended: told, and started again so that the run goes on.
    pub fn look_for_ended(&mut self) {
        for (node, how) in self.cluster.ended_by_themselves() {
            let name = self.cluster.nodes[node].name.clone();
            if self.may_end.contains(&node) {
                self.say(&format!("{name} ended by itself, as it may: {how}"));
                continue;
            }
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
            if let Err(why) = self.until_ready(node).await {
                self.shared.violate(Violation::new(Broken::Hung, format!("nothing is broken any more, and {why}")));
            }
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

    /// Starts the node if need be, and once more if it ends meanwhile, and waits until it is ready.
    async fn until_ready(&mut self, node: usize) -> Result<(), String> {
        let began = Instant::now();
        let url = self.cluster.nodes[node].url.clone();
        loop {
            self.cluster.start(node)?;
            if self.admin.is_ready(&url).await {
                return Ok(());
            }
            if began.elapsed() > READY_WAIT {
                return Err(format!("{url} was not ready within {} s", READY_WAIT.as_secs()));
            }
            sleep(Duration::from_millis(20)).await;
            self.look_for_ended();
        }
    }

    /// Whether every stream has all its copies; waits for it.
    pub async fn make_whole(&mut self) -> bool {
        if !self.whole {
            self.recover().await;
            let began = Instant::now();
            while let Some(missing) = self.missing_copy().await {
                if began.elapsed() > READY_WAIT {
                    let text = format!("a minute after nothing was broken any more, not all copies are back: {missing}");
                    self.shared.violate(Violation::new(Broken::Hung, text));
                    return false;
                }
                sleep(Duration::from_millis(200)).await;
            }
            self.whole = true;
        }
        true
    }

    /// A stream that does not have all its copies, up to date, on nodes that run.
    pub async fn missing_copy(&self) -> Option<String> {
        let Some(url) = self.someone(usize::MAX) else { return Some("no node runs".into()) };
        let alive: Vec<_> = self.running().into_iter().map(|node| self.cluster.nodes[node].name.clone()).collect();
        for stream in &self.shared.streams {
            let state = match self.admin.stream(&url, &stream.name).await {
                Ok(state) => state,
                Err(why) => return Some(why),
            };
            let good = |replica: &&evermesh::wire::Replica| replica.lag.is_some_and(|lag| lag < LAG_MAX) && alive.contains(&replica.node);
            if state.replicas.iter().filter(good).count() < usize::from(state.settings.replicas) {
                return Some(format!("{} of {alive:?}, says {url}: leader {:?}, {:?}", stream.name, state.leader, state.replicas));
            }
        }
        None
    }
}
