//! `evermesh bench disk`: what the machine's disk takes for a write that must survive a power loss.

use super::latencies::{FEW, Latencies};
use crate::cli::{
    connect::Connect,
    failure::{Failure, Result, io},
};
use rustix::fs::fdatasync;
use serde_json::json;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

const BLOCK_BYTES: usize = 4096;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder on the disk in question
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// A file that is there only while it is written.
struct Probe {
    file: File,
    path: PathBuf,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn run(args: &Args, connect: &Connect) -> Result {
    let path = args.dir.join(format!(".evermesh-probe-{}", std::process::id()));
    let writing = format!("cannot write to {}", args.dir.display());
    let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io(&writing))?;
    let mut probe = Probe { file, path };
    let latencies = measure(&mut probe.file, Duration::from_secs(args.seconds)).map_err(io(&writing))?;
    let result = json!({
        "dir": args.dir, "writes": latencies.count(), "write_bytes": BLOCK_BYTES,
        "latency_ms": latencies.json(FEW),
    });
    connect.print(&result, |_| {
        format!("{} writes of 4 KiB, each with its fdatasync, in {}\n{}", latencies.count(), args.dir.display(), latencies.text(FEW))
    });
    if latencies.count() == 0 { Err(Failure::new("nothing was measured")) } else { Ok(()) }
}

/// Appends blocks for so long.
fn measure(file: &mut File, time: Duration) -> std::io::Result<Latencies> {
    let mut latencies = Latencies::new();
    let (block, began) = ([0xE5; BLOCK_BYTES], Instant::now());
    while began.elapsed() < time {
        let at = Instant::now();
        file.write_all(&block)?;
        fdatasync(&*file)?;
        latencies.record(at.elapsed());
    }
    Ok(latencies)
}
