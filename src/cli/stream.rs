//! `evermesh stream`: made, listed, looked at, purged, removed, handed over.

use super::{
    connect::Connect,
    failure::{Failure, Result},
    table::{Table, bytes, count, or_dash},
};
use crate::client::Client;
use crate::wire::stream::DiscardPolicy;
use crate::wire::{Purge, Span, Stream, StreamSettingsPatch, StreamSummary};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};

#[derive(ClapArgs, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  evermesh stream create orders --replicas 3 --max-age 7d --max-bytes 10GiB
  evermesh stream create orders --max-age none       change one setting, keep the others
  evermesh stream ls
  evermesh stream info orders
  evermesh stream purge orders --keep 1000
  evermesh stream move-leader orders n2"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List the streams
    Ls {
        /// Only those whose names begin so
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Create a stream, or change the settings of one
    Create {
        /// The stream's name: A-Z a-z 0-9 - _ .
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show a stream's settings, state and replicas
    Info {
        /// The stream's name
        name: String,
    },
    /// Remove a stream and all its events
    Rm {
        /// The stream's name
        name: String,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove events of a stream
    Purge {
        /// The stream's name
        name: String,
        #[command(flatten)]
        what: What,
    },
    /// Hand a stream's leadership to another of its replicas
    MoveLeader {
        /// The stream's name
        name: String,
        /// The new leader [default: the replica that is furthest]
        node: Option<String>,
    },
}

/// Settings; one that is left out stays as it is, or gets its default in a new stream.
#[derive(ClapArgs, Debug)]
struct Settings {
    /// Nodes that keep the stream: 1, 3 or 5 [default: 3, where there are 3 nodes]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// Remove events older than this (7d, 12h, 1h30m), or `none`
    #[arg(long, value_name = "SPAN", value_parser = age)]
    max_age: Option<Bound>,
    /// Keep at most so many bytes of events (1000000, 512MiB, 10GB), or `none`
    #[arg(long, value_name = "BYTES", value_parser = size)]
    max_bytes: Option<Bound>,
    /// Keep at most so many events, or `none`
    #[arg(long, value_name = "N", value_parser = number)]
    max_events: Option<Bound>,
    /// What happens at these bounds: the oldest events go, or new ones are rejected [default: old]
    #[arg(long, value_enum)]
    discard: Option<Discard>,
    /// How long an event id is remembered, so that a repeat is not stored again [default: 2m]
    #[arg(long, value_name = "SPAN", value_parser = whole_span)]
    dedup_window: Option<Span>,
    /// Largest event [default: 1MiB]
    #[arg(long, value_name = "BYTES", value_parser = whole_size)]
    max_event_bytes: Option<u64>,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Discard {
    Old,
    New,
}

/// A bound, or that there is none.
type Bound = Limit<u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit<T>(Option<T>);

#[derive(ClapArgs, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Every event before this seq
    #[arg(long, value_name = "SEQ")]
    before_seq: Option<u64>,
    /// Every event but the newest N
    #[arg(long, value_name = "N")]
    keep: Option<u64>,
    /// Every event whose subject matches this filter
    #[arg(long, value_name = "FILTER")]
    subject: Option<String>,
}

pub async fn run(args: Args) -> Result {
    let (client, connect) = (args.connect.client()?, &args.connect);
    match args.verb {
        Verb::Ls { prefix } => connect.print(&client.list_streams(&prefix).await?, |streams| list(streams)),
        Verb::Create { name, settings } => create(&client, connect, &name, settings).await?,
        Verb::Info { name } => connect.print(&client.stream(&name).await?, info),
        Verb::Rm { name, yes } => {
            confirm(yes, &format!("remove {name} and all its events?"))?;
            client.delete_stream(&name).await?;
            connect.print(&json!({"stream": name, "removed": true}), |_| format!("{name} is removed"));
        }
        Verb::Purge { name, what } => {
            let purge = Purge { before_seq: what.before_seq, keep: what.keep, subject: what.subject };
            connect.print(&client.purge(&name, &purge).await?, |done| {
                let kept = if done.last_seq < done.first_seq {
                    "nothing is left".into()
                } else {
                    format!("{} to {} are left", done.first_seq, done.last_seq)
                };
                format!("{} events ({}) removed; {kept}", count(done.events), bytes(done.bytes))
            });
        }
        Verb::MoveLeader { name, node } => {
            let leader = client.move_leader(&name, node.as_deref()).await?;
            connect.print(&json!({"stream": name, "leader": leader}), |_| format!("{name} is led by {leader}"));
        }
    }
    Ok(())
}

async fn create(client: &Client, connect: &Connect, name: &str, settings: Settings) -> Result {
    let (created, stream) = client.put_stream(name, &settings.into()).await?;
    connect.print(&stream, |stream| format!("{} {}\n\n{}", stream.name, if created { "is created" } else { "was there" }, info(stream)));
    Ok(())
}

impl From<Settings> for StreamSettingsPatch {
    fn from(settings: Settings) -> StreamSettingsPatch {
        StreamSettingsPatch {
            replicas: settings.replicas,
            max_age: settings.max_age.map(|bound| bound.0.map(Span)),
            max_bytes: settings.max_bytes.map(|bound| bound.0),
            max_events: settings.max_events.map(|bound| bound.0),
            discard: settings.discard.map(|discard| match discard {
                Discard::Old => DiscardPolicy::Old,
                Discard::New => DiscardPolicy::New,
            }),
            dedup_window: settings.dedup_window,
            max_event_bytes: settings.max_event_bytes,
            description: settings.description,
        }
    }
}

fn bound(text: &str, read: impl FnOnce(&str) -> std::result::Result<u64, String>) -> std::result::Result<Bound, String> {
    if text == "none" { Ok(Limit(None)) } else { read(text).map(|value| Limit(Some(value))) }
}

fn age(text: &str) -> std::result::Result<Bound, String> {
    bound(text, |text| whole_span(text).map(|span| span.0))
}

fn size(text: &str) -> std::result::Result<Bound, String> {
    bound(text, whole_size)
}

fn number(text: &str) -> std::result::Result<Bound, String> {
    bound(text, |text| text.parse().map_err(|_| format!("{text:?} is no whole number")))
}

fn whole_span(text: &str) -> std::result::Result<Span, String> {
    Span::parse(text).ok_or_else(|| format!("{text:?} is no span of time such as 30s, 2m or 7d"))
}

/// Bytes: a number, alone or with a unit of thousands (kB, MB, GB, TB) or of 1,024 (KiB, MiB, GiB, TiB).
pub(super) fn whole_size(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("{text:?} is no size such as 1000000, 512MiB or 10GB");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (value, unit) = (text[..digits].parse::<u64>().map_err(|_| wrong())?, &text[digits..]);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    value.checked_mul(factor).ok_or_else(wrong)
}

fn list(streams: &[StreamSummary]) -> String {
    if streams.is_empty() {
        return "no streams; make one with: evermesh stream create NAME".into();
    }
    let mut table = Table::new(&["STREAM", "LEADER", "REPLICAS", "MAX AGE", "MAX BYTES", "MAX EVENTS", "DESCRIPTION"], &[]);
    for stream in streams {
        let settings = &stream.settings;
        table.row([
            stream.name.clone(),
            or_dash(stream.leader.as_ref()),
            stream.replicas.join(","),
            or_dash(settings.max_age),
            or_dash(settings.max_bytes.map(bytes)),
            or_dash(settings.max_events.map(count)),
            settings.description.clone(),
        ]);
    }
    table.text()
}

fn info(stream: &Stream) -> String {
    let settings = &stream.settings;
    let discard = match settings.discard {
        DiscardPolicy::Old => "old",
        DiscardPolicy::New => "new",
    };
    let kept = match stream.events {
        0 => format!("none; the next is {}", stream.last_seq + 1),
        _ => format!("{} ({}), seq {} to {}", count(stream.events), bytes(stream.bytes), stream.first_seq, stream.last_seq),
    };
    let mut rows = vec![
        ("stream", stream.name.clone()),
        ("created", stream.created.to_string()),
        ("events", kept),
        ("leader", format!("{}, term {}", or_dash(stream.leader.as_ref()), stream.term)),
        ("max age", or_dash(settings.max_age)),
        ("max bytes", or_dash(settings.max_bytes.map(bytes))),
        ("max events", or_dash(settings.max_events.map(count))),
        ("discard", discard.into()),
        ("dedup window", settings.dedup_window.to_string()),
        ("max event", bytes(settings.max_event_bytes)),
    ];
    if !settings.description.is_empty() {
        rows.push(("description", settings.description.clone()));
    }
    let facts: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<14}{value}")).collect();
    let mut table = Table::new(&["REPLICA", "ROLE", "LAG", "STATE"], &[2]);
    for replica in &stream.replicas {
        let role = if replica.leader { "leader" } else { "follower" };
        table.row([
            replica.node.clone(),
            role.into(),
            or_dash(replica.lag.map(count)),
            match &replica.why {
                Some(why) => format!("{}: {why}", replica.state.name()),
                None => replica.state.name().into(),
            },
        ]);
    }
    format!("{}\n\n{}", facts.join("\n"), table.text())
}

/// Asks at a terminal; a script says --yes.
pub fn confirm(yes: bool, question: &str) -> Result {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("nobody is there to ask").hint("add --yes to do it without asking"));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let asked = std::io::stderr().flush().and_then(|()| stdin.lock().read_line(&mut answer));
    match asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::new("nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_people_write_them() {
        assert_eq!(size("none"), Ok(Limit(None)));
        assert_eq!(size("10GB"), Ok(Limit(Some(10_000_000_000))));
        assert_eq!(size("1MiB"), Ok(Limit(Some(1 << 20))));
        assert_eq!(age("1h30m"), Ok(Limit(Some(5_400_000))));
        assert_eq!(number("7"), Ok(Limit(Some(7))));
        for bad in ["", "x", "1XB", "-1", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
        let settings = Settings {
            replicas: None,
            max_age: Some(Limit(None)),
            max_bytes: None,
            max_events: Some(Limit(Some(5))),
            discard: None,
            dedup_window: None,
            max_event_bytes: None,
            description: None,
        };
        assert_eq!(serde_json::to_string(&StreamSettingsPatch::from(settings)).unwrap(), r#"{"max_age":null,"max_events":5}"#);
    }
}
