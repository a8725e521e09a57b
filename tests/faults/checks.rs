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
