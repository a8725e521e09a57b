//! What retention removes goes, from the disk too.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn retention_follows_the_settings() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let (few, small, young) = (name("few"), name("small"), name("young"));
    let patch = |max_events, max_bytes, max_age_ms| SettingsPatch {
        max_events: Some(max_events),
        max_bytes: Some(max_bytes),
        max_age_ms: Some(max_age_ms),
        ..SettingsPatch::default()
    };
    node.put_stream(&few, patch(Some(3), None, None)).await.unwrap();
    node.put_stream(&small, patch(None, Some(50), None)).await.unwrap();
    node.put_stream(&young, patch(None, None, Some(100))).await.unwrap();
    for stream in [&few, &small, &young] {
        node.publish(stream, publish((0..20).map(|_| event("a", None, "123456789")).collect())).await.unwrap();
    }
    let first = |stream: &StreamName| {
        let group = node.inner.directory.stream(stream).unwrap().group;
        node.inner.stream_of_group(group).unwrap().local().unwrap().replica.current().first_seq
    };
    until("retention removed what is too much", || (first(&few), first(&small), first(&young)) == (18, 16, 21)).await;
    cluster.stop().await;
}

/// A small segment; the store takes a file for full at this size at the earliest.
const SEGMENT_BYTES: u64 = 4 << 20;

impl Cluster {
    fn segments(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.inner.store.stats().segments).collect()
    }

    /// Publishes until every node has begun so many more segments than it has now.
    async fn fill_segments(&self, stream: &StreamName, count: u32) {
        let newest = || self.nodes.iter().map(|node| node.inner.store.group(0).newest_segment()).min().unwrap();
        let until = newest() + count;
        let data = noise(0, 200_000);
        while newest() < until {
            self.nodes[0].publish(stream, publish(vec![event("a", None, &data)])).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_go_whatever_else_was_written_into_them() {
    let mut cluster = Cluster::start_with(3, Build { segment_bytes: Some(SEGMENT_BYTES), ..Build::default() }).await;
    let (busy, slow, idle) = (name("busy"), name("slow"), name("idle"));
    let bound = |max_bytes| SettingsPatch { max_bytes: Some(Some(max_bytes)), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&busy, bound(1 << 20)).await.unwrap();
    cluster.nodes[0].put_stream(&slow, bound(33)).await.unwrap();
    cluster.nodes[0].put_stream(&idle, SettingsPatch { max_age_ms: Some(Some(500)), ..SettingsPatch::default() }).await.unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        // The catalog's log, and one that only ages, have an entry in the segment too.
        let brief = name(&format!("brief-{round}"));
        cluster.nodes[0].put_stream(&brief, SettingsPatch::default()).await.unwrap();
        cluster.nodes[0].delete_stream(&brief).await.unwrap();
        cluster.nodes[0].publish(&idle, publish(vec![event("a", None, "1")])).await.unwrap();
        let data = format!("{round:010}");
        let published = cluster.nodes[0].publish(&slow, publish(vec![event("a", None, &data)])).await.unwrap();
        acknowledged.push((published.first_seq, data));
        cluster.fill_segments(&busy, 2).await;
    }
    // Three events of the slow stream are kept: they lie in the newest seven.
    until("older segments are gone", || cluster.segments().iter().all(|segments| *segments <= 8)).await;
    // Who comes later, or comes back, gets all the same.
    cluster.nodes[2].stop().await;
    cluster.restart(2).await;
    cluster.grow().await;
    cluster.wait_ready().await;
    for node in &cluster.nodes {
        assert_eq!(read_all(node, &slow).await, acknowledged[3..]);
        assert!(node.inner.directory.stream(&busy).is_some() && node.inner.directory.stream(&name("brief-5")).is_none());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_go_with_what_they_describe() {
    let cluster = Cluster::start_with(1, Build { segment_bytes: Some(SEGMENT_BYTES), ..Build::default() }).await;
    let busy = name("busy");
    let patch = SettingsPatch { max_bytes: Some(Some(1 << 20)), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&busy, patch).await.unwrap();
    cluster.fill_segments(&busy, 6).await;
    let group = cluster.nodes[0].inner.store.group(cluster.group(&busy));
    let of_nothing = |index: &u64| group.log_state().purged.is_some_and(|purged| *index < purged.index);
    until("no checkpoint is older than the log", || {
        let checkpoints = group.checkpoints();
        checkpoints.len() <= 4 && !checkpoints.iter().any(of_nothing)
    })
    .await;
    cluster.stop().await;
}

/// As long as an event's id may be.
fn long_id(number: usize) -> String {
    noise(number, 256)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_larger_than_a_frame_moves_too() {
    const BATCH: usize = 1_000;
    let batches = crate::core::limits::FRAME_BYTES_MAX / (BATCH * long_id(0).len()) + 1;
    let mut cluster = Cluster::start_with(1, Build { segment_bytes: Some(SEGMENT_BYTES), ..Build::default() }).await;
    let orders = name("orders");
    let patch = SettingsPatch { replicas: Some(1), dedup_window_ms: Some(3_600_000), ..SettingsPatch::default() };
    cluster.nodes[0].put_stream(&orders, patch).await.unwrap();
    for batch in 0..batches {
        let ids = (batch * BATCH..).take(BATCH).map(long_id);
        cluster.nodes[0].publish(&orders, publish(ids.map(|id| event("a", Some(&id), "x")).collect())).await.unwrap();
    }
    let count = (batches * BATCH) as u64;
    cluster.nodes[0].purge(&orders, Purge::BeforeSeq(count + 1)).await.unwrap();
    let group = cluster.nodes[0].inner.store.group(cluster.group(&orders));
    until("the log is purged", || group.log_state().purged.is_some()).await;
    cluster.grow().await;
    cluster.wait_ready().await;
    move_only_replica(&cluster, &orders, 1).await;
    // What it remembers came along.
    let again = publish(vec![event("a", Some(&long_id(7)), "x")]);
    assert_eq!(cluster.nodes[1].publish(&orders, again).await.unwrap().duplicates, 1);
    cluster.stop().await;
}
