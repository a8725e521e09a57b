//! Batches are packed in the log, where every replica can unpack them.

use super::*;

/// What a cluster that speaks this protocol has in its log of a batch of readings, and that they come back from it.
async fn publish_readings(protocol_max: Option<u16>) -> Vec<u8> {
    let mut cluster = Cluster::start_with(3, Build { protocol_max, ..Build::default() }).await;
    let stream = name("readings");
    cluster.nodes[0].put_stream(&stream, SettingsPatch::default()).await.unwrap();
    let data: Vec<String> = (0..200).map(|at| format!("{{\"machine\":{},\"temperature\":{}.5}}", at % 10, 20 + at % 7)).collect();
    let events = data.iter().map(|data| event("line.a", None, data)).collect();
    cluster.nodes[1].publish(&stream, publish(events)).await.unwrap();
    let group = cluster.group(&stream);
    let log = cluster.nodes[0].inner.store.group(group);
    let entries = || log.read(0..u64::MAX, 1 << 20).unwrap();
    until("the batch is in the log", || entries().iter().any(|entry| entry.payload.len() > 500)).await;
    let versions = entries().iter().filter(|entry| entry.payload.len() > 500).flat_map(|entry| version(&entry.payload)).collect();
    drop(log);
    // From the log, and not from what is kept of it in memory.
    cluster.restart_all().await;
    for node in &cluster.nodes {
        let read: Vec<String> = read_all(node, &stream).await.into_iter().map(|(_, data)| data).collect();
        assert_eq!(read, data);
    }
    cluster.stop().await;
    versions
}

/// The version of a command, before which the room below has written its own version and the kind of the entry.
fn version(payload: &[u8]) -> Option<u8> {
    payload.get(2).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_packed() {
    assert_eq!(publish_readings(None).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_not_packed_for_an_older_build() {
    assert_eq!(publish_readings(Some(2)).await, [1]);
}
