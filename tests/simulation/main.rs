//! Whole clusters under a deterministic simulator: real nodes, real consensus, a real store, on one thread, with a clock, a network,
//! disks and chance that come from a seed. Same seed, same bytes.
//!
//! `cargo test --test simulation` runs a few seeds; `-- --seeds 5000` more of them, `-- --from 7000` others, and
//! `-- --seed 7 --verbose` shows one (with `RUST_LOG=debug` and what the nodes log). Each seed has a process of its own, since its
//! chance belongs to the process (`entropy`). Some seeds are run twice and their digests compared; a digest is over every decision,
//! every event that anybody was given, and every replica's log.
//!
//! `entropy` is chance, `net` the network, `world` the machines, `host` what runs on one, `history` what happened, `scenario` the
//! course of a seed, `check` what must be true in the end, `runner` many seeds.

mod check;
mod entropy;
mod history;
mod host;
mod net;
mod runner;
mod scenario;
mod stops;
mod world;

fn main() -> std::process::ExitCode {
    runner::main(std::env::args().skip(1).collect())
}
