//! `evermesh serve`: one node, from its settings to its graceful end.
//!
//! - The API listens before the node has started, and says so (`/readyz`), and until the leaderships were handed over.
//! - A first signal stops gracefully: leaderships are handed over. A second one ends the process where it is.

use super::{
    failure::{Failure, Result, io},
    logging, secret,
    settings::{FILE_NAME, Settings, unknown_variables},
    signals::Signals,
};
use crate::api;
use crate::node::{Config, Node, World};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A node that has not handed everything over by then is stopped all the same: the others elect.
const STOP_WAIT: Duration = Duration::from_secs(20);

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  evermesh serve --data ./n1 --bootstrap
  evermesh serve --data ./n2 --listen 127.0.0.1:4701 --peer-listen 127.0.0.1:4801 --join 127.0.0.1:4800 --secret-file ./n1/secret
  evermesh serve --data ./n2            again: the data folder remembers the rest
  evermesh serve --data ./n4 --join 10.0.0.1:4800 --replace n3 …     a new node in the place of a dead one

Every flag can stand in the TOML file as well (listen = \"127.0.0.1:4700\") and in the environment.
A flag wins over the environment, the environment over the file, the file over the default.")]
pub struct Args {
    /// TOML file with settings [default: DATA/evermesh.toml, where it exists]
    #[arg(long, env = "EVERMESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Stop when stdin ends: how `evermesh dev` takes its nodes with it
    #[arg(long, hide = true)]
    stop_at_stdin_end: bool,
}

pub async fn run(args: Args, world: World) -> Result {
    let said = args.settings.clone();
    let settings = args.settings.resolve(args.config.as_deref())?;
    logging::for_node(settings.log_format);
    for name in unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        tracing::warn!("{name} is no setting of Evermesh: ignored");
    }
    let mut stop = Stop::new(args.stop_at_stdin_end)?;
    let listener = listen("--listen", &settings.listen).await?;
    let peer_listener = listen("--peer-listen", &settings.peer_listen).await?;
    let address = listener.local_addr().map_err(io("the API's address"))?;
    let peer_address = peer_listener.local_addr().map_err(io("the peer address"))?;
    check_exposed(address, settings.insecure)?;
    let url = advertised_url(settings.advertise.as_deref(), address)?;
    let peer_advertise = advertised_peer(settings.peer_advertise.as_deref(), peer_address)?;
    // From here on the settings can be, so that nothing is left behind in the data folder by those that can't.
    let found = secret::find(&settings.data, settings.secret_file.as_deref(), &settings.start)?;
    found.notes.iter().for_each(|note| tracing::warn!("{note}"));
    if args.config.is_none() {
        remember(said, &settings.data)?;
    }
    let config = Config {
        url,
        peer_advertise,
        data: settings.data,
        name: settings.name,
        peer_listener: peer_listener.into(),
        secret: found.secret(),
        start: settings.start,
        auto_create_streams: settings.auto_create_streams,
        timers: Default::default(),
        sleep_after: settings.sleep_after,
        peer_protocol_max: settings.peer_protocol_max,
        store: crate::node::StoreOptions { disk_reserve_bytes: settings.disk_reserve, ..Default::default() },
        world,
    };
    tracing::info!("API on {}, peers on {}, data in {}", config.url, config.peer_advertise, config.data.display());
    let http = Http::start(listener);
    let outcome = with_node(config, &http, &mut stop).await;
    http.stop().await.and(outcome)
}

/// The node's life: started, waited for, stopped.
async fn with_node(config: Config, http: &Http, stop: &mut Stop) -> Result {
    let node = tokio::select! {
        node = Node::start(config) => node.map_err(|error| Failure::new(error.to_string()))?,
        () = stop.asked() => return Ok(()),
    };
    let _ = http.node.set(node.clone());
    let outcome = tokio::select! {
        reason = node.failed() => Err(Failure::new(reason).hint("this node has stopped; the others go on without it")),
        () = http.ended.cancelled() => Err(Failure::new("the API's listener failed")),
        () = stop.asked() => Ok(()),
    };
    tracing::info!("stopping");
    // The leaderships first; then what clients began is finished, while this node can still forward it; then the rest.
    let stopping = async {
        if outcome.is_ok() {
            node.leave().await;
            http.shutdown.cancel();
            http.ended.cancelled().await;
        }
        node.stop().await;
    };
    tokio::select! {
        stopped = tokio::time::timeout(STOP_WAIT, stopping) => {
            if stopped.is_err() {
                tracing::warn!("not everything was handed over within {} s", STOP_WAIT.as_secs());
            }
        }
        () = stop.asked() => tracing::warn!("asked twice: stopping at once"),
    }
    outcome
}

/// The API's task.
struct Http {
    node: api::Slot,
    shutdown: CancellationToken,
    /// Cancelled when the task has ended, asked or not.
    ended: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Http {
    fn start(listener: TcpListener) -> Http {
        let (node, shutdown, ended) = (api::Slot::default(), CancellationToken::new(), CancellationToken::new());
        let serve = api::serve(listener, node.clone(), api::Options::default(), shutdown.clone().cancelled_owned());
        let done = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _done = done;
            serve.await
        });
        Http { node, shutdown, ended, task }
    }

    async fn stop(self) -> Result {
        self.shutdown.cancel();
        match self.task.await {
            Ok(outcome) => outcome.map_err(io("the API")),
            Err(error) => Err(Failure::new(format!("the API's task failed: {error}"))),
        }
    }
}

/// The wish to stop: a signal, or the end of stdin.
struct Stop {
    signals: Signals,
    stdin_ended: Option<oneshot::Receiver<()>>,
}

impl Stop {
    fn new(with_stdin: bool) -> Result<Stop> {
        Ok(Stop { signals: Signals::new()?, stdin_ended: with_stdin.then(stdin_ended) })
    }

    /// Cancel safe.
    async fn asked(&mut self) {
        let ended = async {
            match &mut self.stdin_ended {
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.signals.next() => {}
            () = ended => self.stdin_ended = None,
        }
    }
}

/// Told by a thread of its own: a read of stdin cannot be interrupted, and the process may end while it lasts.
fn stdin_ended() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = tell.send(());
    });
    told
}

async fn listen(flag: &str, address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new(format!("cannot listen on {address}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.hint(format!("another process listens there; choose another port with {flag} HOST:PORT"))
            }
            _ => failure.hint(format!("{flag} takes HOST:PORT of this machine")),
        }
    })
}

/// The API asks nobody who they are, so only this machine may reach it, unless somebody takes that on.
fn check_exposed(address: SocketAddr, insecure: bool) -> Result {
    if address.ip().is_loopback() {
        return Ok(());
    }
    if !insecure {
        return Err(Failure::usage(format!("{address} can be reached from other machines, and the API asks nobody who they are"))
            .hint("whoever reaches it could read, write and delete everything.\nListen on 127.0.0.1 behind a proxy that authenticates, or say --insecure if the network is yours alone"));
    }
    tracing::warn!("INSECURE: the API on {address} has no authentication and no TLS.");
    tracing::warn!("INSECURE: everybody who reaches it can read, write and delete every stream, and remove nodes.");
    Ok(())
}

/// The URL for clients: as it was said, or the address that is listened on.
fn advertised_url(said: Option<&str>, address: SocketAddr) -> Result<String> {
    let Some(said) = said else {
        return reachable(address, "--advertise http://HOST").map(|address| format!("http://{address}"));
    };
    let url = said.trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    let wrong = host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace);
    if wrong || is_unspecified(host) {
        return Err(
            Failure::usage(format!("clients cannot use {said:?}")).hint("--advertise takes http://HOST:PORT, as clients reach this node")
        );
    }
    Ok(url.to_owned())
}

/// The address for peers: as it was said, or the address that is listened on.
fn advertised_peer(said: Option<&str>, address: SocketAddr) -> Result<String> {
    let Some(said) = said else {
        return reachable(address, "--peer-advertise HOST").map(|address| address.to_string());
    };
    let port = said.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) || is_unspecified(said) || said.contains(['/', '@']) {
        return Err(Failure::usage(format!("peers cannot use {said:?}"))
            .hint("--peer-advertise takes HOST:PORT, as the other nodes reach this one"));
    }
    Ok(said.to_owned())
}

fn is_unspecified(host: &str) -> bool {
    let bare = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(bare, _)| bare);
    bare.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn reachable(address: SocketAddr, flag: &str) -> Result<SocketAddr> {
    match address.ip().is_unspecified() {
        true => Err(Failure::usage(format!("{address} means every address of this machine, and others cannot dial that"))
            .hint(format!("say which one they shall use: {flag}:{}", address.port()))),
        false => Ok(address),
    }
}

/// Leaves the settings in the data folder at the first start, so that the next one needs `--data` alone.
fn remember(said: Settings, data: &Path) -> Result {
    let file = data.join(FILE_NAME);
    if file.exists() {
        return Ok(());
    }
    // How the node came into its cluster must not be repeated, should its data be lost; the secret is kept beside this file.
    let kept = Settings { data: None, bootstrap: None, join: None, replace: None, secret_file: None, peer_protocol_max: None, ..said };
    let heading = "Written by `evermesh serve` at this node's first start: what it was started with.\nFlags and EVERMESH_* variables win over what stands here. Yours to change.";
    let writing = format!("cannot write {}", file.display());
    std::fs::create_dir_all(data).map_err(io(&writing))?;
    std::fs::write(&file, kept.to_toml(heading)).map_err(io(&writing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_to_be_meant() {
        assert!(check_exposed("127.0.0.1:1".parse().unwrap(), false).is_ok());
        assert!(check_exposed("[::1]:1".parse().unwrap(), false).is_ok());
        let why = check_exposed("0.0.0.0:1".parse().unwrap(), false).unwrap_err().to_string();
        assert!(why.contains("--insecure"), "{why}");
        assert!(check_exposed("10.0.0.1:1".parse().unwrap(), true).is_ok());
    }

    #[test]
    fn only_addresses_that_can_be_dialled_are_advertised() {
        let any: SocketAddr = "0.0.0.0:4700".parse().unwrap();
        let one: SocketAddr = "10.0.0.1:4700".parse().unwrap();
        assert_eq!(advertised_url(None, one).unwrap(), "http://10.0.0.1:4700");
        assert!(advertised_url(None, any).unwrap_err().to_string().contains("--advertise http://HOST:4700"));
        assert_eq!(advertised_url(Some("https://a.example/"), any).unwrap(), "https://a.example");
        for bad in ["", "a:1", "http://", "http://0.0.0.0:4700", "http://[::]:1", "http://a/b", "ftp://a"] {
            assert!(advertised_url(Some(bad), one).is_err(), "{bad}");
        }
        assert_eq!(advertised_peer(Some("n2.example:4800"), any).unwrap(), "n2.example:4800");
        assert!(advertised_peer(None, any).unwrap_err().to_string().contains("--peer-advertise HOST:4700"));
        for bad in ["", "a", ":1", "a:0", "0.0.0.0:4800", "[::]:1", "http://a:1"] {
            assert!(advertised_peer(Some(bad), one).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_second_start_needs_the_data_folder_alone() {
        let dir = tempfile::tempdir().unwrap();
        let said = Settings {
            data: Some(dir.path().into()),
            name: Some("n7".into()),
            listen: Some("127.0.0.1:9".into()),
            join: Some(vec!["a:1".into()]),
            ..Settings::default()
        };
        remember(said, dir.path()).unwrap();
        let resolved = Settings { data: Some(dir.path().into()), ..Settings::default() }.resolve(None).unwrap();
        assert_eq!((resolved.listen.as_str(), resolved.start), ("127.0.0.1:9", crate::node::Start::Resume));
        remember(Settings { listen: Some("x".into()), ..Settings::default() }, dir.path()).unwrap();
        assert!(Settings::read(&dir.path().join(FILE_NAME)).unwrap().listen.unwrap().ends_with(":9"), "it is written once");
    }
}
