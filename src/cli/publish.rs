//! `evermesh pub`: one event from an argument, or one a line from a file or stdin.
//!
//! - Lines are published in their order, one request at a time; what was read meanwhile goes together into the next batch.
//! - When it fails, it says how many lines are done, so that the next run can go on behind them.

mod lines;

use self::lines::{Line, read};
use super::{
    connect::Connect,
    failure::{Failure, Result},
    table::{bytes, count, say},
};
use crate::client::{Client, Message, Options};
use crate::core::limits;
use crate::wire::event::is_json;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// How long a long input survives that no node can be reached.
const UNREACHABLE_WAIT: Duration = Duration::from_secs(30);
/// Longest time for one batch of a long input, with all its attempts.
const BATCH_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  evermesh pub orders '{\"order\":1001}' --subject orders.eu.created --id o-1001
  tail -F app.log | evermesh pub logs -
  evermesh pub orders --file orders.ndjson --id-prefix import-7

With --id-prefix, line N gets the id PREFIX-N: run it again after a failure, and what is stored is not stored twice
(within the stream's dedup window).")]
pub struct Args {
    /// The stream
    stream: String,
    /// The event's data; `-` reads one event a line from stdin (blank lines are left out)
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    data: Option<String>,
    /// Read one event a line from this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Subject of the events
    #[arg(long)]
    subject: Option<String>,
    /// Id of the event: a repeat within the stream's dedup window is not stored again
    #[arg(long, conflicts_with_all = ["file", "id_prefix"])]
    id: Option<String>,
    /// A header of the events, NAME=VALUE; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Content type [default: application/json where the data is JSON, else text/plain]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Most lines that go into one request
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=limits::BATCH_EVENTS_MAX as i64))]
    batch: u32,
    /// Ids of the lines: PREFIX-1, PREFIX-2, …
    #[arg(long, value_name = "PREFIX", conflicts_with = "no_ids")]
    id_prefix: Option<String>,
    /// Give no ids: less work for the stream, but a line may be stored twice when a node fails
    #[arg(long)]
    no_ids: bool,
    /// Leave out the first N lines
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: Connect,
}

pub async fn run(args: Args) -> Result {
    match (&args.file, args.data.as_deref()) {
        (None, Some(data)) if data != "-" => one(&args, data).await,
        _ => many(args).await,
    }
}

async fn one(args: &Args, data: &str) -> Result {
    let message = Message { id: args.id.clone(), ..args.message(data.as_bytes().to_vec()) };
    let client = args.connect.client_with(Options { assign_ids: !args.no_ids, ..args.connect.options() })?;
    let answer = client.publish(&args.stream, message).await?;
    args.connect.print(&answer, |answer| match answer.duplicate {
        true => format!("{} {} (there already)", answer.stream, answer.seq),
        false => format!("{} {}", answer.stream, answer.seq),
    });
    Ok(())
}

/// How far a long input has come.
#[derive(Default)]
struct Progress {
    /// Lines of the input that are behind us, blank and skipped ones too.
    lines: u64,
    events: u64,
    bytes: u64,
    duplicates: u64,
    last_seq: u64,
}

async fn many(args: Args) -> Result {
    let usual = args.connect.options();
    let options =
        Options { assign_ids: !args.no_ids, unreachable_wait: UNREACHABLE_WAIT, timeout: BATCH_TIMEOUT.max(usual.timeout), ..usual };
    let client = args.connect.client_with(options)?;
    // The given servers may all go away while it lasts; when none answers now, the first publish tells why.
    let _ = client.discover().await;
    let total = args.file.as_ref().and_then(|file| file.metadata().ok()).filter(|about| about.is_file()).map(|about| about.len());
    let (send, mut lines) = mpsc::channel(limits::LINES_AHEAD_MAX);
    let (file, skip) = (args.file.clone(), args.skip);
    let reader = tokio::task::spawn_blocking(move || read(file.as_deref(), skip, &send));
    let (bar, began) = (bar(total, args.quiet), Instant::now());
    let mut progress = Progress { lines: args.skip, ..Progress::default() };
    let published = publish_all(&args, &client, &mut lines, &mut progress, &bar).await;
    bar.finish_and_clear();
    drop(lines);
    if let Err(failure) = published {
        return Err(failure.hint(go_on(&args, &progress)));
    }
    let read = reader.await.map_err(|error| Failure::new(format!("the reader failed: {error}")))?;
    read.map_err(|why| Failure::new(why).hint(go_on(&args, &progress)))?;
    summary(&args, &progress, began.elapsed());
    Ok(())
}

async fn publish_all(args: &Args, client: &Client, lines: &mut mpsc::Receiver<Line>, progress: &mut Progress, bar: &ProgressBar) -> Result {
    let mut taken = Vec::new();
    // A line that did not fit into the last batch.
    let mut over = None;
    loop {
        taken.extend(over.take());
        if taken.is_empty() && lines.recv_many(&mut taken, 1).await == 0 {
            return Ok(());
        }
        let mut size: usize = taken.iter().map(|line| line.data.len()).sum();
        while taken.len() < args.batch as usize
            && let Ok(line) = lines.try_recv()
        {
            size += line.data.len();
            if size > limits::BATCH_BYTES_MAX {
                over = Some(line);
                break;
            }
            taken.push(line);
        }
        let last = taken.last().expect("there is at least one").number;
        let (events, bytes) = (taken.len() as u64, taken.iter().map(|line| line.data.len() as u64 + 1).sum::<u64>());
        publish(args, client, std::mem::take(&mut taken), progress).await?;
        progress.lines = last;
        progress.events += events;
        progress.bytes += bytes;
        bar.set_position(progress.bytes);
        bar.set_message(format!("{} events", count(progress.events)));
    }
}

async fn publish(args: &Args, client: &Client, lines: Vec<Line>, progress: &mut Progress) -> Result {
    let mut messages: Vec<_> = lines
        .into_iter()
        .map(|line| {
            let id = args.id_prefix.as_ref().map(|prefix| format!("{prefix}-{}", line.number));
            Message { id, ..args.message(line.data) }
        })
        .collect();
    if messages.len() == 1 {
        let answer = client.publish(&args.stream, messages.remove(0)).await?;
        progress.duplicates += u64::from(answer.duplicate);
        progress.last_seq = progress.last_seq.max(answer.seq);
    } else {
        let answer = client.publish_batch(&args.stream, messages).await?;
        progress.duplicates += u64::from(answer.duplicates);
        progress.last_seq = progress.last_seq.max(answer.last_seq);
    }
    Ok(())
}

impl Args {
    fn message(&self, data: Vec<u8>) -> Message {
        let guess = || match std::str::from_utf8(&data) {
            Ok(text) if is_json(text) => "application/json",
            Ok(_) => "text/plain; charset=utf-8",
            Err(_) => "application/octet-stream",
        };
        let content_type = self.content_type.clone().unwrap_or_else(|| guess().to_owned());
        let headers: BTreeMap<_, _> = self.headers.iter().cloned().collect();
        Message { subject: self.subject.clone(), content_type: Some(content_type), headers, ..Message::new(data) }
    }
}

fn bar(total: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    // Drawn on stderr, and only where that is a terminal.
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{wide_bar} {percent}%  {bytes} of {total_bytes}  {msg}  {bytes_per_sec}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {bytes_per_sec}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar
}

fn go_on(args: &Args, progress: &Progress) -> String {
    let published =
        format!("{} events are published ({}), line {} is the last", count(progress.events), HumanBytes(progress.bytes), progress.lines);
    match &args.file {
        Some(file) => format!("{published}; go on with: evermesh pub {} --file {} --skip {}", args.stream, file.display(), progress.lines),
        None => format!("{published}; --skip {} leaves the lines before it out", progress.lines),
    }
}

fn summary(args: &Args, progress: &Progress, took: Duration) {
    let rate = progress.events as f64 / took.as_secs_f64().max(0.001);
    if args.connect.json {
        let summary = json!({
            "stream": args.stream, "events": progress.events, "duplicates": progress.duplicates, "bytes": progress.bytes,
            "last_seq": progress.last_seq, "seconds": took.as_secs_f64(),
        });
        return say(&summary.to_string());
    }
    let duplicates =
        if progress.duplicates > 0 { format!(", {} of them there already", count(progress.duplicates)) } else { String::new() };
    let (events, size, seconds) = (count(progress.events), bytes(progress.bytes), took.as_secs_f64());
    say(&format!("{events} events ({size}) published to {}{duplicates}, in {seconds:.1} s ({} a second)", args.stream, count(rate as u64)));
}

fn header(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.trim().to_ascii_lowercase(), value.to_owned()))
}

/// Opens the input, for `lines`.
fn open(file: Option<&std::path::Path>) -> std::result::Result<Box<dyn std::io::Read>, String> {
    match file {
        Some(file) => {
            std::fs::File::open(file).map(|file| Box::new(file) as _).map_err(|error| format!("cannot read {}: {error}", file.display()))
        }
        None => Ok(Box::new(std::io::stdin())),
    }
}
