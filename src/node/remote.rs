//! What nodes ask of each other beyond consensus, and its bytes. Every message starts with a version. `reading` has those of
//! readers, `sleeping` those about streams to which nothing happens.

mod reading;
mod sleeping;

pub use reading::{ReadChunk, Start, Step};
pub use sleeping::{Sleep, Wake, Woken};

use super::error::Error;
use super::types::{Purge, Purged, ReplicaState};
use crate::cluster::{CountedOut, LeaderId};
use crate::core::Time;
use crate::core::codec::{Corrupt, Reader, Writer};
use crate::core::machine::{Outcome, Reject, State};
use bytes::Bytes;

/// Method numbers of this room on the mesh; part of the peer protocol.
pub mod method {
    pub const JOIN: u16 = 100;
    pub const PROPOSE_CATALOG: u16 = 101;
    pub const FORWARD: u16 = 102;
    pub const READ_INDEX: u16 = 103;
    pub const READ_CHUNK: u16 = 104;
    pub const STREAM_STATUS: u16 = 105;
    pub const MOVE_LEADER: u16 = 106;
    pub const PURGE: u16 = 107;
    /// Of a group's leader: to take the asking node out of the group.
    pub const COUNT_OUT: u16 = 130;
    /// How a replica is.
    pub const REPLICA: u16 = 131;
    /// How many replicas are not whole.
    pub const HEALTH: u16 = 132;
    pub const DISK: u16 = 120;
    pub const COMPARE: u16 = 121;
    pub const REREAD: u16 = 122;
    /// Whether the asking node is a member still; one that was removed is refused as it always is.
    pub const MEMBERSHIP: u16 = 123;
    /// A leader asks a follower to close its replica: nothing happens to the stream.
    pub const SLEEP: u16 = 124;
    /// To open the replica of a stream, and to say how far it is.
    pub const WAKE: u16 = 125;
    /// The caller stops soon: nothing should be handed over to it. Older builds do not know it, which does no harm.
    pub const LEAVING: u16 = 108;
}

/// Refusal codes of this room on the mesh.
pub mod refusal {
    /// Not accepted: this node does not lead. The message is the leader's id, if known.
    pub const NOT_LEADER: u16 = 100;
    /// Not accepted for another reason; may be tried again.
    pub const NOT_ACCEPTED: u16 = 101;
    /// It may have been done.
    pub const UNKNOWN: u16 = 102;
    /// An answer that trying again will not change; the message says why.
    pub const REJECTED: u16 = 103;
    /// The asking node was removed from the cluster, for ever.
    pub const REMOVED: u16 = 120;
    /// Not accepted: too few of the stream's replicas have room on their disks.
    pub const DISK_FULL: u16 = 104;
}

const VERSION: u8 = 1;

pub fn writer(bytes: usize) -> Writer {
    writer_of(VERSION, bytes)
}

pub fn reader(what: &'static str, bytes: Bytes) -> Result<Reader, Corrupt> {
    Ok(reader_up_to(VERSION, what, bytes)?.1)
}

/// Of a message that has had other versions.
fn writer_of(version: u8, bytes: usize) -> Writer {
    let mut w = Writer::with_capacity(bytes + 1);
    w.u8(version);
    w
}

/// A message that may be of any version from the first to the newest; with its own.
fn reader_up_to(newest: u8, what: &'static str, bytes: Bytes) -> Result<(u8, Reader), Corrupt> {
    let mut r = Reader::new(what, bytes);
    match r.u8()? {
        version if (VERSION..=newest).contains(&version) => Ok((version, r)),
        _ => Err(r.corrupt("its version is not known to this build")),
    }
}

/// Some publish requests of one node for one stream's leader.
///
/// - An origin counts `attempt` up whenever it starts sending again; the leader refuses everything of an attempt after the first refusal
///   or the first missing call, so requests never overtake each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub group: u64,
    pub epoch: u64,
    pub attempt: u64,
    /// The last counter of this attempt's call before this one; 0 for its first call.
    pub after: u64,
    /// The last counter of this call.
    pub last: u64,
    pub requests: Vec<Bytes>,
}

impl Forward {
    pub fn encode(&self) -> Bytes {
        let bytes: usize = self.requests.iter().map(|request| request.len() + 5).sum();
        let mut w = writer(bytes + 32);
        w.varint(self.group);
        w.varint(self.epoch);
        w.varint(self.attempt);
        w.varint(self.after);
        w.varint(self.last);
        w.varint(self.requests.len() as u64);
        self.requests.iter().for_each(|request| w.bytes(request));
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Forward, Corrupt> {
        let mut r = reader("a forwarded publish", bytes)?;
        let (group, epoch, attempt, after, last) = (r.varint()?, r.varint()?, r.varint()?, r.varint()?, r.varint()?);
        let count = r.count()?;
        let requests = (0..count).map(|_| r.bytes()).collect::<Result<Vec<_>, _>>()?;
        r.end()?;
        Ok(Forward { group, epoch, attempt, after, last, requests })
    }
}

pub fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut w = writer(outcomes.len() * 24);
    w.varint(outcomes.len() as u64);
    outcomes.iter().for_each(|outcome| put_outcome(&mut w, outcome));
    w.finish()
}

pub fn decode_outcomes(bytes: Bytes) -> Result<Vec<Outcome>, Corrupt> {
    let mut r = reader("publish outcomes", bytes)?;
    let count = r.count()?;
    let outcomes = (0..count).map(|_| get_outcome(&mut r)).collect::<Result<Vec<_>, _>>()?;
    r.end()?;
    Ok(outcomes)
}

fn put_outcome(w: &mut Writer, outcome: &Outcome) {
    match outcome {
        Outcome::Published { first_seq, last_seq, count, duplicates, time } => {
            w.u8(0);
            w.varint(*first_seq);
            w.varint(*last_seq);
            w.varint(u64::from(*count));
            w.varint(u64::from(*duplicates));
            w.i64(time.0);
        }
        Outcome::Trimmed { events, bytes } => {
            w.u8(1);
            w.varint(*events);
            w.varint(*bytes);
        }
        Outcome::Rejected(reject) => {
            w.u8(2);
            put_reject(w, reject);
        }
    }
}

fn get_outcome(r: &mut Reader) -> Result<Outcome, Corrupt> {
    match r.u8()? {
        0 => Ok(Outcome::Published {
            first_seq: r.varint()?,
            last_seq: r.varint()?,
            count: r.varint()? as u32,
            duplicates: r.varint()? as u32,
            time: Time(r.i64()?),
        }),
        1 => Ok(Outcome::Trimmed { events: r.varint()?, bytes: r.varint()? }),
        2 => Ok(Outcome::Rejected(get_reject(r)?)),
        _ => Err(r.corrupt("an outcome is not known to this build")),
    }
}

fn put_reject(w: &mut Writer, reject: &Reject) {
    match reject {
        Reject::Expectation { last_seq } => {
            w.u8(0);
            w.varint(*last_seq);
        }
        Reject::Full { limit, bytes } => {
            w.u8(1);
            w.varint(*limit);
            w.u8(*bytes as u8);
        }
        Reject::DedupFull => w.u8(2),
        Reject::Stale => w.u8(3),
        Reject::TombstonesFull => w.u8(4),
    }
}

fn get_reject(r: &mut Reader) -> Result<Reject, Corrupt> {
    match r.u8()? {
        0 => Ok(Reject::Expectation { last_seq: r.varint()? }),
        1 => Ok(Reject::Full { limit: r.varint()?, bytes: r.u8()? != 0 }),
        2 => Ok(Reject::DedupFull),
        3 => Ok(Reject::Stale),
        4 => Ok(Reject::TombstonesFull),
        _ => Err(r.corrupt("a reject is not known to this build")),
    }
}

/// A single number: a group, an index.
pub fn encode_number(number: u64) -> Bytes {
    let mut w = writer(9);
    w.u64(number);
    w.finish()
}

pub fn decode_number(bytes: Bytes) -> Result<u64, Corrupt> {
    let mut r = reader("a number", bytes)?;
    let number = r.u64()?;
    r.end()?;
    Ok(number)
}

pub fn put_state(w: &mut Writer, state: &State) {
    w.varint(state.first_seq);
    w.varint(state.last_seq);
    w.varint(state.events);
    w.varint(state.bytes);
    w.i64(state.last_time.0);
}

pub fn get_state(r: &mut Reader) -> Result<State, Corrupt> {
    let (first_seq, last_seq, events, bytes) = (r.varint()?, r.varint()?, r.varint()?, r.varint()?);
    Ok(State { first_seq, last_seq, events, bytes, last_time: Time(r.i64()?) })
}

pub fn encode_purge(group: u64, purge: &Purge) -> Bytes {
    let mut w = writer(64);
    w.varint(group);
    match purge {
        Purge::BeforeSeq(seq) => {
            w.u8(0);
            w.varint(*seq);
        }
        Purge::Keep(keep) => {
            w.u8(1);
            w.varint(*keep);
        }
        Purge::Subject(filter) => {
            w.u8(2);
            w.str(filter.as_str());
        }
    }
    w.finish()
}

pub fn decode_purge(bytes: Bytes) -> Result<(u64, Purge), Corrupt> {
    let mut r = reader("a purge", bytes)?;
    let group = r.varint()?;
    let purge = match r.u8()? {
        0 => Purge::BeforeSeq(r.varint()?),
        1 => Purge::Keep(r.varint()?),
        2 => Purge::Subject(reading::get_filter(&mut r)?),
        _ => return Err(r.corrupt("a purge is not known to this build")),
    };
    r.end()?;
    Ok((group, purge))
}

pub fn encode_purged(purged: &Purged) -> Bytes {
    let mut w = writer(40);
    [purged.events, purged.bytes, purged.first_seq, purged.last_seq].into_iter().for_each(|number| w.varint(number));
    w.finish()
}

pub fn decode_purged(bytes: Bytes) -> Result<Purged, Corrupt> {
    let mut r = reader("purge counts", bytes)?;
    Ok(Purged { events: r.varint()?, bytes: r.varint()?, first_seq: r.varint()?, last_seq: r.varint()? })
}

/// The term and the leader under which the asking node is no member of the group, and the index of those members.
pub fn encode_counted_out(out: &CountedOut) -> Bytes {
    let mut w = writer(24);
    [out.leader.term, out.leader.node_id, out.index].into_iter().for_each(|number| w.varint(number));
    w.finish()
}

pub fn decode_counted_out(bytes: Bytes) -> Result<CountedOut, Corrupt> {
    let mut r = reader("the answer to be counted out", bytes)?;
    let leader = LeaderId { term: r.varint()?, node_id: r.varint()? };
    let out = CountedOut { leader, index: r.varint()? };
    r.end()?;
    Ok(out)
}

/// Replicas that are damaged for good, and that are being rebuilt.
pub fn encode_health(damaged: u64, rebuilding: u64) -> Bytes {
    let mut w = writer(20);
    w.varint(damaged);
    w.varint(rebuilding);
    w.finish()
}

pub fn decode_health(bytes: Bytes) -> Result<(u64, u64), Corrupt> {
    let mut r = reader("a node's health", bytes)?;
    let both = (r.varint()?, r.varint()?);
    r.end()?;
    Ok(both)
}

/// How a replica is, as its node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAnswer {
    /// Whether it can take part: a leader counts it in only then.
    pub open: bool,
    /// Whether it has a log: then its group was begun, and must not be begun again.
    pub begun: bool,
    /// `Ok`, `Rebuilding` or `Damaged`: the others are for its leader to say.
    pub state: ReplicaState,
    pub why: String,
}

impl ReplicaAnswer {
    pub fn encode(&self) -> Bytes {
        let mut w = writer(self.why.len() + 8);
        w.u8(self.open as u8);
        w.u8(self.begun as u8);
        w.u8(match self.state {
            ReplicaState::Rebuilding => 1,
            ReplicaState::Damaged => 2,
            ReplicaState::Ok | ReplicaState::Behind | ReplicaState::Unreachable => 0,
        });
        w.str(&self.why);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<ReplicaAnswer, Corrupt> {
        let mut r = reader("a replica's state", bytes)?;
        let (open, begun) = (r.u8()? != 0, r.u8()? != 0);
        let state = match r.u8()? {
            0 => ReplicaState::Ok,
            1 => ReplicaState::Rebuilding,
            2 => ReplicaState::Damaged,
            _ => return Err(r.corrupt("a replica's state is not known to this build")),
        };
        let why = r.text()?.to_string();
        r.end()?;
        Ok(ReplicaAnswer { open, begun, state, why })
    }
}

impl std::convert::From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Error {
        Error::Internal(corrupt.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(golden: &str, bytes: Bytes) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn what_is_said_of_damage_is_frozen() {
        check("010700000000000000", encode_number(7));
        let out = CountedOut { leader: LeaderId { term: 300, node_id: 3 }, index: 9 };
        check("01ac020309", encode_counted_out(&out));
        check("010201", encode_health(2, 1));
        let answers = [
            ("0101010000", ReplicaAnswer { open: true, begun: true, state: ReplicaState::Ok, why: String::new() }),
            ("01000001036b616f", ReplicaAnswer { open: false, begun: false, state: ReplicaState::Rebuilding, why: "kao".into() }),
            ("01000002036b616f", ReplicaAnswer { open: false, begun: false, state: ReplicaState::Damaged, why: "kao".into() }),
        ];
        for (golden, answer) in answers {
            check(golden, answer.encode());
            assert_eq!(ReplicaAnswer::decode(answer.encode()).unwrap(), answer);
        }
        assert_eq!(decode_counted_out(encode_counted_out(&out)).unwrap(), out);
        assert!(ReplicaAnswer::decode(Bytes::from_static(b"\x01\x01\x01\x09\x00")).is_err());
    }
}
