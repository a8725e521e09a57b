//! What must be true again when nothing is broken any more, and how long that is waited for.

use super::act::Nemesis;
use crate::cluster::READY_WAIT;
use crate::invariants::{Kind as Broken, Violation};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long streams may take to be written to again.
const PROGRESS_WAIT: Duration = Duration::from_secs(40);

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
    pub async fn make_whole(&mut self) -> bool {
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

    pub async fn has_all_copies(&self) -> bool {
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
