//! `evermesh sub`: a stream's events as lines, on whichever node is there.

use super::{
    connect::Connect,
    failure::{Failure, Result},
    signals::Signals,
    table::{count, say, write_out},
};
use crate::client::{Client, Item, Options, Subscribe};
use crate::wire::{Event, Gap, Start};
use std::time::{Duration, Instant};

/// How long a stream that was being followed is tried to be found again.
const RESUME_WAIT: Duration = Duration::from_secs(600);

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  evermesh sub orders                            what comes from now on
  evermesh sub orders --from earliest            everything, and on
  evermesh sub orders --from 2026-11-22T10:00:00Z --subject 'orders.eu.>'
  evermesh sub orders --from 42 --limit 10 --json

stdout has the events, one a line; what happened to the connection is told on stderr.")]
pub struct Args {
    /// The stream
    stream: String,
    /// Where to start: a seq, earliest, latest (the last event and on), new, or a time (RFC 3339)
    #[arg(long, default_value = "new", value_parser = start)]
    from: Start,
    /// Only events whose subject matches this filter (* is one token, > the rest)
    #[arg(long, value_name = "FILTER")]
    subject: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Say nothing about the connection
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: Connect,
}

pub async fn run(args: Args) -> Result {
    let client = args.connect.client_with(Options { resume_wait: RESUME_WAIT, ..args.connect.options() })?;
    if args.limit == Some(0) {
        return Ok(());
    }
    follow(&args, &client).await
}

async fn follow(args: &Args, client: &Client) -> Result {
    let mut subscription = client.subscribe(&args.stream, Subscribe { from: args.from, subject: args.subject.clone() }).await?;
    note(args, || format!("following {} at {} from {}", args.stream, client.server(), subscription.cursor().unwrap_or_default()));
    let interruption = Signals::interruption()?;
    let (began, most) = (Instant::now(), args.limit.unwrap_or(u64::MAX));
    let (mut left, mut last) = (most, None);
    while left > 0 {
        let item = tokio::select! {
            item = subscription.next() => item?,
            () = interruption.cancelled() => {
                note(args, || summary(args, most - left, last, began.elapsed()));
                return Err(Failure::interrupted());
            }
        };
        match item {
            Item::Events(events) => {
                let printed = print(args, &events, left);
                left -= printed;
                last = events.get(printed as usize - 1).map(|event| event.seq);
            }
            Item::Gap(gap) => tell_gap(args, gap),
            Item::Hole(gap) => eprintln!("warning: {} to {} never came; this should not be: please report it", gap.from, gap.to),
            Item::Moved { server, why } => note(args, || format!("{why}; going on at {server}")),
        }
    }
    subscription.close().await;
    Ok(())
}

/// What was seen, and how to go on from there.
fn summary(args: &Args, events: u64, last: Option<u64>, took: Duration) -> String {
    let seen = format!("{} events in {:.1} s", count(events), took.as_secs_f64());
    match last {
        Some(last) => format!("{seen}, the last is {last}; to go on: evermesh sub {} --from {}", args.stream, last + 1),
        None => seen,
    }
}

/// Prints at most `most` events in one write, and tells how many.
fn print(args: &Args, events: &[Event], most: u64) -> u64 {
    let mut out = Vec::new();
    let mut printed = 0;
    for event in events.iter().take(usize::try_from(most).unwrap_or(usize::MAX)) {
        match args.connect.json {
            true => serde_json::to_writer(&mut out, event).expect("an event has a JSON form"),
            false => out.extend_from_slice(&event.data().unwrap_or_default()),
        }
        out.push(b'\n');
        printed += 1;
    }
    write_out(&out);
    printed
}

fn tell_gap(args: &Args, gap: Gap) {
    if args.connect.json {
        say(&serde_json::json!({ "gap": gap }).to_string());
    }
    note(args, || format!("{} to {} are gone: retention or a purge removed them", gap.from, gap.to));
}

fn note(args: &Args, text: impl FnOnce() -> String) {
    if !args.quiet {
        eprintln!("-- {}", text());
    }
}

fn start(text: &str) -> std::result::Result<Start, String> {
    Start::parse(text).ok_or_else(|| format!("{text:?} is no seq, earliest, latest, new or time such as 2026-11-22T10:00:00Z"))
}
