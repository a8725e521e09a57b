//! What is printed while a run goes on and at its end.

use crate::invariants::Kind as Broken;
use crate::nemesis::{act::Nemesis, fault::Kind};
use crate::workload::Shared;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub fn progress(shared: &Shared, faults: u64) -> String {
    let counts = &shared.counts;
    format!(
        "{:8.3} s  {faults} faults, {} events acknowledged, {} delivered, {} violations",
        shared.now_us() as f64 / 1e6,
        counts.acked.load(Relaxed),
        counts.delivered.load(Relaxed),
        shared.violations().counts.values().sum::<u64>(),
    )
}

pub struct Totals {
    /// Events in the logs that were compared, of one node.
    pub checked: u64,
    pub nodes: usize,
}

pub fn last(nemesis: &Nemesis, totals: &Totals) -> String {
    let shared = &nemesis.shared;
    let counts = &shared.counts;
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
    let kinds: BTreeMap<&str, u64> = nemesis.counts.iter().map(|(kind, count): (&Kind, &u64)| (kind.name(), *count)).collect();
    let kinds = kinds.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
    let violations = shared.violations();
    let broken = Broken::ALL.map(|kind| format!("{} {}", kind.name(), violations.counts.get(&kind).unwrap_or(&0))).join(", ");
    let ms = |time: Duration| time.as_millis();
    format!(
        "faults:     {} ({kinds})\n\
         events:     {} acknowledged; {} in the logs, compared on {} nodes\n\
         requests:   {} with an unknown outcome, {} refused and given up, {} other last seqs, {} repeated\n\
         readers:    {} events delivered over {} connections; {} read back after their acknowledgement, {} of them without an answer\n\
         leaders:    {} changes seen; longest time without an ack on a stream {} ms; slowest recovery {} ms\n\
         violations: {broken}",
        nemesis.faults(),
        load(&counts.acked),
        totals.checked,
        totals.nodes,
        load(&counts.unknown),
        load(&counts.refused),
        load(&counts.mismatches),
        load(&counts.repeats),
        load(&counts.delivered),
        load(&counts.resumes),
        load(&counts.reads),
        load(&counts.reads_silent),
        shared.leader_changes(),
        ms(shared.longest_gap()),
        ms(nemesis.slowest_recovery),
    )
}
