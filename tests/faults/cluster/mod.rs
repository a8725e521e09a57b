//! The cluster under test: node processes of the real binary, their network and folders.
//!
//! One task owns a `Cluster`; clients know of it only what a `Roster` tells them: where nodes listen.

pub mod admin;
pub mod network;
pub mod process;

use self::process::{Process, Start};
use crate::inside::Place;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

pub type Result<T> = std::result::Result<T, String>;

/// How long a node may take until it is ready.
pub const READY_WAIT: Duration = Duration::from_secs(60);
const STOP_WAIT: Duration = Duration::from_secs(40);
const LOOPBACK_API: u16 = 15100;
const LOOPBACK_PEER: u16 = 15200;

/// Where clients find nodes: the nodes that were started and not removed, whatever state they are in.
#[derive(Clone, Default)]
pub struct Roster(Arc<RwLock<Vec<(usize, String)>>>);

impl Roster {
    pub fn urls(&self) -> Vec<String> {
        self.0.read().expect("nobody panics while holding it").iter().map(|(_, url)| url.clone()).collect()
    }

    fn set(&self, node: usize, url: Option<String>) {
        let mut all = self.0.write().expect("nobody panics while holding it");
        all.retain(|(other, _)| *other != node);
        all.extend(url.map(|url| (node, url)));
    }
}

/// Why a node has no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Never started, or removed for good.
    Absent,
    /// We ended it.
    Meant,
}

pub struct Node {
    pub name: String,
    pub url: String,
    pub folder: PathBuf,
    pub log: PathBuf,
    /// What comes before the arguments of `serve`; the harness itself can be a node.
    pub program: PathBuf,
    pub environment: Vec<(String, String)>,
    process: std::result::Result<Process, Down>,
}

pub struct Options {
    pub place: Place,
    pub binary: PathBuf,
    pub folder: PathBuf,
    /// Appended to every node's arguments.
    pub peer_advertise: Option<fn(usize) -> String>,
}

pub struct Cluster {
    pub options: Options,
    pub nodes: Vec<Node>,
    pub roster: Roster,
}

impl Cluster {
    pub fn new(options: Options) -> Result<Cluster> {
        std::fs::create_dir_all(&options.folder).map_err(|error| error.to_string())?;
        std::fs::write(options.folder.join("secret"), "a secret of the fault harness\n").map_err(|error| error.to_string())?;
        if options.place == Place::Namespaces {
            network::prepare()?;
        }
        Ok(Cluster { options, nodes: Vec::new(), roster: Roster::default() })
    }

    /// Makes room for a node that has not been started yet.
    pub fn place(&mut self) -> Result<usize> {
        let node = self.nodes.len();
        let name = format!("n{}", node + 1);
        let url = match self.options.place {
            Place::Namespaces => {
                network::add(node)?;
                format!("http://{}:{}", network::api_address(node), network::API_PORT)
            }
            Place::Loopback => format!("http://127.0.0.1:{}", LOOPBACK_API + node as u16),
        };
        self.nodes.push(Node {
            url,
            folder: self.options.folder.join(&name),
            log: self.options.folder.join(format!("{name}.log")),
            program: self.options.binary.clone(),
            environment: Vec::new(),
            name,
            process: Err(Down::Absent),
        });
        Ok(node)
    }

    fn peer(&self, node: usize) -> String {
        match self.options.place {
            Place::Namespaces => format!("{}:{}", network::peer_address(node), network::PEER_PORT),
            Place::Loopback => format!("127.0.0.1:{}", LOOPBACK_PEER + node as u16),
        }
    }

    fn arguments(&self, node: usize) -> Vec<String> {
        let it = &self.nodes[node];
        let api = it.url.trim_start_matches("http://").to_owned();
        let text = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> = ["serve", "--stop-at-stdin-end", "--insecure", "--data"].map(String::from).to_vec();
        arguments.push(text(&it.folder));
        for (flag, value) in [
            ("--name", it.name.clone()),
            ("--listen", api),
            ("--peer-listen", self.peer(node)),
            ("--secret-file", text(&self.options.folder.join("secret"))),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        if let Some(advertise) = self.options.peer_advertise {
            arguments.extend(["--peer-advertise".to_owned(), advertise(node)]);
        }
        match node {
            0 if !self.nodes[0].folder.join("evermesh.toml").exists() && self.nodes.iter().all(|node| node.process.is_err()) => {
                arguments.push("--bootstrap".into());
            }
            _ => {
                let others = (0..self.nodes.len()).filter(|other| *other != node).map(|other| match self.options.peer_advertise {
                    Some(advertise) => advertise(other),
                    None => self.peer(other),
                });
                let others: Vec<_> = others.collect();
                arguments.extend(["--join".to_owned(), others.join(",")]);
            }
        }
        arguments
    }

    /// Starts a node's process; it takes its time to be ready.
    pub fn start(&mut self, node: usize) -> Result<()> {
        if self.is_running(node) {
            return Ok(());
        }
        let it = &self.nodes[node];
        let start = Start {
            program: it.program.clone(),
            arguments: self.arguments(node),
            environment: it.environment.clone(),
            namespace: (self.options.place == Place::Namespaces).then(|| network::namespace(node)),
            log: it.log.clone(),
        };
        self.nodes[node].process = Ok(Process::start(&start)?);
        self.roster.set(node, Some(self.nodes[node].url.clone()));
        Ok(())
    }

    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].process.is_ok()
    }

    pub fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].process.as_ref().is_ok_and(Process::is_paused)
    }

    /// Nodes that belong to the cluster, running or not.
    pub fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !matches!(self.nodes[*node].process, Err(Down::Absent))).collect()
    }

    pub fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes[node].process.as_mut().ok()
    }

    /// kill -9 of all of these as near to one moment as can be.
    pub async fn kill(&mut self, nodes: &[usize]) {
        nodes.iter().filter_map(|node| self.nodes[*node].process.as_ref().ok()).for_each(Process::kill);
        for node in nodes {
            if let Ok(process) = &mut self.nodes[*node].process {
                process.ended(STOP_WAIT).await;
                self.nodes[*node].process = Err(Down::Meant);
            }
        }
    }

    /// A graceful stop; how long it took. An error if it had to be killed or said that something went wrong.
    pub async fn stop(&mut self, node: usize) -> Result<Duration> {
        let began = Instant::now();
        let name = self.nodes[node].name.clone();
        let Ok(process) = &mut self.nodes[node].process else { return Ok(Duration::ZERO) };
        process.ask_to_stop();
        let how = process.ended(STOP_WAIT).await;
        if how.is_none() {
            process.kill();
            process.ended(STOP_WAIT).await;
        }
        self.nodes[node].process = Err(Down::Meant);
        match how {
            Some(how) if how.success() => Ok(began.elapsed()),
            Some(how) => Err(format!("{name} was asked to stop and ended with {how}")),
            None => Err(format!("{name} did not stop within {} s", STOP_WAIT.as_secs())),
        }
    }

    /// The node is gone for good.
    pub fn forget(&mut self, node: usize) {
        self.nodes[node].process = Err(Down::Absent);
        self.roster.set(node, None);
    }

    /// Processes that ended although nobody meant them to, with how.
    pub fn ended_by_themselves(&mut self) -> Vec<(usize, String)> {
        let mut ended = Vec::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Ok(process) = &mut node.process
                && let Some(how) = process.has_ended()
            {
                node.process = Err(Down::Meant);
                ended.push((at, how.to_string()));
            }
        }
        ended
    }

    pub async fn end(&mut self) {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.kill(&all).await;
    }
}
