//! One request under way on each connection: what a publisher waits for, and with many connections, how many of them can be served.

use crate::{
    Result,
    figures::{Figures, Out, histogram},
    system::Target,
};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    /// Spread over the nodes
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Not counted, at the beginning
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

/// What one connection saw.
struct Seen {
    latencies: Histogram<u64>,
    acked: u64,
    errors: u64,
}

pub fn run(args: &Args) -> Result {
    let (before, cpu) = (args.target.stored()?, args.target.cpu_us());
    let began = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let until = began + Duration::from_secs_f64(args.seconds);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let connections: Vec<_> =
            (0..args.connections).map(|number| scope.spawn(move || publish(&args.target, number, began, until))).collect();
        connections.into_iter().map(|connection| connection.join().map_err(|_| "a publisher failed")?).collect::<Result<_>>()
    })?;
    let cpu = args.target.cpu_us() - cpu;
    let (mut latencies, mut acked, mut errors) = (histogram(), 0, 0);
    for connection in &seen {
        latencies.add(&connection.latencies)?;
        (acked, errors) = (acked + connection.acked, errors + connection.errors);
    }
    let figures = Figures::new().rate(latencies.len(), args.seconds).latencies(&latencies).set("errors", errors).cpu(cpu, acked);
    args.out.write(figures.stored(acked, before, args.target.stored()?).done())
}

fn publish(target: &Target, number: usize, began: Instant, until: Instant) -> Result<Seen> {
    let mut publisher = target.publisher(number % target.at.len(), PATIENCE)?;
    let mut seen = Seen { latencies: histogram(), acked: 0, errors: 0 };
    for n in 1.. {
        let at = Instant::now();
        if at >= until {
            break;
        }
        match publisher.publish(n)? {
            true => seen.acked += 1,
            false => seen.errors += 1,
        }
        if at >= began {
            seen.latencies.saturating_record(at.elapsed().as_micros() as u64);
        }
    }
    Ok(seen)
}
