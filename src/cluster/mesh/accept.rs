//! The listening side: takes connections, makes sure of who dialled, and serves each in a task of its own.
//!
//! - Unknown dialers are bounded in number, bytes and time, and cannot touch anything else.
//! - A failure of one connection is logged and ends that connection only.

use super::Inner;
use super::frame::Inbox;
use super::handshake::{self, Dialler, Local};
use super::session::{Connection, End, Handler, Peer, run_accepted};
use super::state::Counters;
use crate::core::limits;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Pause after a failed accept: the machine is short of something, usually descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the mesh stops.
pub async fn listen(mesh: Arc<Inner>, listener: TcpListener, handler: Arc<dyn Handler>) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(limits::PEER_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = mesh.token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer's connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (Ok(handshake), Ok(connection)) = (handshakes.clone().try_acquire_owned(), connections.clone().try_acquire_owned()) else {
            tracing::warn!(%address, "too many connections from peers: one was closed");
            continue;
        };
        let (serving, handler) = (mesh.clone(), handler.clone());
        mesh.tracker.spawn(async move {
            let greeted = tokio::select! {
                () = serving.token.cancelled() => return,
                greeted = greet(&serving, stream, address) => greeted,
            };
            drop(handshake);
            if let Some((peer, opened)) = greeted {
                serve(&serving, opened, peer, &*handler).await;
            }
            drop(connection);
        });
    }
}

/// The handshake, within its time; a failure is logged here.
async fn greet(mesh: &Inner, mut stream: TcpStream, address: SocketAddr) -> Option<(Peer, Connection)> {
    let mut inbox = Inbox::new();
    match timeout(mesh.options.handshake_timeout, shake(mesh, &mut stream, &mut inbox)).await {
        Ok(Ok(Dialler { identity, lane })) => {
            mesh.heard_of(identity.node);
            Some((Peer { node: identity.node, boot: identity.boot, address, lane }, Connection { stream, inbox, lane }))
        }
        Ok(Err(error)) => {
            count_failure(mesh, &error);
            tracing::warn!(%address, %error, "a connection to the peer port was not let in");
            None
        }
        Err(_) => {
            tracing::warn!(%address, "a connection to the peer port did not introduce itself in time");
            None
        }
    }
}

async fn shake(mesh: &Inner, stream: &mut TcpStream, inbox: &mut Inbox) -> Result<Dialler, handshake::Error> {
    stream.set_nodelay(true).map_err(|error: io::Error| handshake::Error::from(error))?;
    let identity = mesh.identity.borrow().clone();
    let local = Local { secret: &mesh.options.secret, identity: &identity, versions: handshake::VERSIONS };
    handshake::accept(stream, inbox, &local).await
}

fn count_failure(mesh: &Inner, error: &handshake::Error) {
    match error {
        handshake::Error::Rejected(_) => Counters::add(&mesh.counters.rejects, 1),
        handshake::Error::Garbage(_) => Counters::add(&mesh.counters.garbage, 1),
        handshake::Error::Closed(_) => (),
    }
}

async fn serve(mesh: &Inner, connection: Connection, peer: Peer, handler: &dyn Handler) {
    let end = run_accepted(connection, peer, handler, &mesh.options, &mesh.counters, &mesh.token).await;
    let Peer { node, address, lane, .. } = peer;
    match end {
        End::Garbage(error) => {
            Counters::add(&mesh.counters.garbage, 1);
            tracing::warn!(node, %address, ?lane, %error, "a peer's connection was closed");
        }
        end => tracing::debug!(node, %address, ?lane, ?end, "a peer's connection ended"),
    }
}
