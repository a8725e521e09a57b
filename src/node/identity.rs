//! Who this node is, as its data directory remembers it, and the bytes of it. A wiped directory is a new node.

use crate::core::NodeName;
use crate::core::codec::{Corrupt, Reader, Writer};
use bytes::Bytes;
use std::collections::BTreeMap;

const VERSION: u8 = 1;
/// The version of an identity that remembers groups that were begun anew. One without is written as before.
const ANEW: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 0 until the node has joined.
    pub cluster: u128,
    /// 0 until the node has joined.
    pub node: u64,
    /// Larger at every start: the milliseconds of the clock, or one more than before.
    pub boot: u64,
    pub name: NodeName,
    /// What a join is repeated under.
    pub token: u128,
    /// The other nodes' peer addresses, to find the way back.
    pub peers: BTreeMap<u64, String>,
    /// Groups of which this node had a replica and deleted it, while the group lived on. Whoever takes part in one again is quiet until
    /// the log reaches the index of the members without it; `None`: it has not asked for that yet.
    pub anew: BTreeMap<u64, Option<u64>>,
}

impl Identity {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(if self.anew.is_empty() { VERSION } else { ANEW });
        w.u128(self.cluster);
        w.u64(self.node);
        w.u64(self.boot);
        w.str(self.name.as_str());
        w.u128(self.token);
        put_peers(&mut w, &self.peers);
        if !self.anew.is_empty() {
            w.varint(self.anew.len() as u64);
            for (group, until) in &self.anew {
                w.varint(*group);
                w.option(*until, |w, until| w.varint(until));
            }
        }
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Identity, Corrupt> {
        let mut r = Reader::new("the node's identity", bytes);
        let version = r.u8()?;
        if version != VERSION && version != ANEW {
            return Err(r.corrupt("its version is not known to this build"));
        }
        let (cluster, node, boot) = (r.u128()?, r.u64()?, r.u64()?);
        let name = NodeName::new(&r.text()?).map_err(|_| r.corrupt("the name is not valid"))?;
        let token = r.u128()?;
        let peers = get_peers(&mut r)?;
        let mut anew = BTreeMap::new();
        if version == ANEW {
            let count = r.count()?;
            anew = (0..count).map(|_| Ok((r.varint()?, r.option(|r| r.varint())?))).collect::<Result<_, Corrupt>>()?;
        }
        r.end()?;
        Ok(Identity { cluster, node, boot, name, token, peers, anew })
    }
}

fn put_peers(w: &mut Writer, peers: &BTreeMap<u64, String>) {
    w.varint(peers.len() as u64);
    for (id, address) in peers {
        w.varint(*id);
        w.str(address);
    }
}

fn get_peers(r: &mut Reader) -> Result<BTreeMap<u64, String>, Corrupt> {
    let count = r.count()?;
    (0..count).map(|_| Ok((r.varint()?, r.text()?.to_string()))).collect()
}

/// The version of a join that names the node whose place it takes. One without is said as before.
const REPLACING: u8 = 2;

/// What a node that wants to join says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    pub token: u128,
    pub name: NodeName,
    pub url: String,
    pub peer: String,
    pub version: String,
    /// The node, gone for good, whose place it wants.
    pub replace: Option<NodeName>,
}

impl Join {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(if self.replace.is_some() { REPLACING } else { VERSION });
        w.u128(self.token);
        [self.name.as_str(), &self.url, &self.peer, &self.version].into_iter().for_each(|text| w.str(text));
        self.replace.iter().for_each(|name| w.str(name.as_str()));
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Join, Corrupt> {
        let mut r = Reader::new("a join", bytes);
        let said = r.u8()?;
        if !matches!(said, VERSION | REPLACING) {
            return Err(r.corrupt("its version is not known to this build"));
        }
        let name = |r: &mut Reader| NodeName::new(&r.text()?).map_err(|_| r.corrupt("the name is not valid"));
        let (token, own) = (r.u128()?, name(&mut r)?);
        let (url, peer, version) = (r.text()?.to_string(), r.text()?.to_string(), r.text()?.to_string());
        let replace = if said == REPLACING { Some(name(&mut r)?) } else { None };
        r.end()?;
        Ok(Join { token, name: own, url, peer, version, replace })
    }
}

/// What a node that was let in is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub cluster: u128,
    pub node: u64,
    pub peers: BTreeMap<u64, String>,
}

impl Joined {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        w.u128(self.cluster);
        w.u64(self.node);
        put_peers(&mut w, &self.peers);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Joined, Corrupt> {
        let mut r = Reader::new("the answer to a join", bytes);
        if r.u8()? != VERSION {
            return Err(r.corrupt("its version is not known to this build"));
        }
        let (cluster, node) = (r.u128()?, r.u64()?);
        let peers = get_peers(&mut r)?;
        r.end()?;
        Ok(Joined { cluster, node, peers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::golden;

    #[test]
    fn an_identity_is_the_golden() {
        let peers = BTreeMap::from([(2, "b:2".to_owned())]);
        let plain = Identity { cluster: 5, node: 1, boot: 3, name: NodeName::new("n1").unwrap(), token: 7, peers, anew: BTreeMap::new() };
        let anew = Identity { anew: BTreeMap::from([(4, None), (9, Some(300))]), ..plain.clone() };
        golden::check("identity.txt", &[("v1", plain.encode()), ("v2_anew", anew.encode())]);
        for identity in [plain, anew] {
            let bytes = identity.encode();
            assert_eq!(Identity::decode(bytes.clone()), Ok(identity));
            assert!((0..bytes.len()).all(|end| Identity::decode(bytes.slice(..end)).is_err()));
        }
    }

    #[test]
    fn a_join_is_the_golden() {
        let name = |text: &str| NodeName::new(text).unwrap();
        let plain =
            Join { token: 7, name: name("n4"), url: "http://a:1".into(), peer: "a:2".into(), version: "0.1.0".into(), replace: None };
        let replacing = Join { replace: Some(name("n3")), ..plain.clone() };
        golden::check("join.txt", &[("v1", plain.encode()), ("v2_replacing", replacing.encode())]);
        for join in [plain, replacing] {
            let bytes = join.encode();
            assert_eq!(Join::decode(bytes.clone()), Ok(join));
            assert!((0..bytes.len()).all(|end| Join::decode(bytes.slice(..end)).is_err()));
        }
    }
}
