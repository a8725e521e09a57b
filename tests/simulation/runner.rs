//! Many seeds: each in a child of this process, a few at a time; what fails is said with the command that repeats it.

use super::{entropy, scenario, stops};
use std::io::{IsTerminal, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A task that panics says nothing by itself.
static PANICS: AtomicU64 = AtomicU64::new(0);
/// Seeds of a run of all tests.
const SEEDS: u64 = 16;
/// Of so many seeds one is run twice.
const TWICE_EVERY: u64 = 10;
/// A seed that takes longer hangs; one takes seconds, on a machine that is busy with other things perhaps minutes.
const PATIENCE: Duration = Duration::from_secs(900);

struct Arguments {
    from: u64,
    seeds: u64,
    /// One alone.
    seed: Option<u64>,
    jobs: usize,
    verbose: bool,
    /// Nothing but graceful stops, and how long publishes wait for them.
    stops: bool,
    child: bool,
    /// Another test was asked for.
    skip: bool,
}

fn parse(said: Vec<String>) -> Arguments {
    let jobs = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let mut parsed = Arguments { from: 1, seeds: SEEDS, seed: None, jobs, verbose: false, stops: false, child: false, skip: false };
    let mut said = said.into_iter();
    while let Some(word) = said.next() {
        let mut number = || said.next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{word} needs a number"));
        match word.as_str() {
            "--from" => parsed.from = number(),
            "--seeds" => parsed.seeds = number(),
            "--seed" => parsed.seed = Some(number()),
            "--jobs" => parsed.jobs = number() as usize,
            "--verbose" => parsed.verbose = true,
            "--stops" => parsed.stops = true,
            "--child" => parsed.child = true,
            "--list" => parsed.skip = true,
            // What the test runner's own flags ask for is not here; a name asks for some other test.
            flag if flag.starts_with('-') => (),
            name => parsed.skip |= !"simulation".contains(name),
        }
    }
    parsed
}

pub fn main(said: Vec<String>) -> ExitCode {
    let arguments = parse(said);
    match arguments {
        Arguments { skip: true, .. } => ExitCode::SUCCESS,
        Arguments { child: true, seed: Some(seed), verbose, stops, .. } => child(seed, verbose, stops),
        Arguments { seed: Some(seed), .. } => {
            let status = command(seed, arguments.verbose, arguments.stops).status().expect("this program can be run");
            if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => many(&arguments),
    }
}

fn command(seed: u64, verbose: bool, stops: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--child", "--seed", &seed.to_string()]);
    command.args([(verbose, "--verbose"), (stops, "--stops")].into_iter().filter_map(|(said, flag)| said.then_some(flag)));
    command
}

/// One seed in this process.
fn child(seed: u64, verbose: bool, stops: bool) -> ExitCode {
    log();
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Relaxed);
        println!("violation: {panic}");
    }));
    // In a thread whose chance begins here, whatever the logging has drawn before.
    entropy::seed(seed);
    let verdict = std::thread::spawn(move || if stops { stops::run(seed, verbose) } else { scenario::run(seed, verbose) }).join();
    let Ok(verdict) = verdict else { return ExitCode::FAILURE };
    println!("{:016x} {}", verdict.digest, verdict.summary);
    for violation in &verdict.violations {
        println!("violation: {violation}");
    }
    if verdict.violations.is_empty() && PANICS.load(Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn log() {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        struct Simulated;
        impl tracing_subscriber::fmt::time::FormatTime for Simulated {
            fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
                write!(w, "{:>6}", super::world::now())
            }
        }
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Simulated).with_writer(std::io::stderr);
        lines.with_ansi(std::io::stderr().is_terminal()).init();
    }
}

/// A seed under way.
struct Running {
    seed: u64,
    child: Child,
    since: Instant,
    /// The digest that the same seed had before.
    before: Option<String>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let mut queue: std::collections::VecDeque<(u64, Option<String>)> =
        (arguments.from..arguments.from + arguments.seeds).map(|seed| (seed, None)).collect();
    let (mut running, mut passed, mut failed, mut twice): (Vec<Running>, u64, u64, u64) = (Vec::new(), 0, 0, 0);
    while !queue.is_empty() || !running.is_empty() {
        while running.len() < arguments.jobs
            && let Some((seed, before)) = queue.pop_front()
        {
            let child = command(seed, false, arguments.stops)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("this program can be run");
            running.push(Running { seed, child, since: Instant::now(), before });
        }
        std::thread::sleep(Duration::from_millis(2));
        let mut at = 0;
        while at < running.len() {
            let one = &mut running[at];
            let hangs = one.since.elapsed() > PATIENCE;
            if hangs {
                let _ = one.child.kill();
            }
            let Some(status) = one.child.try_wait().expect("a child can be waited for") else {
                at += 1;
                continue;
            };
            let Running { seed, mut child, before, .. } = running.swap_remove(at);
            let mut said = String::new();
            let mut errors = String::new();
            child.stdout.take().map(|mut out| out.read_to_string(&mut said));
            child.stderr.take().map(|mut out| out.read_to_string(&mut errors));
            let digest = said
                .lines()
                .find(|line| !line.starts_with("violation"))
                .and_then(|line| line.split(' ').next())
                .unwrap_or_default()
                .to_owned();
            let differs = before.as_ref().is_some_and(|before| *before != digest);
            if !status.success() || differs {
                failed += 1;
                println!("seed {seed} failed{}:", if hangs { ", it hangs" } else { "" });
                if differs {
                    println!("  it gave {digest} and {} before", before.unwrap_or_default());
                }
                said.lines().take(12).for_each(|line| println!("  {line}"));
                errors.lines().rev().take(6).for_each(|line| println!("  {line}"));
                let flag = if arguments.stops { " --stops" } else { "" };
                println!("  repeat it: cargo test --test simulation -- --seed {seed}{flag} --verbose");
                continue;
            }
            passed += u64::from(before.is_none());
            twice += u64::from(before.is_some());
            if before.is_none() && seed.is_multiple_of(TWICE_EVERY) {
                queue.push_front((seed, Some(digest)));
            }
        }
    }
    println!("{passed} seeds from {} on, {twice} of them twice with the same bytes, in {:.0?}", arguments.from, started.elapsed());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
