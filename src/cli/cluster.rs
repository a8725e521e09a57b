//! `evermesh cluster`: who is there, letting a node go, forgetting one.
//!
//! What a change means is told before it is made; `--wait` follows it until nothing is left to do.

use super::{
    connect::Connect,
    failure::{Failure, Result},
    stream::confirm,
    table::{Table, count, or_dash},
};
use crate::client::Client;
use crate::wire::{Cluster, Disk, Node, NodeState, StreamSummary};
use clap::Subcommand;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often a change is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Streams named in one line, at most.
const NAMED_MAX: usize = 10;

#[derive(clap::Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  evermesh cluster status
  evermesh cluster drain n2 --wait   move everything off n2, then stop its process
  evermesh cluster remove n2         forget n2 for good

A dead node is replaced with one command on the new machine: evermesh serve --data DIR --join HOST:PORT --replace n2 …"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show the nodes, their state and their share
    Status,
    /// Move all streams off a node, so that it can be stopped or removed; it comes back when it is started again
    Drain {
        /// The node's name
        node: String,
        /// Wait until the node leads nothing, and holds nothing that another node has room for
        #[arg(long)]
        wait: bool,
    },
    /// Remove a node from the cluster; it can come back only with an empty data folder
    Remove {
        /// The node's name
        node: String,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
        /// Wait until its replicas are elsewhere
        #[arg(long)]
        wait: bool,
    },
}

pub async fn run(args: Args) -> Result {
    let (client, connect) = (args.connect.client()?, &args.connect);
    match args.verb {
        Verb::Status => connect.print(&client.cluster().await?, status),
        Verb::Drain { node, wait } => {
            client.drain(&node).await?;
            if wait {
                until(&client, |cluster, streams| drained(cluster, streams, &node)).await?;
            }
            connect.print(&json!({"node": node, "state": "draining"}), |_| match wait {
                true => format!("{node} is drained: stop its process, or remove it"),
                false => format!("{node} is draining; `evermesh cluster status` shows when it holds nothing more"),
            });
        }
        Verb::Remove { node, yes, wait } => {
            let (cluster, streams) = (client.cluster().await?, client.list_streams("").await?);
            let known = cluster.nodes.iter().find(|known| known.name == node);
            if let Some(known) = known {
                eprintln!("{}", consequences(known, &streams));
                confirm(yes, &format!("remove {node} from the cluster for good?"))?;
            }
            client.remove(&node).await?;
            if wait {
                until(&client, |cluster, streams| rebuilt(cluster, streams, &node)).await?;
            }
            connect.print(&json!({"node": node, "state": "removed"}), |_| format!("{node} is removed"));
        }
    }
    Ok(())
}

/// What the removal of a node means, as far as it can be seen from here.
fn consequences(node: &Node, streams: &[StreamSummary]) -> String {
    let held: Vec<_> = streams.iter().filter(|stream| stream.replicas.contains(&node.name)).collect();
    let only: Vec<_> = held.iter().filter(|stream| stream.replicas.len() == 1).map(|stream| stream.name.as_str()).collect();
    let mut text = format!("{} holds {} of {} streams", node.name, count(held.len() as u64), count(streams.len() as u64));
    text.push_str(match (node.state, node.reachable) {
        (_, false) => " and cannot be reached: their replicas are made anew on other nodes, as far as there are some",
        (NodeState::Active, true) if !held.is_empty() => {
            " and is alive: it stops once it is removed (to move them off first: evermesh cluster drain)"
        }
        _ => " and is alive: it stops once it is removed",
    });
    if !only.is_empty() && !node.reachable {
        let named = only.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        text.push_str(&format!("\nLOST with it, since no other node has them: {} streams ({named})", count(only.len() as u64)));
    }
    text
}

/// Looks again and again until nothing is left to do, and tells each change of what is.
async fn until(client: &Client, left: impl Fn(&Cluster, &[StreamSummary]) -> Option<String>) -> Result {
    let mut said = String::new();
    let mut changed = Instant::now();
    loop {
        let (cluster, streams) = (client.cluster().await?, client.list_streams("").await?);
        let Some(now) = left(&cluster, &streams) else { return Ok(()) };
        if now != said {
            eprintln!("{now}");
            (said, changed) = (now, Instant::now());
        }
        if changed.elapsed() > client.options().timeout {
            return Err(Failure::new(format!("nothing has changed for {} s", client.options().timeout.as_secs()))
                .hint("it goes on by itself when it can; --timeout says how long to wait for a change"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a draining node still has to hand over: its leaderships, and the replicas that another node could take.
fn drained(cluster: &Cluster, streams: &[StreamSummary], name: &str) -> Option<String> {
    let node = cluster.nodes.iter().find(|node| node.name == name)?;
    let takers: Vec<_> = takers(cluster);
    let movable = streams.iter().filter(|stream| stream.replicas.contains(&node.name));
    let movable = movable.filter(|stream| takers.iter().any(|taker| !stream.replicas.contains(taker))).count() as u64;
    (node.streams_led + movable > 0).then(|| format!("{name}: leads {}, holds {} that can move", count(node.streams_led), count(movable)))
}

/// What a removed node still had: streams that are placed there, or have fewer replicas than they should and could.
fn rebuilt(cluster: &Cluster, streams: &[StreamSummary], name: &str) -> Option<String> {
    let takers = takers(cluster);
    let is_whole = |stream: &StreamSummary| {
        let wanted = usize::from(stream.settings.replicas).min(takers.len());
        stream.replicas.len() >= wanted && !stream.replicas.iter().any(|replica| replica == name && !takers.contains(replica))
    };
    // One that nobody else held stays lost.
    let lost = |stream: &StreamSummary| stream.replicas.iter().all(|replica| !takers.contains(replica));
    let left = streams.iter().filter(|stream| !is_whole(stream) && !lost(stream)).count() as u64;
    (left > 0).then(|| format!("{} streams have a replica to be made anew", count(left)))
}

/// The nodes that take replicas.
fn takers(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().filter(|node| node.state == NodeState::Active && node.reachable).map(|node| node.name.clone()).collect()
}

fn status(cluster: &Cluster) -> String {
    let mut table = Table::new(&["ID", "NODE", "STATE", "LEADS", "HOLDS", "VERSION", "URL"], &[0, 3, 4]);
    for node in &cluster.nodes {
        let state = match (node.state, node.reachable, node.disk) {
            (NodeState::Active, true, Disk::Ok) => "active",
            (NodeState::Active, true, Disk::Short) => "short of disk",
            (NodeState::Active, true, Disk::Full) => "disk full",
            (NodeState::Active, false, _) => "unreachable",
            (NodeState::Draining, ..) => "draining",
            (NodeState::Removed, ..) => "removed",
        };
        let told = [(node.replicas_damaged, "damaged"), (node.replicas_rebuilding, "rebuilding")];
        let told = told.into_iter().filter(|(count, _)| *count > 0).map(|(number, what)| format!(", {} {what}", count(number)));
        let state = format!("{state}{}", told.collect::<String>());
        let name = if node.name == cluster.node { format!("{} *", node.name) } else { node.name.clone() };
        table.row([
            node.id.to_string(),
            name,
            state,
            count(node.streams_led),
            count(node.streams_held),
            node.version.clone(),
            node.url.clone(),
        ]);
    }
    let leader = or_dash(cluster.catalog_leader.as_ref());
    format!("cluster {}, catalog led by {leader}, asked of {} (*)\n\n{}", cluster.cluster, cluster.node, table.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: &[(&str, &str, bool, u64)]) -> Cluster {
        let node = |(at, (name, state, reachable, led)): (usize, &(&str, &str, bool, u64))| {
            json!({"id": at + 1, "name": name, "url": "http://a:1", "state": state, "version": "1", "reachable": reachable,
                "streams_led": led, "streams_held": 0})
        };
        let nodes: Vec<_> = nodes.iter().enumerate().map(node).collect();
        serde_json::from_value(json!({"cluster": "ab", "node": "n1", "catalog_leader": null, "nodes": nodes})).unwrap()
    }

    fn streams(replicas: &[&[&str]]) -> Vec<StreamSummary> {
        let stream = |(at, replicas): (usize, &&[&str])| {
            json!({"name": format!("s{at}"), "created": "2026-11-22T00:00:00Z", "leader": null, "replicas": replicas, "settings": {
                "replicas": replicas.len(), "max_age": null, "max_bytes": null, "max_events": null, "discard": "old",
                "dedup_window": "2m", "max_event_bytes": 1, "description": ""}})
        };
        replicas.iter().enumerate().map(|one| serde_json::from_value(stream(one)).unwrap()).collect()
    }

    #[test]
    fn what_is_left_of_a_drain_is_what_can_move() {
        let full = cluster(&[("n1", "active", true, 0), ("n2", "draining", true, 0), ("n3", "active", true, 0)]);
        assert_eq!(drained(&full, &streams(&[&["n1", "n2", "n3"]]), "n2"), None, "there is no room for it elsewhere");
        assert!(drained(&full, &streams(&[&["n1", "n2", "n3"], &["n2"]]), "n2").unwrap().contains("holds 1 that can move"));
        let leads = cluster(&[("n1", "active", true, 0), ("n2", "draining", true, 2), ("n3", "active", true, 0)]);
        assert!(drained(&leads, &streams(&[&["n1", "n2", "n3"]]), "n2").unwrap().contains("leads 2"));
    }

    #[test]
    fn a_removal_says_what_it_means_and_when_it_is_over() {
        let dead = cluster(&[("n1", "active", true, 0), ("n2", "active", false, 0), ("n3", "active", true, 0)]);
        let all = streams(&[&["n1", "n2", "n3"], &["n2"], &["n1"]]);
        let said = consequences(&dead.nodes[1], &all);
        assert!(said.contains("n2 holds 2 of 3 streams and cannot be reached") && said.contains("LOST") && said.contains("s1"), "{said}");
        let alive = consequences(&dead.nodes[0], &all);
        assert!(alive.contains("is alive") && alive.contains("drain") && !alive.contains("LOST"), "{alive}");
        let left = cluster(&[("n1", "active", true, 0), ("n3", "active", true, 0)]);
        assert!(rebuilt(&left, &all, "n2").unwrap().starts_with("1 streams"));
        assert_eq!(rebuilt(&left, &streams(&[&["n1", "n3"], &["n2"], &["n1"]]), "n2"), None);
        let replaced = cluster(&[("n1", "active", true, 0), ("n2", "active", true, 0), ("n3", "active", true, 0)]);
        assert_eq!(rebuilt(&replaced, &streams(&[&["n1", "n2", "n3"]]), "n2"), None, "a new node has its name");
    }

    #[test]
    fn the_status_is_a_table() {
        let cluster: Cluster = serde_json::from_value(json!({
            "cluster": "ab", "node": "n1", "catalog_leader": null,
            "nodes": [
                {"id": 1, "name": "n1", "url": "http://a:1", "state": "active", "version": "0.1.0", "reachable": true, "streams_led": 4, "streams_held": 12},
                {"id": 2, "name": "n2", "url": "http://b:2", "state": "active", "version": "0.1.0", "reachable": false, "streams_led": 0, "streams_held": 12}
            ]
        }))
        .unwrap();
        let lines: Vec<_> = status(&cluster).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "cluster ab, catalog led by -, asked of n1 (*)");
        assert_eq!(lines[3], " 1  n1 *  active           4     12  0.1.0    http://a:1");
        assert!(lines[4].contains("unreachable"));
    }
}
