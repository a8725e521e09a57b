//! What is broken, when, and how it is mended: `fault` says what there is, `schedule` chooses from a seed, `act` does it, with
//! `harm` for disks, clocks and links and `members` for nodes that come and go; `recover` waits until all is well again.

pub mod act;
pub mod fault;
mod harm;
mod members;
mod recover;
pub mod schedule;
