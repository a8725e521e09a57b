//! Nodes that go: drained, removed alive, removed dead. Each test takes apart a cluster of its own.

use crate::support::{Cluster, cluster_of_its_own, expect, soon};
use reqwest::Method;
use serde_json::{Value, json};

const DELETE: Method = Method::DELETE;

/// What is said of one node; `null` when it is not listed.
fn node<'a>(cluster: &'a Value, name: &str) -> &'a Value {
    let nodes = cluster["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap_or(&Value::Null)
}

async fn publish(cluster: &Cluster, through: usize, stream: &str, times: usize) {
    for _ in 0..times {
        expect(cluster.request(through, Method::POST, &format!("/v1/streams/{stream}/events")).body("x"), 201).await;
    }
}

async fn is_gone(cluster: &Cluster, at: usize, name: &str) {
    cluster.until(at, &format!("{name} is not listed any more"), |seen| node(seen, name).is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_removed_and_the_others_go_on() {
    let (cluster, _folder) = cluster_of_its_own(3).await;
    publish(&cluster, 0, "orders", 10).await;
    cluster.nodes[2].stop().await;
    cluster.until(0, "n3 is missed", |seen| node(seen, "n3")["reachable"] == false).await;
    expect(cluster.request(0, DELETE, "/v1/cluster/nodes/n3"), 204).await;
    for at in [0, 1] {
        is_gone(&cluster, at, "n3").await;
    }
    assert_eq!(expect(cluster.request(1, DELETE, "/v1/cluster/nodes/n3"), 404).await.json["code"], "node-not-found");
    publish(&cluster, 1, "orders", 10).await;
    let stream = soon("the stream is on the two that are left", async {
        loop {
            let stream = expect(cluster.request(1, Method::GET, "/v1/streams/orders"), 200).await.json;
            let replicas = stream["replicas"].as_array().unwrap();
            if replicas.len() == 2 && replicas.iter().all(|replica| replica["lag"] == 0) {
                return stream;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(stream["last_seq"], 20);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_node_that_is_removed_stops_and_says_why() {
    let (cluster, _folder) = cluster_of_its_own(3).await;
    publish(&cluster, 0, "orders", 5).await;
    let failed = cluster.nodes[1].failed();
    expect(cluster.request(0, DELETE, "/v1/cluster/nodes/n2"), 204).await;
    let why = soon("the removed node's end", failed).await;
    assert!(why.contains("n2 was removed from the cluster"), "{why}");
    // Its process would end now. Until then it sends its clients away.
    expect(cluster.request(1, Method::GET, "/readyz"), 503).await;
    is_gone(&cluster, 0, "n2").await;
    publish(&cluster, 2, "orders", 5).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_can_remove_itself() {
    let (cluster, _folder) = cluster_of_its_own(3).await;
    let failed = cluster.nodes[0].failed();
    expect(cluster.request(0, DELETE, "/v1/cluster/nodes/n1"), 204).await;
    soon("its end", failed).await;
    is_gone(&cluster, 1, "n1").await;
    publish(&cluster, 1, "orders", 3).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_go_stays() {
    let (cluster, _folder) = cluster_of_its_own(3).await;
    assert_eq!(expect(cluster.request(0, DELETE, "/v1/cluster/nodes/n9"), 404).await.json["code"], "node-not-found");
    expect(cluster.request(0, DELETE, "/v1/cluster/nodes/a%20b"), 400).await;
    // The only replica of something.
    let only = expect(cluster.request(0, Method::PUT, "/v1/streams/only").json(&json!({"replicas": 1})), 201).await.json;
    let holder = only["replicas"][0]["node"].as_str().unwrap().to_owned();
    let kept = expect(cluster.request(0, DELETE, &format!("/v1/cluster/nodes/{holder}")), 409).await;
    assert!(kept.json["detail"].as_str().unwrap().contains("drain it first"), "{}", kept.json);
    // A minority decides nothing.
    cluster.nodes[1].stop().await;
    cluster.nodes[2].stop().await;
    let missed = |seen: &Value| node(seen, "n2")["reachable"] == false && node(seen, "n3")["reachable"] == false;
    cluster.until(0, "both are missed", missed).await;
    let refused = expect(cluster.request(0, DELETE, "/v1/cluster/nodes/n3"), 503).await;
    assert_eq!(refused.json["code"], "no-quorum");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_node_stays() {
    let (cluster, _folder) = cluster_of_its_own(1).await;
    expect(cluster.request(0, DELETE, "/v1/cluster/nodes/n1"), 409).await;
    expect(cluster.request(0, Method::POST, "/v1/cluster/nodes/n1/drain"), 409).await;
    publish(&cluster, 0, "orders", 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_hands_everything_over() {
    let (cluster, _folder) = cluster_of_its_own(4).await;
    for number in 0..6 {
        expect(cluster.request(number % 4, Method::PUT, &format!("/v1/streams/s{number}")), 201).await;
        publish(&cluster, number % 4, &format!("s{number}"), 3).await;
    }
    expect(cluster.request(0, Method::POST, "/v1/cluster/nodes/n9/drain"), 404).await;
    expect(cluster.request(0, Method::POST, "/v1/cluster/nodes/n2/drain"), 204).await;
    let empty = |seen: &Value| node(seen, "n2")["streams_led"] == 0 && node(seen, "n2")["streams_held"] == 0;
    let seen = cluster.until(0, "n2 holds nothing", empty).await;
    assert_eq!(node(&seen, "n2")["state"], "draining");
    let ready = expect(cluster.request(1, Method::GET, "/readyz"), 503).await;
    assert_eq!(ready.json["code"], "draining");
    // It forwards still, and can be removed without a word now.
    publish(&cluster, 1, "s0", 3).await;
    expect(cluster.request(1, DELETE, "/v1/cluster/nodes/n2"), 204).await;
    is_gone(&cluster, 0, "n2").await;
    for number in 0..6 {
        let stream = expect(cluster.request(2, Method::GET, &format!("/v1/streams/s{number}")), 200).await.json;
        assert_eq!(stream["replicas"].as_array().unwrap().len(), 3, "{stream}");
        assert_eq!(stream["last_seq"], if number == 0 { 6 } else { 3 });
    }
    cluster.stop().await;
}
