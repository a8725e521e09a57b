//! `evermesh bench pub`: events from many connections, as fast as they are acknowledged or at a rate.
//!
//! - A connection has at most `in_flight` requests that wait; at a rate, one that is due while all are taken is dropped and counted.
//! - Over HTTP a lane is one request after another; over a WebSocket a connection pipelines and its acks come in any order.

use super::{payload::Payload, report::Report};
use crate::cli::{
    connect::Connect,
    failure::{Failure, Result},
    signals::Signals,
};
use crate::client::{Client, Error, Message, Options, Receiver, Sender};
use crate::core::limits;
use crate::wire::socket::{Command, Publish, PublishBatch};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

/// How long answers are waited for at the end.
const DRAIN_WAIT: Duration = Duration::from_secs(15);
/// After an error on a lane: a dead node must not become a loop without a pause.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The stream; created when missing
    #[arg(long, default_value = "bench")]
    stream: String,
    /// Events a second over all connections [default: as fast as they are acknowledged]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Connections, spread over the servers
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Events in one request
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=limits::BATCH_EVENTS_MAX as i64))]
    batch: u32,
    /// Bytes of one event; at least 32
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=limits::EVENT_BYTES_MAX as i64))]
    size: u32,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Requests that wait for their answer on one connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=limits::SOCKET_PENDING_MAX as i64))]
    in_flight: u32,
    /// Publish over WebSockets
    #[arg(long)]
    websocket: bool,
    /// Give every event an id, as a careful publisher does
    #[arg(long)]
    ids: bool,
    /// Publish what machines would report, which compresses, and not noise
    #[arg(long)]
    readings: bool,
}

/// When requests are due, over all connections.
struct Pace {
    began: Instant,
    /// Between two requests; `None`: at once.
    every: Option<Duration>,
    taken: AtomicU64,
    until: Instant,
}

impl Pace {
    fn new(args: &Args) -> Pace {
        let every = args.rate.map(|rate| Duration::from_secs_f64(f64::from(args.batch) / rate as f64));
        let began = Instant::now();
        Pace { began, every, taken: AtomicU64::new(0), until: began + Duration::from_secs(args.seconds) }
    }

    /// Waits until the next request is due and gives that time; `None` when the time is over.
    async fn next(&self) -> Option<Instant> {
        let Some(every) = self.every else {
            // Not even a sleep until now: timers have a grain of a millisecond, which would be measured along.
            let now = Instant::now();
            return (now < self.until).then_some(now);
        };
        let due = self.began + every.mul_f64(self.taken.fetch_add(1, Ordering::Relaxed) as f64);
        if due >= self.until {
            return None;
        }
        tokio::time::sleep_until(due).await;
        Some(due)
    }
}

pub async fn run(args: Args, connect: &Connect) -> Result {
    if args.batch as usize * args.size as usize > limits::BATCH_BYTES_MAX {
        return Err(Failure::usage(format!(
            "--batch times --size is over {} bytes, more than one request may have",
            limits::BATCH_BYTES_MAX
        )));
    }
    let options = Options { assign_ids: args.ids, connections: 1024, ..connect.options() };
    let client = connect.client_with(options.clone())?;
    client.put_stream(&args.stream, &Default::default()).await?;
    let (report, pace) = (Arc::new(Report::new("requests")), Arc::new(Pace::new(&args)));
    let payload = Arc::new(Payload::new(args.size as usize, args.readings));
    let mut lanes = JoinSet::new();
    for at in 0..args.connections {
        // Each begins at another server, so that they are spread.
        let mut servers = connect.servers().to_vec();
        let count = servers.len();
        servers.rotate_left(at as usize % count);
        let client = Client::new(&servers, options.clone())?;
        let (args, payload, report, pace) = (args.clone(), payload.clone(), report.clone(), pace.clone());
        match args.websocket {
            true => drop(lanes.spawn(socket_lane(client, args, payload, report, pace))),
            false => (0..args.in_flight).for_each(|_| {
                drop(lanes.spawn(http_lane(client.clone(), args.clone(), payload.clone(), report.clone(), pace.clone())));
            }),
        }
    }
    let began = Instant::now();
    let interruption = Signals::interruption()?;
    let interrupted = tokio::select! {
        () = report.tick() => false,
        () = async { while lanes.join_next().await.is_some() {} } => false,
        () = interruption.cancelled() => true,
    };
    // What was in flight at an interruption is not counted.
    lanes.shutdown().await;
    match report.finish(connect, began.elapsed()) {
        true if interrupted => Err(Failure::interrupted()),
        true => Ok(()),
        false => Err(Failure::new("not every event was stored once")),
    }
}

/// One request after another.
async fn http_lane(client: Client, args: Args, payload: Arc<Payload>, report: Arc<Report>, pace: Arc<Pace>) {
    while let Some(due) = pace.next().await {
        let outcome = match args.batch {
            1 => client.publish(&args.stream, message(&payload)).await.map(|answer| u64::from(answer.duplicate)),
            _ => client
                .publish_batch(&args.stream, (0..args.batch).map(|_| message(&payload)).collect())
                .await
                .map(|answer| u64::from(answer.duplicates)),
        };
        let failed = outcome.is_err();
        note(&report, &args, due, outcome);
        if failed {
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }
}

fn message(payload: &Payload) -> Message {
    Message { content_type: Some("application/json".into()), ..Message::new(payload.event()) }
}

fn note(report: &Report, args: &Args, due: Instant, outcome: std::result::Result<u64, Error>) {
    let mut tally = report.tally();
    match outcome {
        Ok(duplicates) => {
            tally.requests += 1;
            tally.events += u64::from(args.batch);
            tally.bytes += u64::from(args.batch) * u64::from(args.size);
            tally.duplicates += duplicates;
            tally.latency(due.elapsed());
        }
        Err(error) => tally.error(&error.to_string()),
    }
}

/// What one socket waits for: when each request was due.
type Waiting = Arc<Mutex<HashMap<u64, Instant>>>;

/// Connects again for as long as there is time; what was in flight when a connection broke counts as an error each.
async fn socket_lane(client: Client, args: Args, payload: Arc<Payload>, report: Arc<Report>, pace: Arc<Pace>) {
    while Instant::now() < pace.until {
        let socket = match client.socket().await {
            Ok(socket) => socket,
            Err(error) => {
                report.tally().error(&error.to_string());
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let (sender, receiver) = socket.split();
        let (waiting, room) = (Waiting::default(), Arc::new(Semaphore::new(args.in_flight as usize)));
        let receiving = receive(receiver, &args, &report, &waiting, &room);
        let sending = async {
            send(sender, &args, &payload, &report, &pace, &waiting, &room).await?;
            // Every permit back means that every answer is here.
            let _ = tokio::time::timeout(DRAIN_WAIT, room.acquire_many(args.in_flight)).await;
            Ok(())
        };
        let outcome = tokio::select! {
            outcome = receiving => outcome,
            outcome = sending => outcome,
        };
        let lost = waiting.lock().expect("nothing panics while it holds this lock").len();
        let why = outcome.err().map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
        (0..lost).for_each(|_| report.tally().error(&why));
    }
}

async fn send(
    mut sender: Sender,
    args: &Args,
    payload: &Payload,
    report: &Report,
    pace: &Pace,
    waiting: &Waiting,
    room: &Semaphore,
) -> std::result::Result<(), Error> {
    let mut id = 0;
    while let Some(due) = pace.next().await {
        // At a rate nobody waits for room: that would hide how far behind the other side is.
        let permit = match pace.every {
            Some(_) => room.try_acquire().ok(),
            None => room.acquire().await.ok(),
        };
        let Some(permit) = permit else {
            report.tally().dropped += 1;
            continue;
        };
        permit.forget();
        id += 1;
        let due = if pace.every.is_some() { due } else { Instant::now() };
        waiting.lock().expect("nothing panics while it holds this lock").insert(id, due);
        sender.send(&command(args, payload, id)).await?;
    }
    Ok(())
}

fn command(args: &Args, payload: &Payload, id: u64) -> Command {
    if args.batch == 1 {
        let event = message(payload).into_batch_event();
        let publish = Publish { stream: args.stream.clone(), data: event.data, content_type: event.content_type, ..Publish::default() };
        return Command { id, publish: Some(publish), ..Command::default() };
    }
    let events = (0..args.batch).map(|_| message(payload).into_batch_event()).collect();
    Command { id, publish_batch: Some(PublishBatch { stream: args.stream.clone(), events, expected_last_seq: None }), ..Command::default() }
}

async fn receive(
    mut receiver: Receiver,
    args: &Args,
    report: &Report,
    waiting: &Waiting,
    room: &Semaphore,
) -> std::result::Result<(), Error> {
    loop {
        let frame = receiver.next().await?;
        let Some(id) = frame.id else { continue };
        let Some(due) = waiting.lock().expect("nothing panics while it holds this lock").remove(&id) else { continue };
        room.add_permits(1);
        let outcome = match (frame.ack, frame.error) {
            (Some(ack), _) => Ok(u64::from(ack.duplicate.unwrap_or(false)) + u64::from(ack.duplicates.unwrap_or(0))),
            (None, Some(problem)) => Err(Error::Problem { server: String::new(), problem: Box::new(problem) }),
            (None, None) => continue,
        };
        note(report, args, due, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(size: u32, rate: Option<u64>, batch: u32) -> Args {
        Args {
            stream: "s".into(),
            rate,
            connections: 1,
            batch,
            size,
            seconds: 1,
            in_flight: 1,
            websocket: false,
            ids: false,
            readings: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_all_lanes() {
        let pace = Pace::new(&args(256, Some(100), 10));
        let mut due = 0;
        while pace.next().await.is_some() {
            due += 1;
        }
        assert_eq!(due, 10, "100 events a second in requests of 10, for one second");
    }
}
