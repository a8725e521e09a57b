//! One connection, one request under way: what a single publisher waits for.

use crate::{
    Result,
    figures::{Figures, Out, histogram},
    system::Target,
};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Not counted, at the beginning
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

pub fn run(args: &Args) -> Result {
    let before = args.target.stored()?;
    let mut publisher = args.target.publisher(0, PATIENCE)?;
    let (mut latencies, mut acked, mut errors) = (histogram(), 0, 0);
    let began = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let until = began + Duration::from_secs_f64(args.seconds);
    for n in 1.. {
        let at = Instant::now();
        if at >= until {
            break;
        }
        match publisher.publish(n)? {
            true => acked += 1,
            false => errors += 1,
        }
        if at >= began {
            latencies.saturating_record(at.elapsed().as_micros() as u64);
        }
    }
    let figures = Figures::new().rate(latencies.len(), args.seconds).latencies(&latencies).set("errors", errors);
    args.out.write(figures.stored(acked, before, args.target.stored()?).done())
}
