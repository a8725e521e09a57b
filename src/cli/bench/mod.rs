//! `evermesh bench`: what publishing, subscribing and the disk give, measured from outside.
//!
//! [`publish`] and [`subscribe`] run many connections and report what happened to one [`report::Report`], which prints a line a
//! second and the percentiles at the end; [`disk`] measures what every acknowledgement has to wait for, [`loopback`] what the kernel
//! alone takes for a fan-out.
//!
//! - With a rate, a request is measured from when it was due, not from when it was sent: waiting in line is latency too.
//! - Errors, gaps and duplicates are counted and shown, never hidden; with any of the last two the exit code is 1.

mod disk;
mod latencies;
mod loopback;
mod payload;
mod publish;
mod report;
mod subscribe;

use super::{connect::Connect, failure::Result};
use clap::Subcommand;

#[derive(clap::Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  evermesh bench disk --dir ./evermesh-data         what one fdatasync costs here
  evermesh bench loopback --connections 1000        what the kernel alone takes for a fan-out
  evermesh bench pub --connections 1                latency of single events, one after another
  evermesh bench pub --connections 64 --batch 100   throughput
  evermesh bench pub --rate 1000 --websocket        latency at a given load
  evermesh bench sub --connections 100              deliveries, while `bench pub` runs elsewhere"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Publish events and measure until each is acknowledged
    Pub(publish::Args),
    /// Follow a stream on many connections and measure deliveries
    Sub(subscribe::Args),
    /// Measure this machine's disk: a 4 KiB write and its fdatasync
    Disk(disk::Args),
    /// Measure this machine's loopback: one event to many connections, without a node
    Loopback(loopback::Args),
}

pub async fn run(args: Args) -> Result {
    match args.verb {
        Verb::Pub(verb) => publish::run(verb, &args.connect).await,
        Verb::Sub(verb) => subscribe::run(verb, &args.connect).await,
        Verb::Disk(verb) => disk::run(&verb, &args.connect),
        Verb::Loopback(verb) => loopback::run(&verb, &args.connect),
    }
}

/// Microseconds since the Unix epoch: what `bench pub` puts into an event and `bench sub` compares with.
fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
