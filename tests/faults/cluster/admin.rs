//! What the harness asks of nodes as an operator would: over HTTP, one node at a time, with short deadlines.

use super::Result;
use evermesh::wire::{Cluster, Stream};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(1500);

#[derive(Clone)]
pub struct Admin(Client);

impl Admin {
    pub fn new() -> Admin {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(2).connect_timeout(Duration::from_secs(1)).build();
        Admin(client.expect("the options are constants"))
    }

    pub async fn call(&self, method: Method, url: &str, body: Option<Value>, deadline: Duration) -> Result<(u16, Value)> {
        let mut request = self.0.request(method, url).timeout(deadline);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| format!("{url}: {error:?}"))?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.map_err(|error| format!("{url}: {error:?}"))?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn expect(&self, method: Method, url: &str, body: Option<Value>) -> Result<Value> {
        let (status, value) = self.call(method, url, body, DEADLINE).await?;
        match status < 300 {
            true => Ok(value),
            false => Err(format!("{url}: {status} {value}")),
        }
    }

    pub async fn is_ready(&self, node: &str) -> bool {
        self.call(Method::GET, &format!("{node}/readyz"), None, LOOK).await.is_ok_and(|(status, _)| status == 200)
    }

    pub async fn ready(&self, node: &str, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        while !self.is_ready(node).await {
            if began.elapsed() > patience {
                return Err(format!("{node} was not ready within {} s", patience.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed())
    }

    /// The series of a node's metrics by name and labels.
    pub async fn metrics(&self, node: &str) -> Result<BTreeMap<String, f64>> {
        let url = format!("{node}/metrics");
        let answer = self.0.get(&url).timeout(LOOK).send().await.map_err(|error| format!("{url}: {error:?}"))?;
        let text = answer.text().await.map_err(|error| format!("{url}: {error:?}"))?;
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Ok(series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    pub async fn create(&self, node: &str, stream: &str, settings: Value) -> Result<()> {
        self.expect(Method::PUT, &format!("{node}/v1/streams/{stream}"), Some(settings)).await.map(drop)
    }

    pub async fn delete(&self, node: &str, stream: &str) -> Result<()> {
        self.expect(Method::DELETE, &format!("{node}/v1/streams/{stream}"), None).await.map(drop)
    }

    pub async fn stream(&self, node: &str, stream: &str) -> Result<Stream> {
        let (status, value) = self.call(Method::GET, &format!("{node}/v1/streams/{stream}"), None, LOOK).await?;
        serde_json::from_value(value.clone()).map_err(|error| format!("{node}: {status} {value}: {error}"))
    }

    pub async fn cluster(&self, node: &str) -> Result<Cluster> {
        let (status, value) = self.call(Method::GET, &format!("{node}/v1/cluster"), None, LOOK).await?;
        serde_json::from_value(value.clone()).map_err(|error| format!("{node}: {status} {value}: {error}"))
    }

    /// The new leader.
    pub async fn transfer(&self, node: &str, stream: &str, to: Option<&str>) -> Result<String> {
        let body = to.map_or(json!({}), |to| json!({ "node": to }));
        let value = self.expect(Method::POST, &format!("{node}/v1/streams/{stream}/leader"), Some(body)).await?;
        Ok(value["leader"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn drain(&self, node: &str, name: &str) -> Result<()> {
        self.expect(Method::POST, &format!("{node}/v1/cluster/nodes/{name}/drain"), None).await.map(drop)
    }

    pub async fn remove(&self, node: &str, name: &str) -> Result<()> {
        self.expect(Method::DELETE, &format!("{node}/v1/cluster/nodes/{name}"), None).await.map(drop)
    }
}
