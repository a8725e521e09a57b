//! `evermesh bench sub`: many subscribers of one stream, each checking that it misses nothing and sees nothing twice.

use super::{now_us, report::Report};
use crate::cli::{
    connect::Connect,
    failure::{Failure, Result},
    signals::Signals,
};
use crate::client::{Client, Item, Options, Subscribe};
use crate::wire::{Event, Start};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

/// Connections that are being made at a time.
const CONNECTING_MAX: usize = 64;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The stream
    #[arg(long, default_value = "bench")]
    stream: String,
    /// Subscribers, spread over the servers
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Where each starts: a seq, earliest, latest, new, or a time
    #[arg(long, default_value = "new", value_parser = |text: &str| Start::parse(text).ok_or("no seq, earliest, latest, new or time"))]
    from: Start,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

/// What `bench pub` puts into an event.
#[derive(Deserialize)]
struct Stamp {
    us: u64,
}

pub async fn run(args: Args, connect: &Connect) -> Result {
    let options = Options { resume_wait: Duration::from_secs(args.seconds), ..connect.options() };
    let report = Arc::new(Report::new("deliveries"));
    let gate = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut subscribers = JoinSet::new();
    for at in 0..args.connections {
        let mut servers = connect.servers().to_vec();
        let count = servers.len();
        servers.rotate_left(at as usize % count);
        let client = Client::new(&servers, options.clone())?;
        subscribers.spawn(subscriber(client, args.clone(), report.clone(), gate.clone()));
    }
    let began = Instant::now();
    let interruption = Signals::interruption()?;
    let interrupted = tokio::select! {
        () = report.tick() => false,
        () = tokio::time::sleep(Duration::from_secs(args.seconds)) => false,
        () = async { while subscribers.join_next().await.is_some() {} } => false,
        () = interruption.cancelled() => true,
    };
    subscribers.shutdown().await;
    match report.finish(connect, began.elapsed()) {
        true if interrupted => Err(Failure::interrupted()),
        true => Ok(()),
        false => Err(Failure::new("not every event came once")),
    }
}

async fn subscriber(client: Client, args: Args, report: Arc<Report>, gate: Arc<Semaphore>) {
    let mut subscription = {
        let _turn = gate.acquire().await;
        match client.subscribe(&args.stream, Subscribe { from: args.from, subject: None }).await {
            Ok(subscription) => subscription,
            Err(error) => return report.tally().error(&error.to_string()),
        }
    };
    loop {
        match subscription.next().await {
            Ok(Item::Events(events)) => take(&report, &events),
            Ok(Item::Gap(gap) | Item::Hole(gap)) => report.tally().gaps += gap.to - gap.from + 1,
            Ok(Item::Moved { why, .. }) => report.tally().error(&why),
            Err(error) => return report.tally().error(&error.to_string()),
        }
    }
}

fn take(report: &Report, events: &[Event]) {
    let now = now_us();
    let stamps: Vec<_> =
        events.iter().map(|event| event.data.as_ref().and_then(|data| serde_json::from_str::<Stamp>(data.get()).ok())).collect();
    let mut tally = report.tally();
    tally.requests += events.len() as u64;
    tally.events += events.len() as u64;
    tally.bytes += events.iter().map(|event| event.data.as_ref().map_or(0, |data| data.get().len() as u64)).sum::<u64>();
    // The publisher's clock may be ahead of ours by a little.
    stamps.into_iter().flatten().for_each(|stamp| tally.latency_us(now.saturating_sub(stamp.us)));
    tally.duplicates += events.windows(2).filter(|pair| pair[1].seq <= pair[0].seq).count() as u64;
}
