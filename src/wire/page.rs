//! A page of events, and how a reader is told of what is gone.

use super::event::Event;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Events that retention or a purge removed before the reader came by: `from` to `to`, both included.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Gap {
    #[schema(minimum = 1, examples(10))]
    pub from: u64,
    #[schema(minimum = 1, examples(99))]
    pub to: u64,
}

/// A gap as server-sent events tell it, with where the stream goes on.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct SseGap {
    #[schema(minimum = 1, examples(10))]
    pub from: u64,
    #[schema(minimum = 1, examples(99))]
    pub to: u64,
    /// The first seq behind the gap.
    #[schema(minimum = 1, examples(100))]
    pub first_seq: u64,
}

/// A page of events.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Page {
    /// In order of `seq`.
    #[schema(max_items = 1000)]
    pub events: Vec<Event>,
    /// Where the next page begins: give it as `from`.
    #[schema(minimum = 1, examples(57))]
    pub next: u64,
    /// The stream's last seq; 0 when it never had an event.
    #[schema(minimum = 0, examples(120))]
    pub last_seq: u64,
    /// What was asked for and is gone; left out when there is nothing to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// A page from events that are encoded already.
pub fn encode_page<'a>(events: impl Iterator<Item = &'a Bytes>, gaps: &[Gap], next: u64, last_seq: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(4096);
    out.put_slice(b"{\"events\":");
    put_events(&mut out, events);
    out.put_slice(format!(",\"next\":{next},\"last_seq\":{last_seq}").as_bytes());
    if !gaps.is_empty() {
        out.put_slice(b",\"gaps\":");
        serde_json::to_writer((&mut out).writer(), gaps).expect("numbers are written to memory");
    }
    out.put_slice(b"}");
    out.freeze()
}

/// A JSON array of events that are encoded already.
pub(super) fn put_events<'a>(out: &mut BytesMut, events: impl Iterator<Item = &'a Bytes>) {
    out.put_u8(b'[');
    for (at, event) in events.enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(event);
    }
    out.put_u8(b']');
}

/// `{"gap":{"from":10,"to":99}}`: how NDJSON and the one-stream WebSocket tell of a gap.
pub fn encode_gap_line(gap: Gap) -> String {
    format!("{{\"gap\":{{\"from\":{},\"to\":{}}}}}", gap.from, gap.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_read_back() {
        let events = [1u64, 2].map(|seq| Bytes::from(format!(r#"{{"seq":{seq},"time":"1970-01-01T00:00:00.000000Z","data":{seq}}}"#)));
        let page: Page = serde_json::from_slice(&encode_page(events.iter(), &[], 3, 9)).unwrap();
        assert_eq!((page.events.len(), page.next, page.last_seq, page.gaps.len()), (2, 3, 9, 0));
        let gap = Gap { from: 1, to: 4 };
        assert_eq!(encode_page([].iter(), &[gap], 5, 4), r#"{"events":[],"next":5,"last_seq":4,"gaps":[{"from":1,"to":4}]}"#);
        assert_eq!(encode_gap_line(gap), r#"{"gap":{"from":1,"to":4}}"#);
    }
}
