//! What a drill does to the cluster: moves the probe's leadership, ends and restarts a node of `evermesh dev`; and how long each took
//! to be over.

use super::{
    history::History,
    probe::{Node, Probe},
};
use crate::cli::{
    dev::control,
    failure::{Failure, Result},
};
use crate::client::{Client, Options};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a node that was started again may take until it is ready and up to date.
const BACK_WAIT: Duration = Duration::from_secs(120);
/// How long everything may take to be whole before a fault.
const WHOLE_WAIT: Duration = Duration::from_secs(60);
/// A replica so many entries behind, under load, is up to date.
const LAG_MAX: u64 = 16;
/// A silence shorter than this is no interruption, and its end no recovery …
const SILENCE: Duration = Duration::from_millis(20);
/// … and one that begins later after a fault is not of its making.
const SILENCE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Move { from: String, to: String },
    Kill { node: String, led: bool },
}

/// A fault and what came of it.
#[derive(Clone, Debug)]
pub struct Faced {
    pub round: u32,
    pub fault: Fault,
    /// Microseconds since the drill began.
    pub at_us: u64,
    pub until_us: u64,
    /// From its start to ready, and to a replica that is up to date; of a node that was killed.
    pub ready: Option<Duration>,
    pub caught_up: Option<Duration>,
}

impl Faced {
    pub fn gap(&self, history: &History) -> Duration {
        let (begin, end) = history.longest_gap(self.at_us, self.until_us);
        Duration::from_micros(end - begin)
    }

    /// From the fault to the first acknowledgement after the silence that it made; `None` when it made none.
    pub fn recovery(&self, history: &History) -> Option<Duration> {
        let soon = self.at_us + SILENCE_WITHIN.as_micros() as u64;
        let (begin, end) = history.longest_gap_begun(self.at_us, self.until_us, soon);
        (Duration::from_micros(end - begin) >= SILENCE).then(|| Duration::from_micros(end.saturating_sub(self.at_us)))
    }
}

/// Moves leaders and ends nodes, one fault at a time.
pub struct Hand {
    pub client: Client,
    pub nodes: Vec<Node>,
    pub probe: Arc<Probe>,
    pub pause: Duration,
    /// The data folder of `evermesh dev`.
    pub data: PathBuf,
    pub down: Arc<Down>,
}

/// The node that was ended and not yet started again, if there is one: whoever breaks off a drill starts it.
#[derive(Default)]
pub struct Down(Mutex<Option<String>>);

impl Down {
    fn set(&self, node: Option<&str>) {
        *self.0.lock().expect("nothing panics while it holds this lock") = node.map(str::to_owned);
    }

    pub fn get(&self) -> Option<String> {
        self.0.lock().expect("nothing panics while it holds this lock").clone()
    }
}

impl Hand {
    /// Hands the leadership to one of the other replicas, each in its turn.
    pub async fn move_leader(&self, round: u32) -> Result<Faced> {
        self.until_whole().await?;
        let (from, replicas) = self.leader().await?;
        let others: Vec<_> = replicas.into_iter().filter(|replica| *replica != from).collect();
        let to = others.get(round as usize % others.len().max(1)).cloned();
        let to = to.ok_or_else(|| Failure::new("the probe has one replica"))?;
        let at_us = self.probe.now_us();
        self.client.move_leader(&self.probe.stream, Some(&to)).await?;
        sleep(self.pause).await;
        let fault = Fault::Move { from, to };
        Ok(Faced { round, fault, at_us, until_us: self.probe.now_us(), ready: None, caught_up: None })
    }

    /// Ends a node, `leader` for whichever leads the probe, leaves it down for a while, starts it, and waits until it is whole again.
    pub async fn kill(&self, round: u32, whom: &str) -> Result<Faced> {
        self.until_whole().await?;
        let (leader, _) = self.leader().await?;
        let node = if whom == "leader" { leader.clone() } else { whom.to_owned() };
        let at_us = self.probe.now_us();
        self.down.set(Some(&node));
        control::ask(&self.data, &format!("kill {node}")).await?;
        sleep(self.pause).await;
        let started = Instant::now();
        control::ask(&self.data, &format!("start {node}")).await?;
        self.down.set(None);
        let ready = self.until_ready(&node, started).await?;
        let caught_up = self.until_caught_up(&node, started).await?;
        self.probe.refresh()?;
        let fault = Fault::Kill { led: node == leader, node };
        Ok(Faced { round, fault, at_us, until_us: self.probe.now_us(), ready: Some(ready), caught_up: Some(caught_up) })
    }

    /// The probe's leader, and its replicas in order of name.
    async fn leader(&self) -> Result<(String, Vec<String>)> {
        let began = Instant::now();
        loop {
            let stream = self.client.stream(&self.probe.stream).await?;
            let mut replicas: Vec<_> = stream.replicas.iter().map(|replica| replica.node.clone()).collect();
            replicas.sort();
            match stream.leader {
                Some(leader) => return Ok((leader, replicas)),
                None if began.elapsed() > WHOLE_WAIT => return Err(Failure::new("the probe's stream has no leader")),
                None => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// A fault comes only when the one before is over: every replica is reachable and up to date.
    async fn until_whole(&self) -> Result {
        let began = Instant::now();
        loop {
            let stream = self.client.stream(&self.probe.stream).await?;
            let whole = |replica: &crate::wire::Replica| replica.reachable && replica.lag.is_some_and(|lag| lag <= LAG_MAX);
            if stream.leader.is_some() && stream.replicas.iter().all(whole) {
                return Ok(());
            }
            if began.elapsed() > WHOLE_WAIT {
                let behind: Vec<_> =
                    stream.replicas.iter().filter(|replica| !whole(replica)).map(|replica| replica.node.as_str()).collect();
                return Err(Failure::new(format!(
                    "not every replica of the probe is up to date after {} s: {}",
                    WHOLE_WAIT.as_secs(),
                    behind.join(", ")
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn until_ready(&self, node: &str, started: Instant) -> Result<Duration> {
        let urls: Vec<_> = self.nodes.iter().filter(|known| known.name == node).map(|known| &known.url).collect();
        let client = Client::new(&urls, Options::default())?;
        while !client.is_ready().await {
            if started.elapsed() > BACK_WAIT {
                return Err(Failure::new(format!("{node} was started and is not ready after {} s", BACK_WAIT.as_secs())));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(started.elapsed())
    }

    async fn until_caught_up(&self, node: &str, started: Instant) -> Result<Duration> {
        loop {
            let stream = self.client.stream(&self.probe.stream).await?;
            let replica = stream.replicas.iter().find(|replica| replica.node == node);
            // A node without a replica has nothing to catch up with.
            if replica.is_none_or(|replica| replica.reachable && replica.lag.is_some_and(|lag| lag <= LAG_MAX)) {
                return Ok(started.elapsed());
            }
            if started.elapsed() > BACK_WAIT {
                return Err(Failure::new(format!("{node} is ready and its replica not up to date after {} s", BACK_WAIT.as_secs())));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Ack, Value};
    use super::*;

    #[test]
    fn a_recovery_counts_from_the_fault() {
        let ack = |ms: u64| Ack { at_us: ms * 1000, took_us: 0, value: Value { publisher: 0, count: 0 }, seq: 0 };
        let history = History { acks: [90, 100, 400, 405, 410].map(ack).into(), ..History::default() };
        let fault = Fault::Kill { node: "n1".into(), led: true };
        let faced = |at: u64| Faced { round: 1, fault: fault.clone(), at_us: at * 1000, until_us: 412_000, ready: None, caught_up: None };
        assert_eq!((faced(103).gap(&history).as_millis(), faced(103).recovery(&history).unwrap().as_millis()), (300, 297));
        assert_eq!((faced(401).gap(&history).as_millis(), faced(401).recovery(&history)), (5, None));
    }
}
