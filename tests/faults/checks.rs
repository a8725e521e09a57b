//! The tests of what the fault harness decides with: its invariants, its schedule, its values. The harness itself is a program
//! (`tests/faults/run`) and not run by `cargo test`.

// The program uses more of these than the tests do.
#![allow(dead_code)]

mod history;
mod invariants;
mod random;
mod value;
mod nemesis {
    pub mod fault;
    pub mod schedule;
}
mod seed {
    #[test]
    fn random_numbers_have_not_changed() {
        let mut random = crate::random::Random::new(7);
        let first: Vec<u64> = (0..3).map(|_| random.next() % 1000).collect();
        assert_eq!(first, FIRST, "a seed of an old report would mean another run");
    }

    const FIRST: [u64; 3] = [487, 804, 346];
}
mod node {
    pub mod disk;
    pub mod rules;
}
