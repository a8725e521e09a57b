//! The probe: a stream of the drill's own, publishers that go on through every fault, and a subscriber at each node.
//!
//! - A publisher sends one event after the other, each with an id of its own, each to the next node in turn; the client tries again
//!   elsewhere, so an error is one that a careful publisher would have seen.
//! - A subscriber begins at its node and goes on at another when it has to; what it gets has to be every event, once, in order.

use super::{
    Args,
    history::{Ack, History, Value},
};
use crate::cli::{connect::Connect, failure::Result};
use crate::client::{Client, Item, Message, Options, Subscribe};
use crate::wire::{Event, Start, StreamSettingsPatch};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a subscriber tries to find its stream again.
const RESUME_WAIT: Duration = Duration::from_secs(120);
/// How long the subscribers get at the end for what they have not seen yet.
const CATCH_UP_WAIT: Duration = Duration::from_secs(30);
/// Events of one page when the stream is read.
const PAGE: usize = 1_000;

/// A node as the drill needs it.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub url: String,
}

#[derive(Serialize, Deserialize)]
struct Data {
    publisher: u32,
    count: u32,
}

/// What an event of the probe says; `None` for any other.
fn value(event: &Event) -> Option<Value> {
    let data: Data = serde_json::from_str(event.data.as_ref()?.get()).ok()?;
    Some(Value { publisher: data.publisher, count: data.count })
}

pub struct Probe {
    pub stream: String,
    nodes: Vec<Node>,
    options: Options,
    began: Instant,
    history: Mutex<History>,
    /// A client for each node, which tries that node first. Made anew after each fault: a client stays where it was served.
    clients: Mutex<Vec<Client>>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    pub subscribers: Vec<Subscriber>,
}

/// What one subscriber has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The last seq of all that it saw without a hole.
    pub upto: u64,
    pub events: u64,
    /// Seqs that never came, or came as removed.
    pub missing: u64,
    /// Events that were no news: seen before, or before an earlier one.
    pub repeated: u64,
    /// Times that it had to go on at another node.
    pub moved: u64,
    /// Why it ended, if it did.
    pub ended: Option<String>,
}

pub struct Subscriber {
    pub node: String,
    pub seen: watch::Receiver<Seen>,
}

/// A name that nobody else takes and everybody recognises.
pub fn stream_name() -> String {
    let now = crate::wire::Timestamp(crate::core::Time(now_us())).to_string();
    let digits: String = now.chars().filter(char::is_ascii_digit).take(14).collect();
    format!("evermesh-drill-{digits}-{:06x}", getrandom::u32().unwrap_or_default() & 0xff_ffff)
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What the probe's stream is made with: its events go by themselves, should the drill not come to removing it.
pub fn settings() -> StreamSettingsPatch {
    StreamSettingsPatch {
        max_age: Some(Some(crate::wire::Span(3_600_000))),
        description: Some("the probe of an `evermesh drill`; removed at its end".into()),
        ..StreamSettingsPatch::default()
    }
}

impl Probe {
    /// Subscribes at every node and starts publishing.
    pub async fn start(stream: &str, nodes: &[Node], args: &Args, connect: &Connect) -> Result<Arc<Probe>> {
        let options = Options { resume_wait: RESUME_WAIT, assign_ids: false, ..connect.options() };
        let mut subscribers = Vec::new();
        let mut tasks = JoinSet::new();
        for at in 0..nodes.len() {
            let client = Client::new(&from(nodes, at), options.clone())?;
            let subscription = client.subscribe(stream, Subscribe { from: Start::Earliest, subject: None }).await?;
            let (sender, seen) = watch::channel(Seen::default());
            tasks.spawn(follow(subscription, sender));
            subscribers.push(Subscriber { node: nodes[at].name.clone(), seen });
        }
        let probe = Arc::new(Probe {
            stream: stream.to_owned(),
            nodes: nodes.to_vec(),
            options,
            began: Instant::now(),
            history: Mutex::default(),
            clients: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: Mutex::new(JoinSet::new()),
            subscribers,
        });
        probe.refresh()?;
        let every = Duration::from_secs(1).mul_f64(f64::from(args.publishers) / args.rate as f64);
        for publisher in 0..args.publishers {
            let offset = every.mul_f64(f64::from(publisher) / f64::from(args.publishers));
            tasks.spawn(publish(probe.clone(), publisher, probe.began + offset, every));
        }
        *probe.tasks() = tasks;
        Ok(probe)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().expect("nothing panics while it holds this lock")
    }

    /// For one short look or update.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nothing panics while it holds this lock")
    }

    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Spreads the publishers over all nodes again.
    pub fn refresh(&self) -> Result {
        let clients: std::result::Result<Vec<_>, _> =
            (0..self.nodes.len()).map(|at| Client::new(&from(&self.nodes, at), self.options.clone())).collect();
        *self.clients.lock().expect("nothing panics while it holds this lock") = clients?;
        Ok(())
    }

    fn client(&self, turn: usize) -> Client {
        let clients = self.clients.lock().expect("nothing panics while it holds this lock");
        clients[turn % clients.len()].clone()
    }

    /// Lets the requests under way end, and waits until every subscriber has everything, or would not get it any more.
    pub async fn finish(&self) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks());
        let publishers_done = async {
            // The subscribers' tasks end only when they are stopped.
            while tasks.len() > self.subscribers.len() && tasks.join_next().await.is_some() {}
        };
        let _ = timeout(self.options.timeout + CATCH_UP_WAIT, publishers_done).await;
        let last = self.history().acks.iter().map(|ack| ack.seq).max().unwrap_or(0);
        let all = async {
            for subscriber in &self.subscribers {
                let mut seen = subscriber.seen.clone();
                let _ = seen.wait_for(|seen| seen.upto >= last || seen.ended.is_some()).await;
            }
        };
        let _ = timeout(CATCH_UP_WAIT, all).await;
        tasks.shutdown().await;
    }

    /// The whole stream as one node gives it.
    pub async fn read(&self, node: &str) -> Result<BTreeMap<u64, Option<Value>>> {
        let urls: Vec<_> = self.nodes.iter().filter(|known| known.name == node).map(|known| known.url.clone()).collect();
        let client = Client::new(&urls, self.options.clone())?;
        let mut log = BTreeMap::new();
        let mut from = Start::Earliest;
        loop {
            let page = client.read(&self.stream, from, None, PAGE, Duration::ZERO).await?;
            log.extend(page.events.iter().map(|event| (event.seq, value(event))));
            if page.events.is_empty() || page.next > page.last_seq {
                return Ok(log);
            }
            from = Start::Seq(page.next);
        }
    }
}

/// The nodes' URLs, from this one on and around.
fn from(nodes: &[Node], at: usize) -> Vec<String> {
    nodes.iter().cycle().skip(at).take(nodes.len()).map(|node| node.url.clone()).collect()
}

async fn publish(probe: Arc<Probe>, publisher: u32, first: Instant, every: Duration) {
    let mut ticks = tokio::time::interval_at(first, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 1u32.. {
        tokio::select! {
            biased;
            () = probe.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let message = Message::json(&Data { publisher, count }).id(format!("{}-{publisher}-{count}", probe.stream));
        let sent = Instant::now();
        let outcome = probe.client(publisher as usize + count as usize).publish(&probe.stream, message).await;
        let (at_us, took_us) = (probe.now_us(), u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
        let mut history = probe.history();
        match outcome {
            Ok(answer) => {
                history.recognised += u64::from(answer.duplicate);
                // Two answers may have been read in one order and noted in the other.
                let at_us = history.acks.last().map_or(at_us, |last| last.at_us.max(at_us));
                history.acks.push(Ack { at_us, took_us, value: Value { publisher, count }, seq: answer.seq });
            }
            Err(error) => history.fail(error.to_string()),
        }
    }
}

async fn follow(mut subscription: crate::client::Subscription, seen: watch::Sender<Seen>) {
    loop {
        match subscription.next().await {
            Ok(Item::Events(events)) => seen.send_modify(|seen| events.iter().for_each(|event| seen.take(event.seq))),
            Ok(Item::Gap(gap) | Item::Hole(gap)) => seen.send_modify(|seen| {
                seen.missing += gap.to + 1 - gap.from;
                seen.upto = seen.upto.max(gap.to);
            }),
            Ok(Item::Moved { .. }) => seen.send_modify(|seen| seen.moved += 1),
            Err(error) => {
                seen.send_modify(|seen| seen.ended = Some(error.to_string()));
                return;
            }
        }
    }
}

impl Seen {
    fn take(&mut self, seq: u64) {
        self.events += 1;
        match seq > self.upto {
            true => {
                self.missing += seq - self.upto - 1;
                self.upto = seq;
            }
            false => self.repeated += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_notices_holes_and_repetitions() {
        let mut seen = Seen::default();
        [1, 2, 2, 5, 4, 6].into_iter().for_each(|seq| seen.take(seq));
        assert_eq!((seen.upto, seen.events, seen.missing, seen.repeated), (6, 6, 2, 2));
    }

    #[test]
    fn the_probe_says_whose_it_is() {
        let name = stream_name();
        assert!(crate::core::StreamName::new(&name).is_ok() && name.len() == "evermesh-drill-20261122053012-0123ab".len(), "{name}");
        assert_ne!(name, stream_name());
    }

    #[test]
    fn every_node_is_the_first_of_one_client() {
        let nodes: Vec<_> = ["a", "b", "c"].map(|name| Node { name: name.into(), url: name.into() }).into();
        assert_eq!([from(&nodes, 0), from(&nodes, 2)], [["a", "b", "c"], ["c", "a", "b"]]);
    }
}
