//! `evermesh bench loopback`: what this machine's kernel alone takes to hand one event to many connections.
//!
//! A plain program with plain threads: no node, no disk, no WebSocket, no JSON. What a delivery costs beyond this is ours.

use super::latencies::{FEW, Latencies};
use crate::cli::{
    connect::Connect,
    failure::{Failure, Result, io},
};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// An event says when it was sent: nanoseconds since the beginning, little endian.
const STAMP_BYTES: usize = size_of::<u64>();

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Connections
    #[arg(long, short, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Events a second, each to every connection
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Bytes of an event on the wire
    #[arg(long, value_name = "BYTES", default_value_t = 330, value_parser = clap::value_parser!(u32).range(STAMP_BYTES as i64..=65_536))]
    size: u32,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

pub fn run(args: &Args, connect: &Connect) -> Result {
    let failed = || io("the connections to this machine itself");
    let (mut near, far) = connections(args.connections).map_err(failed())?;
    let began = Instant::now();
    let readers = read(far, args.size as usize, began);
    let sent = send(&mut near, args, began);
    // The readers come to the end of what was sent.
    drop(near);
    let mut latencies = Latencies::new();
    for reader in readers {
        let read = reader.join().map_err(|_| Failure::new("a reader failed"))?.map_err(failed())?;
        latencies.add(&read);
    }
    sent.map_err(failed())?;
    let result = json!({
        "connections": args.connections, "rate": args.rate, "size": args.size, "deliveries": latencies.count(),
        "latency_ms": latencies.json(FEW),
    });
    connect.print(&result, |_| {
        format!(
            "{} deliveries: {} events a second of {} bytes to each of {} connections over loopback\n{}",
            latencies.count(),
            args.rate,
            args.size,
            args.connections,
            latencies.text(FEW)
        )
    });
    if latencies.count() == 0 { Err(Failure::new("nothing was measured")) } else { Ok(()) }
}

/// Pairs of connected sockets: the writer's ends and the readers'.
fn connections(count: u32) -> std::io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let pair = |_| {
        let far = TcpStream::connect(address)?;
        let (near, _) = listener.accept()?;
        near.set_nodelay(true)?;
        Ok((near, far))
    };
    (0..count).map(pair).collect()
}

/// Readers, one a core; each goes over its connections in turn, as they are written to in turn.
fn read(far: Vec<TcpStream>, size: usize, began: Instant) -> Vec<JoinHandle<std::io::Result<Latencies>>> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut parts: Vec<Vec<TcpStream>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, socket) in far.into_iter().enumerate() {
        parts[at % threads].push(socket);
    }
    let reader = |mut part: Vec<TcpStream>| {
        std::thread::spawn(move || {
            let (mut latencies, mut event) = (Latencies::new(), vec![0; size]);
            loop {
                for socket in &mut part {
                    match socket.read_exact(&mut event) {
                        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(latencies),
                        read => read?,
                    }
                    let stamp = event.first_chunk().map_or(0, |stamp| u64::from_le_bytes(*stamp));
                    latencies.record(began.elapsed().saturating_sub(Duration::from_nanos(stamp)));
                }
            }
        })
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(reader).collect()
}

/// Events on a clock, each written to every connection.
fn send(near: &mut [TcpStream], args: &Args, began: Instant) -> std::io::Result<()> {
    let mut event = vec![0xE5; args.size as usize];
    for number in 0..args.seconds * u64::from(args.rate) {
        let due = Duration::from_nanos(number * 1_000_000_000 / u64::from(args.rate));
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let stamp = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        event[..STAMP_BYTES].copy_from_slice(&stamp.to_le_bytes());
        for socket in &mut *near {
            socket.write_all(&event)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_comes_to_every_connection() {
        let args = Args { connections: 7, rate: 100, size: 40, seconds: 1 };
        let (mut near, far) = connections(args.connections).unwrap();
        let began = Instant::now();
        let readers = read(far, args.size as usize, began);
        send(&mut near, &args, began).unwrap();
        drop(near);
        let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap().unwrap().count()).sum();
        assert_eq!(read, 7 * 100);
    }
}
