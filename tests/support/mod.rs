//! A cluster of three nodes in this process, reached over HTTP only, shared by all tests of this binary: each uses streams of its own.

use evermesh::{
    api,
    core::{NodeName, limits},
    node::{Config, Node, Readiness, Secret, Start, Timers, World},
    store,
};
use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};
use tokio::net::TcpListener;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the nodes are reached.
pub struct Cluster {
    pub urls: Vec<String>,
    pub nodes: Vec<Node>,
}

/// The shared cluster; the first who needs it starts it, on a runtime of its own.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let (send, receive) = mpsc::channel::<Vec<(String, Node)>>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let nodes = start(&folder(), 3).await;
                send.send(nodes).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let (urls, nodes) = receive.recv().expect("the cluster starts").into_iter().unzip();
        Cluster { urls, nodes }
    })
}

/// The data of earlier runs goes when a new one begins: a test binary has no end to clean up at.
fn folder() -> PathBuf {
    let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cluster");
    let _ = std::fs::remove_dir_all(&all);
    all
}

/// A cluster that one test has to itself, to take apart. Its API servers live as long as the test.
pub async fn cluster_of_its_own(count: usize) -> (Cluster, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (urls, nodes) = start(folder.path(), count).await.into_iter().unzip();
    (Cluster { urls, nodes }, folder)
}

impl Cluster {
    /// A request to one of these nodes.
    pub fn request(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        client().request(method, format!("{}{path}", self.urls[node]))
    }

    /// What one node says of the cluster, once it says that.
    pub async fn until(&self, node: usize, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        soon(what, async {
            loop {
                let answer = self.request(node, Method::GET, "/v1/cluster").send().await.unwrap();
                let cluster: Value = answer.json().await.unwrap();
                if condition(&cluster) {
                    return cluster;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    pub async fn stop(self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

async fn start(folder: &Path, count: usize) -> Vec<(String, Node)> {
    let mut nodes: Vec<(String, Node)> = Vec::new();
    let mut first_peer = None;
    for number in 1..=count {
        let api_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", api_listener.local_addr().unwrap());
        let peer = peer_listener.local_addr().unwrap().to_string();
        let slot = api::Slot::default();
        tokio::spawn(api::serve(api_listener, slot.clone(), api::Options::default(), std::future::pending()));
        let config = Config {
            data: folder.join(format!("n{number}")),
            name: Some(NodeName::new(&format!("n{number}")).unwrap()),
            url: url.clone(),
            peer_listener: peer_listener.into(),
            peer_advertise: peer.clone(),
            secret: Secret::new("a secret of the tests"),
            start: first_peer.clone().map_or(Start::Bootstrap, |first| Start::Join(vec![first])),
            auto_create_streams: true,
            timers: Timers::default(),
            sleep_after: Some(Duration::from_millis(limits::SLEEP_AFTER_MS)),
            peer_protocol_max: None,
            store: store::Options::default(),
            world: World::default(),
        };
        let node = Node::start(config).await.unwrap();
        first_peer.get_or_insert(peer);
        slot.set(node.clone()).unwrap_or_else(|_| unreachable!("set once"));
        nodes.push((url, node));
    }
    until_all_know_all(&nodes).await;
    nodes
}

async fn until_all_know_all(nodes: &[(String, Node)]) {
    for (_, node) in nodes {
        let mut seen = node.nodes();
        let all = seen.wait_for(|infos: &Arc<Vec<_>>| infos.len() == nodes.len() && infos.iter().all(|info| info.reachable));
        tokio::time::timeout(PATIENCE, all).await.expect("every node sees every other").unwrap();
        tokio::time::timeout(PATIENCE, async {
            while node.readiness() != Readiness::Ready {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("every node becomes ready");
    }
}

/// A request to one of the nodes, by its place.
pub fn request(node: usize, method: Method, path: &str) -> RequestBuilder {
    cluster().request(node, method, path)
}

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    // A client's connections belong to the runtime that made them, and each test has its own: so none is kept.
    CLIENT.get_or_init(|| Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap())
}

pub fn get(path: &str) -> RequestBuilder {
    request(0, Method::GET, path)
}

pub fn post(path: &str) -> RequestBuilder {
    request(1, Method::POST, path)
}

pub fn put(path: &str) -> RequestBuilder {
    request(2, Method::PUT, path)
}

/// An answer, read to its end.
pub struct Answer {
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    /// `null` where the body is not JSON.
    pub json: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends, and expects this status.
pub async fn expect(request: RequestBuilder, status: u16) -> Answer {
    let answer = request.send().await.unwrap();
    let (headers, got, url) = (answer.headers().clone(), answer.status().as_u16(), answer.url().clone());
    let bytes = answer.bytes().await.unwrap().to_vec();
    assert_eq!(got, status, "{url}: {}", String::from_utf8_lossy(&bytes));
    Answer { headers, json: serde_json::from_slice(&bytes).unwrap_or_default(), bytes }
}

/// Publishes texts, one event each; gives the last seq.
pub async fn publish_all(stream: &str, texts: &[&str]) -> u64 {
    let mut last = 0;
    for text in texts {
        let answer =
            expect(post(&format!("/v1/streams/{stream}/events")).header("Content-Type", "text/plain").body((*text).to_owned()), 201).await;
        last = answer.json["seq"].as_u64().unwrap();
    }
    last
}

/// Waits for something, or says what it was.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain waited for {what}"))
}
