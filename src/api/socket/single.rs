//! One stream, nothing to send: each event one text frame. What a page needs.

use super::{Pulse, bounded, goodbye, noting, ping, run, text, why};
use crate::{
    api::{
        error::Result,
        extract::{Ready, Stream},
        follow::{self, Follow, Step},
        params,
        query::Query,
        state::App,
    },
    core::limits,
    node::{Chunk, Error, From, Item},
    wire::{
        Gap, encode_gap_line,
        socket::{Close, close},
    },
};
use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, StreamExt};
use std::time::Duration;

/// What a client has to say here is pongs and a goodbye.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub async fn open(
    State(app): State<App>,
    Stream(stream): Stream,
    mut query: Query,
    Ready(node): Ready,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = bounded(upgrade, MESSAGE_BYTES_MAX)?;
    let from = params::start(&mut query)?.unwrap_or(From::New);
    let filter = params::filter(&mut query)?;
    query.end()?;
    // Before the upgrade, so that a wrong request still gets its problem.
    let follow = Follow::open(&app, &node, &stream, from, filter).await?;
    Ok(run(&app, upgrade, |socket| deliver(socket, follow)))
}

async fn deliver(socket: WebSocket, mut follow: Follow) {
    let (mut sink, mut source) = socket.split();
    let mut pulse = Pulse::new();
    let close = loop {
        tokio::select! {
            heard = source.next() => match heard {
                Some(Ok(Message::Close(_))) | None => return,
                Some(Ok(_)) => pulse.heard(),
                Some(Err(error)) => match why(error) {
                    Some(close) => break close,
                    None => return,
                },
            },
            step = follow.step(limits::PUSH_EVENTS_MAX, Duration::MAX) => match step {
                Step::Items(chunk) => if noting(write(&mut sink, &chunk), || pulse.heard()).await.is_err() { return },
                Step::Idle | Step::Refused(_) => {}
                Step::Leaving => break close::GOING_AWAY,
                Step::Failed(error) => break reason(&error),
            },
            () = pulse.tick() => match pulse.is_silent(None) {
                true => break close::SILENT,
                false => if sink.send(ping()).await.is_err() { return },
            },
        }
    };
    goodbye(sink, source, close).await;
}

fn reason(error: &Error) -> Close {
    match error {
        Error::StreamNotFound(_) => close::STREAM_GONE,
        Error::Internal(_) => close::INTERNAL,
        _ => close::UNAVAILABLE,
    }
}

/// Several frames a write, one flush.
async fn write(sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin), chunk: &Chunk) -> std::result::Result<(), axum::Error> {
    for item in &chunk.items {
        let frame = match item {
            Item::Event(delivery) => follow::json(delivery).clone(),
            Item::Gap { from, to } => Bytes::from(encode_gap_line(Gap { from: *from, to: *to })),
        };
        sink.feed(text(frame)).await?;
    }
    sink.flush().await
}
