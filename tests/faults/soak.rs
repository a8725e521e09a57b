//! A long mixed load with nothing broken: publishers and readers that come and go, streams made and deleted, retention at work.
//! Nothing may grow that should not, and no leadership may move.
//!
//! The rule: the first quarter of the time is for warming up; the median of each figure in the last quarter is held against its
//! median in the second. See `Rule` for what each may grow by.

use crate::args::Soak;
use crate::cluster::{Cluster, Options, Result, admin::Admin, process};
use crate::gaps::{commit, machine};
use crate::inside::Place;
use crate::invariants::{Kind as Broken, Violation};
use crate::report;
use crate::run::{Folder, asked_to_end, start_cluster};
use crate::value::Value;
use crate::workload::{self, Shared, Size, http::Http, watch};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const NODES: usize = 3;
const STREAMS: usize = 6;
/// What each stream keeps, about a minute of load; so that retention has work to do.
const KEEP_BYTES: u64 = 4 << 20;
/// Shorter than the warming up: remembered ids are not growth.
const DEDUP_WINDOW: &str = "1m";
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
const CHURN_EVERY: Duration = Duration::from_secs(2);
/// Log segments are unlinked whole: the active one, one that is being let go, and one that a slow stream holds.
const SEGMENTS_BYTES: u64 = 3 * (128 << 20);

/// One look at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub rss_kib: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub data_kib: u64,
}

/// How much a figure may grow: a part of what it was, and something besides.
struct Rule {
    name: &'static str,
    of: fn(&Sample) -> u64,
    percent: u64,
    besides: u64,
}

const RULES: [Rule; 4] = [
    Rule { name: "resident KiB", of: |sample| sample.rss_kib, percent: 15, besides: 16 << 10 },
    Rule { name: "descriptors", of: |sample| sample.descriptors, percent: 10, besides: 24 },
    Rule { name: "threads", of: |sample| sample.threads, percent: 10, besides: 4 },
    // What retention keeps, and whole segments.
    Rule { name: "data KiB", of: |sample| sample.data_kib, percent: 0, besides: SEGMENTS_BYTES >> 10 },
];

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// What grew beyond the rule, in words.
pub fn growth(node: &str, samples: &[Sample]) -> Vec<String> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        return vec![format!("{node}: too few samples to judge")];
    }
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let judge = |rule: &Rule| {
        let (before, after) = (median(second.iter().map(rule.of).collect()), median(last.iter().map(rule.of).collect()));
        let allowed = before + before * rule.percent / 100 + rule.besides;
        (after > allowed).then(|| format!("{node}: {} went from {before} to {after}, and {allowed} is allowed", rule.name))
    };
    RULES.iter().filter_map(judge).collect()
}

pub fn look(pid: i32, folder: &Path) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    let blocks = |entry: std::io::Result<std::fs::DirEntry>| {
        use std::os::unix::fs::MetadataExt;
        entry.and_then(|entry| entry.metadata()).map_or(0, |data| data.blocks())
    };
    let data_kib = std::fs::read_dir(folder).map_or(0, |entries| entries.map(blocks).sum::<u64>() / 2);
    Sample { rss_kib: field("VmRSS:"), descriptors, threads: field("Threads:"), data_kib }
}

/// Whether nothing grew and nothing went wrong.
pub async fn run(args: Soak, place: Place) -> Result<bool> {
    let folder = Folder::new(args.common.folder.clone(), args.common.keep)?;
    let outcome = tokio::select! {
        outcome = all_of_it(&args, place, &folder) => outcome,
        () = asked_to_end() => Err("interrupted".into()),
    };
    folder.end(matches!(outcome, Ok(true)));
    outcome
}

async fn all_of_it(args: &Soak, place: Place, folder: &Folder) -> Result<bool> {
    let admin = Admin::new();
    let mut cluster = Cluster::new(Options::new(place, &args.common.binary, &folder.path))?;
    start_cluster(&mut cluster, &admin, NODES).await?;
    let size = Size { streams: STREAMS, readers_per_stream: 2, rate: args.rate };
    let streams = workload::stream_names(&size);
    for stream in &streams {
        let settings = json!({ "replicas": 3, "max_bytes": KEEP_BYTES, "dedup_window": DEDUP_WINDOW });
        admin.create(&cluster.nodes[0].url, stream, settings).await?;
    }
    let shared = Arc::new(Shared::new(1, cluster.roster.clone(), &streams).with_retention());
    let mut load = workload::start(&shared, &size);
    let watch = tokio::spawn(watch::run(shared.clone()));
    let churn = tokio::spawn(churn(shared.clone(), admin.clone()));

    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); NODES];
    let began = Instant::now();
    println!(
        "{:>8} {:>5} {:>12} {:>12} {:>8} {:>12} {:>12} {:>8}",
        "s", "node", "resident KiB", "descriptors", "threads", "data KiB", "acked", "leaders"
    );
    while began.elapsed().as_secs_f64() < 60.0 * args.minutes {
        sleep(SAMPLE_EVERY.min(Duration::from_secs_f64(args.minutes * 60.0 / 8.0))).await;
        for (node, samples) in samples.iter_mut().enumerate() {
            let folder = cluster.nodes[node].folder.clone();
            let Some(pid) = cluster.process(node).map(|process| process.pid()) else { continue };
            let sample = look(pid, &folder);
            println!(
                "{:8.0} {:>5} {:>12} {:>12} {:>8} {:>12} {:>12} {:>8}",
                began.elapsed().as_secs_f64(),
                cluster.nodes[node].name,
                sample.rss_kib,
                sample.descriptors,
                sample.threads,
                sample.data_kib,
                shared.counts.acked.load(Relaxed),
                shared.leader_changes(),
            );
            samples.push(sample);
        }
    }
    let changes = shared.leader_changes();
    load.end_publishers(&shared).await;
    load.end_readers(&shared, Duration::from_secs(60)).await;
    let _ = tokio::join!(watch, churn);
    for (node, how) in cluster.ended_by_themselves() {
        shared.violate(Violation::new(Broken::Crashed, format!("{} ended by itself: {how}", cluster.nodes[node].name)));
    }
    cluster.end().await;
    for node in &cluster.nodes {
        process::panics(&node.log)
            .into_iter()
            .for_each(|line| shared.violate(Violation::new(Broken::Crashed, format!("{}: {line}", node.name))));
    }
    let grown: Vec<_> = cluster.nodes.iter().zip(&samples).flat_map(|(node, samples)| growth(&node.name, samples)).collect();
    grown.iter().for_each(|text| println!("GROWTH {text}"));
    println!("{}", report::progress(&shared, 0));
    println!(
        "command: tests/faults/run soak --minutes {} --rate {}\nmachine: {}\ncommit:  {}",
        args.minutes,
        args.rate,
        machine(),
        commit()
    );
    println!("leader changes {changes}, figures that grew {}, violations {}", grown.len(), shared.violations().told.len());
    Ok(grown.is_empty() && changes == 0 && shared.violations().counts.is_empty())
}

/// Streams that come and go, each with a few events.
async fn churn(shared: Arc<Shared>, admin: Admin) {
    let http = Http::new();
    for number in 0.. {
        if shared.ending.is_cancelled() {
            return;
        }
        let urls = shared.roster.urls();
        let url = &urls[number % urls.len()];
        let name = format!("brief-{number}");
        let outcome = async {
            admin.create(url, &name, json!({ "replicas": 3 })).await?;
            for counter in 0..5 {
                http.publish(url, &name, Value::new(60_000, counter), true, None).await;
            }
            admin.delete(url, &name).await
        };
        if let Err(why) = outcome.await {
            shared.violate(Violation::new(Broken::Answer, format!("a stream could not come and go: {why}")));
        }
        sleep(CHURN_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss_kib: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..40).map(|at| Sample { rss_kib: rss_kib(at), descriptors: 50, threads: 10, data_kib: 1000 }).collect()
    }

    #[test]
    fn growth_is_seen_and_warming_up_is_not() {
        assert!(growth("n1", &samples(|_| 100_000)).is_empty());
        assert!(growth("n1", &samples(|at| 50_000 + 5_000 * at.min(10))).is_empty());
        assert_eq!(growth("n1", &samples(|at| 100_000 + 2_000 * at)).len(), 1);
        assert_eq!(growth("n1", &samples(|_| 1)[..3]).len(), 1);
    }
}
