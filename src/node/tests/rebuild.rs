//! Damaged replicas: out at once, made anew from the others, and nothing lost, missing or deleted on the way.

use super::*;

/// The catalog's group.
const CATALOG: u64 = 0;

impl Cluster {
    async fn follower(&self, group: u64) -> usize {
        (self.leading(group).await + 1) % self.nodes.len()
    }

    async fn fence(&self, at: usize, group: u64) {
        self.nodes[at].inner.store.fence(group, "a bit was flipped").unwrap().await.unwrap();
    }

    /// Every node has the group, votes in it, and has made nothing anew still.
    async fn wait_whole(&self, group: u64) {
        let ids: Vec<u64> = self.nodes.iter().map(|node| node.inner.id).collect();
        let whole = |node: &Node| {
            let open = node.inner.groups.get(group);
            let votes = open.is_some_and(|open| ids.iter().all(|id| open.is_voter(*id)) && open.current().leader.is_some());
            votes && !node.inner.is_out(group)
        };
        until("every replica is whole", || self.nodes.iter().all(whole)).await;
    }

    fn rebuilt(&self, at: usize) -> u64 {
        self.nodes[at].inner.metrics.rebuilds_done.get()
    }
}

/// The commands in a replica's own log.
async fn log(node: &Node, group: u64) -> Vec<(u64, Bytes)> {
    let group = node.inner.groups.get(group).unwrap();
    let mut all = Vec::new();
    let mut next = 1;
    while let Some(read) = group.read_commands(next, 1 << 20).await.unwrap() {
        all.extend(read.commands);
        next = read.next;
    }
    all
}

/// What every node gives, and the log of every replica, is what was acknowledged.
async fn check_same(cluster: &Cluster, stream: &StreamName, acknowledged: &[(u64, String)]) {
    let group = cluster.group(stream);
    for node in &cluster.nodes {
        assert_eq!(read_all(node, stream).await, acknowledged);
        assert_eq!(log(node, group).await, log(&cluster.nodes[0], group).await);
    }
}

/// What a publish is told that would wait for much longer than the test does.
async fn refusal(node: &Node, stream: &StreamName) -> Result<Published> {
    let deadline = Instant::now() + 10 * PATIENCE;
    let publishing = node.publish(stream, Publish { deadline, ..publish(vec![event("a", None, "y")]) });
    timeout(PATIENCE, publishing).await.expect("it does not wait for its deadline")
}

async fn check_rebuilt_under_publishing(of_leader: bool) {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].put_stream(&orders, SettingsPatch::default()).await.unwrap();
    let group = cluster.group(&orders);
    cluster.wait_whole(group).await;
    let mut publisher = Publisher::start(cluster.nodes.clone(), orders.clone());
    publisher.wait_more(50).await;
    let at = if of_leader { cluster.leading(group).await } else { cluster.follower(group).await };
    cluster.fence(at, group).await;
    publisher.wait_more(50).await;
    until("the replica is rebuilt", || cluster.rebuilt(at) == 1).await;
    publisher.wait_more(50).await;
    let acknowledged = publisher.stop().await;
    cluster.wait_whole(group).await;
    check_same(&cluster, &orders, &acknowledged).await;
    let info = cluster.nodes[at].stream_info(&orders).await.unwrap();
    assert!(info.replicas.iter().all(|replica| replica.state == ReplicaState::Ok), "{:?}", info.replicas);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_follower_is_rebuilt_under_publishing() {
    check_rebuilt_under_publishing(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_leader_is_followed_by_another_and_rebuilt() {
    check_rebuilt_under_publishing(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_catalog_is_rebuilt_and_its_node_serves_meanwhile() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].put_stream(&orders, SettingsPatch::default()).await.unwrap();
    cluster.wait_whole(cluster.group(&orders)).await;
    let mut publisher = Publisher::start(cluster.nodes.clone(), orders.clone());
    publisher.wait_more(20).await;
    for (round, of_leader) in [true, false].into_iter().enumerate() {
        let at = if of_leader { cluster.leading(CATALOG).await } else { cluster.follower(CATALOG).await };
        let before = cluster.rebuilt(at);
        cluster.fence(at, CATALOG).await;
        publisher.wait_more(20).await;
        until("the catalog is rebuilt", || cluster.rebuilt(at) == before + 1).await;
        cluster.wait_whole(CATALOG).await;
        assert_eq!(cluster.nodes[at].readiness(), Readiness::Ready);
        let made = name(&format!("made-{round}"));
        assert_eq!(cluster.nodes[at].put_stream(&made, SettingsPatch::default()).await.unwrap().0, Put::Created);
    }
    let acknowledged = publisher.stop().await;
    check_same(&cluster, &orders, &acknowledged).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_metadata_is_rebuilt_as_a_whole_through_a_restart() {
    let mut cluster = Cluster::start(3).await;
    let streams: Vec<StreamName> = (0..12).map(|number| name(&format!("s{number}"))).collect();
    for stream in &streams {
        cluster.nodes[0].put_stream(stream, SettingsPatch::default()).await.unwrap();
    }
    for stream in &streams {
        cluster.wait_whole(cluster.group(stream)).await;
    }
    let mut publishers: Vec<_> =
        streams.iter().map(|stream| Publisher::start(vec![cluster.nodes[0].clone(), cluster.nodes[1].clone()], stream.clone())).collect();
    for publisher in &mut publishers {
        publisher.wait_more(10).await;
    }
    cluster.nodes[2].stop().await;
    std::fs::File::options().write(true).open(cluster.folders[2].path().join("meta.redb")).unwrap().set_len(5_000).unwrap();
    cluster.restart(2).await;
    until("it says that it rebuilds", || matches!(cluster.nodes[2].readiness(), Readiness::Rebuilding(_))).await;
    until("some of it is rebuilt", || cluster.rebuilt(2) >= 2).await;
    let first = cluster.rebuilt(2);
    cluster.nodes[2].stop().await;
    cluster.restart(2).await;
    for publisher in &mut publishers {
        publisher.wait_more(10).await;
    }
    let groups: Vec<u64> = streams.iter().map(|stream| cluster.group(stream)).chain([CATALOG]).collect();
    until("all of it is rebuilt", || !groups.iter().any(|group| cluster.nodes[2].inner.is_out(*group))).await;
    assert!(first + cluster.rebuilt(2) <= 13, "what was rebuilt is not rebuilt again");
    // What is new to everybody is not held for lost.
    let alone = name("alone");
    let patch = SettingsPatch { replicas: Some(1), ..SettingsPatch::default() };
    cluster.nodes[2].put_stream(&alone, patch).await.unwrap();
    cluster.nodes[2].publish(&alone, publish(vec![event("a", None, "x")])).await.unwrap();
    cluster.wait_whole(CATALOG).await;
    for (stream, publisher) in streams.iter().zip(publishers) {
        let acknowledged = publisher.stop().await;
        cluster.wait_whole(cluster.group(stream)).await;
        check_same(&cluster, stream, &acknowledged).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_only_replica_is_reported_and_nothing_of_it_deleted() {
    let cluster = Cluster::start(3).await;
    let (alone, other) = (name("alone"), name("other"));
    let patch = SettingsPatch { replicas: Some(1), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&alone, patch).await.unwrap();
    for stream in [&alone, &other] {
        cluster.nodes[0].publish(stream, publish(vec![event("a", None, "x")])).await.unwrap();
    }
    let group = cluster.group(&alone);
    let at = cluster.nodes.iter().position(|node| node.inner.groups.get(group).is_some()).unwrap();
    cluster.fence(at, group).await;
    until("it is said that nothing can be done", || cluster.nodes[at].inner.rebuilds.counts() == (1, 0)).await;
    for node in &cluster.nodes {
        let refused = refusal(node, &alone).await;
        assert!(matches!(&refused, Err(Error::Damaged(why)) if why.contains("a bit was flipped")), "{refused:?}");
        assert_eq!(node.publish(&other, publish(vec![event("a", None, "y")])).await.unwrap().count, 1);
        let info = node.stream_info(&alone).await.unwrap();
        assert_eq!(info.replicas[0].state, ReplicaState::Damaged);
        assert!(info.replicas[0].why.as_ref().unwrap().contains("no other replica"), "{info:?}");
        let known = node.cluster().await.unwrap().nodes.iter().map(|node| node.replicas_damaged).sum::<u64>();
        assert_eq!(known, 1);
        assert_eq!(node.readiness(), Readiness::Ready);
    }
    let read = cluster.nodes[at].get_event(&alone, 1).await;
    assert!(matches!(&read, Err(Error::Damaged(_))), "{read:?}");
    assert!(cluster.nodes[at].inner.store.groups().contains(&group));
    cluster.nodes[at].delete_stream(&alone).await.unwrap();
    until("the deleted stream's fence is gone", || cluster.nodes[at].inner.fence_of(group).is_none()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_rebuilt_and_nothing_deleted() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "x")])).await.unwrap();
    let group = cluster.group(&orders);
    cluster.wait_whole(group).await;
    let whole = cluster.leading(group).await;
    let damaged = [(whole + 1) % 3, (whole + 2) % 3];
    let fences = damaged.map(|at| cluster.nodes[at].inner.store.fence(group, "a bit was flipped").unwrap());
    for fence in fences {
        fence.await.unwrap();
    }
    until("it is said that nothing can be done", || damaged.iter().all(|at| cluster.nodes[*at].inner.rebuilds.counts() == (1, 0))).await;
    for node in &cluster.nodes {
        let refused = refusal(node, &orders).await;
        assert!(matches!(&refused, Err(Error::Damaged(why)) if why.contains("too few replicas")), "{refused:?}");
    }
    for at in damaged {
        assert!(cluster.nodes[at].inner.store.groups().contains(&group));
        assert!(cluster.nodes[at].inner.fence_of(group).is_some());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_across_damage_and_rebuild_without_gap_or_repetition() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].put_stream(&orders, SettingsPatch::default()).await.unwrap();
    let group = cluster.group(&orders);
    cluster.wait_whole(group).await;
    let mut publisher = Publisher::start(cluster.nodes.clone(), orders.clone());
    publisher.wait_more(20).await;
    let at = cluster.follower(group).await;
    let stop = CancellationToken::new();
    let mut readers = Vec::new();
    for node in &cluster.nodes {
        let mut reader = node.reader(&orders, From::Earliest, None).await.unwrap();
        let stop = stop.clone();
        readers.push(tokio::spawn(async move {
            let mut seen: Vec<u64> = Vec::new();
            loop {
                let chunk = reader.next(Take { events: 7, wait: Duration::from_millis(200) }).await.unwrap();
                if chunk.items.is_empty() && stop.is_cancelled() {
                    return seen;
                }
                seen.extend(chunk.items.iter().map(|item| match item {
                    Item::Event(delivery) => delivery.event.seq,
                    Item::Gap { from, to } => panic!("a gap from {from} to {to}"),
                }));
            }
        }));
    }
    for round in 1..=2 {
        publisher.wait_more(20).await;
        cluster.fence(at, group).await;
        publisher.wait_more(20).await;
        until("the replica is rebuilt", || cluster.rebuilt(at) == round).await;
    }
    publisher.wait_more(20).await;
    let acknowledged = publisher.stop().await;
    stop.cancel();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), (1..=acknowledged.len() as u64).collect::<Vec<_>>());
    }
    cluster.stop().await;
}

/// A node whose data was put back to an older state must not send requests under numbers that it used since.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_rolled_back_node_takes_is_not_taken_for_a_repetition() {
    let mut cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].put_stream(&orders, SettingsPatch::default()).await.unwrap();
    let group = cluster.group(&orders);
    cluster.wait_whole(group).await;
    let copy = TempDir::new().unwrap();
    let put = |from: &std::path::Path, to: &std::path::Path| {
        for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    let mut expected = Vec::new();
    cluster.nodes[2].stop().await;
    put(cluster.folders[2].path(), copy.path());
    // The witness stays, as it does when the files beside it are put back: the roll-back is noticed.
    std::fs::remove_file(copy.path().join("witness")).unwrap();
    for round in 0..2 {
        cluster.restart(2).await;
        cluster.wait_whole(group).await;
        for number in 0..5u64 {
            let data = format!("{round}-{number}");
            let published = cluster.nodes[2].publish(&orders, publish(vec![event("a", None, &data)])).await.unwrap();
            assert_eq!(published.first_seq, expected.len() as u64 + 1);
            expected.push((published.first_seq, data));
        }
        cluster.nodes[2].stop().await;
        put(copy.path(), cluster.folders[2].path());
    }
    cluster.restart(2).await;
    cluster.wait_whole(group).await;
    check_same(&cluster, &orders, &expected).await;
    cluster.stop().await;
}

/// A replica that comes back to where it once was reads of itself as the only member there ever was; it must not believe it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_moves_away_and_back_stays_one() {
    let cluster = Cluster::start(2).await;
    let alone = name("alone");
    let patch = SettingsPatch { replicas: Some(1), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&alone, patch).await.unwrap();
    let group = cluster.group(&alone);
    let mut publisher = Publisher::start(cluster.nodes.clone(), alone.clone());
    for _ in 0..4 {
        publisher.wait_more(20).await;
        let from = cluster.nodes[0].inner.directory.stream(&alone).unwrap().placement;
        let to = vec![3 - from[0]];
        let to_at = to[0] as usize - 1;
        let set = crate::core::catalog::Command::SetPlacement { group, from, to };
        cluster.nodes[0].inner.change_catalog(&set).await.unwrap();
        until("the stream has moved", || {
            let open = cluster.nodes[to_at].inner.groups.get(group);
            let moved = open.is_some_and(|open| open.current().mine.is_some() && open.voters().len() == 1);
            moved && cluster.nodes[1 - to_at].inner.groups.get(group).is_none()
        })
        .await;
    }
    let acknowledged = publisher.stop().await;
    for node in &cluster.nodes {
        assert_eq!(read_all(node, &alone).await, acknowledged);
    }
    cluster.stop().await;
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// All of a node's files, the witness among them, are as they were some time ago: the node itself cannot see that. Its leaders can.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_put_back_to_an_older_state_is_made_anew() {
    let mut cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].put_stream(&orders, SettingsPatch::default()).await.unwrap();
    let group = cluster.group(&orders);
    cluster.wait_whole(group).await;
    let at = cluster.follower(group).await;
    let others: Vec<Node> = cluster.nodes.iter().enumerate().filter(|(place, _)| *place != at).map(|(_, node)| node.clone()).collect();
    let mut publisher = Publisher::start(others, orders.clone());
    publisher.wait_more(20).await;
    let backup = TempDir::new().unwrap();
    cluster.nodes[at].stop().await;
    copy_files(cluster.folders[at].path(), backup.path());
    cluster.restart(at).await;
    publisher.wait_more(50).await;
    cluster.wait_whole(group).await;
    let current = |node: &Node| node.inner.groups.get(group).map(|open| *open.folded().applied().borrow());
    let led = current(&cluster.nodes[cluster.leading(group).await]);
    until("it has what was written meanwhile", || current(&cluster.nodes[at]) >= led).await;
    publisher.wait_more(50).await;
    cluster.nodes[at].stop().await;
    copy_files(backup.path(), cluster.folders[at].path());
    cluster.restart(at).await;
    until("the stream's replica is made anew", || cluster.rebuilt(at) >= 1 && !cluster.nodes[at].inner.is_out(group)).await;
    publisher.wait_more(20).await;
    let acknowledged = publisher.stop().await;
    cluster.wait_whole(group).await;
    check_same(&cluster, &orders, &acknowledged).await;
    cluster.stop().await;
}
