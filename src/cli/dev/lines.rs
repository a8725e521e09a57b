//! From a node's JSON log lines to the few that a person should see.
//!
//! - Shown: what carries the attention target, every warning and error, and whatever is no log line (a panic, say).
//! - Told once: what several nodes notice at the same time is one event.

use crate::cli::logging::ATTENTION;
use serde_json::{Map, Value};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The same message from another node within this time is the same event.
const SAME_WITHIN: Duration = Duration::from_secs(5);
/// Messages remembered for that.
const REMEMBERED_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Event,
    Warning,
    Error,
    /// No log line; shown as it came.
    Raw,
}

/// One line worth showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub weight: Weight,
    /// `HH:MM:SS`, UTC; empty where the line had no time.
    pub time: String,
    pub text: String,
}

/// What a node's line is worth; `None`: nothing.
pub fn parse(line: &str) -> Option<Shown> {
    if line.trim().is_empty() {
        return None;
    }
    let Ok(Value::Object(object)) = serde_json::from_str(line) else {
        return Some(Shown { weight: Weight::Raw, time: String::new(), text: printable(line) });
    };
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let weight = match (word("level"), word("target")) {
        ("ERROR", _) => Weight::Error,
        ("WARN", target) if target != ATTENTION => Weight::Warning,
        (_, ATTENTION) => Weight::Event,
        _ => return None,
    };
    let text = object.get("fields").and_then(Value::as_object).map(message).unwrap_or_default();
    Some(Shown { weight, time: word("timestamp").get(11..19).unwrap_or_default().to_owned(), text })
}

/// The message, and the other fields behind it.
fn message(fields: &Map<String, Value>) -> String {
    let mut text = fields.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (key, value) in fields.iter().filter(|(key, _)| *key != "message" && !key.starts_with("log.")) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!(" {key}={value}"));
    }
    printable(&text)
}

/// Control characters would let a log line draw on the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

/// Remembers what was shown, to tell an event once that every node tells.
#[derive(Default)]
pub struct Told(VecDeque<(Instant, String)>);

impl Told {
    pub fn is_new(&mut self, text: &str, now: Instant) -> bool {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > SAME_WITHIN) || self.0.len() >= REMEMBERED_MAX {
            self.0.pop_front();
        }
        let new = self.0.iter().all(|(_, other)| other != text);
        if new {
            self.0.push_back((now, text.to_owned()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(Weight, &str, &str)>) {
        let shown = parse(line);
        let shown = shown.as_ref().map(|shown| (shown.weight, shown.time.as_str(), shown.text.as_str()));
        assert_eq!(shown, expected, "{line}");
    }

    #[test]
    fn only_what_deserves_attention_is_shown() {
        let line = |level: &str, target: &str, fields: &str| {
            format!(r#"{{"timestamp":"2026-11-22T10:15:30.123456Z","level":"{level}","fields":{fields},"target":"{target}"}}"#)
        };
        let said = r#"{"message":"orders is led by n2"}"#;
        check(&line("INFO", ATTENTION, said), Some((Weight::Event, "10:15:30", "orders is led by n2")));
        check(&line("WARN", ATTENTION, said), Some((Weight::Event, "10:15:30", "orders is led by n2")));
        check(&line("INFO", "evermesh::store", said), None);
        check(&line("DEBUG", "evermesh::store", said), None);
        check(&line("WARN", "evermesh::store", r#"{"message":"slow","ms":12}"#), Some((Weight::Warning, "10:15:30", "slow ms=12")));
        check(&line("ERROR", "x", r#"{"message":"a\u001b[2Jb"}"#), Some((Weight::Error, "10:15:30", "a [2Jb")));
        check("thread 'main' panicked", Some((Weight::Raw, "", "thread 'main' panicked")));
        check("{\"level\":\"WARN\"}", Some((Weight::Warning, "", "")));
        check("  ", None);
        check("17", Some((Weight::Raw, "", "17")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_nodes_notice_is_told_once() {
        let mut told = Told::default();
        let start = Instant::now();
        assert!(told.is_new("n2 is down", start));
        assert!(!told.is_new("n2 is down", start + SAME_WITHIN / 2));
        assert!(told.is_new("n3 is down", start + SAME_WITHIN / 2));
        assert!(told.is_new("n2 is down", start + SAME_WITHIN * 2));
        for at in 0..1000 {
            told.is_new(&at.to_string(), start);
        }
        assert!(told.0.len() <= REMEMBERED_MAX);
    }
}
