//! What runs on a simulated machine: a whole node, and its clients, who publish, follow, and look things up through it.

use super::history::{Session, Shared, Value};
use super::net::{HostId, Net, address};
use super::world::Storage;
use bytes::Bytes;
use evermesh::core::{NewEvent, NodeName, SettingsPatch, StreamName, Text};
use evermesh::node::{
    Clock, Config, Error, From, Item, Listener, Network, Node, NodeInfo, Publish, Purge, Reader, Readiness, Secret, Start, StreamInfo,
    Take, Timers, World,
};
use evermesh::store::crash::{Disk, Random};
use evermesh::store::{Options, Store};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Longest wait of a publish, in milliseconds.
pub const DEADLINE_MS: u64 = 4_000;
/// Publishers on each machine.
const PUBLISHERS: usize = 2;
/// Streams sleep soon, between two publishes …
const SLEEP_AFTER: Duration = Duration::from_millis(200);
/// … in seeds in which a publisher's pauses are so long.
pub const DROWSY_MS: u64 = 4_000;
/// Hosts that a new one asks to be let in.
const SEEDS: usize = 3;

pub struct Context {
    pub id: HostId,
    pub boot: u64,
    pub random: Random,
    pub net: Net,
    pub disk: Disk,
    pub storage: Arc<Mutex<Storage>>,
    pub clock: Clock,
    pub shared: Arc<Shared>,
    pub commands: mpsc::UnboundedReceiver<Command>,
}

/// What an operator does at a node.
pub enum Command {
    Put(String, SettingsPatch),
    Delete(String),
    Move(String, Option<NodeName>),
    Purge(String, Purge),
    Drain(NodeName),
    Remove(NodeName, oneshot::Sender<bool>),
    Stop(oneshot::Sender<()>),
    Report(oneshot::Sender<Report>),
}

/// A node's view, for the checks at the end.
pub struct Report {
    pub ready: Readiness,
    pub nodes: Vec<NodeInfo>,
    /// Every stream in the catalog, as its leader describes it.
    pub streams: Vec<StreamInfo>,
    /// Times that the store merged segments.
    pub merges: u64,
    /// Times that the node put a stream to sleep.
    pub naps: u64,
    /// Every group in the store.
    pub logs: BTreeMap<u64, Log>,
}

pub struct Log {
    /// The hash of each entry by index.
    pub entries: BTreeMap<u64, u64>,
    /// The index of the last entry that there was, which may be purged.
    pub end: Option<u64>,
}

pub fn stream_name(stream: usize) -> StreamName {
    StreamName::new(&format!("s{stream}")).expect("it is made of letters and digits")
}

pub fn node_name(host: HostId) -> NodeName {
    NodeName::new(&format!("n{host}")).expect("it is made of letters and digits")
}

fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        tail_bytes: 4 << 10,
        tails_bytes: 1 << 20,
        cache_bytes: 1 << 20,
        sealed_cache_bytes: 1 << 16,
        open_segments: 2,
        merge_freed_bytes: 1,
        ..Options::default()
    }
}

pub async fn run(context: Context) {
    let Context { id, boot, mut random, net, disk, storage, clock, shared, mut commands } = context;
    let (store, stepper) = match Store::open_stepped(Arc::new(disk), options()) {
        Ok(opened) => opened,
        // Its power may fail in this too.
        Err(error) => return shared.node_failed(id, &format!("its store cannot be opened: {error}")),
    };
    storage.lock().expect("nobody panics while holding it").stepper = Some(stepper);
    let config = Config {
        data: "/nowhere".into(),
        name: Some(node_name(id)),
        url: format!("http://{}", address(id)),
        peer_listener: Listener::Other(Box::new(net.listen(id))),
        peer_advertise: address(id),
        secret: Secret::new("a secret of the simulation"),
        start: if id == 1 { Start::Bootstrap } else { Start::Join((1..=SEEDS).filter(|seed| *seed != id).map(address).collect()) },
        auto_create_streams: true,
        timers: Timers::default(),
        sleep_after: Some(SLEEP_AFTER),
        store: options(),
        world: World { clock, network: Network::new(net.dialler(id)), store: Some(store.clone()), one_runtime: true, ..World::default() },
        peer_protocol_max: None,
    };
    let node = match Node::start(config).await {
        Ok(node) => node,
        Err(error) => return shared.node_failed(id, &error.to_string()),
    };
    shared.trace(format_args!("host {id} has started"));
    shared.started(id, boot);
    let (failed, shared_too) = (node.failed(), shared.clone());
    tokio::spawn(async move { shared_too.node_failed(id, &failed.await) });
    let streams = shared.history().streams.len();
    for publisher in 0..PUBLISHERS {
        let session = Session { host: id, boot, publisher };
        tokio::spawn(publish(node.clone(), shared.clone(), Random(random.draw()), session));
    }
    for stream in 0..streams {
        tokio::spawn(follow(node.clone(), shared.clone(), Random(random.draw()), id, stream));
    }
    tokio::spawn(probe(node.clone(), shared.clone(), Random(random.draw()), id));
    while let Some(command) = commands.recv().await {
        if let Command::Stop(done) = command {
            node.stop().await;
            let stepper = storage.lock().expect("nobody panics while holding it").stepper.take();
            let finished = stepper.map_or(Ok(()), |stepper| stepper.finish());
            shared.trace(format_args!("host {id} has stopped: {finished:?}"));
            let _ = done.send(());
            return;
        }
        tokio::spawn(obey(node.clone(), store.clone(), shared.clone(), id, command));
    }
}

async fn obey(node: Node, store: Store, shared: Arc<Shared>, id: HostId, command: Command) {
    let name = |name: &str| StreamName::new(name).expect("the scenario's names are valid");
    let (what, outcome) = match command {
        Command::Put(stream, patch) => {
            let put = node.put_stream(&name(&stream), patch).await;
            (format!("puts {stream}"), format!("{:?}", put.map(|(put, info)| (put, info.last_seq))))
        }
        Command::Delete(stream) => (format!("deletes {stream}"), format!("{:?}", node.delete_stream(&name(&stream)).await)),
        Command::Move(stream, to) => {
            let moved = node.move_leader(&name(&stream), to.clone()).await;
            (format!("moves the leadership of {stream} to {to:?}"), format!("{moved:?}"))
        }
        Command::Purge(stream, purge) => {
            let what = format!("purges {stream}: {purge:?}");
            (what, format!("{:?}", node.purge(&name(&stream), purge).await))
        }
        Command::Drain(drained) => (format!("drains {drained}"), format!("{:?}", node.drain(&drained).await)),
        Command::Remove(removed, done) => {
            let outcome = node.remove(&removed).await;
            let _ = done.send(outcome.is_ok());
            (format!("removes {removed}"), format!("{outcome:?}"))
        }
        Command::Report(answer) => return drop(answer.send(report(&node, &store).await)),
        Command::Stop(_) => unreachable!("it is obeyed in the loop"),
    };
    shared.trace(format_args!("host {id} {what}: {outcome}"));
}

async fn report(node: &Node, store: &Store) -> Report {
    let mut streams = Vec::new();
    let nodes = node.cluster().await.map(|cluster| cluster.nodes).unwrap_or_default();
    for summary in node.list_streams("", None, 1_000).await.unwrap_or_default() {
        streams.extend(node.stream_info(&summary.name).await);
    }
    let log = |group: u64| {
        let group = store.group(group);
        let (mut entries, mut next) = (BTreeMap::new(), group.first_index().unwrap_or(0));
        while let Ok(read) = group.read(next..u64::MAX, 1 << 20)
            && let Some(last) = read.last()
        {
            next = last.index + 1;
            for entry in read {
                let mut hasher = DefaultHasher::new();
                (entry.term, entry.leader, &entry.payload[..]).hash(&mut hasher);
                entries.insert(entry.index, hasher.finish());
            }
        }
        Log { entries, end: group.log_state().last.map(|id| id.index) }
    };
    let logs = store.groups().into_iter().map(|group| (group, log(group))).collect();
    let naps = node.metrics_text().lines().find_map(|line| line.strip_prefix("evermesh_streams_fallen_asleep_total ")?.parse().ok());
    let (ready, merges, naps) = (node.readiness(), store.stats().merges, naps.unwrap_or(0));
    Report { ready, nodes, streams, merges, naps, logs }
}

/// Publishes now and then, without waiting for the outcome of the one before.
async fn publish(node: Node, shared: Arc<Shared>, mut random: Random, session: Session) {
    let pause_ms = shared.history().pause_ms;
    loop {
        sleep(Duration::from_millis(random.below(pause_ms))).await;
        if shared.stopped() {
            return;
        }
        if !shared.begun() {
            continue;
        }
        let (number, stream, publish) = draw(&shared, &mut random, session);
        match node.submit(&stream_name(stream), publish).await {
            Err(error) => shared.history().end(number, Err(error)),
            Ok(outcome) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let outcome = outcome.await;
                    shared.history().end(number, outcome);
                });
            }
        }
    }
}

/// Decides what to publish.
fn draw(shared: &Shared, random: &mut Random, session: Session) -> (u64, usize, Publish) {
    let mut history = shared.history();
    let stream = random.below(history.streams.len() as u64) as usize;
    let (mut count, mut id, mut expected) = (1, None, None);
    match random.below(100) {
        0..55 => {}
        55..75 => count = 2 + random.below(5),
        75..85 => id = Some(format!("{:x}", random.draw())),
        85..93 => {
            let known = history.ids.get(&stream).map_or(&[][..], Vec::as_slice);
            let recent = &known[known.len().saturating_sub(8)..];
            id = recent.get(random.below(recent.len().max(1) as u64) as usize).cloned();
        }
        _ => expected = Some(history.streams[stream].acked.saturating_sub(random.below(2))),
    }
    let number = history.begin(stream, session, count, id.clone(), expected);
    let event = |at| {
        let mut data = Value { op: number, at }.to_string();
        data.extend(std::iter::repeat_n(' ', random.below(200) as usize));
        let subject = Some(Text::from(if at % 2 == 0 { "even.x" } else { "odd.x" }));
        NewEvent { subject, id: id.as_deref().map(Text::from), data: Bytes::from(data), ..NewEvent::default() }
    };
    let events = (0..count).map(event).collect();
    let deadline = Instant::now() + Duration::from_millis(500 + random.below(DEADLINE_MS - 500));
    (number, stream, Publish { events, expected_last_seq: expected, deadline })
}

/// Follows a stream through this node, from where this machine's follower was before. In seeds with little to do it often looks away.
async fn follow(node: Node, shared: Arc<Shared>, mut random: Random, host: HostId, stream: usize) {
    let looks_away = shared.history().pause_ms >= DROWSY_MS;
    loop {
        let from = shared.history().streams[stream].cursors.get(&host).copied().unwrap_or(1);
        match node.reader(&stream_name(stream), From::Seq(from), None).await {
            Ok(reader) if looks_away => {
                let _ = timeout(Duration::from_millis(random.below(300)), read_on(reader, &shared, host, stream)).await;
                sleep(Duration::from_millis(random.below(2_000))).await;
            }
            Ok(reader) => read_on(reader, &shared, host, stream).await,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn read_on(mut reader: Reader, shared: &Shared, host: HostId, stream: usize) {
    loop {
        let step = reader.next(Take { events: 100, wait: Duration::from_secs(2) }).await;
        let Ok(chunk) = step else { return sleep(Duration::from_millis(50)).await };
        let mut history = shared.history();
        history.counts.reads += 1;
        let mut cursor = history.streams[stream].cursors.get(&host).copied().unwrap_or(1);
        for item in chunk.items {
            match item {
                Item::Event(delivery) => {
                    let event = &delivery.event;
                    if event.seq != cursor {
                        history.violation(format!("the follower of s{stream} at host {host} wants {cursor} and gets {}", event.seq));
                    }
                    cursor = event.seq + 1;
                    let Some(value) = Value::parse(&event.data) else {
                        history.violation(format!("s{stream} has bytes at {} that nobody wrote", event.seq));
                        continue;
                    };
                    history.trace(format_args!("host {host} reads s{stream} {}: {value}", event.seq));
                    let id = event.id.as_ref().map(|id| id.to_string());
                    history.saw(stream, event.seq, value, id, &format!("the follower at host {host}"));
                }
                Item::Gap { from, to } => {
                    history.trace(format_args!("host {host} reads s{stream}: {from} to {to} are gone"));
                    if from != cursor || !history.streams[stream].trims {
                        history.violation(format!(
                            "the follower of s{stream} at host {host} wants {cursor} and is told that {from} to {to} are gone"
                        ));
                    }
                    let gap = &mut history.streams[stream].gap;
                    *gap = (*gap).max(to);
                    cursor = to + 1;
                }
            }
        }
        if chunk.next != cursor {
            history.violation(format!("the follower of s{stream} at host {host} wants {cursor}, its reader {}", chunk.next));
        }
        history.streams[stream].cursors.insert(host, cursor);
    }
}

/// Looks up what was acknowledged to somebody: it must be found anywhere at once.
async fn probe(node: Node, shared: Arc<Shared>, mut random: Random, host: HostId) {
    loop {
        sleep(Duration::from_millis(100 + random.below(300))).await;
        let (stream, seq, trims) = {
            let history = shared.history();
            let stream = random.below(history.streams.len() as u64) as usize;
            let of = &history.streams[stream];
            (stream, of.acked.saturating_sub(random.below(3)), of.trims)
        };
        if seq == 0 {
            continue;
        }
        let found = node.get_event(&stream_name(stream), seq).await;
        let mut history = shared.history();
        history.trace(format_args!("host {host} looks up s{stream} {seq}: {:?}", found.as_ref().map(|found| found.event.seq)));
        match found {
            Ok(found) => {
                let value = Value::parse(&found.event.data).unwrap_or(Value { op: 0, at: 0 });
                let id = found.event.id.as_ref().map(|id| id.to_string());
                history.saw(stream, seq, value, id, &format!("a look-up at host {host}"));
            }
            Err(Error::EventGone { .. }) if trims => (),
            Err(error @ (Error::EventGone { .. } | Error::EventNotFound { .. } | Error::StreamNotFound(_) | Error::Internal(_))) => {
                history.violation(format!("s{stream} {seq} was acknowledged, but host {host} says: {error}"));
            }
            Err(_) => (),
        }
    }
}
