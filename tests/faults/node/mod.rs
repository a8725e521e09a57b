//! This program as a node: the library's own `serve`, standing on a disk and a clock with faults.
//!
//! The shipped binary knows nothing of it. The harness changes `Rules` in a file while the node runs.

pub mod disk;
pub mod rules;

use self::disk::Disk;
use self::rules::Rules;
use evermesh::core::Time;
use evermesh::node::{Clock, World};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

/// Names the rules' file; its presence makes this program a node. The folder of the data follows behind a colon.
pub const VARIABLE: &str = "FAULTS_NODE";

/// Runs as a node, if that is what this process was started for.
pub fn main_if_asked() -> Option<ExitCode> {
    let asked = std::env::var(VARIABLE).ok()?;
    let (rules, data) = asked.split_once(':')?;
    let rules = Arc::new(Rules::new(PathBuf::from(rules)));
    let disk = match Disk::open(data.as_ref(), rules.clone()) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("the data directory cannot be opened: {error}");
            return Some(ExitCode::FAILURE);
        }
    };
    let clock = Clock::new(move || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        Time(since + 1_000_000 * rules.now().clock_seconds)
    });
    let world = World { clock, files: Some(Arc::new(disk)), ..World::default() };
    Some(evermesh::cli::main_in(world))
}
