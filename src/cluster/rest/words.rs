//! What nodes say to each other about groups at rest, and its bytes: from version 3 of the peer protocol on.

use crate::cluster::encoding::{get_log_id, message, put_log_id, writer};
use crate::cluster::types::LogId;
use crate::core::codec::{Corrupt, Reader};
use crate::core::limits;
use bytes::Bytes;

/// A leader asks a follower to rest: it leads in `term`, and its log ends at `last`, all of it committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub group: u64,
    pub term: u64,
    pub last: LogId,
}

/// A follower at rest, or one that was only opened, asks its leader whether it leads that group in that term still, and has no more than
/// these entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    pub group: u64,
    pub term: u64,
    /// The index after the last entry that the follower has applied.
    pub upto: u64,
}

pub fn encode_asks(asks: &[Ask]) -> Bytes {
    let mut w = writer();
    w.varint(asks.len() as u64);
    for ask in asks {
        w.varint(ask.group);
        w.varint(ask.term);
        put_log_id(&mut w, &ask.last);
    }
    w.finish()
}

pub fn decode_asks(bytes: Bytes) -> Result<Vec<Ask>, Corrupt> {
    decode("groups that may rest", bytes, |r| Ok(Ask { group: r.varint()?, term: r.varint()?, last: get_log_id(r)? }))
}

pub fn encode_rolls(rolls: &[Roll]) -> Bytes {
    let mut w = writer();
    w.varint(rolls.len() as u64);
    for roll in rolls {
        w.varint(roll.group);
        w.varint(roll.term);
        w.varint(roll.upto);
    }
    w.finish()
}

pub fn decode_rolls(bytes: Bytes) -> Result<Vec<Roll>, Corrupt> {
    decode("groups at rest", bytes, |r| Ok(Roll { group: r.varint()?, term: r.varint()?, upto: r.varint()? }))
}

/// The answer to both: those that rest now; those that are not led.
pub fn encode_groups(groups: &[u64]) -> Bytes {
    let mut w = writer();
    w.varint(groups.len() as u64);
    groups.iter().for_each(|group| w.varint(*group));
    w.finish()
}

pub fn decode_groups(bytes: Bytes) -> Result<Vec<u64>, Corrupt> {
    decode("an answer about groups at rest", bytes, Reader::varint)
}

fn decode<T>(what: &'static str, bytes: Bytes, one: impl Fn(&mut Reader) -> Result<T, Corrupt>) -> Result<Vec<T>, Corrupt> {
    let mut r = message(what, bytes)?;
    let count = r.count()?;
    if count > limits::REST_GROUPS_MAX {
        return Err(r.corrupt("it names too many groups"));
    }
    let all = (0..count).map(|_| one(&mut r)).collect::<Result<_, _>>()?;
    r.end()?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::types::LeaderId;
    use proptest::prelude::*;

    fn asks() -> Vec<Ask> {
        let last = |index| LogId::new(LeaderId { term: 5, node_id: 1 }, index);
        vec![Ask { group: 9, term: 6, last: last(300) }, Ask { group: 200, term: 7, last: last(1) }]
    }

    #[test]
    fn golden() {
        assert_eq!(encode_asks(&asks())[..], [1, 2, 9, 6, 5, 1, 0xac, 2, 0xc8, 1, 7, 5, 1, 1]);
        assert_eq!(encode_rolls(&[Roll { group: 9, term: 6, upto: 301 }])[..], [1, 1, 9, 6, 0xad, 2]);
        assert_eq!(encode_groups(&[9, 200])[..], [1, 2, 9, 0xc8, 1]);
    }

    #[test]
    fn what_was_said_is_heard() {
        assert_eq!(decode_asks(encode_asks(&asks())).unwrap(), asks());
        let rolls = [Roll { group: 3, term: 1, upto: 0 }];
        assert_eq!(decode_rolls(encode_rolls(&rolls)).unwrap(), rolls);
        assert_eq!(decode_groups(encode_groups(&[1, 2])).unwrap(), [1, 2]);
    }

    #[test]
    fn a_list_has_a_bound() {
        let many: Vec<u64> = (0..=limits::REST_GROUPS_MAX as u64).collect();
        assert!(decode_groups(encode_groups(&many)).is_err());
        assert!(decode_groups(encode_groups(&many[1..])).is_ok());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = (decode_asks(bytes.clone()), decode_rolls(bytes.clone()), decode_groups(bytes));
        }
    }
}
