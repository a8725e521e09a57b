//! A founder that does not come to its end: it founds at its next start, and never twice.

use super::*;
use crate::core::NodeName;
use std::collections::BTreeMap;

/// A node in the folder, started as one that has its place.
async fn resume(folder: &TempDir) -> std::result::Result<Node, StartError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    try_start_node(folder, listener, 1, Start::Resume, &Arc::new(AtomicU64::new(MUCH)), Build::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_only_remembers_its_place_founds_at_the_next_start() {
    let folder = TempDir::new().unwrap();
    let name = NodeName::new("n1").unwrap();
    let place = Identity { cluster: 7, node: 1, boot: 1, name, token: 5, peers: BTreeMap::new(), anew: BTreeMap::new() };
    {
        let store = Store::open_dir(folder.path(), StoreOptions::default()).unwrap();
        store.save_identity(place.encode()).unwrap().await.unwrap();
        store.close().unwrap();
    }
    let node = resume(&folder).await.unwrap();
    until("the cluster is there", || node.readiness() == Readiness::Ready).await;
    assert_eq!(node.inner.directory.read().cluster, 7);
    node.stop().await;
    let node = resume(&folder).await.unwrap();
    until("it is there again", || node.readiness() == Readiness::Ready).await;
    let there = |catalog: &crate::core::catalog::Catalog| (catalog.cluster, catalog.nodes.len(), catalog.next_node);
    assert_eq!(there(&node.inner.directory.read()), (7, 1, 2));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_lost_its_catalog_does_not_found_again() {
    let cluster = Cluster::start(1).await;
    let Cluster { nodes, folders, .. } = cluster;
    nodes[0].stop().await;
    std::fs::remove_file(folders[0].path().join("meta.redb")).unwrap();
    let node = resume(&folders[0]).await.unwrap();
    until("it says what is wrong", || matches!(node.readiness(), Readiness::Rebuilding(_))).await;
    assert!(node.inner.directory.read().nodes.is_empty());
    node.stop().await;
}
