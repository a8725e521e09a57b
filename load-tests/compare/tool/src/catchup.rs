//! Reading a stream from its first event to its last over one connection, as a program does that comes back.

use crate::{
    Result,
    figures::{Figures, Out},
    frames::{Buffer, Framing},
    nats::Nats,
    payload,
    pipeline::{self, Lane, Until},
    system::{System, Target},
    ws,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Without a byte for so long, the rest is counted as lost.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Events of one request while the stream is filled, where there are batches.
const BATCH: usize = 500;
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Fill the stream and end; without it, read what is there
    #[arg(long)]
    fill: bool,
}

pub fn run(args: &Args) -> Result {
    if args.fill { fill(args) } else { read(args) }
}

fn fill(args: &Args) -> Result {
    let batch = if args.target.system == System::Evermesh { BATCH } else { 1 };
    let lane = Lane::connect(&args.target, 0, batch)?;
    let seen = pipeline::publish(lane, 4096 / batch, Until::Requests(args.events / batch as u64))?;
    match seen.errors {
        0 => Ok(()),
        errors => Err(format!("{errors} publishes failed while the stream was filled").into()),
    }
}

/// A connection on which all events are on their way.
fn open(target: &Target) -> Result<(TcpStream, Buffer, Framing)> {
    let (at, stream) = (&target.at[0], &target.stream);
    match target.system {
        System::Evermesh => {
            let (mut socket, buffer) = ws::connect(at, "/v1/ws", Some("evermesh.v1.json"))?;
            let command = format!("{{\"id\":1,\"subscribe\":{{\"stream\":\"{stream}\",\"from\":\"earliest\"}}}}");
            socket.write_all(&ws::frame(ws::TEXT, command.as_bytes()))?;
            Ok((socket, buffer, Framing::WebSocket))
        }
        System::Nats => {
            // What the clients call an ordered consumer: pushed, in memory, not acknowledged, with flow control.
            let (mut nats, deliver) = (Nats::connect(at, SILENCE_MAX)?, format!("deliver.{}", std::process::id()));
            nats.socket.write_all(format!("SUB {deliver} 2\r\n").as_bytes())?;
            let config = format!(
                "{{\"stream_name\":\"{stream}\",\"config\":{{\"deliver_subject\":\"{deliver}\",\"deliver_policy\":\"all\",\"ack_policy\":\"none\",\
                 \"max_deliver\":1,\"mem_storage\":true,\"num_replicas\":1,\"flow_control\":true,\"idle_heartbeat\":5000000000}}}}"
            );
            let mut request = format!("PUB $JS.API.CONSUMER.CREATE.{stream} {} {}\r\n", nats.reply(0), config.len()).into_bytes();
            request.extend(config.as_bytes());
            request.extend(b"\r\n");
            nats.socket.write_all(&request)?;
            Ok((nats.socket, nats.buffer, Framing::Nats))
        }
        system => Err(format!("{system:?} keeps no stream").into()),
    }
}

/// Where a message asks to be answered before more is sent.
fn flow_control(message: &[u8]) -> Option<Vec<u8>> {
    if !message.starts_with(b"HMSG") || payload::find(&message[..message.len().min(256)], b"FlowControl").is_none() {
        return None;
    }
    let reply = message.split(|&byte| byte == b' ').nth(3)?;
    Some([b"PUB ", reply, b" 0\r\n\r\n"].concat())
}

fn read(args: &Args) -> Result {
    let (cpu, began) = (args.target.cpu_us(), Instant::now());
    let (mut socket, mut buffer, framing) = open(&args.target)?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    if buffer.room().len() < BUFFER_BYTES {
        buffer.grow(BUFFER_BYTES);
    }
    let (mut count, mut disorder, mut last, mut first) = (0, 0, 0, None);
    while count < args.events {
        match socket.read(buffer.room()) {
            Ok(read @ 1..) => buffer.filled(read),
            _ => break,
        }
        let mut more = Vec::new();
        let send = buffer.take(framing, |message| {
            more.extend(flow_control(message).unwrap_or_default());
            payload::scan(message, |n, _| {
                disorder += u64::from(n != last + 1);
                last = n;
                count += 1;
            });
        })?;
        if count > 0 {
            first.get_or_insert_with(|| began.elapsed());
        }
        more.extend(send);
        socket.write_all(&more)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let figures = Figures::new()
        .rate(count, seconds)
        .set("seconds", seconds)
        .set("first_ms", first.unwrap_or_default().as_secs_f64() * 1000.0)
        .cpu(args.target.cpu_us() - cpu, count)
        .set("delivered", count)
        .set("lost", args.events.saturating_sub(count))
        .set("disorder", disorder);
    args.out.write(figures.done())
}
