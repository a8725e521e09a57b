//! How a measurement is written down: one JSON object a line, in one file a run.

use crate::Result;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::{fs::OpenOptions, io::Write, path::PathBuf};

#[derive(clap::Args, Clone, Debug)]
pub struct Out {
    /// File that the measurement is appended to
    #[arg(long)]
    out: PathBuf,
    #[arg(long)]
    case: String,
    #[arg(long)]
    round: u64,
    /// What was measured, as the report calls it
    #[arg(long)]
    name: String,
}

impl Out {
    pub fn write(&self, figures: Map<String, Value>) -> Result {
        let mut line = json!({"case": self.case, "round": self.round, "name": self.name});
        let said: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {}", short(value))).collect();
        line.as_object_mut().ok_or("no object")?.extend(figures);
        writeln!(OpenOptions::new().create(true).append(true).open(&self.out)?, "{line}")?;
        println!("    {:<28} {}", self.name, said.join("  "));
        Ok(())
    }
}

fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() != 0.0 && number < 1000.0 => format!("{number:.2}"),
        Some(number) => format!("{number:.0}"),
        None => value.to_string(),
    }
}

/// Latencies in microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("the bounds are constants")
}

/// Rate, latencies, and what became of the events. `lost` is what was acknowledged and is not stored: below zero, more was stored than
/// was acknowledged, as happens with what was under way at the end.
pub struct Figures(Map<String, Value>);

impl Figures {
    pub fn new() -> Figures {
        Figures(Map::new())
    }

    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Figures {
        self.0.insert(name.into(), value.into());
        self
    }

    pub fn rate(self, count: u64, seconds: f64) -> Figures {
        self.set("rate", (count as f64 / seconds).round())
    }

    pub fn latencies(self, histogram: &Histogram<u64>) -> Figures {
        let ms = |percentile| histogram.value_at_percentile(percentile) as f64 / 1000.0;
        self.set("p50_ms", ms(50.0)).set("p99_ms", ms(99.0)).set("max_ms", ms(100.0))
    }

    /// What the system's processes took of the processors for each event, where they are known.
    pub fn cpu(self, cpu_us: u64, events: u64) -> Figures {
        if cpu_us == 0 || events == 0 { self } else { self.set("cpu_us_per_event", cpu_us as f64 / events as f64) }
    }

    pub fn stored(self, acked: u64, before: Option<u64>, after: Option<u64>) -> Figures {
        let figures = self.set("acked", acked);
        match (before, after) {
            (Some(before), Some(after)) => {
                let stored = after.saturating_sub(before);
                figures.set("stored", stored).set("lost", acked.saturating_sub(stored))
            }
            _ => figures,
        }
    }

    pub fn done(self) -> Map<String, Value> {
        self.0
    }
}
