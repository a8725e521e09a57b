//! The simulated machines: each with a runtime of its own whose clock stands still unless it is told, a disk in memory, and its place
//! on the network. All of them run on one thread, one millisecond each in turn.

use super::history::Shared;
use super::host::{self, Command};
use super::net::{HostId, Net};
use evermesh::node::Clock;
use evermesh::store::Stepper;
use evermesh::store::crash::{Disk, Fault, Random};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Milliseconds since the simulation began. One for the process, as there is one simulation in it.
static NOW: AtomicU64 = AtomicU64::new(0);
/// The wall clock at the beginning, in microseconds.
const BEGINNING: i64 = 1_800_000_000_000_000;

pub fn now() -> u64 {
    NOW.load(Relaxed)
}

/// How a process ends without having been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// The process alone: what it wrote is there, and its connections are closed.
    Process,
    /// The machine: what it did not sync may be gone or torn, and its connections hang.
    Power,
}

/// The disk's side of a running node: when the next commit will be done.
#[derive(Default)]
pub struct Storage {
    pub stepper: Option<Stepper>,
    commit_at: Option<u64>,
}

impl Storage {
    fn turn(&mut self, now: u64, random: &mut Random, (least, most): (u64, u64)) {
        let Some(stepper) = &mut self.stepper else { return };
        match self.commit_at {
            Some(at) if at > now => return,
            Some(_) => drop(stepper.step()),
            None => {}
        }
        self.commit_at = stepper.is_due().then(|| now + least + random.below(most - least + 1));
    }
}

pub struct Host {
    id: HostId,
    pub disk: Disk,
    pub skew_us: Arc<AtomicI64>,
    pub commit_ms: (u64, u64),
    pub boots: u64,
    random: Random,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    start: Instant,
    ticks: u64,
    storage: Arc<Mutex<Storage>>,
    commands: mpsc::UnboundedSender<Command>,
}

pub struct World {
    pub net: Net,
    pub shared: Arc<Shared>,
    pub random: Random,
    hosts: BTreeMap<HostId, Host>,
}

impl World {
    pub fn new(seed: u64, shared: Arc<Shared>) -> World {
        let mut random = Random(seed);
        World { net: Net::new(random.draw()), shared, random, hosts: BTreeMap::new() }
    }

    pub fn add_host(&mut self, id: HostId) {
        let random = Random(self.random.draw());
        let commit_ms = (0, 2);
        let host = Host { id, disk: Disk::default(), skew_us: Arc::default(), commit_ms, boots: 0, random, running: None };
        self.hosts.insert(id, host);
    }

    pub fn host(&mut self, id: HostId) -> &mut Host {
        self.hosts.get_mut(&id).expect("the scenario names hosts that it added")
    }

    pub fn ids(&self) -> Vec<HostId> {
        self.hosts.keys().copied().collect()
    }

    pub fn running(&self) -> Vec<HostId> {
        self.hosts.values().filter(|host| host.running.is_some()).map(|host| host.id).collect()
    }

    pub fn is_running(&self, id: HostId) -> bool {
        self.hosts.get(&id).is_some_and(|host| host.running.is_some())
    }

    /// Starts the host's node, if it does not run.
    pub fn start(&mut self, id: HostId) {
        let (net, shared, seed) = (self.net.clone(), self.shared.clone(), self.random.draw());
        let host = self.host(id);
        if host.running.is_some() {
            return;
        }
        host.boots += 1;
        shared.trace(format_args!("host {id} starts for the {}. time", host.boots));
        net.set_power(id, true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("it needs nothing");
        let start = runtime.block_on(async {
            // Off to a whole millisecond of the timer.
            sleep(Duration::from_millis(1)).await;
            Instant::now()
        });
        let (commands, waiting) = mpsc::unbounded_channel();
        let storage = Arc::new(Mutex::new(Storage::default()));
        let skew = host.skew_us.clone();
        let context = host::Context {
            id,
            boot: host.boots,
            random: Random(seed),
            net,
            disk: host.disk.clone(),
            storage: storage.clone(),
            clock: Clock::new(move || evermesh::core::Time(BEGINNING + now() as i64 * 1_000 + skew.load(Relaxed))),
            shared,
            commands: waiting,
        };
        runtime.spawn(host::run(context));
        host.running = Some(Running { runtime, start, ticks: 0, storage, commands });
    }

    pub fn kill(&mut self, id: HostId, how: Kill) {
        let (net, shared) = (self.net.clone(), self.shared.clone());
        let host = self.host(id);
        let Some(running) = host.running.take() else { return };
        shared.trace(format_args!("host {id} is killed: {how:?}"));
        // Before anything of the process is dropped: that may write.
        let next = match how {
            Kill::Process => host.disk.kill(),
            Kill::Power => host.disk.crash(&mut host.random),
        };
        if how == Kill::Power {
            net.set_power(id, false);
        }
        drop(running.runtime);
        drop(running.storage);
        host.disk = next;
        shared.died(id);
    }

    /// A host that stopped by itself: its disk is as it left it.
    pub fn bury(&mut self, id: HostId) {
        let host = self.host(id);
        if let Some(running) = host.running.take() {
            drop(running);
            host.disk = host.disk.kill();
            self.shared.died(id);
        }
    }

    /// The power fails at one of the next operations of the disk; returns once it did, at the latest after a while.
    pub fn kill_in_a_commit(&mut self, id: HostId) {
        if !self.is_running(id) {
            return;
        }
        let after = self.random.below(40);
        self.shared.expect_failure(id);
        let disk = self.host(id).disk.clone();
        disk.fail(after, Fault::PowerOff);
        for _ in 0..200 {
            if disk.failed() {
                break;
            }
            self.tick();
        }
        self.kill(id, Kill::Power);
    }

    pub fn send(&mut self, id: HostId, command: Command) {
        if let Some(running) = &self.host(id).running {
            let _ = running.commands.send(command);
        }
    }

    /// One millisecond everywhere.
    pub fn tick(&mut self) {
        let now = NOW.fetch_add(1, Relaxed) + 1;
        self.net.tick(now);
        for host in self.hosts.values_mut() {
            let Some(running) = &mut host.running else { continue };
            running.ticks += 1;
            let end = running.start + Duration::from_millis(running.ticks);
            let (storage, random, commit_ms) = (&running.storage, &mut host.random, host.commit_ms);
            running.runtime.block_on(async {
                storage.lock().expect("nobody panics while holding it").turn(now, random, commit_ms);
                sleep_until(end).await;
            });
        }
    }

    pub fn run_for(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.tick());
    }

    /// Runs until the condition holds; false if it does not within so many milliseconds.
    pub fn run_until(&mut self, within_ms: u64, mut condition: impl FnMut(&mut World) -> bool) -> bool {
        for _ in 0..within_ms {
            if condition(self) {
                return true;
            }
            self.tick();
        }
        condition(self)
    }
}
