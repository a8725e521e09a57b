//! What a publish costs before and after consensus: encoding, decoding, applying, and the frame that all subscribers share.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use evermesh::core::batch::{self, Origin, RequestHead};
use evermesh::core::command::{Command, Publish};
use evermesh::core::machine::{Machine, events_of};
use evermesh::core::{NewEvent, Text, Time};
use std::hint::black_box;

/// Events of one request; the data of each is 256 bytes, as in the yardsticks.
const EVENTS: usize = 64;

fn events(ids: bool) -> Vec<NewEvent> {
    let event = |number: usize| NewEvent {
        subject: Some(Text::from("orders.eu.created")),
        id: ids.then(|| Text::from(format!("o-{number}"))),
        content_type: Text::from("application/json"),
        headers: Vec::new(),
        data: Bytes::from(format!("{{\"order\":{number:0>246}}}")),
    };
    (0..EVENTS).map(event).collect()
}

fn request(events: &[NewEvent], counter: u64) -> Bytes {
    let head = RequestHead {
        origin: Origin { node: 1, epoch: 1 },
        counter,
        floor: counter,
        expected_last_seq: None,
        count: events.len() as u32,
        bytes: events.iter().map(NewEvent::bytes).sum(),
    };
    batch::encode_request(&head, events)
}

fn publish(request: Bytes) -> Publish {
    Publish { time: Time(1), dedup_window_ms: 120_000, max_events: None, max_bytes: None, requests: vec![request] }
}

fn codec(c: &mut Criterion) {
    let events = events(true);
    let encoded = request(&events, 1);
    let mut group = c.benchmark_group("codec, 64 events of 256 B");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("encode a request", |b| b.iter(|| request(black_box(&events), 1)));
    group.bench_function("decode its events", |b| b.iter(|| batch::decode_events(black_box(&encoded)).expect("own encoding")));
    group.bench_function("decode what applying needs", |b| b.iter(|| batch::event_heads(black_box(&encoded)).expect("own encoding")));
    group.finish();
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply, 64 events of 256 B");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, ids) in [("with event ids", true), ("without", false)] {
        let command = Command::Publish(publish(request(&events(ids), 1)));
        group.bench_function(name, |b| {
            b.iter_batched(Machine::new, |mut machine| machine.apply(1, &command).expect("own encoding"), BatchSize::SmallInput)
        });
    }
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let publish = publish(request(&events(true), 1));
    let mut group = c.benchmark_group("fan-out, 64 events of 256 B");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("decode an entry for its readers", |b| b.iter(|| events_of(black_box(&publish), 1, &[]).expect("own encoding")));
    let events = events_of(&publish, 1, &[]).expect("own encoding");
    group.bench_function("encode the frames that all subscribers share", |b| {
        b.iter(|| events.iter().map(|event| evermesh::wire::encode_event(black_box(event)).len()).sum::<usize>())
    });
    group.finish();
}

criterion_group!(benches, codec, apply, fan_out);
criterion_main!(benches);
