//! Nodes in one process, over loopback: the verbs as the rooms above use them.

mod disk;
mod failover;
mod founding;
mod members;
mod packing;
mod reading;
mod rebuild;
mod replace;
mod retention;
mod sleep;
mod verify;

use super::*;
use crate::core::{Discard, NewEvent, SettingsPatch, StreamName, SubjectFilter, Text};
use crate::store::crash::Random;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    nodes: Vec<Node>,
    folders: Vec<TempDir>,
    addresses: Vec<String>,
    /// What each node's disk says is free.
    free: Vec<Arc<AtomicU64>>,
    build: Build,
}

/// What the nodes are that are started.
#[derive(Clone, Copy, Default)]
struct Build {
    /// The newest peer protocol that they speak, if it is not the newest there is.
    protocol_max: Option<u16>,
    /// Bytes of their log's segments, if not as many as by default.
    segment_bytes: Option<u64>,
    /// Until streams sleep; `None`: never.
    sleep_after: Option<Duration>,
}

/// Enough for anything.
const MUCH: u64 = 1 << 39;

async fn try_start_node(
    folder: &TempDir,
    listener: TcpListener,
    number: usize,
    start: Start,
    free: &Arc<AtomicU64>,
    build: Build,
) -> std::result::Result<Node, StartError> {
    let address = listener.local_addr().unwrap().to_string();
    let store = StoreOptions { free_bytes: Some(free.clone()), ..StoreOptions::default() };
    let segment_bytes = build.segment_bytes.unwrap_or(store.segment_bytes);
    let config = Config {
        data: folder.path().into(),
        name: Some(NodeName::new(&format!("n{number}")).unwrap()),
        url: format!("http://127.0.0.1:{}", 4700 + number),
        peer_listener: listener.into(),
        peer_advertise: address,
        secret: Secret::new("a secret of the tests"),
        start,
        auto_create_streams: true,
        timers: Timers::default(),
        sleep_after: build.sleep_after,
        peer_protocol_max: build.protocol_max,
        store: StoreOptions { segment_bytes, ..store },
        world: World::default(),
    };
    Node::start(config).await
}

impl Cluster {
    async fn start(count: usize) -> Cluster {
        Cluster::start_with(count, Build::default()).await
    }

    async fn start_with(count: usize, build: Build) -> Cluster {
        let mut cluster = Cluster { nodes: Vec::new(), folders: Vec::new(), addresses: Vec::new(), free: Vec::new(), build };
        for _ in 0..count {
            cluster.grow().await;
        }
        cluster.wait_ready().await;
        cluster
    }

    async fn grow(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let start = match self.addresses.first() {
            None => Start::Bootstrap,
            Some(first) => Start::Join(vec![first.clone()]),
        };
        let folder = TempDir::new().unwrap();
        let free = Arc::new(AtomicU64::new(MUCH));
        let node = try_start_node(&folder, listener, self.nodes.len() + 1, start, &free, self.build).await;
        self.nodes.push(node.unwrap());
        self.free.push(free);
        self.folders.push(folder);
        self.addresses.push(address);
    }

    /// Every node sees all of them, connected, and a catalog of which all are voters.
    async fn wait_ready(&self) {
        let count = self.nodes.len();
        until("every node is ready and sees all the others", || {
            self.nodes.iter().all(|node| {
                let members = node.inner.directory.members();
                let voters = node.inner.catalog.get().is_some_and(|catalog| members.iter().all(|member| catalog.is_voter(member.id)));
                node.readiness() == Readiness::Ready && members.len() == count && voters && node.inner.alive().len() == count
            })
        })
        .await;
    }

    async fn restart(&mut self, at: usize) {
        let listener = TcpListener::bind(&self.addresses[at]).await.unwrap();
        let node = try_start_node(&self.folders[at], listener, at + 1, Start::Resume, &self.free[at], self.build).await;
        self.nodes[at] = node.unwrap();
    }

    /// Stops every node, and starts all of them again.
    async fn restart_all(&mut self) {
        for node in &self.nodes {
            node.stop().await;
        }
        for at in 0..self.nodes.len() {
            self.restart(at).await;
        }
        self.wait_ready().await;
    }

    fn group(&self, stream: &StreamName) -> u64 {
        self.nodes[0].inner.directory.stream(stream).unwrap().group
    }

    /// The place of the node that leads the stream, or the catalog.
    async fn leading(&self, group: u64) -> usize {
        let leads = |node: &Node| node.inner.groups.get(group).is_some_and(|group| group.current().mine.is_some());
        until("somebody leads", || self.nodes.iter().any(leads)).await;
        self.nodes.iter().position(leads).unwrap()
    }

    async fn stop(self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

/// Publishes one event after the other, each with data of its own, until it is told to stop.
struct Publisher {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<(u64, String)>>,
    acknowledged: watch::Receiver<u64>,
}

impl Publisher {
    /// Through the nodes in turn.
    fn start(nodes: Vec<Node>, stream: StreamName) -> Publisher {
        static PUBLISHERS: AtomicU64 = AtomicU64::new(0);
        let tag = PUBLISHERS.fetch_add(1, Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let (told, acknowledged) = watch::channel(0);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            while !stopped.load(Relaxed) {
                let data = format!("{tag}-{}", acknowledged.len());
                let node = &nodes[acknowledged.len() % nodes.len()];
                let published = node.publish(&stream, publish(vec![event("a", None, &data)])).await.unwrap();
                acknowledged.push((published.first_seq, data));
                told.send_replace(acknowledged.len() as u64);
            }
            acknowledged
        });
        Publisher { stop, task, acknowledged }
    }

    /// Waits until so many more were acknowledged.
    async fn wait_more(&mut self, events: u64) {
        let now = *self.acknowledged.borrow();
        timeout(PATIENCE, self.acknowledged.wait_for(|count| *count >= now + events)).await.unwrap().unwrap();
    }

    async fn stop(self) -> Vec<(u64, String)> {
        self.stop.store(true, Relaxed);
        self.task.await.unwrap()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("in vain waited until {what}"));
}

/// Letters that do not compress, others for each number.
fn noise(number: usize, bytes: usize) -> String {
    Random((number as u64) << 32).letters(bytes)
}

fn name(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn event(subject: &str, id: Option<&str>, data: &str) -> NewEvent {
    let data = Bytes::copy_from_slice(data.as_bytes());
    NewEvent { subject: Some(Text::from(subject)), id: id.map(Text::from), data, ..NewEvent::default() }
}

fn publish(events: Vec<NewEvent>) -> Publish {
    Publish { events, expected_last_seq: None, deadline: Instant::now() + Duration::from_secs(20) }
}

const AT_ONCE: Take = Take { events: 1_000, wait: Duration::ZERO };

async fn read_all(node: &Node, stream: &StreamName) -> Vec<(u64, String)> {
    let mut reader = node.reader(stream, From::Earliest, None).await.unwrap();
    let mut all = Vec::new();
    loop {
        let chunk = reader.next(AT_ONCE).await.unwrap();
        if chunk.items.is_empty() {
            return all;
        }
        all.extend(chunk.items.iter().filter_map(|item| match item {
            Item::Event(delivery) => Some((delivery.event.seq, String::from_utf8(delivery.event.data.to_vec()).unwrap())),
            Item::Gap { .. } => None,
        }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_takes_every_node_gives() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let mut expected = Vec::new();
    for number in 0..30u64 {
        let node = &cluster.nodes[number as usize % 3];
        let published = node.publish(&orders, publish(vec![event("a.b", None, &number.to_string())])).await.unwrap();
        assert_eq!((published.first_seq, published.count), (number + 1, 1));
        expected.push((number + 1, number.to_string()));
        // Acknowledged by one, found at once at another.
        let other = &cluster.nodes[(number as usize + 1) % 3];
        assert_eq!(other.get_event(&orders, number + 1).await.unwrap().event.seq, number + 1);
    }
    for node in &cluster.nodes {
        assert_eq!(read_all(node, &orders).await, expected);
    }
    assert!(matches!(cluster.nodes[0].get_event(&orders, 31).await, Err(Error::EventNotFound { last_seq: 30, .. })));
    cluster.stop().await;
}

/// A leader may apply an entry after its followers did. What one of them gave to a reader, the reader goes on behind there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_goes_on_behind_what_the_leader_has_not_applied() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "1")])).await.unwrap();
    let group = cluster.group(&orders);
    let leads = cluster.leading(group).await;
    let (leader, follower) = (&cluster.nodes[leads], &cluster.nodes[(leads + 1) % 3]);
    let replica = leader.inner.stream_of_group(group).unwrap().local().unwrap().replica;
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (holds, held_now) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _machine = replica.machine();
        holds.send(()).unwrap();
        let _ = held.recv();
    });
    held_now.await.unwrap();
    let mut reader = follower.reader(&orders, From::Seq(2), None).await.unwrap();
    let publishing = tokio::spawn({
        let (leader, orders) = (leader.clone(), orders.clone());
        async move { leader.publish(&orders, publish(vec![event("a", None, "2")])).await }
    });
    let chunk = reader.next(Take { events: 1, wait: PATIENCE }).await.unwrap();
    assert_eq!(chunk.next, 3);
    let next = follower.reader(&orders, From::Seq(3), None).await;
    let seen = follower.stream_info(&orders).await.unwrap().last_seq;
    drop(let_go);
    assert_eq!((next.unwrap().cursor(), seen), (3, 2));
    assert_eq!(publishing.await.unwrap().unwrap().first_seq, 2);
    assert!(matches!(follower.reader(&orders, From::Seq(4), None).await.err(), Some(Error::EventNotFound { last_seq: 2, .. })));
    holder.join().unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_expectations_and_bounds_are_kept() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    let first = one.publish(&orders, publish(vec![event("a", Some("x"), "1")])).await.unwrap();
    let again = two.publish(&orders, publish(vec![event("a", Some("x"), "1")])).await.unwrap();
    assert_eq!((again.first_seq, again.count, again.duplicates), (first.first_seq, 0, 1));
    let expecting = |last| Publish { expected_last_seq: Some(last), ..publish(vec![event("a", None, "2")]) };
    assert_eq!(two.publish(&orders, expecting(0)).await, Err(Error::ExpectationFailed { last_seq: 1 }));
    assert_eq!(two.publish(&orders, expecting(1)).await.unwrap().first_seq, 2);

    let full = name("full");
    let patch = SettingsPatch { max_events: Some(Some(2)), discard: Some(Discard::New), ..SettingsPatch::default() };
    assert_eq!(one.put_stream(&full, patch.clone()).await.unwrap().0, Put::Created);
    assert_eq!(two.put_stream(&full, patch).await.unwrap().0, Put::Same);
    for data in ["1", "2"] {
        two.publish(&full, publish(vec![event("a", None, data)])).await.unwrap();
    }
    let refused = one.publish(&full, publish(vec![event("a", None, "3")])).await;
    assert_eq!(refused, Err(Error::StreamFull { limit: 2, unit: "events" }));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_wait_filter_and_are_told_of_gaps() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let node = &cluster.nodes[2];
    let events = (1..=10).map(|number| event(if number % 2 == 0 { "even.x" } else { "odd.x" }, None, &number.to_string())).collect();
    cluster.nodes[0].publish(&orders, publish(events)).await.unwrap();
    let mut reader = node.reader(&orders, From::Earliest, Some(SubjectFilter::new("even.*").unwrap())).await.unwrap();
    let seqs = |chunk: &Chunk| -> Vec<u64> {
        chunk.items.iter().map(|item| if let Item::Event(delivery) = item { delivery.event.seq } else { 0 }).collect()
    };
    let chunk = reader.next(AT_ONCE).await.unwrap();
    assert_eq!((seqs(&chunk), chunk.next), (vec![2, 4, 6, 8, 10], 11));

    let waiting = tokio::spawn(async move { reader.next(Take { events: 10, wait: PATIENCE }).await });
    cluster.nodes[1].publish(&orders, publish(vec![event("odd.y", None, "11"), event("even.y", None, "12")])).await.unwrap();
    assert_eq!(seqs(&waiting.await.unwrap().unwrap()), vec![12]);

    let purged = cluster.nodes[1].purge(&orders, Purge::BeforeSeq(4)).await.unwrap();
    assert_eq!((purged.events, purged.first_seq), (3, 4));
    let purged = cluster.nodes[2].purge(&orders, Purge::Subject(SubjectFilter::new("odd.>").unwrap())).await.unwrap();
    assert_eq!(purged.events, 4);
    let mut reader = cluster.nodes[0].reader(&orders, From::Seq(1), None).await.unwrap();
    let mut met = Vec::new();
    loop {
        let chunk = reader.next(AT_ONCE).await.unwrap();
        if chunk.items.is_empty() {
            break;
        }
        met.extend(chunk.items.iter().map(|item| match item {
            Item::Event(delivery) => (delivery.event.seq, delivery.event.seq),
            Item::Gap { from, to } => (*from, *to),
        }));
    }
    assert_eq!(met, [(1, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9), (10, 10), (11, 11), (12, 12)]);
    assert!(matches!(node.get_event(&orders, 2).await, Err(Error::EventGone { first_seq: 4, .. })));
    assert!(matches!(node.get_event(&orders, 7).await, Err(Error::EventGone { .. })));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_spread_and_evened_out_when_nodes_join() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..12 {
        cluster.nodes[number % 3].put_stream(&name(&format!("s{number}")), SettingsPatch::default()).await.unwrap();
    }
    let led = |cluster: &Cluster| -> Vec<usize> {
        let leads = |node: &Node| node.inner.groups.all().iter().filter(|group| group.id() != 0 && group.current().mine.is_some()).count();
        cluster.nodes.iter().map(leads).collect()
    };
    let cluster_ref = &cluster;
    until("each of three nodes leads four streams", || led(cluster_ref) == [4, 4, 4]).await;
    cluster.grow().await;
    cluster.grow().await;
    let cluster_ref = &cluster;
    let even = || {
        let mut led = led(cluster_ref);
        led.sort();
        let mut held: Vec<usize> = cluster_ref.nodes.iter().map(|node| node.inner.groups.all().len() - 1).collect();
        held.sort();
        led == [2, 2, 2, 3, 3] && held == [7, 7, 7, 7, 8]
    };
    until("five nodes hold and lead about the same", even).await;
    let five = name("five");
    let patch = SettingsPatch { replicas: Some(5), ..SettingsPatch::default() };
    let info = cluster.nodes[4].put_stream(&five, patch).await.unwrap().1;
    assert_eq!(info.replicas.len(), 5);
    // A node without a replica takes and gives events too.
    let stream = name("s0");
    let outsider =
        cluster.nodes.iter().find(|node| !cluster.nodes[0].inner.directory.stream(&stream).unwrap().placement.contains(&node.inner.id));
    let outsider = outsider.unwrap();
    assert_eq!(outsider.publish(&stream, publish(vec![event("a", None, "x")])).await.unwrap().first_seq, 1);
    assert_eq!(outsider.get_event(&stream, 1).await.unwrap().event.seq, 1);
    assert_eq!(read_all(outsider, &stream).await.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart_of_all() {
    let mut cluster = Cluster::start(3).await;
    let orders = name("orders");
    for number in 0..50 {
        cluster.nodes[number % 3].publish(&orders, publish(vec![event("a", None, &number.to_string())])).await.unwrap();
    }
    let before = read_all(&cluster.nodes[0], &orders).await;
    cluster.restart_all().await;
    for node in &cluster.nodes {
        assert_eq!(read_all(node, &orders).await, before);
    }
    assert_eq!(cluster.nodes[1].publish(&orders, publish(vec![event("a", None, "on")])).await.unwrap().first_seq, 51);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_publishes_keep_their_order_through_a_change_of_leader() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let node = &cluster.nodes[1];
    node.publish(&orders, publish(vec![event("a", None, "0")])).await.unwrap();
    let mut acks = Vec::new();
    for number in 1..=400u64 {
        acks.push(node.submit(&orders, publish(vec![event("a", None, &number.to_string())])).await.unwrap());
        if number % 100 == 0 {
            cluster.nodes[2].move_leader(&orders, None).await.unwrap();
        }
    }
    for (at, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.unwrap().first_seq, at as u64 + 2);
    }
    let expected: Vec<_> = (0..=400u64).map(|number| (number + 1, number.to_string())).collect();
    assert_eq!(read_all(&cluster.nodes[0], &orders).await, expected);
    cluster.stop().await;
}

/// Moves the only replica of a stream there and waits until it leads and the old one's data is gone.
async fn move_only_replica(cluster: &Cluster, stream: &StreamName, to: usize) {
    let record = || cluster.nodes[0].inner.directory.stream(stream).unwrap();
    until("the group has begun", || record().has_begun()).await;
    let (from, group, id) = (record().placement, record().group, cluster.nodes[to].inner.id);
    let command = crate::core::catalog::Command::SetPlacement { group, from: from.clone(), to: vec![id] };
    cluster.nodes[0].inner.change_catalog(&command).await.unwrap();
    let old = cluster.nodes.iter().find(|node| node.inner.id == from[0]).unwrap();
    let leads = || {
        let local = cluster.nodes[to].inner.stream_of_group(group).and_then(|stream| stream.local());
        local.is_some_and(|local| local.group.current().mine.is_some())
    };
    until("the replica is there and nowhere else", || leads() && !old.inner.store.groups().contains(&group)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_to_where_it_began_still_has_its_events() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let patch = SettingsPatch { replicas: Some(1), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&orders, patch).await.unwrap();
    cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "1")])).await.unwrap();
    let first = cluster.nodes[0].inner.directory.stream(&orders).unwrap().placement[0];
    let home = cluster.nodes.iter().position(|node| node.inner.id == first).unwrap();
    move_only_replica(&cluster, &orders, (home + 1) % 3).await;
    move_only_replica(&cluster, &orders, home).await;
    assert_eq!(read_all(&cluster.nodes[home], &orders).await, [(1, "1".to_owned())]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_an_age_bound_moves_like_any_other() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let patch = SettingsPatch { replicas: Some(1), max_age_ms: Some(Some(3_600_000)), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&orders, patch).await.unwrap();
    cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "1")])).await.unwrap();
    let first = cluster.nodes[0].inner.directory.stream(&orders).unwrap().placement[0];
    let home = cluster.nodes.iter().position(|node| node.inner.id == first).unwrap();
    move_only_replica(&cluster, &orders, (home + 1) % 3).await;
    assert_eq!(read_all(&cluster.nodes[0], &orders).await, [(1, "1".to_owned())]);
    cluster.stop().await;
}
