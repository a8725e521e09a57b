//! `evermesh dev`: several nodes on this machine, each a process of its own, so that one can be killed.
//!
//! [`plan`] decides what to start, [`ports`] looks whether that can be, [`child`] runs it, [`lines`] picks what a person
//! should see, [`screen`] prints it. This file owns the loop: one task, fed by the children's tasks over one bounded channel.
//!
//! - It restarts nothing: a node that ended is told once, with the line that starts it again.
//! - Whatever ends this process ends the children: see `child`.

mod child;
mod lines;
mod plan;
mod ports;
mod screen;

use self::{
    child::{News, Running, Stops},
    plan::Spec,
    screen::Screen,
};
use crate::cli::{
    failure::{Failure, Result, io},
    secret,
    settings::FILE_NAME,
    signals::Signals,
};
use crate::client::{self, Client};
use crate::core::limits;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// How often a starting node is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_millis(50);
/// After this long a node that is not ready is mentioned.
const READY_LATE: Duration = Duration::from_secs(15);
/// How long the founder gets before the others are started all the same.
const FOUNDER_WAIT: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many nodes [default: as many as the data folder has, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: Option<u8>,
    /// API port of the first node; the others follow it, and peer ports lie 100 above
    #[arg(long, value_name = "PORT", default_value_t = 4701, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub base_port: u16,
    /// Folder of the nodes' data
    #[arg(long, value_name = "DIR", default_value = "./evermesh-data", conflicts_with = "ephemeral")]
    pub data: PathBuf,
    /// Keep the data in a temporary folder and remove it at the end
    #[arg(long)]
    pub ephemeral: bool,
}

/// Runs the nodes until a signal, or until none is left.
pub async fn run(args: Args) -> Result {
    let folder = Folder::new(&args)?;
    let specs = plan::specs(&args, &folder.path)?;
    ports::check(&specs, args.base_port)?;
    prepare(&specs, &folder.path)?;
    let mut signals = Signals::new()?;
    let screen = Screen::new();
    screen.heading(specs.len(), &folder.path, folder.ephemeral);
    let mut dev = Dev::new(specs, screen)?;
    let outcome = dev.run(&mut signals).await;
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
}

struct Dev {
    places: Vec<Place>,
    screen: Screen,
    stops: Stops,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    began: Instant,
    guided: bool,
}

impl Dev {
    fn new(specs: Vec<Spec>, screen: Screen) -> Result<Dev> {
        let places = specs.into_iter().map(|spec| Place { spec, running: None, ready: false }).collect();
        let news = mpsc::channel(limits::LOG_LINES_WAITING_MAX);
        Ok(Dev { places, screen, stops: Stops::default(), news, began: Instant::now(), guided: false })
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
                () = &mut late, if !late.is_elapsed() => self.mention_late(),
                () = &mut founder, if waiting && !founder.is_elapsed() => {}
            }
            // The others need somebody to join; one that resumes needs the others, and then nothing is worth waiting for.
            if waiting && (self.places[0].ready || !self.places[0].spec.founds || founder.is_elapsed()) {
                waiting = false;
                (1..self.places.len()).try_for_each(|node| self.start(node))?;
            }
            if !waiting && self.places.iter().all(|place| place.running.is_none()) {
                return Err(Failure::new("no node is left"));
            }
        }
    }

    fn start(&mut self, node: usize) -> Result {
        let place = &mut self.places[node];
        place.running = Some(child::start(&place.spec, node, &self.news.0, &self.stops)?);
        let client = Client::new(&[place.spec.url()], client::Options::default())?;
        let (news, stop) = (self.news.0.clone(), self.stops.gently.clone());
        tokio::spawn(stop.run_until_cancelled_owned(tell_when_ready(client, node, news)));
        Ok(())
    }

    fn hear(&mut self, news: News) -> Result {
        match news {
            News::Line { node, text } => self.screen.line(&self.places[node].spec.name, &text),
            News::Ready { node, took } => self.note_ready(node, took),
            News::Ended { node, how } => {
                let place = &mut self.places[node];
                place.running = None;
                if !self.stops.gently.is_cancelled() {
                    self.screen.release();
                    self.screen.ended(&place.spec, how);
                }
                // Without its founder, a cluster that never was has nothing to join.
                if node == 0 && place.spec.founds && !place.ready && !self.stops.gently.is_cancelled() {
                    return Err(Failure::new("the first node did not start"));
                }
            }
        }
        Ok(())
    }

    fn note_ready(&mut self, node: usize, took: Duration) {
        let place = &mut self.places[node];
        let Some(running) = &place.running else { return };
        place.ready = true;
        self.screen.ready(&place.spec, running.pid, took);
        if !self.guided && self.places.iter().all(|place| place.ready) {
            self.guided = true;
            let specs: Vec<_> = self.places.iter().map(|place| place.spec.clone()).collect();
            let victim = self.places.iter().rev().find_map(|place| Some((&place.spec, place.running.as_ref()?.pid)));
            self.screen.guide(&specs, victim.expect("the node that is ready runs"));
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
        for place in &mut self.places {
            if let Some(running) = place.running.take() {
                let _ = running.task.await;
            }
        }
    }
}

/// Asks the node until it is ready; ends with the others when `dev` stops.
async fn tell_when_ready(client: Client, node: usize, news: mpsc::Sender<News>) {
    let began = Instant::now();
    while !client.is_ready().await {
        tokio::time::sleep(READY_EVERY).await;
    }
    let _ = news.send(News::Ready { node, took: began.elapsed() }).await;
}
