//! `evermesh verify`: whether the replicas of the streams are the same, as a table and as an exit code.

use super::{
    connect::Connect,
    failure::{Failure, Result},
    table::{Table, bytes, count, or_dash, say},
};
use crate::client::{self, Client, Options};
use crate::wire::{Agreement, ReplicaCheck, Verification};
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::time::Duration;

/// Streams that are compared at a time …
const AT_A_TIME: usize = 8;
/// … and read again at a time: that keeps disks busy.
const READ_AT_A_TIME: usize = 1;
/// From so many streams on there is a progress bar.
const BAR_FROM: usize = 20;
/// How long reading one stream again may take.
const READ_WAIT: Duration = Duration::from_secs(3_600);
/// Exit code where something could not be asked, and nothing that could differs.
const NOT_ASKED: u8 = 2;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Every replica keeps a rolling hash of what it applied. They are compared at the leader's newest entry, while the streams go on.

Examples:
  evermesh verify                    all streams
  evermesh verify orders payments    these
  evermesh verify orders --read      and every replica reads its log from disk again, checking every checksum
  evermesh verify --json             one JSON value a stream

Exit codes: 0 all identical (or on the way there), 1 something differs or is damaged, 2 something could not be asked")]
pub struct Args {
    /// The streams [default: all]
    #[arg(value_name = "STREAM")]
    streams: Vec<String>,
    /// Also read every replica's log from disk again
    #[arg(long)]
    read: bool,
    #[command(flatten)]
    connect: Connect,
}

/// What is known of one stream.
type Outcome = (String, client::Result<Verification>);

pub async fn run(args: Args) -> Result {
    let client = args.connect.client_with(patience(&args))?;
    let streams = match args.streams.is_empty() {
        true => client.list_streams("").await?.into_iter().map(|stream| stream.name).collect(),
        false => args.streams.clone(),
    };
    let outcomes = verify_all(&client, streams, args.read, !args.connect.json).await;
    match args.connect.json {
        true => outcomes.iter().for_each(|outcome| say(&as_json(outcome))),
        false => say(&table(&outcomes, args.read)),
    }
    verdict(&outcomes)
}

fn patience(args: &Args) -> Options {
    let options = args.connect.options();
    match args.read {
        true => Options { timeout: options.timeout.max(READ_WAIT), attempt_timeout: READ_WAIT, ..options },
        false => options,
    }
}

/// In the order of the streams.
async fn verify_all(client: &Client, streams: Vec<String>, read: bool, bar: bool) -> Vec<Outcome> {
    let bar = match bar && streams.len() >= BAR_FROM {
        true => ProgressBar::new(streams.len() as u64).with_style(style()),
        false => ProgressBar::hidden(),
    };
    let one = |name: String| {
        let bar = bar.clone();
        async move {
            let verification = client.verify(&name, read).await;
            bar.inc(1);
            (name, verification)
        }
    };
    let at_a_time = if read { READ_AT_A_TIME } else { AT_A_TIME };
    let outcomes = stream::iter(streams).map(one).buffered(at_a_time).collect().await;
    bar.finish_and_clear();
    outcomes
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{pos}/{len} streams  {wide_bar}  {eta} left").expect("the template is right")
}

fn as_json((stream, outcome): &Outcome) -> String {
    match outcome {
        Ok(verification) => serde_json::to_string(verification).expect("the wire's shapes have a JSON form"),
        Err(error) => json!({"stream": stream, "error": error.to_string()}).to_string(),
    }
}

fn table(outcomes: &[Outcome], read: bool) -> String {
    if outcomes.is_empty() {
        return "no streams".into();
    }
    let mut headings = vec!["STREAM", "AT SEQ", "REPLICA", "RESULT"];
    headings.extend(read.then_some("READ"));
    headings.push("WHY");
    let mut table = Table::new(&headings, &[1]);
    for (stream, outcome) in outcomes {
        let verification = match outcome {
            Ok(verification) => verification,
            Err(error) => {
                let mut row = vec![stream.clone(), "-".into(), "-".into(), "not asked".into()];
                row.extend(read.then(|| "-".into()));
                row.push(error.to_string());
                table.row(row);
                continue;
            }
        };
        for (at, replica) in verification.replicas.iter().enumerate() {
            let name = if replica.leader { format!("{} (leader)", replica.node) } else { replica.node.clone() };
            let (stream, seq) = if at == 0 { (stream.clone(), count(verification.at_seq)) } else { Default::default() };
            let mut row = vec![stream, seq, name, result(replica)];
            row.extend(read.then(|| reread(replica)));
            row.push(why(replica));
            table.row(row);
        }
    }
    format!("{}\n\n{}", table.text(), sum(outcomes))
}

fn result(replica: &ReplicaCheck) -> String {
    match replica.result {
        Agreement::Identical => "identical".into(),
        Agreement::Behind => format!("behind by {}", count(replica.behind)),
        Agreement::Different => "DIFFERENT".into(),
        Agreement::Unreachable => "unreachable".into(),
        Agreement::Unknown => "unknown".into(),
    }
}

fn reread(replica: &ReplicaCheck) -> String {
    match &replica.read {
        None => "-".into(),
        Some(read) if read.damage.is_some() => format!("DAMAGED after {}", count(read.rows)),
        Some(read) if !read.ok => format!("stopped after {}", count(read.rows)),
        Some(read) => format!("{} entries, {}", count(read.rows), bytes(read.bytes)),
    }
}

fn why(replica: &ReplicaCheck) -> String {
    let place = replica.differs_from.map(|from| match replica.same_through {
        Some(same) => format!("the same up to entry {same}, different from {from}"),
        None => format!("different from entry {from} or before"),
    });
    let read = replica.read.as_ref().and_then(|read| read.damage.clone().or(read.stopped.clone()));
    [replica.detail.clone(), place, read].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// How many replicas are how, in one line.
fn sum(outcomes: &[Outcome]) -> String {
    let replicas: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).flat_map(|one| &one.replicas).collect();
    let of = |result: Agreement| replicas.iter().filter(|replica| replica.result == result).count();
    let parts = [
        (of(Agreement::Identical), "identical"),
        (of(Agreement::Behind), "behind"),
        (of(Agreement::Different), "different"),
        (of(Agreement::Unreachable), "unreachable"),
        (of(Agreement::Unknown), "unknown"),
        (replicas.iter().filter(|replica| is_damaged(replica)).count(), "damaged"),
    ];
    let parts: Vec<_> = parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    let not_asked = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    let rest = if not_asked == 0 { String::new() } else { format!("; {not_asked} not asked") };
    format!("{} streams{rest}; replicas: {}", outcomes.len(), or_dash((!parts.is_empty()).then(|| parts.join(", "))))
}

fn is_damaged(replica: &ReplicaCheck) -> bool {
    replica.read.as_ref().is_some_and(|read| read.damage.is_some())
}

fn verdict(outcomes: &[Outcome]) -> Result {
    let answered = || outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).flat_map(|one| &one.replicas);
    let bad = answered().filter(|replica| replica.result == Agreement::Different || is_damaged(replica)).count();
    if bad > 0 {
        return Err(Failure::new(format!("{bad} replicas differ or are damaged")));
    }
    let unread = |replica: &&ReplicaCheck| replica.read.as_ref().is_some_and(|read| !read.ok);
    let open =
        answered().filter(|replica| matches!(replica.result, Agreement::Unreachable | Agreement::Unknown) || unread(replica)).count();
    let not_asked = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    match open + not_asked {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{open} replicas and {not_asked} streams could not be compared")).code(NOT_ASKED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(replicas: serde_json::Value) -> Outcome {
        let whole = json!({"stream": "orders", "at_seq": 1234, "index": 9, "hash": null, "leader": "n1", "replicas": replicas});
        ("orders".into(), Ok(serde_json::from_value(whole).unwrap()))
    }

    fn replica(node: &str, result: &str) -> serde_json::Value {
        json!({"node": node, "leader": node == "n1", "result": result, "behind": 7, "hash": null, "detail": null})
    }

    #[test]
    fn the_table_and_the_code_say_the_same() {
        let check = |outcomes: Vec<Outcome>, line: &str, code: Option<u8>| {
            let text = table(&outcomes, false);
            assert!(text.contains(line), "{line} is not in:\n{text}");
            assert_eq!(verdict(&outcomes).err().map(|failure| failure.exit_code()), code);
        };
        let all = |results: &[&str]| {
            let replicas = results.iter().zip(["n1", "n2", "n3"]).map(|(result, node)| replica(node, result)).collect();
            vec![outcome(serde_json::Value::Array(replicas))]
        };
        check(all(&["identical"; 3]), "orders   1,234  n1 (leader)  identical", None);
        check(all(&["identical", "behind"]), "behind by 7", None);
        check(all(&["identical", "different", "unreachable"]), "DIFFERENT", Some(1));
        check(all(&["identical", "unreachable"]), "1 streams; replicas: 1 identical, 1 unreachable", Some(2));
        check(vec![("x".into(), Err(client::Error::Unexpected("no".into())))], "not asked", Some(2));
        assert_eq!(table(&[], false), "no streams");
    }

    #[test]
    fn damage_is_told() {
        let mut damaged = replica("n2", "identical");
        damaged["read"] = json!({"ok": false, "rows": 5, "bytes": 100, "damage": "entry 6 is damaged"});
        let outcomes = [outcome(json!([damaged]))];
        let text = table(&outcomes, true);
        assert!(text.contains("DAMAGED after 5") && text.contains("entry 6 is damaged") && text.contains("1 damaged"), "{text}");
        assert!(verdict(&outcomes).is_err());
    }
}
