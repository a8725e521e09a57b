//! One run: a cluster, load on it, faults from a seed, and at the end everything that was told held against what is there.

use crate::args::Run;
use crate::cluster::{Cluster, Options, READY_WAIT, Result, admin::Admin, process, proxy::Proxy};
use crate::collect;
use crate::history::StreamHistory;
use crate::inside::Place;
use crate::invariants::{self, Kind as Broken, Violation};
use crate::nemesis::{act::Nemesis, fault::Kind, schedule::Schedule};
use crate::random::Random;
use crate::report::{self, Totals};
use crate::workload::{self, Shared, Size, publisher::Recorded, watch};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const READERS_PER_STREAM: usize = 2;
const STREAMS: usize = 6;
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// How long readers may take to the end when nothing is broken any more.
const READ_WAIT: Duration = Duration::from_secs(90);

/// Whether everything held.
pub async fn run(args: Run, place: Place) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(|| {
        u64::from(std::process::id()) ^ (std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_micros() as u64) % 1_000_000_007)
    });
    let folder = Folder::new(args.common.folder.clone(), args.common.keep)?;
    let kinds = kinds(&args.faults, place);
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    let again = format!(
        "tests/faults/run --seed {seed} --minutes {} --nodes {} --rate {} --faults {}",
        args.minutes,
        args.nodes,
        args.rate,
        names.join(",")
    );
    println!("{again}\ndata and logs in {}", folder.path.display());
    let outcome = tokio::select! {
        outcome = all_of_it(&args, place, seed, &kinds, &folder) => outcome,
        () = asked_to_end() => Err("interrupted".into()),
    };
    let good = matches!(outcome, Ok(true));
    if !good {
        println!("again with: {again}");
    }
    folder.end(good);
    outcome
}

/// What this machine and this version can do, of what is wanted.
fn kinds(wanted: &[Kind], place: Place) -> Vec<Kind> {
    let here = |kind: &Kind| match kind {
        Kind::Cut | Kind::Full | Kind::Delay | Kind::Oneway => place == Place::Namespaces,
        _ => true,
    };
    let all = Kind::ALL.map(|(kind, _)| kind);
    let wanted = if wanted.is_empty() { &all[..] } else { wanted };
    wanted.iter().copied().filter(here).collect()
}

pub async fn start_cluster(cluster: &mut Cluster, admin: &Admin, nodes: usize) -> Result<()> {
    for node in 0..nodes {
        cluster.place()?;
        // The founder first; the others have somebody to join then.
        if node == 0 {
            cluster.start(0)?;
            admin.ready(&cluster.nodes[0].url, READY_WAIT).await?;
        }
    }
    for node in 1..nodes {
        cluster.start(node)?;
    }
    for node in 0..nodes {
        admin.ready(&cluster.nodes[node].url, READY_WAIT).await?;
    }
    Ok(())
}

async fn all_of_it(args: &Run, place: Place, seed: u64, kinds: &[Kind], folder: &Folder) -> Result<bool> {
    let admin = Admin::new();
    let any = |wanted: &[Kind]| kinds.iter().any(|kind| wanted.contains(kind));
    let mut options = Options::new(place, &args.common.binary, &folder.path);
    options.faulty = any(&[Kind::Power, Kind::Slow, Kind::Eio, Kind::Clock]);
    options.small_disks = any(&[Kind::Full]);
    let mut cluster = Cluster::new(options)?;
    if any(&[Kind::Delay, Kind::Oneway]) {
        cluster.proxy = Some(Proxy::start().await.map_err(|error| format!("the proxy between the peers: {error}"))?);
    }
    let nodes = args.nodes as usize;
    start_cluster(&mut cluster, &admin, nodes).await?;
    let size = Size { streams: STREAMS, readers_per_stream: READERS_PER_STREAM, rate: args.rate };
    let streams = workload::stream_names(&size);
    workload::create_streams(&admin, &cluster.nodes[0].url, &streams, nodes).await?;
    let shared = Arc::new(Shared::new(seed, cluster.roster.clone(), &streams));
    let mut load = workload::start(&shared, &size);
    let watch = tokio::spawn(watch::run(shared.clone()));

    let mut nemesis = Nemesis::new(cluster, admin, shared.clone());
    let mut schedule = Schedule::new(seed, kinds, streams.len(), nodes);
    let mut random = Random::part(seed, 2);
    let (began, mut said) = (Instant::now(), Instant::now());
    while began.elapsed().as_secs_f64() < 60.0 * args.minutes {
        let step = schedule.next_step();
        nemesis.step(&step, random.chance(50)).await;
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            println!("{}", report::progress(&shared, nemesis.faults()));
        }
    }
    nemesis.say("everything is mended; waiting for the last outcomes");
    nemesis.recover().await;
    let recorded = load.end_publishers(&shared).await;
    nemesis.say("reading to the end");
    for reader in load.end_readers(&shared, READ_WAIT).await.iter().filter(|reader| !reader.is_at_end()) {
        let text = format!("{} is at {} and the last seq is {}", reader.name, reader.cursor.next, reader.last());
        shared.violate(Violation::new(Broken::Hung, text));
    }
    let _ = watch.await;
    let totals = judge(&mut nemesis, recorded).await;
    nemesis.look_for_ended();
    nemesis.cluster.end().await;
    for node in &nemesis.cluster.nodes {
        process::panics(&node.log)
            .into_iter()
            .for_each(|line| shared.violate(Violation::new(Broken::Crashed, format!("{}: {line}", node.name))));
    }
    println!("{}", report::last(&nemesis, &totals));
    Ok(shared.violations().counts.is_empty())
}

/// Reads every node's copy and holds everything that was told against it.
async fn judge(nemesis: &mut Nemesis, recorded: Vec<Recorded>) -> Totals {
    let shared = nemesis.shared.clone();
    let mut histories: Vec<StreamHistory> =
        shared.streams.iter().map(|stream| StreamHistory { name: stream.name.clone(), ..StreamHistory::default() }).collect();
    for Recorded { ops, repeats } in recorded {
        ops.into_iter().for_each(|op| histories[usize::from(op.stream)].ops.push(op));
        repeats.into_iter().for_each(|repeat| histories[usize::from(repeat.stream)].repeats.push(repeat));
    }
    let nodes: Vec<_> = nemesis.cluster.members();
    let mut checked = 0;
    for (at, mut history) in histories.into_iter().enumerate() {
        let last = shared.streams[at].told.lock().expect("nobody panics while holding it").last();
        for node in &nodes {
            let node = &nemesis.cluster.nodes[*node];
            match collect::log(&node.name, &node.url, &history.name, last).await {
                Ok(log) => history.logs.push(log),
                Err(why) => shared.violate(Violation::new(Broken::Lost, why)),
            }
        }
        checked += history.log().len() as u64;
        let broken = invariants::check(&history);
        if !broken.is_empty() {
            let file = nemesis.cluster.options.folder.join(format!("{}.history", history.name));
            if let Err(error) = std::fs::write(&file, history.to_text()) {
                eprintln!("{}: {error}", file.display());
            }
        }
        broken.into_iter().for_each(|violation| shared.violate(violation));
    }
    Totals { checked, nodes: nodes.len() }
}

/// A Ctrl-C, or a wish to end from outside.
pub async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = (interrupt.expect("signals can be listened for"), terminate.expect("signals can be listened for"));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Where a run keeps everything.
pub struct Folder {
    pub path: PathBuf,
    keep: bool,
}

impl Folder {
    pub fn new(named: Option<PathBuf>, keep: bool) -> Result<Folder> {
        let keep = keep || named.is_some();
        let path = named.unwrap_or_else(|| std::env::temp_dir().join(format!("evermesh-faults-{}", std::process::id())));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder { path, keep })
    }

    pub fn end(self, good: bool) {
        if !good || self.keep {
            println!("data and logs are kept in {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
