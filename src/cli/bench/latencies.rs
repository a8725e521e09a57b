//! Latencies in microseconds, in an HDR histogram of three digits, from 1 µs to 10 minutes; what is longer counts as that.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

const US_MAX: u64 = 600_000_000;
/// What a benchmark of the service shows …
pub const ALL: &[(&str, f64)] = &[("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];
/// … and one of the machine, which measures less often.
pub const FEW: &[(&str, f64)] = &[("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0)];

#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, US_MAX, 3).expect("the bounds are constants"))
    }

    pub fn record(&mut self, latency: Duration) {
        self.record_us(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn record_us(&mut self, latency_us: u64) {
        self.0.saturating_record(latency_us.clamp(1, US_MAX));
    }

    pub fn add(&mut self, others: &Latencies) {
        self.0.add(&others.0).expect("all have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn ms(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1000.0
    }

    pub fn json(&self, percentiles: &[(&str, f64)]) -> Value {
        percentiles.iter().map(|(name, at)| ((*name).to_owned(), json!(self.ms(*at)))).collect::<serde_json::Map<_, _>>().into()
    }

    pub fn text(&self, percentiles: &[(&str, f64)]) -> String {
        let figures: Vec<_> = percentiles.iter().map(|(name, at)| format!("{name} {:.2}", self.ms(*at))).collect();
        format!("latency ms  {}", figures.join("  "))
    }
}
