//! What a node is started with.

use crate::cluster::{Timers, mesh::Secret};
use crate::core::NodeName;
use crate::store;
use std::path::PathBuf;

/// How a node finds its place; a node that has one goes back to it whatever is said here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Founds a cluster.
    Bootstrap,
    /// Asks one of these (`host:port` of their peer listeners) to be let in.
    Join(Vec<String>),
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
    pub peer_listener: tokio::net::TcpListener,
    /// Where peers reach this node, `host:port`.
    pub peer_advertise: String,
    pub secret: Secret,
    pub start: Start,
    /// Whether the first publish to an unknown stream creates it.
    pub auto_create_streams: bool,
    pub timers: Timers,
    /// The newest version of the peer protocol to speak, to pass for an older build; `None`: the newest that this build knows.
    pub peer_protocol_max: Option<u16>,
    pub store: store::Options,
}
