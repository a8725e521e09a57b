//! Events as they come, as server-sent events.

use super::{
    error::{Failure, Result},
    extract::{bad_header, header_number},
    follow::{self, Follow, Step},
    read::{Wanted, live},
    state::App,
};
use crate::{
    core::{StreamName, limits},
    node::{Chunk, From, Item, Node},
    wire::SseGap,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use std::{convert::Infallible, time::Duration};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub async fn respond(app: &App, node: &Node, stream: &StreamName, wanted: Wanted, headers: &HeaderMap) -> Result {
    let from = resume(headers)?.or(wanted.from).unwrap_or(From::New);
    let follow = Follow::open(app, node, stream, from, wanted.filter).await?;
    let messages = Messages { follow, left: wanted.limit.unwrap_or(u64::MAX), ended: false };
    let rest = stream::unfold(messages, |mut messages| async move {
        let bytes = messages.next().await?;
        Some((Ok::<_, Infallible>(bytes), messages))
    });
    // The first bytes at once: they tell the client that it is connected, and how soon to come back.
    let hello = Bytes::from_static(b"retry: 1000\n: connected\n\n");
    Ok(live("text/event-stream", Body::from_stream(stream::iter([Ok(hello)]).chain(rest))))
}

/// Where a client that was connected before goes on.
fn resume(headers: &HeaderMap) -> Result<Option<From>> {
    let Some(last) = header_number(headers, &LAST_EVENT_ID)? else { return Ok(None) };
    match last.checked_add(1) {
        Some(next) => Ok(Some(From::Seq(next))),
        None => Err(bad_header(&LAST_EVENT_ID, "no event has this seq")),
    }
}

struct Messages {
    follow: Follow,
    /// Events that it may still give.
    left: u64,
    ended: bool,
}

impl Messages {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended || self.left == 0 {
            return None;
        }
        let events = self.left.min(limits::PUSH_EVENTS_MAX as u64) as usize;
        match self.follow.step(events, Duration::from_millis(limits::COMMENT_EVERY_MS)).await {
            Step::Items(chunk) => {
                let given = chunk.items.iter().filter(|item| matches!(item, Item::Event(_))).count();
                self.left -= given as u64;
                Some(write(&chunk))
            }
            Step::Idle | Step::Refused(_) => Some(Bytes::from_static(b": still here\n\n")),
            Step::Leaving => None,
            Step::Failed(error) => {
                self.ended = true;
                let problem = serde_json::to_string(&Failure::from(error).0).expect("a problem has only fields that JSON can hold");
                Some(Bytes::from(format!("event: problem\ndata: {problem}\n\n")))
            }
        }
    }
}

fn write(chunk: &Chunk) -> Bytes {
    let mut out = BytesMut::new();
    for item in &chunk.items {
        match item {
            Item::Event(delivery) => {
                out.put_slice(format!("id: {}\ndata: ", delivery.event.seq).as_bytes());
                out.put_slice(follow::json(delivery));
                out.put_slice(b"\n\n");
            }
            // With the id of the last one that is gone, a client that comes back goes on behind the gap.
            Item::Gap { from, to } => {
                out.put_slice(format!("event: gap\nid: {to}\ndata: ").as_bytes());
                let gap = SseGap { from: *from, to: *to, first_seq: to.saturating_add(1) };
                serde_json::to_writer((&mut out).writer(), &gap).expect("numbers are written to memory");
                out.put_slice(b"\n\n");
            }
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{Event, Time},
        node::Delivery,
    };
    use std::sync::{Arc, OnceLock};

    #[test]
    fn messages_have_ids_and_gaps_are_told() {
        let event = Event {
            seq: 5,
            time: Time(0),
            subject: None,
            id: None,
            content_type: "".into(),
            headers: vec![],
            data: Bytes::from_static(b"a\nb"),
        };
        let delivery = Arc::new(Delivery { event, json: OnceLock::new() });
        let chunk = Chunk { items: vec![Item::Gap { from: 1, to: 4 }, Item::Event(delivery)], next: 6, last_seq: 5 };
        assert_eq!(
            write(&chunk),
            "event: gap\nid: 4\ndata: {\"from\":1,\"to\":4,\"first_seq\":5}\n\nid: 5\ndata: {\"seq\":5,\"time\":\"1970-01-01T00:00:00.000000Z\",\"data\":\"a\\nb\"}\n\n"
        );
    }

    #[test]
    fn last_event_id_resumes_behind_it() {
        for (given, expected) in
            [("0", Some(From::Seq(1))), ("41", Some(From::Seq(42))), ("x", None), ("-1", None), ("18446744073709551615", None), ("", None)]
        {
            let headers = HeaderMap::from_iter([(LAST_EVENT_ID, given.parse().unwrap())]);
            assert_eq!(resume(&headers).ok().flatten(), expected, "{given:?}");
        }
    }
}
