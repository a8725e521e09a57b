//! From a seed, what is broken and for how long. The same seed and kinds give the same schedule, whatever happens meanwhile.

use super::fault::{Fault, Kind};
use crate::random::Random;

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Together; usually one.
    pub faults: Vec<Fault>,
    pub hold_ms: u64,
    /// Quiet time afterwards.
    pub calm_ms: u64,
}

pub struct Schedule {
    random: Random,
    kinds: Vec<Kind>,
    streams: usize,
    nodes: usize,
}

impl Schedule {
    pub fn new(seed: u64, kinds: &[Kind], streams: usize, nodes: usize) -> Schedule {
        Schedule { random: Random::part(seed, 1), kinds: kinds.to_vec(), streams, nodes }
    }

    pub fn next_step(&mut self) -> Step {
        let random = &mut self.random;
        let mut faults = Vec::new();
        // Now and then two at once, of different kinds.
        for _ in 0..if random.chance(15) { 2 } else { 1 } {
            let kind = *random.choose(&self.kinds);
            let fault = Fault::choose(kind, random, self.streams, self.nodes);
            if faults.iter().all(|other: &Fault| other.kind() != fault.kind()) {
                faults.push(fault);
            }
        }
        // Some faults are over before anybody noticed, some last longer than a request may.
        let hold_ms = match random.below(10) {
            0..3 => random.between(20, 400),
            3..9 => random.between(500, 4_000),
            _ => random.between(4_000, 12_000),
        };
        // About a quarter of the time is calm; often the next fault comes before the last one is got over.
        let calm_ms = if random.chance(40) { random.between(0, 300) } else { random.between(500, 2_500) };
        Step { faults, hold_ms, calm_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, count: usize) -> Vec<Step> {
        let kinds: Vec<_> = Kind::ALL.iter().map(|(kind, _)| *kind).collect();
        let mut schedule = Schedule::new(seed, &kinds, 6, 3);
        (0..count).map(|_| schedule.next_step()).collect()
    }

    #[test]
    fn a_seed_says_it_all() {
        assert_eq!(steps(7, 200), steps(7, 200));
        assert_ne!(steps(7, 200), steps(8, 200));
    }

    #[test]
    fn every_kind_comes_up_and_there_is_calm() {
        let steps = steps(1, 1000);
        for (kind, name) in Kind::ALL {
            assert!(steps.iter().flat_map(|step| &step.faults).any(|fault| fault.kind() == kind), "{name}");
            assert_eq!(Kind::of_name(name), Some(kind));
        }
        let (hold, calm) = steps.iter().fold((0, 0), |(hold, calm), step| (hold + step.hold_ms, calm + step.calm_ms));
        assert!((20..45).contains(&(100 * calm / (hold + calm))), "{calm} of {}", hold + calm);
        assert!(steps.iter().any(|step| step.faults.len() == 2));
    }
}
