//! Leaders that go, by death or by will, and nodes of two versions of the peer protocol, while publishes are on their way.

use super::*;

impl Cluster {
    /// Three nodes with one stream that has a replica on each.
    async fn of_three(stream: &StreamName, protocol_max: Option<u16>) -> Cluster {
        let cluster = Cluster::start_with(3, Build { protocol_max, ..Build::default() }).await;
        let patch = SettingsPatch { replicas: Some(3), ..SettingsPatch::default() };
        cluster.nodes[0].put_stream(stream, patch).await.unwrap();
        cluster.wait_ready().await;
        cluster
    }
}

fn leads(node: &Node, stream: &StreamName) -> bool {
    let record = node.inner.directory.stream(stream);
    let stream = record.and_then(|record| node.inner.stream_of_group(record.group));
    stream.is_some_and(|stream| stream.current().mine.is_some())
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
    let orders = name("orders");
    let cluster = Cluster::of_three(&orders, None).await;
    let leader = cluster.leading(cluster.group(&orders)).await;
    let others: Vec<&Node> = cluster.nodes.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, node)| node).collect();
    let publishers: Vec<Publisher> = others.iter().map(|node| Publisher::start(vec![(*node).clone()], orders.clone())).collect();
    let moving = |node: &Node| node.inner.metrics.publish_requests.get() > 20;
    until("publishes are on their way", || others.iter().all(|node| moving(node))).await;
    kill(&cluster.nodes[leader]).await;
    until("another leads", || others.iter().any(|node| leads(node, &orders))).await;
    let before: Vec<u64> = others.iter().map(|node| node.inner.metrics.publish_requests.get()).collect();
    let on = || others.iter().zip(&before).all(|(node, before)| node.inner.metrics.publish_requests.get() > before + 20);
    until("publishes go on", on).await;
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.extend(publisher.stop().await);
    }
    check_kept(others[0], &orders, acknowledged).await;
    let won = |node: &&&Node| node.inner.groups.elections().by_evidence.load(Relaxed) > 0;
    let winner = others.iter().find(won).expect("nobody waited for a timeout");
    let (won, text) = (winner.inner.groups.elections().by_evidence.load(Relaxed), winner.metrics_text());
    assert!(text.contains(&format!("evermesh_elections_won_total{{cause=\"evidence\"}} {won}\n")), "{text}");
    for stage in ["verdict", "election"] {
        let counted = format!("evermesh_failover_stage_seconds_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {won}\n");
        assert!(text.contains(&counted), "{counted}: {text}");
    }
    for node in others {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_left_alone_is_not_ready() {
    let orders = name("orders");
    let cluster = Cluster::of_three(&orders, None).await;
    let leader = cluster.leading(cluster.group(&orders)).await;
    let (alone, others): (Vec<_>, Vec<_>) = cluster.nodes.iter().enumerate().partition(|(at, _)| *at == leader);
    for (_, node) in &others {
        kill(node).await;
    }
    until("it says so", || matches!(alone[0].1.readiness(), Readiness::NoQuorum(_))).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_loses_nothing() {
    let orders = name("orders");
    let mut cluster = Cluster::of_three(&orders, Some(1)).await;
    let spoken = |node: &Node| -> Vec<u16> {
        let peers = node.inner.mesh.peers().borrow().clone();
        let protocol = |state: &crate::cluster::mesh::PeerState| match state {
            crate::cluster::mesh::PeerState::Connected { protocol, .. } => *protocol,
            _ => 0,
        };
        peers.values().map(protocol).collect()
    };
    assert!(cluster.nodes.iter().all(|node| spoken(node) == [1, 1]));
    let mut acknowledged = Vec::new();
    for at in 0..3 {
        let others = [(at + 1) % 3, (at + 2) % 3];
        let publishers = others.map(|other| Publisher::start(vec![cluster.nodes[other].clone()], orders.clone()));
        cluster.build.protocol_max = None;
        cluster.nodes[at].stop().await;
        cluster.restart(at).await;
        cluster.wait_ready().await;
        for publisher in publishers {
            acknowledged.extend(publisher.stop().await);
        }
    }
    until("all speak the new version", || cluster.nodes.iter().all(|node| spoken(node) == [3, 3])).await;
    assert!(acknowledged.len() > 20);
    for node in &cluster.nodes {
        check_kept(node, &orders, acknowledged.clone()).await;
    }
    let leader = cluster.leading(cluster.group(&orders)).await;
    kill(&cluster.nodes[leader]).await;
    let survivors: Vec<&Node> = cluster.nodes.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, node)| node).collect();
    let by_evidence = || survivors.iter().any(|node| node.inner.groups.elections().by_evidence.load(Relaxed) > 0);
    until("they act on evidence now", by_evidence).await;
    for node in survivors {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_over_to_a_node_that_leaves() {
    let orders = name("orders");
    let cluster = Cluster::of_three(&orders, None).await;
    let leader = cluster.leading(cluster.group(&orders)).await;
    let leaving = &cluster.nodes[leader];
    let publisher = Publisher::start(vec![cluster.nodes[(leader + 1) % 3].clone()], orders.clone());
    leaving.leave().await;
    assert!(*leaving.leaving().borrow());
    assert!(!leads(leaving, &orders));
    assert!(leaving.metrics_text().contains("evermesh_leaderships_handed_over_total{cause=\"stop\"} 1\n"));
    let other = &cluster.nodes[(leader + 1) % 3];
    let placement = || other.inner.directory.stream(&orders).unwrap().placement;
    let before = placement();
    let refused = other.move_leader(&orders, Some(leaving.name())).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(placement(), before, "what was refused is not kept for later");
    // What comes in at it is still served.
    let late = leaving.publish(&orders, publish(vec![event("a", None, "late")])).await.unwrap();
    leaving.stop().await;
    let mut acknowledged = publisher.stop().await;
    acknowledged.push((late.first_seq, "late".into()));
    let other = &cluster.nodes[(leader + 2) % 3];
    check_kept(other, &orders, acknowledged).await;
    for (at, node) in cluster.nodes.iter().enumerate() {
        if at != leader {
            node.stop().await;
        }
    }
}

/// All nodes that are stopped at once hand over to each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_goes_as_well_is_not_waited_for() {
    let orders = name("orders");
    let cluster = Cluster::of_three(&orders, None).await;
    let leader = cluster.leading(cluster.group(&orders)).await;
    let [leading, gone, leaving] = [0, 1, 2].map(|at| &cluster.nodes[(leader + at) % 3]);
    let group = leading.inner.groups.get(cluster.group(&orders)).unwrap();
    kill(gone).await;
    leading.inner.leavers.send_modify(|leavers| _ = leavers.insert(leaving.inner.id, leaving.inner.boot));
    let moved = timeout(PATIENCE, leading.inner.transfer(&group, gone.inner.id, 10 * PATIENCE)).await;
    assert_eq!(moved, Ok(Err(Error::NoLeader)), "to one that is gone");
    // It may still take over.
    let moved = timeout(PATIENCE, leading.inner.transfer(&group, leaving.inner.id, 10 * PATIENCE)).await;
    assert!(moved.is_ok(), "to one that leaves");
    for node in [leading, leaving] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_goes_on_leaving_whatever_the_catalog_says() {
    let cluster = Cluster::start(3).await;
    let [one, other, leaving] = [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[2]];
    leaving.leave().await;
    let mut told = leaving.leaving();
    told.borrow_and_update();
    // It looks at itself again with each of these, and has looked at the first when it shows the second.
    for state in [NodeState::Draining, NodeState::Active] {
        one.inner.set_node_state(other.inner.id, &other.name(), state).await.unwrap();
        let shows = || leaving.nodes().borrow().iter().any(|node| node.id == other.inner.id && node.state == state);
        until("it shows the other's state", shows).await;
    }
    assert!(!told.has_changed().unwrap(), "it said otherwise for a moment");
    assert_eq!(leaving.readiness(), Readiness::Draining);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_refused_is_not_made_up_for_later() {
    let orders = name("orders");
    let cluster = Cluster::of_three(&orders, None).await;
    let leader = cluster.leading(cluster.group(&orders)).await;
    let [asked, wanted] = [&cluster.nodes[(leader + 1) % 3], &cluster.nodes[(leader + 2) % 3]];
    let placement = || asked.inner.directory.stream(&orders).unwrap().placement;
    let before = placement();
    // Only the leader has heard that the wanted one leaves.
    cluster.nodes[leader].inner.leavers.send_modify(|leavers| _ = leavers.insert(wanted.inner.id, wanted.inner.boot));
    let refused = asked.move_leader(&orders, Some(wanted.name())).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(placement(), before);
    asked.drain(&wanted.name()).await.unwrap();
    let refused = asked.move_leader(&orders, Some(wanted.name())).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    cluster.stop().await;
}
