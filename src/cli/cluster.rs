//! `evermesh cluster`: who is there, letting a node go, forgetting one.

use super::{
    connect::Connect,
    failure::Result,
    stream::confirm,
    table::{Table, count, or_dash},
};
use crate::wire::{Cluster, NodeState};
use clap::Subcommand;
use serde_json::json;

#[derive(clap::Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  evermesh cluster status
  evermesh cluster drain n2          move everything off n2, then stop its process
  evermesh cluster remove n2         forget n2 for good"
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
    /// Move all streams off a node, so that it can be stopped or removed
    Drain {
        /// The node's name
        node: String,
    },
    /// Remove a node from the cluster; it can come back only with an empty data folder
    Remove {
        /// The node's name
        node: String,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(args: Args) -> Result {
    let (client, connect) = (args.connect.client()?, &args.connect);
    match args.verb {
        Verb::Status => connect.print(&client.cluster().await?, status),
        Verb::Drain { node } => {
            client.drain(&node).await?;
            connect.print(&json!({"node": node, "state": "draining"}), |_| {
                format!("{node} is draining; `evermesh cluster status` shows when it holds nothing more")
            });
        }
        Verb::Remove { node, yes } => {
            confirm(yes, &format!("remove {node} from the cluster for good?"))?;
            client.remove(&node).await?;
            connect.print(&json!({"node": node, "state": "removed"}), |_| format!("{node} is removed"));
        }
    }
    Ok(())
}

fn status(cluster: &Cluster) -> String {
    let mut table = Table::new(&["ID", "NODE", "STATE", "LEADS", "HOLDS", "VERSION", "URL"], &[0, 3, 4]);
    for node in &cluster.nodes {
        let state = match (node.state, node.reachable) {
            (NodeState::Active, true) => "active",
            (NodeState::Active, false) => "unreachable",
            (NodeState::Draining, _) => "draining",
            (NodeState::Removed, _) => "removed",
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
