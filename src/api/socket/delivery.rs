//! What goes out over a socket of many streams: its writer, and each subscription's way to it.
//!
//! - A subscription waits while the writer's queue is full, or while it has no credit; it holds one chunk of events at most.

use super::{STEP, text};
use crate::{
    api::{
        error::Failure,
        follow::{self, Follow, Step},
    },
    core::limits,
    node::{self, Chunk, Item},
    wire::{
        Gap, Timestamp,
        socket::{self, Frame, Subscribed},
    },
};
use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt, stream::SplitSink};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// The other end cannot be told anything any more.
pub struct Gone;

pub type Flow<T = ()> = std::result::Result<T, Gone>;

/// Writes frames as they come: all that wait, then one flush.
pub async fn write(mut sink: SplitSink<WebSocket, Message>, mut frames: mpsc::Receiver<Message>) {
    while let Some(frame) = frames.recv().await {
        if sink.feed(frame).await.is_err() {
            return;
        }
        while let Ok(frame) = frames.try_recv() {
            if sink.feed(frame).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

pub fn failed(id: Option<u64>, failure: Failure) -> Frame {
    Frame { id, error: Some(*failure.0), ..Frame::default() }
}

/// One subscription's way to the socket.
pub struct Delivery {
    /// Of the command that asked for it.
    pub id: u64,
    pub sub: u64,
    /// What the client lets the server send; `None`: as much as the socket takes.
    pub credit: Option<Arc<Semaphore>>,
    pub out: mpsc::Sender<Message>,
}

impl Delivery {
    pub async fn run(self, opened: std::result::Result<Follow, node::Error>) -> Flow {
        let mut follow = match opened {
            Ok(follow) => follow,
            Err(error) => return self.send(&failed(Some(self.id), error.into())).await,
        };
        let subscribed = Subscribed { sub: self.sub, from: follow.cursor(), created: Some(Timestamp(follow.stream_created())) };
        self.send(&Frame { subscribed: Some(subscribed), ..Frame::answer(self.id) }).await?;
        loop {
            let events = self.allowance().await;
            match follow.step_on(events, STEP).await {
                Step::Items(chunk) => self.push(chunk).await?,
                Step::Idle | Step::Refused(_) => {}
                // The session says goodbye in its turn.
                Step::Leaving => std::future::pending().await,
                Step::Failed(error) => return self.send(&Frame { sub: Some(self.sub), ..failed(None, error.into()) }).await,
            }
        }
    }

    /// How many events the next step may bring; waits for credit when there is none.
    async fn allowance(&self) -> usize {
        let Some(credit) = &self.credit else { return limits::PUSH_EVENTS_MAX };
        // Only this task takes credit away, so what is seen here stays.
        drop(credit.acquire().await);
        credit.available_permits().min(limits::PUSH_EVENTS_MAX)
    }

    async fn push(&self, chunk: Chunk) -> Flow {
        let mut frames = Frames { sub: self.sub, events: Vec::new(), bytes: 0, done: Vec::new() };
        let mut used = 0;
        for item in &chunk.items {
            used += matches!(item, Item::Event(_)) as u32;
            frames.add(item);
        }
        frames.end();
        if let Some(credit) = &self.credit
            && let Ok(taken) = credit.try_acquire_many(used)
        {
            taken.forget();
        }
        for frame in frames.done {
            self.out.send(text(frame)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    async fn send(&self, frame: &Frame) -> Flow {
        self.out.send(text(Bytes::from(frame.encode()))).await.map_err(|_| Gone)
    }
}

/// Gathers items into frames of bounded size.
struct Frames {
    sub: u64,
    events: Vec<Bytes>,
    bytes: usize,
    done: Vec<Bytes>,
}

impl Frames {
    fn add(&mut self, item: &Item) {
        match item {
            Item::Event(delivery) => {
                let json = follow::json(delivery).clone();
                self.bytes += json.len();
                self.events.push(json);
                if self.bytes >= limits::PUSH_BYTES_MAX {
                    self.end();
                }
            }
            Item::Gap { from, to } => {
                self.end();
                let gap = Frame { sub: Some(self.sub), gap: Some(Gap { from: *from, to: *to }), ..Frame::default() };
                self.done.push(Bytes::from(gap.encode()));
            }
        }
    }

    fn end(&mut self) {
        if !self.events.is_empty() {
            self.done.push(socket::encode_events(self.sub, self.events.iter()));
            self.events.clear();
            self.bytes = 0;
        }
    }
}
