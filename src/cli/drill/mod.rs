//! `evermesh drill`: the failover test that operators should run and never do.
//!
//! [`probe`] publishes to a stream of its own and follows it everywhere, [`faults`] moves its leader and ends nodes of `evermesh dev`
//! meanwhile, [`history`] says what the outcome means, [`report`] tells it.
//!
//! - Only the public API is used, and for `--kill` the control socket of `evermesh dev`.
//! - The probe's stream goes at the end, however the end comes; a node that was ended is started again.
//! - The rate is bounded, and so is everything that is kept.

mod faults;
mod history;
mod probe;
mod report;

use self::{
    faults::{Down, Faced, Hand},
    probe::{Node, Probe},
    report::Ending,
};
use super::{
    connect::{Connect, span},
    dev::{self, control},
    failure::{Failure, Result},
    signals::Signals,
    stream::confirm,
    table::say,
};
use crate::client::Client;
use crate::wire::{Cluster, NodeState};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How long the probe runs before the first fault, so that there is something to compare with.
const WARM_UP: Duration = Duration::from_secs(1);
/// Replicas without which nothing fails over.
const REPLICAS_MIN: usize = 3;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  evermesh drill                                    moves the leader of a stream of its own, five times, under load
  evermesh drill --kill leader --rounds 3           also ends the leader's process, of the `evermesh dev` in ./evermesh-data
  evermesh drill --server http://10.0.0.1:4700 --rate 100 --json

It is harmless on a live cluster: a stream of its own, a bounded rate, one fault after the other. `--kill` needs `evermesh dev`.
The exit code is 0 only if nothing was lost, doubled or out of order, on no node, and no request failed.")]
pub struct Args {
    /// Rounds: in each the leader is moved, and with --kill a node ended
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// End a node of `evermesh dev` in each round and start it again: a name, or `leader`; of several each in its turn
    #[arg(long, value_name = "NODE|leader")]
    kill: Vec<String>,
    /// Data folder of that `evermesh dev`
    #[arg(long, value_name = "DIR", default_value = dev::DATA)]
    data: PathBuf,
    /// Events a second over all publishers
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    rate: u64,
    /// Publishers, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    publishers: u32,
    /// How long each fault is watched; a node that was ended stays away so long
    #[arg(long, value_name = "SPAN", default_value = "3s", value_parser = pause)]
    pause: Duration,
    /// Don't ask before ending nodes
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    connect: Connect,
}

fn pause(text: &str) -> std::result::Result<Duration, String> {
    let pause = span(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&pause);
    fits.then_some(pause).ok_or_else(|| "from 100ms to 10m".into())
}

pub async fn run(args: Args) -> Result {
    let client = args.connect.client()?;
    let cluster = client.cluster().await?;
    let nodes = usable(&cluster)?;
    client.learn(nodes.iter().map(|node| node.url.clone()));
    check_kill(&args, &nodes).await?;
    let stream = probe::stream_name();
    // On the side of results is only the result.
    eprintln!("{}\n", report::plan(&args, &cluster, &nodes, &stream, REPLICAS_MIN));
    if !args.kill.is_empty() {
        confirm(args.yes, "end and restart nodes of `evermesh dev`?")?;
    }
    let mut signals = Signals::new()?;
    let down = Arc::new(Down::default());
    let outcome = tokio::select! {
        outcome = drill(&args, &client, &nodes, &stream, down.clone()) => outcome,
        () = signals.next() => Err(Failure::interrupted()),
    };
    tokio::select! {
        () = tidy_up(&args, &client, &stream, &down) => outcome,
        () = signals.next() => Err(Failure::interrupted().hint(format!("the stream {stream} may be left behind"))),
    }
}

/// The nodes that take part.
fn usable(cluster: &Cluster) -> Result<Vec<Node>> {
    let usable = cluster.nodes.iter().filter(|node| node.state == NodeState::Active && node.reachable);
    let mut nodes: Vec<_> = usable.map(|node| Node { name: node.name.clone(), url: node.url.clone() }).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    match nodes.len() >= REPLICAS_MIN {
        true => Ok(nodes),
        false => Err(Failure::new(format!("{} of the cluster's nodes can be used, and a failover needs {REPLICAS_MIN}", nodes.len()))
            .hint("`evermesh cluster status` shows them")),
    }
}

/// Whether there is an `evermesh dev` that has these nodes, asked before anything begins.
async fn check_kill(args: &Args, nodes: &[Node]) -> Result {
    if args.kill.is_empty() {
        return Ok(());
    }
    let status = control::ask(&args.data, "status").await?;
    let there: Vec<_> = status.split(", ").filter_map(|node| node.split(' ').next()).collect();
    for whom in args.kill.iter().filter(|whom| *whom != "leader") {
        if !there.contains(&whom.as_str()) {
            return Err(Failure::usage(format!("--kill {whom}: this `evermesh dev` has {}", there.join(", "))));
        }
    }
    match nodes.iter().all(|node| there.contains(&node.name.as_str())) {
        true => Ok(()),
        false => Err(Failure::usage(format!("the `evermesh dev` in {} is not the cluster that --server names", args.data.display()))),
    }
}

async fn drill(args: &Args, client: &Client, nodes: &[Node], stream: &str, down: Arc<Down>) -> Result {
    let (_, made) = client.put_stream(stream, &probe::settings()).await?;
    if made.replicas.len() < REPLICAS_MIN {
        return Err(Failure::new(format!("the stream got {} replicas, and a failover needs {REPLICAS_MIN}", made.replicas.len())));
    }
    let probe = Probe::start(stream, nodes, args, &args.connect).await?;
    let hand =
        Hand { client: client.clone(), nodes: nodes.to_vec(), probe: probe.clone(), pause: args.pause, data: args.data.clone(), down };
    tokio::time::sleep(WARM_UP).await;
    let mut faced = Vec::new();
    let rounds = rounds(args, &hand, &mut faced).await;
    eprintln!("\nwaiting until every subscriber has everything, and reading from every node …\n");
    probe.finish().await;
    let ending = ending(&probe, nodes).await?;
    let history = probe.history();
    match args.connect.json {
        true => say(&report::json(stream, &faced, &history, &ending).to_string()),
        false => say(&report::text(&faced, &history, &ending)),
    }
    rounds?;
    match report::is_clean(&history, &ending) {
        true => Ok(()),
        false => Err(Failure::new("the drill found something that must not be")),
    }
}

/// What a failed fault interrupts is reported all the same.
async fn rounds(args: &Args, hand: &Hand, faced: &mut Vec<Faced>) -> Result {
    for round in 1..=args.rounds {
        let moved = hand.move_leader(round).await?;
        eprintln!("{}", report::line(&moved, args.rounds, &hand.probe.history()));
        faced.push(moved);
        if !args.kill.is_empty() {
            let killed = hand.kill(round, &args.kill[(round as usize - 1) % args.kill.len()]).await?;
            eprintln!("{}", report::line(&killed, args.rounds, &hand.probe.history()));
            faced.push(killed);
        }
    }
    Ok(())
}

/// Reads the stream from every node and compares.
async fn ending(probe: &Probe, nodes: &[Node]) -> Result<Ending> {
    let mut ending = Ending {
        last: probe.history().acks.iter().map(|ack| ack.seq).max().unwrap_or(0),
        seen: probe.subscribers.iter().map(|subscriber| (subscriber.node.clone(), subscriber.seen.borrow().clone())).collect(),
        ..Ending::default()
    };
    let first = probe.read(&nodes[0].name).await?;
    for node in &nodes[1..] {
        if probe.read(&node.name).await? != first {
            ending.diverged.push(node.name.clone());
        }
    }
    ending.stored = first.len() as u64;
    ending.verdict = history::judge(&probe.history().acks, &first);
    Ok(ending)
}

/// Starts what was ended, and removes the probe's stream.
async fn tidy_up(args: &Args, client: &Client, stream: &str, down: &Down) {
    if let Some(node) = down.get()
        && let Err(failure) = control::ask(&args.data, &format!("start {node}")).await
    {
        eprintln!("{node} could not be started again: {failure}");
    }
    match client.delete_stream(stream).await {
        Ok(()) => {}
        Err(error) if error.code() == Some("stream-not-found") => {}
        Err(error) => eprintln!("the stream {stream} is left behind: {error}\n  remove it with: evermesh stream rm {stream} --yes"),
    }
}
