//! What a stream's group agrees on: the commands in its log, and their encoding.
//!
//! Version 1: the version, a tag, and the fields as varints; times are fixed, requests and texts have their length before them. Version 2 is
//! a version 1, packed (`pack`).

use super::{
    SubjectFilter, Time,
    codec::{Corrupt, Reader, Writer},
    pack,
};
use bytes::Bytes;

const VERSION: u8 = 1;

const PUBLISH: u8 = 1;
const TRIM: u8 = 2;
const PURGE_SUBJECT: u8 = 3;

/// Flags of a publish.
const MAX_EVENTS: u8 = 1;
const MAX_BYTES: u8 = 2;

/// An entry of a stream's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Publish(Publish),
    /// Removes every event before `before_seq`.
    Trim {
        before_seq: u64,
        /// Cumulative bytes of the stream at the event `before_seq` (all events before it, ever).
        bytes_before: u64,
    },
    /// Removes every event before `before_seq` whose subject the filter takes.
    PurgeSubject {
        filter: SubjectFilter,
        before_seq: u64,
        /// How many events and bytes that is: counted by the proposer, which read them.
        events: u64,
        bytes: u64,
    },
}

/// Everything that waited for a stream when the last entry was on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The leader's clock, at least the time of the entry before.
    pub time: Time,
    /// The stream's settings that decide, as the leader had them.
    pub dedup_window_ms: u64,
    /// Bounds for `discard: new`; `None` otherwise.
    pub max_events: Option<u64>,
    pub max_bytes: Option<u64>,
    /// Encoded requests (`batch::encode_request`), in order.
    pub requests: Vec<Bytes>,
}

impl Command {
    pub fn encode(&self) -> Bytes {
        match self {
            Command::Publish(publish) => publish.encode(),
            Command::Trim { before_seq, bytes_before } => {
                let mut out = start(TRIM, 24);
                out.varint(*before_seq);
                out.varint(*bytes_before);
                out.finish()
            }
            Command::PurgeSubject { filter, before_seq, events, bytes } => {
                let mut out = start(PURGE_SUBJECT, 36 + filter.as_str().len());
                out.str(filter.as_str());
                out.varint(*before_seq);
                out.varint(*events);
                out.varint(*bytes);
                out.finish()
            }
        }
    }

    /// Decodes a command, packed or not; its requests share the unpacked bytes, and are not looked into.
    pub fn decode(bytes: Bytes) -> Result<Command, Corrupt> {
        let mut reader = Reader::new("a command of a stream", bytes);
        match reader.u8()? {
            VERSION => Command::decode_fields(reader),
            pack::VERSION => {
                let mut reader = Reader::new("an unpacked command of a stream", pack::unpack(reader)?);
                if reader.u8()? != VERSION {
                    return Err(reader.corrupt("its version is not known"));
                }
                Command::decode_fields(reader)
            }
            _ => Err(reader.corrupt("its version is not known")),
        }
    }

    /// What comes after the version.
    fn decode_fields(mut reader: Reader) -> Result<Command, Corrupt> {
        let command = match reader.u8()? {
            PUBLISH => Command::Publish(Publish::decode(&mut reader)?),
            TRIM => Command::Trim { before_seq: reader.varint()?, bytes_before: reader.varint()? },
            PURGE_SUBJECT => Command::PurgeSubject {
                filter: read_filter(&mut reader)?,
                before_seq: reader.varint()?,
                events: reader.varint()?,
                bytes: reader.varint()?,
            },
            _ => return Err(reader.corrupt("its tag is not known")),
        };
        reader.end()?;
        Ok(command)
    }
}

impl Publish {
    fn encode(&self) -> Bytes {
        let requests: usize = self.requests.iter().map(|request| request.len() + 5).sum();
        let mut out = start(PUBLISH, requests + 48);
        let flag = |bound: Option<u64>, flag: u8| if bound.is_some() { flag } else { 0 };
        out.u8(flag(self.max_events, MAX_EVENTS) | flag(self.max_bytes, MAX_BYTES));
        out.i64(self.time.0);
        out.varint(self.dedup_window_ms);
        for bound in [self.max_events, self.max_bytes].into_iter().flatten() {
            out.varint(bound);
        }
        out.varint(self.requests.len() as u64);
        for request in &self.requests {
            out.bytes(request);
        }
        out.finish()
    }

    fn decode(reader: &mut Reader) -> Result<Publish, Corrupt> {
        let flags = reader.u8()?;
        if flags & !(MAX_EVENTS | MAX_BYTES) != 0 {
            return Err(reader.corrupt("a flag is not known"));
        }
        let time = Time(reader.i64()?);
        let dedup_window_ms = reader.varint()?;
        let bound = |reader: &mut Reader, flag: u8| if flags & flag != 0 { reader.varint().map(Some) } else { Ok(None) };
        let max_events = bound(reader, MAX_EVENTS)?;
        let max_bytes = bound(reader, MAX_BYTES)?;
        let requests = (0..reader.count()?).map(|_| reader.bytes()).collect::<Result<_, _>>()?;
        Ok(Publish { time, dedup_window_ms, max_events, max_bytes, requests })
    }
}

fn start(tag: u8, capacity: usize) -> Writer {
    let mut out = Writer::with_capacity(capacity);
    out.u8(VERSION);
    out.u8(tag);
    out
}

/// A filter that was checked before it was written.
pub(super) fn read_filter(reader: &mut Reader) -> Result<SubjectFilter, Corrupt> {
    let text = reader.text()?;
    SubjectFilter::new(&text).map_err(|_| reader.corrupt("a subject filter is not valid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::golden;
    use proptest::prelude::*;

    fn filter(text: &str) -> SubjectFilter {
        SubjectFilter::new(text).unwrap()
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let requests = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from), 0..5);
        let bound = || proptest::option::of(any::<u64>());
        let publish = (any::<i64>(), any::<u64>(), bound(), bound(), requests);
        prop_oneof![
            publish.prop_map(|(time, dedup_window_ms, max_events, max_bytes, requests)| {
                Command::Publish(Publish { time: Time(time), dedup_window_ms, max_events, max_bytes, requests })
            }),
            (any::<u64>(), any::<u64>()).prop_map(|(before_seq, bytes_before)| Command::Trim { before_seq, bytes_before }),
            ("[a-z]{1,4}(\\.[a-z]{1,4}|\\.\\*){0,3}(\\.>)?", any::<u64>(), any::<u64>(), any::<u64>())
                .prop_map(|(text, before_seq, events, bytes)| Command::PurgeSubject { filter: filter(&text), before_seq, events, bytes }),
        ]
    }

    #[test]
    fn commands_are_the_goldens() {
        let publish = Publish {
            time: Time(1_763_806_530_123_456),
            dedup_window_ms: 120_000,
            max_events: Some(1_000),
            max_bytes: Some(1 << 30),
            requests: vec![Bytes::from_static(b"one"), Bytes::from_static(b"")],
        };
        let plain = Publish { max_events: None, max_bytes: None, requests: vec![], ..publish.clone() };
        let cases = [
            ("publish", Command::Publish(publish)),
            ("publish_plain", Command::Publish(plain)),
            ("trim", Command::Trim { before_seq: 42, bytes_before: 70_000 }),
            ("purge_subject", Command::PurgeSubject { filter: filter("a.*.>"), before_seq: 300, events: 5, bytes: 600 }),
        ];
        golden::check("command_v1.txt", &cases.clone().map(|(name, command)| (name, command.encode())));
        for (name, command) in cases {
            let encoded = command.encode();
            assert_eq!(Command::decode(encoded.clone()).as_ref(), Ok(&command), "{name}");
            for end in 0..encoded.len() {
                assert!(Command::decode(encoded.slice(..end)).is_err(), "{name} cut at {end}");
            }
            assert!(Command::decode(Bytes::from([&encoded[..], &[0]].concat())).is_err(), "{name} with bytes after its end");
        }
    }

    #[test]
    fn unknown_versions_tags_flags_and_filters_are_refused() {
        for bytes in [&[3, 1][..], &[1, 9], &[1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 3, 2, b'>', b'.', 1, 1, 1]] {
            assert!(Command::decode(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }

    /// A command of requests that have much in common.
    fn readings(count: usize) -> Command {
        let request = |at: usize| Bytes::from(format!("{{\"machine\":\"m-{at:04}\",\"temperature\":{}.{}}}", 60 + at % 7, at % 10));
        let requests = (0..count).map(request).collect();
        Command::Publish(Publish { time: Time(1), dedup_window_ms: 120_000, max_events: None, max_bytes: None, requests })
    }

    #[test]
    fn what_is_packed_comes_back_and_the_golden_unpacks() {
        let packed = pack::pack(readings(200).encode());
        // Of another build of the library: what it makes may change, what it made must unpack.
        let before = include_str!("goldens/command_v2.txt").trim_end().strip_prefix("readings ").unwrap();
        let before: Vec<u8> = (0..before.len()).step_by(2).map(|at| u8::from_str_radix(&before[at..at + 2], 16).unwrap()).collect();
        assert_eq!(Command::decode(before.into()), Ok(readings(200)));
        assert!(packed.len() * 2 < readings(200).encode().len(), "{}", packed.len());
        assert_eq!(Command::decode(packed.clone()), Ok(readings(200)));
        for end in 0..packed.len() {
            assert!(Command::decode(packed.slice(..end)).is_err(), "cut at {end}");
        }
        assert!(Command::decode(Bytes::from([&packed[..], &[0]].concat())).is_err(), "bytes after its end");
    }

    #[test]
    fn what_is_small_or_noise_is_not_packed() {
        let small = readings(20).encode();
        assert_eq!(pack::pack(small.clone()), small);
        let mut noise = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            // The generator Xorshift64, by Marsaglia.
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        })
        .take(20_000)
        .collect();
        assert_eq!(pack::pack(noise.clone().into()), noise);
    }

    #[test]
    fn a_packed_command_is_of_bounded_size_and_packed_once() {
        let packed = |length: u64, block: &[u8]| {
            let mut out = Writer::default();
            out.u8(2);
            out.varint(length);
            out.raw(block);
            Command::decode(out.finish())
        };
        assert!(packed(1 << 40, &[0; 8]).is_err());
        let twice = pack::pack(readings(200).encode());
        assert!(packed(twice.len() as u64, &lz4_flex::block::compress(&twice)).is_err());
    }

    proptest! {
        #[test]
        fn commands_come_back_as_they_were(command in any_command()) {
            prop_assert_eq!(Command::decode(command.encode()).unwrap(), command);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(tag in 0u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            let _ = Command::decode(Bytes::from([&[VERSION, tag], &bytes[..]].concat()));
            let _ = Command::decode(Bytes::from([&[2, 48], &bytes[..]].concat()));
            let _ = Command::decode(Bytes::from(bytes));
        }
    }
}
