//! What must be true in the end, one function each.

use super::history::{History, Session, Shared, Value};
use super::host::{Report, stream_name};
use super::net::HostId;
use super::scenario::STREAMS;
use evermesh::core::catalog::NodeState;
use evermesh::core::{Discard, SettingsPatch};
use evermesh::node::{Error, Readiness, StreamInfo};
use std::collections::{BTreeMap, BTreeSet};

type Reports = BTreeMap<HostId, Report>;

/// Why the cluster is not yet at rest: replicas missing, behind, or in the wrong place; somebody still reading.
pub fn unrest(reports: &Reports, settings: &[SettingsPatch], removed: &BTreeSet<HostId>, shared: &Shared) -> Option<String> {
    let (_, first) = reports.first_key_value()?;
    for (host, report) in reports.iter().filter(|(host, _)| !removed.contains(host)) {
        if report.ready != Readiness::Ready {
            return Some(format!("host {host}: {:?}", report.ready));
        }
        if let Some(node) = report.nodes.iter().find(|node| !node.reachable || node.state != NodeState::Active) {
            return Some(format!("host {host} says of {}: reachable {}, {:?}", node.name, node.reachable, node.state));
        }
        if report.nodes.len() != reports.len() {
            return Some(format!("host {host} knows {} nodes of {}", report.nodes.len(), reports.len()));
        }
        if names(report) != names(first) {
            return Some(format!("host {host} lists {:?}, another {:?}", names(report), names(first)));
        }
    }
    first
        .streams
        .iter()
        .find_map(misplaced)
        .or_else(|| uneven(first))
        .or_else(|| first.streams.iter().find_map(|info| unreplicated(info, settings, first.nodes.len())))
        .or_else(|| leftovers(reports))
        .or_else(|| unequal_ends(reports))
        .or_else(|| unread(first, shared))
        .or_else(|| over_bounds(first, settings))
}

fn names(report: &Report) -> Vec<&str> {
    report.streams.iter().map(|info| info.name.as_str()).collect()
}

fn misplaced(info: &StreamInfo) -> Option<String> {
    let lagging = info.replicas.iter().find(|replica| replica.lag != Some(0));
    if let Some(replica) = lagging {
        return Some(format!("{} lags at {}: {:?}, leader {:?}", info.name, replica.node, replica.lag, info.leader));
    }
    let preferred = info.replicas.first().is_some_and(|replica| replica.leader);
    (!preferred).then(|| format!("{} is led by {:?}, not by {:?}", info.name, info.leader, info.replicas.first().map(|first| &first.node)))
}

fn unreplicated(info: &StreamInfo, settings: &[SettingsPatch], nodes: usize) -> Option<String> {
    let wanted = (0..STREAMS).find(|stream| stream_name(*stream) == info.name).and_then(|stream| settings[stream].replicas);
    let wanted = usize::from(wanted.unwrap_or(info.settings.replicas)).min(nodes);
    (info.replicas.len() != wanted).then(|| format!("{} has {} replicas, not {wanted}", info.name, info.replicas.len()))
}

/// Replicas, and preferred leaderships, differ by at most one from node to node.
fn uneven(report: &Report) -> Option<String> {
    let mut held: BTreeMap<&str, (usize, usize)> = report.nodes.iter().map(|node| (node.name.as_str(), (0, 0))).collect();
    for info in &report.streams {
        for (at, replica) in info.replicas.iter().enumerate() {
            let counts = held.entry(replica.node.as_str()).or_default();
            *counts = (counts.0 + 1, counts.1 + usize::from(at == 0));
        }
    }
    let spread = |count: fn(&(usize, usize)) -> usize| {
        let counts = held.values().map(count);
        counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
    };
    (spread(|held| held.0) > 1).then(|| format!("the spread is uneven: {held:?}"))
}

/// Each node has the groups of the streams that are placed on it, and the catalog, and nothing else.
fn leftovers(reports: &Reports) -> Option<String> {
    for (host, report) in reports {
        let name = format!("n{host}");
        let placed = |info: &&StreamInfo| info.replicas.iter().any(|replica| replica.node.as_str() == name);
        let wanted = 1 + report.streams.iter().filter(placed).count();
        if report.logs.len() != wanted {
            return Some(format!("host {host} has {} groups, and {wanted} are placed on it", report.logs.len()));
        }
    }
    None
}

fn unequal_ends(reports: &Reports) -> Option<String> {
    let mut ends: BTreeMap<u64, (HostId, Option<u64>)> = BTreeMap::new();
    for (host, report) in reports {
        for (group, log) in &report.logs {
            let (other, known) = *ends.entry(*group).or_insert((*host, log.end));
            if known != log.end {
                return Some(format!("group {group} ends at {:?} at host {host} and at {known:?} at host {other}", log.end));
            }
        }
    }
    None
}

fn unread(report: &Report, shared: &Shared) -> Option<String> {
    let history = shared.history();
    for (stream, info) in streams(report) {
        for (host, cursor) in &history.streams[stream].cursors {
            if *cursor != info.last_seq + 1 && report.nodes.iter().any(|node| node.name.as_str() == format!("n{host}")) {
                return Some(format!("the follower of {} at host {host} is at {cursor}, the stream ends at {}", info.name, info.last_seq));
            }
        }
    }
    None
}

fn over_bounds(report: &Report, settings: &[SettingsPatch]) -> Option<String> {
    for (stream, info) in streams(report) {
        let SettingsPatch { max_events, max_bytes, max_age_ms, .. } = &settings[stream];
        let over = |bound: &Option<Option<u64>>, value: u64| bound.flatten().is_some_and(|bound| value > bound);
        // A bound that was changed while the cluster was in trouble may not have been; the catalog's is what counts then.
        let max_events = if stream == 1 { &Some(info.settings.max_events) } else { max_events };
        let old = max_age_ms.flatten().is_some() && info.last_seq >= info.first_seq && info.last_seq > 0;
        if over(max_events, info.last_seq + 1 - info.first_seq) || over(max_bytes, info.bytes) || old {
            return Some(format!("{} keeps {} to {}, {} bytes, over its bounds", info.name, info.first_seq, info.last_seq, info.bytes));
        }
    }
    None
}

fn streams(report: &Report) -> impl Iterator<Item = (usize, &StreamInfo)> {
    let find = |stream| report.streams.iter().find(|info| info.name == stream_name(stream)).map(|info| (stream, info));
    (0..STREAMS).filter_map(find)
}

/// The checks of a cluster at rest.
pub fn everything(reports: &Reports, settings: &[SettingsPatch], shared: &Shared) {
    let mut history = shared.history();
    let Some((_, report)) = reports.first_key_value() else { return history.violation("nobody reports".into()) };
    let mut found = Vec::new();
    logs_are_equal(reports, &mut found);
    for (stream, info) in streams(report) {
        acknowledged_is_there(&history, stream, info, &mut found);
        refused_is_not_there(&history, stream, &mut found);
        sessions_keep_their_order(&history, stream, &mut found);
        ids_are_there_once(&history, stream, &mut found);
        gaps_were_true(&history, stream, info, settings, &mut found);
    }
    history.counts.naps = reports.values().map(|report| report.naps).sum();
    history.counts.merges = reports.values().map(|report| report.merges).sum();
    if streams(report).count() != STREAMS {
        found.push(format!("of {STREAMS} streams only these are left: {:?}", names(report)));
    }
    found.extend(history.unanswered().map(|number| format!("op {number} was never answered")));
    found.into_iter().for_each(|what| history.violation(what));
    for (host, report) in reports {
        let logs: Vec<_> = report
            .logs
            .iter()
            .map(|(group, log)| (group, log.entries.len(), log.entries.values().fold(0u64, |all, one| all.rotate_left(5) ^ one)))
            .collect();
        history.trace(format_args!("host {host} ends with {logs:?}"));
    }
}

fn logs_are_equal(reports: &Reports, found: &mut Vec<String>) {
    let mut truth: BTreeMap<(u64, u64), (HostId, u64)> = BTreeMap::new();
    for (host, report) in reports {
        for (group, log) in &report.logs {
            for (index, hash) in &log.entries {
                let (other, known) = *truth.entry((*group, *index)).or_insert((*host, *hash));
                if known != *hash {
                    found.push(format!("entry {index} of group {group} differs between hosts {other} and {host}"));
                    return;
                }
            }
        }
    }
}

/// What was acknowledged and not removed since was given to followers, who read to the end: at its seq (which `saw` compares).
fn acknowledged_is_there(history: &History, stream: usize, info: &StreamInfo, found: &mut Vec<String>) {
    let of = &history.streams[stream];
    if info.last_seq < of.acked {
        found.push(format!("s{stream} ends at {}, but {} was acknowledged", info.last_seq, of.acked));
    }
    for seq in info.first_seq..=info.last_seq {
        if !of.truth.contains_key(&seq) && !of.trims {
            found.push(format!("s{stream} {seq} was given to nobody"));
        }
    }
}

/// A definite refusal means that the event is in no log.
fn refused_is_not_there(history: &History, stream: usize, found: &mut Vec<String>) {
    for (value, seq) in &history.streams[stream].place {
        let Some(op) = history.ops.get(&value.op) else {
            found.push(format!("s{stream} has {value} at {seq}, which nobody published"));
            continue;
        };
        let refused = matches!(&op.outcome, Some(Err(error)) if !matches!(error, Error::OutcomeUnknown | Error::Internal(_)));
        if refused || op.stream != stream || value.at >= op.count {
            found.push(format!("s{stream} has {value} at {seq}, though its publish was answered {:?}", op.outcome));
        }
    }
}

/// What one publisher sends through one boot of a node is stored in its order.
fn sessions_keep_their_order(history: &History, stream: usize, found: &mut Vec<String>) {
    let mut last: BTreeMap<Session, Value> = BTreeMap::new();
    for (seq, (value, _)) in &history.streams[stream].truth {
        let Some(op) = history.ops.get(&value.op) else { continue };
        if let Some(before) = last.insert(op.session, *value)
            && before > *value
        {
            found.push(format!("s{stream}: {value} at {seq} comes after {before}, which was published later by {:?}", op.session));
        }
    }
}

/// Within the window (longer than the simulation) an event id is stored once.
fn ids_are_there_once(history: &History, stream: usize, found: &mut Vec<String>) {
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    for (seq, (_, id)) in &history.streams[stream].truth {
        if let Some(id) = id
            && let Some(before) = places.insert(id, *seq)
        {
            found.push(format!("s{stream} has the id {id} at {before} and at {seq}"));
        }
    }
}

/// Where nothing is removed, nothing was told to be gone, and a full stream that rejects is not over its bound.
fn gaps_were_true(history: &History, stream: usize, info: &StreamInfo, settings: &[SettingsPatch], found: &mut Vec<String>) {
    let of = &history.streams[stream];
    if !of.trims && info.first_seq != 1 {
        found.push(format!("s{stream} begins at {}, and nothing was to be removed", info.first_seq));
    }
    if settings[stream].discard == Some(Discard::New) && info.last_seq > settings[stream].max_events.flatten().unwrap_or(u64::MAX) {
        found.push(format!("s{stream} rejects when it is full, and has {} events", info.last_seq));
    }
}
