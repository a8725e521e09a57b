//! Where a reader starts, as it is written in `from=` and in a `subscribe` command.

use super::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Seq(u64),
    Earliest,
    /// The last event and on.
    Latest,
    /// Only what comes.
    New,
    Time(Timestamp),
}

impl Start {
    pub fn parse(text: &str) -> Option<Start> {
        match text {
            "earliest" => Some(Start::Earliest),
            "latest" => Some(Start::Latest),
            "new" => Some(Start::New),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().map(Start::Seq),
            _ => Timestamp::parse(text).map(Start::Time),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Seq(seq) => seq.fmt(f),
            Start::Earliest => f.write_str("earliest"),
            Start::Latest => f.write_str("latest"),
            Start::New => f.write_str("new"),
            Start::Time(time) => time.fmt(f),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Start::Seq(seq) => to.serialize_u64(*seq),
            _ => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Start, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Start;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a seq, \"earliest\", \"latest\", \"new\" or an RFC 3339 time")
            }
            fn visit_u64<E: de::Error>(self, seq: u64) -> Result<Start, E> {
                Ok(Start::Seq(seq))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Start, E> {
                Start::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Time;

    #[test]
    fn every_form_is_read_and_written() {
        for (text, start) in [
            ("1", Start::Seq(1)),
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("new", Start::New),
            ("1970-01-01T00:00:00.000001Z", Start::Time(Timestamp(Time(1)))),
        ] {
            assert_eq!(Start::parse(text), Some(start));
            assert_eq!(start.to_string(), text);
            let json = serde_json::to_string(&start).unwrap();
            assert_eq!(serde_json::from_str::<Start>(&json).unwrap(), start);
        }
        for bad in ["", "-1", "+1", "1.5", "newest", "99999999999999999999999"] {
            assert_eq!(Start::parse(bad), None, "{bad:?}");
        }
    }
}
