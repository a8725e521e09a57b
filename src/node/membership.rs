//! Who belongs to the cluster: letting a node in, in the place of another where it asks for that, and noticing to have been removed.
//!
//! - A node is replaced only when the catalog's leader cannot reach it.
//! - A node that was removed stops, as soon as it is told: by its own catalog, or by any peer that it asks.

use super::Inner;
use super::catalog::{CATALOG_WAIT, rejected};
use super::error::{Error, Result};
use super::identity::{Join, Joined};
use super::lifecycle::CATALOG;
use super::remote::{method, refusal};
use crate::cluster::Failure;
use crate::cluster::mesh::{CallError, Lane, Peer};
use crate::core::NodeName;
use crate::core::catalog::{Command, NodeState, Outcome};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a node asks a peer whether it is a member still.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Streams named in one message, at most.
const NAMED_MAX: usize = 10;

/// Lets a node in; where it wants the place of another, that is the catalog leader's to decide.
pub async fn join(node: &Inner, from: Peer, body: Bytes) -> Result<Bytes> {
    let ask = Join::decode(body.clone())?;
    let command = match ask.replace.clone() {
        None => add(&ask),
        Some(old) => match node.catalog.current().leader {
            Some(leader) if leader == node.id => replace(node, &ask, &old).await?,
            // One that was passed on already: the leadership moved meanwhile, and whoever asks will ask again.
            Some(leader) if from.node == 0 => return pass_on(node, leader, body).await,
            _ => return Err(Error::NoLeader),
        },
    };
    let id = match node.change_catalog(&command).await? {
        Outcome::NodeAdded { id } => id,
        Outcome::Rejected(reject) => return Err(unwelcome(rejected(reject, ask.name.as_str()))),
        other => return Err(Error::Internal(format!("adding a node was answered with {other:?}"))),
    };
    let members = node.directory.members().into_iter();
    let peers = members.filter(|member| member.id != id).map(|member| (member.id, member.peer)).collect();
    match &ask.replace {
        None => tracing::info!(target: "evermesh::events", "{} joined the cluster", ask.name),
        Some(old) => tracing::info!(target: "evermesh::events", "{} joined the cluster in the place of {old}", ask.name),
    }
    Ok(Joined { cluster: node.cluster, node: id, peers }.encode())
}

fn add(ask: &Join) -> Command {
    let Join { token, name, url, peer, version, .. } = ask.clone();
    Command::AddNode { token, name, url, peer, version }
}

/// At the catalog's leader: the command that puts the new node where `old` was, if that is gone.
async fn replace(node: &Inner, ask: &Join, old: &NodeName) -> Result<Command> {
    node.catch_up_catalog().await?;
    let known = node.directory.read().nodes.values().any(|known| known.token == ask.token);
    let id = match node.node_id(old) {
        Ok(id) => id,
        // Asked again: the catalog knows the answer by the token.
        Err(_) if known => 0,
        Err(_) => return Err(Error::Conflict(not_there(node, old))),
    };
    if !known && node.alive().contains(&id) {
        let own = &node.name;
        return Err(Error::Conflict(format!("{old} is alive, {own} can reach it: stop it first, or drain and remove it")));
    }
    if !known {
        tell_lost(node, id, old);
    }
    let Join { token, name, url, peer, version, .. } = ask.clone();
    Ok(Command::ReplaceNode { old: id, token, name, url, peer, version })
}

fn not_there(node: &Inner, old: &NodeName) -> String {
    let catalog = node.directory.read();
    let removed = catalog.nodes.values().any(|node| node.name == *old && node.state == NodeState::Removed);
    if removed {
        return format!("{old} was removed already: join without replacing it");
    }
    let names: Vec<_> = catalog.nodes.values().filter(|node| node.state != NodeState::Removed).map(|node| node.name.to_string()).collect();
    format!("there is no node named {old} to replace; the nodes are {}", names.join(", "))
}

/// Streams that no other node holds are lost with it, and somebody should hear of that.
fn tell_lost(node: &Inner, id: u64, old: &NodeName) {
    let catalog = node.directory.read();
    let lost = catalog.streams.values().filter(|stream| stream.placement.contains(&id) && !catalog.survives(stream, id));
    let lost: Vec<_> = lost.map(|stream| stream.name.to_string()).collect();
    if !lost.is_empty() {
        let named = lost.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        tracing::warn!(target: "evermesh::events", "{} streams were on {old} alone and are lost with it: {named}", lost.len());
    }
}

/// A refusal that asking again will not change.
fn unwelcome(error: Error) -> Error {
    match error {
        Error::NodeNotFound(name) => {
            Error::Conflict(format!("{name} was removed from the cluster; a new node begins with an empty data folder"))
        }
        other => other,
    }
}

async fn pass_on(node: &Inner, leader: u64, body: Bytes) -> Result<Bytes> {
    let answer = node.mesh.call(leader, Lane::Bulk, method::JOIN, body, Instant::now() + CATALOG_WAIT / 2).await;
    answer.map_err(|error| match error {
        CallError::Refused { code: refusal::REJECTED, message } => Error::Conflict(message),
        _ => Error::NoLeader,
    })
}

/// Stops this node once it hears that it was removed.
///
/// Nobody replicates to a node that is out, and nobody dials it, so it may never see the entry that says so: it asks.
pub async fn watch(node: Arc<Inner>) {
    let mut changes = node.directory.changes();
    let mut ticks = tokio::time::interval(ASK_EVERY);
    let mut turn = 0;
    loop {
        changes.borrow_and_update();
        let known = node.directory.node(node.id);
        if known.is_some_and(|me| me.state == NodeState::Removed) {
            return leave(&node);
        }
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = changes.changed() => (),
            _ = ticks.tick() => {
                turn += 1;
                if was_removed(&node, turn).await {
                    return leave(&node);
                }
            }
        }
    }
}

/// Asks one of the peers, each in its turn.
async fn was_removed(node: &Inner, turn: usize) -> bool {
    let peers: Vec<u64> = node.others_alive().collect();
    let Some(peer) = peers.get(turn % peers.len().max(1)) else { return false };
    let answer = node.mesh.call(*peer, Lane::Bulk, method::MEMBERSHIP, Bytes::new(), Instant::now() + ASK_EVERY).await;
    matches!(answer, Err(CallError::Refused { code: refusal::REMOVED, .. }))
}

fn leave(node: &Inner) {
    node.depart();
    let why =
        format!("{} was removed from the cluster; its data folder is of no more use to it, a new node begins with an empty one", node.name);
    node.fail(Failure { group: CATALOG, why });
}
