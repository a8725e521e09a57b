//! The load: publishers and readers of every kind, through every node, and what they write down.
//!
//! Each publisher and reader is a task of its own that owns what it records; what all of them share is in `Shared`.

pub mod checker;
pub mod http;
pub mod leaders;
pub mod publisher;
pub mod reader;
pub mod shared;
pub mod socket;
pub mod sources;
pub mod watch;

pub use shared::Shared;

use self::publisher::{Publisher, Recorded, Style};
use self::reader::{Form, Reader};
use crate::cluster::admin::Admin;
use crate::random::Random;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How much of it there is.
#[derive(Clone, Debug)]
pub struct Size {
    pub streams: usize,
    pub readers_per_stream: usize,
    /// Events a second that are aimed at, all publishers together.
    pub rate: u64,
}

pub struct Workload {
    publishers: JoinSet<Recorded>,
    readers: JoinSet<Reader>,
    checkers: JoinSet<()>,
}

/// The last stream is for publishers that expect a last seq; they would only get in the others' way.
pub fn stream_names(size: &Size) -> Vec<String> {
    (1..size.streams).map(|n| format!("s{n}")).chain(["expecting".to_owned()]).collect()
}

pub async fn create_streams(admin: &Admin, node: &str, names: &[String], nodes: usize) -> Result<(), String> {
    for (at, name) in names.iter().enumerate() {
        let replicas = if nodes >= 5 && at % 2 == 1 { 5 } else { nodes.min(3) };
        // Longer than any retry: an id must be known for as long as it is repeated.
        admin.create(node, name, json!({ "replicas": replicas, "dedup_window": "10m" })).await?;
    }
    Ok(())
}

pub fn start(shared: &Arc<Shared>, size: &Size) -> Workload {
    let mut workload = Workload { publishers: JoinSet::new(), readers: JoinSet::new(), checkers: JoinSet::new() };
    let (expecting, plain) = (shared.streams.len() - 1, 0..shared.streams.len() - 1);
    let styles = [
        Style::Single { ids: true },
        Style::Single { ids: false },
        Style::Batch { ids: true },
        Style::Batch { ids: false },
        Style::Socket { ids: true },
        Style::Socket { ids: false },
    ];
    let mut plan: Vec<(usize, Style)> = plain.flat_map(|stream| styles.map(|style| (stream, style))).collect();
    plan.extend([true, false, true].map(|ids| (expecting, Style::Expecting { ids })));
    let events_in_a_round: u64 = plan.iter().map(|(_, style)| style.events()).sum();
    let pause = Duration::from_millis(1000 * events_in_a_round / size.rate.max(1));
    for (at, (stream, style)) in plan.into_iter().enumerate() {
        let publisher = Publisher::new(shared.clone(), at as u64 + 1, stream, style, pause);
        workload.publishers.spawn(publisher.run());
    }
    for stream in 0..shared.streams.len() {
        for number in 0..size.readers_per_stream {
            let form = Form::ALL[(stream + number) % Form::ALL.len()];
            workload.readers.spawn(Reader::new(shared.clone(), stream, form, number).run());
        }
    }
    for number in 0..4 {
        workload.checkers.spawn(checker::run(shared.clone(), Random::part(shared.seed, 7_000 + number)));
    }
    workload
}

impl Workload {
    /// Ends the publishers, each with its outcomes known or given up.
    pub async fn end_publishers(&mut self, shared: &Shared) -> Vec<Recorded> {
        shared.ending.cancel();
        let mut all = Vec::new();
        while let Some(recorded) = self.publishers.join_next().await {
            all.extend(recorded.map_err(|error| shared.harness_failed(&error.to_string())));
        }
        all
    }

    /// Lets the readers read to the end, for at most so long; gives them back.
    pub async fn end_readers(&mut self, shared: &Shared, patience: Duration) -> Vec<Reader> {
        let closing = shared.closing.clone();
        let patience = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            closing.cancel();
        });
        shared.finishing.cancel();
        let mut all = Vec::new();
        while let Some(reader) = self.readers.join_next().await {
            all.extend(reader.map_err(|error| shared.harness_failed(&error.to_string())));
        }
        patience.abort();
        shared.closing.cancel();
        while self.checkers.join_next().await.is_some() {}
        all
    }
}
