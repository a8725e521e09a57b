//! What is offered: publish, read, follow, streams, cluster. No HTTP, no JSON: values in, values out.

mod error;
mod types;

pub use error::{Error, Result};
pub use types::*;

use crate::core::{NodeName, SettingsPatch, StreamName, SubjectFilter};
use std::{future::Future, sync::Arc};
use tokio::sync::watch;

/// One running node; a cheap handle.
#[derive(Clone)]
pub struct Node {}

impl Node {
    pub fn name(&self) -> NodeName { todo!("node") }
    pub fn version(&self) -> &'static str { env!("CARGO_PKG_VERSION") }

    // Publishing.
    /// Publishes and waits for the outcome. Creates the stream where `auto_create_streams` is on.
    pub async fn publish(&self, stream: &StreamName, publish: Publish) -> Result<Published> { todo!("node") }
    /// The first half of `publish`, for pipelining: when this returns, the request has its place in the order of this node's
    /// requests to the stream; the future gives the outcome. Waits only for room.
    pub async fn submit(&self, stream: &StreamName, publish: Publish) -> Result<impl Future<Output = Result<Published>> + Send + 'static + use<>> {
        Ok(async { todo!("node") })
    }

    // Reading.
    pub async fn get_event(&self, stream: &StreamName, seq: u64) -> Result<Arc<Delivery>> { todo!("node") }
    /// A reader with a cursor of its own.
    pub async fn reader(&self, stream: &StreamName, from: From, filter: Option<SubjectFilter>) -> Result<Reader> { todo!("node") }

    // Streams.
    pub async fn put_stream(&self, stream: &StreamName, patch: SettingsPatch) -> Result<(Put, StreamInfo)> { todo!("node") }
    /// In order of name, those after `after`, at most `limit`.
    pub async fn list_streams(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<StreamSummary>> { todo!("node") }
    pub async fn stream_info(&self, stream: &StreamName) -> Result<StreamInfo> { todo!("node") }
    pub async fn delete_stream(&self, stream: &StreamName) -> Result<()> { todo!("node") }
    pub async fn purge(&self, stream: &StreamName, purge: Purge) -> Result<Purged> { todo!("node") }
    /// `None`: whichever other replica is furthest. Gives the new leader.
    pub async fn move_leader(&self, stream: &StreamName, to: Option<NodeName>) -> Result<NodeName> { todo!("node") }

    // Cluster and operation.
    pub async fn cluster(&self) -> Result<ClusterInfo> { todo!("node") }
    pub async fn drain(&self, node: &NodeName) -> Result<()> { todo!("node") }
    pub async fn remove(&self, node: &NodeName) -> Result<()> { todo!("node") }
    pub fn readiness(&self) -> Readiness { todo!("node") }
    /// Changes whenever a node comes, goes or changes its address or reachability.
    pub fn nodes(&self) -> watch::Receiver<Arc<Vec<NodeInfo>>> { todo!("node") }
    /// Becomes true when this node drains or stops: long-lived connections then say goodbye.
    pub fn leaving(&self) -> watch::Receiver<bool> { todo!("node") }
    /// Prometheus text.
    pub fn metrics_text(&self) -> String { todo!("node") }
}

/// A cursor over one stream. Never holds anything of the log between two steps.
pub struct Reader {}

impl Reader {
    /// The first seq that the next step may bring.
    pub fn cursor(&self) -> u64 { todo!("node") }
    /// The next items in order: at the tail shared with every other reader, further back read from the log. Empty only after
    /// `take.wait`. Cancel safe: a dropped call has not moved the cursor.
    pub async fn next(&mut self, take: Take) -> Result<Chunk> { todo!("node") }
}
