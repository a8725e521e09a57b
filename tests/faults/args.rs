//! The command line of the harness.

use crate::nemesis::fault::Kind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  tests/faults/run                                        three minutes of everything, on three nodes
  tests/faults/run --minutes 30 --nodes 5
  tests/faults/run --faults kill,pause,cut --seed 7       the same schedule each time
  tests/faults/run gaps --kind kill --times 50            how long nobody is acknowledged when the leader is killed
  tests/faults/run soak --minutes 30                      nothing broken: does anything grow?

Faults: kill, pause, cut, stop, rolling, transfer, drain, join, replace, power, slow, eio, full, damage, clock, delay, oneway.

A run that finds something exits with 1, keeps its folder, and prints the command that repeats it. EVERMESH names another
binary than target/release/evermesh.";

/// Breaks a cluster of real node processes while clients use it, and checks what they were told.
#[derive(Parser, Debug)]
#[command(name = "tests/faults/run", max_term_width = 110, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Measures the longest time without an acknowledgement around a fault of a stream's leader
    Gaps(Gaps),
    /// A long mixed load with nothing broken: fails when memory, descriptors, threads or files grow
    Soak(Soak),
}

#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The node's program [default: EVERMESH, else target/release/evermesh]
    #[arg(long, env = "EVERMESH", value_name = "FILE", default_value = "target/release/evermesh")]
    pub binary: PathBuf,
    /// Where to keep data and logs while it runs [default: a new folder in the system's temporary one]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Keep the folder also when all is well
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Run {
    /// How long faults are injected
    #[arg(long, default_value_t = 3.0, value_name = "N")]
    pub minutes: f64,
    /// Decides what is broken when [default: a random one, printed]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Which kinds of faults, with commas between [default: all that this machine allows]
    #[arg(long, value_delimiter = ',', value_name = "KINDS", value_parser = kind)]
    pub faults: Vec<Kind>,
    /// Nodes at the start
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// Events a second to aim at
    #[arg(long, default_value_t = 1500, value_name = "N")]
    pub rate: u64,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Clone, Debug)]
pub struct Gaps {
    /// What happens to the leader
    #[arg(long, value_enum, default_value_t = GapKind::Kill)]
    pub kind: GapKind,
    /// How often
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub times: usize,
    /// Publishers, each one request after the other, at the nodes that are left in peace
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub publishers: usize,
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(3..=9))]
    /// Nodes
    pub nodes: u64,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GapKind {
    Kill,
    Pause,
    Cut,
    Stop,
    Drain,
    Transfer,
}

#[derive(Args, Clone, Debug)]
pub struct Soak {
    #[arg(long, default_value_t = 30.0, value_name = "N")]
    /// How long
    pub minutes: f64,
    /// Events a second to aim at
    #[arg(long, default_value_t = 1500, value_name = "N")]
    pub rate: u64,
    #[command(flatten)]
    pub common: Common,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::of_name(name).ok_or_else(|| format!("there is no fault {name:?}: {}", Kind::ALL.map(|(_, name)| name).join(", ")))
}
