//! Every publish that came in at this node for one stream, on its way to whoever leads the stream: in order, and each done once.
//!
//! A request gets a counter when it comes in. It is sent to the leader, and if its fate stays unknown (the leader died, the connection
//! broke) it is sent again, under the same counter, to the next leader: the stream's machine knows the counters that it has seen. While
//! nobody leads, requests wait here, bounded in number and bytes and by their deadlines.

use super::error::{Error, Result};
use super::proposer::{Failure, Sink};
use super::remote::{self, Forward, method, refusal};
use super::stream::Stream;
use super::types::Published;
use super::{Inner, lost};
use crate::cluster::Leadership;
use crate::cluster::mesh::{CallError, Lane, code};
use crate::core::batch::{Origin, RequestHead, encode_request};
use crate::core::machine::{Outcome, Reject};
use crate::core::{NewEvent, limits};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture, Shared},
    stream::FuturesOrdered,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

/// Calls of one stream on their way to its leader; each carries what waited when it was made.
const CALLS_IN_FLIGHT: usize = 4;
/// Requests and bytes of one call.
const CALL_REQUESTS_MAX: usize = 256;
const CALL_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX;
/// Longest wait for a call's answer: the peer's failure is noticed by the mesh long before.
const CALL_WAIT: Duration = Duration::from_secs(5);
/// So many times a replica here is waited for before the others are tried.
const OPENING_TRIES: usize = 4;
/// Pauses before trying again when nothing else tells that it is worth it.
const PAUSES_MS: [u64; 5] = [2, 5, 10, 25, 50];

/// A publish that was admitted.
pub struct Submit {
    pub events: Vec<NewEvent>,
    pub expected_last_seq: Option<u64>,
    pub deadline: Instant,
    pub done: oneshot::Sender<Result<Published>>,
    /// The bytes that it holds of the node's bound.
    pub room: OwnedSemaphorePermit,
}

/// A handle to the forwarder of one stream; the task ends with its last handle.
#[derive(Clone)]
pub struct Forwarder {
    submits: mpsc::Sender<Submit>,
}

impl Forwarder {
    pub fn start(node: &Arc<Inner>, stream: &Arc<Stream>) -> Forwarder {
        let (submits, waiting) = mpsc::channel(1_024);
        let origin = Origin { node: node.id, epoch: node.boot };
        let task = Task {
            node: Arc::downgrade(node),
            stream: Arc::downgrade(stream),
            origin,
            waiting,
            pending: BTreeMap::new(),
            next_counter: 1,
            unsent: 1,
            after: 0,
            attempt: 1,
            failures: 0,
            hint: None,
        };
        node.runtime.spawn(task.run());
        Forwarder { submits }
    }

    /// The same without waiting; gives the request back where it would have to.
    pub fn try_submit(&self, submit: Submit) -> std::result::Result<(), Submit> {
        self.submits.try_send(submit).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// When this returns, the request has its place behind those before it.
    pub async fn submit(&self, submit: Submit) -> Result<()> {
        let deadline = submit.deadline;
        match tokio::time::timeout_at(deadline, self.submits.send(submit)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::Draining),
            Err(_) => Err(Error::Overloaded("publishes to this stream")),
        }
    }
}

/// How much is known of a pending request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Provably in no log.
    Waiting,
    /// In a call that was not answered yet.
    InFlight,
    /// Some call that carried it ended without a word.
    Unsure,
}

struct Pending {
    request: Bytes,
    since: Instant,
    deadline: Instant,
    done: oneshot::Sender<Result<Published>>,
    fate: Fate,
    _room: OwnedSemaphorePermit,
}

/// - `pending` holds the requests without an outcome, by counter; those below `unsent` were given to the current attempt.
/// - Calls of one attempt carry ascending counters and are sent in that order.
struct Task {
    node: Weak<Inner>,
    stream: Weak<Stream>,
    origin: Origin,
    waiting: mpsc::Receiver<Submit>,
    pending: BTreeMap<u64, Pending>,
    next_counter: u64,
    unsent: u64,
    /// The last counter of this attempt's newest call; 0 before its first.
    after: u64,
    attempt: u64,
    /// Failed attempts in a row.
    failures: usize,
    /// Who leads, as a peer said; for a stream that has no replica here.
    hint: Option<u64>,
}

type Answer = (Vec<u64>, std::result::Result<Vec<Outcome>, Failure>);
type Calls = FuturesOrdered<BoxFuture<'static, Answer>>;

impl Task {
    async fn run(mut self) {
        let mut calls = Calls::new();
        // While set: until then, or until somebody else leads, sending would be in vain.
        let mut paused: Option<(Instant, Leadership)> = None;
        let mut deadline = far();
        // While nobody takes what waits: resolves when nobody can, to what is then said of it.
        let mut lost: Option<Shared<BoxFuture<'static, Error>>> = None;
        loop {
            let (Some(node), Some(stream)) = (self.node.upgrade(), self.stream.upgrade()) else { return };
            let mut leadership = stream.leadership();
            let now = *leadership.borrow_and_update();
            if paused.is_some_and(|(until, then)| Instant::now() >= until || now != then) {
                paused = None;
            }
            while paused.is_none() && calls.len() < CALLS_IN_FLIGHT && self.has_unsent() {
                match self.send(&node, &stream) {
                    Some(call) => calls.push_back(call),
                    None => paused = Some((self.pause(), now)),
                }
            }
            if self.pending.is_empty() {
                lost = None;
            } else if paused.is_some() {
                lost.get_or_insert_with(|| lost::until_lost(self.node.clone(), stream.group).boxed().shared());
            }
            drop((node, stream));
            let retry_at = paused.map(|(until, _)| until);
            tokio::select! {
                biased;
                Some((counters, answer)) = calls.next(), if !calls.is_empty() => match answer {
                    Ok(outcomes) => {
                        lost = None;
                        self.settle(counters, outcomes);
                    }
                    Err(failure) => {
                        calls = Calls::new();
                        self.start_again(&counters, failure);
                        paused = Some((self.pause(), now));
                    }
                },
                submit = self.waiting.recv(), if self.pending.len() < limits::PENDING_REQUESTS_MAX => match submit {
                    Some(submit) => {
                        deadline = deadline.min(submit.deadline);
                        self.admit(submit);
                        while self.pending.len() < limits::PENDING_REQUESTS_MAX && let Ok(submit) = self.waiting.try_recv() {
                            deadline = deadline.min(submit.deadline);
                            self.admit(submit);
                        }
                    }
                    None if self.pending.is_empty() => return,
                    None => tokio::time::sleep_until(deadline).await,
                },
                // The leadership of a closed group does not change any more: that is nothing to come back for at once.
                Ok(()) = leadership.changed(), if retry_at.is_some() => (),
                _ = tokio::time::sleep_until(retry_at.unwrap_or(deadline)), if retry_at.is_some() => (),
                _ = tokio::time::sleep_until(deadline), if !self.pending.is_empty() => (),
                Some(why) = OptionFuture::from(lost.clone()), if paused.is_some() && self.has_waiting() => self.give_up(&why),
            }
            if Instant::now() >= deadline {
                deadline = self.expire();
            }
        }
    }

    fn has_unsent(&self) -> bool {
        self.pending.range(self.unsent..).next().is_some()
    }

    fn has_waiting(&self) -> bool {
        self.pending.values().any(|pending| pending.fate == Fate::Waiting)
    }

    fn pause(&self) -> Instant {
        let step = self.failures.min(PAUSES_MS.len() - 1);
        Instant::now() + Duration::from_millis(PAUSES_MS[step])
    }

    fn admit(&mut self, submit: Submit) {
        let counter = self.next_counter;
        self.next_counter += 1;
        let floor = self.pending.keys().next().copied().unwrap_or(counter);
        let head = RequestHead {
            origin: self.origin,
            counter,
            floor,
            expected_last_seq: submit.expected_last_seq,
            count: submit.events.len() as u32,
            bytes: submit.events.iter().map(NewEvent::bytes).sum(),
        };
        let request = encode_request(&head, &submit.events);
        let Submit { deadline, done, room, .. } = submit;
        self.pending.insert(counter, Pending { request, since: Instant::now(), deadline, done, fate: Fate::Waiting, _room: room });
    }

    /// The next unsent requests as one call to whoever leads; `None`: nobody is known to lead.
    fn send(&mut self, node: &Arc<Inner>, stream: &Arc<Stream>) -> Option<BoxFuture<'static, Answer>> {
        let local = stream.local();
        if local.is_none() {
            node.call(stream);
        }
        let leader = match &local {
            Some(local) => local.group.current().leader?,
            // It is being opened, which takes some milliseconds.
            None if stream.is_held_by(node.id) && !node.is_out(stream.group) && self.failures < OPENING_TRIES => {
                self.failures += 1;
                return None;
            }
            None => self.remote_leader(node, stream)?,
        };
        let (mut counters, mut requests, mut bytes, now) = (Vec::new(), Vec::new(), 0, Instant::now());
        for (counter, pending) in self.pending.range_mut(self.unsent..) {
            let full = requests.len() >= CALL_REQUESTS_MAX || bytes + pending.request.len() > CALL_BYTES_MAX;
            if full && !requests.is_empty() {
                break;
            }
            bytes += pending.request.len();
            requests.push(pending.request.clone());
            counters.push(*counter);
            if pending.fate == Fate::Waiting {
                pending.fate = Fate::InFlight;
                node.metrics.publish_stages.route.observe((now - pending.since).as_secs_f64());
            }
        }
        let last = *counters.last()?;
        let forward = Forward { group: stream.group, epoch: self.origin.epoch, attempt: self.attempt, after: self.after, last, requests };
        (self.after, self.unsent) = (last, last + 1);
        let answer: BoxFuture<'static, _> = match local {
            Some(local) if leader == node.id => {
                stream.touch();
                let (sink, outcomes) = oneshot::channel();
                local.proposer.submit(node.id, forward, Sink::Local(sink));
                Box::pin(async move { outcomes.await.unwrap_or(Err(Failure::Unknown)) })
            }
            _ => {
                let sent = node.mesh.send_call(leader, Lane::Bulk, method::FORWARD, forward.encode(), Instant::now() + CALL_WAIT);
                Box::pin(async move {
                    let body = match sent {
                        Ok(reply) => reply.await.map_err(failure)?,
                        Err(error) => return Err(failure(error)),
                    };
                    remote::decode_outcomes(body).map_err(|_| Failure::Unknown)
                })
            }
        };
        Some(Box::pin(async move { (counters, answer.await) }))
    }

    /// For a stream without a replica here: the leader that a peer named, else one replica after the other; of those that are up.
    fn remote_leader(&self, node: &Inner, stream: &Stream) -> Option<u64> {
        let mut replicas = stream.placement();
        replicas.retain(|id| *id != node.id && node.is_up(*id));
        let tried = replicas.get(self.failures % replicas.len().max(1)).copied();
        self.hint.filter(|hint| replicas.contains(hint)).or(tried)
    }

    fn settle(&mut self, counters: Vec<u64>, outcomes: Vec<Outcome>) {
        self.failures = 0;
        for (counter, outcome) in counters.into_iter().zip(outcomes) {
            // One that expired meanwhile is not there any more.
            if let Some(pending) = self.pending.remove(&counter) {
                let _ = pending.done.send(published(outcome));
            }
        }
    }

    /// Everything that has no outcome will be sent again, in order, as a new attempt.
    fn start_again(&mut self, failed: &[u64], failure: Failure) {
        let unsure = failure == Failure::Unknown;
        for (counter, pending) in self.pending.range_mut(..self.unsent) {
            if pending.fate == Fate::InFlight {
                // After an unknown fate those behind it are as unknown; after a refusal they are provably refused too.
                let known = !unsure || *counter < failed.first().copied().unwrap_or(0);
                pending.fate = if known { Fate::Waiting } else { Fate::Unsure };
            }
        }
        if failure == Failure::DiskFull {
            // Only what was sent: what came meanwhile asks for itself.
            let refused = self.pending.extract_if(..self.unsent, |_, pending| pending.fate == Fate::Waiting);
            refused.for_each(|(_, pending)| drop(pending.done.send(Err(Error::DiskFull))));
        }
        self.hint = if let Failure::NotLeader(leader) = failure { leader } else { None };
        self.failures += 1;
        self.attempt += 1;
        (self.after, self.unsent) = (0, 0);
    }

    /// Nobody can lead the stream as things are: what is provably in no log does not wait for it.
    fn give_up(&mut self, why: &Error) {
        let waiting = self.pending.extract_if(.., |_, pending| pending.fate == Fate::Waiting);
        waiting.for_each(|(_, pending)| drop(pending.done.send(Err(why.clone()))));
    }

    /// Answers what ran out of time; gives the next deadline.
    fn expire(&mut self) -> Instant {
        let now = Instant::now();
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.deadline <= now) {
            let error = if pending.fate == Fate::Waiting { Error::NoLeader } else { Error::OutcomeUnknown };
            let _ = pending.done.send(Err(error));
        }
        self.pending.values().map(|pending| pending.deadline).min().unwrap_or_else(far)
    }
}

/// Later than any deadline.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

fn failure(error: CallError) -> Failure {
    match error {
        CallError::NotSent(_) => Failure::NotAccepted,
        CallError::Lost | CallError::Timeout => Failure::Unknown,
        CallError::Refused { code: refusal::NOT_LEADER, message } => Failure::NotLeader(message.parse().ok()),
        CallError::Refused { code: refusal::UNKNOWN, .. } => Failure::Unknown,
        CallError::Refused { code: refusal::DISK_FULL, .. } => Failure::DiskFull,
        CallError::Refused { code, .. } if code >= code::MESH_FIRST => Failure::Unknown,
        CallError::Refused { .. } => Failure::NotAccepted,
    }
}

fn published(outcome: Outcome) -> Result<Published> {
    match outcome {
        Outcome::Published { first_seq, last_seq, count, duplicates, time } => {
            Ok(Published { first_seq, last_seq, count, duplicates, time })
        }
        Outcome::Rejected(reject) => Err(rejected(reject)),
        Outcome::Trimmed { .. } => Err(Error::Internal("a publish was answered as a trim".into())),
    }
}

pub fn rejected(reject: Reject) -> Error {
    match reject {
        Reject::Expectation { last_seq } => Error::ExpectationFailed { last_seq },
        Reject::Full { limit, bytes } => Error::StreamFull { limit, unit: if bytes { "bytes" } else { "events" } },
        Reject::DedupFull => Error::DedupFull { limit: limits::DEDUP_IDS_MAX as u64 },
        Reject::Stale => Error::OutcomeUnknown,
        Reject::TombstonesFull => Error::LimitReached(format!(
            "a stream remembers at most {} subject purges at a time: purge by seq, or let retention pass the older ones",
            limits::TOMBSTONES_MAX
        )),
    }
}
