//! Many publishes under way on each connection, over a WebSocket or over NATS' own protocol.
//!
//! One thread writes what there is room for in one go, another reads the acknowledgements and gives the room back: as a good client does.

use crate::{
    Result,
    figures::{Figures, Out, histogram},
    frames::{Buffer, Framing},
    nats::{self, Nats},
    payload,
    system::{System, Target},
    ws,
};
use hdrhistogram::Histogram;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How long the last answers are waited for.
const DRAIN_WAIT: Duration = Duration::from_secs(15);
const READ_WAIT: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Events under way, over all connections; one connection for each address of `--at`
    #[arg(long, default_value_t = 2048)]
    in_flight: usize,
    /// Events in one request, where the system has batches
    #[arg(long, default_value_t = 1)]
    batch: usize,
}

/// One connection that publishes.
pub struct Lane {
    pub socket: TcpStream,
    pub buffer: Buffer,
    pub framing: Framing,
    pub sends: Sends,
}

/// How an event is asked to be stored.
#[derive(Clone)]
pub struct Sends {
    system: System,
    stream: String,
    reply: String,
    batch: usize,
}

impl Lane {
    pub fn connect(target: &Target, at: usize, batch: usize) -> Result<Lane> {
        let (address, stream) = (&target.at[at], target.stream.clone());
        let sends = |reply| Sends { system: target.system, stream: stream.clone(), reply, batch };
        match target.system {
            System::Evermesh => {
                let (socket, buffer) = ws::connect(address, "/v1/ws", Some("evermesh.v1.json"))?;
                Ok(Lane { socket, buffer, framing: Framing::WebSocket, sends: sends(String::new()) })
            }
            System::Nchan => {
                let (socket, buffer) = ws::connect(address, &format!("/pub/{stream}"), None)?;
                Ok(Lane { socket, buffer, framing: Framing::WebSocket, sends: sends(String::new()) })
            }
            System::Nats => {
                let nats = Nats::connect(address, Duration::from_secs(5))?;
                let reply = nats.reply(0);
                let reply = reply.trim_end_matches('0').to_owned();
                Ok(Lane { socket: nats.socket, buffer: nats.buffer, framing: Framing::Nats, sends: sends(reply) })
            }
            system => Err(format!("{system:?} has no pipelined publishing here").into()),
        }
    }
}

impl Sends {
    /// Appends request `id`, with the events from `(id - 1) * batch + 1` on.
    pub fn put(&self, out: &mut Vec<u8>, id: u64) {
        let (now, first) = (payload::now_us(), (id - 1) * self.batch as u64 + 1);
        match self.system {
            System::Nats => nats::put_publish(out, &self.stream, &format!("{}{id}", self.reply), &payload::event(first, now)),
            System::Nchan => ws::put(out, ws::TEXT, &payload::event(first, now)),
            _ if self.batch == 1 => {
                let mut command = format!("{{\"id\":{id},\"publish\":{{\"stream\":\"{}\",\"data\":", self.stream).into_bytes();
                command.extend(payload::event(first, now));
                command.extend(b"}}");
                ws::put(out, ws::TEXT, &command);
            }
            _ => {
                let mut command = format!("{{\"id\":{id},\"publish_batch\":{{\"stream\":\"{}\",\"events\":[", self.stream).into_bytes();
                for n in 0..self.batch as u64 {
                    command.extend(if n == 0 { &b"{\"data\":"[..] } else { b",{\"data\":" });
                    command.extend(payload::event(first + n, now));
                    command.push(b'}');
                }
                command.extend(b"]}}");
                ws::put(out, ws::TEXT, &command);
            }
        }
    }
}

/// Which request a message answers, and whether it was stored.
fn answer(framing: Framing, message: &[u8]) -> Option<(u64, bool)> {
    match framing {
        Framing::WebSocket => {
            let at = payload::find(&message[..message.len().min(64)], b"\"id\":")?;
            Some((payload::digits(&message[at + 5..]), payload::find(message, b"\"ack\":").is_some()))
        }
        Framing::Nats => {
            let subject = message.split(|&byte| byte == b' ').nth(1)?;
            let number = subject.rsplit(|&byte| byte == b'.').next()?;
            Some((payload::digits(number), nats::is_ack(message)))
        }
    }
}

/// What is under way on one connection.
struct Window {
    free: Mutex<usize>,
    freed: Condvar,
    size: usize,
    /// When request `id` was sent, at `id` modulo the length.
    sent_us: Vec<AtomicU64>,
    stopped: AtomicBool,
}

impl Window {
    fn new(size: usize) -> Window {
        let sent_us = (0..4 * size).map(|_| AtomicU64::new(0)).collect();
        Window { free: Mutex::new(size), freed: Condvar::new(), size, sent_us, stopped: AtomicBool::new(false) }
    }

    fn sent(&self, id: u64) -> &AtomicU64 {
        &self.sent_us[id as usize % self.sent_us.len()]
    }

    /// All the room there is; waits for some.
    fn take(&self, most: usize) -> usize {
        let free = self.free.lock().expect("nothing panics while it holds this lock");
        let waited = self.freed.wait_timeout_while(free, READ_WAIT, |free| *free == 0);
        let mut free = waited.expect("nothing panics while it holds this lock").0;
        let taken = most.min(*free);
        *free -= taken;
        taken
    }

    fn give(&self, count: usize) {
        if count > 0 {
            *self.free.lock().expect("nothing panics while it holds this lock") += count;
            self.freed.notify_one();
        }
    }

    fn idle(&self) -> bool {
        *self.free.lock().expect("nothing panics while it holds this lock") == self.size
    }
}

/// When publishing ends, on each connection.
#[derive(Clone, Copy)]
pub enum Until {
    Time { counted_from: Instant, end: Instant },
    Requests(u64),
}

pub struct Seen {
    /// Requests in all, and those counted: answered in the measured time.
    pub acked: u64,
    pub counted: u64,
    pub errors: u64,
    pub latencies: Histogram<u64>,
}

/// Publishes on one connection until then, and waits for the answers.
pub fn publish(lane: Lane, in_flight: usize, until: Until) -> Result<Seen> {
    let window = Window::new(in_flight);
    let Lane { socket, buffer, framing, sends } = lane;
    socket.set_read_timeout(Some(READ_WAIT))?;
    let writing = socket.try_clone()?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let outcome = write(writing, &sends, &window, until);
            window.stopped.store(true, Relaxed);
            outcome
        });
        let seen = read(socket, buffer, framing, &window, until);
        // With the answers gone, the writer has to end as well.
        window.stopped.store(true, Relaxed);
        writer.join().map_err(|_| "the writer failed")??;
        seen
    })
}

fn write(mut socket: TcpStream, sends: &Sends, window: &Window, until: Until) -> Result {
    let (mut id, mut out) = (0, Vec::new());
    loop {
        let left = match until {
            Until::Time { end, .. } if Instant::now() >= end => 0,
            Until::Time { .. } => usize::MAX,
            Until::Requests(all) => (all - id) as usize,
        };
        if left == 0 || window.stopped.load(Relaxed) {
            return Ok(());
        }
        out.clear();
        for _ in 0..window.take(left) {
            id += 1;
            window.sent(id).store(payload::now_us(), Relaxed);
            sends.put(&mut out, id);
        }
        socket.write_all(&out)?;
    }
}

fn read(mut socket: TcpStream, mut buffer: Buffer, framing: Framing, window: &Window, until: Until) -> Result<Seen> {
    let mut seen = Seen { acked: 0, counted: 0, errors: 0, latencies: histogram() };
    let mut stopped_at = None;
    while !(window.stopped.load(Relaxed) && window.idle()) {
        if window.stopped.load(Relaxed) && stopped_at.get_or_insert_with(Instant::now).elapsed() > DRAIN_WAIT {
            return Err("not every publish was answered".into());
        }
        let count = match socket.read(buffer.room()) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error.into()),
        };
        buffer.filled(count);
        let (now, counts) = (payload::now_us(), counts(until));
        let mut answered = 0;
        let send = buffer.take(framing, |message| {
            let Some((id, stored)) = answer(framing, message) else { return };
            answered += 1;
            match stored {
                false => seen.errors += 1,
                true => {
                    seen.acked += 1;
                    seen.counted += u64::from(counts);
                    seen.latencies.saturating_record(now.saturating_sub(window.sent(id).load(Relaxed)).max(1));
                }
            }
        })?;
        window.give(answered);
        socket.write_all(&send)?;
    }
    Ok(seen)
}

fn counts(until: Until) -> bool {
    match until {
        Until::Time { counted_from, end } => (counted_from..end).contains(&Instant::now()),
        Until::Requests(_) => true,
    }
}

pub fn run(args: &Args) -> Result {
    let before = args.target.stored()?;
    let lanes: Vec<_> = (0..args.target.at.len()).map(|at| Lane::connect(&args.target, at, args.batch)).collect::<Result<_>>()?;
    let in_flight = (args.in_flight / lanes.len() / args.batch).max(1);
    let counted_from = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let until = Until::Time { counted_from, end: counted_from + Duration::from_secs_f64(args.seconds) };
    let cpu = args.target.cpu_us();
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let lanes: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(move || publish(lane, in_flight, until))).collect();
        lanes.into_iter().map(|lane| lane.join().map_err(|_| "a publisher failed")?).collect::<Result<_>>()
    })?;
    let cpu = args.target.cpu_us() - cpu;
    let batch = args.batch as u64;
    let (mut latencies, mut acked, mut counted, mut errors) = (histogram(), 0, 0, 0);
    for lane in &seen {
        latencies.add(&lane.latencies)?;
        (acked, counted, errors) = (acked + lane.acked * batch, counted + lane.counted * batch, errors + lane.errors);
    }
    let figures = Figures::new().rate(counted, args.seconds).latencies(&latencies).set("errors", errors).cpu(cpu, acked);
    args.out.write(figures.stored(acked, before, args.target.stored()?).done())
}
