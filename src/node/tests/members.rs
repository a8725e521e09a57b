//! Members that change, and streams that go, at moments when somebody still acts on what was before.

use super::*;
use crate::node::placing;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_is_not_opened_by_who_still_has_its_handle() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "x")])).await.unwrap();
    let node = &cluster.nodes[1].inner;
    let handle = node.find_stream(&orders).await.unwrap();
    let group = handle.group;
    until("the replica is open", || handle.local().is_some()).await;
    cluster.nodes[2].delete_stream(&orders).await.unwrap();
    until("the replica is gone", || !node.store.has_group(group) && node.groups.get(group).is_none()).await;
    placing::wake(node, &handle).await;
    assert!(handle.local().is_none() && node.groups.get(group).is_none() && !node.store.has_group(group));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_took_itself_out_changes_no_members_and_its_group_goes_on() {
    let cluster = Cluster::start(3).await;
    let orders = name("orders");
    let mut written = cluster.nodes[0].publish(&orders, publish(vec![event("a", None, "x")])).await.unwrap().last_seq;
    let group = cluster.group(&orders);
    let leading = cluster.leading(group).await;
    let leader = &cluster.nodes[leading].inner;
    let local = leader.groups.get(group).unwrap();
    let opening = local.opening();
    let all: BTreeSet<u64> = [1, 2, 3].into();
    let others: BTreeSet<u64> = all.iter().copied().filter(|id| *id != leader.id).collect();
    // The upkeep wants all three, and may be faster: what counts is that no order of the two ends the group.
    let _ = local.change_members(&others).await;
    let _ = local.change_members(&all).await;
    let _ = local.change_members(&others).await;
    let _ = local.count_out(*others.first().unwrap()).await;
    written += 1;
    assert_eq!(cluster.nodes[leading].publish(&orders, publish(vec![event("a", None, "y")])).await.unwrap().last_seq, written);
    let voters = || cluster.nodes.iter().filter_map(|node| node.inner.groups.get(group)).map(|local| local.voters());
    until("all three are members again", || voters().all(|voters| voters == all)).await;
    assert_eq!(leader.groups.get(group).unwrap().opening(), opening, "the leader's replica was not opened anew");
    cluster.stop().await;
}
