//! A node's start: its identity, its place in the cluster, its tasks. `leaving` has its end, `failures` what ends it against its will.

use super::catalog::CATALOG_WAIT;
use super::config::{Config, Start, World};
use super::directory::Directory;
use super::door::Door;
use super::identity::{Identity, Join, Joined};
use super::remote::{method, refusal};
use super::{Inner, Node, disk, failures, membership, placing, rebuild, seat::Seat, sleep, upkeep};
use crate::cluster::mesh::{self, CallError, Mesh, PeerState};
use crate::cluster::{Cause, Elected, Group, Groups};
use crate::core::NodeName;
use crate::core::catalog::{Command, NodeRecord, NodeState};
use crate::core::limits;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, broadcast::error::RecvError, mpsc, watch};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The catalog's group.
pub(super) const CATALOG: u64 = 0;
/// The node that founds the cluster.
const FOUNDER: u64 = 1;
/// Pause between two rounds of asking to be let in.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// Why a node did not start, for the person who started it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

fn failed(what: &str) -> impl FnOnce(String) -> StartError + '_ {
    move |why| StartError(format!("{what}: {why}"))
}

/// The runtime of consensus and mesh; it may be dropped anywhere.
pub(super) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> Result<OwnRuntime, StartError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
        let runtime = builder.worker_threads(threads).thread_name("consensus").enable_all().build();
        runtime.map(|runtime| OwnRuntime(Some(runtime))).map_err(|error| StartError(format!("no runtime: {error}")))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("there until it is dropped").handle().clone()
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    /// Starts the node and returns once it has its place in a cluster; `readiness` tells when it can serve.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let runtime = if config.world.one_runtime { None } else { Some(OwnRuntime::new()?) };
        let handle = runtime.as_ref().map_or_else(tokio::runtime::Handle::current, OwnRuntime::handle);
        let started = handle.spawn(begin(config, runtime));
        started.await.map_err(|error| StartError(format!("the start was interrupted: {error}")))?
    }

    /// Begins to leave: hands every leadership over, then tells the clients to go elsewhere. What comes in is still served. Bounded in
    /// time; `stop` does it where it was not done.
    pub async fn leave(&self) {
        let node = self.inner.clone();
        let leaving = node.runtime.clone().spawn(async move { node.leave().await });
        if let Err(error) = leaving.await {
            tracing::error!(%error, "the handing over was interrupted");
        }
    }

    /// Leaves, finishes what came in, stops and joins everything. Bounded in time.
    pub async fn stop(&self) {
        let node = self.inner.clone();
        let stopping = node.runtime.clone().spawn(async move { node.end().await });
        if let Err(error) = stopping.await {
            tracing::error!(%error, "the stop was interrupted");
        }
    }

    /// Resolves with the reason when a fault of this node means that its process has to end.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static + use<> {
        let mut failed = self.inner.failed.subscribe();
        async move {
            let why = failed.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone()).map(|failure| failure.why);
            match why {
                Some(why) => why,
                None => std::future::pending().await,
            }
        }
    }
}

async fn begin(config: Config, runtime: Option<OwnRuntime>) -> Result<Node, StartError> {
    let World { clock, network, store, files: _, one_runtime: _ } = config.world.clone();
    let store = match store {
        Some(store) => store,
        None => open_store(&config).await?,
    };
    let mut identity = wake(&store, &config).await?;

    let (tell_ended, ended) = mpsc::channel(16);
    let groups = Groups::new(store.clone(), config.timers, tell_ended);
    let door = Arc::new(Door::new(groups.clone()));
    let listener = config.peer_listener.here().map_err(|error| StartError(format!("the peer listener cannot be used: {error}")))?;
    let mut options = mesh::Options { network, ..mesh::Options::new(config.secret.clone()) };
    options.protocol_max = config.peer_protocol_max.unwrap_or(options.protocol_max);
    let mesh = Mesh::start(listener, mesh_identity(&identity), options, door.clone());
    groups.set_mesh(mesh.clone());

    if identity.node == 0 {
        let place = match &config.start {
            Start::Bootstrap => Joined { cluster: random(), node: FOUNDER, peers: BTreeMap::new() },
            Start::Join(seeds) => join(&mesh, seeds, introduction(&identity, &config.url, &config.peer_advertise, None)).await?,
            Start::Replace { seeds, node } => {
                join(&mesh, seeds, introduction(&identity, &config.url, &config.peer_advertise, Some(node.clone()))).await?
            }
            Start::Resume => return Err(StartError("this data directory belongs to no cluster yet: bootstrap or join one".into())),
        };
        identity = Identity { cluster: place.cluster, node: place.node, peers: place.peers, ..identity };
        save(&store, &identity).await?;
        mesh.set_identity(mesh_identity(&identity));
    }
    mesh.set_peers(identity.peers.clone());

    let directory = Arc::new(Directory::default());
    let disk = Arc::new(disk::Disk::new(identity.node, store.space_now().level));
    let catalog = open_catalog(&store, &groups, &identity, &directory).await?;
    let founding = has_to_found(&identity, catalog.as_ref(), &directory).await;
    let inner = Arc::new(Inner {
        id: identity.node,
        boot: identity.boot,
        name: identity.name.clone(),
        cluster: identity.cluster,
        url: config.url,
        peer: config.peer_advertise,
        auto_create_streams: config.auto_create_streams,
        sleep_after: config.sleep_after,
        clock,
        store,
        mesh,
        groups,
        catalog: Seat::new(catalog),
        directory,
        disk,
        identity: Mutex::new(identity),
        streams: RwLock::new(HashMap::new()),
        left: Default::default(),
        room: Arc::new(Semaphore::new(limits::PENDING_BYTES_MAX)),
        runtime: tokio::runtime::Handle::current(),
        own_runtime: Mutex::new(runtime),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        leaving: watch::Sender::new(false),
        departs: AtomicBool::new(false),
        leavers: watch::Sender::default(),
        nodes: watch::Sender::default(),
        failed: watch::Sender::new(None),
        metrics: Default::default(),
        rebuilds: Default::default(),
        health: Default::default(),
    });
    if founding {
        found(&inner).await?;
    }
    // After the founder is in the catalog: who joined before it would get its number.
    door.open(&inner);
    inner.tasks.spawn_on(failures::watch(inner.clone(), ended), &inner.runtime);
    inner.tasks.spawn_on(rebuild::run(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(rebuild::note_new_groups(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(follow_nodes(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(placing::run(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(upkeep::run(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(sleep::run(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(disk::run(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(introduce(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(tell_leaders(inner.clone()), &inner.runtime);
    inner.tasks.spawn_on(membership::watch(inner.clone()), &inner.runtime);
    let (watching, stop) = (inner.groups.watch_peers(inner.id), inner.stop.clone());
    inner.tasks.spawn_on(async move { stop.run_until_cancelled(watching).await }, &inner.runtime);
    Ok(Node { inner })
}

/// The catalog's replica; none where it is damaged: then it is made anew once the node runs.
async fn open_catalog(
    store: &Store,
    groups: &Groups,
    identity: &Identity,
    directory: &Arc<Directory>,
) -> Result<Option<Group>, StartError> {
    let is_fenced = || store.fences().borrow().of(CATALOG).is_some();
    if is_fenced() {
        return Ok(None);
    }
    let quiet_until = identity.anew.get(&CATALOG).copied().flatten();
    match groups.open(CATALOG, identity.node, quiet_until, directory.clone()).await {
        Ok(group) => Ok(Some(group)),
        Err(_) if is_fenced() => Ok(None),
        Err(failure) => Err(StartError(format!("the catalog cannot be opened: {}", failure.why))),
    }
}

async fn open_store(config: &Config) -> Result<Store, StartError> {
    let (data, options, files) = (config.data.clone(), config.store.clone(), config.world.files.clone());
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        let opened = match files {
            Some(files) => Store::open(files, options),
            None => Store::open_dir(&data, options),
        };
        opened.map_err(|error| error.to_string())
    });
    let opened = opened.await.map_err(|error| StartError(error.to_string()))?;
    opened.map_err(failed(&format!("the data directory {} cannot be opened", config.data.display())))
}

/// The identity that the data directory remembers, or a new one without a place; counts the start.
async fn wake(store: &Store, config: &Config) -> Result<Identity, StartError> {
    let mut identity = match store.identity() {
        Some(bytes) => Identity::decode(bytes).map_err(|error| StartError(error.to_string()))?,
        None => {
            let name = config.name.clone().unwrap_or_else(|| default_name(&config.start));
            Identity { cluster: 0, node: 0, boot: 0, name, token: random(), peers: BTreeMap::new(), anew: BTreeMap::new() }
        }
    };
    if let Some(name) = &config.name
        && *name != identity.name
    {
        if identity.node != 0 {
            return Err(StartError(format!("this data directory belongs to node {}, not {name}", identity.name)));
        }
        identity.name = name.clone();
    }
    // The time in it keeps it above every start before, even one that a data directory put back to an older state forgot: streams know
    // this node's requests by it, and would take new ones for repetitions of old.
    identity.boot = (identity.boot + 1).max((config.world.clock.now().0 / 1_000).unsigned_abs());
    save(store, &identity).await?;
    Ok(identity)
}

/// `n1` for a founder; for a joiner one that no other node of the cluster has.
fn default_name(start: &Start) -> NodeName {
    let name = if *start == Start::Bootstrap { "n1".to_owned() } else { format!("n-{:08x}", random() as u32) };
    NodeName::new(&name).expect("it is made of letters, digits and a hyphen")
}

async fn save(store: &Store, identity: &Identity) -> Result<(), StartError> {
    let saved = store.save_identity(identity.encode()).map_err(|error| StartError(error.to_string()))?;
    saved.await.map_err(|error| StartError(error.to_string()))
}

fn mesh_identity(identity: &Identity) -> mesh::Identity {
    let version = env!("CARGO_PKG_VERSION").into();
    mesh::Identity { cluster: identity.cluster, node: identity.node, boot: identity.boot, version }
}

/// A number that nobody else draws.
fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    u128::from_le_bytes(bytes).max(1)
}

/// How a node that has no place yet asks for one.
fn introduction(identity: &Identity, url: &str, peer: &str, replace: Option<NodeName>) -> Join {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Join { token: identity.token, name: identity.name.clone(), url: url.into(), peer: peer.into(), version, replace }
}

/// Asks the seeds in turn until one of them lets this node in; a refusal that will not change ends it.
async fn join(mesh: &Mesh, seeds: &[String], ask: Join) -> Result<Joined, StartError> {
    let ask = ask.encode();
    let mut said = String::new();
    loop {
        for seed in seeds {
            let error = match mesh.call_address(seed, method::JOIN, ask.clone(), Instant::now() + CATALOG_WAIT).await {
                Ok(answer) => return Joined::decode(answer).map_err(|error| StartError(error.to_string())),
                Err(error) => error,
            };
            match &error {
                CallError::Refused { code: refusal::REJECTED, message } => {
                    return Err(StartError(format!("{seed} refused the join: {message}")));
                }
                CallError::NotSent(mesh::NotSent::Unreachable(why)) if why.is_final() => {
                    return Err(StartError(format!("{seed} refused the join: {why}")));
                }
                error => {
                    let now = format!("{seed}: {error}");
                    if now != said {
                        tracing::warn!("cannot join yet, trying on: {now}");
                        said = now;
                    }
                }
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

/// Whether this node is the founder and its cluster is not made yet: now, or because its process ended before it was at an earlier start.
///
/// - Whoever knows peers, or has made its catalog anew from others, has founded.
/// - A catalog that was lost is fenced, so it is not taken for one that never was.
/// - What was done already may be done again: the catalog remembers its cluster, and the node by its token.
async fn has_to_found(identity: &Identity, catalog: Option<&Group>, directory: &Directory) -> bool {
    let alone = identity.node == FOUNDER && identity.peers.is_empty() && !identity.anew.contains_key(&CATALOG);
    match catalog {
        Some(catalog) if alone && directory.node(FOUNDER).is_none() => {
            !catalog.is_initialized().await || catalog.voters() == BTreeSet::from([FOUNDER])
        }
        _ => false,
    }
}

/// Makes the first node's cluster.
async fn found(node: &Arc<Inner>) -> Result<(), StartError> {
    let catalog = node.catalog.get().ok_or_else(|| StartError("the cluster cannot be founded: the catalog is damaged".into()))?;
    catalog.initialize(&[node.id]).await.map_err(failed("the cluster cannot be founded"))?;
    let add = Command::AddNode {
        token: node.identity.lock().expect("nobody panics while holding it").token,
        name: node.name.clone(),
        url: node.url.clone(),
        peer: node.peer.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    for command in [Command::Found { cluster: node.cluster }, add] {
        node.change_catalog(&command).await.map_err(|error| StartError(format!("the cluster cannot be founded: {error}")))?;
    }
    Ok(())
}

/// Keeps the mesh and the identity up to date with the catalog's nodes, and announces every change of them.
async fn follow_nodes(node: Arc<Inner>) {
    let mut changes = node.directory.changes();
    let mut peers = node.mesh.peers();
    let mut disks = node.disk.changes();
    let mut reachable: Option<BTreeSet<u64>> = None;
    loop {
        changes.borrow_and_update();
        peers.borrow_and_update();
        disks.borrow_and_update();
        let members = node.directory.members();
        if !members.is_empty() {
            remember_peers(&node, &members).await;
        }
        let alive = node.alive();
        if let Some(before) = reachable.replace(alive.clone()) {
            tell_reachability(&node, &before, &alive);
        }
        let picture = Arc::new(node.picture());
        node.nodes.send_if_modified(|old| {
            let essence = |nodes: &[super::NodeInfo]| -> Vec<_> {
                nodes.iter().map(|node| (node.id, node.name.clone(), node.url.clone(), node.state, node.reachable, node.disk)).collect()
            };
            let changed = essence(old) != essence(&picture);
            *old = picture;
            changed
        });
        let failed = node.failed.borrow().is_some();
        let drained = failed || node.directory.node(node.id).is_some_and(|me| me.state != NodeState::Active);
        node.tell_leaving(drained);
        tokio::select! {
            _ = node.stop.cancelled() => return,
            _ = changes.changed() => (),
            _ = peers.changed() => (),
            _ = disks.changed() => (),
        }
    }
}

async fn remember_peers(node: &Inner, members: &[NodeRecord]) {
    let peers: BTreeMap<u64, String> =
        members.iter().filter(|member| member.id != node.id).map(|member| (member.id, member.peer.clone())).collect();
    if node.identity.lock().expect("nobody panics while holding it").peers == peers {
        return;
    }
    node.mesh.set_peers(peers.clone());
    if let Err(error) = node.change_identity(|identity| identity.peers = peers).await {
        tracing::warn!(%error, "the peers' addresses could not be remembered");
    }
}

fn tell_reachability(node: &Inner, before: &BTreeSet<u64>, now: &BTreeSet<u64>) {
    for id in now.difference(before) {
        tracing::info!(target: "evermesh::events", "{} is up", node.node_name(*id));
    }
    let states = node.mesh.peers().borrow().clone();
    for id in before.difference(now) {
        let why = match states.get(id) {
            Some(PeerState::Down { reason, .. }) => format!(": {reason}"),
            _ => String::new(),
        };
        tracing::warn!(target: "evermesh::events", "{} is down{why}", node.node_name(*id));
    }
}

/// Tells the catalog this node's addresses and version, and that it is back, when they are not what the catalog has.
async fn introduce(node: Arc<Inner>) {
    let mut changes = node.directory.changes();
    loop {
        let known = match node.directory.node(node.id) {
            Some(known) => known,
            None => tokio::select! {
                _ = node.stop.cancelled() => return,
                _ = changes.changed() => continue,
            },
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (url, peer) = (node.url.clone(), node.peer.clone());
        let mut news = Vec::new();
        if (&known.url, &known.peer, &known.version) != (&url, &peer, &version) {
            news.push(Command::UpdateNode { id: node.id, url, peer, version });
        }
        if known.state == NodeState::Draining {
            news.push(Command::SetNodeState { id: node.id, state: NodeState::Active });
        }
        let mut told = true;
        for command in news {
            told &= node.change_catalog(&command).await.is_ok();
        }
        if told || node.stop.is_cancelled() {
            return;
        }
    }
}

/// Logs the changes of leadership that this node sees first hand: when it becomes a leader.
async fn tell_leaders(node: Arc<Inner>) {
    let mut elected = node.groups.elected();
    loop {
        let news = tokio::select! {
            _ = node.stop.cancelled() => return,
            news = elected.recv() => news,
        };
        let Elected { group, term, cause, took } = match news {
            Ok(news) => news,
            Err(RecvError::Lagged(missed)) => {
                tracing::info!(target: "evermesh::events", "{} leads {missed} more streams", node.name);
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let Some(stream) = node.stream_of_group(group) else { continue };
        let why = match (cause, took) {
            (Cause::Evidence, Some(took)) => format!(", {} ms after the leader before was seen gone", took.as_millis()),
            (Cause::Evidence, None) => ", as the leader before is gone".into(),
            (Cause::Transfer, _) => ", handed over".into(),
            // Nobody needs to know that it slept.
            (Cause::Opened, _) => continue,
            (Cause::Timer, _) => String::new(),
        };
        tracing::info!(target: "evermesh::events", "{} leads {} (term {term}{why})", node.name, stream.name);
    }
}

impl Inner {
    /// Changes what the data directory remembers of this node; durable when it returns. Changes reach the disk in their order.
    pub async fn change_identity(&self, change: impl FnOnce(&mut Identity)) -> Result<(), crate::store::Error> {
        let saved = {
            let mut identity = self.identity.lock().expect("nobody panics while holding it");
            change(&mut identity);
            self.store.save_identity(identity.encode())
        };
        saved?.await
    }
}
