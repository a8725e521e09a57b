//! The page of a run: a table a case, with the median of the rounds, and what was asked of Evermesh beside what was measured.

use crate::Result;
use serde_json::Value;
use std::{fmt::Write, fs, path::PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The run's folder, with `raw.jsonl` and `machine.txt`
    #[arg(long)]
    dir: PathBuf,
}

/// What a case shows.
struct Case {
    id: &'static str,
    title: &'static str,
    setting: &'static str,
    /// The figure that systems are compared by.
    main: Figure,
    /// Others worth a column.
    more: &'static [Figure],
    targets: &'static [Target],
}

#[derive(Clone, Copy)]
struct Figure {
    key: &'static str,
    label: &'static str,
    more_is_better: bool,
}

/// What Evermesh is to reach: the main figure of `of`, as it is or over that of `over`, and its bound.
struct Target {
    of: &'static str,
    over: Option<&'static str>,
    at_least: bool,
    bound: f64,
    says: &'static str,
}

const RATE: Figure = Figure { key: "rate", label: "a second", more_is_better: true };
const P50: Figure = Figure { key: "p50_ms", label: "p50 ms", more_is_better: false };
const P99: Figure = Figure { key: "p99_ms", label: "p99 ms", more_is_better: false };
const CPU: Figure = Figure { key: "cpu_us_per_event", label: "CPU µs an event", more_is_better: false };
const GAP: Figure = Figure { key: "gap_ms", label: "longest gap ms", more_is_better: false };

const CASES: &[Case] = &[
    Case {
        id: "a",
        title: "One publisher through a node that does not lead",
        setting: "One connection, one event under way. `fdatasync` is 4 KiB appended to a file and synced, on the same disk.",
        main: P50,
        more: &[P99, RATE, CPU],
        targets: &[Target { of: "evermesh", over: Some("fdatasync"), at_least: false, bound: 3.0, says: "p50 at most 3 × fdatasync's" }],
    },
    Case {
        id: "b",
        title: "Single events over HTTP, 63 connections over three nodes",
        setting: "wrk with three threads of 21 connections, each thread with a node of its own; one event a request. \
                  etcd by gRPC: 63 connections of the load tool.",
        main: RATE,
        more: &[P50, P99, CPU],
        targets: &[
            Target { of: "evermesh", over: Some("bare axum"), at_least: true, bound: 0.5, says: "at least half of a bare axum handler" },
            Target { of: "evermesh", over: Some("etcd, JSON gateway"), at_least: true, bound: 5.0, says: "at least 5 × etcd" },
        ],
    },
    Case {
        id: "c",
        title: "2,048 events under way",
        setting: "Evermesh over WebSockets, NATS by its own protocol; the same client, one event a publish, 2,048 without an answer in all.",
        main: RATE,
        more: &[P50, P99, CPU],
        targets: &[Target {
            of: "evermesh, 3 connections",
            over: Some("NATS JetStream, 3 connections"),
            at_least: true,
            bound: 5.0,
            says: "at least 5 × NATS JetStream",
        }],
    },
    Case {
        id: "d1",
        title: "Deliveries to 100 subscribers",
        setting: "As many as can be made, with at most 512 events waiting; subscribers over three nodes (nchan: one server).",
        main: RATE,
        more: &[CPU],
        targets: &[Target { of: "evermesh", over: None, at_least: true, bound: 500_000.0, says: "at least 500,000 a second" }],
    },
    Case {
        id: "d2",
        title: "Deliveries to 1,000 subscribers",
        setting: "As many as can be made, with at most 512 events waiting; subscribers over three nodes (nchan: one server).",
        main: RATE,
        more: &[CPU],
        targets: &[Target { of: "evermesh", over: None, at_least: true, bound: 500_000.0, says: "at least 500,000 a second" }],
    },
    Case {
        id: "e",
        title: "1,000 subscribers, 50 events a second: publish to delivery",
        setting: "From the moment when an event is sent until a subscriber has it, over all subscribers.",
        main: P99,
        more: &[P50, RATE, CPU],
        targets: &[Target { of: "evermesh", over: None, at_least: false, bound: 10.0, says: "p99 at most 10 ms" }],
    },
    Case {
        id: "f",
        title: "Catching up with a full stream over one connection",
        setting: "Every event from the first on, of a stream that was filled before; Evermesh over a WebSocket.",
        main: RATE,
        more: &[Figure { key: "first_ms", label: "first event after ms", more_is_better: false }, CPU],
        targets: &[Target { of: "evermesh", over: None, at_least: true, bound: 500_000.0, says: "at least 500,000 a second" }],
    },
    Case {
        id: "g",
        title: "The leader is killed",
        setting: "`kill -9` of the leader under a publisher at each of the other two nodes: the longest time in which one of them had no \
                  acknowledgement. What is refused is sent again after 5 ms; what has no answer, after 500 ms on a new connection.",
        main: GAP,
        more: &[
            Figure { key: "gap_before_ms", label: "before the kill ms", more_is_better: false },
            Figure { key: "refused", label: "refused", more_is_better: false },
            Figure { key: "unanswered", label: "unanswered", more_is_better: false },
        ],
        targets: &[Target { of: "evermesh", over: None, at_least: false, bound: 300.0, says: "median at most 300 ms" }],
    },
];

/// What an answer of the system promises, by how its name begins.
const PROMISES: &[(&str, &str)] = &[
    ("evermesh", "3 nodes, fsync on a majority"),
    ("etcd", "3 nodes, fsync on a majority"),
    ("NATS, not", "3 nodes, delivered before it is stored"),
    ("NATS", "3 nodes, a majority has it, no fsync (every 2 min)"),
    ("nchan", "1 server, in memory"),
    ("bare axum", "1 server, stores nothing"),
    ("fdatasync", "1 disk"),
];

/// The measurements of one case.
struct Rounds<'a> {
    lines: Vec<&'a Value>,
}

impl<'a> Rounds<'a> {
    /// In the order of their first round.
    fn names(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        for name in self.lines.iter().filter_map(|line| line["name"].as_str()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn of(&self, name: &str, key: &str) -> Vec<(u64, f64)> {
        let named = self.lines.iter().filter(|line| line["name"] == name);
        named.filter_map(|line| Some((line["round"].as_u64()?, line[key].as_f64()?))).collect()
    }

    fn sum(&self, name: &str, key: &str) -> Option<u64> {
        let values = self.of(name, key);
        (!values.is_empty()).then(|| values.iter().map(|&(_, value)| value as u64).sum())
    }

    fn median(&self, name: &str, key: &str) -> Option<f64> {
        median(self.of(name, key).into_iter().map(|(_, value)| value).collect())
    }

    /// The median of the rounds' own proportions.
    fn proportion(&self, of: &str, over: &str, key: &str) -> Option<f64> {
        let over = self.of(over, key);
        let same_round = |round| over.iter().find(|&&(other, _)| other == round).map(|&(_, value)| value);
        let each = self.of(of, key).into_iter().filter_map(|(round, value)| same_round(round).map(|other| value / other));
        median(each.filter(|value| value.is_finite()).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

pub fn run(args: &Args) -> Result {
    let lines: Vec<Value> =
        fs::read_to_string(args.dir.join("raw.jsonl"))?.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let machine = fs::read_to_string(args.dir.join("machine.txt"))?;
    fs::write(args.dir.join("README.md"), page(&machine, &lines)?)?;
    Ok(())
}

fn page(machine: &str, lines: &[Value]) -> Result<String> {
    let mut page = String::from("# Side by side\n\n");
    for line in machine.lines() {
        writeln!(page, "- {line}")?;
    }
    page.push_str(
        "\nEverything ran on this one machine: the nodes, the load, and the systems that were not being measured, idle. Events are 256 bytes. A \
         figure is the median of the rounds, with the lowest and the highest in parentheses. *Evermesh is* … times as good as a row's system, \
         by the median of the rounds' own proportions; below 1 it is worse. *Lost* was acknowledged, or published to subscribers, and was not \
         there. `load-tests/compare/run` takes it again; `raw.jsonl` has each measurement.\n",
    );
    for case in CASES {
        let rounds = Rounds { lines: lines.iter().filter(|line| line["case"] == case.id).collect() };
        if !rounds.lines.is_empty() {
            section(&mut page, case, &rounds)?;
        }
    }
    Ok(page)
}

fn section(page: &mut String, case: &Case, rounds: &Rounds<'_>) -> Result {
    writeln!(page, "\n## {}: {}\n\n{}\n", case.id, case.title, case.setting)?;
    let more: String = case.more.iter().map(|figure| format!(" {} |", figure.label)).collect();
    writeln!(page, "| | an answer says | {} |{more} Evermesh is | lost | errors |", case.main.label)?;
    writeln!(page, "|---|---|---|{}---|---|---|", "---|".repeat(case.more.len()))?;
    for name in rounds.names() {
        row(page, case, rounds, name)?;
    }
    page.push('\n');
    for target in case.targets {
        if let Some(value) = measured(target, rounds, case.main.key) {
            let met = if target.at_least { value >= target.bound } else { value <= target.bound };
            let unit = if target.over.is_some() { " ×" } else { "" };
            writeln!(page, "Target: {}. Measured: {}{unit}, {}.", target.says, number(value), if met { "met" } else { "not met" })?;
        }
    }
    Ok(())
}

fn measured(target: &Target, rounds: &Rounds<'_>, key: &str) -> Option<f64> {
    match target.over {
        Some(over) => rounds.proportion(target.of, over, key),
        None => rounds.median(target.of, key),
    }
}

fn row(page: &mut String, case: &Case, rounds: &Rounds<'_>, name: &str) -> Result {
    let promise = PROMISES.iter().find(|(begin, _)| name.starts_with(begin)).map_or("", |(_, promise)| promise);
    let more: String =
        case.more.iter().map(|figure| format!(" {} |", rounds.median(name, figure.key).map_or("–".into(), number))).collect();
    // A system that was measured in several ways is compared way by way, as far as Evermesh was measured in the same ways.
    let ways = name.split_once(", ").map(|(_, way)| format!("evermesh, {way}"));
    let own = ways.filter(|own| rounds.names().contains(&own.as_str())).unwrap_or_else(|| "evermesh".into());
    let good = |proportion: f64| if case.main.more_is_better { proportion } else { 1.0 / proportion };
    let proportion = (!name.starts_with("evermesh")).then(|| rounds.proportion(&own, name, case.main.key)).flatten();
    let proportion = proportion.map_or("–".into(), |proportion| format!("{} ×", number(good(proportion))));
    let lost = rounds.sum(name, "lost").map_or("–".into(), |lost| lost.to_string());
    let errors: u64 = ["errors", "disorder", "broken"].iter().filter_map(|key| rounds.sum(name, key)).sum();
    writeln!(page, "| {name} | {promise} | {} |{more} {proportion} | {lost} | {errors} |", spread(rounds, name, case.main.key))?;
    Ok(())
}

fn spread(rounds: &Rounds<'_>, name: &str, key: &str) -> String {
    let values: Vec<f64> = rounds.of(name, key).into_iter().map(|(_, value)| value).collect();
    let (low, high) = (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max));
    match median(values) {
        Some(middle) => format!("**{}** ({}–{})", number(middle), number(low), number(high)),
        None => "–".into(),
    }
}

/// Three digits that count, or whole numbers with commas.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let mut out = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_has_medians_proportions_and_whether_the_target_is_met() {
        let line = |round: u64, name: &str, p50: f64| json!({"case": "a", "round": round, "name": name, "p50_ms": p50, "lost": 0});
        let lines = [line(1, "fdatasync", 0.2), line(1, "evermesh", 0.4), line(2, "fdatasync", 0.4), line(2, "evermesh", 1.6)];
        let page = page("date: today\n", &lines).unwrap();
        assert!(page.contains("- date: today\n"), "{page}");
        assert!(page.contains("| evermesh | 3 nodes, fsync on a majority | **1.00** (0.40–1.60) | – | – | – | – | 0 | 0 |"), "{page}");
        assert!(page.contains("| fdatasync | 1 disk | **0.30** (0.20–0.40) | – | – | – | 0.33 × | 0 | 0 |"), "{page}");
        assert!(page.contains("Measured: 3.00 ×, met."), "{page}");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let cases = [(0.0, "0"), (0.256, "0.26"), (12.34, "12.3"), (123.4, "123"), (1234567.0, "1,234,567")];
        cases.iter().for_each(|&(value, text)| assert_eq!(number(value), text));
    }
}
