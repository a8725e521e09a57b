//! What peers ask of this node: consensus goes to the groups, the rest to the verbs that must run here.

use super::Inner;
use super::catalog::encode_answer;
use super::error::Error;
use super::membership;
use super::metrics::HandOver;
use super::proposer::Sink;
use super::purge::purge_here;
use super::remote::{self, Forward, ReadChunk, method, refusal};
use super::sleep;
use super::streams::Status;
use crate::cluster::mesh::{Handler, Peer, Reply};
use crate::cluster::{Groups, NotOut, method as consensus};
use crate::core::batch::decode_events;
use crate::core::catalog::NodeState;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, Weak};

/// Takes the calls of peers from the mesh's read loops.
///
/// - Nothing here blocks; what takes time runs on a task of its own, bounded by the mesh's bound of unanswered calls.
pub struct Door {
    groups: Groups,
    /// Set once the node is built; until then its verbs are refused.
    node: OnceLock<Weak<Inner>>,
}

impl Door {
    pub fn new(groups: Groups) -> Door {
        Door { groups, node: OnceLock::new() }
    }

    pub fn open(&self, node: &Arc<Inner>) {
        let _ = self.node.set(Arc::downgrade(node));
    }
}

impl Handler for Door {
    fn handle(&self, from: Peer, number: u16, body: Bytes, reply: Reply) {
        let node = self.node.get().and_then(Weak::upgrade);
        let removed = |node: &Arc<Inner>| node.directory.node(from.node).is_some_and(|known| known.state == NodeState::Removed);
        if from.node != 0 && node.as_ref().is_some_and(removed) {
            return reply.refuse(refusal::REMOVED, "this node was removed from the cluster");
        }
        if number <= consensus::LAST {
            return self.groups.handle(from, number, body, reply);
        }
        let Some(node) = node else {
            return reply.refuse(refusal::NOT_ACCEPTED, "this node is still starting");
        };
        match number {
            method::FORWARD if from.node != 0 => forward(&node, from, body, reply),
            method::COUNT_OUT if from.node != 0 => drop(tokio::spawn(count_out(node, from, body, reply))),
            _ => drop(tokio::spawn(answer(node, from, number, body, reply))),
        }
    }
}

/// Stays on the read loop: requests keep their order.
fn forward(node: &Arc<Inner>, from: Peer, body: Bytes, reply: Reply) {
    let forward = match Forward::decode(body) {
        // What does not decode must never enter a log: every replica would stumble over it.
        Ok(forward) if forward.requests.iter().all(|request| decode_events(request).is_ok()) => forward,
        Ok(_) => return reply.refuse(refusal::NOT_ACCEPTED, "a request does not decode"),
        Err(error) => return reply.refuse(refusal::NOT_ACCEPTED, &error.to_string()),
    };
    let Some(stream) = node.stream_of_group(forward.group) else { return reply.refuse(refusal::NOT_LEADER, "") };
    match stream.local() {
        Some(local) => {
            stream.touch();
            local.proposer.submit(from.node, forward, Sink::Peer(reply));
        }
        None => {
            node.call(&stream);
            reply.refuse(refusal::NOT_LEADER, "");
        }
    }
}

/// Takes the asking node out of a group that this one leads: its replica there is damaged.
async fn count_out(node: Arc<Inner>, from: Peer, body: Bytes, reply: Reply) {
    let group = match remote::decode_number(body) {
        Ok(group) => node.open_group(group).await,
        Err(_) => None,
    };
    let Some(group) = group else { return reply.refuse(refusal::NOT_LEADER, "") };
    let alive = node.alive();
    let voters = group.voters();
    let others: BTreeSet<u64> = voters.intersection(&alive).copied().filter(|id| *id != from.node).collect();
    if group.current().mine.is_some() && voters.contains(&from.node) && !group.is_quorum(&others) {
        let why =
            format!("{} of its {} replicas are whole and within reach, which is no majority to go on with", others.len(), voters.len());
        return reply.refuse(refusal::REJECTED, &why);
    }
    match group.count_out(from.node).await {
        Ok(out) => reply.ok(remote::encode_counted_out(&out)),
        Err(NotOut::NotLeader(leader)) => {
            let hint = leader.map(|id| id.to_string()).unwrap_or_default();
            reply.refuse(refusal::NOT_LEADER, &hint);
        }
        Err(NotOut::Failed(why)) => reply.refuse(refusal::NOT_ACCEPTED, &why),
    }
}

async fn answer(node: Arc<Inner>, from: Peer, number: u16, body: Bytes, reply: Reply) {
    let answer = match number {
        method::JOIN => membership::join(&node, from, body).await,
        _ if from.node == 0 => Err(Error::Conflict("join the cluster first".into())),
        method::PROPOSE_CATALOG => propose_catalog(&node, body).await,
        method::READ_INDEX => read_index(&node, body).await,
        method::READ_CHUNK => read_chunk(&node, body).await,
        method::STREAM_STATUS => stream_status(&node, body).await,
        method::MOVE_LEADER => move_leader(&node, body).await,
        method::PURGE => purge(&node, body).await,
        method::REPLICA => replica(&node, body),
        method::HEALTH => {
            let (damaged, rebuilding) = node.rebuilds.counts();
            Ok(remote::encode_health(damaged, rebuilding))
        }
        method::MEMBERSHIP => Ok(Bytes::new()),
        method::DISK => super::disk::hear(&node, from.node, body),
        method::COMPARE => super::verify::compare(&node, body).await,
        method::REREAD => super::verify::reread(&node, body).await,
        method::LEAVING => leaving(&node, from),
        method::SLEEP => sleep::asked_to_sleep(&node, from.node, body).await,
        method::WAKE => sleep::asked_to_wake(&node, body).await,
        _ => Err(Error::Internal(format!("no such method: {number}"))),
    };
    match answer {
        Ok(body) => reply.ok(body),
        Err(error @ (Error::Conflict(_) | Error::LimitReached(_))) => reply.refuse(refusal::REJECTED, &error.to_string()),
        Err(error) => reply.refuse(refusal::NOT_ACCEPTED, &error.to_string()),
    }
}

type Answer = super::Result<Bytes>;

async fn propose_catalog(node: &Inner, body: Bytes) -> Answer {
    let outcome = node.propose_to_catalog(body).await.ok_or(Error::NoLeader)?;
    let upto = *node.catalog.get().ok_or(Error::NoLeader)?.folded().applied().borrow();
    Ok(encode_answer(&outcome, upto))
}

async fn read_index(node: &Arc<Inner>, body: Bytes) -> Answer {
    let group = node.open_group(remote::decode_number(body)?).await.ok_or(Error::NoLeader)?;
    let upto = group.confirm_leadership().await.map_err(|_| Error::NoLeader)?;
    Ok(remote::encode_number(upto))
}

async fn read_chunk(node: &Arc<Inner>, body: Bytes) -> Answer {
    let step = node.serve_chunk(ReadChunk::decode(body)?).await?;
    Ok(step.encode())
}

async fn stream_status(node: &Arc<Inner>, body: Bytes) -> Answer {
    let stream = node.stream_of_group(remote::decode_number(body)?).ok_or(Error::NoLeader)?;
    if let Some(asleep) = node.status_asleep(&stream) {
        return Ok(asleep.encode());
    }
    Ok(Status::of(&node.opened(&stream).await.ok_or(Error::NoLeader)?).encode())
}

/// A leader that asks waits for the replica here to take part.
fn replica(node: &Arc<Inner>, body: Bytes) -> Answer {
    let group = remote::decode_number(body)?;
    if let Some(stream) = node.stream_of_group(group) {
        node.call(&stream);
    }
    Ok(node.replica_here(group).encode())
}

async fn move_leader(node: &Arc<Inner>, body: Bytes) -> Answer {
    let mut r = remote::reader("a leader transfer", body)?;
    let (group, to) = (r.u64()?, r.u64()?);
    let local = node.awake_group(group).await.ok_or(Error::NoLeader)?;
    let leader = node.hand_over(&local, (to != 0).then_some(to), HandOver::Asked).await?;
    Ok(remote::encode_number(leader))
}

fn leaving(node: &Inner, from: Peer) -> Answer {
    node.leavers.send_modify(|leavers| _ = leavers.insert(from.node, from.boot));
    Ok(Bytes::new())
}

async fn purge(node: &Arc<Inner>, body: Bytes) -> Answer {
    let (group, purge) = remote::decode_purge(body)?;
    let local = node.awake_group(group).await.ok_or(Error::NoLeader)?;
    Ok(remote::encode_purged(&purge_here(&local, &purge).await?))
}
