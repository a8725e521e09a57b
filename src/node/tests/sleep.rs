//! Streams to which nothing happens sleep, and nobody notices.

use super::*;

/// Streams of these tests sleep soon.
const SOON: Duration = Duration::from_millis(200);

impl Cluster {
    async fn drowsy(count: usize) -> Cluster {
        Cluster::start_with(count, Build { sleep_after: Some(SOON), ..Build::default() }).await
    }

    /// With one stream in it.
    async fn drowsy_with(count: usize, stream: &str) -> (Cluster, StreamName) {
        let (cluster, stream) = (Cluster::drowsy(count).await, name(stream));
        cluster.nodes[0].put_stream(&stream, SettingsPatch::default()).await.unwrap();
        (cluster, stream)
    }

    fn sleeps(&self, at: usize, stream: &StreamName) -> bool {
        let node = &self.nodes[at].inner;
        let record = node.directory.stream(stream).unwrap();
        node.stream_of_group(record.group).is_some_and(|stream| node.is_asleep(&stream))
    }

    async fn wait_asleep(&self, stream: &StreamName) {
        let holders = || self.nodes[0].inner.directory.stream(stream).unwrap().placement;
        until("every replica sleeps", || holders().into_iter().all(|id| self.sleeps(id as usize - 1, stream))).await;
    }

    /// Without which nodes the stream fell asleep, where it sleeps and was awake before.
    fn lacks(&self, at: usize, stream: &StreamName) -> Option<Vec<u64>> {
        let node = &self.nodes[at].inner;
        let record = node.directory.stream(stream)?;
        Some(node.stream_of_group(record.group)?.slept()?.lacking.to_vec())
    }

    async fn publish_through(&self, at: usize, stream: &StreamName, data: &str) -> u64 {
        self.nodes[at].publish(stream, publish(vec![event("a", None, data)])).await.unwrap().last_seq
    }

    /// The data of every event, read through one node.
    async fn read_through(&self, at: usize, stream: &StreamName) -> Vec<String> {
        read_all(&self.nodes[at], stream).await.into_iter().map(|(_, data)| data).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sleeps_and_wakes_through_every_node() {
    let (cluster, stream) = Cluster::drowsy_with(4, "naps").await;
    for at in 0..4 {
        cluster.wait_asleep(&stream).await;
        assert_eq!(cluster.publish_through(at, &stream, &at.to_string()).await, at as u64 + 1);
    }
    for at in 0..4 {
        cluster.wait_asleep(&stream).await;
        assert_eq!(cluster.read_through(at, &stream).await, ["0", "1", "2", "3"]);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_stream_is_described_and_listed_without_waking_it() {
    let (cluster, stream) = Cluster::drowsy_with(3, "described").await;
    cluster.publish_through(0, &stream, "x").await;
    cluster.wait_asleep(&stream).await;
    let wakes = || -> u64 { cluster.nodes.iter().map(|node| node.inner.groups.elections().by_opening.load(Relaxed)).sum() };
    let before = wakes();
    for node in &cluster.nodes {
        let info = node.stream_info(&stream).await.unwrap();
        assert_eq!((info.last_seq, info.events), (1, 1));
        assert!(info.replicas.iter().all(|replica| replica.state == ReplicaState::Ok && replica.lag == Some(0)), "{info:?}");
        assert_eq!(info.replicas.iter().filter(|replica| replica.leader).count(), 1);
        let listed = node.list_streams("", None, 10).await.unwrap();
        assert_eq!(listed[0].leader, info.leader);
        assert_eq!(node.readiness(), Readiness::Ready);
    }
    assert!((0..3).all(|at| cluster.sleeps(at, &stream)));
    assert_eq!(wakes(), before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_keeps_a_stream_awake() {
    let cluster = Cluster::drowsy(3).await;
    let (followed, other) = (name("followed"), name("other"));
    for stream in [&followed, &other] {
        cluster.nodes[0].put_stream(stream, SettingsPatch::default()).await.unwrap();
    }
    let mut reader = cluster.nodes[1].reader(&followed, From::Earliest, None).await.unwrap();
    let mut fallen_asleep = 0;
    while fallen_asleep < 5 {
        cluster.wait_asleep(&other).await;
        fallen_asleep += 1;
        assert!(!(0..3).any(|at| cluster.sleeps(at, &followed)), "after the other slept {fallen_asleep} times");
        cluster.publish_through(2, &other, "x").await;
    }
    cluster.publish_through(2, &followed, "y").await;
    let chunk = reader.next(Take { events: 1, wait: PATIENCE }).await.unwrap();
    assert_eq!(chunk.next, 2);
    drop(reader);
    cluster.wait_asleep(&followed).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_starts_asleep_and_has_everything() {
    let mut cluster = Cluster::drowsy(3).await;
    let streams: Vec<StreamName> = (0..20).map(|at| name(&format!("s{at}"))).collect();
    for stream in &streams {
        cluster.nodes[0].put_stream(stream, SettingsPatch::default()).await.unwrap();
        cluster.publish_through(1, stream, "before").await;
    }
    cluster.build.sleep_after = Some(PATIENCE);
    cluster.restart_all().await;
    for (at, stream) in streams.iter().enumerate() {
        assert_eq!(cluster.publish_through(at % 3, stream, "after").await, 2);
        assert_eq!(cluster.read_through((at + 1) % 3, stream).await, ["before", "after"]);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_not_used_since_the_start_is_looked_at_once() {
    let (mut cluster, stream) = Cluster::drowsy_with(3, "forgotten").await;
    cluster.wait_asleep(&stream).await;
    cluster.restart_all().await;
    let seen = |node: &Node| node.inner.stream_of_group(1).is_some_and(|stream| stream.slept().is_some());
    until("it was awake and sleeps again", || cluster.nodes.iter().all(seen)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_slept_through_its_leaders_death_wakes() {
    let (mut cluster, stream) = Cluster::drowsy_with(3, "orphan").await;
    cluster.publish_through(0, &stream, "before").await;
    cluster.wait_asleep(&stream).await;
    let gone = cluster.nodes[0].inner.directory.stream(&stream).unwrap().placement[0] as usize - 1;
    cluster.nodes[gone].stop().await;
    let (one, two) = ((gone + 1) % 3, (gone + 2) % 3);
    assert_eq!(cluster.publish_through(one, &stream, "without").await, 2);
    cluster.restart(gone).await;
    cluster.wait_ready().await;
    assert_eq!(cluster.publish_through(gone, &stream, "after").await, 3);
    for at in [gone, one, two] {
        assert_eq!(cluster.read_through(at, &stream).await, ["before", "without", "after"]);
    }
    cluster.wait_asleep(&stream).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalog_says_of_a_sleeping_stream_is_done() {
    let (cluster, stream) = Cluster::drowsy_with(3, "changed").await;
    for at in 0..5 {
        cluster.publish_through(0, &stream, &at.to_string()).await;
    }
    cluster.wait_asleep(&stream).await;
    let fewer = SettingsPatch { max_events: Some(Some(2)), ..SettingsPatch::default() };
    cluster.nodes[1].put_stream(&stream, fewer).await.unwrap();
    let first =
        |node: &Node| node.inner.stream_of_group(1).and_then(|stream| stream.slept()).is_some_and(|slept| slept.state.first_seq == 4);
    until("retention was done and all sleep again", || cluster.nodes.iter().all(first)).await;
    let one = SettingsPatch { replicas: Some(1), ..SettingsPatch::default() };
    cluster.nodes[2].put_stream(&stream, one).await.unwrap();
    until("two nodes have deleted their replicas", || cluster.nodes.iter().filter(|node| node.inner.store.has_group(1)).count() == 1).await;
    cluster.wait_asleep(&stream).await;
    for at in 0..3 {
        assert_eq!(cluster.read_through(at, &stream).await, ["3", "4"]);
    }
    cluster.nodes[0].delete_stream(&stream).await.unwrap();
    until("its data is gone", || cluster.nodes.iter().all(|node| !node.inner.store.has_group(1))).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_stream_is_moved_verified_and_purged() {
    let (cluster, stream) = Cluster::drowsy_with(3, "operated").await;
    cluster.publish_through(0, &stream, "x").await;
    cluster.publish_through(0, &stream, "y").await;
    for at in 0..3 {
        cluster.wait_asleep(&stream).await;
        let to = cluster.nodes[(at + 1) % 3].name();
        assert_eq!(cluster.nodes[at].move_leader(&stream, Some(to.clone())).await.unwrap(), to);
        cluster.wait_asleep(&stream).await;
        let verified = cluster.nodes[at].verify(&stream, true).await.unwrap();
        assert!(verified.replicas.iter().all(|replica| replica.result == Agreement::Identical), "{verified:?}");
    }
    cluster.wait_asleep(&stream).await;
    assert_eq!(cluster.nodes[1].purge(&stream, Purge::Keep(1)).await.unwrap().events, 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sleeps_without_a_node_that_is_down_and_catches_it_up() {
    let (mut cluster, stream) = Cluster::drowsy_with(3, "lacking").await;
    cluster.publish_through(0, &stream, "before").await;
    cluster.wait_asleep(&stream).await;
    cluster.nodes[2].stop().await;
    assert_eq!(cluster.publish_through(0, &stream, "without").await, 2);
    until("the others sleep", || (0..2).all(|at| cluster.sleeps(at, &stream))).await;
    let info = cluster.nodes[0].stream_info(&stream).await.unwrap();
    let unknown = info.replicas.iter().filter(|replica| replica.lag.is_none()).map(|replica| replica.node.clone());
    assert_eq!((unknown.collect(), info.last_seq), (vec![cluster.nodes[2].name()], 2));
    assert!((0..2).all(|at| cluster.sleeps(at, &stream)));
    cluster.restart(2).await;
    until("it has everything, and nobody lacks it", || (0..3).all(|at| cluster.lacks(at, &stream) == Some(vec![]))).await;
    assert_eq!(cluster.nodes[2].inner.stream_of_group(1).unwrap().slept().unwrap().state.last_seq, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_majority_could_wake_is_left_alone() {
    let (mut cluster, stream) = Cluster::drowsy_with(3, "lonely").await;
    cluster.wait_asleep(&stream).await;
    for node in &cluster.nodes {
        node.stop().await;
    }
    cluster.restart(0).await;
    let look = |cluster: &Cluster| {
        let node = &cluster.nodes[0].inner;
        crate::node::sleep::look_for(node, &node.stream_of_group(1).unwrap(), &node.alive())
    };
    assert_eq!(look(&cluster), None);
    assert!(cluster.sleeps(0, &stream));
    cluster.restart(1).await;
    until("both have been awake, and lack the third", || (0..2).all(|at| cluster.lacks(at, &stream) == Some(vec![3]))).await;
    assert_eq!(look(&cluster), None);
    cluster.restart(2).await;
    until("all three have been awake", || (0..3).all(|at| cluster.lacks(at, &stream) == Some(vec![]))).await;
    cluster.stop().await;
}
