//! What a benchmark counted: added to by every connection, shown once a second and at the end.

use super::latencies::{ALL, Latencies};
use crate::cli::{
    connect::Connect,
    table::{Table, bytes, count, say},
};
use serde_json::json;
use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::time::Instant;

/// Different errors that are shown in words.
const REASONS_MAX: usize = 5;

/// The sum of what all connections saw.
pub struct Report {
    /// What one request or delivery is called.
    unit: &'static str,
    began: Instant,
    tally: Mutex<Tally>,
}

#[derive(Clone)]
pub struct Tally {
    pub requests: u64,
    pub events: u64,
    pub bytes: u64,
    pub errors: u64,
    pub gaps: u64,
    pub duplicates: u64,
    /// Due at the rate, and not sent because too much was in flight.
    pub dropped: u64,
    latencies: Latencies,
    reasons: Vec<String>,
}

impl Tally {
    fn new() -> Tally {
        let latencies = Latencies::new();
        Tally { requests: 0, events: 0, bytes: 0, errors: 0, gaps: 0, duplicates: 0, dropped: 0, latencies, reasons: Vec::new() }
    }

    pub fn latency(&mut self, latency: Duration) {
        self.latencies.record(latency);
    }

    pub fn latency_us(&mut self, latency_us: u64) {
        self.latencies.record_us(latency_us);
    }

    pub fn error(&mut self, why: &str) {
        self.errors += 1;
        if self.reasons.len() < REASONS_MAX && !self.reasons.iter().any(|known| known == why) {
            self.reasons.push(why.to_owned());
        }
    }
}

impl Report {
    pub fn new(unit: &'static str) -> Report {
        Report { unit, began: Instant::now(), tally: Mutex::new(Tally::new()) }
    }

    /// For one short update.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nothing panics while it holds this lock")
    }

    /// Prints a line every second, until it is dropped.
    pub async fn tick(&self) {
        let mut every = tokio::time::interval_at(self.began + Duration::from_secs(1), Duration::from_secs(1));
        let (mut events, mut size, mut at) = (0, 0, self.began);
        loop {
            every.tick().await;
            let now = self.tally().clone();
            let took = at.elapsed().as_secs_f64();
            let rate = |then: u64, now: u64| ((now - then) as f64 / took) as u64;
            let wrong = wrong(&now);
            eprintln!(
                "{:>4} s  {:>10} events/s  {:>10}/s  p50 {:.2} ms  p99 {:.2} ms{}{wrong}",
                self.began.elapsed().as_secs(),
                count(rate(events, now.events)),
                bytes(rate(size, now.bytes)),
                now.latencies.ms(50.0),
                now.latencies.ms(99.0),
                if wrong.is_empty() { "" } else { "  " },
            );
            (events, size, at) = (now.events, now.bytes, Instant::now());
        }
    }

    /// Prints the outcome; whether every event came once.
    pub fn finish(&self, connect: &Connect, measured: Duration) -> bool {
        let tally = self.tally().clone();
        let seconds = measured.as_secs_f64().max(0.001);
        match connect.json {
            true => say(&self.as_json(&tally, seconds).to_string()),
            false => say(&self.as_text(&tally, seconds)),
        }
        tally.gaps == 0 && tally.duplicates == 0
    }

    fn as_json(&self, tally: &Tally, seconds: f64) -> serde_json::Value {
        json!({
            "seconds": seconds, self.unit: tally.requests, "events": tally.events, "bytes": tally.bytes,
            "events_per_second": tally.events as f64 / seconds, "latency_ms": tally.latencies.json(ALL), "errors": tally.errors,
            "gaps": tally.gaps, "duplicates": tally.duplicates, "dropped": tally.dropped, "reasons": tally.reasons,
        })
    }

    fn as_text(&self, tally: &Tally, seconds: f64) -> String {
        let per_second = |number: u64| count((number as f64 / seconds) as u64);
        let mut table = Table::new(&["", "TOTAL", "A SECOND"], &[1, 2]);
        table.row([self.unit.into(), count(tally.requests), per_second(tally.requests)]);
        table.row(["events".into(), count(tally.events), per_second(tally.events)]);
        table.row(["data".into(), bytes(tally.bytes), bytes((tally.bytes as f64 / seconds) as u64)]);
        let wrong = wrong(tally);
        let wrong = if wrong.is_empty() { "no errors, gaps or duplicates".into() } else { wrong };
        let reasons: String = tally.reasons.iter().map(|why| format!("\n  {why}")).collect();
        format!("\n{}\n\n{}\n{wrong}{reasons}", table.text(), tally.latencies.text(ALL))
    }
}

fn wrong(tally: &Tally) -> String {
    let counts = [("errors", tally.errors), ("gaps", tally.gaps), ("duplicates", tally.duplicates), ("dropped", tally.dropped)];
    counts
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(name, number)| format!("{name} {}", count(*number)))
        .collect::<Vec<_>>()
        .join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_names_what_went_wrong() {
        let report = Report::new("requests");
        {
            let mut tally = report.tally();
            (tally.requests, tally.events, tally.gaps) = (2, 20, 1);
            tally.latency(Duration::from_millis(2));
            tally.latency(Duration::from_secs(3600));
            (0..100).for_each(|at| tally.error(&format!("why {}", at % 7)));
        }
        let tally = report.tally().clone();
        let text = report.as_text(&tally, 2.0);
        assert!(text.contains("errors 100  gaps 1") && text.contains("why 4") && !text.contains("why 5"), "{text}");
        let json = report.as_json(&tally, 2.0);
        assert_eq!((json["requests"].as_u64(), json["events_per_second"].as_f64()), (Some(2), Some(10.0)));
        assert!((1.9..2.1).contains(&json["latency_ms"]["p50"].as_f64().unwrap()), "{json}");
    }
}
