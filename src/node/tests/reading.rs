//! Readers that come from far behind.

use super::*;

/// More than a stream's tail in memory has, in entries of many events each.
const BATCHES: u64 = 4;
const BATCH: u64 = 1_000;
const ALL: u64 = BATCHES * BATCH;

async fn filled(cluster: &Cluster, stream: &StreamName) {
    for batch in 0..BATCHES {
        let numbers = batch * BATCH + 1..=(batch + 1) * BATCH;
        let events = numbers.map(|number| event(if number % 2 == 0 { "even" } else { "odd" }, None, &number.to_string()));
        cluster.nodes[0].publish(stream, publish(events.collect())).await.unwrap();
    }
}

/// The events of a step, each of which must be what was published at its seq, and the seqs that it says are gone.
fn met(chunk: &Chunk) -> Vec<(u64, u64)> {
    let one = |item: &Item| match item {
        Item::Event(delivery) => {
            assert_eq!(delivery.event.data, delivery.event.seq.to_string());
            (delivery.event.seq, delivery.event.seq)
        }
        Item::Gap { from, to } => (*from, *to),
    };
    chunk.items.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_shorter_than_an_entry_bring_each_event_once() {
    let cluster = Cluster::start(1).await;
    let (node, orders) = (&cluster.nodes[0], name("orders"));
    filled(&cluster, &orders).await;
    let mut reader = node.reader(&orders, From::Earliest, None).await.unwrap();
    let mut next = 1;
    for events in [1, 7, 300, 999].into_iter().cycle() {
        let chunk = reader.next(Take { events, wait: Duration::ZERO }).await.unwrap();
        let seqs = met(&chunk);
        if seqs.is_empty() {
            break;
        }
        assert!(seqs.len() <= events && seqs.iter().copied().eq((next..).take(seqs.len()).map(|seq| (seq, seq))), "{seqs:?}");
        next = chunk.next;
    }
    assert_eq!(next, ALL + 1);
    let mut filtered = node.reader(&orders, From::Seq(3), Some(SubjectFilter::new("even").unwrap())).await.unwrap();
    let chunk = filtered.next(Take { events: 4, wait: Duration::ZERO }).await.unwrap();
    let more = filtered.next(Take { events: 2, wait: Duration::ZERO }).await.unwrap();
    assert_eq!([met(&chunk), met(&more)].concat(), [4, 6, 8, 10, 12, 14].map(|seq| (seq, seq)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_since_the_last_step_is_not_given() {
    let cluster = Cluster::start(1).await;
    let (node, orders) = (&cluster.nodes[0], name("orders"));
    filled(&cluster, &orders).await;
    let mut reader = node.reader(&orders, From::Earliest, None).await.unwrap();
    let take = Take { events: 3, wait: Duration::ZERO };
    assert_eq!(met(&reader.next(take).await.unwrap()), [(1, 1), (2, 2), (3, 3)]);
    // These are read already.
    node.purge(&orders, Purge::Subject(SubjectFilter::new("odd").unwrap())).await.unwrap();
    assert_eq!(met(&reader.next(take).await.unwrap()), [(4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9)]);
    node.purge(&orders, Purge::BeforeSeq(500)).await.unwrap();
    assert_eq!(met(&reader.next(take).await.unwrap()), [(10, 499)]);
    assert_eq!(met(&reader.next(take).await.unwrap())[..3], [(500, 500), (501, 501), (502, 502)]);
    cluster.stop().await;
}
