//! WebSockets: what both forms have in common. [`single`] delivers one stream, [`many`] speaks the commands of `wire::socket`.
//!
//! - What waits to be written is bounded in frames, and a frame in bytes.
//! - A socket that takes no byte for too long is cut by the connection itself (`stall`), one that sends none is closed by [`Pulse`].

mod delivery;
pub mod many;
mod outbox;
pub mod single;

use super::{
    error::{Failure, Result},
    state::App,
};
use crate::{
    core::limits,
    wire::{
        Code,
        socket::{Close, Frame, close},
    },
};
use axum::{
    Error,
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

/// Every socket has these buffers, so they are small: thousands of sockets are mostly quiet. The connection reads ahead (`ahead`).
const READ_BUFFER_BYTES: usize = 512;
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// One event of the largest size as an escaped JSON string, and some more.
const WRITE_BYTES_MAX: usize = 8 * limits::EVENT_BYTES_MAX;
/// How long a closing socket waits for its other end to agree.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

const _: () = assert!(WRITE_BYTES_MAX > 6 * limits::EVENT_BYTES_MAX + 2 * limits::PUSH_BYTES_MAX);

/// The request's upgrade, with the bounds of every socket; `message_bytes_max` is what the client may send at once.
fn bounded(
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    message_bytes_max: usize,
) -> Result<WebSocketUpgrade> {
    let upgrade = upgrade.map_err(|rejection| Failure::new(Code::UpgradeRequired, rejection.body_text()))?;
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max))
}

/// Upgrades, and runs the socket as one of the connections that the server waits for.
fn run<F>(app: &App, upgrade: WebSocketUpgrade, session: impl FnOnce(WebSocket) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (token, killing) = (app.tracker.token(), app.killing.clone());
    upgrade.on_failed_upgrade(|error| tracing::debug!(%error, "an upgrade failed")).on_upgrade(move |socket| async move {
        let _token = token;
        // Once, not in each of the futures around it.
        killing.run_until_cancelled(Box::pin(session(socket))).await;
    })
}

/// Pings, and notices when nothing comes back.
struct Pulse {
    ticks: Interval,
    heard: Instant,
}

impl Pulse {
    fn new() -> Pulse {
        let mut ticks = interval(Duration::from_millis(limits::PING_EVERY_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        Pulse { ticks, heard: Instant::now() }
    }

    /// Something came, whatever it was.
    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Waits for the time of the next ping. Cancel safe.
    async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    /// Whether the other end has been silent for too long. One that is slow is not: it may have so much to read that it comes to no ping,
    /// and `taken` is when it last read some of it.
    fn is_silent(&self, taken: Option<Instant>) -> bool {
        let heard = taken.map_or(self.heard, |taken| taken.max(self.heard));
        heard.elapsed() >= Duration::from_millis(limits::SILENT_MS)
    }
}

/// Writes to a socket; calls `taken` whenever that was full and takes more: then the other end has read. Nothing but the socket may wake
/// the task while it writes.
async fn noting<R>(write: impl Future<Output = R>, mut taken: impl FnMut()) -> R {
    let mut write = pin!(write);
    let mut was_full = false;
    poll_fn(|cx| {
        if was_full {
            taken();
        }
        let written = write.as_mut().poll(cx);
        was_full = written.is_pending();
        written
    })
    .await
}

fn ping() -> Message {
    Message::Ping(Bytes::new())
}

/// A text frame of bytes that hold JSON.
fn text(json: Bytes) -> Message {
    Message::Text(Utf8Bytes::try_from(json).expect("JSON is UTF-8"))
}

fn frame(frame: &Frame) -> Message {
    text(Bytes::from(frame.encode()))
}

fn close_frame(close: Close) -> Message {
    Message::Close(Some(CloseFrame { code: close.code, reason: close.reason.into() }))
}

/// Why a socket gave no message: its end, or one that is far too large.
fn why(error: Error) -> Option<Close> {
    // The library below axum is not named in this room, so its error is known by its words; a test sends such a message.
    error.to_string().contains("Space limit exceeded").then_some(close::TOO_BIG)
}

/// Says why, and waits a little for the other end to agree: a connection that is dropped at once may take the reason with it.
async fn goodbye(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut source: impl Stream<Item = std::result::Result<Message, Error>> + Unpin,
    close: Close,
) {
    let parting = async {
        if sink.send(close_frame(close)).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    // Whoever does not answer is left.
    let _ = timeout(CLOSE_WAIT, parting).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_not_silent() {
        let mut pulse = Pulse::new();
        let began = Instant::now();
        while !pulse.is_silent(None) {
            pulse.tick().await;
        }
        assert_eq!(began.elapsed().as_millis() as u64, limits::SILENT_MS);
        assert!(pulse.is_silent(Some(began)) && !pulse.is_silent(Some(Instant::now())));
        pulse.heard();
        assert!(!pulse.is_silent(Some(began)));
    }
}
