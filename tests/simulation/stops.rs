//! How long a publish waits at the other nodes while one leaves: graceful stops, one after the other, of nodes that lead, at any moment
//! after the node before came back, so also in the middle of leaderships that go back to it.

use super::history::Shared;
use super::host::{Command, stream_name};
use super::net::HostId;
use super::scenario::{STREAMS, Verdict, is_whole};
use super::world::{Kill, World, now};
use evermesh::core::SettingsPatch;
use evermesh::store::crash::Random;
use std::sync::Arc;
use tokio::sync::oneshot;

const HOSTS: usize = 3;
/// Longest wait for the young cluster, in milliseconds.
const YOUNG_MS: u64 = 30_000;
/// Nodes that are stopped.
const STOPS: usize = 5;
/// Load after each stop that belongs to it, in milliseconds.
const AFTER_MS: u64 = 1_000;
/// Longest wait of a publish at a node that stays, in milliseconds: a hand-over is a few round trips and commits.
pub const WAIT_MS_MAX: u64 = 100;

pub fn run(seed: u64, verbose: bool) -> Verdict {
    let shared = Arc::new(Shared::new(STREAMS, verbose));
    let mut random = Random(seed);
    let mut world = World::new(random.draw(), shared.clone());
    shared.history().pause_ms = 60;
    let mut slowest = Vec::new();
    if begin(&mut world) {
        for _ in 0..STOPS {
            let host = 1 + random.below(HOSTS as u64) as usize;
            slowest.push(stop(&mut world, host));
            world.start(host);
            world.run_for(500 + random.below(5_000));
        }
    } else {
        shared.violation(format!("{HOSTS} nodes did not become a cluster within {YOUNG_MS} ms"));
    }
    shared.history().stopped = true;
    let history = shared.history();
    Verdict { violations: history.violations.clone(), digest: history.digest(), summary: format!("longest waits {slowest:?} ms") }
}

fn begin(world: &mut World) -> bool {
    for id in 1..=HOSTS {
        world.add_host(id);
        world.start(id);
        world.run_for(20);
    }
    if !world.run_until(YOUNG_MS, |world| now().is_multiple_of(100) && is_whole(world, HOSTS)) {
        return false;
    }
    for stream in 0..STREAMS {
        world.send(1 + stream % HOSTS, Command::Put(stream_name(stream).to_string(), SettingsPatch::default()));
    }
    world.run_for(1_000);
    world.shared.history().begun = true;
    world.run_for(500);
    true
}

/// Stops a host; gives the longest wait of a publish at the others.
fn stop(world: &mut World, host: HostId) -> u64 {
    let from = now();
    world.shared.trace(format_args!("host {host} is asked to stop"));
    let (done, mut stopped) = oneshot::channel();
    world.send(host, Command::Stop(done));
    let took = if world.run_until(20_000, |_| stopped.try_recv().is_ok()) { now() - from } else { u64::MAX };
    world.bury(host);
    world.run_for(AFTER_MS);
    let mut history = world.shared.history();
    let (wait, op) = history.longest_wait(from, host);
    if wait > WAIT_MS_MAX {
        history.violation(format!("op {op} waited {wait} ms when host {host} was stopped at {from} ms, which took {took} ms"));
    }
    drop(history);
    if took == u64::MAX {
        world.kill(host, Kill::Process);
    }
    wait
}
