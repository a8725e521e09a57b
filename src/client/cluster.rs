//! The cluster: its nodes, their health, and letting one go.

use super::{Client, call::Call, error::Result};
use crate::core::NodeName;
use crate::wire::Cluster;
use reqwest::Method;
use std::time::Duration;

/// For the question whether a node is ready; it is asked again anyway.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

impl Client {
    pub async fn cluster(&self) -> Result<Cluster> {
        self.call(&Call::get(&["v1", "cluster"])).await?.parse()
    }

    /// Asks for the cluster's nodes and remembers them, so that the given servers may all go away.
    pub async fn discover(&self) -> Result<()> {
        let cluster = self.cluster().await?;
        self.learn(cluster.nodes.into_iter().map(|node| node.url));
        Ok(())
    }

    pub async fn drain(&self, node: &str) -> Result<()> {
        self.call(&Call::new(Method::POST, &["v1", "cluster", "nodes", NodeName::new(node)?.as_str(), "drain"])).await.map(drop)
    }

    pub async fn remove(&self, node: &str) -> Result<()> {
        self.call(&Call::new(Method::DELETE, &["v1", "cluster", "nodes", NodeName::new(node)?.as_str()])).await.map(drop)
    }

    /// Whether the server that is asked first is ready, now.
    pub async fn is_ready(&self) -> bool {
        let server = self.servers().preferred();
        self.attempt(&server, &Call::get(&["readyz"]), READY_TIMEOUT).await.is_ok()
    }
}
