//! What a node is started with.

use super::Clock;
use crate::cluster::Timers;
use crate::cluster::mesh::{Listener, Network, Secret};
use crate::core::NodeName;
use crate::store;
use std::path::PathBuf;
use std::sync::Arc;

/// How a node finds its place; a node that has one goes back to it whatever is said here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Founds a cluster.
    Bootstrap,
    /// Asks one of these (`host:port` of their peer listeners) to be let in.
    Join(Vec<String>),
    /// The same, in the place of a node that is gone for good; its replicas are made anew here.
    Replace { seeds: Vec<String>, node: NodeName },
    /// Must have a place already.
    Resume,
}

pub struct Config {
    /// The data directory; made if it is not there.
    pub data: PathBuf,
    /// Needed at the first start; later it must be the same or left out.
    pub name: Option<NodeName>,
    /// Where clients reach this node, `http://host:port`.
    pub url: String,
    pub peer_listener: Listener,
    /// Where peers reach this node, `host:port`.
    pub peer_advertise: String,
    pub secret: Secret,
    pub start: Start,
    /// Whether the first publish to an unknown stream creates it.
    pub auto_create_streams: bool,
    pub timers: Timers,
    /// How long nothing happens to a stream before its replicas are closed until somebody needs them; `None`: they stay open.
    pub sleep_after: Option<std::time::Duration>,
    /// The newest version of the peer protocol to speak, to pass for an older build; `None`: the newest that this build knows.
    pub peer_protocol_max: Option<u16>,
    pub store: store::Options,
    pub world: World,
}

/// What a node stands on. The default is the machine; the simulation puts its own in place.
#[derive(Clone, Default)]
pub struct World {
    pub clock: Clock,
    pub network: Network,
    /// What stands between the store and the files in `Config::data`.
    pub files: Option<Arc<dyn store::Files>>,
    /// An open store, instead of the one in `Config::data`; closing it is cheap, so it is done in place.
    pub store: Option<store::Store>,
    /// Everything runs where the node is started, and not on threads of its own.
    pub one_runtime: bool,
}
