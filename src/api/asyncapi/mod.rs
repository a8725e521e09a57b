//! The AsyncAPI document: the WebSockets and server-sent events, and the golden file.
//!
//! It stands beside the OpenAPI document and is made of the same types: the channels and operations are here, what goes over them is
//! in [`messages`].

mod messages;

use self::messages::{ANSWERS, COMMANDS, DELIVERIES, Message, PUSHES, SENT};
use super::openapi::{self, ReadQuery};
use crate::{
    core::limits,
    wire::{
        SseGap,
        socket::{Command, Frame, SUBPROTOCOL, close},
    },
};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, OpenApi};

#[derive(OpenApi)]
#[openapi(components(schemas(Command, Frame, SseGap)))]
struct Shapes;

/// The schemas of every type that a message is made of, and of what is in them.
fn schemas() -> Value {
    let shapes = serde_json::to_value(Shapes::openapi()).expect("a document has only fields that JSON can hold");
    let mut schemas = shapes["components"]["schemas"].clone();
    openapi::complete(&mut schemas);
    schemas
}

/// The whole document, as it is checked in under `openapi/` and served at `/asyncapi.json`.
pub fn document() -> String {
    let mut schemas = schemas();
    let messages: Map<String, Value> = messages::all().map(|message| (message.name.into(), message.component(&schemas))).collect();
    // Messages are parts of these, and nothing refers to the whole.
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.retain(|name, _| !["Command", "Frame", "Ack"].contains(&name.as_str()));
    }
    let document = json!({
        "asyncapi": "3.1.0",
        "info": info(),
        "defaultContentType": "application/json",
        "servers": {
            "websocket": server("ws", "Any node, over a WebSocket"),
            "http": server("http", "Any node, over HTTP"),
        },
        "channels": {
            "connection": connection(),
            "stream": stream(),
            "sse": sse(),
        },
        "operations": operations(),
        "components": {
            "messages": messages,
            "schemas": schemas,
            "correlationIds": {
                "command": { "description": "An answer has the id of its command.", "location": "$message.payload#/id" },
            },
        },
    });
    format!("{document:#}\n")
}

fn info() -> Value {
    json!({
        "title": "Evermesh",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "A durable event service: its WebSockets and server-sent events. Every node serves all of it, with the same result \
            whichever node is asked. Requests and answers over HTTP are described in `/openapi.json`.",
        "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        "tags": [
            { "name": "publish", "description": "Publishing" },
            { "name": "read", "description": "Following streams" },
            { "name": "connection", "description": "The connection itself" },
        ],
    })
}

fn server(protocol: &str, about: &str) -> Value {
    json!({
        "host": "{node}",
        "protocol": protocol,
        "description": about,
        "variables": { "node": { "default": "127.0.0.1:4701", "description": "Host and port of any node's API" } },
    })
}

/// Many streams, both directions.
fn connection() -> Value {
    json!({
        "address": "/v1/ws",
        "title": "Many streams, both directions",
        "description": connection_text(),
        "servers": [{ "$ref": "#/servers/websocket" }],
        "messages": named(&[COMMANDS, ANSWERS, PUSHES]),
        "bindings": { "ws": {
            "method": "GET",
            "headers": {
                "type": "object",
                "properties": { "Sec-WebSocket-Protocol": {
                    "type": "string",
                    "const": SUBPROTOCOL,
                    "description": "A client that offers subprotocols must offer this one; one that offers none is served as if it had.",
                } },
            },
            "bindingVersion": "0.1.0",
        } },
        "x-close-codes": close_codes(),
    })
}

fn connection_text() -> String {
    format!(
        "The client sends commands: an `id`, which it chooses, and exactly one verb. The answer has the same `id`; answers come as they are \
         ready. Frames without `id` are pushes. Every frame is one JSON object in one text message.\n\nPublishes of one socket to one stream are \
         ordered as sent, and need not wait for each other: with {} unanswered, the socket is not read until some are answered. A socket has at \
         most {} subscriptions, and a message at most {} bytes. The server pings every {} s, and closes a socket from which nothing came for \
         {} s.\n\nTo resume after a lost connection: open another, at any node, and subscribe again with `from` one more than the last `seq` (or \
         than the `to` of a gap) that came; publish what was not answered again under the same `event_id`, so that it is stored once.",
        limits::SOCKET_PENDING_MAX,
        limits::SOCKET_SUBSCRIPTIONS_MAX,
        limits::SOCKET_MESSAGE_BYTES_MAX,
        limits::PING_EVERY_MS / 1000,
        limits::SILENT_MS / 1000,
    )
}

/// One stream, nothing to send.
fn stream() -> Value {
    json!({
        "address": "/v1/streams/{stream}/ws",
        "title": "One stream, nothing to send",
        "description": "Each frame is one event, or tells of a gap. To resume, open it again with `from` one more than the last `seq` (or than the \
            `to` of a gap). A `from` further on than the next event is a 404.",
        "servers": [{ "$ref": "#/servers/websocket" }],
        "parameters": parameters(),
        "messages": named(&[DELIVERIES]),
        "bindings": { "ws": { "method": "GET", "query": query(&["from", "subject"]), "bindingVersion": "0.1.0" } },
        "x-close-codes": close_codes(),
    })
}

fn sse() -> Value {
    json!({
        "address": "/v1/streams/{stream}/events",
        "title": "One stream as server-sent events",
        "description": format!(
            "With `Accept: text/event-stream`. The payload is each message's `data`; the other fields are its headers. A comment comes every {} s. \
             A client that comes back sends the last `id` as `Last-Event-ID`, as `EventSource` does by itself, and goes on behind it.",
            limits::COMMENT_EVERY_MS / 1000,
        ),
        "servers": [{ "$ref": "#/servers/http" }],
        "parameters": parameters(),
        "messages": named(&[SENT]),
    })
}

fn parameters() -> Value {
    json!({ "stream": { "description": "The stream's name: 1 to 128 of `A-Z a-z 0-9 - _ .`, not starting with `.`.", "examples": ["orders"] } })
}

/// Parameters of reading, as they are in the OpenAPI document.
fn query(names: &[&str]) -> Value {
    let mut properties = Map::new();
    for parameter in ReadQuery::into_params(|| None) {
        if names.contains(&parameter.name.as_str()) {
            let mut schema = serde_json::to_value(&parameter.schema).expect("a schema has only fields that JSON can hold");
            schema["description"] = json!(parameter.description);
            if parameter.name == "from" {
                schema["default"] = json!("new");
                schema["description"] = json!(FROM);
            }
            properties.insert(parameter.name, schema);
        }
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// Pages begin elsewhere by default, and say so in the OpenAPI document.
const FROM: &str = "Where to start: a seq, `earliest`, `latest` (the last event and on), `new` (only what comes) or an RFC 3339 time.";

fn close_codes() -> Vec<Value> {
    close::ALL.iter().map(|close| json!({ "code": close.code, "reason": close.reason, "then": close.then() })).collect()
}

/// The messages of a channel, by name.
fn named(groups: &[&[Message]]) -> Map<String, Value> {
    let refer = |message: &Message| (message.name.to_owned(), json!({ "$ref": format!("#/components/messages/{}", message.name) }));
    groups.iter().flat_map(|group| group.iter()).map(refer).collect()
}

/// The command, the answer that it gets when it succeeds, and what it is about.
const CALLS: [(&str, &str, &str); 6] = [
    ("publish", "ack", "publish"),
    ("publishBatch", "batchAck", "publish"),
    ("subscribe", "subscribed", "read"),
    ("credit", "ok", "read"),
    ("unsubscribe", "ok", "read"),
    ("ping", "pong", "connection"),
];

/// What a node does: it takes each command and replies, and sends the rest by itself.
fn operations() -> Map<String, Value> {
    let on = |channel: &str, name: &str| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
    let mut operations = Map::new();
    for (command, answer, tag) in CALLS {
        let summary = COMMANDS.iter().find(|message| message.name == command).map(|message| message.summary);
        let operation = json!({
            "action": "receive",
            "channel": { "$ref": "#/channels/connection" },
            "title": summary,
            "summary": summary,
            "description": format!("Answered with `{answer}`, or with `error`."),
            "tags": [{ "name": tag }],
            "messages": [on("connection", command)],
            "reply": {
                "channel": { "$ref": "#/channels/connection" },
                "messages": [on("connection", answer), on("connection", "error")],
            },
        });
        operations.insert(command.into(), operation);
    }
    let sends = |channel: &str, summary: &str, description: &str, messages: &[Message], tag: &str| {
        json!({
            "action": "send",
            "channel": { "$ref": format!("#/channels/{channel}") },
            "title": summary,
            "summary": summary,
            "description": description,
            "tags": [{ "name": tag }],
            "messages": messages.iter().map(|message| on(channel, message.name)).collect::<Vec<_>>(),
        })
    };
    let about = "Frames without `id`: events and gaps of subscriptions, the cluster's nodes, and that the node leaves.";
    operations.insert("push".into(), sends("connection", "Pushes what comes", about, PUSHES, "read"));
    let about = "Every event from `from` on, and then each that comes.";
    operations.insert("deliver".into(), sends("stream", "Delivers a stream's events", about, DELIVERIES, "read"));
    let mut sse = sends("sse", "Delivers a stream's events as server-sent events", about, SENT, "read");
    sse["bindings"] = json!({ "http": { "method": "GET", "query": query(&["from", "subject", "limit"]), "bindingVersion": "0.3.0" } });
    operations.insert("send".into(), sse);
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document is checked in, so that every change of the API is seen in review.
    #[test]
    fn the_document_is_the_golden_one() {
        openapi::check_golden("openapi/asyncapi.json", &document(), "api::asyncapi");
    }

    #[test]
    fn every_command_has_an_operation() {
        assert_eq!(CALLS.map(|(command, _, _)| command).to_vec(), COMMANDS.iter().map(|message| message.name).collect::<Vec<_>>());
    }
}
