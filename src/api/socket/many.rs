//! Many streams, both directions: the commands of `wire::socket` over one socket.
//!
//! Two kinds of task a socket: the session, here, reads commands and owns everything; each subscription (`delivery`) has a reader of its own.
//! What they have to say goes into the `outbox`; a subscription waits when that is full, so that it falls back to the log.
//!
//! - Publishes are given to the node in the order of their frames; their outcomes are answered as they come.
//! - With `limits::SOCKET_PENDING_MAX` outcomes awaited, the socket is not read until some are there.
//! - A frame that cannot be read is answered with an error, and the socket goes on; too many in a row close it.

use super::{
    Pulse, bounded, close_frame,
    delivery::{Delivery, failed},
    outbox::{Flow, Gone, Outbox},
    ping, run, why,
};
use crate::{
    api::{
        cluster,
        error::{Failure, Result},
        extract::Ready,
        follow::{Farewell, Follow, Leaving},
        params, publish,
        query::Query,
        state::App,
    },
    core::{NewEvent, StreamName, Time, catalog::NodeState, limits},
    node::{self, From, Node, NodeInfo, Published},
    wire::{
        BatchEvent, Code, Timestamp,
        socket::{self, Ack, Close, Command, Empty, Frame, Goaway, NodeAddress, OnlyId, Pong, SUBPROTOCOL, Subscribe, Verb, close},
    },
};
use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use futures_util::{
    FutureExt, StreamExt,
    stream::{FuturesUnordered, SplitStream},
};
use serde::de::IgnoredAny;
use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Messages up to here are read, so that one that is too large can be told so; beyond, the socket is closed in its midst.
const READ_BYTES_MAX: usize = 2 * limits::SOCKET_MESSAGE_BYTES_MAX;
/// Frames in a row that are no commands, before the socket is closed.
const UNREADABLE_MAX: u32 = 16;
/// How long a leaving node waits for the outcomes of publishes that it took.
const SETTLE: Duration = Duration::from_secs(2);

pub async fn open(
    State(app): State<App>,
    query: Query,
    Ready(node): Ready,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = bounded(upgrade, READ_BYTES_MAX)?;
    query.end()?;
    let others = upgrade.requested_protocols().next().is_some();
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if others && upgrade.selected_protocol().is_none() {
        return Err(Failure::new(Code::InvalidHeader, format!("the only subprotocol here is {SUBPROTOCOL}")));
    }
    let session_app = app.clone();
    Ok(run(&app, upgrade, move |socket| async move {
        let (sink, source) = socket.split();
        Session::new(session_app, node, Outbox::new(sink)).run(source).await;
    }))
}

type Outcome = Pin<Box<dyn Future<Output = Frame> + Send>>;

/// One socket.
///
/// - `pending` has at most `limits::SOCKET_PENDING_MAX` outcomes.
/// - `subscriptions` has at most `limits::SOCKET_SUBSCRIPTIONS_MAX`, those that ended by themselves included until the next subscribe.
struct Session {
    app: App,
    node: Node,
    out: Arc<Outbox>,
    pending: FuturesUnordered<Outcome>,
    subscriptions: HashMap<u64, Subscription>,
    next_sub: u64,
    nodes: watch::Receiver<Arc<Vec<NodeInfo>>>,
    told_nodes: Vec<NodeAddress>,
    leaving: Leaving,
    unreadable: u32,
}

struct Subscription {
    /// What the client lets the server send; `None`: as much as the socket takes.
    credit: Option<Arc<Semaphore>>,
    task: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    fn new(app: App, node: Node, out: Outbox) -> Session {
        Session {
            nodes: node.nodes(),
            leaving: Leaving::new(&app, &node),
            app,
            node,
            out: Arc::new(out),
            pending: FuturesUnordered::new(),
            subscriptions: HashMap::new(),
            next_sub: 1,
            told_nodes: Vec::new(),
            unreadable: 0,
        }
    }

    async fn run(mut self, mut source: SplitStream<WebSocket>) {
        let Ok(close) = self.serve(&mut source).await else { return };
        self.subscriptions.clear();
        // What was said last is still to be written; the connection's own watch bounds how long that may take.
        let Some(close) = close else { return drop(self.out.finish().await) };
        if self.out.put(close_frame(close)).await.is_ok() && self.out.finish().await.is_ok() {
            // Until the other end agrees; whoever does not is left.
            let _ = timeout(super::CLOSE_WAIT, async { while let Some(Ok(_)) = source.next().await {} }).await;
        }
    }

    /// Until there is a reason to close, or (`None`) the other end is done.
    async fn serve(&mut self, source: &mut SplitStream<WebSocket>) -> Flow<Option<Close>> {
        let mut pulse = Pulse::new();
        self.tell_nodes().await?;
        loop {
            tokio::select! {
                message = source.next(), if self.pending.len() < limits::SOCKET_PENDING_MAX => {
                    pulse.heard();
                    match message {
                        None | Some(Ok(Message::Close(_))) => return Ok(None),
                        Some(Err(error)) => return Ok(why(error)),
                        // Apart from the session, which waits most of its time: what a command needs is large.
                        Some(Ok(message)) => if let Some(close) = Box::pin(self.message(message)).await? { return Ok(Some(close)) },
                    }
                }
                Some(frame) = self.pending.next(), if !self.pending.is_empty() => self.tell_outcomes(frame).await?,
                Ok(()) = self.nodes.changed() => self.tell_nodes().await?,
                farewell = self.leaving.next() => match farewell {
                    Farewell::Begun => self.tell_goaway().await?,
                    Farewell::Turn => {
                        self.settle().await?;
                        return Ok(Some(close::GOING_AWAY));
                    }
                },
                () = self.out.gone() => return Err(Gone),
                () = pulse.tick() => {
                    if pulse.is_silent(self.out.taken()) {
                        return Ok(Some(close::SILENT));
                    }
                    self.out.put(ping()).await?;
                    self.out.start().await?;
                }
            }
        }
    }

    async fn send(&mut self, frame: &Frame) -> Flow {
        self.out.put(super::frame(frame)).await?;
        self.out.start().await
    }

    /// One outcome and all that are there with it, in one write: an entry answers many publishes at once.
    async fn tell_outcomes(&mut self, first: Frame) -> Flow {
        let mut next = Some(first);
        while let Some(frame) = next {
            self.out.put(super::frame(&frame)).await?;
            next = self.pending.next().now_or_never().flatten();
        }
        self.out.start().await
    }

    async fn fail(&mut self, id: Option<u64>, failure: Failure) -> Flow {
        self.send(&failed(id, failure)).await
    }

    /// Tells where the cluster's nodes are, if that is not what was told before.
    async fn tell_nodes(&mut self) -> Flow {
        let active = |info: &&NodeInfo| info.state == NodeState::Active;
        let nodes: Vec<_> =
            self.nodes.borrow_and_update().iter().filter(active).map(|info| NodeAddress::from(&cluster::shape(info))).collect();
        if nodes == self.told_nodes {
            return Ok(());
        }
        self.told_nodes.clone_from(&nodes);
        self.send(&Frame { nodes: Some(nodes), ..Frame::default() }).await
    }

    async fn tell_goaway(&mut self) -> Flow {
        self.send(&Frame { goaway: Some(Goaway { reconnect_within_ms: limits::GOAWAY_SPREAD_MS }), ..Frame::default() }).await
    }

    /// Answers the publishes that are on their way, as far as their outcomes come soon.
    async fn settle(&mut self) -> Flow {
        let until = Instant::now() + SETTLE;
        while let Ok(Some(frame)) = tokio::time::timeout_at(until, self.pending.next()).await {
            self.send(&frame).await?;
        }
        Ok(())
    }

    async fn message(&mut self, message: Message) -> Flow<Option<Close>> {
        let text = match message {
            Message::Text(text) if text.len() > limits::SOCKET_MESSAGE_BYTES_MAX => {
                let limit = limits::SOCKET_MESSAGE_BYTES_MAX;
                self.fail(None, Failure::new(Code::BodyTooLarge, format!("a message has at most {limit} bytes")).limit(limit as u64))
                    .await?;
                return Ok(Some(close::TOO_BIG));
            }
            Message::Text(text) => text,
            Message::Binary(_) => {
                return self.unreadable(None, Failure::new(Code::MalformedBody, "commands are text messages, not binary ones")).await;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return Ok(None),
        };
        // An array is an object's fields in order to serde, and nothing of the kind to anybody else.
        let object = text.trim_start().starts_with('{');
        match serde_json::from_str::<Command>(&text) {
            Ok(_) if !object => self.unreadable(None, Failure::new(Code::MalformedBody, "a frame is one JSON object")).await,
            Ok(command) => {
                self.unreadable = 0;
                self.command(command).await?;
                Ok(None)
            }
            Err(error) => {
                let id = serde_json::from_str::<OnlyId>(&text).ok().and_then(|only| only.id);
                self.unreadable(id, misread(&text, &error)).await
            }
        }
    }

    async fn unreadable(&mut self, id: Option<u64>, failure: Failure) -> Flow<Option<Close>> {
        self.fail(id, failure).await?;
        self.unreadable += 1;
        Ok((self.unreadable >= UNREADABLE_MAX).then_some(close::POLICY))
    }

    async fn command(&mut self, command: Command) -> Flow {
        let id = command.id;
        let done = match command.verb() {
            Some(Verb::Publish(command)) => self.publish(id, command).await,
            Some(Verb::PublishBatch(command)) => self.publish_batch(id, command).await,
            Some(Verb::Subscribe(command)) => self.subscribe(id, command),
            Some(Verb::Credit(command)) => {
                let done = self.credit(command);
                return self.answer(id, done).await;
            }
            Some(Verb::Unsubscribe(command)) => {
                let done = self.unsubscribe(command.sub).await;
                return self.answer(id, done).await;
            }
            Some(Verb::Ping) => return self.send(&Frame { pong: Some(Pong { time: now() }), ..Frame::answer(id) }).await,
            None => Err(Failure::new(Code::UnknownCommand, "a frame has exactly one command")),
        };
        match done {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(Some(id), failure).await,
        }
    }

    async fn answer(&mut self, id: u64, done: Result<()>) -> Flow {
        match done {
            Ok(()) => self.send(&Frame { ok: Some(Empty {}), ..Frame::answer(id) }).await,
            Err(failure) => self.fail(Some(id), failure).await,
        }
    }

    async fn publish(&mut self, id: u64, command: socket::Publish) -> Result<()> {
        let socket::Publish { stream, subject, event_id, headers, content_type, data, data_base64, expected_last_seq } = command;
        let event = BatchEvent { subject, id: event_id, headers, content_type, data, data_base64 };
        let event = NewEvent::try_from(event).map_err(|error| Failure::new(Code::InvalidBody, error.0))?;
        self.submit(id, &stream, vec![event], expected_last_seq, one).await
    }

    async fn publish_batch(&mut self, id: u64, command: socket::PublishBatch) -> Result<()> {
        let events = publish::batch_events(command.events)?;
        self.submit(id, &command.stream, events, command.expected_last_seq, batch).await
    }

    /// Gives a publish its place in the order; its outcome is answered when it comes.
    async fn submit(
        &mut self,
        id: u64,
        stream: &str,
        events: Vec<NewEvent>,
        expected_last_seq: Option<u64>,
        ack: fn(Published) -> Ack,
    ) -> Result<()> {
        publish::check_batch(&events)?;
        let stream = stream_name(stream)?;
        let deadline = Instant::now() + Duration::from_millis(limits::PUBLISH_WAIT_MS);
        let outcome: Outcome = match self.node.try_submit(&stream, node::Publish { events, expected_last_seq, deadline }) {
            Ok(outcome) => Box::pin(acknowledged(id, ack, outcome)),
            Err(publish) => Box::pin(acknowledged(id, ack, Box::pin(self.node.submit(&stream, publish)).await?)),
        };
        self.pending.push(outcome);
        Ok(())
    }

    fn subscribe(&mut self, id: u64, command: Subscribe) -> Result<()> {
        self.subscriptions.retain(|_, subscription| !subscription.task.is_finished());
        if self.subscriptions.len() >= limits::SOCKET_SUBSCRIPTIONS_MAX {
            let limit = limits::SOCKET_SUBSCRIPTIONS_MAX;
            return Err(Failure::new(Code::LimitReached, format!("a connection has at most {limit} subscriptions")).limit(limit as u64));
        }
        let stream = stream_name(&command.stream)?;
        let filter = command.subject.as_deref().map(params::subject_filter).transpose()?;
        let start = command.from.map_or(Some(From::New), params::from);
        let from = start.ok_or_else(|| Failure::new(Code::InvalidBody, format!("from is {}", params::START)))?;
        if command.credit.is_some_and(|credit| credit > limits::CREDIT_MAX) {
            return Err(too_much_credit());
        }
        let credit = command.credit.map(|credit| Arc::new(Semaphore::new(credit as usize)));
        let sub = self.next_sub;
        self.next_sub += 1;
        let delivery = Delivery { id, sub, credit: credit.clone(), out: self.out.clone() };
        let (app, node) = (self.app.clone(), self.node.clone());
        let task = tokio::spawn(async move {
            // Ends with the socket when its queue is gone; nobody else needs to know.
            let opened = Box::pin(Follow::open(&app, &node, &stream, from, filter)).await;
            let _ = delivery.run(opened).await;
        });
        self.subscriptions.insert(sub, Subscription { credit, task });
        Ok(())
    }

    fn credit(&self, command: socket::Credit) -> Result<()> {
        let subscription = self.subscriptions.get(&command.sub).ok_or_else(|| no_subscription(command.sub))?;
        let Some(credit) = &subscription.credit else {
            return Err(Failure::new(Code::InvalidBody, "the subscription was made without credit"));
        };
        if command.add == 0 {
            return Err(Failure::new(Code::InvalidBody, "add is at least 1"));
        }
        if (credit.available_permits() as u64).checked_add(command.add).is_none_or(|sum| sum > limits::CREDIT_MAX) {
            return Err(too_much_credit());
        }
        credit.add_permits(command.add as usize);
        Ok(())
    }

    /// After it, nothing more of the subscription is sent.
    async fn unsubscribe(&mut self, sub: u64) -> Result<()> {
        let mut subscription = self.subscriptions.remove(&sub).ok_or_else(|| no_subscription(sub))?;
        subscription.task.abort();
        // Done either way: it was aborted, or had ended.
        let _ = (&mut subscription.task).await;
        Ok(())
    }
}

/// The frame that says how a publish ended.
async fn acknowledged(id: u64, ack: fn(Published) -> Ack, outcome: impl Future<Output = node::Result<Published>>) -> Frame {
    match outcome.await {
        Ok(published) => Frame { ack: Some(ack(published)), ..Frame::answer(id) },
        Err(error) => failed(Some(id), error.into()),
    }
}

fn one(published: Published) -> Ack {
    Ack { seq: Some(published.first_seq), duplicate: Some(published.count == 0), ..Ack::default() }
}

fn batch(published: Published) -> Ack {
    let Published { first_seq, last_seq, count, duplicates, .. } = published;
    Ack { first_seq: Some(first_seq), last_seq: Some(last_seq), count: Some(count), duplicates: Some(duplicates), ..Ack::default() }
}

/// What is wrong with a frame that is no command.
fn misread(text: &str, error: &serde_json::Error) -> Failure {
    const VERBS: [&str; 6] = ["publish", "publish_batch", "subscribe", "credit", "unsubscribe", "ping"];
    match serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text) {
        Err(_) => Failure::new(Code::MalformedBody, format!("a frame is one JSON object: {error}")),
        Ok(fields) if !fields.keys().any(|key| VERBS.contains(&key.as_str())) => Failure::new(Code::UnknownCommand, error.to_string()),
        Ok(_) => Failure::new(Code::InvalidBody, error.to_string()),
    }
}

fn stream_name(name: &str) -> Result<StreamName> {
    StreamName::new(name).map_err(|error| Failure::new(Code::InvalidName, error.0))
}

fn no_subscription(sub: u64) -> Failure {
    Failure::new(Code::SubscriptionNotFound, format!("the connection has no subscription {sub}"))
}

fn too_much_credit() -> Failure {
    Failure::new(Code::InvalidBody, format!("a subscription holds at most {} credit", limits::CREDIT_MAX)).limit(limits::CREDIT_MAX)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(Time(since.as_micros() as i64))
}
