//! What is offered: publish, read, follow, streams, cluster. No HTTP, no JSON: values in, values out.
//!
//! A publish: [`publish`] admits it → the stream's `forwarder` gives it its place and sends it to whoever leads → the leader's
//! `proposer` makes an entry of everything that waits → consensus → the `replica` folds it → the outcome goes back the way it came.
//! A read: [`read`] takes the tail that the `replica` shares, or a bounded `step` of the log (`scan`); where no replica is here, it asks one.
//! `sleep` closes the replicas of streams to which nothing happens, and opens them when somebody needs them.
//! `lifecycle` starts, `leaving` stops, `moving` hands leaderships over, `failures` tells what ends a node against its will, `placing` opens
//! and closes replicas as the catalog says, `upkeep` does what leaders owe their streams, `rebuild` makes damaged replicas anew, `lost` tells
//! where that cannot be, `door` takes what peers ask, `disk` knows whose disk is nearly full, `verify` compares replicas.
//! This room may touch `core`, `store` (to open it) and `cluster`.

mod catalog;
mod clock;
mod config;
mod directory;
mod disk;
mod door;
mod error;
mod failures;
mod figures;
mod forwarder;
mod identity;
mod leaving;
mod lifecycle;
mod lost;
mod membership;
mod metrics;
mod moving;
mod operate;
mod placing;
mod proposer;
mod publish;
mod purge;
mod read;
mod rebuild;
mod remote;
mod replica;
mod scan;
mod seat;
mod sleep;
mod step;
mod stream;
mod streams;
mod types;
mod upkeep;
mod verify;

#[cfg(test)]
mod tests;

pub use crate::cluster::{
    Timers,
    mesh::{Accept, Dial, Listener, Network, ReadHalf, Secret, Stream as Connection, WriteHalf},
};
pub use crate::core::catalog::NodeState;
pub use crate::store::{Level as DiskLevel, Options as StoreOptions};
pub use clock::Clock;
pub use config::{Config, Start, World};
pub use error::{Error, Result};
pub use lifecycle::StartError;
pub use read::Reader;
pub use types::*;
pub use verify::{Agreement, ReplicaCheck, Reread, Verification};

use crate::cluster::{Failure, Groups, mesh::Mesh};
use crate::core::NodeName;
use crate::store::Store;
use directory::Directory;
use identity::Identity;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use stream::Stream;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// One running node; a cheap handle.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// What the verbs share.
struct Inner {
    id: u64,
    boot: u64,
    name: NodeName,
    cluster: u128,
    url: String,
    peer: String,
    auto_create_streams: bool,
    sleep_after: Option<Duration>,
    clock: Clock,
    store: Store,
    mesh: Mesh,
    groups: Groups,
    catalog: seat::Seat,
    directory: Arc<Directory>,
    disk: Arc<disk::Disk>,
    identity: Mutex<Identity>,
    /// By group id.
    streams: RwLock<HashMap<u64, Arc<Stream>>>,
    /// Groups that live elsewhere and do not count this node any more, as their leaders said when they were closed here.
    left: Mutex<BTreeSet<u64>>,
    /// Bytes that may still wait for an outcome.
    room: Arc<Semaphore>,
    /// Consensus, mesh and everything that must not wait behind HTTP.
    runtime: tokio::runtime::Handle,
    /// Ends with the node.
    #[allow(dead_code, reason = "held, not used")]
    own_runtime: Mutex<Option<lifecycle::OwnRuntime>>,
    /// Every task of the node's own; joined at the stop.
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Whether this node leaves, for now or, once it departs, for good.
    leaving: watch::Sender<bool>,
    departs: AtomicBool,
    /// Peers that said that they leave, and in which of their boots.
    leavers: watch::Sender<BTreeMap<u64, u64>>,
    nodes: watch::Sender<Arc<Vec<NodeInfo>>>,
    failed: watch::Sender<Option<Failure>>,
    metrics: metrics::Metrics,
    rebuilds: rebuild::Rebuilds,
    /// What the nodes last said of their damaged and rebuilding replicas.
    health: Mutex<BTreeMap<u64, (u64, u64)>>,
}

impl Node {
    pub fn name(&self) -> NodeName {
        self.inner.name.clone()
    }

    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
