//! How long nobody is acknowledged: one fault of the measured stream's leader after the other, under moderate load.
//!
//! - Publishers are at nodes that the fault leaves in peace, one request after the other, each waiting for its acknowledgement; none
//!   of them sends anything again. What is measured is the longest time in which none of them got one.
//! - At the end the log is held against everything that was acknowledged.

use crate::args::{GapKind, Gaps};
use crate::cluster::{Cluster, Options, READY_WAIT, Result, admin::Admin, network};
use crate::collect;
use crate::history::{Op, Outcome, StreamHistory};
use crate::inside::Place;
use crate::invariants;
use crate::run::{Folder, asked_to_end, start_cluster};
use crate::value::Value;
use crate::workload::http::{Answer, Http};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "gaps";
/// Between two requests of one publisher, so that the machine is not full.
const PAUSE: Duration = Duration::from_millis(15);
/// Load before the fault, and how much of it the measured window has.
const BEFORE: Duration = Duration::from_millis(500);
const WINDOW_BEFORE_US: u64 = 100_000;
/// The load after the fault must have gone on for so long without a gap …
const STEADY: Duration = Duration::from_millis(1_500);
/// … and this is what is waited for at most.
const WINDOW_MAX: Duration = Duration::from_secs(20);
/// A gap is over when acknowledgements come closer together than this.
const STEADY_GAP_US: u64 = 100_000;

struct Load {
    began: Instant,
    /// Where publishers may go now.
    urls: RwLock<Vec<String>>,
    acks: Mutex<Vec<u64>>,
    failed: Mutex<Vec<(u64, String)>>,
    slowest_us: AtomicU64,
    stop: CancellationToken,
}

impl Load {
    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn url(&self, publisher: usize) -> String {
        let urls = self.urls.read().expect("nobody panics while holding it");
        urls[publisher % urls.len()].clone()
    }

    fn acks(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.acks.lock().expect("nobody panics while holding it")
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Vec<(u64, String)>> {
        self.failed.lock().expect("nobody panics while holding it")
    }
}

async fn publish(load: Arc<Load>, publisher: usize) -> Vec<Op> {
    let (http, mut ops) = (Http::new(), Vec::new());
    for counter in 0.. {
        if load.stop.is_cancelled() {
            break;
        }
        let value = Value::new(publisher as u64 + 1, counter);
        let (url, invoked_us) = (load.url(publisher), load.now_us());
        let answer = http.publish(&url, STREAM, value, false, None).await;
        let done_us = load.now_us();
        let outcome = match answer {
            Answer::Acked { seq, .. } => {
                load.acks().push(done_us);
                load.slowest_us.fetch_max(done_us - invoked_us, Relaxed);
                Outcome::Acked { seq }
            }
            other => {
                load.failed().push((done_us, format!("{url}: {other:?} after {} ms", (done_us - invoked_us) / 1000)));
                sleep(Duration::from_millis(100)).await;
                if matches!(other, Answer::Refused { .. } | Answer::Unsent) { Outcome::Refused } else { Outcome::Unknown }
            }
        };
        ops.push(Op { stream: 0, lane: 0, first: value, count: 1, invoked_us, done_us, expected: None, outcome });
        sleep(PAUSE).await;
    }
    ops
}

/// What one repetition showed.
#[derive(Clone, Copy)]
struct Round {
    gap_us: u64,
    slowest_us: u64,
    failed: usize,
    /// Of the other nodes.
    inside: Inside,
}

/// What the nodes that are left in peace count of themselves: whether it was an election or a disk that took long.
#[derive(Clone, Copy, Default)]
struct Inside {
    /// The bound of the bucket with the longest durable transaction, in seconds.
    commit_seconds: f64,
    /// Elections won, by cause.
    elections: [f64; 3],
}

const CAUSES: [&str; 3] = ["evidence", "transfer", "timer"];

type Series = BTreeMap<String, f64>;

impl Inside {
    fn between(before: &Series, after: &Series) -> Inside {
        let more = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
        let commits = more("evermesh_store_commit_seconds_count");
        let bounds = after.keys().filter_map(|name| {
            let bound = name.strip_prefix("evermesh_store_commit_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
            (more(name) >= commits).then(|| bound.parse().unwrap_or(f64::INFINITY))
        });
        let elections = CAUSES.map(|cause| more(&format!("evermesh_elections_won_total{{cause=\"{cause}\"}}")));
        Inside { commit_seconds: bounds.fold(f64::INFINITY, f64::min), elections }
    }

    fn and(self, other: Inside) -> Inside {
        let elections = std::array::from_fn(|cause| self.elections[cause] + other.elections[cause]);
        Inside { commit_seconds: self.commit_seconds.max(other.commit_seconds), elections }
    }
}

impl std::fmt::Display for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "longest commit of the others up to {:.0} ms; elections:", self.commit_seconds * 1000.0)?;
        CAUSES.iter().zip(self.elections).try_for_each(|(cause, count)| write!(f, " {cause} {count}"))
    }
}

/// The longest time without an acknowledgement within these bounds; `acks` is nearly in order.
pub fn longest_gap(acks: &[u64], from_us: u64, to_us: u64) -> u64 {
    let mut inside: Vec<_> = acks.iter().copied().filter(|at| (from_us..=to_us).contains(at)).chain([from_us, to_us]).collect();
    inside.sort_unstable();
    inside.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// Whether everything was acknowledged and nothing lost.
pub async fn run(args: Gaps, place: Place) -> Result<bool> {
    let folder = Folder::new(args.common.folder.clone(), args.common.keep)?;
    if args.kind == GapKind::Cut && place == Place::Loopback {
        return Err("cutting a node off needs network namespaces".into());
    }
    let outcome = tokio::select! {
        outcome = measure(&args, place, &folder) => outcome,
        () = asked_to_end() => Err("interrupted".into()),
    };
    folder.end(matches!(outcome, Ok(true)));
    outcome
}

async fn measure(args: &Gaps, place: Place, folder: &Folder) -> Result<bool> {
    let admin = Admin::new();
    let mut cluster = Cluster::new(Options::new(place, &args.common.binary, &folder.path))?;
    let nodes = args.nodes as usize;
    start_cluster(&mut cluster, &admin, nodes).await?;
    admin.create(&cluster.nodes[0].url, STREAM, json!({ "replicas": 3 })).await?;
    let urls: Vec<_> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
    let load = Arc::new(Load {
        began: Instant::now(),
        urls: RwLock::new(urls.clone()),
        acks: Mutex::default(),
        failed: Mutex::default(),
        slowest_us: AtomicU64::new(0),
        stop: CancellationToken::new(),
    });
    let publishers: Vec<_> = (0..args.publishers).map(|publisher| tokio::spawn(publish(load.clone(), publisher))).collect();

    let mut rounds = Vec::new();
    for round in 1..=args.times {
        let leader = find_leader(&cluster, &admin).await?;
        let others: Vec<_> = urls.iter().enumerate().filter(|(node, _)| *node != leader).map(|(_, url)| url.clone()).collect();
        *load.urls.write().expect("nobody panics while holding it") = others;
        // Requests that are still under way at the leader end in this time.
        sleep(BEFORE).await;
        let result = one_round(args.kind, leader, &mut cluster, &admin, &load).await?;
        println!(
            "{round:3} of {}: {} led; {:.1} ms without an ack, slowest request {:.1} ms, {} failed; {}",
            args.times,
            cluster.nodes[leader].name,
            result.gap_us as f64 / 1000.0,
            result.slowest_us as f64 / 1000.0,
            result.failed,
            result.inside
        );
        rounds.push(result);
        recover(args.kind, leader, &mut cluster, &admin).await?;
    }
    load.stop.cancel();
    let mut history = StreamHistory { name: STREAM.into(), ..StreamHistory::default() };
    for publisher in publishers {
        history.ops.extend(publisher.await.map_err(|error| error.to_string())?);
    }
    let acked = history.ops.iter().filter(|op| op.acked_at().is_some()).count();
    for node in &cluster.nodes {
        history.logs.push(collect::log(&node.name, &node.url, STREAM, 0).await?);
    }
    cluster.end().await;
    let broken = invariants::check(&history);
    broken.iter().take(20).for_each(|violation| println!("VIOLATION ({}): {}", violation.kind.name(), violation.text));
    for (_, why) in load.failed().iter().take(20) {
        println!("failed: {why}");
    }
    println!("{}", summary(args, &rounds, acked, broken.len()));
    Ok(broken.is_empty() && rounds.iter().all(|round| round.failed == 0))
}

async fn find_leader(cluster: &Cluster, admin: &Admin) -> Result<usize> {
    let began = Instant::now();
    loop {
        for node in &cluster.nodes {
            let Ok(stream) = admin.stream(&node.url, STREAM).await else { continue };
            let caught_up = stream.replicas.iter().all(|replica| replica.reachable && replica.lag.is_some_and(|lag| lag < 50));
            let leader = stream.leader.and_then(|leader| cluster.nodes.iter().position(|node| node.name == leader));
            if let Some(leader) = leader.filter(|_| caught_up) {
                return Ok(leader);
            }
        }
        if began.elapsed() > READY_WAIT {
            return Err("the stream has no leader with whole replicas".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn one_round(kind: GapKind, leader: usize, cluster: &mut Cluster, admin: &Admin, load: &Load) -> Result<Round> {
    let at_us = load.now_us();
    load.acks().retain(|ack| *ack + 1_000_000 > at_us);
    let failed_before = load.failed().len();
    load.slowest_us.store(0, Relaxed);
    let other = cluster.nodes[(leader + 1) % cluster.nodes.len()].url.clone();
    let name = cluster.nodes[leader].name.clone();
    let others: Vec<_> = cluster.nodes.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, node)| node.url.clone()).collect();
    let before = series(admin, &others).await?;
    let began = Instant::now();
    match kind {
        GapKind::Kill => cluster.process(leader).ok_or("it is gone already")?.kill(),
        GapKind::Pause => cluster.process(leader).ok_or("it is gone already")?.pause(),
        GapKind::Cut => network::cut(cluster.nodes.len(), &network::Cut::Groups(vec![vec![], vec![leader]]))?,
        GapKind::Stop => drop(cluster.stop(leader).await?),
        GapKind::Drain => admin.drain(&other, &name).await?,
        GapKind::Transfer => drop(admin.transfer(&other, STREAM, None).await?),
    }
    loop {
        sleep(Duration::from_millis(20)).await;
        let now = load.now_us();
        let steady_from = now.saturating_sub(STEADY.as_micros() as u64);
        let steady = steady_from > at_us && longest_gap(&load.acks(), steady_from, now) < STEADY_GAP_US;
        if steady || began.elapsed() > WINDOW_MAX {
            let gap_us = longest_gap(&load.acks(), at_us.saturating_sub(WINDOW_BEFORE_US), now);
            let (slowest_us, failed) = (load.slowest_us.load(Relaxed), load.failed().len() - failed_before);
            let after = series(admin, &others).await?;
            let inside = before.iter().zip(&after).map(|(before, after)| Inside::between(before, after));
            return Ok(Round { gap_us, slowest_us, failed, inside: inside.fold(Inside::default(), Inside::and) });
        }
    }
}

async fn series(admin: &Admin, nodes: &[String]) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for node in nodes {
        all.push(admin.metrics(node).await?);
    }
    Ok(all)
}

async fn recover(kind: GapKind, leader: usize, cluster: &mut Cluster, admin: &Admin) -> Result<()> {
    match kind {
        GapKind::Kill => {
            cluster.kill(&[leader]).await;
            cluster.start(leader)?;
        }
        GapKind::Pause => cluster.process(leader).ok_or("it is gone")?.resume(),
        GapKind::Cut => network::heal(cluster.nodes.len())?,
        GapKind::Stop => cluster.start(leader)?,
        GapKind::Drain => {
            cluster.stop(leader).await?;
            cluster.start(leader)?;
        }
        GapKind::Transfer => {}
    }
    for node in &cluster.nodes {
        admin.ready(&node.url, READY_WAIT).await?;
    }
    // A moved leadership may move back by itself; that is part of the load, not of the measured window.
    sleep(Duration::from_millis(1_500)).await;
    Ok(())
}

/// The value at a percentile, the next larger one where it falls between two.
pub fn percentile(sorted: &[u64], percent: f64) -> u64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

fn summary(args: &Gaps, rounds: &[Round], acked: usize, broken: usize) -> String {
    let line = |what: &str, of: fn(&Round) -> u64| {
        let mut all: Vec<_> = rounds.iter().map(of).collect();
        all.sort_unstable();
        let ms = |percent: f64| percentile(&all, percent) as f64 / 1000.0;
        format!("{what:<28} p50 {:8.1} ms   p90 {:8.1} ms   p99 {:8.1} ms   max {:8.1} ms", ms(50.0), ms(90.0), ms(99.0), ms(100.0))
    };
    format!(
        "\ncommand: tests/faults/run gaps --kind {} --times {} --publishers {} --nodes {}\n\
         machine: {}\n\
         commit:  {}\n\
         {} leaders, {} publishers at the other nodes, one event a request\n\
         {}\n{}\n\
         requests failed {}; events acknowledged {acked}, violations {broken}",
        format!("{:?}", args.kind).to_lowercase(),
        args.times,
        args.publishers,
        args.nodes,
        machine(),
        commit(),
        rounds.len(),
        args.publishers,
        line("longest time without an ack", |round| round.gap_us),
        line("slowest request", |round| round.slowest_us),
        rounds.iter().map(|round| round.failed).sum::<usize>(),
    )
}

pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}

pub fn commit() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    output.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
