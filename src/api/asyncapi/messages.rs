//! Every message of the WebSockets and of server-sent events: which fields of which public type it has, and an example.
//!
//! - A payload is made from the schemas of `wire`, so what the document says is what the code reads and writes.
//! - Each example is one that those types read, and write again.

use serde_json::{Map, Value, json};

/// The types of `wire` that messages are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Command,
    Frame,
    Event,
    SseGap,
    Problem,
}

/// One kind of message.
pub struct Message {
    pub name: &'static str,
    pub of: Type,
    /// The fields that it always has, `outer.inner` for those of an object in it; none: the type as it is.
    pub fields: &'static [&'static str],
    pub summary: &'static str,
    pub example: &'static str,
}

const fn message(name: &'static str, of: Type, fields: &'static [&'static str], summary: &'static str, example: &'static str) -> Message {
    Message { name, of, fields, summary, example }
}

/// What the many-streams WebSocket takes.
pub const COMMANDS: &[Message] = &[
    message(
        "publish",
        Type::Command,
        &["id", "publish"],
        "Publishes one event",
        r#"{"id":1,"publish":{"stream":"orders","subject":"orders.eu.created","event_id":"o-1001","data":{"order":1001}}}"#,
    ),
    message(
        "publishBatch",
        Type::Command,
        &["id", "publish_batch"],
        "Publishes up to 1,000 events, all or none",
        r#"{"id":2,"publish_batch":{"stream":"orders","events":[{"subject":"orders.eu.created","id":"o-1002","data":{"order":1002}}]}}"#,
    ),
    message(
        "subscribe",
        Type::Command,
        &["id", "subscribe"],
        "Follows a stream's events",
        r#"{"id":3,"subscribe":{"stream":"orders","from":43,"subject":"orders.>","credit":1000}}"#,
    ),
    message("credit", Type::Command, &["id", "credit"], "Lets the server send more events", r#"{"id":4,"credit":{"sub":1,"add":1000}}"#),
    message("unsubscribe", Type::Command, &["id", "unsubscribe"], "Ends a subscription", r#"{"id":5,"unsubscribe":{"sub":1}}"#),
    message("ping", Type::Command, &["id", "ping"], "Asks whether the node is there", r#"{"id":6,"ping":{}}"#),
];

/// What it answers: the `id` is the command's.
pub const ANSWERS: &[Message] = &[
    message(
        "ack",
        Type::Frame,
        &["id", "ack.seq", "ack.duplicate"],
        "The event is on disk on a majority of the stream's replicas",
        r#"{"id":1,"ack":{"seq":42,"duplicate":false}}"#,
    ),
    message(
        "batchAck",
        Type::Frame,
        &["id", "ack.first_seq", "ack.last_seq", "ack.count", "ack.duplicates"],
        "The events are on disk on a majority of the stream's replicas",
        r#"{"id":2,"ack":{"first_seq":43,"last_seq":43,"count":1,"duplicates":0}}"#,
    ),
    message(
        "subscribed",
        Type::Frame,
        &["id", "subscribed"],
        "The subscription began, and has a number",
        r#"{"id":3,"subscribed":{"sub":1,"from":43,"created":"2026-11-19T10:00:00.000000Z"}}"#,
    ),
    message("ok", Type::Frame, &["id", "ok"], "Done", r#"{"id":4,"ok":{}}"#),
    message("pong", Type::Frame, &["id", "pong"], "The node is there", r#"{"id":6,"pong":{"time":"2026-11-22T10:15:30.123456Z"}}"#),
    message(
        "error",
        Type::Frame,
        &["id", "error"],
        "The command failed; the socket goes on",
        r#"{"id":1,"error":{"type":"/problems/stream-not-found","title":"There is no such stream","status":404,"detail":"there is no stream orders","code":"stream-not-found","retryable":false}}"#,
    ),
];

/// What it sends without being asked.
pub const PUSHES: &[Message] = &[
    message(
        "events",
        Type::Frame,
        &["sub", "events"],
        "Events of a subscription: one or more, in order of seq",
        r#"{"sub":1,"events":[{"seq":43,"time":"2026-11-22T10:15:30.123456Z","subject":"orders.eu.created","id":"o-1002","content_type":"application/json","data":{"order":1002}}]}"#,
    ),
    message(
        "subscriptionGap",
        Type::Frame,
        &["sub", "gap"],
        "Retention or a purge removed these events before the subscription came by",
        r#"{"sub":1,"gap":{"from":10,"to":99}}"#,
    ),
    message(
        "subscriptionError",
        Type::Frame,
        &["sub", "error"],
        "The subscription ended; the socket goes on",
        r#"{"sub":1,"error":{"type":"/problems/stream-not-found","title":"There is no such stream","status":404,"detail":"there is no stream orders","code":"stream-not-found","retryable":false}}"#,
    ),
    message(
        "nodes",
        Type::Frame,
        &["nodes"],
        "The cluster's active nodes: first of all, and at every change",
        r#"{"nodes":[{"name":"n1","url":"http://127.0.0.1:4701"}]}"#,
    ),
    message(
        "goaway",
        Type::Frame,
        &["goaway"],
        "The node leaves: it closes this socket within that time, so go on at another",
        r#"{"goaway":{"reconnect_within_ms":3000}}"#,
    ),
    message(
        "unreadable",
        Type::Frame,
        &["error"],
        "A frame without a readable id was wrong",
        r#"{"error":{"type":"/problems/unknown-command","title":"The frame is not a command","status":400,"detail":"the frame is not JSON","code":"unknown-command","retryable":false}}"#,
    ),
];

const EVENT: &str = r#"{"seq":42,"time":"2026-11-22T10:15:30.123456Z","subject":"orders.eu.created","id":"o-1001","content_type":"application/json","data":{"order":1001}}"#;

/// What the WebSocket of one stream delivers.
pub const DELIVERIES: &[Message] = &[
    message("event", Type::Event, &[], "One event", EVENT),
    message(
        "gap",
        Type::Frame,
        &["gap"],
        "Retention or a purge removed these events before the reader came by",
        r#"{"gap":{"from":10,"to":99}}"#,
    ),
];

/// What server-sent events deliver; the payload is the `data` of the message.
pub const SENT: &[Message] = &[
    message("sseEvent", Type::Event, &[], "One event", EVENT),
    message(
        "sseGap",
        Type::SseGap,
        &[],
        "Retention or a purge removed these events before the reader came by",
        r#"{"from":10,"to":99,"first_seq":100}"#,
    ),
    message(
        "sseProblem",
        Type::Problem,
        &[],
        "Why the response ends",
        r#"{"type":"/problems/stream-not-found","title":"There is no such stream","status":404,"detail":"there is no stream orders","code":"stream-not-found","retryable":false}"#,
    ),
];

pub fn all() -> impl Iterator<Item = &'static Message> {
    [COMMANDS, ANSWERS, PUSHES, DELIVERIES, SENT].into_iter().flatten()
}

impl Message {
    /// As it stands among the document's components.
    pub fn component(&self, schemas: &Value) -> Value {
        let example: Value = serde_json::from_str(self.example).expect("a test reads every example");
        let mut component = json!({
            "name": self.name,
            "title": self.summary,
            "summary": self.summary,
            "contentType": "application/json",
            "payload": self.payload(schemas),
            "examples": [{ "name": self.name, "payload": example }],
        });
        if self.fields.first() == Some(&"id") {
            component["correlationId"] = json!({ "$ref": "#/components/correlationIds/command" });
        }
        if let Some((headers, example)) = self.sse_fields() {
            component["headers"] = headers;
            component["examples"][0]["headers"] = example;
        }
        component
    }

    fn payload(&self, schemas: &Value) -> Value {
        let of = format!("{:?}", self.of);
        if self.fields.is_empty() { reference(&of) } else { part(schemas, &of, self.fields) }
    }

    /// The fields of a server-sent event beside its data, and an example of them.
    fn sse_fields(&self) -> Option<(Value, Value)> {
        let id = |about: &str| json!({ "type": "string", "pattern": "^[1-9][0-9]*$", "description": about });
        let event = |name: &str| json!({ "type": "string", "const": name });
        let object = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required });
        match self.name {
            "sseEvent" => {
                Some((object(json!({ "id": id("The event's seq; `Last-Event-ID` goes on behind it.") }), &["id"]), json!({ "id": "42" })))
            }
            "sseGap" => Some((
                object(
                    json!({ "id": id("The last seq that is gone; `Last-Event-ID` goes on behind it."), "event": event("gap") }),
                    &["id", "event"],
                ),
                json!({ "id": "99", "event": "gap" }),
            )),
            "sseProblem" => Some((object(json!({ "event": event("problem") }), &["event"]), json!({ "event": "problem" }))),
            _ => None,
        }
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schema of an object that has the fields named, all of them, as the type of this name describes them.
fn part(schemas: &Value, of: &str, fields: &[&str]) -> Value {
    let whole = &schemas[of]["properties"];
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields {
        let (outer, inner) = field.split_once('.').map_or((*field, None), |(outer, inner)| (outer, Some(inner)));
        if properties.contains_key(outer) {
            continue;
        }
        required.push(outer);
        let schema = match inner {
            None => whole[outer].clone(),
            Some(_) => part(schemas, &type_of(&whole[outer]), &inner_fields(fields, outer)),
        };
        properties.insert(outer.into(), schema);
    }
    let mut object = json!({ "type": "object", "properties": properties, "required": required });
    // What a client sends is strict; what it reads may have more one day.
    if let Some(additional) = schemas[of].get("additionalProperties") {
        object["additionalProperties"] = additional.clone();
    }
    object
}

fn inner_fields<'a>(fields: &[&'a str], outer: &str) -> Vec<&'a str> {
    fields.iter().filter_map(|field| field.split_once('.')).filter(|(other, _)| *other == outer).map(|(_, inner)| inner).collect()
}

/// The name of the type that a field refers to.
fn type_of(field: &Value) -> String {
    field["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        Event, Problem, SseGap,
        socket::{Command, Frame},
    };
    use serde::{Serialize, de::DeserializeOwned};
    use std::collections::BTreeSet;

    fn again<T: Serialize + DeserializeOwned>(example: &str) -> Value {
        // Through text: what is passed on as it is written does not become a value in one step.
        let text = serde_json::to_string(&serde_json::from_str::<T>(example).unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_example_is_what_the_code_reads_and_writes() {
        for message in all() {
            let written = match message.of {
                Type::Command => {
                    assert!(serde_json::from_str::<Command>(message.example).unwrap().verb().is_some(), "{}", message.name);
                    again::<Command>(message.example)
                }
                Type::Frame => again::<Frame>(message.example),
                Type::Event => again::<Event>(message.example),
                Type::SseGap => again::<SseGap>(message.example),
                Type::Problem => again::<Problem>(message.example),
            };
            assert_eq!(written, serde_json::from_str::<Value>(message.example).unwrap(), "{}", message.name);
        }
    }

    /// An example has just the fields that its message names.
    #[test]
    fn every_example_has_the_fields_of_its_message() {
        for message in all().filter(|message| !message.fields.is_empty()) {
            let example: Value = serde_json::from_str(message.example).unwrap();
            let named: BTreeSet<&str> = message.fields.iter().map(|field| field.split('.').next().unwrap()).collect();
            assert_eq!(example.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), named, "{}", message.name);
        }
    }

    /// A verb or a push that is added to the code is missed here.
    #[test]
    fn every_field_of_a_frame_is_in_some_message() {
        let schemas = super::super::schemas();
        for of in [Type::Command, Type::Frame] {
            let named: BTreeSet<&str> = all()
                .filter(|message| message.of == of)
                .flat_map(|message| message.fields)
                .map(|field| field.split('.').next().unwrap())
                .collect();
            let there = schemas[format!("{of:?}")]["properties"].as_object().unwrap();
            assert_eq!(named, there.keys().map(String::as_str).collect(), "{of:?}");
        }
    }
}
