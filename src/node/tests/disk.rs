//! Nodes whose disks say that they are nearly full.

use super::*;
use crate::node::DiskLevel::{Enough, Full, Short};
use std::sync::atomic::Ordering::Relaxed;

/// Of the reserve of a disk as large as the tests' (512 MiB).
const SHORT: u64 = 400 << 20;
const FULL: u64 = 200 << 20;

impl Cluster {
    /// Sets what a node's disk has, and waits until every node knows.
    async fn set_free(&self, at: usize, free: u64, level: DiskLevel) {
        self.free[at].store(free, Relaxed);
        let id = self.nodes[at].inner.id;
        until("every node knows how full the disk is", || self.nodes.iter().all(|node| node.inner.disk.level(id) == level)).await;
    }

    fn local(&self, at: usize, stream: &StreamName) -> crate::node::stream::Local {
        let group = self.nodes[at].inner.directory.stream(stream).unwrap().group;
        self.nodes[at].inner.stream_of_group(group).unwrap().local().unwrap()
    }

    fn leader(&self, stream: &StreamName) -> Option<usize> {
        (0..self.nodes.len()).find(|at| self.local(*at, stream).group.current().mine.is_some())
    }

    fn applied(&self, at: usize, stream: &StreamName) -> u64 {
        self.local(at, stream).replica.current().last_seq
    }
}

fn soon(events: Vec<NewEvent>) -> Publish {
    Publish { deadline: Instant::now() + Duration::from_secs(5), ..publish(events) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_node_leads_nothing_and_a_short_majority_takes_nothing() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let one = || soon(vec![event("a", None, "x")]);
    cluster.nodes[0].publish(&orders, one()).await.unwrap();
    let leader = cluster.leader(&orders).unwrap();
    cluster.set_free(leader, SHORT, Short).await;
    // Whoever is asked: no refusal reaches the publisher, since others lead on.
    for node in &cluster.nodes {
        node.publish(&orders, one()).await.unwrap();
    }
    assert_ne!(cluster.leader(&orders), Some(leader));
    let info = cluster.nodes[leader].cluster().await.unwrap();
    let shown: Vec<_> = info.nodes.iter().filter(|node| node.disk == Short).map(|node| node.id).collect();
    assert_eq!(shown, [cluster.nodes[leader].inner.id]);
    assert_eq!(cluster.nodes[leader].readiness(), Readiness::Ready);
    // A new stream is led elsewhere from its beginning.
    let other = name("other");
    cluster.nodes[leader].publish(&other, one()).await.unwrap();

    let second = cluster.leader(&orders).unwrap();
    cluster.set_free(second, SHORT, Short).await;
    for node in &cluster.nodes {
        assert_eq!(node.publish(&orders, one()).await, Err(Error::DiskFull));
    }
    // What makes room goes through, and nothing that was refused is there.
    let purged = cluster.nodes[leader].purge(&orders, Purge::Keep(1)).await.unwrap();
    assert_eq!((purged.events, purged.last_seq), (3, 4));
    cluster.set_free(second, MUCH, Enough).await;
    let next = cluster.nodes[leader].publish(&orders, one()).await.unwrap();
    assert_eq!(next.first_seq, 5);
    cluster.set_free(leader, MUCH, Enough).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_takes_no_entries_until_it_has_room() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let large = || soon(vec![event("a", None, &noise(0, 100_000))]);
    cluster.nodes[0].publish(&orders, large()).await.unwrap();
    let leader = cluster.leader(&orders).unwrap();
    let full = (leader + 1) % 3;
    cluster.set_free(full, FULL, Full).await;
    for _ in 0..20 {
        cluster.nodes[full].publish(&orders, large()).await.unwrap();
    }
    assert!(cluster.applied(full, &orders) < 21, "the full node took entries");
    cluster.set_free(full, MUCH, Enough).await;
    until("the node that was full has everything", || cluster.applied(full, &orders) == 21).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_publishes_leave_no_gap_and_the_order_is_kept() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let node = &cluster.nodes[0];
    node.publish(&orders, publish(vec![event("a", None, "0")])).await.unwrap();
    let mut outcomes = Vec::new();
    for round in 0..4 {
        let free = if round % 2 == 1 { SHORT } else { MUCH };
        for at in 1..3 {
            cluster.set_free(at, free, if free == MUCH { Enough } else { Short }).await;
        }
        for number in 0..50 {
            let sent = (round * 50 + number).to_string();
            outcomes.push((sent.clone(), node.submit(&orders, publish(vec![event("a", None, &sent)])).await.unwrap()));
        }
    }
    for at in 1..3 {
        cluster.set_free(at, MUCH, Enough).await;
    }
    let mut accepted = vec![(1, "0".to_owned())];
    for (sent, outcome) in outcomes {
        match outcome.await {
            Ok(published) => accepted.push((published.first_seq, sent)),
            Err(error) => assert_eq!(error, Error::DiskFull),
        }
    }
    assert!(accepted.len() > 50 && accepted.is_sorted_by_key(|(seq, _)| *seq), "{accepted:?}");
    assert_eq!(read_all(&cluster.nodes[2], &orders).await, accepted);
    cluster.stop().await;
}
