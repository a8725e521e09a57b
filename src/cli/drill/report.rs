//! What a drill tells: what it is going to do, a line for each fault, and the outcome as a table or JSON.

use super::{
    Args,
    faults::{Faced, Fault},
    history::{History, Verdict},
    probe::{Node, Seen},
};
use crate::cli::table::{Table, count};
use crate::wire::Cluster;
use serde_json::json;
use std::time::Duration;

/// What every node and subscriber said at the end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub verdict: Verdict,
    /// Events of the stream.
    pub stored: u64,
    /// Nodes whose events differ from the first one's.
    pub diverged: Vec<String>,
    pub seen: Vec<(String, Seen)>,
    /// The last acknowledged seq, which every subscriber has to reach.
    pub last: u64,
}

impl Ending {
    /// Events that a subscriber did not get.
    pub fn missed(&self) -> u64 {
        self.seen.iter().map(|(_, seen)| seen.missing + self.last.saturating_sub(seen.upto)).sum()
    }

    pub fn repeated(&self) -> u64 {
        self.seen.iter().map(|(_, seen)| seen.repeated).sum()
    }
}

/// Whether every promise was kept, and nobody got an error.
pub fn is_clean(history: &History, ending: &Ending) -> bool {
    ending.verdict == Verdict::default()
        && history.failed == 0
        && !history.acks.is_empty()
        && ending.diverged.is_empty()
        && ending.missed() == 0
        && ending.repeated() == 0
}

/// What is going to happen, before it does.
pub fn plan(args: &Args, cluster: &Cluster, nodes: &[Node], stream: &str, replicas: usize) -> String {
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    let mut lines = vec![
        format!("a drill on cluster {}, nodes {}", cluster.cluster, names.join(", ")),
        format!("  · makes the stream {stream} with {replicas} replicas, and removes it at the end; no other stream is touched"),
        format!(
            "  · publishes {} small events a second to it through all nodes ({} publishers), and follows it at each of them",
            args.rate, args.publishers
        ),
    ];
    let times = if args.rounds == 1 { "once".to_owned() } else { format!("{} times", args.rounds) };
    lines.push(format!("  · {times}: moves its leader to another node"));
    if !args.kill.is_empty() {
        lines.push(format!(
            "    and then ends {} with SIGKILL, starts it again after {:.1} s and waits until it is up to date: all streams of this `evermesh dev` notice",
            whom(&args.kill),
            args.pause.as_secs_f64()
        ));
    }
    lines.push("  · reads it from every node and compares with what was acknowledged; Ctrl-C ends it early and tidies up".into());
    lines.join("\n")
}

fn whom(kill: &[String]) -> String {
    let named = |whom: &String| if whom == "leader" { "the leader".to_owned() } else { whom.clone() };
    kill.iter().map(named).collect::<Vec<_>>().join(", then ")
}

fn words(fault: &Fault) -> String {
    match fault {
        Fault::Move { from, to } => format!("move {from} → {to}"),
        Fault::Kill { node, led: true } => format!("kill {node} (leader)"),
        Fault::Kill { node, led: false } => format!("kill {node}"),
    }
}

fn ms(span: Duration) -> String {
    format!("{:.0}", span.as_secs_f64() * 1000.0)
}

/// One fault, right after it.
pub fn line(faced: &Faced, rounds: u32, history: &History) -> String {
    let width = rounds.to_string().len();
    let mut line = format!("{:>width$}/{rounds}  {:<20}  longest gap {:>5} ms", faced.round, words(&faced.fault), ms(faced.gap(history)));
    if let Some(recovery) = faced.recovery(history) {
        line.push_str(&format!("  acknowledged again after {} ms", ms(recovery)));
    }
    if let (Some(ready), Some(caught_up)) = (faced.ready, faced.caught_up) {
        line.push_str(&format!("  ready {:.1} s after its start, up to date after {:.1} s", ready.as_secs_f64(), caught_up.as_secs_f64()));
    }
    if history.failed > 0 {
        line.push_str(&format!("  FAILED so far: {}", history.failed));
    }
    line
}

pub fn text(faced: &[Faced], history: &History, ending: &Ending) -> String {
    let mut table = Table::new(&["ROUND", "FAULT", "GAP ms", "RECOVERY ms", "READY s", "UP TO DATE s"], &[0, 2, 3, 4, 5]);
    for one in faced {
        let seconds = |span: Option<Duration>| span.map_or_else(|| "-".into(), |span| format!("{:.1}", span.as_secs_f64()));
        let recovery = one.recovery(history).map_or_else(|| "-".into(), ms);
        table.row([one.round.to_string(), words(&one.fault), ms(one.gap(history)), recovery, seconds(one.ready), seconds(one.caught_up)]);
    }
    let facts = facts(history, ending);
    let facts: Vec<_> = facts.iter().map(|(name, value)| format!("{name:<24}{value}")).collect();
    let mut text = format!("{}\n\n{}", table.text(), facts.join("\n"));
    for why in &history.reasons {
        text.push_str(&format!("\n  {why}"));
    }
    for (node, seen) in ending.seen.iter().filter(|(_, seen)| seen.ended.is_some()) {
        text.push_str(&format!("\n  the subscriber at {node} ended: {}", seen.ended.as_deref().unwrap_or_default()));
    }
    text
}

fn facts(history: &History, ending: &Ending) -> Vec<(&'static str, String)> {
    let verdict = &ending.verdict;
    let delivered: u64 = ending.seen.iter().map(|(_, seen)| seen.events).sum();
    let moved: u64 = ending.seen.iter().map(|(_, seen)| seen.moved).sum();
    let mut facts = vec![
        ("acknowledged", count(history.acks.len() as u64)),
        ("lost", count(verdict.lost)),
        ("duplicated", count(verdict.duplicated)),
        ("out of order", count(verdict.reordered)),
        ("requests failed", count(history.failed)),
        ("sent again, stored once", count(history.recognised)),
        ("delivered", format!("{} at {} subscribers, who went to another node {moved} times", count(delivered), ending.seen.len())),
        ("missed, repeated", format!("{}, {}", count(ending.missed()), count(ending.repeated()))),
        ("every node the same", if ending.diverged.is_empty() { "yes".into() } else { format!("NO: {}", ending.diverged.join(", ")) }),
        ("longest gap", format!("{} ms", ms(history.longest_gap_of_all()))),
        ("acknowledged within", format!("p50 {:.1} ms, p99 {:.1} ms", millis(history.took(50.0)), millis(history.took(99.0)))),
    ];
    if verdict.foreign > 0 {
        facts.push(("not of this drill", count(verdict.foreign)));
    }
    facts
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

pub fn json(stream: &str, faced: &[Faced], history: &History, ending: &Ending) -> serde_json::Value {
    let rounds: Vec<_> = faced
        .iter()
        .map(|one| {
            let fault = match &one.fault {
                Fault::Move { from, to } => json!({"kind": "move", "from": from, "to": to}),
                Fault::Kill { node, led } => json!({"kind": "kill", "node": node, "led": led}),
            };
            json!({
                "round": one.round, "fault": fault, "gap_ms": millis(one.gap(history)), "recovery_ms": one.recovery(history).map(millis),
                "ready_ms": one.ready.map(millis), "up_to_date_ms": one.caught_up.map(millis),
            })
        })
        .collect();
    let verdict = &ending.verdict;
    json!({
        "stream": stream, "ok": is_clean(history, ending), "faults": rounds,
        "acknowledged": history.acks.len(), "stored": ending.stored, "lost": verdict.lost, "duplicated": verdict.duplicated,
        "reordered": verdict.reordered, "foreign": verdict.foreign, "failed": history.failed, "reasons": history.reasons,
        "recognised": history.recognised, "diverged": ending.diverged,
        "delivered": ending.seen.iter().map(|(_, seen)| seen.events).sum::<u64>(), "missed": ending.missed(), "repeated": ending.repeated(),
        "longest_gap_ms": millis(history.longest_gap_of_all()),
        "ack_ms": {"p50": millis(history.took(50.0)), "p99": millis(history.took(99.0)), "max": millis(history.took(100.0))},
    })
}

#[cfg(test)]
mod tests {
    use super::super::history::{Ack, Value};
    use super::*;

    fn history() -> History {
        let ack = |at: u64| Ack { at_us: at * 10_000, took_us: 2_000, value: Value { publisher: 0, count: at as u32 }, seq: at };
        History { acks: (1..=100).map(ack).collect(), ..History::default() }
    }

    fn ending(upto: u64) -> Ending {
        Ending { stored: 100, seen: vec![("n1".into(), Seen { upto, events: upto, ..Seen::default() })], last: 100, ..Ending::default() }
    }

    #[test]
    fn only_a_whole_outcome_is_clean() {
        let (fine, broken) = (history(), |verdict| Ending { verdict, ..ending(100) });
        assert!(is_clean(&fine, &ending(100)));
        assert!(!is_clean(&fine, &ending(99)), "a subscriber missed one");
        assert!(!is_clean(&History::default(), &ending(100)), "nothing was tried");
        assert!(!is_clean(&History { failed: 1, ..history() }, &ending(100)));
        assert!(!is_clean(&fine, &broken(Verdict { lost: 1, ..Verdict::default() })));
        assert!(!is_clean(&fine, &broken(Verdict { reordered: 1, ..Verdict::default() })));
        assert!(!is_clean(&fine, &Ending { diverged: vec!["n2".into()], ..ending(100) }));
    }

    #[test]
    fn the_outcome_can_be_read_by_people_and_programs() {
        let fault = Fault::Kill { node: "n2".into(), led: true };
        let back = Some(Duration::from_millis(1_500));
        let faced = [Faced { round: 1, fault, at_us: 200_000, until_us: 900_000, ready: back, caught_up: back }];
        let text = text(&faced, &history(), &ending(100));
        assert!(text.contains("kill n2 (leader)") && text.contains("acknowledged            100") && text.contains("p99 2.0 ms"), "{text}");
        let json = json("s", &faced, &history(), &ending(100));
        assert_eq!((json["ok"].as_bool(), json["faults"][0]["ready_ms"].as_f64()), (Some(true), Some(1500.0)), "{json}");
        assert!(json["faults"][0]["recovery_ms"].is_null());
    }
}
