//! Removing events before their time, and what retention removes by itself: the leader decides, the log carries the decision.

use super::error::{Error, Result};
use super::forwarder::rejected;
use super::remote::{self, method, refusal};
use super::scan::{Scan, bytes_before, first_since};
use super::stream::{Local, Stream};
use super::types::{Purge, Purged};
use super::{Inner, Node};
use crate::cluster::Response;
use crate::cluster::mesh::{CallError, Lane};
use crate::core::command::Command;
use crate::core::machine::Outcome;
use crate::core::{Settings, StreamName, SubjectFilter, Time};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause before asking again when nothing else tells that it is worth it.
const PAUSE: Duration = Duration::from_millis(50);
const PURGE_WAIT: Duration = Duration::from_secs(30);

impl Node {
    pub async fn purge(&self, stream: &StreamName, purge: Purge) -> Result<Purged> {
        let stream = self.inner.find_stream(stream).await?;
        self.inner.purge(&stream, purge).await
    }
}

impl Inner {
    async fn purge(self: &Arc<Inner>, stream: &Arc<Stream>, purge: Purge) -> Result<Purged> {
        let deadline = Instant::now() + PURGE_WAIT;
        let mut tries = 0;
        loop {
            let seen = stream.current();
            let local = self.awake(stream).await;
            let known = local.as_ref().and_then(|local| local.group.current().leader);
            let placement = stream.placement();
            let leader = known.or_else(|| placement.get(tries % placement.len().max(1)).copied());
            let purged = match (&local, leader) {
                (Some(local), Some(leader)) if leader == self.id => purge_here(local, &purge).await,
                (_, Some(leader)) => self.ask_purge(stream, leader, &purge, deadline).await,
                _ => Err(Error::NoLeader),
            };
            match purged {
                Err(Error::NoLeader) if Instant::now() < deadline => {
                    tries += 1;
                    stream.changed_within(seen, PAUSE).await;
                }
                purged => return purged,
            }
        }
    }

    async fn ask_purge(&self, stream: &Stream, leader: u64, purge: &Purge, deadline: Instant) -> Result<Purged> {
        let body = remote::encode_purge(stream.group, purge);
        match self.mesh.call(leader, Lane::Bulk, method::PURGE, body, deadline).await {
            Ok(answer) => Ok(remote::decode_purged(answer)?),
            Err(CallError::Refused { code: refusal::REJECTED, message }) => Err(Error::LimitReached(message)),
            // Purging again what may be purged already changes nothing.
            Err(_) => Err(Error::NoLeader),
        }
    }
}

/// At the leader.
pub async fn purge_here(local: &Local, purge: &Purge) -> Result<Purged> {
    local.group.confirm_leadership().await.map_err(|_| Error::NoLeader)?;
    let state = local.replica.current();
    let outcome = match purge {
        Purge::BeforeSeq(seq) => trim(local, (*seq).min(state.last_seq + 1)).await?,
        Purge::Keep(keep) => trim(local, (state.last_seq + 1).saturating_sub(*keep)).await?,
        Purge::Subject(filter) if filter.as_str() == ">" => trim(local, state.last_seq + 1).await?,
        Purge::Subject(filter) => purge_subject(local, filter).await?,
    };
    let state = local.replica.current();
    match outcome {
        Some(Outcome::Trimmed { events, bytes }) => Ok(Purged { events, bytes, first_seq: state.first_seq, last_seq: state.last_seq }),
        Some(Outcome::Rejected(reject)) => Err(rejected(reject)),
        _ => Ok(Purged { events: 0, bytes: 0, first_seq: state.first_seq, last_seq: state.last_seq }),
    }
}

/// Removes every event before the seq; `None`: there is none.
async fn trim(local: &Local, before_seq: u64) -> Result<Option<Outcome>> {
    if before_seq <= local.replica.current().first_seq {
        return Ok(None);
    }
    let bytes_before = bytes_before(local, before_seq).await?;
    propose(local, Command::Trim { before_seq, bytes_before }).await.map(Some)
}

async fn purge_subject(local: &Local, filter: &SubjectFilter) -> Result<Option<Outcome>> {
    let state = local.replica.current();
    let before_seq = state.last_seq + 1;
    let (mut count, mut bytes) = (0, 0);
    let mut scan = Scan::new(local, state.first_seq, None);
    while let Some((_, events)) = scan.next(local).await? {
        let machine = local.replica.machine();
        let events = events.iter().filter(|event| event.seq >= state.first_seq && event.seq < before_seq);
        for event in events.filter(|event| filter.matches(event.subject.as_deref())) {
            if !machine.is_purged(event.seq, event.subject.as_deref()) {
                count += 1;
                bytes += event.bytes();
            }
        }
    }
    if count == 0 {
        return Ok(None);
    }
    propose(local, Command::PurgeSubject { filter: filter.clone(), before_seq, events: count, bytes }).await.map(Some)
}

async fn propose(local: &Local, command: Command) -> Result<Outcome> {
    let leader = local.group.current().mine.ok_or(Error::NoLeader)?;
    let done = local.group.propose(leader, command.encode()).await.map_err(|_| Error::NoLeader)?;
    match done.await.map_err(|_| Error::NoLeader)? {
        Response::Stream(outcomes) => outcomes.into_iter().next().ok_or_else(|| Error::Internal("a command had no outcome".into())),
        _ => Err(Error::Internal("a stream's command had another outcome".into())),
    }
}

/// At the leader: removes what the settings say is too old or too much.
pub async fn retain(local: &Local, settings: &Settings, now: Time) -> Result<()> {
    let state = local.replica.current();
    let mut before_seq = state.first_seq;
    if let Some(max_events) = settings.max_events {
        before_seq = before_seq.max((state.last_seq + 1).saturating_sub(max_events));
    }
    if let Some(max_bytes) = settings.max_bytes
        && state.bytes > max_bytes
    {
        before_seq = before_seq.max(fitting(local, state.first_seq, state.last_seq, max_bytes).await?);
    }
    if let Some(max_age_ms) = settings.max_age_ms
        && !state.is_empty()
    {
        let since = Time(now.0.saturating_sub_unsigned(max_age_ms.saturating_mul(1000)));
        before_seq = before_seq.max(first_since(local, since).await?);
    }
    trim(local, before_seq).await.map(drop)
}

/// The first seq from which on the events fit into so many bytes.
async fn fitting(local: &Local, first_seq: u64, last_seq: u64, max_bytes: u64) -> Result<u64> {
    let total = bytes_before(local, last_seq + 1).await?;
    let excess = total.saturating_sub(max_bytes);
    let mut scan = {
        let machine = local.replica.machine();
        let place = |seq: u64| machine.locate(seq).map_or(u64::MAX, |place| place.bytes);
        // The last seq whose mark does not lie beyond the excess: marks grow with the seqs.
        let (mut low, mut high) = (first_seq, last_seq);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if place(middle) <= excess { low = middle } else { high = middle - 1 }
        }
        let start = machine.locate(low);
        drop(machine);
        Scan::new(local, low, start)
    };
    let mut before = scan.place().map_or(0, |place| place.bytes);
    while let Some((_, events)) = scan.next(local).await? {
        for event in events {
            if before >= excess {
                return Ok(event.seq.max(first_seq));
            }
            before += event.bytes();
        }
    }
    Ok(last_seq + 1)
}
