//! One publish request, encoded once where it came in and carried as it is to the log; and the events in it.
//!
//! Version 1: the version; flags; origin node, epoch, counter, floor; the expected last seq if there is one; number and bytes of
//! the events; then every event with its length before it: flags, id, subject, content type, headers, and the data to its end.
//! Numbers are varints, and flags say which parts are there. Decoding copies nothing, never panics, and checks that number and
//! bytes of the events are what the head says.

use super::{
    Text,
    codec::{Corrupt, Reader, Writer},
    event::NewEvent,
};
use bytes::Bytes;

const VERSION: u8 = 1;
const WHAT: &str = "a publish request";

/// Flag of a request's head.
const EXPECTS: u8 = 1;

/// Flags of an event.
const ID: u8 = 1;
const SUBJECT: u8 = 2;
const CONTENT_TYPE: u8 = 4;
const HEADERS: u8 = 8;

/// Fewest bytes of an encoded event: its length and its flags.
const EVENT_ENCODED_MIN: usize = 2;

/// Who sent a request, so that it can be sent again to another leader and still be done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node that took the request from its client.
    pub node: u64,
    /// That node's boot: larger at every start.
    pub epoch: u64,
}

/// What stands before the events of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub origin: Origin,
    /// Larger with every request of this origin to this stream.
    pub counter: u64,
    /// Every counter below is settled at the origin: its outcome need not be remembered, and it must not be applied any more.
    pub floor: u64,
    /// Taken only if the stream's last seq is this.
    pub expected_last_seq: Option<u64>,
    /// Number of events.
    pub count: u32,
    /// Sum of the events' sizes, as `event_bytes` counts them.
    pub bytes: u64,
}

/// The size that a stream's `bytes` and `max_bytes` count for one event: everything of it but its seq and time.
pub fn event_bytes(event: &NewEvent) -> u64 {
    event.bytes()
}

/// Encodes a request, version 1. The head's `count` and `bytes` are taken from the events.
pub fn encode_request(head: &RequestHead, events: &[NewEvent]) -> Bytes {
    let bytes: u64 = events.iter().map(event_bytes).sum();
    let encoded: usize = events.iter().map(|event| encoded_len(event) + 5).sum();
    let mut out = Writer::with_capacity(encoded + 64);
    out.u8(VERSION);
    out.u8(if head.expected_last_seq.is_some() { EXPECTS } else { 0 });
    for number in [head.origin.node, head.origin.epoch, head.counter, head.floor] {
        out.varint(number);
    }
    if let Some(seq) = head.expected_last_seq {
        out.varint(seq);
    }
    out.varint(events.len() as u64);
    out.varint(bytes);
    for event in events {
        encode_event(&mut out, event);
    }
    out.finish()
}

fn encode_event(out: &mut Writer, event: &NewEvent) {
    out.varint(encoded_len(event) as u64);
    out.u8(flags(event));
    for text in [&event.id, &event.subject].into_iter().flatten() {
        out.str(text);
    }
    if !event.content_type.is_empty() {
        out.str(&event.content_type);
    }
    if !event.headers.is_empty() {
        out.varint(event.headers.len() as u64);
        for (name, value) in &event.headers {
            out.str(name);
            out.str(value);
        }
    }
    out.raw(&event.data);
}

fn flags(event: &NewEvent) -> u8 {
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    flag(event.id.is_some(), ID)
        | flag(event.subject.is_some(), SUBJECT)
        | flag(!event.content_type.is_empty(), CONTENT_TYPE)
        | flag(!event.headers.is_empty(), HEADERS)
}

/// Bytes of an encoded event after its length; `encode_event` writes exactly as many.
fn encoded_len(event: &NewEvent) -> usize {
    let text = |text: &str| varint_len(text.len()) + text.len();
    let mut len = 1 + event.data.len();
    len += [&event.id, &event.subject].into_iter().flatten().map(|t| text(t)).sum::<usize>();
    if !event.content_type.is_empty() {
        len += text(&event.content_type);
    }
    if !event.headers.is_empty() {
        len += varint_len(event.headers.len()) + event.headers.iter().map(|(name, value)| text(name) + text(value)).sum::<usize>();
    }
    len
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Decodes only what stands before the events.
pub fn decode_head(request: &Bytes) -> Result<RequestHead, Corrupt> {
    read_head(&mut Reader::new(WHAT, request.clone()))
}

fn read_head(reader: &mut Reader) -> Result<RequestHead, Corrupt> {
    if reader.u8()? != VERSION {
        return Err(reader.corrupt("its version is not known"));
    }
    let flags = reader.u8()?;
    if flags & !EXPECTS != 0 {
        return Err(reader.corrupt("a flag is not known"));
    }
    let origin = Origin { node: reader.varint()?, epoch: reader.varint()? };
    let (counter, floor) = (reader.varint()?, reader.varint()?);
    let expected_last_seq = if flags & EXPECTS != 0 { Some(reader.varint()?) } else { None };
    let count = u32::try_from(reader.varint()?).map_err(|_| reader.corrupt("it has too many events"))?;
    let bytes = reader.varint()?;
    if count as usize > reader.remaining() / EVENT_ENCODED_MIN {
        return Err(reader.corrupt("it has fewer events than it says"));
    }
    Ok(RequestHead { origin, counter, floor, expected_last_seq, count, bytes })
}

/// One event inside a request, before it has a seq: what applying needs, without decoding the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    pub id: Option<Text>,
    pub bytes: u64,
}

/// The ids and sizes of a request's events, in order.
pub fn event_heads(request: &Bytes) -> Result<Vec<EventHead>, Corrupt> {
    read_events(request, read_event_head, |event| event.bytes)
}

/// Decodes the events of a request, in order, without copying: the fields share the request's bytes.
pub fn decode_events(request: &Bytes) -> Result<Vec<NewEvent>, Corrupt> {
    read_events(request, read_event, event_bytes)
}

/// Reads all events with `read`, and checks number and bytes against the head.
fn read_events<T>(request: &Bytes, read: fn(Reader) -> Result<T, Corrupt>, bytes: fn(&T) -> u64) -> Result<Vec<T>, Corrupt> {
    let mut reader = Reader::new(WHAT, request.clone());
    let head = read_head(&mut reader)?;
    let mut events = Vec::with_capacity(head.count as usize);
    let mut sum = 0u64;
    for _ in 0..head.count {
        let event = read(Reader::new(WHAT, reader.bytes()?))?;
        sum += bytes(&event);
        events.push(event);
    }
    if sum != head.bytes {
        return Err(reader.corrupt("its events have not the bytes that it says"));
    }
    reader.end()?;
    Ok(events)
}

fn read_event_flags(reader: &mut Reader) -> Result<u8, Corrupt> {
    match reader.u8()? {
        flags if flags & !(ID | SUBJECT | CONTENT_TYPE | HEADERS) == 0 => Ok(flags),
        _ => Err(reader.corrupt("a flag is not known")),
    }
}

fn read_event_head(mut reader: Reader) -> Result<EventHead, Corrupt> {
    let flags = read_event_flags(&mut reader)?;
    let id = if flags & ID != 0 { Some(reader.text()?) } else { None };
    let mut bytes = id.as_ref().map_or(0, |id| id.len());
    for flag in [SUBJECT, CONTENT_TYPE] {
        if flags & flag != 0 {
            bytes += reader.bytes()?.len();
        }
    }
    if flags & HEADERS != 0 {
        for _ in 0..reader.count()? {
            bytes += reader.bytes()?.len() + reader.bytes()?.len();
        }
    }
    Ok(EventHead { id, bytes: (bytes + reader.remaining()) as u64 })
}

fn read_event(mut reader: Reader) -> Result<NewEvent, Corrupt> {
    let flags = read_event_flags(&mut reader)?;
    let text = |reader: &mut Reader, flag: u8| if flags & flag != 0 { reader.text().map(Some) } else { Ok(None) };
    let id = text(&mut reader, ID)?;
    let subject = text(&mut reader, SUBJECT)?;
    let content_type = text(&mut reader, CONTENT_TYPE)?.unwrap_or_default();
    let mut headers = Vec::new();
    if flags & HEADERS != 0 {
        for _ in 0..reader.count()? {
            headers.push((reader.text()?, reader.text()?));
        }
    }
    Ok(NewEvent { subject, id, content_type, headers, data: reader.rest() })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::golden;
    use proptest::prelude::*;

    /// Events with small alphabets, so that ids and subjects repeat.
    pub fn any_event() -> impl Strategy<Value = NewEvent> {
        let text = || proptest::option::of("[a-c]{1,2}".prop_map(Text::from));
        let headers = proptest::collection::vec(("[a-z]{1,4}".prop_map(Text::from), "[ -~é]{0,8}".prop_map(Text::from)), 0..3);
        let data = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        (text(), text(), "[a-z/]{0,6}".prop_map(Text::from), headers, data)
            .prop_map(|(subject, id, content_type, headers, data)| NewEvent { subject, id, content_type, headers, data })
    }

    fn any_head() -> impl Strategy<Value = RequestHead> {
        let expected = proptest::option::of(any::<u64>());
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), expected).prop_map(|(node, epoch, counter, floor, expected_last_seq)| {
            RequestHead { origin: Origin { node, epoch }, counter, floor, expected_last_seq, count: 0, bytes: 0 }
        })
    }

    fn full_event() -> NewEvent {
        NewEvent {
            subject: Some("orders.eu".into()),
            id: Some("o-1".into()),
            content_type: "application/json".into(),
            headers: vec![("trace".into(), "7".into()), ("x".into(), "".into())],
            data: Bytes::from_static(b"{\"order\":1}"),
        }
    }

    fn full_head() -> RequestHead {
        let origin = Origin { node: 3, epoch: 1_763_000_000_000 };
        RequestHead { origin, counter: 200, floor: 198, expected_last_seq: Some(0), count: 2, bytes: 51 }
    }

    #[test]
    fn a_request_is_the_golden() {
        let events = [full_event(), NewEvent { data: Bytes::from_static(b"hello"), ..NewEvent::default() }];
        let full = encode_request(&full_head(), &events);
        let head = RequestHead { expected_last_seq: None, counter: 0, floor: 0, count: 0, bytes: 0, ..full_head() };
        let empty = encode_request(&head, &[]);
        golden::check("request_v1.txt", &[("full", full.clone()), ("empty", empty.clone())]);
        assert_eq!(decode_head(&full), Ok(full_head()));
        assert_eq!(decode_events(&full).unwrap(), events);
        assert_eq!(decode_head(&empty), Ok(head));
        assert_eq!(decode_events(&empty), Ok(vec![]));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let good = encode_request(&full_head(), &[full_event()]);
        for end in 0..good.len() {
            let cut = good.slice(..end);
            assert!(event_heads(&cut).is_err() && decode_events(&cut).is_err(), "cut at {end}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            Bytes::from(bytes)
        };
        assert!(decode_head(&with(0, 2)).is_err(), "an unknown version");
        assert!(decode_head(&with(1, 2)).is_err(), "an unknown flag");
        assert!(decode_events(&Bytes::from([&good[..], &[0]].concat())).is_err(), "bytes after the end");
        // More events than bytes: refused before anything is allocated for them.
        assert!(decode_head(&Bytes::from_static(&[1, 0, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0])).is_err());
    }

    #[test]
    fn lengths_of_varints_are_as_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, usize::MAX] {
            let mut out = Writer::default();
            out.varint(value as u64);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }

    proptest! {
        #[test]
        fn requests_come_back_as_they_were(head in any_head(), events in proptest::collection::vec(any_event(), 0..20)) {
            let request = encode_request(&head, &events);
            let bytes = events.iter().map(event_bytes).sum();
            prop_assert_eq!(decode_head(&request).unwrap(), RequestHead { count: events.len() as u32, bytes, ..head });
            prop_assert_eq!(&decode_events(&request).unwrap(), &events);
            let heads: Vec<_> = events.iter().map(|e| EventHead { id: e.id.clone(), bytes: event_bytes(e) }).collect();
            prop_assert_eq!(event_heads(&request).unwrap(), heads);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut start = vec![VERSION, 0];
            start.extend(&bytes);
            for bytes in [Bytes::from(bytes), Bytes::from(start)] {
                let _ = decode_head(&bytes);
                let _ = decode_events(&bytes);
                let _ = event_heads(&bytes);
            }
        }
    }
}
