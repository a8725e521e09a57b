//! Group commit on a real directory: what a durable commit costs by the rows in it and the groups they belong to.
//!
//! `cargo bench --bench append`. The directory is a temporary one; set `TMPDIR` to measure another disk.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evermesh::store::{Entry, Group, Options, Store};
use std::hint::black_box;
use std::sync::mpsc;
use std::time::Duration;

const PAYLOAD_BYTES: usize = 256;

struct Appender {
    groups: Vec<(Group, u64)>,
    payload: Bytes,
}

impl Appender {
    fn new(store: &Store, groups: u64) -> Appender {
        let groups = (0..groups).map(|id| (store.group(id), 1)).collect();
        Appender { groups, payload: Bytes::from(vec![b'x'; PAYLOAD_BYTES]) }
    }

    /// Appends `rows` spread over all the groups, and waits until every one is durable.
    fn append(&mut self, rows: u64) {
        let (answer, answers) = mpsc::sync_channel(self.groups.len());
        let each = rows.div_ceil(self.groups.len() as u64);
        let mut left = rows;
        for (group, next) in &mut self.groups {
            let count = each.min(left);
            if count == 0 {
                break;
            }
            left -= count;
            let entry = |index| Entry { index, term: 1, leader: 1, payload: self.payload.clone() };
            let answer = answer.clone();
            let entries = (*next..*next + count).map(entry).collect();
            group.append(entries, move |result| answer.send(result).expect("the bench waits")).expect("append");
            *next += count;
        }
        drop(answer);
        answers.iter().for_each(|result| result.expect("durable"));
    }
}

fn commit(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("commit");
    bench.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for groups in [1, 64] {
        for rows in [1, 64, 1024] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let store = Store::open_dir(directory.path(), Options::default()).expect("open");
            let mut appender = Appender::new(&store, groups);
            bench.throughput(Throughput::Elements(rows));
            bench.bench_function(BenchmarkId::new(format!("{groups} groups"), rows), |bench| bench.iter(|| appender.append(rows)));
            store.close().expect("close");
        }
    }
    bench.finish();
}

fn read(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("read");
    bench.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (place, tail_bytes) in [("disk", 0), ("tail", 64 << 20)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open_dir(directory.path(), Options { tail_bytes, ..Options::default() }).expect("open");
        let mut appender = Appender::new(&store, 1);
        (0..20).for_each(|_| appender.append(1024));
        let group = store.group(0);
        bench.throughput(Throughput::Elements(1000));
        bench.bench_function(BenchmarkId::new(place, 1000), |bench| {
            bench.iter(|| black_box(group.read(black_box(5000..6000), usize::MAX).expect("read")));
        });
        store.close().expect("close");
    }
    bench.finish();
}

criterion_group!(benches, commit, read);
criterion_main!(benches);
