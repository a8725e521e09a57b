//! What a survivor tells the others about a peer, and its bytes: from version 2 of the peer protocol on.

use super::decide::{About, Standing};
use crate::cluster::encoding::{get_log_id, get_vote, put_log_id, put_vote};
use crate::core::codec::{Corrupt, Reader, Writer};
use crate::core::limits;
use bytes::Bytes;

const VERSION: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The peer is gone as the speaker sees it; these groups it led, and this the speaker would bring into their elections.
    Gone { about: About, groups: Vec<(u64, Standing)> },
    /// The peer is there again: what the speaker said about it counts no more.
    Back { about: About },
}

impl Statement {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        let (about, groups) = match self {
            Statement::Gone { about, groups } => (about, Some(groups)),
            Statement::Back { about } => (about, None),
        };
        w.varint(about.node);
        w.varint(about.boot);
        w.option(groups, |w, groups| {
            w.varint(groups.len() as u64);
            for (group, standing) in groups {
                w.varint(*group);
                put_vote(w, &standing.vote);
                w.option(standing.last.as_ref(), put_log_id);
            }
        });
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Statement, Corrupt> {
        let mut r = Reader::new("a statement about a peer", bytes);
        if r.u8()? != VERSION {
            return Err(r.corrupt("its version is not known to this build"));
        }
        let about = About { node: r.varint()?, boot: r.varint()? };
        let groups = r.option(get_groups)?;
        r.end()?;
        Ok(match groups {
            Some(groups) => Statement::Gone { about, groups },
            None => Statement::Back { about },
        })
    }
}

fn get_groups(r: &mut Reader) -> Result<Vec<(u64, Standing)>, Corrupt> {
    let count = r.count()?;
    if count > limits::STATEMENT_GROUPS_MAX {
        return Err(r.corrupt("it names too many groups"));
    }
    (0..count).map(|_| Ok((r.varint()?, Standing { vote: get_vote(r)?, last: r.option(get_log_id)? }))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::types::{LeaderId, LogId, Vote};
    use proptest::prelude::*;

    fn gone() -> Statement {
        let leader_id = LeaderId { term: 5, node_id: 1 };
        let one = Standing { vote: Vote { leader_id, committed: true }, last: Some(LogId::new(leader_id, 300)) };
        let two = Standing { vote: Vote { leader_id: LeaderId { term: 6, node_id: 2 }, committed: false }, last: None };
        Statement::Gone { about: About { node: 1, boot: 4 }, groups: vec![(9, one), (200, two)] }
    }

    #[test]
    fn golden() {
        let back = Statement::Back { about: About { node: 1, boot: 4 } };
        assert_eq!(back.encode()[..], [1, 1, 4, 0]);
        assert_eq!(gone().encode()[..], [1, 1, 4, 1, 2, 9, 5, 1, 1, 1, 5, 1, 0xac, 2, 0xc8, 1, 6, 2, 0, 0]);
        for statement in [gone(), back] {
            assert_eq!(Statement::decode(statement.encode()), Ok(statement));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Statement::decode(Bytes::from([&[VERSION][..], &bytes].concat()));
            let _ = Statement::decode(bytes.into());
        }
    }
}
