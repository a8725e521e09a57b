//! Nodes that are gone for good: replaced by a new one, or removed.

use super::*;
use crate::core::catalog::NodeState;

/// Somebody who publishes to one stream without a pause, through one node; gives how many events were acknowledged.
fn keep_publishing(node: Node, stream: StreamName, stop: tokio_util::sync::CancellationToken) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut published = 0;
        while !stop.is_cancelled() {
            node.publish(&stream, publish(vec![event("on.and.on", None, &published.to_string())])).await.unwrap();
            published += 1;
        }
        published
    })
}

async fn joining(cluster: &Cluster, seed: usize, number: usize, replace: &str) -> (TempDir, std::result::Result<Node, StartError>) {
    let folder = TempDir::new().unwrap();
    let started = join_with(&folder, cluster, seed, number, replace).await;
    (folder, started)
}

async fn join_with(
    folder: &TempDir,
    cluster: &Cluster,
    seed: usize,
    number: usize,
    replace: &str,
) -> std::result::Result<Node, StartError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let start = Start::Replace { seeds: vec![cluster.addresses[seed].clone()], node: NodeName::new(replace).unwrap() };
    try_start_node(folder, listener, number, start, &Arc::new(AtomicU64::new(MUCH)), Build::default()).await
}

/// Every stream is on these nodes, all of them voters and up to date.
fn all_placed(node: &Node, others: &[&Node], ids: &[u64]) -> bool {
    let records: Vec<_> = node.inner.directory.read().streams.values().cloned().collect();
    records.iter().all(|record| {
        let mut placement = record.placement.clone();
        placement.sort();
        let leads = |node: &&&Node| node.inner.groups.get(record.group).is_some_and(|group| group.current().mine.is_some());
        let led = [&node].into_iter().chain(others).find(leads);
        let whole = led.is_some_and(|leader| {
            let progress = leader.inner.groups.get(record.group).map(|group| group.progress()).unwrap_or_default();
            progress.keys().copied().eq(ids.iter().copied()) && progress.values().all(|one| one.voter && one.lag == Some(0))
        });
        placement == ids && whole
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_takes_the_place_of_a_dead_one() {
    let mut cluster = Cluster::start(3).await;
    let streams: Vec<_> = (0..6).map(|number| name(&format!("s{number}"))).collect();
    for (at, stream) in streams.iter().enumerate() {
        for number in 0..40 {
            cluster.nodes[(at + number) % 3].publish(stream, publish(vec![event("a", None, &format!("{at}-{number}"))])).await.unwrap();
        }
    }
    let refused = joining(&cluster, 1, 4, "n3").await.1.err().unwrap().0;
    assert!(refused.contains("n3 is alive"), "{refused}");
    let unknown = joining(&cluster, 1, 4, "n9").await.1.err().unwrap().0;
    assert!(unknown.contains("no node named n9") && unknown.contains("n1, n2, n3"), "{unknown}");

    let gone = cluster.nodes.remove(2);
    gone.stop().await;
    drop(gone);
    let nodes = cluster.nodes.clone();
    until("the others miss the dead node", || nodes.iter().all(|node| node.inner.alive().len() == 2)).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let publishing = keep_publishing(cluster.nodes[0].clone(), streams[0].clone(), stop.clone());

    // Whichever node is asked, the catalog's leader decides; the new node has the dead one's name.
    let follower = (0..2).find(|at| cluster.nodes[*at].inner.catalog.current().mine.is_none()).unwrap();
    let (_folder, new) = joining(&cluster, follower, 3, "n3").await;
    let new = new.unwrap();
    assert_eq!((new.inner.id, new.name().as_str()), (4, "n3"));
    let (one, two) = (cluster.nodes[0].clone(), cluster.nodes[1].clone());
    let catalog_has = |node: &Node| node.inner.catalog.get().is_some_and(|catalog| catalog.progress().keys().copied().eq([1, 2, 4]));
    until("the catalog's members are those that live", || [&one, &two, &new].iter().any(|node| catalog_has(node))).await;
    stop.cancel();
    let more = publishing.await.unwrap();
    assert!(more > 0, "publishes go on meanwhile");
    until("every replica is on the new node and up to date", || all_placed(&one, &[&two, &new], &[1, 2, 4])).await;
    assert_eq!(one.inner.directory.node(3).unwrap().state, NodeState::Removed);

    for (at, stream) in streams.iter().enumerate() {
        let expected = read_all(&one, stream).await;
        assert_eq!(expected.len() as u64, 40 + if at == 0 { more } else { 0 }, "{stream}");
        until("the new node has its replica", || {
            let group = new.inner.directory.stream(stream).map(|record| record.group);
            group.and_then(|group| new.inner.stream_of_group(group)).is_some_and(|stream| stream.local().is_some())
        })
        .await;
        for node in [&two, &new] {
            assert_eq!(read_all(node, stream).await, expected, "{stream} at {}", node.name());
        }
    }
    let again = joining(&cluster, 0, 5, "n2").await.1.err().unwrap().0;
    assert!(again.contains("n2 is alive"), "{again}");
    new.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_answer_got_lost_is_repeated() {
    let mut cluster = Cluster::start(3).await;
    let dead = cluster.nodes.remove(2);
    dead.stop().await;
    let nodes = cluster.nodes.clone();
    until("the others miss the dead node", || nodes.iter().all(|node| node.inner.alive().len() == 2)).await;
    let ask = identity::Join {
        token: 4242,
        name: NodeName::new("n4").unwrap(),
        url: "http://127.0.0.1:4704".into(),
        peer: "127.0.0.1:1".into(),
        version: "1".into(),
        replace: Some(NodeName::new("n3").unwrap()),
    };
    let (address, lane) = ("127.0.0.1:1".parse().unwrap(), crate::cluster::mesh::Lane::Bulk);
    let stranger = crate::cluster::mesh::Peer { node: 0, boot: 1, address, lane, protocol: 1 };
    let mut ids = Vec::new();
    for node in [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[0]] {
        let joined = membership::join(&node.inner, stranger, ask.encode()).await.unwrap();
        ids.push(identity::Joined::decode(joined).unwrap().node);
    }
    assert_eq!(ids, [4, 4, 4]);
    let other = identity::Join { token: 1, name: NodeName::new("n5").unwrap(), ..ask };
    let late = membership::join(&cluster.nodes[0].inner, stranger, other.encode()).await.unwrap_err();
    assert!(late.to_string().contains("n3 was removed already"), "{late}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_stops_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    let failed = cluster.nodes[2].failed();
    cluster.nodes[0].remove(&NodeName::new("n3").unwrap()).await.unwrap();
    let why = timeout(PATIENCE, failed).await.expect("it hears of it");
    assert!(why.contains("n3 was removed from the cluster"), "{why}");
    assert!(*cluster.nodes[2].leaving().borrow(), "its clients are told to go");
    cluster.nodes[2].stop().await;
    // Started again it belongs nowhere, and hears so from the others.
    cluster.restart(2).await;
    let why = timeout(PATIENCE, cluster.nodes[2].failed()).await.expect("it hears of it");
    assert!(why.contains("was removed"), "{why}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_node_that_a_stream_needs_is_not_removed() {
    let cluster = Cluster::start(3).await;
    let only = name("only");
    let patch = SettingsPatch { replicas: Some(1), ..SettingsPatch::default() };
    let info = cluster.nodes[0].put_stream(&only, patch).await.unwrap().1;
    let holder = info.replicas[0].node.clone();
    let refused = cluster.nodes[0].remove(&holder).await;
    assert!(matches!(&refused, Err(Error::Conflict(why)) if why.contains("only") && why.contains("drain it first")), "{refused:?}");
    cluster.stop().await;
}
