//! Leaders that go, by death or by will, and nodes of two versions of the peer protocol, while publishes are on their way.

use super::super::*;
use crate::core::{NewEvent, SettingsPatch, StreamName};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

struct Trio {
    nodes: Vec<Node>,
    folders: Vec<TempDir>,
    addresses: Vec<String>,
}

async fn start_node(folder: &TempDir, listener: TcpListener, number: usize, start: Start, peer_protocol_max: Option<u16>) -> Node {
    let address = listener.local_addr().unwrap().to_string();
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
        peer_protocol_max,
        store: crate::store::Options::default(),
        world: World::default(),
    };
    Node::start(config).await.unwrap()
}

impl Trio {
    /// Three nodes with one stream that has a replica on each.
    async fn start(stream: &StreamName, protocol_max: Option<u16>) -> Trio {
        let mut trio = Trio { nodes: Vec::new(), folders: Vec::new(), addresses: Vec::new() };
        for number in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            trio.addresses.push(listener.local_addr().unwrap().to_string());
            let start = if number == 1 { Start::Bootstrap } else { Start::Join(vec![trio.addresses[0].clone()]) };
            let folder = TempDir::new().unwrap();
            trio.nodes.push(start_node(&folder, listener, number, start, protocol_max).await);
            trio.folders.push(folder);
        }
        trio.ready().await;
        let patch = SettingsPatch { replicas: Some(3), ..SettingsPatch::default() };
        trio.nodes[0].put_stream(stream, patch).await.unwrap();
        trio.ready().await;
        trio
    }

    async fn ready(&self) {
        until("every node is ready and sees all the others", || {
            self.nodes.iter().all(|node| {
                let members = node.inner.directory.members();
                let voters = members.iter().all(|member| node.inner.catalog.get().is_some_and(|catalog| catalog.is_voter(member.id)));
                node.readiness() == Readiness::Ready && members.len() == 3 && voters && node.inner.alive().len() == 3
            })
        })
        .await;
    }

    /// The place of the node that leads the stream.
    async fn leader(&self, stream: &StreamName) -> usize {
        let place = || self.nodes.iter().position(|node| leads(node, stream));
        until("the stream has a leader", || place().is_some()).await;
        place().unwrap()
    }

    async fn restart(&mut self, at: usize) {
        let listener = TcpListener::bind(&self.addresses[at]).await.unwrap();
        self.nodes[at] = start_node(&self.folders[at], listener, at + 1, Start::Resume, None).await;
    }
}

fn leads(node: &Node, stream: &StreamName) -> bool {
    let record = node.inner.directory.stream(stream);
    let stream = record.and_then(|record| node.inner.stream_of_group(record.group));
    stream.is_some_and(|stream| stream.current().mine.is_some())
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("in vain waited until {what}"));
}

/// Publishes one event after the other through a node until it is told to stop: what was acknowledged, as (seq, data), and the longest
/// time between two acknowledgements.
struct Publisher {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(Vec<(u64, String)>, Duration)>,
}

impl Publisher {
    fn start(node: &Node, stream: &StreamName, tag: &str) -> Publisher {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, stream, tag, stopped) = (node.clone(), stream.clone(), tag.to_owned(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut acknowledged, mut last, mut longest) = (Vec::new(), Instant::now(), Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let data = format!("{tag}-{}", acknowledged.len());
                let event = NewEvent { data: Bytes::from(data.clone()), ..NewEvent::default() };
                let publish = Publish { events: vec![event], expected_last_seq: None, deadline: Instant::now() + PATIENCE };
                let published = node.publish(&stream, publish).await.expect("no request fails");
                acknowledged.push((published.first_seq, data));
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            (acknowledged, longest)
        });
        Publisher { stop, task }
    }

    async fn stop(self) -> (Vec<(u64, String)>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn read_all(node: &Node, stream: &StreamName) -> Vec<(u64, String)> {
    let mut reader = node.reader(stream, From::Earliest, None).await.unwrap();
    let mut all = Vec::new();
    loop {
        let chunk = reader.next(Take { events: 1_000, wait: Duration::ZERO }).await.unwrap();
        if chunk.items.is_empty() {
            return all;
        }
        all.extend(chunk.items.iter().filter_map(|item| match item {
            Item::Event(delivery) => Some((delivery.event.seq, String::from_utf8(delivery.event.data.to_vec()).unwrap())),
            Item::Gap { .. } => None,
        }));
    }
}

/// Every acknowledged event is there once, at its seq, and nothing else is.
async fn check_kept(node: &Node, stream: &StreamName, mut acknowledged: Vec<(u64, String)>) {
    acknowledged.sort();
    assert_eq!(read_all(node, stream).await, acknowledged);
}

/// As if the process were killed: peers see its connections close, and nobody listens any more.
async fn kill(node: &Node) {
    node.inner.mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_at_the_others_outlive_their_leader() {
    let orders = StreamName::new("orders").unwrap();
    let trio = Trio::start(&orders, None).await;
    let leader = trio.leader(&orders).await;
    let others: Vec<&Node> = trio.nodes.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, node)| node).collect();
    let publishers: Vec<Publisher> = others.iter().map(|node| Publisher::start(node, &orders, node.name().as_str())).collect();
    let moving = |node: &Node| node.inner.metrics.publish_requests.get() > 20;
    until("publishes are on their way", || others.iter().all(|node| moving(node))).await;
    kill(&trio.nodes[leader]).await;
    until("another leads", || others.iter().any(|node| leads(node, &orders))).await;
    let before: Vec<u64> = others.iter().map(|node| node.inner.metrics.publish_requests.get()).collect();
    let on = || others.iter().zip(&before).all(|(node, before)| node.inner.metrics.publish_requests.get() > before + 20);
    until("publishes go on", on).await;
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        let (some, longest) = publisher.stop().await;
        eprintln!("{} acknowledged, longest gap {longest:?}", some.len());
        acknowledged.extend(some);
    }
    check_kept(others[0], &orders, acknowledged).await;
    let by_evidence = others.iter().map(|node| node.inner.groups.elections().by_evidence.load(Ordering::Relaxed)).sum::<u64>();
    assert!(by_evidence > 0, "nobody waited for a timeout");
    assert!(others[0].metrics_text().contains("evermesh_elections_won_total{cause=\"evidence\"}"));
    for node in others {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_loses_nothing() {
    let orders = StreamName::new("orders").unwrap();
    let mut trio = Trio::start(&orders, Some(1)).await;
    let spoken = |node: &Node| -> Vec<u16> {
        let peers = node.inner.mesh.peers().borrow().clone();
        let protocol = |state: &crate::cluster::mesh::PeerState| match state {
            crate::cluster::mesh::PeerState::Connected { protocol, .. } => *protocol,
            _ => 0,
        };
        peers.values().map(protocol).collect()
    };
    assert!(trio.nodes.iter().all(|node| spoken(node) == [1, 1]));
    let mut acknowledged = Vec::new();
    for at in 0..3 {
        let others = [(at + 1) % 3, (at + 2) % 3];
        let tag = |other: usize| format!("{at}-{other}");
        let publishers: Vec<Publisher> = others.iter().map(|other| Publisher::start(&trio.nodes[*other], &orders, &tag(*other))).collect();
        trio.nodes[at].stop().await;
        trio.restart(at).await;
        trio.ready().await;
        for publisher in publishers {
            acknowledged.extend(publisher.stop().await.0);
        }
    }
    until("all speak the new version", || trio.nodes.iter().all(|node| spoken(node) == [2, 2])).await;
    assert!(acknowledged.len() > 20);
    for node in &trio.nodes {
        check_kept(node, &orders, acknowledged.clone()).await;
    }
    let leader = trio.leader(&orders).await;
    kill(&trio.nodes[leader]).await;
    let survivors: Vec<&Node> = trio.nodes.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, node)| node).collect();
    let by_evidence = || survivors.iter().any(|node| node.inner.groups.elections().by_evidence.load(Ordering::Relaxed) > 0);
    until("they act on evidence now", by_evidence).await;
    for node in survivors {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_over_to_a_node_that_leaves() {
    let orders = StreamName::new("orders").unwrap();
    let trio = Trio::start(&orders, None).await;
    let leader = trio.leader(&orders).await;
    let leaving = &trio.nodes[leader];
    let publisher = Publisher::start(&trio.nodes[(leader + 1) % 3], &orders, "p");
    leaving.leave().await;
    assert!(*leaving.leaving().borrow());
    assert!(!leads(leaving, &orders));
    let refused = trio.nodes[(leader + 1) % 3].move_leader(&orders, Some(leaving.name())).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    // What comes in at it is still served.
    let event = NewEvent { data: Bytes::from_static(b"late"), ..NewEvent::default() };
    let publish = Publish { events: vec![event], expected_last_seq: None, deadline: Instant::now() + PATIENCE };
    let late = leaving.publish(&orders, publish).await.unwrap();
    leaving.stop().await;
    let (mut acknowledged, _) = publisher.stop().await;
    acknowledged.push((late.first_seq, "late".into()));
    let other = &trio.nodes[(leader + 2) % 3];
    check_kept(other, &orders, acknowledged).await;
    for (at, node) in trio.nodes.iter().enumerate() {
        if at != leader {
            node.stop().await;
        }
    }
}
