//! The Rust client: publish, read, subscribe and administer through any node, going on at another when one goes away.
//!
//! [`Client`] speaks HTTP; [`Subscription`] follows one stream over a WebSocket and resumes where it was; [`Socket`] is one bare
//! WebSocket. Speaks the shapes of `wire`, may touch `core` for names and limits, and no other room.
//!
//! - A request is repeated elsewhere only when that cannot do it twice: it never entered a node, or it may be done twice, or its
//!   events carry ids. A publish gets ids unless [`Options::assign_ids`] is off.
//! - Everything is bounded: servers, attempts by time, an answer's bytes. Nothing runs in the background.

mod call;
mod cluster;
mod error;
mod publish;
mod read;
mod servers;
mod socket;
mod streams;
mod subscription;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use publish::Message;
pub use socket::{Receiver, Sender, Socket};
pub use subscription::{Item, Subscribe, Subscription};

use self::servers::Servers;
use reqwest::Url;
use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How patient a client is, and what it adds.
#[derive(Clone, Debug)]
pub struct Options {
    /// For one operation with all its attempts.
    pub timeout: Duration,
    /// For one attempt; longer than a node holds a request back.
    pub attempt_timeout: Duration,
    pub connect_timeout: Duration,
    /// How long to go on when no server can be reached at all.
    pub unreachable_wait: Duration,
    /// How long a subscription that once stood tries to stand again.
    pub resume_wait: Duration,
    /// Gives an id to every event that has none, so that a publish can be repeated. Each id costs its stream some memory for the
    /// length of the deduplication window.
    pub assign_ids: bool,
    /// Connections kept open to each server.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(2),
            unreachable_wait: Duration::from_secs(1),
            resume_wait: Duration::from_secs(60),
            assign_ids: true,
            connections: 64,
        }
    }
}

/// A client of one cluster; a cheap handle.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    servers: Mutex<Servers>,
    options: Options,
    /// Random, so that no two clients give the same ids.
    id_prefix: u64,
    ids: AtomicU64,
}

impl Client {
    /// A client of the cluster that these servers (`http://host:port`) belong to. Connects to nothing yet.
    pub fn new<S: AsRef<str>>(servers: &[S], options: Options) -> Result<Client> {
        let servers = Servers::new(servers)?;
        let http = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.connections)
            .tcp_nodelay(true)
            // A proxy of the environment would come between a client and the node that it names.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Unexpected(format!("no HTTP client can be made: {error}")))?;
        let id_prefix = getrandom::u64().map_err(|error| Error::Unexpected(format!("the system gives no random bytes: {error}")))?;
        Ok(Client(Arc::new(Inner { http, servers: Mutex::new(servers), options, id_prefix, ids: AtomicU64::new(0) })))
    }

    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The server that answered last.
    pub fn server(&self) -> String {
        servers::display(&self.servers().preferred())
    }

    /// Adds servers that the cluster told of, behind the ones given at the start.
    pub fn learn(&self, urls: impl IntoIterator<Item = String>) {
        self.servers().learn(urls);
    }

    /// The given servers and those learned, beginning with the one that answered last.
    fn candidates(&self) -> Vec<Url> {
        self.servers().candidates()
    }

    fn prefer(&self, server: &Url) {
        self.servers().prefer(server);
    }

    fn avoid(&self, server: &Url) {
        self.servers().avoid(server);
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.0.servers.lock().expect("nothing panics while it holds this lock")
    }

    fn next_id(&self) -> String {
        format!("{:016x}-{}", self.0.id_prefix, self.0.ids.fetch_add(1, Ordering::Relaxed))
    }
}
