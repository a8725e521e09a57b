//! The many-streams WebSocket: commands from the client, frames from the server, close codes.
//!
//! Every frame is one JSON object in one text message. A command has an `id` and exactly one verb; its answer has the same `id`.
//! Frames without `id` are pushes.

use super::{
    Gap, Node, Problem, Start, Timestamp,
    event::{Event, raw},
    page::put_events,
    publish::{BatchEvent, bounded, headers, there},
};
use crate::core::limits;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, SchemaType, Type},
};

/// The subprotocol of `/v1/ws`.
pub const SUBPROTOCOL: &str = "evermesh.v1.json";

/// A command from the client: an `id` and exactly one verb.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Chosen by the client; the answer has the same.
    #[schema(minimum = 0, maximum = 9007199254740991u64)]
    pub id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub publish: Option<Publish>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub publish_batch: Option<PublishBatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub subscribe: Option<Subscribe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub credit: Option<Credit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unsubscribe: Option<Unsubscribe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ping: Option<Empty>,
}

/// What a command asks for.
#[derive(Clone, Debug)]
pub enum Verb {
    Publish(Publish),
    PublishBatch(PublishBatch),
    Subscribe(Subscribe),
    Credit(Credit),
    Unsubscribe(Unsubscribe),
    Ping,
}

impl Command {
    /// The one verb; `None` when there is none, or more than one.
    pub fn verb(self) -> Option<Verb> {
        let mut verbs = [
            self.publish.map(Verb::Publish),
            self.publish_batch.map(Verb::PublishBatch),
            self.subscribe.map(Verb::Subscribe),
            self.credit.map(Verb::Credit),
            self.unsubscribe.map(Verb::Unsubscribe),
            self.ping.map(|_| Verb::Ping),
        ]
        .into_iter()
        .flatten();
        let verb = verbs.next();
        if verbs.next().is_some() { None } else { verb }
    }
}

/// The `id` of a frame that is no command, so that its sender learns which one it was.
#[derive(Deserialize)]
pub struct OnlyId {
    pub id: Option<u64>,
}

/// Nothing more to say.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Publishes one event. Exactly one of `data` and `data_base64`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    #[schema(schema_with = stream_name)]
    pub stream: String,
    /// Dot-separated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, examples("orders.eu.created"))]
    pub subject: Option<String>,
    /// The publisher's id for the event: a repeat inside the stream's `dedup_window` is not stored again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, examples("o-1001"))]
    pub event_id: Option<String>,
    /// Names are taken without regard to case, and kept in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = headers)]
    pub headers: BTreeMap<String, String>,
    /// Default: `application/json` for `data`, none for `data_base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 256, examples("application/json"))]
    pub content_type: Option<String>,
    /// Any JSON value. With a JSON content type the value is kept as it is written; with another, a string stands for its text.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    #[schema(value_type = Value, examples(json!({"order": 1001})))]
    pub data: Option<Box<RawValue>>,
    /// Any bytes, in standard base64.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    #[schema(nullable = false, content_encoding = "base64", examples("AAEC"))]
    pub data_base64: Option<String>,
    /// Taken only if the stream's last seq is this; 0: if the stream is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub expected_last_seq: Option<u64>,
}

/// Publishes up to 1,000 events, all or none.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishBatch {
    #[schema(schema_with = stream_name)]
    pub stream: String,
    #[serde(deserialize_with = "bounded")]
    #[schema(min_items = 1, max_items = 1000)]
    pub events: Vec<BatchEvent>,
    /// Taken only if the stream's last seq is this; 0: if the stream is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub expected_last_seq: Option<u64>,
}

/// Follows a stream's events.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    #[schema(schema_with = stream_name)]
    pub stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = from)]
    pub from: Option<Start>,
    /// Only events whose subject this filter takes: `*` stands for one token, `>` at the end for one or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, examples("orders.eu.>"))]
    pub subject: Option<String>,
    /// How many events the server may send; without it, the socket's own backpressure serves. A subscription holds at most
    /// 1,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, examples(1000))]
    pub credit: Option<u64>,
}

/// Lets the server send so many events more.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// The subscription's number on this connection.
    #[schema(minimum = 1)]
    pub sub: u64,
    #[schema(minimum = 1, maximum = 1000000000)]
    pub add: u64,
}

/// Ends a subscription: nothing of it comes after the answer.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// The subscription's number on this connection.
    #[schema(minimum = 1)]
    pub sub: u64,
}

/// A frame from the server: an answer (with `id`) or a push, as clients read it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct Frame {
    /// That of the command which this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ack: Option<Ack>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub subscribed: Option<Subscribed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ok: Option<Empty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pong: Option<Pong>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Problem>,
    /// The subscription of a push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub sub: Option<u64>,
    /// In order of seq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1)]
    pub events: Option<Vec<Event>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub gap: Option<Gap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub nodes: Option<Vec<NodeAddress>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub goaway: Option<Goaway>,
}

/// What became of a publish: `seq` and `duplicate` of one event, the others of a batch.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Ack {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub seq: Option<u64>,
    /// Whether the event was known already by its id; then `seq` is the first one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub duplicate: Option<bool>,
    /// Of the events that were stored; when all were duplicates, of the first and the last original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub first_seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub last_seq: Option<u64>,
    /// Events that were stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 1000)]
    pub count: Option<u32>,
    /// Events that were known already by their id and not stored again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 1000)]
    pub duplicates: Option<u32>,
}

/// A subscription began.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Subscribed {
    /// The subscription's number on this connection.
    #[schema(minimum = 1)]
    pub sub: u64,
    /// The first seq that it may bring.
    #[schema(minimum = 1)]
    pub from: u64,
    /// When the stream was created. Another time than at an earlier subscription: it was deleted and made anew, and its seqs are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub created: Option<Timestamp>,
}

/// The node is there.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pong {
    pub time: Timestamp,
}

/// A node that a client may use.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeAddress {
    #[schema(examples("n1"))]
    pub name: String,
    /// Where its API is.
    #[schema(examples("http://127.0.0.1:4701"))]
    pub url: String,
}

impl From<&Node> for NodeAddress {
    fn from(node: &Node) -> NodeAddress {
        NodeAddress { name: node.name.clone(), url: node.url.clone() }
    }
}

/// The node drains: the connection is closed within this time, so open another one elsewhere.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Goaway {
    #[schema(examples(3000))]
    pub reconnect_within_ms: u64,
}

/// The schema of a stream's name.
fn stream_name() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("The stream's name."))
        .min_length(Some(1))
        .max_length(Some(limits::NAME_BYTES_MAX))
        .pattern(Some(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))
        .examples(["orders"])
        .build()
}

/// The schema of a start: a seq may be a number or a string.
fn from() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::String]))
        .description(Some(
            "A seq, `earliest`, `latest` (the last event and on), `new` (only what comes) or an RFC 3339 time. A seq further on than the next \
             event is an error.",
        ))
        .minimum(Some(1))
        .default(Some("new".into()))
        .examples([serde_json::json!("new"), serde_json::json!(43)])
        .build()
}

impl Frame {
    /// The frame's text.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a frame has only fields that JSON can hold")
    }

    /// The answer to a command.
    pub fn answer(id: u64) -> Frame {
        Frame { id: Some(id), ..Frame::default() }
    }
}

/// `{"sub":1,"events":[…]}` from events that are encoded already.
pub fn encode_events<'a>(sub: u64, events: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut out = BytesMut::with_capacity(4096);
    out.put_slice(format!("{{\"sub\":{sub},\"events\":").as_bytes());
    put_events(&mut out, events);
    out.put_u8(b'}');
    out.freeze()
}

/// How a connection ends, and what a client does next: 1001, 1011, 1013 and 4100–4199 back off and come back, 4200–4299 come back
/// at once, 1000, 1008, 1009 and 4000–4099 do not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: &'static str,
}

impl Close {
    /// What a client does next, in words.
    pub fn then(self) -> &'static str {
        match self.code {
            1001 => "come back, at another node",
            1011 | 1013 | 4100..=4199 => "back off, then come back",
            4200..=4299 => "come back at once, at another node",
            _ => "stay away",
        }
    }
}

pub mod close {
    use super::Close;

    pub const NORMAL: Close = Close { code: 1000, reason: "done" };
    pub const GOING_AWAY: Close = Close { code: 1001, reason: "the node is leaving: use another" };
    pub const POLICY: Close = Close { code: 1008, reason: "too many frames were not commands" };
    pub const TOO_BIG: Close = Close { code: 1009, reason: "the message is too large" };
    pub const INTERNAL: Close = Close { code: 1011, reason: "the node failed" };
    pub const TRY_LATER: Close = Close { code: 1013, reason: "the node has too much to do" };
    pub const STREAM_GONE: Close = Close { code: 4000, reason: "the stream was deleted" };
    pub const STALLED: Close = Close { code: 4100, reason: "nothing could be written for too long" };
    pub const SILENT: Close = Close { code: 4101, reason: "no answer to pings" };
    pub const UNAVAILABLE: Close = Close { code: 4102, reason: "the stream cannot be read here now" };
    pub const ELSEWHERE: Close = Close { code: 4200, reason: "use another node" };

    /// Every code, for the document and the tests.
    pub const ALL: [Close; 11] =
        [NORMAL, GOING_AWAY, POLICY, TOO_BIG, INTERNAL, TRY_LATER, STREAM_GONE, STALLED, SILENT, UNAVAILABLE, ELSEWHERE];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_contract_are_read() {
        for (json, verb) in [
            (r#"{"id":1,"publish":{"stream":"orders","subject":"a","event_id":"x","data":{"a": 1}}}"#, "Publish("),
            (r#"{"id":2,"publish_batch":{"stream":"orders","events":[{"data":1}]}}"#, "PublishBatch("),
            (r#"{"id":3,"subscribe":{"stream":"orders","from":"new","subject":"orders.>","credit":1000}}"#, "Subscribe("),
            (r#"{"id":3,"subscribe":{"stream":"orders","from":43}}"#, "Subscribe("),
            (r#"{"id":4,"credit":{"sub":1,"add":1000}}"#, "Credit("),
            (r#"{"id":5,"unsubscribe":{"sub":1}}"#, "Unsubscribe("),
            (r#"{"id":6,"ping":{}}"#, "Ping"),
        ] {
            let command: Command = serde_json::from_str(json).unwrap();
            assert!(format!("{:?}", command.verb().unwrap()).starts_with(verb), "{json}");
        }
        for bad in [r#"{"id":1}"#, r#"{"id":1,"ping":{},"unsubscribe":{"sub":1}}"#] {
            assert!(serde_json::from_str::<Command>(bad).unwrap().verb().is_none());
        }
        for bad in [
            r#"{"ping":{}}"#,
            r#"{"id":-1,"ping":{}}"#,
            r#"{"id":1,"dance":{}}"#,
            r#"{"id":1,"subscribe":{}}"#,
            r#"{"id":1,"ping":{"x":1}}"#,
        ] {
            assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn frames_show_only_what_they_have() {
        let ack = Frame { ack: Some(Ack { seq: Some(42), duplicate: Some(false), ..Ack::default() }), ..Frame::answer(1) };
        assert_eq!(ack.encode(), r#"{"id":1,"ack":{"seq":42,"duplicate":false}}"#);
        let ok = Frame { ok: Some(Empty {}), ..Frame::answer(4) };
        assert_eq!(ok.encode(), r#"{"id":4,"ok":{}}"#);
        let gap = Frame { sub: Some(1), gap: Some(Gap { from: 10, to: 99 }), ..Frame::default() };
        assert_eq!(gap.encode(), r#"{"sub":1,"gap":{"from":10,"to":99}}"#);
        assert_eq!(encode_events(1, [Bytes::from_static(b"{}"), Bytes::from_static(b"{}")].iter()), r#"{"sub":1,"events":[{},{}]}"#);
    }
}
