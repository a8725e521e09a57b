//! `evermesh dev`: several nodes on this machine, each a process of its own, so that one can be killed.
//!
//! [`plan`] decides what to start, [`ports`] looks whether that can be, [`child`] runs it, [`lines`] picks what a person
//! should see, [`screen`] prints it, [`control`] lets `kill`, `stop`, `start` and `evermesh drill` in. This file owns the loop: one
//! task, fed by the children's tasks and the control socket over bounded channels.
//!
//! - It restarts nothing by itself: one can see what a cluster does without a node. That one ended is told, with the line that starts
//!   it again.
//! - Whatever ends this process ends the children: see `child`.

mod child;
pub mod control;
mod lines;
mod plan;
mod ports;
mod screen;

use self::{
    child::{News, Running, Stops, describe},
    control::{Ask, Control, Request},
    plan::Spec,
    screen::Screen,
};
use crate::cli::{
    failure::{Failure, Result, io},
    secret,
    settings::FILE_NAME,
    signals::Signals,
    table::say,
};
use crate::client::{self, Client};
use crate::core::limits;
use clap::Subcommand;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How often a starting node is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_millis(50);
/// After this long a node that is not ready is mentioned.
const READY_LATE: Duration = Duration::from_secs(15);
/// How long the founder gets before the others are started all the same.
const FOUNDER_WAIT: Duration = Duration::from_secs(30);

/// The data folder where nothing else is said.
pub const DATA: &str = "./evermesh-data";

#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  evermesh dev                     three nodes, with their data in ./evermesh-data
  evermesh dev kill n2             in another terminal: ends n2 with SIGKILL, as a crash would
  evermesh dev start n2            and starts it again
  evermesh drill --kill leader     does both, under load, and measures what clients notice"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// How many nodes [default: as many as the data folder has, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: Option<u8>,
    /// API port of the first node; the others follow it, and peer ports lie 100 above
    #[arg(long, value_name = "PORT", default_value_t = 4701, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub base_port: u16,
    /// Folder of the nodes' data
    #[arg(long, value_name = "DIR", default_value = DATA, conflicts_with = "ephemeral")]
    pub data: PathBuf,
    /// Keep the data in a temporary folder and remove it at the end
    #[arg(long)]
    pub ephemeral: bool,
}

/// What is asked of a `dev` that runs already.
#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// End a node as a crash would (SIGKILL)
    Kill(Whom),
    /// Stop a node as Ctrl-C would
    Stop(Whom),
    /// Start a node that ended
    Start(Whom),
    /// Show which nodes run
    Status(Where),
}

#[derive(clap::Args, Clone, Debug)]
struct Whom {
    /// The node's name
    node: String,
    #[command(flatten)]
    place: Where,
}

#[derive(clap::Args, Clone, Debug)]
struct Where {
    /// Folder of the nodes' data
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
}

/// Runs the nodes until a signal, or until none is left; or asks a `dev` that does.
pub async fn run(args: Args) -> Result {
    match &args.verb {
        None => run_nodes(args).await,
        Some(verb) => {
            let (line, place) = match verb {
                Verb::Kill(whom) => (format!("kill {}", whom.node), &whom.place),
                Verb::Stop(whom) => (format!("stop {}", whom.node), &whom.place),
                Verb::Start(whom) => (format!("start {}", whom.node), &whom.place),
                Verb::Status(place) => ("status".to_owned(), place),
            };
            let answer = control::ask(&place.data, &line).await?;
            match verb {
                Verb::Status(_) => say(&answer.replace(", ", "\n")),
                _ => say(&answer),
            }
            Ok(())
        }
    }
}

async fn run_nodes(args: Args) -> Result {
    let folder = Folder::new(&args)?;
    let specs = plan::specs(&args, &folder.path)?;
    ports::check(&specs, args.base_port)?;
    prepare(&specs, &folder.path)?;
    let mut signals = Signals::new()?;
    let (requests, asked) = mpsc::channel(control::WAITING_MAX);
    control::check_free(&folder.path).await?;
    let control = control::listen(&folder.path, requests);
    let screen = Screen::new(&folder.path);
    screen.heading(specs.len(), &folder.path, folder.ephemeral);
    // Without it everything but `kill`, `stop` and `start` works: a socket's path may be too long for the system, for one.
    let control: Option<Control> = match control {
        Ok(control) => Some(control),
        Err(why) => {
            screen.without_control(&why);
            None
        }
    };
    let mut dev = Dev::new(specs, screen, control.is_some().then_some(asked))?;
    let outcome = dev.run(&mut signals).await;
    drop(control);
    dev.stop(&mut signals).await;
    if outcome.is_ok() {
        dev.screen.stopped(&folder.path, folder.ephemeral);
    }
    outcome
}

/// The data folder; a temporary one goes with this value.
struct Folder {
    path: PathBuf,
    ephemeral: bool,
}

impl Folder {
    fn new(args: &Args) -> Result<Folder> {
        let path = match args.ephemeral {
            true => std::env::temp_dir().join(format!("evermesh-dev-{}", std::process::id())),
            false => args.data.clone(),
        };
        std::fs::create_dir_all(&path).map_err(io(format_args!("cannot make {}", path.display())))?;
        Ok(Folder { path, ephemeral: args.ephemeral })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ephemeral
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Writes what each node starts with, so that `evermesh serve --data DIR` alone starts it again.
fn prepare(specs: &[Spec], data: &Path) -> Result {
    secret::ensure(data)?;
    for spec in specs {
        let writing = format!("cannot write the settings of {}", spec.name);
        std::fs::create_dir_all(&spec.folder).map_err(io(&writing))?;
        let text = spec.settings(Path::new("../secret")).to_toml("Written by `evermesh dev` at each start.");
        std::fs::write(spec.folder.join(FILE_NAME), text).map_err(io(&writing))?;
    }
    Ok(())
}

/// One node's place: what it is, and its process while there is one.
struct Place {
    spec: Spec,
    running: Option<Running>,
    ready: bool,
    /// It was ready once since `dev` began.
    proved: bool,
    /// It was ended by `kill` or `stop`, and not started since.
    asked_off: bool,
    /// Who waits for its end.
    ending: Option<oneshot::Sender<std::result::Result<String, String>>>,
}

struct Dev {
    places: Vec<Place>,
    screen: Screen,
    stops: Stops,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    /// What comes over the control socket, where there is one.
    requests: Option<mpsc::Receiver<Request>>,
    began: Instant,
    guided: bool,
}

impl Dev {
    fn new(specs: Vec<Spec>, screen: Screen, requests: Option<mpsc::Receiver<Request>>) -> Result<Dev> {
        let place = |spec| Place { spec, running: None, ready: false, proved: false, asked_off: false, ending: None };
        let places = specs.into_iter().map(place).collect();
        let news = mpsc::channel(limits::LOG_LINES_WAITING_MAX);
        Ok(Dev { places, screen, stops: Stops::default(), news, requests, began: Instant::now(), guided: false })
    }

    /// Until a signal came (`Ok`) or no node is left.
    async fn run(&mut self, signals: &mut Signals) -> Result {
        self.start(0)?;
        let mut waiting = self.places.len() > 1;
        let late = tokio::time::sleep(READY_LATE);
        let founder = tokio::time::sleep(FOUNDER_WAIT);
        tokio::pin!(late, founder);
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                Some(news) = self.news.1.recv() => self.hear(news)?,
                Some(request) = next_request(&mut self.requests) => self.obey(request),
                () = &mut late, if !late.is_elapsed() => self.mention_late(),
                () = &mut founder, if waiting && !founder.is_elapsed() => {}
            }
            // The others need somebody to join; one that resumes needs the others, and then nothing is worth waiting for.
            if waiting && (self.places[0].ready || !self.places[0].spec.founds || founder.is_elapsed()) {
                waiting = false;
                (1..self.places.len()).try_for_each(|node| self.start(node))?;
            }
            if !waiting && self.places.iter().all(|place| place.running.is_none() && !place.asked_off) {
                return Err(Failure::new("no node is left"));
            }
        }
    }

    fn start(&mut self, node: usize) -> Result {
        let place = &mut self.places[node];
        if place.running.is_some() {
            return Ok(());
        }
        let client = Client::new(&[place.spec.url()], client::Options::default())?;
        let running = child::start(&place.spec, node, &self.news.0, &self.stops)?;
        let (news, stop) = (self.news.0.clone(), running.stops.gently.clone());
        tokio::spawn(stop.run_until_cancelled_owned(tell_when_ready(client, node, running.pid, news)));
        (place.running, place.ready, place.asked_off) = (Some(running), false, false);
        Ok(())
    }

    /// Does what came over the control socket; an end is answered when it has come.
    fn obey(&mut self, request: Request) {
        let answer = match &request.ask {
            Ask::Status => Ok(self.status()),
            Ask::Start(name) => self.find(name).and_then(|node| self.start_asked(node)),
            Ask::Kill(name) | Ask::Stop(name) => match self.find(name).and_then(|node| self.end_asked(node, &request.ask)) {
                Ok(place) => return place.ending = Some(request.answer),
                Err(why) => Err(why),
            },
        };
        // Whoever asked and did not wait needs no answer.
        let _ = request.answer.send(answer);
    }

    fn find(&self, name: &str) -> std::result::Result<usize, String> {
        let names = || self.places.iter().map(|place| place.spec.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.places.iter().position(|place| place.spec.name == name);
        found.ok_or_else(|| format!("there is no node {name:?} here; the nodes are {}", names()))
    }

    fn start_asked(&mut self, node: usize) -> std::result::Result<String, String> {
        let name = self.places[node].spec.name.clone();
        if self.places[node].running.is_some() {
            return Err(format!("{name} runs already"));
        }
        self.start(node).map_err(|failure| failure.to_string())?;
        let pid = self.places[node].running.as_ref().map_or(0, |running| running.pid);
        self.screen.note(&name, "starts, as asked");
        Ok(format!("{name} starts, pid {pid}"))
    }

    fn end_asked(&mut self, node: usize, ask: &Ask) -> std::result::Result<&mut Place, String> {
        let place = &mut self.places[node];
        let name = &place.spec.name;
        let Some(running) = &place.running else { return Err(format!("{name} does not run")) };
        if place.ending.is_some() {
            return Err(format!("{name} is being ended already"));
        }
        match ask {
            Ask::Kill(_) => running.stops.at_once.cancel(),
            _ => running.stops.gently.cancel(),
        }
        place.asked_off = true;
        Ok(place)
    }

    fn status(&self) -> String {
        let line = |place: &Place| match &place.running {
            Some(running) if place.ready => format!("{} ready {}", place.spec.name, running.pid),
            Some(running) => format!("{} starting {}", place.spec.name, running.pid),
            None => format!("{} ended", place.spec.name),
        };
        self.places.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    fn hear(&mut self, news: News) -> Result {
        match news {
            News::Line { node, text } => self.screen.line(&self.places[node].spec.name, &text),
            News::Ready { node, pid, took } => self.note_ready(node, pid, took),
            News::Ended { node, how } => {
                let place = &mut self.places[node];
                if let Some(running) = place.running.take() {
                    // Whoever asks whether it is ready stops asking.
                    running.stops.gently.cancel();
                }
                place.ready = false;
                if let Some(waiting) = place.ending.take() {
                    let _ = waiting.send(Ok(format!("{} {}", place.spec.name, describe(how))));
                }
                if !self.stops.gently.is_cancelled() {
                    self.screen.release();
                    self.screen.ended(&place.spec, how, place.asked_off, self.requests.is_some());
                }
                // Without its founder, a cluster that never was has nothing to join.
                if node == 0 && place.spec.founds && !place.proved && !self.stops.gently.is_cancelled() {
                    return Err(Failure::new("the first node did not start"));
                }
            }
        }
        Ok(())
    }

    fn note_ready(&mut self, node: usize, pid: u32, took: Duration) {
        let place = &mut self.places[node];
        // Of one that ended meanwhile it is no news.
        let Some(running) = place.running.as_ref().filter(|running| running.pid == pid) else { return };
        (place.ready, place.proved) = (true, true);
        self.screen.ready(&place.spec, running.pid, took);
        if !self.guided && self.places.iter().all(|place| place.ready) {
            self.guided = true;
            let specs: Vec<_> = self.places.iter().map(|place| place.spec.clone()).collect();
            let victim = self.places.iter().rev().find_map(|place| Some((&place.spec, place.running.as_ref()?.pid)));
            self.screen.guide(&specs, victim.expect("the node that is ready runs"), self.requests.is_some());
        }
    }

    fn mention_late(&mut self) {
        if !self.guided {
            self.screen.release();
        }
        for place in self.places.iter().filter(|place| !place.ready && place.running.is_some()) {
            self.screen.late(&place.spec, self.began.elapsed());
        }
    }

    /// Stops what runs and waits for each end, so that no process and no zombie is left.
    async fn stop(&mut self, signals: &mut Signals) {
        let left = self.places.iter().filter(|place| place.running.is_some()).count();
        if left > 0 {
            self.screen.stopping(left);
        }
        self.stops.gently.cancel();
        while self.places.iter().any(|place| place.running.is_some()) {
            tokio::select! {
                () = signals.next() => self.stops.at_once.cancel(),
                // A node that fails while it stops is gone all the same.
                Some(news) = self.news.1.recv() => drop(self.hear(news)),
            }
        }
    }
}

/// The next request; never, where there is no control socket.
async fn next_request(requests: &mut Option<mpsc::Receiver<Request>>) -> Option<Request> {
    match requests {
        Some(requests) => requests.recv().await,
        None => std::future::pending().await,
    }
}

/// Asks the node until it is ready; ends with the others when `dev` stops.
async fn tell_when_ready(client: Client, node: usize, pid: u32, news: mpsc::Sender<News>) {
    let began = Instant::now();
    while !client.is_ready().await {
        tokio::time::sleep(READY_EVERY).await;
    }
    let _ = news.send(News::Ready { node, pid, took: began.elapsed() }).await;
}
