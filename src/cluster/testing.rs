//! Whole groups over real sockets, with links that can be cut one by one: for the tests of the pages about peers that come and go.

use super::groups::Groups;
use super::mesh::{Handler, Identity, Mesh, Options, PROTOCOLS, Peer, Reply, Secret};
use super::{Elected, Fold, Group, Response, Timers};
use crate::core::codec::Corrupt;
use crate::store::{self, Store};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{sleep, timeout};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// A peer that is silent is down after this, where a test is about silence; elsewhere nobody is, however busy the machine.
pub const SILENT: Duration = Duration::from_millis(500);
pub const NEVER_SILENT: Duration = Duration::from_secs(15);

/// Keeps every command that it folded.
#[derive(Default)]
pub struct Kept(Mutex<Vec<Bytes>>);

impl Fold for Kept {
    fn apply(&self, _index: u64, command: Bytes) -> Result<Response, Corrupt> {
        self.0.lock().unwrap().push(command);
        Ok(Response::None)
    }

    fn encode(&self) -> Bytes {
        Bytes::new()
    }

    fn restore(&self, _state: Bytes) -> Result<(), Corrupt> {
        Ok(())
    }

    fn forget_through(&self, _index: u64) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Broken, and every new connection too.
    Closed,
    /// Nothing comes through any more.
    Silent,
}

/// One node's way to another: a proxy.
pub struct Wire {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Wire {
    async fn to(target: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = watch::Sender::new(Line::Open);
        let state = line.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, target, state.clone()));
            }
        });
        Wire { address, line }
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, mut line: watch::Receiver<Line>) {
    if *line.borrow_and_update() == Line::Closed {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    loop {
        let now = *line.borrow_and_update();
        tokio::select! {
            changed = line.changed() => if changed.is_err() {
                return;
            },
            _ = tokio::io::copy_bidirectional(&mut near, &mut far), if now == Line::Open => return,
        }
        if *line.borrow() == Line::Closed {
            return;
        }
    }
}

impl Wire {
    pub fn heal(&self) {
        self.line.send_replace(Line::Open);
    }
}

struct Way(Groups);

impl Handler for Way {
    fn handle(&self, from: Peer, method: u16, body: Bytes, reply: Reply) {
        self.0.handle(from, method, body, reply);
    }
}

pub struct Member {
    pub id: u64,
    pub mesh: Mesh,
    pub groups: Groups,
    kept: BTreeMap<u64, Arc<Kept>>,
    pub elected: Mutex<broadcast::Receiver<Elected>>,
    _folder: TempDir,
}

impl Member {
    pub fn group(&self, id: u64) -> Group {
        self.groups.get(id).unwrap()
    }

    pub fn leads(&self, group: u64) -> bool {
        self.group(group).current().mine.is_some()
    }

    pub async fn propose(&self, group: u64, command: &str) -> bool {
        let group = self.group(group);
        let Some(leader) = group.current().mine else { return false };
        // Until its first entry is committed, a new leader takes nothing.
        while group.confirm_leadership().await.is_err() {
            if group.current().mine != Some(leader) {
                return false;
            }
            sleep(Duration::from_millis(2)).await;
        }
        let Ok(done) = group.propose(leader, Bytes::copy_from_slice(command.as_bytes())).await else { return false };
        done.await.is_ok()
    }

    pub fn kept(&self, group: u64) -> Vec<String> {
        self.kept[&group].0.lock().unwrap().iter().map(|command| String::from_utf8(command.to_vec()).unwrap()).collect()
    }
}

pub struct Mesh3 {
    pub members: Vec<Member>,
    pub wires: BTreeMap<(u64, u64), Wire>,
}

impl Mesh3 {
    /// Members 1 to `count`, of which those in `old` speak only version 1, with these groups, each led by somebody.
    pub async fn start(count: u64, groups: &[u64], timers: Timers, silent_after: Duration, old: &[u64]) -> Mesh3 {
        let mut members = Vec::new();
        let mut addresses = Vec::new();
        for id in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push((id, listener.local_addr().unwrap()));
            let folder = TempDir::new().unwrap();
            let store = Store::open_dir(folder.path(), store::Options::default()).unwrap();
            let all = Groups::new(store, timers, mpsc::channel(1).0);
            let protocol_max = if old.contains(&id) { 1 } else { *PROTOCOLS.end() };
            let redial_max = Duration::from_millis(50);
            let options = Options { silent_after, redial_max, protocol_max, ..Options::new(Secret::new("s")) };
            let identity = Identity { cluster: 7, node: id, boot: 1, version: "test".into() };
            let mesh = Mesh::start(listener, identity, options, Arc::new(Way(all.clone())));
            all.set_mesh(mesh.clone());
            if !old.contains(&id) {
                tokio::spawn(all.watch_peers(id));
            }
            let elected = Mutex::new(all.elected());
            members.push(Member { id, mesh, groups: all, kept: BTreeMap::new(), elected, _folder: folder });
        }
        let mut wires = BTreeMap::new();
        for member in &mut members {
            let mut peers = BTreeMap::new();
            for (id, address) in addresses.iter().filter(|(id, _)| *id != member.id) {
                let wire = Wire::to(*address).await;
                peers.insert(*id, wire.address.to_string());
                wires.insert((member.id, *id), wire);
            }
            member.mesh.set_peers(peers);
            for group in groups {
                let kept = Arc::new(Kept::default());
                member.groups.open(*group, member.id, None, kept.clone()).await.unwrap();
                member.kept.insert(*group, kept);
            }
        }
        let mesh = Mesh3 { members, wires };
        mesh.until("all are connected", || {
            mesh.members
                .iter()
                .all(|member| member.mesh.peers().borrow().values().filter(|peer| peer.is_connected()).count() as u64 == count - 1)
        })
        .await;
        let ids: Vec<u64> = (1..=count).collect();
        for group in groups {
            mesh.member(1).group(*group).initialize(&ids).await.unwrap();
            mesh.leader_everywhere(*group, |leader| leader == 1).await;
        }
        mesh
    }

    pub fn member(&self, id: u64) -> &Member {
        self.members.iter().find(|member| member.id == id).unwrap()
    }

    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let waited = timeout(PATIENCE, async {
            while !condition() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let seen = || -> Vec<_> { self.members.iter().map(|member| member.mesh.peers().borrow().clone()).collect() };
        waited.await.unwrap_or_else(|_| panic!("in vain waited until {what}: {:?}", seen()));
    }

    /// Waits until every member that is up agrees on such a leader.
    pub async fn leader_everywhere(&self, group: u64, wanted: impl Fn(u64) -> bool) -> u64 {
        let leaders = || -> BTreeSet<Option<u64>> { self.members.iter().map(|member| member.group(group).current().leader).collect() };
        let agreed = || {
            let leaders = leaders();
            leaders.len() == 1 && leaders.iter().all(|leader| leader.is_some_and(&wanted))
        };
        self.until("everybody knows one leader", agreed).await;
        leaders().into_iter().flatten().next().unwrap()
    }

    pub fn line(&self, from: u64, to: u64, line: Line) {
        self.wires[&(from, to)].line.send_replace(line);
    }

    pub fn between(&self, one: u64, two: u64, line: Line) {
        self.line(one, two, line);
        self.line(two, one, line);
    }

    /// As if its process were killed: its sockets close, and nobody listens any more.
    pub async fn kill(&mut self, id: u64) -> Member {
        let at = self.members.iter().position(|member| member.id == id).unwrap();
        let member = self.members.remove(at);
        member.mesh.stop().await;
        member
    }

    /// The causes of the elections that the members won.
    pub fn causes(&self) -> (u64, u64, u64) {
        let sum = |count: fn(&Groups) -> u64| self.members.iter().map(|member| count(&member.groups)).sum();
        (
            sum(|groups| groups.elections().by_evidence.load(Relaxed)),
            sum(|groups| groups.elections().by_transfer.load(Relaxed)),
            sum(|groups| groups.elections().by_timer.load(Relaxed)),
        )
    }
}

/// SplitMix64, by Steele, Lea and Flood.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
