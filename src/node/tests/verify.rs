//! Comparing replicas of a running cluster.

use super::*;
use crate::node::Agreement::{Behind, Different, Identical, Unknown, Unreachable};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn results(verification: &Verification) -> Vec<Agreement> {
    verification.replicas.iter().map(|replica| replica.result).collect()
}

impl Cluster {
    fn folded(&self, node: &Node, stream: &StreamName) -> crate::cluster::Folded {
        let group = node.inner.directory.stream(stream).unwrap().group;
        node.inner.groups.get(group).unwrap().folded().clone()
    }

    async fn follower_and_leader(&self, stream: &StreamName) -> (&Node, &Node) {
        let leader = self.nodes[0].verify(stream, false).await.unwrap().leader;
        let follower = self.nodes.iter().find(|node| node.name() != leader).unwrap();
        (follower, self.nodes.iter().find(|node| node.name() == leader).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_identical_while_events_come_in() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "first")])).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = {
        let (node, orders, stop) = (cluster.nodes[1].clone(), orders.clone(), stop.clone());
        tokio::spawn(async move {
            let mut last = 0;
            while !stop.load(Relaxed) {
                last = node.publish(&orders, publish(vec![event("a", None, "x"), event("b", None, "y")])).await.unwrap().last_seq;
            }
            last
        })
    };
    let mut seen = 0;
    for round in 0..30 {
        let node = &cluster.nodes[round % 3];
        let verification = node.verify(&orders, round % 10 == 9).await.unwrap();
        assert_eq!(results(&verification), [Identical; 3], "{verification:?}");
        assert!(verification.at_seq >= seen && verification.hash.is_some());
        seen = verification.at_seq;
        if round % 10 == 9 {
            let rereads = verification.replicas.iter().map(|replica| replica.reread.clone().unwrap());
            rereads.for_each(|read| assert!(read.rows > 0 && read.damage.is_none() && read.stopped.is_none(), "{read:?}"));
        }
    }
    stop.store(true, Relaxed);
    let last = publishing.await.unwrap();
    assert_eq!(cluster.nodes[2].verify(&orders, false).await.unwrap().at_seq, last);
    assert!(matches!(cluster.nodes[0].verify(&name("none"), false).await, Err(Error::StreamNotFound(_))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_survives_restarts_and_leader_changes() {
    let mut cluster = Cluster::start(3).await;
    let orders = name("orders");
    for number in 0..20 {
        cluster.nodes[number % 3].publish(&orders, publish(vec![event("a", None, "x")])).await.unwrap();
    }
    cluster.nodes[1].move_leader(&orders, None).await.unwrap();
    cluster.nodes[0].stop().await;
    cluster.nodes[1].publish(&orders, publish(vec![event("a", None, "y")])).await.unwrap();
    cluster.restart(0).await;
    cluster.wait_ready().await;
    let verification = cluster.nodes[0].verify(&orders, false).await.unwrap();
    assert_eq!((results(&verification), verification.at_seq), (vec![Identical; 3], 21));
    // A node that never saw the beginning gets the same hash with the log.
    cluster.grow().await;
    cluster.wait_ready().await;
    let five = cluster.nodes[3].verify(&orders, false).await.unwrap();
    assert_eq!(results(&five), [Identical; 3]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_folds_otherwise_is_found() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let one = || publish(vec![event("a", None, "x")]);
    for _ in 0..10 {
        cluster.nodes[0].publish(&orders, one()).await.unwrap();
    }
    let (follower, asked) = cluster.follower_and_leader(&orders).await;
    let before = asked.verify(&orders, false).await.unwrap().index;
    cluster.folded(follower, &orders).corrupt_hash();
    for _ in 0..10 {
        cluster.nodes[0].publish(&orders, one()).await.unwrap();
    }
    for node in &cluster.nodes {
        let verification = node.verify(&orders, false).await.unwrap();
        let found = verification.replicas.iter().find(|replica| replica.result == Different).expect("one is different");
        assert_eq!((&found.node, found.differs), (&follower.name(), Some((Some(before), before + 1))));
        assert_eq!(verification.replicas.iter().filter(|replica| replica.result == Identical).count(), 2);
    }
    cluster.folded(follower, &orders).forget_hash();
    let verification = asked.verify(&orders, false).await.unwrap();
    assert_eq!(verification.replicas.iter().find(|replica| replica.node == follower.name()).unwrap().result, Unknown);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_or_away_is_told_apart() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let one = || publish(vec![event("a", None, &noise(0, 100_000))]);
    cluster.nodes[0].publish(&orders, one()).await.unwrap();
    let (follower, leader) = cluster.follower_and_leader(&orders).await;
    // A full disk keeps it behind.
    let at = cluster.nodes.iter().position(|node| node.name() == follower.name()).unwrap();
    cluster.free[at].store(1 << 20, Relaxed);
    until("the follower is full", || leader.inner.disk.level(follower.inner.id) == DiskLevel::Full).await;
    for _ in 0..5 {
        leader.publish(&orders, one()).await.unwrap();
    }
    let of = |verification: &Verification| verification.replicas.iter().find(|replica| replica.node == follower.name()).unwrap().clone();
    let behind = of(&leader.verify(&orders, false).await.unwrap());
    assert_eq!((behind.result, behind.behind), (Behind, 5));
    follower.stop().await;
    let gone = of(&leader.verify(&orders, true).await.unwrap());
    assert_eq!(gone.result, Unreachable);
    assert!(gone.reread.unwrap().stopped.is_some());
    cluster.stop().await;
}
