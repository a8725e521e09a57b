//! Whole groups over real sockets, with links that can be cut one by one. The groups' own timers are too slow to matter where a test
//! does not say otherwise, so whatever happens was done by evidence.

use super::*;
use crate::cluster::mesh::{Handler, Identity, Options, Reply, Secret};
use crate::cluster::tests::Kept;
use crate::cluster::{Elected, Group, Timers};
use crate::store::{self, Store};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
/// No election by itself within the test's patience.
const NEVER: Timers = Timers { heartbeat: 100, election_min: 60_000, election_max: 61_000 };
const QUICK: Timers = Timers { heartbeat: 50, election_min: 200, election_max: 350 };
/// A peer that is silent is down after this, where a test is about silence; elsewhere nobody is, however busy the machine.
const SILENT: Duration = Duration::from_millis(500);
const NEVER_SILENT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    /// Broken, and every new connection too.
    Closed,
    /// Nothing comes through any more.
    Silent,
}

/// One node's way to another: a proxy.
struct Wire {
    address: SocketAddr,
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
    fn heal(&self) {
        self.line.send_replace(Line::Open);
    }
}

struct Way(Groups);

impl Handler for Way {
    fn handle(&self, from: Peer, method: u16, body: Bytes, reply: Reply) {
        self.0.handle(from, method, body, reply);
    }
}

struct Member {
    id: u64,
    mesh: Mesh,
    groups: Groups,
    kept: BTreeMap<u64, Arc<Kept>>,
    elected: Mutex<broadcast::Receiver<Elected>>,
    _folder: TempDir,
}

impl Member {
    fn group(&self, id: u64) -> Group {
        self.groups.get(id).unwrap()
    }

    fn leads(&self, group: u64) -> bool {
        self.group(group).current().mine.is_some()
    }

    async fn propose(&self, group: u64, command: &str) -> bool {
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

    fn kept(&self, group: u64) -> Vec<String> {
        self.kept[&group].0.lock().unwrap().iter().map(|command| String::from_utf8(command.to_vec()).unwrap()).collect()
    }
}

struct Mesh3 {
    members: Vec<Member>,
    wires: BTreeMap<(u64, u64), Wire>,
}

impl Mesh3 {
    /// Members 1 to `count`, of which those in `old` speak only version 1, with these groups, each led by somebody.
    async fn start(count: u64, groups: &[u64], timers: Timers, silent_after: Duration, old: &[u64]) -> Mesh3 {
        let mut members = Vec::new();
        let mut addresses = Vec::new();
        for id in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push((id, listener.local_addr().unwrap()));
            let folder = TempDir::new().unwrap();
            let store = Store::open_dir(folder.path(), store::Options::default()).unwrap();
            let all = Groups::new(store, timers, mpsc::channel(1).0);
            let protocol_max = if old.contains(&id) { 1 } else { PROTOCOL };
            let redial_max = Duration::from_millis(50);
            let options = Options { silent_after, redial_max, protocol_max, ..Options::new(Secret::new("s")) };
            let identity = Identity { cluster: 7, node: id, boot: 1, version: "test".into() };
            let mesh = Mesh::start(listener, identity, options, Arc::new(Way(all.clone())));
            all.set_mesh(mesh.clone());
            if protocol_max >= PROTOCOL {
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

    fn member(&self, id: u64) -> &Member {
        self.members.iter().find(|member| member.id == id).unwrap()
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let waited = timeout(PATIENCE, async {
            while !condition() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let seen = || -> Vec<_> { self.members.iter().map(|member| member.mesh.peers().borrow().clone()).collect() };
        waited.await.unwrap_or_else(|_| panic!("in vain waited until {what}: {:?}", seen()));
    }

    /// Waits until every member that is up agrees on such a leader.
    async fn leader_everywhere(&self, group: u64, wanted: impl Fn(u64) -> bool) -> u64 {
        let leaders = || -> BTreeSet<Option<u64>> { self.members.iter().map(|member| member.group(group).current().leader).collect() };
        let agreed = || {
            let leaders = leaders();
            leaders.len() == 1 && leaders.iter().all(|leader| leader.is_some_and(&wanted))
        };
        self.until("everybody knows one leader", agreed).await;
        leaders().into_iter().flatten().next().unwrap()
    }

    fn line(&self, from: u64, to: u64, line: Line) {
        self.wires[&(from, to)].line.send_replace(line);
    }

    fn between(&self, one: u64, two: u64, line: Line) {
        self.line(one, two, line);
        self.line(two, one, line);
    }

    /// As if its process were killed: its sockets close, and nobody listens any more.
    async fn kill(&mut self, id: u64) -> Member {
        let at = self.members.iter().position(|member| member.id == id).unwrap();
        let member = self.members.remove(at);
        member.mesh.stop().await;
        member
    }

    /// The causes of the elections that the members won.
    fn causes(&self) -> (u64, u64, u64) {
        let sum = |count: fn(&Groups) -> u64| self.members.iter().map(|member| count(&member.groups)).sum();
        (
            sum(|groups| groups.elections().by_evidence.load(Relaxed)),
            sum(|groups| groups.elections().by_transfer.load(Relaxed)),
            sum(|groups| groups.elections().by_timer.load(Relaxed)),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_groups_of_a_lost_node_elect_at_once() {
    let groups: Vec<u64> = (0..20).collect();
    let mut mesh = Mesh3::start(3, &groups, NEVER, NEVER_SILENT, &[]).await;
    mesh.kill(1).await;
    let mut leaders = BTreeSet::new();
    for group in groups {
        let leader = mesh.leader_everywhere(group, |leader| leader != 1).await;
        assert!(mesh.member(leader).propose(group, "on").await);
        leaders.insert(leader);
    }
    assert_eq!(leaders.len(), 2, "the groups are spread over those who are left");
    assert_eq!(mesh.causes(), (20, 0, 0));
    let took = mesh.members.iter().map(|member| member.groups.elections().last_failover_us.load(Relaxed)).max().unwrap();
    assert!(took > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_link_alone_unseats_nobody() {
    let mesh = Mesh3::start(3, &[5], NEVER, SILENT, &[]).await;
    for line in [Line::Closed, Line::Silent] {
        mesh.between(1, 2, line);
        mesh.until("the follower sees the leader down", || !mesh.member(2).mesh.peers().borrow()[&1].is_connected()).await;
        // Longer than all rounds.
        let mut leadership = mesh.member(3).group(5).leadership();
        let changed = timeout(ROUNDS.iter().sum::<Duration>() + COUNTS, leadership.wait_for(|now| now.leader != Some(1))).await;
        assert!(changed.is_err(), "a leader with a majority was unseated");
        assert!(mesh.member(1).propose(5, "on").await);
        mesh.between(1, 2, Line::Open);
        mesh.until("the follower has what it missed", || mesh.member(2).kept(5) == mesh.member(1).kept(5)).await;
        mesh.until("it sees the leader again", || mesh.member(2).mesh.peers().borrow()[&1].is_connected()).await;
    }
    assert_eq!(mesh.causes(), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_longest_log_takes_over() {
    let groups: Vec<u64> = (1..=6).collect();
    let mut mesh = Mesh3::start(3, &groups, NEVER, NEVER_SILENT, &[]).await;
    // Node 2 gets nothing any more, but sees that node 1 lives.
    mesh.line(1, 2, Line::Closed);
    mesh.until("the leader cannot reach it", || !mesh.member(1).mesh.peers().borrow()[&2].is_connected()).await;
    for group in &groups {
        assert!(mesh.member(1).propose(*group, "only at two").await);
    }
    mesh.kill(1).await;
    for group in groups {
        mesh.leader_everywhere(group, |leader| leader == 3).await;
        mesh.until("nothing is lost", || mesh.members.iter().all(|member| member.kept(group) == ["only at two"])).await;
    }
    assert_eq!(mesh.causes(), (6, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_replaced_and_does_not_disturb_when_it_is_back() {
    let mesh = Mesh3::start(3, &[5], NEVER, SILENT, &[]).await;
    assert!(mesh.member(1).propose(5, "a").await);
    for other in [2, 3] {
        mesh.between(1, other, Line::Silent);
    }
    let other = |member: &Member| member.id != 1 && member.leads(5);
    mesh.until("another leads", || mesh.members.iter().any(other)).await;
    let leader = mesh.members.iter().find(|member| other(member)).unwrap();
    assert!(leader.propose(5, "b").await);
    let term = leader.group(5).current().term;
    for other in [2, 3] {
        mesh.between(1, other, Line::Open);
    }
    mesh.leader_everywhere(5, |id| id == leader.id).await;
    mesh.until("the old leader has everything", || mesh.member(1).kept(5) == ["a", "b"]).await;
    assert!(leader.propose(5, "c").await);
    assert_eq!((leader.group(5).current().term, mesh.causes()), (term, (1, 0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_older_build_the_timers_decide() {
    let mut mesh = Mesh3::start(3, &[5], QUICK, NEVER_SILENT, &[3]).await;
    let protocol = |from: u64, to: u64| match mesh.member(from).mesh.peers().borrow()[&to] {
        PeerState::Connected { protocol, .. } => protocol,
        _ => 0,
    };
    assert_eq!((protocol(1, 2), protocol(1, 3), protocol(3, 1)), (2, 1, 1));
    mesh.kill(1).await;
    let leader = mesh.leader_everywhere(5, |leader| leader != 1).await;
    assert!(mesh.member(leader).propose(5, "on").await);
    assert_eq!((mesh.causes().0, mesh.causes().2 > 0), (0, true));
}

/// SplitMix64, by Steele, Lea and Flood.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Links break, fall silent and heal at random while commands are proposed wherever somebody leads. Repeat a run with
/// `EVERMESH_SEED=… cargo test --lib evidence::tests::links_at_random`.
#[tokio::test(flavor = "multi_thread")]
async fn links_at_random_lose_nothing() {
    let seed = std::env::var("EVERMESH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap());
    eprintln!("EVERMESH_SEED={seed}");
    let mut dice = Dice(seed);
    const GROUP: u64 = 5;
    let mesh = Mesh3::start(5, &[GROUP], QUICK, SILENT, &[]).await;
    let mut leaders = BTreeSet::new();
    let (mut proposed, mut acknowledged) = (0, Vec::new());
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let (one, two) = (1 + dice.below(5), 1 + dice.below(5));
        match dice.below(6) {
            0 | 1 if one != two => mesh.between(one, two, [Line::Closed, Line::Silent][dice.below(2) as usize]),
            2 => (1..=5).filter(|other| *other != one).for_each(|other| mesh.between(one, other, Line::Closed)),
            3 => (1..=5).filter(|other| *other != one).for_each(|other| mesh.between(one, other, Line::Silent)),
            _ => mesh.wires.values().for_each(|wire| wire.heal()),
        }
        let pause = Instant::now() + Duration::from_millis(50 + dice.below(400));
        while Instant::now() < pause {
            for member in mesh.members.iter().filter(|member| member.leads(GROUP)) {
                proposed += 1;
                let command = proposed.to_string();
                if let Ok(true) = timeout(Duration::from_millis(100), member.propose(GROUP, &command)).await {
                    acknowledged.push(command);
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
    mesh.wires.values().for_each(|wire| wire.heal());
    let leader = mesh.leader_everywhere(GROUP, |_| true).await;
    for member in &mesh.members {
        let mut elected = member.elected.lock().unwrap();
        while let Ok(Elected { term, .. }) = elected.try_recv() {
            assert!(leaders.insert((term, member.id)), "{} was elected twice in term {term}", member.id);
        }
    }
    mesh.until("the end is taken", || mesh.members.iter().any(|member| member.leads(GROUP))).await;
    let last = async {
        while !mesh.member(leader).propose(GROUP, "last").await && mesh.member(leader).leads(GROUP) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, last).await.expect("a healed group takes commands");
    mesh.until("everybody has the same log", || {
        let logs: BTreeSet<Vec<String>> = mesh.members.iter().map(|member| member.kept(GROUP)).collect();
        logs.len() == 1
    })
    .await;
    let kept = mesh.member(leader).kept(GROUP);
    for command in &acknowledged {
        assert_eq!(kept.iter().filter(|one| *one == command).count(), 1, "{command} was acknowledged");
    }
    eprintln!("{} of {proposed} acknowledged, {} elections, by cause {:?}", acknowledged.len(), leaders.len(), mesh.causes());
    assert!(!acknowledged.is_empty());
}
