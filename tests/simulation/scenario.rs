//! One seed from its first start to its verdict: a cluster, its load, the faults that the seed draws, then peace, and the checks.

use super::check;
use super::history::Shared;
use super::host::{Command, DEADLINE_MS, DROWSY_MS, Report, node_name, stream_name};
use super::net::HostId;
use super::world::{Kill, World, now};
use evermesh::core::catalog::NodeState;
use evermesh::core::{Discard, SettingsPatch, SubjectFilter};
use evermesh::node::{Purge, Readiness};
use evermesh::store::crash::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;

/// Streams whose contents are checked.
pub const STREAMS: usize = 3;
/// Longest wait for the young cluster, in milliseconds.
const YOUNG_MS: u64 = 30_000;
/// Time in which faults begin, in milliseconds.
const FAULTS_MS: u64 = 6_000;
/// Time of load after the last fault, in milliseconds.
const LOAD_MS: u64 = 2_500;
/// Longest time until everything is even and equal again, in milliseconds.
const SETTLE_MS: u64 = 90_000;

pub struct Verdict {
    pub violations: Vec<String>,
    pub digest: u64,
    pub summary: String,
}

/// What happens at a moment.
#[derive(Clone, Debug)]
enum Event {
    Kill(HostId, Kill),
    KillInACommit(HostId),
    KillAll(Kill),
    Start(HostId),
    StartAll,
    Cut(HostId, HostId),
    Mend(HostId, HostId),
    Latency(HostId, HostId, (u64, u64)),
    Disk(HostId, (u64, u64)),
    Clock(HostId, i64),
    Restart(HostId),
    Put(usize, SettingsPatch),
    Churn(String, bool),
    Move(usize, Option<HostId>),
    Purge(usize, u64),
    Drain(HostId),
    Remove(HostId),
    Grow(HostId),
}

pub struct Scenario {
    world: World,
    random: Random,
    shared: Arc<Shared>,
    removed: BTreeSet<HostId>,
    /// Hosts that were to be removed, whether or not that is known to have been done.
    asked: BTreeSet<HostId>,
    /// What each checked stream is set to.
    settings: Vec<SettingsPatch>,
    churned: BTreeMap<String, bool>,
}

pub fn run(seed: u64, verbose: bool) -> Verdict {
    let shared = Arc::new(Shared::new(STREAMS, verbose));
    let mut random = Random(seed);
    let world = World::new(random.draw(), shared.clone());
    let mut scenario = Scenario {
        world,
        random,
        shared: shared.clone(),
        removed: BTreeSet::new(),
        asked: BTreeSet::new(),
        settings: Vec::new(),
        churned: BTreeMap::new(),
    };
    // Some seeds press hard, others leave time between things, and streams sleep meanwhile.
    shared.history().pause_ms = [100, 300, 800, DROWSY_MS][scenario.random.below(4) as usize];
    if scenario.begin(seed) {
        scenario.trouble();
        scenario.peace();
    }
    let history = shared.history();
    let summary = format!("{} ms, {:?}", now(), history.counts);
    Verdict { violations: history.violations.clone(), digest: history.digest(), summary }
}

impl Scenario {
    fn violation(&self, what: String) {
        self.shared.violation(what);
    }

    /// Founds the cluster and makes the streams.
    fn begin(&mut self, seed: u64) -> bool {
        let hosts = if self.random.chance(25) { 5 } else { 3 };
        for id in 1..=hosts {
            self.world.add_host(id);
            self.world.start(id);
            if id == 1 && seed.is_multiple_of(2) {
                self.kill_the_founder(seed);
            }
            self.world.run_for(20);
        }
        if !self.world.run_until(YOUNG_MS, |world| now().is_multiple_of(100) && is_whole(world, hosts)) {
            self.violation(format!("{hosts} nodes did not become a cluster within {YOUNG_MS} ms"));
            return false;
        }
        self.settings = vec![SettingsPatch::default(); STREAMS];
        let many = if hosts >= 5 && self.random.chance(30) { Some(5) } else { None };
        self.settings[0].replicas = many;
        self.settings[1].max_events = Some(Some(20 + self.random.below(60)));
        match self.random.below(4) {
            0 => self.settings[2].max_bytes = Some(Some(2_000 + self.random.below(4_000))),
            1 => self.settings[2].max_age_ms = Some(Some(500 + self.random.below(3_000))),
            2 => (self.settings[2].max_events, self.settings[2].discard) = (Some(Some(40)), Some(Discard::New)),
            _ => self.settings[2].replicas = Some(1),
        }
        {
            let mut history = self.shared.history();
            history.streams[1].trims = true;
            history.streams[2].trims = self.settings[2].max_bytes.is_some() || self.settings[2].max_age_ms.is_some();
        }
        for stream in 0..STREAMS {
            let host = 1 + self.random.below(hosts as u64) as usize;
            self.world.send(host, Command::Put(stream_name(stream).to_string(), self.settings[stream].clone()));
        }
        self.world.run_for(500);
        self.shared.history().begun = true;
        true
    }

    /// Ends the first node in its first milliseconds, while it founds the cluster, and starts it again.
    fn kill_the_founder(&mut self, seed: u64) {
        // Chance of its own, so that the seeds keep the courses that they had.
        let mut random = Random(seed ^ 0xf0);
        self.world.run_for(random.below(16));
        match random.below(3) {
            0 => self.world.kill(1, Kill::Process),
            1 => self.world.kill(1, Kill::Power),
            _ => self.world.kill_in_a_commit(1),
        }
        self.world.start(1);
    }

    /// Draws the faults and lets them happen.
    fn trouble(&mut self) {
        let mut plan: BTreeMap<(u64, usize), Event> = BTreeMap::new();
        let faults = 3 + self.random.below(6);
        let start = now();
        for _ in 0..faults {
            let at = start + self.random.below(FAULTS_MS);
            for (after, event) in self.fault() {
                plan.insert((at + after, plan.len()), event);
            }
        }
        self.shared.history().counts.faults = faults;
        while let Some(((at, _), event)) = plan.pop_first() {
            while now() < at {
                self.world.tick();
            }
            self.shared.trace(format_args!("fault: {event:?}"));
            self.happen(event);
        }
        self.world.run_for(500);
    }

    fn any_host(&mut self) -> HostId {
        let ids: Vec<_> = self.world.ids().into_iter().filter(|id| !self.removed.contains(id)).collect();
        ids[self.random.below(ids.len() as u64) as usize]
    }

    fn any_running(&mut self) -> Option<HostId> {
        let ids: Vec<_> = self.world.running().into_iter().filter(|id| !self.removed.contains(id)).collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len() as u64) as usize])
    }

    /// One fault and its end, each with its time after the beginning.
    fn fault(&mut self) -> Vec<(u64, Event)> {
        let host = self.any_host();
        let ids = self.world.ids();
        let other =
            ids[(ids.iter().position(|id| *id == host).unwrap_or(0) + 1 + self.random.below(ids.len() as u64 - 1) as usize) % ids.len()];
        let long = 50 + self.random.below(3_000);
        let kill = if self.random.chance(50) { Kill::Power } else { Kill::Process };
        let stream = self.random.below(STREAMS as u64) as usize;
        match self.random.below(100) {
            0..18 => vec![(0, Event::Kill(host, kill)), (long, Event::Start(host))],
            18..24 => vec![(0, Event::KillInACommit(host)), (long, Event::Start(host))],
            24..30 => vec![
                (0, Event::Kill(host, kill)),
                (0, Event::Kill(other, kill)),
                (long, Event::Start(host)),
                (long + 100, Event::Start(other)),
            ],
            30..34 => vec![(0, Event::KillAll(kill)), (long / 4, Event::StartAll)],
            34..44 => {
                let others: Vec<_> = ids.iter().copied().filter(|id| *id != host).collect();
                let both = others.iter().flat_map(|other| [(host, *other), (*other, host)]);
                let both: Vec<_> = both.collect();
                let cuts = both.iter().map(|(a, b)| (0, Event::Cut(*a, *b)));
                cuts.chain(both.iter().map(|(a, b)| (long, Event::Mend(*a, *b)))).collect()
            }
            44..50 => {
                let both = [(host, other), (other, host)];
                both.iter().flat_map(|(a, b)| [(0, Event::Cut(*a, *b)), (long, Event::Mend(*a, *b))]).collect()
            }
            50..56 => vec![(0, Event::Cut(host, other)), (long, Event::Mend(host, other))],
            56..62 => {
                let slow = (1 + self.random.below(30), 31 + self.random.below(200));
                [(host, other), (other, host)]
                    .iter()
                    .flat_map(|(a, b)| [(0, Event::Latency(*a, *b, slow)), (long, Event::Latency(*a, *b, (1, 2)))])
                    .collect()
            }
            62..67 => vec![(0, Event::Disk(host, (20, 20 + self.random.below(300)))), (long, Event::Disk(host, (0, 2)))],
            67..72 => {
                let jump = self.random.below(20_000) as i64 - 10_000;
                vec![(0, Event::Clock(host, jump))]
            }
            72..76 => vec![(0, Event::Restart(host)), (long, Event::Start(host))],
            76..80 => {
                let settings = SettingsPatch { max_events: Some(Some(10 + self.random.below(60))), ..SettingsPatch::default() };
                vec![(0, Event::Put(1, settings))]
            }
            80..84 => {
                let name = format!("churn{}", self.random.below(2));
                vec![
                    (0, Event::Churn(name.clone(), true)),
                    (long, Event::Churn(name.clone(), false)),
                    (long + 20, Event::Churn(name, self.random.chance(50))),
                ]
            }
            84..88 => vec![(0, Event::Move(stream, self.random.chance(50).then_some(host)))],
            88..91 => vec![(0, Event::Purge(1, self.random.below(3)))],
            91..94 => vec![(0, Event::Drain(host)), (long, Event::Restart(host)), (long + 300, Event::Start(host))],
            94..97 if ids.len() < 6 => vec![(0, Event::Grow(ids.len() + 1))],
            _ => vec![(0, Event::Remove(host))],
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Kill(host, how) => self.world.kill(host, how),
            Event::KillInACommit(host) => self.world.kill_in_a_commit(host),
            Event::KillAll(how) => self.world.running().into_iter().for_each(|host| self.world.kill(host, how)),
            Event::Start(host) => self.start(host),
            Event::StartAll => self.world.ids().into_iter().for_each(|host| self.start(host)),
            Event::Cut(from, to) => self.world.net.cut(from, to),
            Event::Mend(from, to) => self.world.net.mend(from, to),
            Event::Latency(from, to, latency) => self.world.net.set_latency(from, to, latency),
            Event::Disk(host, commit_ms) => self.world.host(host).commit_ms = commit_ms,
            Event::Clock(host, jump_ms) => self.world.host(host).skew_us.store(jump_ms * 1_000, Relaxed),
            Event::Restart(host) => self.stop(host),
            Event::Put(stream, patch) => {
                self.settings[stream].max_events = patch.max_events;
                self.command(Command::Put(stream_name(stream).to_string(), patch));
            }
            Event::Churn(name, there) => {
                self.churned.insert(name.clone(), there);
                self.command(if there { Command::Put(name, SettingsPatch::default()) } else { Command::Delete(name) });
            }
            Event::Move(stream, to) => self.command(Command::Move(stream_name(stream).to_string(), to.map(node_name))),
            Event::Purge(stream, how) => {
                let purge = match how {
                    0 => Purge::Keep(5),
                    1 => Purge::Subject(SubjectFilter::new("odd.*").expect("it is valid")),
                    _ => Purge::BeforeSeq(self.shared.history().streams[stream].acked),
                };
                self.command(Command::Purge(stream_name(stream).to_string(), purge));
            }
            Event::Drain(host) => self.command(Command::Drain(node_name(host))),
            Event::Remove(host) => self.remove(host),
            Event::Grow(host) => {
                if !self.world.ids().contains(&host) {
                    self.world.add_host(host);
                    self.start(host);
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        if let Some(host) = self.any_running() {
            self.world.send(host, command);
        }
    }

    fn start(&mut self, host: HostId) {
        if !self.removed.contains(&host) {
            self.world.start(host);
        }
    }

    /// A graceful stop; the others go on meanwhile.
    fn stop(&mut self, host: HostId) {
        if !self.world.is_running(host) {
            return;
        }
        let (done, mut stopped) = oneshot::channel();
        self.world.send(host, Command::Stop(done));
        if !self.world.run_until(20_000, |_| stopped.try_recv().is_ok()) {
            self.world.kill(host, Kill::Process);
        }
        self.world.bury(host);
    }

    /// Only from a cluster that can spare it and holds nothing once, and with everybody there: data must not go by somebody's wish.
    fn remove(&mut self, host: HostId) {
        let members = self.world.ids().len() - self.removed.len();
        let once = self.settings.iter().any(|settings| settings.replicas == Some(1));
        if members < 4 || once || self.removed.contains(&host) {
            return;
        }
        let Some(at) = self.any_running().filter(|at| *at != host) else { return };
        self.asked.insert(host);
        let (done, mut removed) = oneshot::channel();
        self.world.send(at, Command::Remove(node_name(host), done));
        let mut outcome = None;
        self.world.run_until(15_000, |_| {
            outcome = removed.try_recv().ok();
            outcome.is_some()
        });
        if outcome == Some(true) {
            self.removed.insert(host);
            let long = self.random.below(2_000);
            self.world.run_for(long);
            self.world.kill(host, Kill::Process);
        }
    }

    /// Everything is mended, everybody is back, nobody publishes any more: now everything must become even and equal.
    fn peace(&mut self) {
        self.shared.trace(format_args!("peace"));
        self.world.net.mend_all();
        for id in self.world.ids() {
            self.world.host(id).commit_ms = (0, 2);
            self.start(id);
        }
        self.world.run_for(LOAD_MS);
        self.shared.history().stopped = true;
        self.world.run_for(DEADLINE_MS + 500);
        let deadline = now() + SETTLE_MS;
        let mut bounced = BTreeSet::new();
        loop {
            self.bury_removed();
            let reports = self.reports();
            let unrest = match check::unrest(&reports, &self.settings, &self.removed, &self.shared) {
                None => return check::everything(&reports, &self.settings, &self.shared),
                Some(unrest) => unrest,
            };
            self.shared.trace(format_args!("not settled: {unrest}"));
            if now() >= deadline {
                return self.violation(format!("{SETTLE_MS} ms after the last fault: {unrest}"));
            }
            // A remove whose outcome was not known may have happened; a drained node is active again after its next start.
            let nodes = reports.values().flat_map(|report| &report.nodes);
            let drained: Vec<HostId> =
                nodes.filter(|node| node.state == NodeState::Draining).filter_map(|node| host_of(&node.name)).collect();
            for host in drained {
                if bounced.insert(host) {
                    self.stop(host);
                    self.start(host);
                }
            }
            self.world.run_for(300);
        }
    }

    /// A node that learns that it was removed ends by itself.
    fn bury_removed(&mut self) {
        let left = std::mem::take(&mut self.shared.history().left);
        for host in left {
            if !self.asked.contains(&host) {
                self.violation(format!("host {host} says that it was removed, and nobody wanted that"));
            }
            self.removed.insert(host);
            self.world.kill(host, Kill::Process);
        }
    }

    /// What every running node says of itself and of the cluster.
    fn reports(&mut self) -> BTreeMap<HostId, Report> {
        let mut waiting = Vec::new();
        for id in self.world.running() {
            let (answer, report) = oneshot::channel();
            self.world.send(id, Command::Report(answer));
            waiting.push((id, report));
        }
        let mut reports = BTreeMap::new();
        self.world.run_until(20_000, |_| {
            waiting.retain_mut(|(id, report)| match report.try_recv() {
                Ok(report) => {
                    reports.insert(*id, report);
                    false
                }
                Err(_) => true,
            });
            waiting.is_empty()
        });
        reports
    }
}

fn host_of(name: &evermesh::core::NodeName) -> Option<HostId> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

/// Every node is ready and sees so many.
pub fn is_whole(world: &mut World, hosts: usize) -> bool {
    let mut waiting = Vec::new();
    for id in world.running() {
        let (answer, report) = oneshot::channel();
        world.send(id, Command::Report(answer));
        waiting.push(report);
    }
    let mut whole = 0;
    world.run_until(3_000, |_| {
        waiting.retain_mut(|report| match report.try_recv() {
            Ok(Report { ready, nodes, .. }) => {
                let all = nodes.len() == hosts && nodes.iter().all(|node| node.reachable);
                whole += usize::from(ready == Readiness::Ready && all);
                false
            }
            Err(oneshot::error::TryRecvError::Closed) => false,
            Err(oneshot::error::TryRecvError::Empty) => true,
        });
        waiting.is_empty()
    });
    whole == hosts
}
