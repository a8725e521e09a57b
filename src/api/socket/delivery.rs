//! One subscription of a socket of many streams: from its reader to the socket's outbox.
//!
//! - A subscription waits while the outbox is full, or while it has no credit; it holds one chunk of events at most.

use super::{
    outbox::{Flow, Outbox},
    text,
};
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
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

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
    pub out: Arc<Outbox>,
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
            match follow.step_on(events, Duration::MAX).await {
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
            self.out.put(text(frame)).await?;
        }
        self.out.flush().await
    }

    async fn send(&self, frame: &Frame) -> Flow {
        self.out.put(super::frame(frame)).await?;
        self.out.flush().await
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
