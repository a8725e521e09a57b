//! Evermesh's own bytes for what consensus keeps and sends: entries, votes, memberships and the messages between peers.
//!
//! No derive of a library decides a byte here; every message starts with a version and has a golden in the tests.

use super::types::{
    AppendRequest, AppendResponse, Content, Entry, EntryPayload, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership,
    TransferRequest, Vote, VoteRequest, VoteResponse,
};
use crate::core::codec::{Corrupt, Reader, Writer};
use bytes::Bytes;
use openraft::impls::EmptyNode;
use std::collections::{BTreeMap, BTreeSet};

/// The version of every encoding of this page …
pub const VERSION: u8 = 1;
/// … but of a snapshot that has a rolling hash.
const SNAPSHOT_VERSION: u8 = 2;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

fn version(reader: &mut Reader) -> Result<(), Corrupt> {
    match reader.u8()? {
        VERSION => Ok(()),
        _ => Err(reader.corrupt("its version is not known to this build")),
    }
}

pub fn message(what: &'static str, bytes: Bytes) -> Result<Reader, Corrupt> {
    let mut reader = Reader::new(what, bytes);
    version(&mut reader)?;
    Ok(reader)
}

/// A message's bytes, to be filled.
pub fn writer() -> Writer {
    let mut w = Writer::default();
    w.u8(VERSION);
    w
}

fn put_leader(w: &mut Writer, id: &LeaderId) {
    w.varint(id.term);
    w.varint(id.node_id);
}

fn get_leader(r: &mut Reader) -> Result<LeaderId, Corrupt> {
    Ok(LeaderId { term: r.varint()?, node_id: r.varint()? })
}

pub fn put_log_id(w: &mut Writer, id: &LogId) {
    put_leader(w, id.committed_leader_id());
    w.varint(id.index());
}

pub fn get_log_id(r: &mut Reader) -> Result<LogId, Corrupt> {
    let leader = get_leader(r)?;
    Ok(LogId::new(leader, r.varint()?))
}

pub fn put_vote(w: &mut Writer, vote: &Vote) {
    put_leader(w, &vote.leader_id);
    w.u8(vote.committed as u8);
}

pub fn get_vote(r: &mut Reader) -> Result<Vote, Corrupt> {
    let leader_id = get_leader(r)?;
    Ok(Vote { leader_id, committed: r.u8()? != 0 })
}

fn put_membership(w: &mut Writer, membership: &Membership) {
    let configs = membership.get_joint_config();
    w.varint(configs.len() as u64);
    for config in configs {
        put_ids(w, config);
    }
    put_ids(w, &membership.nodes().map(|(id, _)| *id).collect());
}

fn put_ids(w: &mut Writer, ids: &BTreeSet<u64>) {
    w.varint(ids.len() as u64);
    ids.iter().for_each(|id| w.varint(*id));
}

fn get_ids(r: &mut Reader) -> Result<BTreeSet<u64>, Corrupt> {
    let count = r.count()?;
    (0..count).map(|_| r.varint()).collect()
}

fn get_membership(r: &mut Reader) -> Result<Membership, Corrupt> {
    let configs = r.count()?;
    let configs = (0..configs).map(|_| get_ids(r)).collect::<Result<Vec<_>, _>>()?;
    let nodes: BTreeMap<u64, EmptyNode> = get_ids(r)?.into_iter().map(|id| (id, EmptyNode::new())).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| r.corrupt("a membership is not valid"))
}

pub fn put_stored_membership(w: &mut Writer, stored: &StoredMembership) {
    w.option(stored.log_id().as_ref(), put_log_id);
    put_membership(w, stored.membership());
}

pub fn get_stored_membership(r: &mut Reader) -> Result<StoredMembership, Corrupt> {
    let log_id = r.option(get_log_id)?;
    Ok(StoredMembership::new(log_id, get_membership(r)?))
}

/// What the log keeps of an entry besides its log id.
pub fn encode_payload(payload: &EntryPayload) -> Bytes {
    let mut w = Writer::with_capacity(match payload {
        EntryPayload::Normal(command) => command.0.len() + 2,
        _ => 64,
    });
    w.u8(VERSION);
    match payload {
        EntryPayload::Blank => w.u8(BLANK),
        EntryPayload::Normal(command) => {
            w.u8(NORMAL);
            w.raw(&command.0);
        }
        EntryPayload::Membership(membership) => {
            w.u8(MEMBERSHIP);
            put_membership(&mut w, membership);
        }
    }
    w.finish()
}

pub fn decode_payload(bytes: Bytes) -> Result<EntryPayload, Corrupt> {
    let mut r = message("an entry", bytes)?;
    match r.u8()? {
        BLANK => Ok(EntryPayload::Blank),
        NORMAL => Ok(EntryPayload::Normal(Payload(r.rest()))),
        MEMBERSHIP => Ok(EntryPayload::Membership(get_membership(&mut r)?)),
        _ => Err(r.corrupt("its kind is not known to this build")),
    }
}

pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut w = writer();
    put_vote(&mut w, vote);
    w.finish()
}

/// The vote of a replica that follows this leader: nobody of an older term, and nobody else of this one, gets its vote.
pub fn encode_followed_vote(term: u64, leader: u64) -> Bytes {
    encode_vote(&Vote { leader_id: LeaderId { term, node_id: leader }, committed: true })
}

pub fn decode_vote(bytes: Bytes) -> Result<Vote, Corrupt> {
    let mut r = message("a vote", bytes)?;
    let vote = get_vote(&mut r)?;
    r.end()?;
    Ok(vote)
}

pub fn encode_append(group: u64, request: &AppendRequest) -> Bytes {
    let size: usize = request.entries.iter().map(|e| if let EntryPayload::Normal(p) = &e.payload { p.0.len() + 40 } else { 128 }).sum();
    let mut w = Writer::with_capacity(size + 128);
    w.u8(VERSION);
    w.varint(group);
    put_vote(&mut w, &request.vote);
    w.option(request.prev_log_id.as_ref(), put_log_id);
    w.option(request.leader_commit.as_ref(), put_log_id);
    w.varint(request.entries.len() as u64);
    for entry in &request.entries {
        put_log_id(&mut w, &entry.log_id);
        put_entry_payload(&mut w, &entry.payload);
    }
    w.finish()
}

fn put_entry_payload(w: &mut Writer, payload: &EntryPayload) {
    match payload {
        EntryPayload::Blank => w.u8(BLANK),
        EntryPayload::Normal(command) => {
            w.u8(NORMAL);
            w.bytes(&command.0);
        }
        EntryPayload::Membership(membership) => {
            w.u8(MEMBERSHIP);
            put_membership(w, membership);
        }
    }
}

fn get_entry(r: &mut Reader) -> Result<Entry, Corrupt> {
    let log_id = get_log_id(r)?;
    let payload = match r.u8()? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Payload(r.bytes()?)),
        MEMBERSHIP => EntryPayload::Membership(get_membership(r)?),
        _ => return Err(r.corrupt("an entry's kind is not known to this build")),
    };
    Ok(Entry { log_id, payload })
}

pub fn decode_append(bytes: Bytes) -> Result<(u64, AppendRequest), Corrupt> {
    let mut r = message("an append request", bytes)?;
    let group = r.varint()?;
    let vote = get_vote(&mut r)?;
    let prev_log_id = r.option(get_log_id)?;
    let leader_commit = r.option(get_log_id)?;
    let count = r.count()?;
    let entries = (0..count).map(|_| get_entry(&mut r)).collect::<Result<Vec<_>, _>>()?;
    r.end()?;
    Ok((group, AppendRequest { vote, prev_log_id, entries, leader_commit }))
}

pub fn encode_append_response(response: &AppendResponse) -> Bytes {
    let mut w = writer();
    match response {
        AppendResponse::Success => w.u8(0),
        AppendResponse::PartialSuccess(upto) => {
            w.u8(1);
            w.option(upto.as_ref(), put_log_id);
        }
        AppendResponse::Conflict => w.u8(2),
        AppendResponse::HigherVote(vote) => {
            w.u8(3);
            put_vote(&mut w, vote);
        }
    }
    w.finish()
}

pub fn decode_append_response(bytes: Bytes) -> Result<AppendResponse, Corrupt> {
    let mut r = message("an append response", bytes)?;
    match r.u8()? {
        0 => Ok(AppendResponse::Success),
        1 => Ok(AppendResponse::PartialSuccess(r.option(get_log_id)?)),
        2 => Ok(AppendResponse::Conflict),
        3 => Ok(AppendResponse::HigherVote(get_vote(&mut r)?)),
        _ => Err(r.corrupt("its kind is not known to this build")),
    }
}

pub fn encode_vote_request(group: u64, request: &VoteRequest) -> Bytes {
    let mut w = writer();
    w.varint(group);
    put_vote(&mut w, &request.vote);
    w.option(request.last_log_id.as_ref(), put_log_id);
    w.u8(request.leadership_transfer as u8);
    w.finish()
}

pub fn decode_vote_request(bytes: Bytes) -> Result<(u64, VoteRequest), Corrupt> {
    let mut r = message("a vote request", bytes)?;
    let group = r.varint()?;
    let vote = get_vote(&mut r)?;
    let last_log_id = r.option(get_log_id)?;
    let leadership_transfer = r.u8()? != 0;
    r.end()?;
    Ok((group, VoteRequest { vote, last_log_id, leadership_transfer }))
}

pub fn encode_vote_response(response: &VoteResponse) -> Bytes {
    let mut w = writer();
    put_vote(&mut w, &response.vote);
    w.u8(response.vote_granted as u8);
    w.option(response.last_log_id.as_ref(), put_log_id);
    w.finish()
}

pub fn decode_vote_response(bytes: Bytes) -> Result<VoteResponse, Corrupt> {
    let mut r = message("a vote response", bytes)?;
    let vote = get_vote(&mut r)?;
    let granted = r.u8()? != 0;
    let last_log_id = r.option(get_log_id)?;
    r.end()?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

pub fn encode_transfer(group: u64, request: &TransferRequest) -> Bytes {
    let mut w = writer();
    w.varint(group);
    put_vote(&mut w, request.from_leader());
    w.varint(*request.to_node_id());
    w.option(request.last_log_id(), put_log_id);
    w.finish()
}

pub fn decode_transfer(bytes: Bytes) -> Result<(u64, TransferRequest), Corrupt> {
    let mut r = message("a leader transfer", bytes)?;
    let group = r.varint()?;
    let vote = get_vote(&mut r)?;
    let to = r.varint()?;
    let last = r.option(get_log_id)?;
    r.end()?;
    Ok((group, TransferRequest::new(vote, to, last)))
}

/// A snapshot as it travels and as a checkpoint keeps it: where it stands, who the members were, and the folded state. Version 2 has the
/// rolling hash before all that; one without a hash is still written as version 1, and reads as one whose hash is not known.
pub fn encode_snapshot(meta: &SnapshotMeta, content: &Content) -> Bytes {
    let mut w = Writer::with_capacity(content.state.len() + 80);
    match content.hash {
        None => w.u8(VERSION),
        Some(hash) => {
            w.u8(SNAPSHOT_VERSION);
            w.u128(hash);
        }
    }
    w.option(meta.last_log_id.as_ref(), put_log_id);
    put_stored_membership(&mut w, &meta.last_membership);
    w.raw(&content.state);
    w.finish()
}

pub fn decode_snapshot(bytes: Bytes) -> Result<(SnapshotMeta, Content), Corrupt> {
    let mut r = Reader::new("a snapshot", bytes);
    let hash = match r.u8()? {
        VERSION => None,
        SNAPSHOT_VERSION => Some(r.u128()?),
        _ => return Err(r.corrupt("its version is not known to this build")),
    };
    let last_log_id = r.option(get_log_id)?;
    let last_membership = get_stored_membership(&mut r)?;
    Ok((SnapshotMeta { last_log_id, last_membership }, Content { hash, state: r.rest() }))
}

pub fn encode_install(group: u64, vote: &Vote, snapshot: &Bytes) -> Bytes {
    let mut w = Writer::with_capacity(snapshot.len() + 64);
    w.u8(VERSION);
    w.varint(group);
    put_vote(&mut w, vote);
    w.raw(snapshot);
    w.finish()
}

pub fn decode_install(bytes: Bytes) -> Result<(u64, Vote, SnapshotMeta, Content), Corrupt> {
    let mut r = message("a snapshot installation", bytes)?;
    let group = r.varint()?;
    let vote = get_vote(&mut r)?;
    let (meta, content) = decode_snapshot(r.rest())?;
    Ok((group, vote, meta, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: node }, index)
    }

    fn membership() -> Membership {
        let nodes = [1, 2, 300].map(|id| (id, EmptyNode::new()));
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 300])], BTreeMap::from(nodes)).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A released encoding is frozen: these lines change only together with a new version beside the old one.
    #[test]
    fn goldens() {
        let vote = Vote { leader_id: LeaderId { term: 300, node_id: 2 }, committed: true };
        assert_eq!(hex(&encode_vote(&vote)), "01ac020201");
        assert_eq!(hex(&encode_payload(&EntryPayload::Blank)), "0100");
        assert_eq!(hex(&encode_payload(&EntryPayload::Normal(Payload(Bytes::from_static(b"ab"))))), "01016162");
        assert_eq!(hex(&encode_payload(&EntryPayload::Membership(membership()))), "0102020201020202ac02030102ac02");
        let entries = vec![Entry { log_id: id(3, 1, 8), payload: EntryPayload::Normal(Payload(Bytes::from_static(b"x"))) }];
        let append = AppendRequest { vote, prev_log_id: Some(id(2, 1, 7)), entries, leader_commit: None };
        assert_eq!(hex(&encode_append(9, &append)), "0109ac02020101020107000103010801".to_owned() + "0178");
        assert_eq!(hex(&encode_append_response(&AppendResponse::PartialSuccess(None))), "010100");
        let ask = VoteRequest { vote, last_log_id: Some(id(2, 1, 7)), leadership_transfer: true };
        assert_eq!(hex(&encode_vote_request(9, &ask)), "0109ac0202010102010701");
        assert_eq!(hex(&encode_vote_response(&VoteResponse::new(vote, None, true))), "01ac0202010100");
        let meta = SnapshotMeta { last_log_id: Some(id(1, 2, 3)), last_membership: StoredMembership::new(None, membership()) };
        let content = |hash| Content { hash, state: Bytes::from_static(b"s") };
        assert_eq!(hex(&encode_snapshot(&meta, &content(None))), "010101020300020201020202ac02030102ac0273");
        let hashed = encode_snapshot(&meta, &content(Some(0x0f0e0d0c0b0a09080706050403020100)));
        assert_eq!(hex(&hashed), "02000102030405060708090a0b0c0d0e0f0101020300020201020202ac02030102ac0273");
        assert_eq!(hex(&encode_transfer(9, &TransferRequest::new(vote, 3, None))), "0109ac0202010300");
    }

    #[test]
    fn everything_comes_back() {
        for payload in
            [EntryPayload::Blank, EntryPayload::Membership(membership()), EntryPayload::Normal(Payload(Bytes::from_static(b"x")))]
        {
            assert_eq!(decode_payload(encode_payload(&payload)).unwrap(), payload);
        }
        let vote = Vote { leader_id: LeaderId { term: 7, node_id: 1 }, committed: false };
        assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);
        let meta = SnapshotMeta { last_log_id: Some(id(1, 2, 3)), last_membership: StoredMembership::new(Some(id(1, 1, 0)), membership()) };
        for hash in [None, Some(1 << 100 | 7)] {
            let content = Content { hash, state: Bytes::from_static(b"s") };
            let back = decode_install(encode_install(4, &vote, &encode_snapshot(&meta, &content))).unwrap();
            assert_eq!(back, (4, vote, meta.clone(), content));
        }
    }

    #[test]
    fn nothing_that_a_peer_sends_panics() {
        let vote = Vote { leader_id: LeaderId { term: 7, node_id: 1 }, committed: false };
        let entries = vec![Entry { log_id: id(3, 1, 8), payload: EntryPayload::Membership(membership()) }];
        let whole = encode_append(1, &AppendRequest { vote, prev_log_id: None, entries, leader_commit: Some(id(1, 1, 1)) });
        for cut in 0..whole.len() {
            assert!(decode_append(whole.slice(..cut)).is_err(), "{cut}");
        }
        assert!(decode_append(Bytes::from_static(&[9, 0])).is_err());
    }
}
