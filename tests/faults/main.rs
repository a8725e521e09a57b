//! The fault harness: breaks a cluster of real node processes while clients use it, and checks what they were told.
//!
//! `README.md` beside this file says how it is used. `nemesis` chooses and does what is broken, `cluster` has the processes and
//! their network, `workload` publishes and reads, `history` is what was written down, `invariants` judge it.

// Of a program, cargo compiles the unit tests' modules and drops the tests in them; `checks.rs` runs those.
#![allow(unused_imports)]

mod args;
mod cluster;
mod collect;
mod history;
mod inside;
mod invariants;
mod nemesis;
mod random;
mod report;
mod run;
mod value;
mod workload;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let place = inside::enter();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be had");
    let outcome = runtime.block_on(async {
        match cli.command {
            None => run::run(cli.run, place).await,
            Some(_) => Err("not yet".into()),
        }
    });
    runtime.shutdown_background();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
