//! What a node counts, as Prometheus text. Not labelled by stream: ten thousand streams would be ten thousand series.

use super::{Inner, figures};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use std::sync::Mutex;

/// Counters that the verbs bump, and gauges that are read when the page is asked for.
pub struct Metrics {
    pub publish_requests: Counter,
    pub publish_events: Counter,
    pub publish_bytes: Counter,
    pub publish_seconds: Histogram,
    pub publish_stages: Stages,
    pub read_events: Counter,
    pub replicas_fenced: Counter,
    pub rebuilds_done: Counter,
    pub fallen_asleep: Counter,
    /// By [`HandOver`].
    pub handed_over: [Counter; HandOver::ALL.len()],
    registry: Mutex<Registry>,
    peers_connected: Gauge,
    nodes: Gauge,
    streams: Gauge,
    streams_held: Gauge,
    streams_led: Gauge,
    streams_without_leader: Gauge,
    streams_asleep: Gauge,
    replicas_damaged: Gauge,
    replicas_rebuilding: Gauge,
    pending_bytes: Gauge,
    disk_free_bytes: Gauge,
    disk_reserve_bytes: Gauge,
    disk_level: Gauge,
}

/// Where the time of publishes goes, in seconds. What `publish_seconds` has beside them is network and HTTP. Clones count together.
#[derive(Clone)]
pub struct Stages {
    /// Of each request, at the node that was asked: until it is sent to the leader.
    pub route: Histogram,
    /// Of each call, at the leader: until an entry is made with it.
    pub queue: Histogram,
    /// Of each entry, at the leader: until a majority has it on disk and it is applied.
    pub commit: Histogram,
}

impl Stages {
    fn register(registry: &mut Registry) -> Stages {
        let family = Family::<[(&str, &str); 1], Histogram, _>::new_with_constructor(|| Histogram::new(latency_bounds()));
        let stage = |name| family.get_or_create(&[("stage", name)]).clone();
        let stages = Stages { route: stage("route"), queue: stage("queue"), commit: stage("commit") };
        let help = "Waiting at this node for the leader to be sent to, at the leader for an entry, and for its commit";
        registry.register("publish_stage_seconds", help, family);
        stages
    }
}

/// Why this node hands a leadership over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// It stops.
    Stop,
    /// Somebody asked for it.
    Asked,
    /// The catalog prefers another replica.
    Placement,
    /// Its disk is short of room.
    Disk,
}

impl HandOver {
    pub const ALL: [(HandOver, &str); 4] =
        [(HandOver::Stop, "stop"), (HandOver::Asked, "asked"), (HandOver::Placement, "placement"), (HandOver::Disk, "disk")];
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("evermesh");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let publish_requests = counter("publish_requests", "Publish requests admitted by this node");
        let publish_events = counter("publish_events", "Events in publish requests admitted by this node");
        let publish_bytes = counter("publish_bytes", "Bytes of those events");
        let read_events = counter("read_events", "Events given to readers by this node, live and from the log");
        let replicas_fenced = counter("replicas_fenced", "Replicas of this node that were found damaged and taken out of service");
        let rebuilds_done = counter("rebuilds_done", "Damaged replicas of this node that were made anew from the others");
        let fallen_asleep = counter("streams_fallen_asleep", "Streams that this node led and put to sleep, as nothing happened to them");
        let publish_seconds = Histogram::new(latency_bounds());
        registry.register("publish_seconds", "From admission to acknowledgement of publishes of this node", publish_seconds.clone());
        let publish_stages = Stages::register(&mut registry);
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Metrics {
            publish_requests,
            publish_events,
            publish_bytes,
            publish_seconds,
            publish_stages,
            read_events,
            replicas_fenced,
            rebuilds_done,
            fallen_asleep,
            handed_over: Default::default(),
            peers_connected: gauge("peers_connected", "Peers that this node can reach"),
            nodes: gauge("nodes", "Nodes of the cluster"),
            streams: gauge("streams", "Streams of the cluster"),
            streams_held: gauge("streams_held", "Streams with a replica on this node"),
            streams_led: gauge("streams_led", "Streams led by this node"),
            streams_without_leader: gauge("streams_without_leader", "Streams held by this node that know no leader"),
            streams_asleep: gauge("streams_asleep", "Streams held by this node to which nothing happens: their replica here is closed"),
            replicas_damaged: gauge("replicas_damaged", "Replicas of this node that are damaged and cannot be rebuilt at present"),
            replicas_rebuilding: gauge("replicas_rebuilding", "Damaged replicas of this node that are being made anew from the others"),
            pending_bytes: gauge("publish_pending_bytes", "Bytes of publishes that wait for their outcome"),
            disk_free_bytes: gauge("disk_free_bytes", "Bytes free on the disk of this node's data, without what waits to be written"),
            disk_reserve_bytes: gauge("disk_reserve_bytes", "Free bytes below which this node takes nothing new"),
            disk_level: gauge("disk_level", "0: enough room on the disk, 1: less than the reserve, 2: less than half of it"),
            registry: Mutex::new(registry),
        }
    }
}

/// Bounds of the buckets of a latency, in seconds: each half as long again as the one before, from 0.1 ms to about 11 s.
fn latency_bounds() -> impl Iterator<Item = f64> {
    (0..30).map(|power| 1e-4 * 1.5f64.powi(power))
}

impl Metrics {
    pub fn text(&self, node: &Inner) -> String {
        self.read(node);
        let mut text = String::new();
        let registry = self.registry.lock().expect("nobody panics while holding it");
        encode(&mut text, &registry).expect("writing to a string does not fail");
        // The encoder's last line says that nothing follows; the other rooms' numbers come before it.
        let mut text = text.trim_end().trim_end_matches("# EOF").to_owned();
        figures::write(&mut text, node);
        text.push_str("# EOF\n");
        text
    }

    fn read(&self, node: &Inner) {
        self.peers_connected.set(node.alive().len() as i64 - 1);
        self.nodes.set(node.directory.members().len() as i64);
        self.streams.set(node.directory.read().streams.len() as i64);
        let groups = node.groups.all();
        let streams = groups.iter().filter(|group| group.id() != 0);
        let asleep = node.streams.read().expect("nobody panics while holding it").values().filter(|stream| node.is_asleep(stream)).count();
        let (mut held, mut led, mut without) = (asleep as i64, 0, 0);
        for group in streams {
            let leadership = group.current();
            held += 1;
            led += i64::from(leadership.mine.is_some());
            without += i64::from(leadership.leader.is_none());
        }
        self.streams_asleep.set(asleep as i64);
        self.streams_held.set(held);
        self.streams_led.set(led);
        self.streams_without_leader.set(without);
        let (damaged, rebuilding) = node.rebuilds.counts();
        self.replicas_damaged.set(damaged as i64);
        self.replicas_rebuilding.set(rebuilding as i64);
        let space = node.store.space_now();
        self.disk_free_bytes.set(space.free as i64);
        self.disk_reserve_bytes.set(space.reserve as i64);
        self.disk_level.set(space.level as i64);
        let room = node.room.available_permits();
        self.pending_bytes.set(crate::core::limits::PENDING_BYTES_MAX.saturating_sub(room) as i64);
    }
}
