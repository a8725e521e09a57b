//! Every open group of this node, and the way of the peers' messages into them.

use super::elections::{Elected, Elections, ElectionsSeen};
use super::encoding;
use super::evidence::{self, Heard};
use super::group::{Ended, Failure, Group, Open, Timers};
use super::machine::Fold;
use super::mesh::{Mesh, Peer, Reply};
use super::network::method;
use super::parts::{Part, Parts, Taken};
use super::reverted::Reverted;
use super::types::{AppendRequest, Entry, EntryPayload, Snapshot};
use crate::core::limits;
use crate::store::Store;
use bytes::Bytes;
use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Context,
};
use tokio::sync::{broadcast, mpsc};

/// Refusal codes of this room on the mesh.
pub mod refusal {
    /// The group is not open on this node.
    pub const NO_GROUP: u16 = 1;
    /// The bytes do not decode.
    pub const MALFORMED: u16 = 2;
    /// The group could not answer.
    pub const FAILED: u16 = 3;
    /// The caller is no member of this cluster.
    pub const STRANGER: u16 = 4;
    /// This node's disk has no room for the entries.
    pub const NO_SPACE: u16 = 5;
    /// The last number of this room; larger ones belong to the room above.
    pub const LAST: u16 = 99;
}

/// The group of the room above that may grow on any disk: what it says makes room.
const CATALOG: u64 = 0;

/// A handle to the node's groups; clones are the same ones.
#[derive(Clone)]
pub struct Groups {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    mesh: OnceLock<Mesh>,
    timers: Timers,
    ended: mpsc::Sender<Ended>,
    openings: AtomicU64,
    open: RwLock<HashMap<u64, Group>>,
    elections: Elections,
    parts: Parts,
    /// Groups that a peer called and that are not open.
    missed: mpsc::Sender<u64>,
    /// Taken by the one who opens them.
    missing: Mutex<Option<mpsc::Receiver<u64>>>,
    statements: mpsc::Sender<Heard>,
    /// Taken by the one who considers them.
    heard: Mutex<Option<mpsc::Receiver<Heard>>>,
}

impl Groups {
    /// Groups that end by themselves are told to `ended`.
    pub fn new(store: Store, timers: Timers, ended: mpsc::Sender<Ended>) -> Groups {
        let (statements, heard) = mpsc::channel(limits::STATEMENTS_WAITING_MAX);
        let (missed, missing) = mpsc::channel(limits::MISSED_GROUPS_MAX);
        let inner = Inner {
            missed,
            missing: Mutex::new(Some(missing)),
            store,
            mesh: OnceLock::new(),
            timers,
            ended,
            openings: AtomicU64::new(1),
            open: RwLock::default(),
            elections: Elections::default(),
            parts: Parts::default(),
            statements,
            heard: Mutex::new(Some(heard)),
        };
        Groups { inner: Arc::new(inner) }
    }

    /// Watches the mesh for peers that go, and has their groups elect; until it is dropped. Once, after `set_mesh`.
    pub fn watch_peers(&self, node: u64) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mesh = self.inner.mesh.get().expect("set before the peers are watched").clone();
        let heard = self.inner.heard.lock().expect("nobody panics while holding it").take().expect("called once");
        evidence::run(self.clone(), mesh, node, heard)
    }

    /// Told of every group that a peer calls and that is not open here, perhaps many times. Once.
    pub fn missed(&self) -> mpsc::Receiver<u64> {
        self.inner.missing.lock().expect("nobody panics while holding it").take().expect("called once")
    }

    /// Told whenever a replica of this node becomes a leader.
    pub fn elected(&self) -> broadcast::Receiver<Elected> {
        self.inner.elections.news()
    }

    pub fn elections(&self) -> &ElectionsSeen {
        self.inner.elections.seen()
    }

    /// Groups and mesh know each other: this closes the circle, once, before any group is opened.
    pub fn set_mesh(&self, mesh: Mesh) {
        let _ = self.inner.mesh.set(mesh);
    }

    pub fn get(&self, id: u64) -> Option<Group> {
        self.inner.open.read().expect("nobody panics while holding it").get(&id).cloned()
    }

    pub fn all(&self) -> Vec<Group> {
        self.inner.open.read().expect("nobody panics while holding it").values().cloned().collect()
    }

    /// Opens a group whose state is `fold`. Opening twice is a mistake of the caller, who owns the decision.
    pub async fn open(&self, id: u64, node: u64, quiet_until: Option<u64>, fold: Arc<dyn Fold>) -> Result<Group, Failure> {
        let mesh = self.inner.mesh.get().expect("set before any group is opened");
        let (store, ended) = (self.inner.store.group(id), self.inner.ended.clone());
        let opening = self.inner.openings.fetch_add(1, Relaxed);
        let (timers, elections) = (self.inner.timers, self.inner.elections.clone());
        let group = Group::open(Open { id, opening, node, quiet_until, mesh, store, fold, timers, ended, elections }).await?;
        self.inner.open.write().expect("nobody panics while holding it").insert(id, group.clone());
        Ok(group)
    }

    /// Stops a group; its data stays.
    pub async fn close(&self, id: u64) {
        let group = self.inner.open.write().expect("nobody panics while holding it").remove(&id);
        if let Some(group) = group {
            group.close().await;
        }
    }

    /// Stops a group without writing anything more of it. When this returns it has stopped, whoever began that.
    pub async fn abandon(&self, id: u64) {
        let Some(group) = self.get(id) else { return };
        group.abandon().await;
        let mut open = self.inner.open.write().expect("nobody panics while holding it");
        if open.get(&id).is_some_and(|now| now.is(&group)) {
            open.remove(&id);
        }
    }

    /// Takes a consensus message of a peer. Called from the connection's read loop: must not block, and keeps the order of appends.
    pub fn handle(&self, from: Peer, method: u16, body: Bytes, reply: Reply) {
        if from.node == 0 {
            return reply.refuse(refusal::STRANGER, "join the cluster first");
        }
        let routed = match method {
            method::APPEND => self.append(body, reply),
            method::VOTE | method::PRE_VOTE => self.vote(method, body, reply),
            method::SNAPSHOT => self.install(body, reply),
            method::SNAPSHOT_PART => self.install_part(from, body, reply),
            method::TRANSFER_LEADER => self.transfer(body, reply),
            method::STATEMENT => self.hear(from, body, reply),
            method::REVERTED => self.reverted(from, body, reply),
            _ => Err((reply, refusal::MALFORMED, "no such method".into())),
        };
        if let Err((reply, code, why)) = routed {
            reply.refuse(code, &why);
        }
    }

    fn find<T>(&self, decoded: Result<(u64, T), crate::core::codec::Corrupt>) -> Result<(Group, T), (u16, String)> {
        let (id, value) = decoded.map_err(|error| (refusal::MALFORMED, error.to_string()))?;
        match self.get(id) {
            Some(group) => Ok((group, value)),
            None => {
                // Where too many wait, the peer calls again.
                let _ = self.inner.missed.try_send(id);
                Err((refusal::NO_GROUP, format!("group {id} is not open here")))
            }
        }
    }

    fn append(&self, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        let (group, request) = match self.find(encoding::decode_append(body)) {
            Ok(found) => found,
            Err((code, why)) => return Err((reply, code, why)),
        };
        if group.id() != CATALOG && !request.entries.is_empty() && !self.inner.store.space_now().takes(entry_bytes(&request)) {
            return Err((reply, refusal::NO_SPACE, "this node's disk is full".into()));
        }
        in_order(async move {
            match group.raft().append_entries(request).await {
                Ok(response) => reply.ok(encoding::encode_append_response(&response)),
                Err(error) => reply.refuse(refusal::FAILED, &error.to_string()),
            }
        });
        Ok(())
    }

    fn vote(&self, method: u16, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        let (group, request) = match self.find(encoding::decode_vote_request(body)) {
            Ok(found) => found,
            Err((code, why)) => return Err((reply, code, why)),
        };
        in_order(async move {
            let answer = match method {
                method::VOTE => group.raft().vote(request).await,
                _ => group.raft().pre_vote(request).await,
            };
            match answer {
                Ok(response) => reply.ok(encoding::encode_vote_response(&response)),
                Err(error) => reply.refuse(refusal::FAILED, &error.to_string()),
            }
        });
        Ok(())
    }

    fn install(&self, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        let decoded = encoding::decode_install(body).map(|(group, vote, meta, snapshot)| (group, (vote, Snapshot { meta, snapshot })));
        let (group, (vote, snapshot)) = match self.find(decoded) {
            Ok(found) => found,
            Err((code, why)) => return Err((reply, code, why)),
        };
        in_order(async move {
            match group.raft().install_full_snapshot(vote, snapshot).await {
                Ok(response) => reply.ok(encoding::encode_vote(&response.vote)),
                Err(error) => reply.refuse(refusal::FAILED, &error.to_string()),
            }
        });
        Ok(())
    }

    fn install_part(&self, from: Peer, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        // Not for a group that is not here: its parts would only lie about.
        let (_, part) = match self.find(Part::decode(body).map(|part| (part.group, part))) {
            Ok(found) => found,
            Err((code, why)) => return Err((reply, code, why)),
        };
        match self.inner.parts.take(from.node, &part) {
            Taken::More => reply.ok(Bytes::new()),
            Taken::Whole(whole) => return self.install(whole, reply),
            Taken::OutOfPlace => return Err((reply, refusal::FAILED, "it does not follow on the parts before".into())),
            Taken::Busy => return Err((reply, refusal::FAILED, "too many other snapshots are on their way".into())),
        }
        Ok(())
    }

    fn hear(&self, from: Peer, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        match Heard::decode(from, body) {
            Ok(heard) => {
                // Where too many wait, the next round says it again.
                let _ = self.inner.statements.try_send(heard);
                reply.ok(Bytes::new());
                Ok(())
            }
            Err(error) => Err((reply, refusal::MALFORMED, error.to_string())),
        }
    }

    /// A leader says that this replica lacks what it acknowledged. If that is so, nobody may count on its votes either.
    fn reverted(&self, from: Peer, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        let (group, reverted) = match self.find(Reverted::decode(body)) {
            Ok(found) => found,
            Err((code, why)) => return Err((reply, code, why)),
        };
        let store = self.inner.store.clone();
        in_order(async move {
            let state = group.raft().with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied())).await;
            if let Ok((vote, last)) = state
                && reverted.is_true_of(&vote, last)
            {
                let (upto, has) = (reverted.acknowledged.index(), last.map_or(0, |last| last.index()));
                let why =
                    format!("it was put back to an older state: node {} has its word for entry {upto}, and it ends at {has}", from.node);
                // A disk that cannot even note that ends the node by itself.
                drop(store.fence(group.id(), &why));
            }
            reply.ok(Bytes::new());
        });
        Ok(())
    }

    fn transfer(&self, body: Bytes, reply: Reply) -> Result<(), (Reply, u16, String)> {
        let (group, request) = match self.find(encoding::decode_transfer(body)) {
            Ok(found) => found,
            Err((code, why)) => return Err((reply, code, why)),
        };
        group.expect_transfer(&request);
        in_order(async move {
            match group.raft().handle_transfer_leader(request).await {
                Ok(Ok(())) => reply.ok(Bytes::new()),
                Ok(Err(refused)) => reply.refuse(refusal::FAILED, &refused.to_string()),
                Err(error) => reply.refuse(refusal::FAILED, &error.to_string()),
            }
        });
        Ok(())
    }
}

fn entry_bytes(request: &AppendRequest) -> usize {
    let bytes = |entry: &Entry| if let EntryPayload::Normal(command) = &entry.payload { command.0.len() } else { 0 };
    request.entries.iter().map(bytes).sum()
}

/// Runs a message's future on a task of its own, after polling it once here: the first poll puts the message into the group's queue,
/// so that messages enter the group in the order in which they arrived.
fn in_order(future: impl Future<Output = ()> + Send + 'static) {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(futures_util::task::noop_waker_ref());
    if future.as_mut().poll(&mut context).is_pending() {
        tokio::spawn(future);
    }
}
