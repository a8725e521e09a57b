//! Three processes on file systems of their own that are small enough to be filled.
//!
//! Each node's data is on a tmpfs, which only root may mount: where that is not allowed, the test says so and does nothing.

use crate::support::{PATIENCE, expect};
use evermesh::store::crash::Random;
use reqwest::Client;
use serde_json::{Value, json};
use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const SIZE_MIB: [u64; 3] = [96, 224, 224];
/// Bytes of an event, and events of a batch.
const EVENT_BYTES: usize = 100_000;
const BATCH: usize = 10;
/// Longest filling of a disk.
const FILLING: Duration = Duration::from_secs(120);

/// A mounted tmpfs; unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, mib: u64) -> Result<Tmpfs, String> {
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let size = format!("size={mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()])?;
        Ok(Tmpfs(path))
    }

    fn resize(&self, mib: u64) {
        run("mount", &["-o", &format!("remount,size={mib}m"), self.0.to_str().unwrap()]).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}

/// A node's process; killed at the end. Dropped before its file system.
struct Node {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Node {
    fn start(number: usize, folder: &Path, disk: &Tmpfs, seed: &mut Option<String>) -> Node {
        let (api, peer) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let log = folder.join(format!("n{number}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_evermesh"));
        command.args(["serve", "--name", &format!("n{number}"), "--listen", &api, "--peer-listen", &peer]);
        command.arg("--data").arg(disk.0.join("data")).env("EVERMESH_SECRET", "a secret of the disk test");
        match seed {
            Some(seed) => command.args(["--join", seed]),
            None => command.arg("--bootstrap"),
        };
        seed.get_or_insert(peer);
        let out = std::fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Node { child: command.spawn().unwrap(), url: format!("http://{api}"), log }
    }
}

struct Cluster {
    nodes: Vec<Node>,
    disks: Vec<Tmpfs>,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Result<Cluster, String> {
        let folder = tempfile::tempdir().unwrap();
        let mounts = SIZE_MIB.iter().enumerate().map(|(at, mib)| Tmpfs::mount(folder.path().join(format!("disk{}", at + 1)), *mib));
        let disks: Vec<Tmpfs> = mounts.collect::<Result<_, _>>()?;
        let mut cluster =
            Cluster { nodes: Vec::new(), disks, client: Client::builder().timeout(PATIENCE).build().unwrap(), _folder: folder };
        let mut seed = None;
        for at in 0..3 {
            let node = Node::start(at + 1, cluster._folder.path(), &cluster.disks[at], &mut seed);
            cluster.nodes.push(node);
            cluster.until("the node is ready", async |cluster: &Cluster| cluster.status(at, "/readyz").await == Some(200)).await;
        }
        Ok(cluster)
    }

    async fn status(&self, at: usize, path: &str) -> Option<u16> {
        self.client.get(format!("{}{path}", self.nodes[at].url)).send().await.ok().map(|answer| answer.status().as_u16())
    }

    async fn until(&self, what: &str, condition: impl AsyncFn(&Cluster) -> bool) {
        let began = Instant::now();
        while !condition(self).await {
            assert!(began.elapsed() < PATIENCE, "in vain waited until {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, at: usize, path: &str) -> Value {
        expect(self.client.get(format!("{}{path}", self.nodes[at].url)), 200).await.json
    }

    async fn post(&self, at: usize, path: &str, body: &Value, status: u16) -> Value {
        expect(self.client.post(format!("{}{path}", self.nodes[at].url)).json(body), status).await.json
    }

    /// How each node's disk is, as one node sees it.
    async fn disks(&self, at: usize) -> Vec<String> {
        let shown = self.get(at, "/v1/cluster").await;
        shown["nodes"].as_array().unwrap().iter().map(|node| node["disk"].as_str().unwrap().to_owned()).collect()
    }

    /// Publishes one batch through a node; gives the status and what was said.
    async fn publish(&self, at: usize, number: usize) -> (u16, Value) {
        let events: Vec<_> =
            (0..BATCH).map(|event| json!({"data": format!("{number}.{event} {}", noise(number * BATCH + event))})).collect();
        let request = self.client.post(format!("{}/v1/streams/big/batch", self.nodes[at].url)).json(&json!({"events": events}));
        let answer = request.send().await.expect("the node answers");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Publishes through all nodes in turn for as long as it is accepted and not enough; gives the first refusal.
    async fn fill(&self, enough: impl AsyncFn(&Cluster) -> bool) -> Option<(u16, Value)> {
        let began = Instant::now();
        for number in 0.. {
            if number % 3 == 0 && enough(self).await {
                return None;
            }
            let (status, said) = self.publish(number % 3, number).await;
            if status != 201 {
                return Some((status, said));
            }
            assert!(began.elapsed() < FILLING, "the disk does not fill: {:?}", self.disks(0).await);
        }
        unreachable!("a range without end")
    }

    fn assert_all_run(&mut self) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            assert!(node.child.try_wait().unwrap().is_none(), "n{} has ended", at + 1);
        }
    }

    async fn assert_all_the_same(&self) {
        let identical = async |cluster: &Cluster| {
            let verified = cluster.post(0, "/v1/streams/big/verify", &json!({"read": true}), 200).await;
            let replicas = verified["replicas"].as_array().unwrap();
            replicas.iter().all(|replica| replica["result"] == "identical" && replica["read"]["ok"] == true)
        };
        self.until("all replicas are identical and whole", identical).await;
        let mut logs = Vec::new();
        for at in 0..3 {
            logs.push(self.get(at, "/v1/streams/big/events?limit=1000").await);
        }
        assert!(!logs[0]["events"].as_array().unwrap().is_empty());
        assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "the nodes give different events");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_is_refused_early_and_nothing_is_damaged() {
    let mut cluster = match Cluster::start().await {
        Ok(cluster) => cluster,
        Err(why) => {
            // Past the test runner's capture: what was not tested is always told.
            let _ = writeln!(std::io::stderr(), "NOT TESTED, a full disk: no file system can be mounted here ({why})");
            return;
        }
    };
    let url = format!("{}/v1/streams/big", cluster.nodes[0].url);
    expect(cluster.client.put(url).json(&json!({"replicas": 3})), 201).await;

    // The small disk fills; the others go on, whoever is asked.
    let refused = cluster.fill(async |cluster: &Cluster| cluster.disks(1).await == ["full", "ok", "ok"]).await;
    assert_eq!(refused, None, "with room on two of three disks nothing is refused");
    assert_ne!(cluster.get(1, "/v1/streams/big").await["leader"], "n1");
    assert_eq!(cluster.status(0, "/readyz").await, Some(200));

    // A majority is short: a clean refusal, everywhere.
    let refused = cluster.fill(async |_: &Cluster| false).await.unwrap();
    assert_eq!((refused.0, &refused.1["code"], &refused.1["retryable"]), (507, &json!("disk-full"), &json!(true)), "{refused:?}");
    for at in 0..3 {
        assert_eq!(cluster.publish(at, 0).await.0, 507);
    }
    cluster.assert_all_run();

    // A larger disk makes two with room once one of the others has it too; the one that was full catches up.
    for disk in &cluster.disks[..2] {
        disk.resize(512);
    }
    let accepted = async |cluster: &Cluster| cluster.publish(2, 0).await.0 == 201;
    cluster.until("publishes go on with larger disks", accepted).await;
    cluster.assert_all_the_same().await;

    // And so does a purge, on disks that stay as they are.
    cluster.disks[1].resize(SIZE_MIB[1]);
    cluster.disks[0].resize(SIZE_MIB[1]);
    cluster.until("disks are short again", async |cluster: &Cluster| cluster.publish(2, 0).await.0 == 507).await;
    let purged = cluster.post(1, "/v1/streams/big/purge", &json!({"keep": 5}), 200).await;
    assert!(purged["events"].as_u64().unwrap() > 500, "{purged}");
    cluster.until("publishes go on after the purge", accepted).await;
    cluster.until("every disk has room again", async |cluster: &Cluster| cluster.disks(0).await == ["ok", "ok", "ok"]).await;
    cluster.assert_all_the_same().await;
    cluster.assert_all_run();
}

/// An event's worth of letters that do not compress, others for each number.
fn noise(number: usize) -> String {
    Random((number as u64) << 32).letters(EVENT_BYTES)
}
