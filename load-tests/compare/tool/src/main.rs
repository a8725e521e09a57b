//! The load of the side-by-side comparison: one tool that speaks to each system in the leanest way that the system has.
//!
//! Publishers and subscribers here share one framing, one payload and one way of counting, so that a difference between two figures
//! is one between two systems. Each measurement appends one JSON object to `--out`; `report` makes the page of them.
//!
//! - Where latency or a gap is measured, a publisher is one blocking thread with one request under way.
//! - An event carries its number and its time, so that a subscriber knows what it missed, and how late it is.
//! - What a system says it has stored is read before and after, and compared with what it acknowledged.

mod axum;
mod catchup;
mod fanout;
mod figures;
mod frames;
mod gap;
mod grpc;
mod http;
mod latency;
mod nats;
mod payload;
mod pipeline;
mod report;
mod system;
mod wrk;
mod ws;

use clap::{Parser, Subcommand};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "The load of load-tests/compare/run")]
enum Tool {
    /// One connection, one request under way
    Latency(latency::Args),
    /// Many publishes under way on each connection
    Pipeline(pipeline::Args),
    /// Many subscribers of one stream
    Fanout(fanout::Args),
    /// Reading a full stream from its start
    Catchup(catchup::Args),
    /// The longest time without an acknowledgement when a process is killed
    Gap(gap::Args),
    /// HTTP publishes by wrk
    Wrk(wrk::Args),
    /// A POST handler that stores nothing
    Axum(axum::Args),
    /// What a script asks of a system
    Ask(Ask),
    /// The page of a run, from its measurements
    Report(report::Args),
}

#[derive(clap::Args)]
struct Ask {
    #[command(subcommand)]
    what: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Creates a stream of three replicas
    Create(system::Target),
    /// Prints which of the nodes leads: 0 for the first address of `--at`
    Leader(system::Target),
}

fn main() {
    let outcome = match Tool::parse() {
        Tool::Latency(args) => latency::run(&args),
        Tool::Pipeline(args) => pipeline::run(&args),
        Tool::Fanout(args) => fanout::run(&args),
        Tool::Catchup(args) => catchup::run(&args),
        Tool::Gap(args) => gap::run(&args),
        Tool::Wrk(args) => wrk::run(&args),
        Tool::Axum(args) => axum::run(&args),
        Tool::Ask(Ask { what: Question::Create(target) }) => target.create(),
        Tool::Ask(Ask { what: Question::Leader(target) }) => target.leader().map(|at| println!("{at}")),
        Tool::Report(args) => report::run(&args),
    };
    if let Err(error) = outcome {
        eprintln!("compare: {error}");
        std::process::exit(1);
    }
}
