//! The cluster: its nodes, draining one, removing one.

use super::{
    body::answer,
    error::Result,
    extract::{NamedNode, Ready},
    openapi::{ClusterProblems, NodePath, NodeProblems},
    query::Query,
};
use crate::{node, wire};
use axum::{http::StatusCode, response::IntoResponse};

/// Show the cluster
///
/// Every node as this one knows it, with the streams that it leads and holds, and the leader of the catalog.
#[utoipa::path(
    get, path = "/v1/cluster", operation_id = "getCluster", tag = "cluster",
    responses((status = 200, description = "The cluster as this node sees it", body = wire::Cluster), ClusterProblems),
)]
pub async fn get_cluster(query: Query, Ready(node): Ready) -> Result {
    query.end()?;
    let cluster = node.cluster().await?;
    Ok(answer(&wire::Cluster {
        cluster: cluster.cluster,
        node: cluster.node.to_string(),
        catalog_leader: cluster.catalog_leader.map(|leader| leader.to_string()),
        nodes: cluster.nodes.iter().map(shape).collect(),
    }))
}

/// Drain a node
///
/// Its streams move to other nodes, its clients are told to reconnect elsewhere. The answer comes when the cluster has taken the
/// decision; `GET /v1/cluster` shows how far it is.
#[utoipa::path(
    post, path = "/v1/cluster/nodes/{name}/drain", operation_id = "drainNode", tag = "cluster", params(NodePath),
    responses((status = 204, description = "The node drains"), NodeProblems),
)]
pub async fn drain_node(NamedNode(name): NamedNode, query: Query, Ready(node): Ready) -> Result {
    query.end()?;
    node.drain(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Remove a node
///
/// For a node that is drained, or gone for good: its id is never used again.
#[utoipa::path(
    delete, path = "/v1/cluster/nodes/{name}", operation_id = "removeNode", tag = "cluster", params(NodePath),
    responses((status = 204, description = "Removed"), NodeProblems),
)]
pub async fn remove_node(NamedNode(name): NamedNode, query: Query, Ready(node): Ready) -> Result {
    query.end()?;
    node.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub fn shape(node: &node::NodeInfo) -> wire::Node {
    wire::Node {
        id: node.id,
        name: node.name.to_string(),
        url: node.url.clone(),
        state: node.state.into(),
        version: node.version.clone(),
        reachable: node.reachable,
        streams_led: node.streams_led,
        streams_held: node.streams_held,
        replicas_damaged: node.replicas_damaged,
        replicas_rebuilding: node.replicas_rebuilding,
        replicas_behind: node.replicas_behind,
        disk: match node.disk {
            node::DiskLevel::Enough => wire::Disk::Ok,
            node::DiskLevel::Short => wire::Disk::Short,
            node::DiskLevel::Full => wire::Disk::Full,
        },
    }
}
