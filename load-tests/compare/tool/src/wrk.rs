//! HTTP publishes by wrk, which knows nothing of the systems: the same script with another address and another body.

use crate::{
    Result,
    figures::{Figures, Out},
    payload,
    system::{System, Target},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{path::PathBuf, process::Command};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    /// The program
    #[arg(long, default_value = "wrk")]
    wrk: PathBuf,
    /// Its script
    #[arg(long)]
    script: PathBuf,
    /// In all; spread over three threads, of which each has one node
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
}

pub fn run(args: &Args) -> Result {
    let before = args.target.stored()?;
    let warm = call(args, args.warm_up)?;
    let cpu = args.target.cpu_us();
    let told = call(args, args.seconds)?;
    let cpu = args.target.cpu_us() - cpu;
    let number = |told: &Value, name: &str| told[name].as_f64().unwrap_or_default();
    let failed = |told: &Value| number(told, "failed") as u64;
    let (requests, acked) = (number(&told, "requests"), |told: &Value| (number(told, "requests") as u64).saturating_sub(failed(told)));
    let figures = Figures::new()
        .set("rate", (requests / number(&told, "seconds")).round())
        .set("p50_ms", number(&told, "p50_ms"))
        .set("p99_ms", number(&told, "p99_ms"))
        .set("max_ms", number(&told, "max_ms"))
        .set("errors", failed(&warm) + failed(&told))
        .cpu(cpu, acked(&told));
    args.out.write(figures.stored(acked(&warm) + acked(&told), before, args.target.stored()?).done())
}

fn call(args: &Args, seconds: u64) -> Result<Value> {
    let event = payload::event(1, payload::now_us());
    let (path, body) = match args.target.system {
        System::EtcdHttp => ("/v3/kv/put".to_owned(), gateway_body(&event)),
        System::Axum => ("/events".to_owned(), event),
        _ => (format!("/v1/streams/{}/events", args.target.stream), event),
    };
    let ran = Command::new(&args.wrk)
        .args(["--threads", "3", "--latency", "--timeout", "10s"])
        .args(["--connections", &args.connections.to_string(), "--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(&args.script)
        .arg(format!("http://{}{path}", args.target.at[0]))
        .env("COMPARE_AT", args.target.at.join(","))
        .env("COMPARE_BODY", String::from_utf8(body)?)
        .output()?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let line = said.lines().rev().find(|line| line.starts_with('{'));
    match line {
        Some(line) if ran.status.success() => Ok(serde_json::from_str(line)?),
        _ => Err(format!("wrk: {said}{}", String::from_utf8_lossy(&ran.stderr)).into()),
    }
}

fn gateway_body(event: &[u8]) -> Vec<u8> {
    format!("{{\"key\":\"{}\",\"value\":\"{}\"}}", STANDARD.encode("compare/000"), STANDARD.encode(event)).into_bytes()
}
