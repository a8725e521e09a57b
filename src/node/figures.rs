//! The figures of the rooms below as Prometheus text: the mesh, the elections, the store.

use super::Inner;
use super::metrics::HandOver;
use crate::cluster::{STAGE_BOUNDS_MS, Times};
use crate::store::{COMMIT_BUCKETS, Stats};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

/// Commit times are counted up to powers of two microseconds; those from 256 µs to about a second are shown.
const COMMIT_BOUNDS_US: std::ops::RangeInclusive<usize> = 8..=20;

pub fn write(text: &mut String, node: &Inner) {
    for (name, value) in node.mesh.counters().list() {
        counter(text, &format!("mesh_{name}"), "Counted by the peer mesh since the start", value);
    }
    elections(text, node);
    store(text, &node.store.stats());
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP evermesh_{name} {help}.\n# TYPE evermesh_{name} {kind}");
}

fn counter(text: &mut String, name: &str, help: &str, value: u64) {
    head(text, name, "counter", help);
    let _ = writeln!(text, "evermesh_{name}_total {value}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl Display) {
    head(text, name, "gauge", help);
    let _ = writeln!(text, "evermesh_{name} {value}");
}

fn by_cause(text: &mut String, name: &str, help: &str, causes: impl IntoIterator<Item = (&'static str, u64)>) {
    head(text, name, "counter", help);
    for (cause, count) in causes {
        let _ = writeln!(text, "evermesh_{name}_total{{cause=\"{cause}\"}} {count}");
    }
}

/// The series of one histogram. `counts` has those of each bound, and of what was beyond all of them at the end.
fn histogram(text: &mut String, name: &str, label: &str, bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) {
    let mut sum_of_counts = 0;
    let comma = if label.is_empty() { "" } else { "," };
    for (bound, count) in bounds.map(|bound| bound.to_string()).chain(["+Inf".into()]).zip(counts) {
        sum_of_counts += count;
        let _ = writeln!(text, "evermesh_{name}_bucket{{{label}{comma}le=\"{bound}\"}} {sum_of_counts}");
    }
    let labels = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
    let _ = writeln!(text, "evermesh_{name}_sum{labels} {sum}\nevermesh_{name}_count{labels} {sum_of_counts}");
}

fn elections(text: &mut String, node: &Inner) {
    let seen = node.groups.elections();
    let causes =
        [("evidence", &seen.by_evidence), ("transfer", &seen.by_transfer), ("opened", &seen.by_opening), ("timer", &seen.by_timer)];
    let causes = causes.map(|(cause, count)| (cause, count.load(Relaxed)));
    by_cause(text, "elections_won", "Leaderships that replicas of this node came to, by cause", causes);
    let handed_over = HandOver::ALL.iter().zip(&node.metrics.handed_over).map(|((_, cause), count)| (*cause, count.get()));
    by_cause(text, "leaderships_handed_over", "Leaderships that this node handed over, by cause", handed_over);
    let seconds = seen.last_failover_us.load(Relaxed) as f64 / 1e6;
    gauge(text, "failover_last_seconds", "From seeing a leader gone to leading in its place, at the newest", seconds);
    head(
        text,
        "failover_stage_seconds",
        "histogram",
        "How long the stages of this node's failovers took: from seeing a leader gone to the verdict who stands, to leading, to the first commit",
    );
    for (stage, times) in [("verdict", &seen.verdict), ("election", &seen.election), ("first_commit", &seen.first_commit)] {
        self::stage(text, stage, times);
    }
}

fn stage(text: &mut String, stage: &str, times: &Times) {
    let bounds = STAGE_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3);
    histogram(text, "failover_stage_seconds", &format!("stage=\"{stage}\""), bounds, &times.counts(), times.sum_us() as f64 / 1e6);
}

fn store(text: &mut String, stats: &Stats) {
    for (name, help, value) in [
        ("store_commits", "Durable transactions of log segments and metadata", stats.commits),
        ("store_rows", "Log entries written", stats.rows),
        ("store_written_bytes", "Bytes handed to the files", stats.bytes_written),
        ("store_syncs", "Syncs of files to the disk", stats.syncs),
        ("store_scrubbed_bytes", "Bytes of log entries that the background scrub has verified", stats.scrubbed_bytes),
        ("store_scrub_passes", "Times that the scrub has come through all sealed segments", stats.scrub_passes),
        ("store_merges", "Times that sealed segments were merged, and what was deleted in them left out", stats.merges),
        ("store_damaged_rows", "Log entries that were found damaged", stats.damaged_rows),
    ] {
        counter(text, name, help, value);
    }
    for (name, help, value) in [
        ("store_queued_operations", "Operations that wait for the writer", stats.queued),
        ("store_queued_bytes", "Bytes of payloads that wait for the writer", stats.queued_bytes),
        ("store_tail_bytes", "Bytes of the newest log entries that are kept in memory", stats.tail_bytes),
        ("store_segments", "Log segments on the disk", stats.segments),
        ("store_file_bytes", "Length of all files of the store", stats.file_bytes),
        ("store_fenced_groups", "Groups whose data on this node must not be used", stats.fenced_groups),
        ("store_files_aside", "Damaged files that were moved aside and are still there", stats.files_aside),
    ] {
        gauge(text, name, help, value);
    }
    head(text, "store_commit_seconds", "histogram", "How long durable transactions took");
    let (bounds, counts) = commit_times(&stats.commit_us);
    histogram(text, "store_commit_seconds", "", bounds.into_iter(), &counts, stats.commit_us_sum as f64 / 1e6);
}

/// The bounds in seconds and what was counted up to each, and beyond.
fn commit_times(us: &[u64; COMMIT_BUCKETS]) -> (Vec<f64>, Vec<u64>) {
    let bounds = COMMIT_BOUNDS_US.map(|bucket| (1u64 << bucket) as f64 / 1e6).collect();
    let first = us[..=*COMMIT_BOUNDS_US.start()].iter().sum();
    let rest = us[COMMIT_BOUNDS_US.start() + 1..=*COMMIT_BOUNDS_US.end()].iter().copied();
    let beyond = us[COMMIT_BOUNDS_US.end() + 1..].iter().sum();
    (bounds, [first].into_iter().chain(rest).chain([beyond]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_its_bounds() {
        let mut text = String::new();
        histogram(&mut text, "x_seconds", "stage=\"a\"", [0.1, 0.5].into_iter(), &[2, 0, 1], 1.5);
        let expected = "evermesh_x_seconds_bucket{stage=\"a\",le=\"0.1\"} 2\nevermesh_x_seconds_bucket{stage=\"a\",le=\"0.5\"} 2\n\
            evermesh_x_seconds_bucket{stage=\"a\",le=\"+Inf\"} 3\nevermesh_x_seconds_sum{stage=\"a\"} 1.5\nevermesh_x_seconds_count{stage=\"a\"} 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_commit_is_in_a_bucket() {
        let mut us = [0; COMMIT_BUCKETS];
        (us[0], us[8], us[9], us[20], us[31]) = (1, 2, 4, 8, 16);
        let (bounds, counts) = commit_times(&us);
        assert_eq!((bounds.len(), counts.len()), (13, 14));
        assert_eq!((counts[0], counts[1], counts[12], counts[13]), (3, 4, 8, 16));
        assert_eq!((bounds[0], bounds[12]), (0.000256, 1.048576));
    }
}
