//! What went wrong, as RFC 9457 problem details; and the one catalogue of every code that there is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem: what a person reads (`title`, `detail`), and what a program needs to go on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// A path on the node that explains the problem.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", examples("/problems/stream-not-found"))]
    pub type_: String,
    #[schema(examples("There is no such stream"))]
    pub title: String,
    #[schema(minimum = 400, maximum = 599, examples(404))]
    pub status: u16,
    /// What was wrong this time.
    #[schema(examples("there is no stream orders"))]
    pub detail: String,
    /// Stable, from the catalogue at `/problems`.
    #[schema(pattern = "^[a-z]+(-[a-z]+)*$", examples("stream-not-found"))]
    pub code: String,
    /// Whether the same request may succeed later.
    #[schema(examples(false))]
    pub retryable: bool,
    /// The stream's last seq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub last_seq: Option<u64>,
    /// The stream's first seq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub first_seq: Option<u64>,
    /// The limit that the request went over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub limit: Option<u64>,
    /// How long to wait before the next try; with it comes the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub retry_after_ms: Option<u64>,
    /// The line of an NDJSON body that is wrong, or the place of an event in a batch; the first is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub line: Option<u64>,
    /// The request's id, as in the header `X-Request-Id` and in the node's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        let entry = code.entry();
        Problem {
            type_: format!("/problems/{}", entry.name),
            title: entry.title.into(),
            status: entry.status,
            detail: detail.into(),
            code: entry.name.into(),
            retryable: entry.retryable,
            retry_after_ms: entry.retry_after_ms,
            ..Problem::default()
        }
    }
}

/// One line of the catalogue.
pub struct Entry {
    pub code: Code,
    /// Stable: programs compare it.
    pub name: &'static str,
    pub status: u16,
    pub title: &'static str,
    /// For a person: why it happens and what to do.
    pub explanation: &'static str,
    pub retryable: bool,
    pub retry_after_ms: Option<u64>,
}

impl Code {
    pub fn entry(self) -> &'static Entry {
        &CATALOGUE[self as usize]
    }

    pub fn of_name(name: &str) -> Option<&'static Entry> {
        CATALOGUE.iter().find(|entry| entry.name == name)
    }
}

macro_rules! catalogue {
    ($($code:ident $name:literal $status:literal $title:literal $retry:tt $explanation:literal;)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($code),* }

        /// Every code, in the order of `Code`.
        pub static CATALOGUE: &[Entry] = &[$(Entry {
            code: Code::$code,
            name: $name,
            status: $status,
            title: $title,
            explanation: $explanation,
            retryable: catalogue!(@retryable $retry),
            retry_after_ms: catalogue!(@after $retry),
        }),*];
    };
    (@retryable never) => { false };
    (@retryable $ms:tt) => { true };
    (@after never) => { None };
    (@after 0) => { None };
    (@after $ms:literal) => { Some($ms) };
}

// The column before the explanation: `never` to repeat as it is, or the milliseconds to wait before doing so (0: none).
catalogue! {
    InvalidName "invalid-name" 400 "The name is not valid" never
        "Names of streams and nodes have 1 to 128 characters out of A-Z a-z 0-9 - _ . and do not start with a dot.";
    InvalidParameter "invalid-parameter" 400 "A query parameter is not valid" never
        "A query parameter is unknown, is there twice, or has a value that it cannot have. The detail names it.";
    InvalidHeader "invalid-header" 400 "A request header is not valid" never
        "A header that Evermesh reads has a value that it cannot have. The detail names it.";
    InvalidSubject "invalid-subject" 400 "The subject or subject filter is not valid" never
        "A subject is made of non-empty tokens with dots between them, without white space, * or >. In a filter, * stands for one token and > at the end for one or more.";
    MalformedBody "malformed-body" 400 "The body cannot be read" never
        "The body is not the JSON or NDJSON that its Content-Type says. The detail gives the place; `line` counts the lines of NDJSON from 1. Nothing of it was stored.";
    EmptyBody "empty-body" 400 "The body is empty" never
        "The body is the event, and there is none. To publish an event without data on purpose, use a batch with \"data_base64\": \"\".";
    UnknownCommand "unknown-command" 400 "The frame is not a command" never
        "A WebSocket frame holds one JSON object with an id and exactly one command: publish, publish_batch, subscribe, unsubscribe, credit or ping. The connection goes on.";
    RouteNotFound "route-not-found" 404 "There is nothing at this path" never
        "The paths of the API are listed at /docs and in /openapi.json.";
    StreamNotFound "stream-not-found" 404 "There is no such stream" never
        "Create it with PUT /v1/streams/{stream}. Where auto_create_streams is on, the first publish creates it.";
    NodeNotFound "node-not-found" 404 "There is no such node" never
        "GET /v1/cluster lists the nodes of the cluster.";
    EventNotFound "event-not-found" 404 "There is no such event yet" never
        "The seq is beyond the end of the stream; `last_seq` is its end.";
    SubscriptionNotFound "subscription-not-found" 404 "There is no such subscription" never
        "The connection has no subscription with this number: it was never made, or was ended.";
    ProblemNotFound "problem-not-found" 404 "There is no such problem code" never
        "GET /problems lists every code.";
    MethodNotAllowed "method-not-allowed" 405 "The path does not have this method" never
        "The header Allow lists the methods that the path has.";
    NotAcceptable "not-acceptable" 406 "None of the accepted types can be given" never
        "The header Accept asks for types that this path does not give. Events are read as application/json, application/x-ndjson, text/event-stream or application/cloudevents-batch+json.";
    BodyTooSlow "body-too-slow" 408 "The body did not come in time" 0
        "The rest of the body was waited for in vain. The request was not accepted: it is safe to repeat it.";
    Conflict "conflict" 409 "The change cannot be made" never
        "The request contradicts the present state, such as more replicas than there are nodes. The detail says how.";
    EventGone "event-gone" 410 "The event is gone" never
        "Retention or a purge removed it; `first_seq` is the first that is still there.";
    ExpectationFailed "expectation-failed" 412 "The stream's last seq is another" never
        "Expected-Last-Seq did not match; `last_seq` is the actual one. Nothing was stored.";
    BodyTooLarge "body-too-large" 413 "The body is too large" never
        "`limit` is the most bytes that a request's body may have.";
    EventTooLarge "event-too-large" 413 "The event is too large" never
        "`limit` is the most data bytes that an event of this stream may have (max_event_bytes).";
    BatchTooLarge "batch-too-large" 413 "The batch is too large" never
        "`limit` is the most events, or the most data bytes, of one batch: the detail says which. Nothing was stored; send it in parts.";
    UnsupportedMediaType "unsupported-media-type" 415 "The content type is not understood here" never
        "Batches are application/json, application/x-ndjson or application/cloudevents-batch+json; settings and commands are application/json. A single event may have any type.";
    InvalidBody "invalid-body" 422 "The body says something that cannot be" never
        "The body is well-formed, but a field is unknown, missing, of a wrong type or out of its range. The detail names it; `line` counts the events of a batch from 1. Nothing of it was stored.";
    UpgradeRequired "upgrade-required" 426 "This path speaks WebSocket" never
        "Open it with a WebSocket client: new WebSocket(url).";
    StreamFull "stream-full" 429 "The stream is full" never
        "The stream has reached its bound and is set to reject new events (discard: new). Purge it, raise the bound, or set discard to old.";
    DedupFull "dedup-full" 429 "The stream remembers too many event ids" 1000
        "Publish slower, shorten the stream's dedup_window, or leave out event ids.";
    LimitReached "limit-reached" 429 "A limit is reached" never
        "The cluster or the connection has as many of these as it may have; the detail says what and how many.";
    Internal "internal" 500 "The node failed" never
        "A fault of this node; its log says more, under the request's id. Another node may do better.";
    NoLeader "no-leader" 503 "The stream has no leader" 500
        "No leader was found in time. The request was not accepted: it is safe to repeat it, here or on another node.";
    StreamDamaged "stream-damaged" 503 "Too few replicas of the stream are whole" 5000
        "The data of so many of its replicas is damaged that no majority is left: nothing of the stream can be served, and nothing of it was deleted. The detail says which replicas and why. Bring back an unharmed replica (its node, or a copy of its data), or delete the stream.";
    Rebuilding "rebuilding" 503 "The node is being rebuilt" 500
        "What this node knew of the cluster is damaged and is made anew from the other nodes. Use another node meanwhile.";
    Overloaded "overloaded" 503 "The node has too much to do" 200
        "The request was not accepted: it is safe to repeat it a little later, here or on another node.";
    Draining "draining" 503 "The node is leaving" 100
        "The node shuts down or was drained. The request was not accepted: use another node.";
    Starting "starting" 503 "The node is starting" 500
        "The request was not accepted: repeat it a little later, or use another node.";
    NoQuorum "no-quorum" 503 "Not enough of the cluster can be reached" 1000
        "A majority did not answer in time. The request was not accepted: it is safe to repeat it.";
    OutcomeUnknown "outcome-unknown" 504 "The outcome is not known" 500
        "The request was on its way when the time was up: it may have been accepted, or may still be. Repeat a publish with the same Event-Id, so that it is stored once.";
    DiskFull "disk-full" 507 "The replicas' disks are nearly full" 5000
        "Too few of the stream's replicas have room left to take more events safely. The request was not accepted: it is safe to repeat it, here or on another node. Purge events, shorten the retention, or give the nodes larger disks; GET /v1/cluster shows whose disk it is.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_in_order_and_names_are_unique() {
        for (at, entry) in CATALOGUE.iter().enumerate() {
            assert_eq!(entry.code as usize, at);
            assert!(std::ptr::eq(Code::of_name(entry.name).unwrap(), entry), "{} is there twice", entry.name);
            assert!((400..600).contains(&entry.status) && entry.explanation.ends_with('.'), "{}", entry.name);
        }
    }

    #[test]
    fn a_problem_shows_only_what_it_has() {
        let problem = Problem { last_seq: Some(7), ..Problem::new(Code::ExpectationFailed, "the stream's last seq is 7") };
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"/problems/expectation-failed","title":"The stream's last seq is another","status":412,"detail":"the stream's last seq is 7","code":"expectation-failed","retryable":false,"last_seq":7}"#
        );
    }
}
