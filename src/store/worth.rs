//! Which segments are worth a merge. Pure.

use crate::core::limits::MERGE_SEGMENTS_MAX;
use std::ops::Range;

/// The database's smallest file; it grows by doubling.
const SMALLEST_FILE: u64 = 2 << 20;

/// What lives in a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    pub file_bytes: u64,
    /// `None`: too much for a merge, or not known.
    pub live_bytes: Option<u64>,
}

/// The adjacent segments whose merge gives most room back for what it writes; at least as much as that, and at least `freed_min`.
pub(super) fn worthiest(weights: &[Weight], live_max: u64, freed_min: u64) -> Option<Range<usize>> {
    let mut best: Option<(u64, u64, Range<usize>)> = None;
    for start in 0..weights.len() {
        let (mut files, mut live) = (0, 0);
        for (at, weight) in weights.iter().enumerate().skip(start).take(MERGE_SEGMENTS_MAX) {
            let Some(bytes) = weight.live_bytes else { break };
            (files, live) = (files + weight.file_bytes, live + bytes);
            if live > live_max {
                break;
            }
            let written = (2 * live).max(SMALLEST_FILE);
            let freed = u64::saturating_sub(files, written);
            if freed < freed_min.max(live) {
                continue;
            }
            // More room for each byte written, by products instead of quotients.
            let better = |(best_freed, best_written, _): &(u64, u64, _)| {
                u128::from(freed) * u128::from(*best_written) > u128::from(*best_freed) * u128::from(written)
            };
            if best.as_ref().is_none_or(better) {
                best = Some((freed, written, start..at + 1));
            }
        }
    }
    best.map(|(_, _, range)| range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn check(weights: &[(u64, Option<u64>)], expected: Option<Range<usize>>) {
        let weights: Vec<_> =
            weights.iter().map(|(file, live)| Weight { file_bytes: file * MIB, live_bytes: live.map(|live| live * MIB) }).collect();
        assert_eq!(worthiest(&weights, 32 * MIB, 8 * MIB), expected, "{weights:?}");
    }

    #[test]
    fn what_gives_most_room_for_what_it_writes_is_merged() {
        check(&[], None);
        check(&[(128, None), (128, None)], None);
        // One that nearly nothing lives in; not the one beside it that would have to be written again.
        check(&[(64, Some(30)), (128, Some(0))], Some(1..2));
        check(&[(64, Some(30)), (64, Some(2))], Some(1..2));
        // Small ones once there are enough, and only neighbours.
        check(&[(2, Some(0)), (2, Some(0)), (2, Some(0))], None);
        check(&[(2, Some(0)); 6], Some(0..6));
        check(&[(2, Some(0)), (2, Some(0)), (2, Some(0)), (128, None), (2, Some(0)), (2, Some(0)), (2, Some(0))], None);
        // No more than there may be in one.
        check(&[(128, Some(20)), (128, Some(20))], Some(0..1));
        check(&[(64, Some(33))], None);
        // Never more written than freed.
        check(&[(60, Some(31))], None);
    }
}
