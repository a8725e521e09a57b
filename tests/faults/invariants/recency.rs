//! What was acknowledged to anyone is found on every node at once (the contract of `GET …/events/{seq}`): a node may say that it
//! cannot tell now, and never that the event is not there.

use super::{Kind, Violation};
use crate::value::Value;

/// What a node said about an acknowledged event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// 200 with the bytes of this value, or with bytes of none.
    Found(Option<Value>),
    /// 404: beyond the end of the stream, says the node.
    Beyond,
    /// 410: removed, says the node.
    Gone,
    /// No answer, or 503.
    Silent,
}

pub fn check(who: &str, value: Value, seq: u64, read: &Read) -> Result<(), Violation> {
    match read {
        Read::Found(Some(found)) if *found == value => Ok(()),
        Read::Silent => Ok(()),
        Read::Beyond => Err(Violation::new(Kind::Stale, format!("{who} does not have {seq}, where {value} had been acknowledged"))),
        Read::Gone => Err(Violation::new(Kind::Lost, format!("{who} says that {seq} is gone, where {value} had been acknowledged"))),
        Read::Found(Some(other)) => {
            Err(Violation::new(Kind::Diverged, format!("{who} gave {other} at {seq}, where {value} had been acknowledged")))
        }
        Read::Found(None) => Err(Violation::new(Kind::Wrong, format!("{who} gave other bytes at {seq} than those of {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_or_silence_will_do() {
        let (value, other) = (Value::new(1, 1), Value::new(1, 2));
        let kind = |read: Read| check("n2", value, 7, &read).err().map(|violation| violation.kind);
        assert_eq!(kind(Read::Found(Some(value))), None);
        assert_eq!(kind(Read::Silent), None);
        assert_eq!(kind(Read::Beyond), Some(Kind::Stale));
        assert_eq!(kind(Read::Gone), Some(Kind::Lost));
        assert_eq!(kind(Read::Found(Some(other))), Some(Kind::Diverged));
        assert_eq!(kind(Read::Found(None)), Some(Kind::Wrong));
    }
}
