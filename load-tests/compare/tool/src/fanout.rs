//! Many subscribers of one stream, each of which checks that it gets every event once and in order.
//!
//! - Without a rate, the publisher keeps at most `WINDOW` events ahead of what the subscribers have on average: as many deliveries as
//!   the system can make, and no more waiting than that.
//! - With a rate, events are due on a clock, and the time from there to each delivery is what is measured.

use crate::{
    Result,
    figures::{Figures, Out, histogram},
    frames::{Buffer, Framing},
    nats::Nats,
    payload,
    pipeline::Lane,
    system::{System, Target},
    ws,
};
use hdrhistogram::Histogram;
use std::{
    io::{ErrorKind, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const WINDOW: u64 = 512;
const TICK: Duration = Duration::from_millis(1);
/// Between the last subscription and the first event.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the last deliveries are waited for.
const DRAIN_WAIT: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    /// Sockets, spread over the nodes
    #[arg(long)]
    subscribers: usize,
    /// Events a second [default: as many as can be delivered]
    #[arg(long)]
    rate: Option<u64>,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Subscribe with one stream and one event a frame, where there is a choice
    #[arg(long)]
    plain: bool,
}

/// What all subscribers have seen.
struct Board {
    delivered: AtomicU64,
    /// Out of their place: missing before, or come before.
    disorder: AtomicU64,
    /// Connections that ended.
    broken: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    /// Latencies are kept.
    timed: AtomicBool,
}

/// A connection that follows the stream.
struct Subscriber {
    socket: std::net::TcpStream,
    buffer: Buffer,
    framing: Framing,
}

fn subscribe(args: &Args, number: usize) -> Result<Subscriber> {
    let (target, stream) = (&args.target, &args.target.stream);
    let at = &target.at[number % target.at.len()];
    let websocket = |(socket, buffer)| Subscriber { socket, buffer, framing: Framing::WebSocket };
    match target.system {
        System::Evermesh if args.plain => Ok(websocket(ws::connect(at, &format!("/v1/streams/{stream}/ws?from=new"), None)?)),
        System::Evermesh => {
            let (mut socket, buffer) = ws::connect(at, "/v1/ws", Some("evermesh.v1.json"))?;
            let command = format!("{{\"id\":1,\"subscribe\":{{\"stream\":\"{stream}\",\"from\":\"new\"}}}}");
            socket.write_all(&ws::frame(ws::TEXT, command.as_bytes()))?;
            Ok(websocket((socket, buffer)))
        }
        System::Nchan => Ok(websocket(ws::connect(at, &format!("/sub/{stream}"), None)?)),
        System::Nats => {
            let mut nats = Nats::connect(at, DRAIN_WAIT)?;
            nats.socket.write_all(format!("SUB {stream} 2\r\n").as_bytes())?;
            Ok(Subscriber { socket: nats.socket, buffer: nats.buffer, framing: Framing::Nats })
        }
        system => Err(format!("{system:?} has no subscribers here").into()),
    }
}

async fn follow(subscriber: Subscriber, board: Arc<Board>) -> Result {
    let Subscriber { socket, mut buffer, framing } = subscriber;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let (mut last, mut late) = (0, Vec::new());
    loop {
        socket.readable().await?;
        match socket.try_read(buffer.room()) {
            Ok(0) => return Err("closed".into()),
            Ok(count) => buffer.filled(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        let (now, timed) = (payload::now_us(), board.timed.load(Relaxed));
        let (mut count, mut disorder) = (0, 0);
        let send = buffer.take(framing, |message| {
            payload::scan(message, |n, us| {
                disorder += u64::from(n != last + 1);
                last = n;
                count += 1;
                if timed {
                    late.push(now.saturating_sub(us).max(1));
                }
            })
        })?;
        board.delivered.fetch_add(count, Relaxed);
        board.disorder.fetch_add(disorder, Relaxed);
        if !late.is_empty() {
            let mut latencies = board.latencies.lock().expect("nothing panics while it holds this lock");
            late.drain(..).for_each(|us| latencies.saturating_record(us));
        }
        if !send.is_empty() {
            socket.writable().await?;
            socket.try_write(&send)?;
        }
    }
}

/// How many events may have been sent by now.
enum Pace {
    Ahead { subscribers: u64 },
    Clock { began: Instant, rate: u64 },
}

impl Pace {
    fn allowed(&self, board: &Board) -> u64 {
        match self {
            Pace::Ahead { subscribers } => board.delivered.load(Relaxed) / subscribers + WINDOW,
            Pace::Clock { began, rate } => (began.elapsed().as_secs_f64() * *rate as f64) as u64,
        }
    }
}

/// Sends until it is told to stop; how many were sent.
fn feed(lane: Lane, pace: &Pace, board: &Board, stop: &AtomicBool) -> Result<u64> {
    let Lane { mut socket, mut buffer, framing, sends } = lane;
    let mut answers = socket.try_clone()?;
    // Answers are read so that the server is not held up; whether everything arrived is the subscribers' to say.
    std::thread::spawn(move || {
        while let Ok(count @ 1..) = answers.read(buffer.room()) {
            buffer.filled(count);
            if buffer.take(framing, |_| {}).is_err() {
                return;
            }
        }
    });
    let (mut sent, mut out) = (0, Vec::new());
    while !stop.load(Relaxed) {
        let allowed = pace.allowed(board);
        if sent >= allowed {
            std::thread::sleep(TICK);
            continue;
        }
        out.clear();
        while sent < allowed {
            sent += 1;
            sends.put(&mut out, sent);
        }
        socket.write_all(&out)?;
    }
    // The last event has to be out before the connection goes.
    std::thread::sleep(SETTLE);
    Ok(sent)
}

pub fn run(args: &Args) -> Result {
    let board = Arc::new(Board {
        delivered: AtomicU64::new(0),
        disorder: AtomicU64::new(0),
        broken: AtomicU64::new(0),
        latencies: Mutex::new(histogram()),
        timed: AtomicBool::new(false),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for number in 0..args.subscribers {
        let (subscriber, board) = (subscribe(args, number)?, board.clone());
        runtime.spawn(async move {
            if follow(subscriber, board.clone()).await.is_err() {
                board.broken.fetch_add(1, Relaxed);
            }
        });
    }
    std::thread::sleep(SETTLE);
    let lane = Lane::connect(&args.target, 0, 1)?;
    let began = Instant::now();
    let subscribers = args.subscribers as u64;
    let pace = args.rate.map_or(Pace::Ahead { subscribers }, |rate| Pace::Clock { began, rate });
    let stop = AtomicBool::new(false);
    let (sent, delivered, cpu) = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| feed(lane, &pace, &board, &stop));
        std::thread::sleep(Duration::from_secs_f64(args.warm_up));
        board.timed.store(args.rate.is_some(), Relaxed);
        let (from, cpu) = (board.delivered.load(Relaxed), args.target.cpu_us());
        std::thread::sleep(Duration::from_secs_f64(args.seconds));
        let (delivered, cpu) = (board.delivered.load(Relaxed) - from, args.target.cpu_us() - cpu);
        board.timed.store(false, Relaxed);
        stop.store(true, Relaxed);
        feeding.join().map_err(|_| "the publisher failed")?.map(|sent| (sent, delivered, cpu))
    })?;
    let (due, until) = (sent * subscribers, Instant::now() + DRAIN_WAIT);
    while board.delivered.load(Relaxed) < due && board.broken.load(Relaxed) == 0 && Instant::now() < until {
        std::thread::sleep(TICK);
    }
    let came = board.delivered.load(Relaxed);
    let mut figures = Figures::new().rate(delivered, args.seconds).cpu(cpu, delivered);
    if args.rate.is_some() {
        figures = figures.latencies(&board.latencies.lock().expect("nothing panics while it holds this lock"));
    }
    let figures = figures
        .set("published", sent)
        .set("delivered", came)
        .set("lost", due.saturating_sub(came))
        .set("disorder", board.disorder.load(Relaxed))
        .set("broken", board.broken.load(Relaxed));
    args.out.write(figures.done())
}
