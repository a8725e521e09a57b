//! Whether a stream's replicas are the same, compared at one place of the log while the stream goes on.
//!
//! The leader names its newest applied entry with the rolling hash of everything up to it (`cluster::chain`); every other replica says
//! what it has there, once it has come that far. Where two differ, the hashes that both still have in memory narrow the place down.
//! The hash stands for what was applied; with `read`, every replica also reads its log from disk again and checks every checksum, in
//! bounded steps.

use super::error::{Error, Result};
use super::remote::{self, method};
use super::stream::{Local, Stream};
use super::{Inner, Node};
use crate::cluster::mesh::{CallError, Lane};
use crate::cluster::{Checked, Point};
use crate::core::codec::{Corrupt, Reader, Writer};
use crate::core::{NodeName, StreamName, limits};
use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a replica may take to come as far as the leader was.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Longest wait for an answer, that time included.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest search for a leader to compare with.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How often it is all done again because a replica was too far ahead: its hashes go back about a thousand entries.
const ROUNDS: usize = 3;
/// Bytes of the log that one step reads again.
const STEP_BYTES: usize = 32 << 20;
const STEP_WAIT: Duration = Duration::from_secs(30);

/// What came of comparing a stream's replicas.
#[derive(Clone, Debug)]
pub struct Verification {
    pub leader: NodeName,
    /// The entry at which they were compared, and the last seq there.
    pub index: u64,
    pub at_seq: u64,
    /// `None`: the leader's replica is older than rolling hashes.
    pub hash: Option<u128>,
    pub replicas: Vec<ReplicaCheck>,
}

#[derive(Clone, Debug)]
pub struct ReplicaCheck {
    pub node: NodeName,
    pub leader: bool,
    pub result: Agreement,
    pub hash: Option<u128>,
    /// Entries that it still has to apply to be where the leader was.
    pub behind: u64,
    /// Where it differs: in the entry `to` at the latest, and after `from` if that is known to be the same.
    pub differs: Option<(Option<u64>, u64)>,
    /// For a person: why it is not identical.
    pub detail: Option<String>,
    pub reread: Option<Reread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    Identical,
    Behind,
    Different,
    Unreachable,
    /// It or the leader has no rolling hash there.
    Unknown,
}

/// What reading a replica's log again found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    pub rows: u64,
    pub bytes: u64,
    pub damage: Option<String>,
    /// Why it was not read to its end, if nothing is known to be damaged.
    pub stopped: Option<String>,
}

impl Node {
    pub async fn verify(&self, stream: &StreamName, read: bool) -> Result<Verification> {
        let node = &self.inner;
        let stream = node.find_stream(stream).await?;
        let _attends = stream.attend();
        let mut verification = node.compare_all(&stream).await?;
        if read {
            let rereads = verification.replicas.iter().map(|replica| node.reread_all(&stream, &replica.node));
            let rereads = join_all(rereads).await;
            verification.replicas.iter_mut().zip(rereads).for_each(|(replica, reread)| replica.reread = Some(reread));
        }
        Ok(verification)
    }
}

impl Inner {
    async fn compare_all(self: &Arc<Inner>, stream: &Arc<Stream>) -> Result<Verification> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let (leader, answer) = self.leaders_answer(stream).await?;
            let others = stream.placement().into_iter().map(|id| self.compare_one(stream, leader, &answer, id));
            let replicas: Vec<(ReplicaCheck, bool)> = join_all(others).await;
            if rounds == ROUNDS || replicas.iter().all(|(_, too_far)| !too_far) {
                return Ok(Verification {
                    leader: self.node_name(leader),
                    index: answer.applied,
                    at_seq: answer.seq,
                    hash: answer.points.last().map(|point| point.hash),
                    replicas: replicas.into_iter().map(|(replica, _)| replica).collect(),
                });
            }
        }
    }

    /// Asks whoever leads, wherever that is.
    async fn leaders_answer(self: &Arc<Inner>, stream: &Arc<Stream>) -> Result<(u64, Answer)> {
        let deadline = Instant::now() + LEADER_WAIT;
        let mut tries = 0;
        loop {
            let seen = stream.current();
            let placement = stream.placement();
            let known = self.awake(stream).await.and_then(|local| local.group.current().leader);
            let leader = known.or_else(|| placement.get(tries % placement.len().max(1)).copied());
            if let Some(leader) = leader
                && let Ok(answer) = self.ask(stream, leader, &Ask { group: stream.group, at: At::Leader }).await
            {
                return Ok((leader, answer));
            }
            if Instant::now() >= deadline || self.stop.is_cancelled() {
                return Err(Error::NoLeader);
            }
            tries += 1;
            stream.changed_within(seen, Duration::from_millis(50)).await;
        }
    }

    /// Compares one replica with what the leader said; true if it has gone too far ahead to say.
    async fn compare_one(self: &Arc<Inner>, stream: &Arc<Stream>, leader: u64, reference: &Answer, id: u64) -> (ReplicaCheck, bool) {
        let name = self.node_name(id);
        if id == leader {
            return (judge(name, true, reference, Ok(reference.clone())), false);
        }
        let ask = Ask { group: stream.group, at: At::Index(reference.applied) };
        let answer = self.ask(stream, id, &ask).await;
        let too_far = matches!(&answer, Ok(answer) if answer.applied > reference.applied && answer.points.is_empty() && answer.known);
        let mut check = judge(name, false, reference, answer);
        if check.result == Agreement::Different {
            let all = Ask { group: stream.group, at: At::All };
            if let (Ok(ours), Ok(theirs)) = (self.ask(stream, leader, &all).await, self.ask(stream, id, &all).await) {
                check.differs = Some(narrow(&ours.points, &theirs.points, reference.applied));
            }
        }
        (check, too_far)
    }

    async fn ask(self: &Arc<Inner>, stream: &Arc<Stream>, id: u64, ask: &Ask) -> std::result::Result<Answer, String> {
        if id == self.id {
            let local = self.awake(stream).await.ok_or("its replica is not open")?;
            return answer(&local, ask.at).await.map_err(|error| error.to_string());
        }
        let called = self.mesh.call(id, Lane::Bulk, method::COMPARE, ask.encode(), Instant::now() + ANSWER).await;
        Answer::decode(called.map_err(said)?).map_err(|error| error.to_string())
    }

    /// Has one replica read its log again, step by step.
    async fn reread_all(self: &Arc<Inner>, stream: &Arc<Stream>, name: &NodeName) -> Reread {
        let mut sum = Reread::default();
        let mut from = Some(0);
        while let Some(index) = from.take() {
            match self.reread_step(stream, name, index).await {
                Ok(checked) => {
                    sum.rows += checked.rows;
                    sum.bytes += checked.bytes;
                    sum.damage = checked.damage;
                    from = checked.next;
                }
                Err(why) => sum.stopped = Some(why),
            }
        }
        sum
    }

    async fn reread_step(self: &Arc<Inner>, stream: &Arc<Stream>, name: &NodeName, index: u64) -> std::result::Result<Checked, String> {
        let id = self.node_id(name).map_err(|error| error.to_string())?;
        if id == self.id {
            let local = self.awake(stream).await.ok_or("its replica is not open")?;
            return step(&local, index).await.map_err(|error| error.to_string());
        }
        let mut w = remote::writer(16);
        w.varint(stream.group);
        w.varint(index);
        let called = self.mesh.call(id, Lane::Bulk, method::REREAD, w.finish(), Instant::now() + STEP_WAIT).await;
        decode_checked(called.map_err(said)?).map_err(|error| error.to_string())
    }
}

/// What a peer's refusal says, or why there was none.
fn said(error: CallError) -> String {
    match error {
        CallError::Refused { message, .. } => message,
        error => error.to_string(),
    }
}

/// What to say of a replica that answered so.
fn judge(node: NodeName, leader: bool, reference: &Answer, answer: std::result::Result<Answer, String>) -> ReplicaCheck {
    let mut check =
        ReplicaCheck { node, leader, result: Agreement::Unknown, hash: None, behind: 0, differs: None, detail: None, reread: None };
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            (check.result, check.detail) = (Agreement::Unreachable, Some(why));
            return check;
        }
    };
    check.hash = answer.points.last().map(|point| point.hash);
    let detail = match (reference.points.last(), answer.points.last()) {
        (Some(ours), Some(theirs)) if ours == theirs => {
            check.result = Agreement::Identical;
            return check;
        }
        (Some(ours), Some(theirs)) => {
            check.result = Agreement::Different;
            check.differs = Some((None, reference.applied));
            match ours.hash == theirs.hash {
                true => format!("from the same entries it made seq {}, and the leader {}", theirs.seq, ours.seq),
                false => "its entries are others than the leader's".into(),
            }
        }
        _ if answer.applied < reference.applied => {
            check.result = Agreement::Behind;
            check.behind = reference.applied - answer.applied;
            format!("it was at entry {} still", answer.applied)
        }
        (None, _) => "the leader's replica began with a checkpoint of a build without hashes".into(),
        _ if !answer.known => "its replica began with a checkpoint of a build without hashes".into(),
        _ => "it is too far ahead to say".into(),
    };
    check.detail = Some(detail);
    check
}

/// The first entry from which on both differ, as far as both remember: the last one that is the same, and the first that is not.
fn narrow(ours: &[Point], theirs: &[Point], known_different: u64) -> (Option<u64>, u64) {
    let mut same = None;
    for point in theirs.iter().filter(|point| point.index <= known_different) {
        let Some(our) = ours.iter().find(|our| our.index == point.index) else { continue };
        if our != point {
            return (same, point.index);
        }
        same = Some(point.index);
    }
    (same, known_different)
}

/// What is asked of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ask {
    group: u64,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Where it is now, if it leads.
    Leader,
    /// At this entry, once it has come so far.
    Index(u64),
    /// At every entry that it remembers.
    All,
}

impl Ask {
    fn encode(&self) -> Bytes {
        let mut w = remote::writer(20);
        w.varint(self.group);
        match self.at {
            At::Leader => w.u8(0),
            At::Index(index) => {
                w.u8(1);
                w.varint(index);
            }
            At::All => w.u8(2),
        }
        w.finish()
    }

    fn decode(bytes: Bytes) -> std::result::Result<Ask, Corrupt> {
        let mut r = remote::reader("a comparison", bytes)?;
        let group = r.varint()?;
        let at = match r.u8()? {
            0 => At::Leader,
            1 => At::Index(r.varint()?),
            2 => At::All,
            _ => return Err(r.corrupt("a kind is not known to this build")),
        };
        r.end()?;
        Ok(Ask { group, at })
    }
}

/// What a replica has.
///
/// - `points` is empty where it has none of what was asked for, else consecutive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    /// Index of the newest applied entry.
    applied: u64,
    /// The last seq.
    seq: u64,
    /// Whether it knows its rolling hash at all.
    known: bool,
    points: Vec<Point>,
}

impl Answer {
    fn encode(&self) -> Bytes {
        let mut w = remote::writer(32 + 24 * self.points.len());
        w.varint(self.applied);
        w.varint(self.seq);
        w.u8(self.known as u8);
        w.varint(self.points.len() as u64);
        for point in &self.points {
            put_point(&mut w, point);
        }
        w.finish()
    }

    fn decode(bytes: Bytes) -> std::result::Result<Answer, Corrupt> {
        let mut r = remote::reader("a comparison's answer", bytes)?;
        let (applied, seq, known) = (r.varint()?, r.varint()?, r.u8()? != 0);
        let count = r.count()?;
        if count > limits::HASHES_KEPT_MAX {
            return Err(r.corrupt("it has too many hashes"));
        }
        let points = (0..count).map(|_| get_point(&mut r)).collect::<std::result::Result<_, _>>()?;
        r.end()?;
        Ok(Answer { applied, seq, known, points })
    }
}

fn put_point(w: &mut Writer, point: &Point) {
    w.varint(point.index);
    w.u128(point.hash);
    w.varint(point.seq);
}

fn get_point(r: &mut Reader) -> std::result::Result<Point, Corrupt> {
    Ok(Point { index: r.varint()?, hash: r.u128()?, seq: r.varint()? })
}

/// A peer wants to know what the replica here has.
pub async fn compare(node: &Arc<Inner>, body: Bytes) -> Result<Bytes> {
    let ask = Ask::decode(body)?;
    let local = node.awake_group(ask.group).await;
    let local = local.ok_or_else(|| Error::Conflict("its replica is not open".into()))?;
    Ok(answer(&local, ask.at).await?.encode())
}

async fn answer(local: &Local, at: At) -> Result<Answer> {
    let folded = local.group.folded();
    let points = match at {
        At::Leader => {
            let upto = local.group.confirm_leadership().await.map_err(|_| Error::NoLeader)?;
            local.group.wait_applied(upto).await;
            None
        }
        At::Index(index) => {
            let _ = timeout(CATCH_UP, local.group.wait_applied(index.saturating_add(1))).await;
            Some(folded.point_at(index).into_iter().collect())
        }
        At::All => Some(folded.points()),
    };
    // The newest point is one value: its index and seq belong together.
    let newest = folded.newest_point();
    let applied = newest.map(|point| point.index).or_else(|| folded.applied_log_id().map(|id| id.index())).unwrap_or(0);
    let seq = newest.map_or_else(|| local.replica.current().last_seq, |point| point.seq);
    Ok(Answer { applied, seq, known: folded.has_hash(), points: points.unwrap_or_else(|| newest.into_iter().collect()) })
}

fn encode_checked(checked: &Checked) -> Bytes {
    let mut w = remote::writer(64);
    w.varint(checked.rows);
    w.varint(checked.bytes);
    w.option(checked.next, |w, next| w.varint(next));
    w.option(checked.damage.as_deref(), |w, damage| w.str(damage));
    w.finish()
}

fn decode_checked(bytes: Bytes) -> std::result::Result<Checked, Corrupt> {
    let mut r = remote::reader("a step of reading again", bytes)?;
    let (rows, bytes, next) = (r.varint()?, r.varint()?, r.option(|r| r.varint())?);
    let damage = r.option(|r| r.text().map(|text| text.to_string()))?;
    r.end()?;
    Ok(Checked { rows, bytes, next, damage })
}

/// A peer wants the replica here to read some of its log again.
pub async fn reread(node: &Arc<Inner>, body: Bytes) -> Result<Bytes> {
    let mut r = remote::reader("an order to read again", body)?;
    let (group, index) = (r.varint()?, r.varint()?);
    let local = node.awake_group(group).await;
    let local = local.ok_or_else(|| Error::Conflict("its replica is not open".into()))?;
    Ok(encode_checked(&step(&local, index).await?))
}

async fn step(local: &Local, index: u64) -> Result<Checked> {
    let checked = local.group.check_log(index, STEP_BYTES).await.map_err(Error::Internal)?;
    if let Some(damage) = &checked.damage {
        tracing::error!(group = local.group.id(), "reading the log again: {damage}");
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(index: u64, hash: u128) -> Point {
        Point { index, hash, seq: index }
    }

    fn answered(applied: u64, known: bool, points: &[Point]) -> Answer {
        Answer { applied, seq: applied, known, points: points.to_vec() }
    }

    #[test]
    fn replicas_are_judged_by_what_they_have_at_the_leaders_entry() {
        let leader = answered(9, true, &[point(9, 5)]);
        let unhashed = answered(9, false, &[]);
        let check = |reference: &Answer, answer: std::result::Result<Answer, String>, expected: Agreement, behind: u64| {
            let judged = judge(NodeName::new("n1").unwrap(), false, reference, answer);
            assert_eq!((judged.result, judged.behind), (expected, behind), "{judged:?}");
            assert_eq!(judged.detail.is_none(), expected == Agreement::Identical);
        };
        check(&leader, Ok(answered(12, true, &[point(9, 5)])), Agreement::Identical, 0);
        check(&leader, Ok(answered(12, true, &[point(9, 6)])), Agreement::Different, 0);
        check(&leader, Ok(answered(9, true, &[Point { seq: 8, ..point(9, 5) }])), Agreement::Different, 0);
        check(&leader, Ok(answered(7, true, &[])), Agreement::Behind, 2);
        check(&leader, Ok(answered(7, false, &[])), Agreement::Behind, 2);
        check(&leader, Ok(answered(9, false, &[])), Agreement::Unknown, 0);
        check(&leader, Ok(answered(9_000, true, &[])), Agreement::Unknown, 0);
        check(&leader, Err("no answer".into()), Agreement::Unreachable, 0);
        check(&unhashed, Ok(answered(9, true, &[point(9, 5)])), Agreement::Unknown, 0);
        check(&unhashed, Ok(answered(9, false, &[])), Agreement::Unknown, 0);
    }

    #[test]
    fn a_difference_is_narrowed_to_its_first_entry() {
        let ours: Vec<_> = (1..=9).map(|index| point(index, 1)).collect();
        let theirs: Vec<_> = (3..=12).map(|index| point(index, if index < 7 { 1 } else { 2 })).collect();
        assert_eq!(narrow(&ours, &theirs, 9), (Some(6), 7));
        assert_eq!(narrow(&ours[6..], &theirs, 9), (None, 7));
        assert_eq!(narrow(&[], &theirs, 9), (None, 9));
    }

    #[test]
    fn messages_have_fixed_bytes_and_come_back() {
        let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (at, golden) in [(At::Leader, "01ac0200"), (At::Index(7), "01ac020107"), (At::All, "01ac0202")] {
            let ask = Ask { group: 300, at };
            assert_eq!(hex(&ask.encode()), golden);
            assert_eq!(Ask::decode(ask.encode()), Ok(ask));
        }
        let answer = Answer { applied: 9, seq: 8, known: true, points: vec![point(9, 1 << 127 | 2)] };
        assert_eq!(hex(&answer.encode()), "0109080101090200000000000000000000000000008009");
        assert_eq!(Answer::decode(answer.encode()), Ok(answer));
        let checked = Checked { rows: 1, bytes: 300, next: Some(4), damage: Some("x".into()) };
        assert_eq!(hex(&encode_checked(&checked)), "0101ac020104010178");
        assert_eq!(decode_checked(encode_checked(&checked)), Ok(checked));
        for bad in [&[][..], &[1], &[2, 0, 0], &[1, 0, 9]] {
            assert!(Ask::decode(Bytes::copy_from_slice(bad)).is_err());
        }
    }
}
