//! The cluster and its nodes, as `GET /v1/cluster` and the WebSocket's `nodes` push show them.

use crate::core::catalog;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cluster as the answering node sees it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Cluster {
    /// The cluster's id.
    #[schema(pattern = "^[0-9a-f]{32}$", examples("0123456789abcdef0123456789abcdef"))]
    pub cluster: String,
    /// The node that answers.
    #[schema(examples("n1"))]
    pub node: String,
    /// The node that leads the catalog; `null` while none does.
    #[schema(required = true, examples("n1"))]
    pub catalog_leader: Option<String>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Node {
    /// Given once by the cluster and never used again.
    #[schema(minimum = 1)]
    pub id: u64,
    #[schema(examples("n1"))]
    pub name: String,
    /// Where clients reach it.
    #[schema(examples("http://127.0.0.1:4701"))]
    pub url: String,
    pub state: NodeState,
    #[schema(examples("0.1.0"))]
    pub version: String,
    /// Whether the answering node can reach it.
    pub reachable: bool,
    #[schema(minimum = 0, examples(4))]
    pub streams_led: u64,
    #[schema(minimum = 0, examples(12))]
    pub streams_held: u64,
    /// Its replicas whose data is damaged and that cannot be rebuilt at present.
    #[serde(default)]
    #[schema(minimum = 0, examples(0))]
    pub replicas_damaged: u64,
    /// Its damaged replicas that are being made anew from the others.
    #[serde(default)]
    #[schema(minimum = 0, examples(0))]
    pub replicas_rebuilding: u64,
    /// Its replicas that are behind in the streams that the answering node leads: the sum over all nodes' answers is all of them.
    #[serde(default)]
    #[schema(minimum = 0, examples(0))]
    pub replicas_behind: u64,
    /// How much room its disk has, as the answering node last heard.
    #[serde(default)]
    pub disk: Disk,
}

/// `short`: less than the reserve is free, so it leads nothing and takes no publishes itself. `full`: it takes no new entries at all.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Disk {
    #[default]
    Ok,
    Short,
    Full,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Active,
    Draining,
    Removed,
}

impl From<catalog::NodeState> for NodeState {
    fn from(state: catalog::NodeState) -> NodeState {
        match state {
            catalog::NodeState::Active => NodeState::Active,
            catalog::NodeState::Draining => NodeState::Draining,
            catalog::NodeState::Removed => NodeState::Removed,
        }
    }
}
