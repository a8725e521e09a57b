//! Reading: a cursor over one stream that takes the shared tail, or bounded chunks of the log, or asks a node that has a replica.

use super::error::{Error, Result};
use super::remote::{ReadChunk, Start, Step, method};
use super::scan::first_since;
use super::step::{Ahead, Taken, Verdict, read_log};
use super::stream::{Attendance, Local, Stream};
use super::types::{Chunk, Delivery, From, Item, Take};
use super::{Inner, Node};
use crate::cluster::mesh::Lane;
use crate::core::machine::Place;
use crate::core::{StreamName, SubjectFilter, Time, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest wait for a replica here to open, or for a leader to say what was acknowledged.
const BARRIER_WAIT: Duration = Duration::from_secs(10);
/// Longest such wait where it only makes a start more precise.
const START_WAIT: Duration = Duration::from_secs(1);
/// Longest step that another node waits for us.
const REMOTE_WAIT: Duration = Duration::from_secs(5);

/// A cursor over one stream. Thousands wait for the next event, so what a step seldom needs is boxed. Between two steps it holds at most `limits::READ_AHEAD_BYTES_MAX` of the log.
pub struct Reader {
    node: Arc<Inner>,
    stream: Arc<Stream>,
    filter: Option<SubjectFilter>,
    start: Start,
    /// The entry that holds the cursor's event, and that entry's first seq: where the last step through the log stopped.
    position: Option<Place>,
    /// What the last step through the log read and did not take.
    ahead: Option<Ahead>,
    /// Replicas elsewhere that did not answer, in a row.
    failures: usize,
    _attends: Attendance,
}

impl Node {
    /// One event, if it was acknowledged to anybody.
    pub async fn get_event(&self, stream: &StreamName, seq: u64) -> Result<Arc<Delivery>> {
        let mut reader = Reader::new(&self.inner, self.inner.find_stream(stream).await?, From::Seq(seq).into(), None);
        let chunk = reader.next(Take { events: 1, wait: Duration::ZERO }).await?;
        match chunk.items.first() {
            Some(Item::Event(delivery)) if delivery.event.seq == seq => Ok(delivery.clone()),
            Some(Item::Gap { to, .. }) => Err(Error::EventGone { seq, first_seq: to + 1 }),
            Some(Item::Event(delivery)) => Err(Error::EventGone { seq, first_seq: delivery.event.seq }),
            None => Err(Error::EventNotFound { seq, last_seq: chunk.last_seq }),
        }
    }

    /// A reader with a cursor of its own. A seq further on than the next event belongs to another stream, or to another life of this
    /// one: [`Error::EventNotFound`], better said than waited for.
    pub async fn reader(&self, stream: &StreamName, from: From, filter: Option<SubjectFilter>) -> Result<Reader> {
        let mut reader = Reader::new(&self.inner, self.inner.find_stream(stream).await?, from.into(), filter);
        reader.resolve().await?;
        Ok(reader)
    }
}

impl std::convert::From<From> for Start {
    fn from(from: From) -> Start {
        match from {
            From::Seq(seq) => Start::Seq(seq.max(1)),
            From::Earliest => Start::Earliest,
            From::Latest => Start::Latest,
            From::New => Start::New,
            From::Time(time) => Start::Time(time),
        }
    }
}

impl Reader {
    fn new(node: &Arc<Inner>, stream: Arc<Stream>, start: Start, filter: Option<SubjectFilter>) -> Reader {
        let _attends = stream.attend();
        Reader { node: node.clone(), stream, filter, start, position: None, ahead: None, failures: 0, _attends }
    }

    /// When the stream was created: another time than before means that it was deleted and made anew.
    pub fn stream_created(&self) -> Time {
        self.stream.record().created
    }

    /// The first seq that the next step may bring.
    pub fn cursor(&self) -> u64 {
        match self.start {
            Start::Seq(seq) => seq,
            _ => 1,
        }
    }

    /// The next items in order: at the tail shared with every other reader, further back read from the log. Empty only after
    /// `take.wait`, or when the node begins to leave. Cancel safe: a dropped call has not moved the cursor past an item.
    pub async fn next(&mut self, take: Take) -> Result<Chunk> {
        let until = Until::of(take);
        loop {
            let step = match self.local().await? {
                Some(local) => {
                    let step = self.next_local(&local, take.events, until).await;
                    match step {
                        step if !self.went_away(&local) => step,
                        // What a replica said that is out by now is not to be relied on: it may have been emptied meanwhile.
                        step => match (step, self.gone()) {
                            (_, None) => continue,
                            (Ok(step), Some(_)) if !step.items.is_empty() => Ok(step),
                            (_, Some(gone)) => Err(gone),
                        },
                    }
                }
                None => Box::pin(self.next_remote(take.events, until)).await,
            };
            let step = match step {
                Ok(step) => step,
                Err(error) => return Err(Box::pin(self.node.explain(self.stream.group, error)).await),
            };
            self.start = Start::Seq(step.next);
            let events = step.items.iter().filter(|item| matches!(item, Item::Event(_))).count();
            self.node.metrics.read_events.inc_by(events as u64);
            return Ok(Chunk { items: step.items, next: step.next, last_seq: step.state.last_seq });
        }
    }

    /// Whether the replica that was read from is another now, or none.
    fn went_away(&self, local: &Local) -> bool {
        self.node.is_out(self.stream.group) || !self.stream.local().is_some_and(|now| now.group.is(&local.group))
    }

    /// Begins with everything that anybody was told before, purges included, and turns a start that moves with the stream into a seq.
    async fn resolve(&mut self) -> Result<()> {
        loop {
            let local = self.local().await?;
            if let Some(local) = &local {
                // Without a leader the beginning is as new as this replica.
                let _ = timeout(START_WAIT, self.node.catch_up(&local.group, Instant::now() + START_WAIT)).await;
            }
            let seq = match (self.start, &local) {
                (Start::Seq(seq), _) => Ok(seq),
                (_, Some(local)) => self.resolve_local(local).await,
                (_, None) => self.ask(Take { events: 0, wait: Duration::ZERO }, true).await.map(|step| step.next),
            };
            if local.is_some_and(|local| self.went_away(&local)) {
                continue;
            }
            match seq {
                Ok(seq) => self.start = Start::Seq(seq),
                Err(error) => return Err(self.node.explain(self.stream.group, error).await),
            }
            return self.refuse_beyond_the_end().await;
        }
    }

    /// Readers do not come back after an error: while nobody knows the end, it is not asked about.
    async fn refuse_beyond_the_end(&self) -> Result<()> {
        let seq = self.cursor();
        let is_near = |last_seq: u64| seq <= last_seq.saturating_add(1);
        if seq == 1 || self.stream.local().is_some_and(|local| is_near(local.replica.current().last_seq)) {
            return Ok(());
        }
        let mut scout = Reader::new(&self.node, self.stream.clone(), Start::Seq(seq), None);
        match timeout(START_WAIT, Box::pin(scout.next(Take { events: 1, wait: Duration::ZERO }))).await {
            Ok(Ok(chunk)) if !is_near(chunk.last_seq) => Err(Error::EventNotFound { seq, last_seq: chunk.last_seq }),
            _ => Ok(()),
        }
    }

    async fn resolve_local(&mut self, local: &Local) -> Result<u64> {
        let state = local.replica.current();
        match self.start {
            Start::Seq(seq) => Ok(seq),
            Start::Earliest => Ok(state.first_seq),
            Start::Latest => Ok(state.last_seq.max(state.first_seq).max(1)),
            Start::New => Ok(state.last_seq + 1),
            Start::Time(time) => first_since(local, time).await,
        }
    }

    /// The replica here, waiting for it to open where the catalog says that it belongs here.
    async fn local(&self) -> Result<Option<Local>> {
        if let Some(damage) = self.node.is_lost(&self.stream) {
            return Err(self.gone().unwrap_or(damage));
        }
        if self.node.is_out(self.stream.group) {
            return Ok(None);
        }
        if let Some(local) = self.stream.local() {
            return Ok(Some(local));
        }
        Box::pin(self.local_opened()).await
    }

    async fn local_opened(&self) -> Result<Option<Local>> {
        if let Some(local) = self.node.opened(&self.stream).await {
            return Ok(Some(local));
        }
        if !self.stream.is_held_by(self.node.id) {
            return Ok(None);
        }
        let mut locals = self.stream.locals();
        let opened = locals.wait_for(Option::is_some);
        let mut fences = self.node.store.fences();
        let fenced = fences.wait_for(|fences| fences.of(self.stream.group).is_some());
        tokio::select! {
            opened = timeout(BARRIER_WAIT, opened) => match opened {
                Ok(Ok(local)) => Ok(local.clone()),
                _ => Err(self.gone().unwrap_or(Error::NoLeader)),
            },
            _ = fenced => Ok(None),
        }
    }

    /// The error that a reader gets when its stream was deleted.
    fn gone(&self) -> Option<Error> {
        let same = self.node.directory.stream(&self.stream.name).is_some_and(|record| record.group == self.stream.group);
        (!same).then(|| Error::StreamNotFound(self.stream.name.clone()))
    }

    /// Waits for one thing only, the replica's state: whoever closes the replica, or has the node leave, nudges it.
    async fn next_local(&mut self, local: &Local, events: usize, mut until: Until) -> Result<Step> {
        if !matches!(self.start, Start::Seq(_)) {
            self.start = Start::Seq(Box::pin(self.resolve_local(local)).await?);
        }
        let mut states = local.replica.state();
        let leaving = *self.node.leaving.borrow();
        loop {
            states.borrow_and_update();
            let step = self.step(local, events).await?;
            if !step.items.is_empty() || events == 0 {
                return Ok(step);
            }
            if step.next <= step.state.last_seq {
                // The filter took nothing of this chunk.
                self.start = Start::Seq(step.next);
                tokio::task::yield_now().await;
                continue;
            }
            if std::mem::take(&mut until.barrier) {
                Box::pin(self.catch_up(local)).await?;
                continue;
            }
            if until.is_over() || self.went_away(local) || *self.node.leaving.borrow() != leaving {
                return Ok(step);
            }
            let changed = states.changed();
            match until.deadline {
                Some(deadline) => drop(timeout_at(deadline, changed).await),
                None => drop(changed.await),
            }
        }
    }

    /// Waits until the replica here has everything that was acknowledged, or went away.
    async fn catch_up(&self, local: &Local) -> Result<()> {
        let mut locals = self.stream.locals();
        tokio::select! {
            biased;
            done = self.node.catch_up(&local.group, Instant::now() + BARRIER_WAIT) => done,
            _ = locals.wait_for(|now| !now.as_ref().is_some_and(|now| now.group.is(&local.group))) => Ok(()),
        }
    }

    /// What is there from the cursor on, without waiting: possibly nothing.
    async fn step(&mut self, local: &Local, events: usize) -> Result<Step> {
        let state = local.replica.current();
        let cursor = self.cursor();
        let events = events.min(limits::CHUNK_EVENTS_MAX);
        if cursor < state.first_seq {
            let gap = Item::Gap { from: cursor, to: state.first_seq - 1 };
            return Ok(Step { items: vec![gap], next: state.first_seq, state });
        }
        if cursor > state.last_seq || events == 0 {
            return Ok(Step { items: Vec::new(), next: cursor, state });
        }
        let mut taken = Taken { filter: self.filter.as_ref(), items: Vec::new(), next: cursor, events, bytes: limits::CHUNK_BYTES_MAX };
        match local.replica.tail(cursor, limits::CHUNK_EVENTS_MAX) {
            Some(tail) => {
                let machine = local.replica.machine();
                for delivery in tail {
                    match taken.verdict(&machine, &delivery.event) {
                        Verdict::Full => break,
                        verdict => taken.count(verdict, delivery.event.seq, || delivery.clone()),
                    }
                }
                (self.position, self.ahead) = (None, None);
            }
            None => {
                // Taken out: a dropped call must not have moved it.
                let ahead = self.ahead.take().filter(|ahead| ahead.goes_on(local, cursor));
                (self.position, self.ahead) = Box::pin(read_log(local, &mut taken, self.position, ahead)).await?;
            }
        }
        let Taken { items, next, .. } = taken;
        Ok(Step { items, next, state })
    }

    async fn next_remote(&mut self, events: usize, until: Until) -> Result<Step> {
        loop {
            let step = self.ask(Take { events, wait: until.left(REMOTE_WAIT) }, until.barrier).await?;
            if !step.items.is_empty() || until.is_over() || *self.node.leaving.borrow() {
                return Ok(step);
            }
            self.start = Start::Seq(step.next);
        }
    }

    /// One step at a node that has a replica; waits there for [`REMOTE_WAIT`] at most.
    async fn ask(&mut self, take: Take, barrier: bool) -> Result<Step> {
        let give_up = Instant::now() + BARRIER_WAIT;
        loop {
            if let Some(gone) = self.gone() {
                return Err(gone);
            }
            let alive = self.node.alive();
            let placement = self.stream.placement();
            let holders: Vec<u64> = placement.into_iter().filter(|id| alive.contains(id) && *id != self.node.id).collect();
            if let Some(holder) = holders.get(self.failures % holders.len().max(1)) {
                let body = ReadChunk {
                    group: self.stream.group,
                    from: self.start,
                    filter: self.filter.clone(),
                    events: take.events as u64,
                    wait_ms: take.wait.as_millis() as u64,
                    barrier,
                };
                let deadline = Instant::now() + take.wait + BARRIER_WAIT;
                if let Ok(answer) = self.node.mesh.call(*holder, Lane::Bulk, method::READ_CHUNK, body.encode(), deadline).await {
                    return Ok(Step::decode(answer)?);
                }
            }
            self.failures += 1;
            if Instant::now() >= give_up {
                return Err(Error::NoLeader);
            }
            let mut changes = self.node.directory.changes();
            let _ = timeout(Duration::from_millis(50), changes.changed()).await;
        }
    }
}

/// How long a step waits for something to come.
#[derive(Clone, Copy)]
struct Until {
    /// `None`: for as long as it takes.
    deadline: Option<Instant>,
    /// Whether it has to find everything that was acknowledged before.
    barrier: bool,
}

impl Until {
    fn of(take: Take) -> Until {
        Until { deadline: Instant::now().checked_add(take.wait), barrier: take.wait.is_zero() }
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn left(&self, most: Duration) -> Duration {
        self.deadline.map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()).min(most))
    }
}

impl Inner {
    /// A step for a node without a replica.
    pub async fn serve_chunk(self: &Arc<Inner>, chunk: ReadChunk) -> Result<Step> {
        let stream = self.stream_of_group(chunk.group).ok_or(Error::NoLeader)?;
        let local = self.awake(&stream).await.filter(|_| !self.is_out(chunk.group)).ok_or(Error::NoLeader)?;
        let take = Take { events: chunk.events as usize, wait: Duration::from_millis(chunk.wait_ms).min(REMOTE_WAIT) };
        let until = Until { barrier: chunk.barrier, ..Until::of(take) };
        let mut reader = Reader::new(self, stream, chunk.from, chunk.filter);
        if chunk.barrier && chunk.from != Start::Earliest {
            self.catch_up(&local.group, Instant::now() + BARRIER_WAIT).await?;
        }
        let step = reader.next_local(&local, take.events, until).await;
        // Another replica knows better than one that went away under this.
        if reader.went_away(&local) { Err(Error::NoLeader) } else { step }
    }
}
