//! What is broken, when, and how it is mended: `fault` says what there is, `schedule` chooses from a seed, `act` does it.

pub mod act;
pub mod fault;
pub mod schedule;
