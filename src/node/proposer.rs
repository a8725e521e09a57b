//! At a stream's leader: turns everything that waits for the stream into one entry, again and again, a few entries in flight.
//!
//! No timer delays anything: what arrives while the last entries are on their way to disk is the next batch.

use super::Inner;
use super::clock::Clock;
use super::disk::Disk;
use super::metrics::Stages;
use super::remote::{self, Forward};
use super::stream::Stream;
use crate::cluster::{
    Group, LeaderId, Leadership, NotProposed, Response,
    mesh::{Mesh, Reply},
};
use crate::core::command::{Command, Publish};
use crate::core::machine::Outcome;
use crate::core::{Discard, Time, limits, pack};
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Entries of one stream that are on their way at a time: one being committed, one being appended, and room for a pipeline.
const ENTRIES_IN_FLIGHT: usize = 4;
/// Forwarded calls that may wait for the proposer; beyond it they are refused and come again.
const CALLS_WAITING: usize = 1_024;

/// The first pauses of a leader before it tries again to confirm that it leads, and all later ones.
const CONFIRM_PAUSES_MS: [u64; 6] = [1, 1, 2, 2, 5, 10];
const CONFIRM_PAUSE_MS: u64 = 20;
/// What waits for a leader that cannot confirm itself for so long is refused: it has no quorum.
const CONFIRM_PATIENCE: Duration = Duration::from_millis(100);

/// Why a call has no outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Provably not in any log. This is the leader, if known.
    NotLeader(Option<u64>),
    /// Provably not in any log.
    NotAccepted,
    /// Provably not in any log: too few of the stream's replicas have room on their disks.
    DiskFull,
    /// It may be, or become, committed.
    Unknown,
}

type Outcomes = Result<Vec<Outcome>, Failure>;

/// Where the outcomes of a call go.
pub enum Sink {
    Local(oneshot::Sender<Outcomes>),
    Peer(Reply),
}

impl Sink {
    fn send(self, outcomes: Outcomes) {
        match (self, outcomes) {
            // The sender is gone when its node stops: nobody waits.
            (Sink::Local(sender), outcomes) => drop(sender.send(outcomes)),
            (Sink::Peer(reply), Ok(outcomes)) => reply.ok(remote::encode_outcomes(&outcomes)),
            (Sink::Peer(reply), Err(failure)) => match failure {
                Failure::NotLeader(leader) => {
                    let hint = leader.map(|id| id.to_string()).unwrap_or_default();
                    reply.refuse(remote::refusal::NOT_LEADER, &hint);
                }
                Failure::NotAccepted => reply.refuse(remote::refusal::NOT_ACCEPTED, "not accepted"),
                Failure::DiskFull => reply.refuse(remote::refusal::DISK_FULL, "the replicas' disks are nearly full"),
                Failure::Unknown => reply.refuse(remote::refusal::UNKNOWN, "the leader changed"),
            },
        }
    }
}

/// One forwarded call that waits for its place in an entry.
struct Call {
    origin: u64,
    forward: Forward,
    sink: Sink,
    since: Instant,
}

/// The newest attempt of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gate {
    epoch: u64,
    attempt: u64,
    /// The last counter that was let in.
    last: u64,
    /// Something of the attempt was refused.
    refused: bool,
}

/// - Of one attempt nothing is proposed after something was refused, and nothing out of order or with something missing before it.
/// - Nothing of an attempt is proposed after something of a later attempt of the same origin was let in.
#[derive(Default)]
struct Gates(Mutex<HashMap<u64, Gate>>);

impl Gates {
    /// Whether the call continues its origin's newest attempt, or begins a newer one.
    fn let_in(&self, origin: u64, forward: &Forward) -> bool {
        let mut gates = self.0.lock().expect("nobody panics while holding it");
        let new = Gate { epoch: forward.epoch, attempt: forward.attempt, last: 0, refused: false };
        let gate = gates.entry(origin).or_insert(new);
        if (new.epoch, new.attempt) > (gate.epoch, gate.attempt) {
            *gate = new;
        }
        if (new.epoch, new.attempt) < (gate.epoch, gate.attempt) || gate.refused {
            return false;
        }
        gate.refused = gate.last != forward.after;
        gate.last = forward.last;
        !gate.refused
    }

    /// Whether nothing of the call's attempt was refused, and no newer attempt began, since it was let in.
    fn still_open(&self, origin: u64, forward: &Forward) -> bool {
        let gates = self.0.lock().expect("nobody panics while holding it");
        gates.get(&origin).is_some_and(|gate| (gate.epoch, gate.attempt, gate.refused) == (forward.epoch, forward.attempt, false))
    }

    fn refuse(&self, origin: u64, forward: &Forward) {
        let mut gates = self.0.lock().expect("nobody panics while holding it");
        if let Some(gate) = gates.get_mut(&origin)
            && (gate.epoch, gate.attempt) == (forward.epoch, forward.attempt)
        {
            gate.refused = true;
        }
    }
}

/// A handle to the proposer of one replica; clones are the same one.
#[derive(Clone)]
pub struct Proposer {
    calls: mpsc::Sender<Call>,
    gates: Arc<Gates>,
}

impl Proposer {
    /// The proposer lives until its last handle is dropped.
    pub fn start(node: &Inner, stream: &Arc<Stream>, group: Group, state: watch::Receiver<crate::core::machine::State>) -> Proposer {
        let (calls, waiting) = mpsc::channel(CALLS_WAITING);
        let gates = Arc::new(Gates::default());
        let task = Task {
            stream: Arc::downgrade(stream),
            leadership: group.leadership(),
            group,
            waiting,
            gates: gates.clone(),
            state,
            clock: node.clock.clone(),
            disk: node.disk.clone(),
            mesh: node.mesh.clone(),
            stages: node.metrics.publish_stages.clone(),
        };
        node.runtime.spawn(task.run());
        Proposer { calls, gates }
    }

    /// Takes a call, in the order of these calls, or refuses it at once.
    pub fn submit(&self, origin: u64, forward: Forward, sink: Sink) {
        if !self.gates.let_in(origin, &forward) {
            return sink.send(Err(Failure::NotAccepted));
        }
        if let Err(error) = self.calls.try_send(Call { origin, forward, sink, since: Instant::now() }) {
            let call = error.into_inner();
            self.gates.refuse(origin, &call.forward);
            call.sink.send(Err(Failure::NotAccepted));
        }
    }
}

struct Task {
    stream: Weak<Stream>,
    group: Group,
    leadership: watch::Receiver<Leadership>,
    waiting: mpsc::Receiver<Call>,
    gates: Arc<Gates>,
    state: watch::Receiver<crate::core::machine::State>,
    clock: Clock,
    disk: Arc<Disk>,
    mesh: Mesh,
    stages: Stages,
}

type Proposed = BoxFuture<'static, (Vec<Call>, Result<Response, NotProposed>)>;

impl Task {
    async fn run(mut self) {
        loop {
            let now = *self.leadership.borrow_and_update();
            let alive = match now.mine {
                Some(leader) => self.lead(leader).await,
                None => self.refuse_until_change(now).await,
            };
            if !alive {
                return;
            }
        }
    }

    /// Answers with the leader's name until that changes. False: nobody can call any more.
    async fn refuse_until_change(&mut self, now: Leadership) -> bool {
        loop {
            tokio::select! {
                changed = self.leadership.changed() => return changed.is_ok(),
                call = self.waiting.recv() => match call {
                    Some(call) => self.refuse(call, Failure::NotLeader(now.leader)),
                    None => return false,
                },
            }
        }
    }

    /// Proposes as this leader until the leadership changes. False: nobody can call any more.
    async fn lead(&mut self, leader: LeaderId) -> bool {
        let mut time = match self.confirm(leader).await {
            Some(time) => time,
            None => return true,
        };
        let mut proposed: FuturesOrdered<Proposed> = FuturesOrdered::new();
        let mut leading = true;
        let mut calling = true;
        while leading && calling {
            tokio::select! {
                biased;
                Some((calls, result)) = proposed.next(), if !proposed.is_empty() => {
                    if !self.settle(calls, result) {
                        leading = self.confirm(leader).await.is_some();
                    }
                }
                changed = self.leadership.changed() => {
                    leading = changed.is_ok() && self.leadership.borrow_and_update().mine == Some(leader);
                }
                call = self.waiting.recv(), if proposed.len() < ENTRIES_IN_FLIGHT => match call {
                    Some(call) => {
                        let calls = self.batch(call);
                        proposed.push_back(self.propose(leader, calls, &mut time).await);
                    }
                    None => calling = false,
                },
            }
        }
        while let Some((calls, result)) = proposed.next().await {
            self.settle(calls, result);
        }
        calling
    }

    /// Makes sure that this node leads and has applied everything of the leaders before; gives the time of the newest event.
    async fn confirm(&mut self, leader: LeaderId) -> Option<Time> {
        let group = self.group.clone();
        let mut pauses = CONFIRM_PAUSES_MS.into_iter().chain(std::iter::repeat(CONFIRM_PAUSE_MS));
        let since = Instant::now();
        loop {
            tokio::select! {
                confirmed = group.confirm_leadership() => match confirmed {
                    Ok(upto) => {
                        group.wait_applied(upto).await;
                        return Some(self.state.borrow().last_time);
                    }
                    // Its first entry is not committed yet, which takes a round trip; or there is no quorum, or another leader already.
                    Err(_) => {
                        if since.elapsed() >= CONFIRM_PATIENCE {
                            // Whoever called shall know that it is in no log, and look elsewhere.
                            while let Ok(call) = self.waiting.try_recv() {
                                self.refuse(call, Failure::NotAccepted);
                            }
                        }
                        let pause = Duration::from_millis(pauses.next().unwrap_or(CONFIRM_PAUSE_MS));
                        let pause = tokio::time::sleep(pause);
                        tokio::select! { _ = pause => (), _ = self.leadership.changed() => () }
                        if self.leadership.borrow_and_update().mine != Some(leader) {
                            return None;
                        }
                    }
                },
                changed = self.leadership.changed() => {
                    if changed.is_err() || self.leadership.borrow_and_update().mine != Some(leader) {
                        return None;
                    }
                }
            }
        }
    }

    /// The call and whatever waits behind it, within the bounds of one entry.
    fn batch(&mut self, first: Call) -> Vec<Call> {
        let size = |call: &Call| call.forward.requests.iter().map(Bytes::len).sum::<usize>();
        let (mut bytes, mut requests) = (size(&first), first.forward.requests.len());
        let mut calls = vec![first];
        while bytes < limits::ENTRY_BYTES_MAX / 2 && requests < limits::ENTRY_REQUESTS_MAX {
            let Ok(call) = self.waiting.try_recv() else { break };
            bytes += size(&call);
            requests += call.forward.requests.len();
            calls.push(call);
        }
        calls
    }

    async fn propose(&mut self, leader: LeaderId, mut calls: Vec<Call>, time: &mut Time) -> Proposed {
        // What a refusal has overtaken while it waited must not overtake the refused.
        for call in calls.extract_if(.., |call| !self.gates.still_open(call.origin, &call.forward)) {
            call.sink.send(Err(Failure::NotAccepted));
        }
        if calls.is_empty() {
            return Box::pin(async { (Vec::new(), Ok(Response::Stream(Vec::new()))) });
        }
        if let Some(failure) = self.stream.upgrade().and_then(|stream| self.disk.refusal(|| stream.placement())) {
            calls.drain(..).for_each(|call| self.refuse(call, failure));
            return Box::pin(async { (Vec::new(), Ok(Response::Stream(Vec::new()))) });
        }
        let began = Instant::now();
        calls.iter().for_each(|call| self.stages.queue.observe((began - call.since).as_secs_f64()));
        *time = self.clock.now().max(*time);
        let requests = calls.iter().flat_map(|call| call.forward.requests.iter().cloned()).collect();
        let Some(stream) = self.stream.upgrade() else { return Box::pin(async { (calls, Err(NotProposed::Refused)) }) };
        let settings = stream.settings();
        let bound = |bound: Option<u64>| bound.filter(|_| settings.discard == Discard::New);
        let publish = Publish {
            time: *time,
            dedup_window_ms: settings.dedup_window_ms,
            max_events: bound(settings.max_events),
            max_bytes: bound(settings.max_bytes),
            requests,
        };
        let command = Command::Publish(publish).encode();
        let command = if pack::is_candidate(&command) && self.all_unpack(&stream) { pack::pack(command) } else { command };
        match self.group.propose(leader, command).await {
            Ok(done) => {
                let commit = self.stages.commit.clone();
                Box::pin(async move {
                    let done = done.await;
                    if done.is_ok() {
                        commit.observe(began.elapsed().as_secs_f64());
                    }
                    (calls, done)
                })
            }
            Err(error) => {
                // Before the next entry is made, so that nothing overtakes what this one carried.
                calls.iter().for_each(|call| self.gates.refuse(call.origin, &call.forward));
                Box::pin(async move { (calls, Err(error)) })
            }
        }
    }

    /// Whether every replica can unpack a command: an older build would stumble over it.
    fn all_unpack(&self, stream: &Stream) -> bool {
        let knows = |node: &u64| self.mesh.knows_protocol(*node, pack::PEER_PROTOCOL);
        stream.record().placement.iter().all(knows) && self.group.voters().iter().all(knows)
    }

    /// Gives every call its outcomes. False: this leader was refused and must confirm itself.
    fn settle(&self, calls: Vec<Call>, result: Result<Response, NotProposed>) -> bool {
        let mut outcomes = match result {
            Ok(Response::Stream(outcomes)) => outcomes.into_iter(),
            Ok(_) => unreachable!("a stream's machine answers with a stream's outcomes"),
            Err(error) => {
                let failure = match error {
                    NotProposed::Refused => Failure::NotAccepted,
                    NotProposed::Unknown => Failure::Unknown,
                };
                calls.into_iter().for_each(|call| self.refuse(call, failure));
                return false;
            }
        };
        for call in calls {
            let count = call.forward.requests.len();
            call.sink.send(Ok(outcomes.by_ref().take(count).collect()));
        }
        true
    }

    fn refuse(&self, call: Call, failure: Failure) {
        self.gates.refuse(call.origin, &call.forward);
        call.sink.send(Err(failure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(epoch: u64, attempt: u64, after: u64, last: u64) -> Forward {
        Forward { group: 1, epoch, attempt, after, last, requests: Vec::new() }
    }

    #[test]
    fn after_a_refusal_only_a_later_attempt_is_let_in() {
        let gates = Gates::default();
        assert!(gates.let_in(1, &forward(1, 1, 0, 5)));
        gates.refuse(1, &forward(1, 1, 0, 5));
        assert!(!gates.let_in(1, &forward(1, 1, 5, 6)));
        assert!(gates.let_in(2, &forward(1, 1, 0, 1)), "another origin is not concerned");
        assert!(gates.let_in(1, &forward(1, 2, 0, 6)));
        gates.refuse(1, &forward(1, 1, 0, 5));
        assert!(gates.let_in(1, &forward(1, 2, 6, 7)), "a late refusal of an old attempt does not concern the new one");
        assert!(gates.still_open(1, &forward(1, 2, 6, 7)));
        assert!(!gates.still_open(1, &forward(1, 1, 0, 5)));
        assert!(gates.let_in(1, &forward(2, 1, 0, 1)), "a new boot counts from the start");
        assert!(!gates.let_in(1, &forward(1, 9, 0, 9)));
    }

    #[test]
    fn a_missing_call_closes_its_attempt() {
        let gates = Gates::default();
        assert!(gates.let_in(1, &forward(1, 1, 0, 5)));
        assert!(!gates.let_in(1, &forward(1, 1, 8, 9)));
        assert!(!gates.let_in(1, &forward(1, 1, 5, 8)), "what was missing comes too late");
        assert!(gates.let_in(1, &forward(1, 2, 0, 9)));
    }
}
