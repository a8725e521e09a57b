//! Changing the catalog from any node, and being sure to see its newest state.

use super::Inner;
use super::error::{Error, Result};
use super::remote::{self, method};
use crate::cluster::mesh::Lane;
use crate::cluster::{Group, Leadership, Response};
use crate::core::catalog::{Command, Outcome, Reject};
use crate::core::codec::{Corrupt, Reader, Writer};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest change of the catalog, an election included.
pub const CATALOG_WAIT: Duration = Duration::from_secs(10);
/// Pause before asking again when nothing else tells that it is worth it.
const PAUSE: Duration = Duration::from_millis(25);

impl Inner {
    /// Proposes to the catalog, wherever it is led; the change is folded here when this returns.
    ///
    /// Every command of the catalog may be repeated: a change whose fate got lost is proposed again.
    pub async fn change_catalog(&self, command: &Command) -> Result<Outcome> {
        let command = command.encode();
        let deadline = Instant::now() + CATALOG_WAIT;
        loop {
            let seen = self.catalog.current();
            let done = match seen.leader {
                Some(leader) if leader == self.id => self.propose_to_catalog(command.clone()).await,
                Some(leader) => self.ask_catalog_leader(leader, command.clone(), deadline).await,
                None => None,
            };
            if let Some(outcome) = done {
                return Ok(outcome);
            }
            if Instant::now() >= deadline {
                return Err(Error::NoQuorum("the catalog has no leader".into()));
            }
            self.catalog_changed_within(seen, PAUSE).await;
        }
    }

    /// Waits for another leadership of the catalog than `seen`, or for its replica here, at most so long.
    async fn catalog_changed_within(&self, seen: Leadership, pause: Duration) {
        let mut seat = self.catalog.changes();
        let group = seat.borrow_and_update().clone();
        let changed = async {
            match group {
                Some(group) => {
                    let mut leadership = group.leadership();
                    if leadership.wait_for(|now| *now != seen).await.is_err() {
                        let _ = seat.changed().await;
                    }
                }
                None => drop(seat.changed().await),
            }
        };
        let _ = tokio::time::timeout(pause, changed).await;
    }

    /// At the catalog's leader. `None`: not accepted, or not known to be.
    pub async fn propose_to_catalog(&self, command: Bytes) -> Option<Outcome> {
        let catalog = self.catalog.get()?;
        let leader = catalog.current().mine?;
        catalog.confirm_leadership().await.ok()?;
        let done = catalog.propose(leader, command).await.ok()?;
        match done.await.ok()? {
            Response::Catalog(outcome) => Some(outcome),
            _ => None,
        }
    }

    async fn ask_catalog_leader(&self, leader: u64, command: Bytes, deadline: Instant) -> Option<Outcome> {
        let answer = self.mesh.call(leader, Lane::Bulk, method::PROPOSE_CATALOG, command, deadline).await.ok()?;
        let (outcome, upto) = decode_answer(answer).ok()?;
        let catalog = self.catalog.get()?;
        let mut failed = self.failed.subscribe();
        tokio::select! {
            applied = timeout_at(deadline, catalog.wait_applied(upto)) => applied.ok()?,
            // A node that removed itself hears nothing more of the catalog; what the leader said holds all the same.
            _ = failed.wait_for(Option::is_some) => (),
        }
        Some(outcome)
    }

    /// Waits until everything that anybody was told about the catalog is folded here.
    pub async fn catch_up_catalog(&self) -> Result<()> {
        let deadline = Instant::now() + CATALOG_WAIT;
        let mut seat = self.catalog.changes();
        let group = timeout_at(deadline, seat.wait_for(Option::is_some)).await;
        let Some(group) = group.ok().and_then(|seat| seat.ok()?.clone()) else {
            return Err(Error::NoQuorum("this node's catalog is being rebuilt from the others".into()));
        };
        self.catch_up(&group, deadline).await
    }

    /// Waits until everything that was acknowledged to anybody before this call is applied to the group's replica here.
    pub async fn catch_up(&self, group: &Group, deadline: Instant) -> Result<()> {
        loop {
            let seen = group.current();
            let upto = match seen.leader {
                Some(leader) if leader == self.id => group.confirm_leadership().await.ok(),
                Some(leader) => self.ask_read_index(leader, group.id(), deadline).await,
                None => None,
            };
            if let Some(upto) = upto {
                return timeout_at(deadline, group.wait_applied(upto)).await.map_err(|_| Error::NoLeader);
            }
            if Instant::now() >= deadline {
                return Err(Error::NoLeader);
            }
            group.changed_within(seen, PAUSE).await;
        }
    }

    pub async fn ask_read_index(&self, leader: u64, group: u64, deadline: Instant) -> Option<u64> {
        let body = remote::encode_number(group);
        let deadline = deadline.min(Instant::now() + Duration::from_secs(2));
        let answer = self.mesh.call(leader, Lane::Bulk, method::READ_INDEX, body, deadline).await.ok()?;
        remote::decode_number(answer).ok()
    }
}

/// What a rejected change means to whoever asked for it.
pub fn rejected(reject: Reject, what: &str) -> Error {
    match reject {
        Reject::NameTaken => Error::Conflict(format!("there is a node named {what} already")),
        Reject::NoSuchNode => Error::NodeNotFound(what.into()),
        Reject::TooManyStreams => Error::LimitReached(format!("a cluster has at most {} streams", crate::core::limits::STREAMS_MAX)),
        Reject::TooManyNodes => Error::LimitReached(format!("a cluster has at most {} nodes", crate::core::limits::NODES_MAX)),
        Reject::PlacementChanged => Error::Conflict("the placement was changed meanwhile; try again".into()),
        other => Error::Conflict(format!("{what}: {other:?}")),
    }
}

/// The catalog leader's answer: what came of it, and the applied index (plus one) that includes it.
pub fn encode_answer(outcome: &Outcome, upto: u64) -> Bytes {
    let mut w = remote::writer(24);
    w.u64(upto);
    put_outcome(&mut w, outcome);
    w.finish()
}

fn decode_answer(bytes: Bytes) -> std::result::Result<(Outcome, u64), Corrupt> {
    let mut r = remote::reader("a catalog outcome", bytes)?;
    let upto = r.u64()?;
    Ok((get_outcome(&mut r)?, upto))
}

const REJECTS: [Reject; 8] = [
    Reject::NameTaken,
    Reject::NoSuchNode,
    Reject::NoSuchStream,
    Reject::TooManyStreams,
    Reject::TooManyNodes,
    Reject::PlacementChanged,
    Reject::AlreadyFounded,
    Reject::BadPlacement,
];

fn put_outcome(w: &mut Writer, outcome: &Outcome) {
    let (kind, number) = match outcome {
        Outcome::Done => (0, 0),
        Outcome::NodeAdded { id } => (1, *id),
        Outcome::StreamCreated { group } => (2, *group),
        Outcome::StreamExists { group } => (3, *group),
        Outcome::Rejected(reject) => (4, REJECTS.iter().position(|known| known == reject).unwrap_or_default() as u64),
    };
    w.u8(kind);
    w.varint(number);
}

fn get_outcome(r: &mut Reader) -> std::result::Result<Outcome, Corrupt> {
    let (kind, number) = (r.u8()?, r.varint()?);
    match kind {
        0 => Ok(Outcome::Done),
        1 => Ok(Outcome::NodeAdded { id: number }),
        2 => Ok(Outcome::StreamCreated { group: number }),
        3 => Ok(Outcome::StreamExists { group: number }),
        4 => REJECTS.get(number as usize).cloned().map(Outcome::Rejected).ok_or_else(|| r.corrupt("a reject is not known to this build")),
        _ => Err(r.corrupt("an outcome is not known to this build")),
    }
}
