//! A reader that goes on: what SSE, NDJSON with `wait` and WebSockets have in common.

use super::{error::is_refusal, state::App};
use crate::{
    core::{StreamName, SubjectFilter, Time},
    node::{Chunk, Delivery, Error, From, Node, Reader, Take},
    wire,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a reader rests after the node could not answer it.
const REST: Duration = Duration::from_millis(250);

/// What one step met.
pub enum Step {
    /// Some items.
    Items(Chunk),
    /// Nothing came in time.
    Idle,
    /// The node could not answer now; the step has rested a little, and the next may do better.
    Refused(Error),
    /// The node leaves, and it is this reader's turn to go.
    Leaving,
    /// The stream cannot be read any more.
    Failed(Error),
}

pub struct Follow {
    reader: Reader,
    leaving: Leaving,
}

impl Follow {
    pub async fn open(app: &App, node: &Node, stream: &StreamName, from: From, filter: Option<SubjectFilter>) -> Result<Follow, Error> {
        let reader = node.reader(stream, from, filter).await?;
        Ok(Follow { reader, leaving: Leaving::new(app, node) })
    }

    /// The first seq that the next step may bring.
    pub fn cursor(&self) -> u64 {
        self.reader.cursor()
    }

    /// When its stream was created.
    pub fn stream_created(&self) -> Time {
        self.reader.stream_created()
    }

    /// The next items, at most `events`; waits for them at most `wait`. Cancel safe.
    pub async fn step(&mut self, events: usize, wait: Duration) -> Step {
        tokio::select! {
            biased;
            step = next(&mut self.reader, events, wait) => step,
            () = self.leaving.turn() => Step::Leaving,
        }
    }

    /// As `step`, for a connection that watches by itself when to go.
    pub async fn step_on(&mut self, events: usize, wait: Duration) -> Step {
        next(&mut self.reader, events, wait).await
    }
}

async fn next(reader: &mut Reader, events: usize, wait: Duration) -> Step {
    match reader.next(Take { events, wait }).await {
        Ok(chunk) if chunk.items.is_empty() => Step::Idle,
        Ok(chunk) => Step::Items(chunk),
        Err(error) if is_refusal(&error) && error != Error::Draining => {
            tokio::time::sleep(REST.min(wait)).await;
            Step::Refused(error)
        }
        Err(Error::Draining) => Step::Leaving,
        Err(error) => Step::Failed(error),
    }
}

/// Tells a long-lived connection when to go: some time after its node began to leave, so that not all go at once.
pub struct Leaving {
    app: App,
    node: watch::Receiver<bool>,
    at: Option<Instant>,
}

impl Leaving {
    pub fn new(app: &App, node: &Node) -> Leaving {
        Leaving { app: app.clone(), node: node.leaving(), at: None }
    }

    /// The next of the two: first that the node has begun to leave, then, ever again, that it is this connection's turn. Cancel safe.
    pub async fn next(&mut self) -> Farewell {
        if let Some(at) = self.at {
            tokio::time::sleep_until(at).await;
            return Farewell::Turn;
        }
        tokio::select! {
            // A node that is gone leaves as well.
            _ = self.node.wait_for(|leaving| *leaving) => {}
            () = self.app.closing.cancelled() => {}
        }
        self.at = Some(Instant::now() + self.app.leave_after());
        Farewell::Begun
    }

    /// Done when it is this connection's turn to go. Cancel safe.
    pub async fn turn(&mut self) {
        while self.next().await == Farewell::Begun {}
    }
}

/// How far a node's leaving is, for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    Begun,
    Turn,
}

/// The event's JSON object, encoded by the first reader that needs it and shared by all others.
pub fn json(delivery: &Delivery) -> &Bytes {
    delivery.json.get_or_init(|| wire::encode_event(&delivery.event))
}
