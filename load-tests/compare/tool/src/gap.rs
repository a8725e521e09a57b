//! The longest time without an acknowledgement when the leader is killed, for one publisher at each surviving node.
//!
//! The rule is the same for all systems: one request under way, the next one `PAUSE` after an answer; what is refused is sent again after
//! `PAUSE`, and what has no answer for `PATIENCE` is sent again on a new connection. So no system is charged for its own client's timers.

use crate::{
    Result,
    figures::{Figures, Out},
    system::Target,
};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    out: Out,
    /// The process that is killed; the publishers are at `--at`, which it does not serve
    #[arg(long)]
    kill: i32,
    /// Before it is killed
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// After it was killed
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// What one publisher saw.
#[derive(Default)]
struct Seen {
    acked: u64,
    refused: u64,
    /// No answer in time, or a broken connection.
    unanswered: u64,
    /// Between two acknowledgements, before the kill and from it on.
    before: Duration,
    after: Duration,
    /// The last gap did not end.
    still: bool,
}

pub fn run(args: &Args) -> Result {
    let pid = rustix::process::Pid::from_raw(args.kill).ok_or("no process")?;
    let before = args.target.stored()?;
    let kill_at = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let until = kill_at + Duration::from_secs_f64(args.seconds);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let publishers: Vec<_> =
            (0..args.target.at.len()).map(|at| scope.spawn(move || publish(&args.target, at, kill_at, until))).collect();
        std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
        let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let seen = publishers.into_iter().filter_map(|publisher| publisher.join().ok()).collect();
        killed.map(|()| seen)
    })?;
    let sum = |what: fn(&Seen) -> u64| seen.iter().map(what).sum::<u64>();
    let longest = |what: fn(&Seen) -> Duration| seen.iter().map(what).max().unwrap_or_default().as_secs_f64() * 1000.0;
    let figures = Figures::new()
        .set("gap_ms", longest(|seen| seen.after))
        .set("gap_before_ms", longest(|seen| seen.before))
        .set("refused", sum(|seen| seen.refused))
        .set("unanswered", sum(|seen| seen.unanswered))
        .set("still_silent", seen.iter().filter(|seen| seen.still).count());
    args.out.write(figures.stored(sum(|seen| seen.acked), before, args.target.stored()?).done())
}

fn publish(target: &Target, at: usize, kill_at: Instant, until: Instant) -> Seen {
    let (mut seen, mut publisher, mut n, mut last) = (Seen::default(), None, 0, Instant::now());
    while Instant::now() < until {
        n += 1;
        let outcome = match &mut publisher {
            None => target.publisher(at, PATIENCE).and_then(|made| publisher.insert(made).publish(n)),
            Some(made) => made.publish(n),
        };
        match outcome {
            Ok(true) => {
                let gap = std::mem::replace(&mut last, Instant::now());
                let longest = if last < kill_at { &mut seen.before } else { &mut seen.after };
                *longest = (*longest).max(last - gap);
                seen.acked += 1;
            }
            Ok(false) => seen.refused += 1,
            Err(_) => {
                seen.unanswered += 1;
                publisher = None;
            }
        }
        std::thread::sleep(PAUSE);
    }
    let open = last.elapsed();
    seen.still = open > seen.after.max(PATIENCE);
    seen.after = seen.after.max(if seen.still { open } else { Duration::ZERO });
    seen
}
