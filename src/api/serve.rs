//! The listener and its connections: accepted in bounded number, watched, and ended in order when the node stops.

use super::{
    ahead::Eager,
    router,
    stall::Watched,
    state::{App, Options, Slot},
};
use crate::core::limits;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::join,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Bytes of a request's line and headers, and of what waits to be written, at most.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Request headers at most; an event has up to `limits::HEADERS_MAX` of its own.
const REQUEST_HEADERS_MAX: usize = 128;

/// Serves the API on a listener until `shutdown` is done, then ends the connections: those between two requests at once, the
/// others after their answer, live ones when the node says that it leaves; bounded by `limits::SHUTDOWN_WAIT_MS`.
///
/// The slot may still be empty: until a node is put there, `/livez` answers and everything else says `starting`.
pub async fn serve(listener: TcpListener, slot: Slot, options: Options, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let app = App::new(slot, options);
    let connections = Arc::new(Semaphore::new(app.options.connections_max));
    let service = TowerToHyperService::new(router::service(app.clone()));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut shutdown => break,
        };
        let (stream, place) = accepted;
        app.tracker.spawn(connection(stream, service.clone(), app.clone(), place));
    }
    drop(listener);
    app.closing.cancel();
    app.tracker.close();
    if tokio::time::timeout(Duration::from_millis(limits::SHUTDOWN_WAIT_MS), app.tracker.wait()).await.is_err() {
        tracing::warn!(connections = app.tracker.len(), "connections were still open when the time to stop was up");
        app.killing.cancel();
    }
    Ok(())
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                // Out of file descriptors, or a connection that is gone already. A pause keeps the first from spinning.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, service: TowerToHyperService<router::Service>, app: App, _place: OwnedSemaphorePermit) {
    // Answers are written whole: there is nothing to gain from waiting for more.
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HEADERS_WAIT_MS))
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(REQUEST_HEADERS_MAX)
        .serve_connection(TokioIo::new(join(Eager::new(read), Watched::new(write))), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = app.killing.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
