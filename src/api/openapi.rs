//! The OpenAPI document: what the operations have in common, and the golden file.
//!
//! Each operation stands beside its handler. Here are their parameters, and the problems that each may answer, by code: the
//! statuses, descriptions and headers of those follow from the catalogue in `wire`.

use super::{cloudevents, router};
use crate::{
    core::limits,
    wire::{BatchAnswer, Code, Problem, PublishAnswer},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::{
    IntoParams, IntoResponses, OpenApi, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
        schema::{ObjectBuilder, Type},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Evermesh",
        description = "A durable event service. Every node serves all of it, with the same result whichever node is asked.\n\nThe WebSockets, `/v1/ws` and `/v1/streams/{stream}/ws`, and server-sent events are described in [`/asyncapi.json`](/asyncapi.json), an AsyncAPI document.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The node that serves this document")),
    tags(
        (name = "streams", description = "Named, durable, totally ordered logs"),
        (name = "events", description = "Publishing and reading"),
        (name = "cluster", description = "The nodes"),
        (name = "operation", description = "Health, metrics, documents"),
    ),
    components(schemas(Problem, PublishAnswer, BatchAnswer)),
)]
struct Base;

/// What the document has before any route.
pub fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The whole document, as it is checked in under `openapi/` and served at `/openapi.json`.
pub fn document() -> String {
    let document = router::documented().to_openapi();
    let mut document = serde_json::to_value(&document).expect("a document has only fields that JSON can hold");
    complete(&mut document["components"]["schemas"]);
    for path in ["/v1/streams/{stream}/events", "/v1/streams/{stream}/batch"] {
        for media_type in [cloudevents::BATCH, "application/x-ndjson"] {
            if let Some(body) = document["paths"][path]["post"]["requestBody"]["content"].get_mut(media_type) {
                body["schema"]["minItems"] = json!(1);
                body["schema"]["maxItems"] = json!(limits::BATCH_EVENTS_MAX);
            }
        }
    }
    format!("{document:#}\n")
}

/// Says of schemas what the builders have no word for.
pub fn complete(schemas: &mut Value) {
    for one_of_two in ["BatchEvent", "Publish"] {
        if let Some(schema) = schemas.get_mut(one_of_two) {
            schema["oneOf"] = json!([{ "required": ["data"] }, { "required": ["data_base64"] }]);
        }
    }
    if let Some(schema) = schemas.get_mut("CloudEvent") {
        schema["not"] = json!({ "required": ["data", "data_base64"] });
        schema["propertyNames"] = json!({ "pattern": "^([a-z0-9]{1,125}|data_base64)$" });
        schema["maxProperties"] = json!(limits::HEADERS_MAX);
        schema["additionalProperties"] = json!({
            "description": "Any other attribute",
            "type": ["string", "number", "boolean", "null"],
            "maxLength": limits::HEADER_VALUE_BYTES_MAX,
            "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$",
        });
    }
}

/// Declares parameters for the document; the handlers read them by name.
macro_rules! params {
    ($($(#[$about:meta])* $name:ident ($within:ident) { $($(#[$field:meta])* $param:ident: $kind:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(IntoParams)]
        #[into_params(parameter_in = $within)]
        #[allow(dead_code, reason = "only the document needs them")]
        pub struct $name { $($(#[$field])* $param: $kind,)* }
    )*};
}

params! {
    StreamPath(Path) {
        /// The stream's name.
        #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$", example = "orders")]
        stream: String,
    }
    EventPath(Path) {
        /// The stream's name.
        #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$", example = "orders")]
        stream: String,
        /// The event's seq.
        #[param(minimum = 1, maximum = 9223372036854775807u64, example = 1)]
        seq: u64,
    }
    NodePath(Path) {
        /// The node's name.
        #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$", example = "n1")]
        name: String,
    }
    ListQuery(Query) {
        /// Only streams whose names begin with this.
        #[param(required = false, nullable = false, example = "ord")]
        prefix: Option<String>,
        /// At most so many.
        #[param(required = false, nullable = false, minimum = 1, maximum = 1000, default = 100)]
        limit: Option<u64>,
        /// Only streams behind this name: `next` of the answer before.
        #[param(required = false, nullable = false)]
        after: Option<String>,
        /// Whether each stream comes with its `state`, as its leader says, or without one a replica. Such a page has at most 100 streams.
        #[param(required = false, nullable = false, default = false)]
        state: Option<bool>,
    }
    PublishQuery(Query) {
        /// The event's subject; the header `Event-Subject` says the same, and the parameter wins.
        #[param(required = false, nullable = false, min_length = 1, max_length = 256, pattern = "^[^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+(\\.[^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+){0,31}$", example = "orders.eu.created")]
        subject: Option<String>,
        /// How long to wait for the outcome, at most 1m.
        #[param(required = false, nullable = false, pattern = "^([1-9][0-9]{0,3}ms|[1-5][0-9]{4}ms|60000ms|[1-9]s|[1-5][0-9]s|60s|1m)$", example = "10s")]
        timeout: Option<String>,
    }
    TimeoutQuery(Query) {
        /// How long to wait for the outcome, at most 1m.
        #[param(required = false, nullable = false, pattern = "^([1-9][0-9]{0,3}ms|[1-5][0-9]{4}ms|60000ms|[1-9]s|[1-5][0-9]s|60s|1m)$", example = "10s")]
        timeout: Option<String>,
    }
    PublishHeaders(Header) {
        /// The event's subject, if the parameter `subject` does not say it.
        #[param(rename = "Event-Subject", required = false, nullable = false, min_length = 1, max_length = 256, pattern = "^[!-)+-\\-/-=?-~]+(\\.[!-)+-\\-/-=?-~]+){0,31}$")]
        subject: Option<String>,
        /// The publisher's id for the event: a repeat inside the stream's `dedup_window` is not stored again.
        #[param(rename = "Event-Id", required = false, nullable = false, min_length = 1, max_length = 256, pattern = "^[!-~]+$", example = "o-1001")]
        id: Option<String>,
        /// The event is taken only if this is the stream's last seq; 0: if the stream is empty.
        #[param(rename = "Expected-Last-Seq", required = false, nullable = false, minimum = 0, maximum = 9223372036854775807u64)]
        expected: Option<u64>,
    }
    PublishBatchHeaders(Header) {
        /// The batch is taken only if this is the stream's last seq; 0: if the stream is empty.
        #[param(rename = "Expected-Last-Seq", required = false, nullable = false, minimum = 0, maximum = 9223372036854775807u64)]
        expected: Option<u64>,
    }
    ReadQuery(Query) {
        /// Where to start: a seq, `earliest`, `latest` (the last event and on), `new` (only what comes) or an RFC 3339 time. Default:
        /// `earliest`, and `new` for SSE and for NDJSON with `wait`. A seq further on than the next event is a 404.
        #[param(required = false, nullable = false, pattern = "^([1-9][0-9]{0,18}|earliest|latest|new|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9]))$", example = "earliest")]
        from: Option<String>,
        /// Only events whose subject this filter takes: `*` stands for one token, `>` at the end for one or more.
        #[param(required = false, nullable = false, min_length = 1, max_length = 256, pattern = "^(([!-)+-\\-/-=?-~]+|\\*)(\\.([!-)+-\\-/-=?-~]+|\\*)){0,30}(\\.>)?|>)$", example = "orders.eu.>")]
        subject: Option<String>,
        /// At most so many events. (SSE and NDJSON take up to 1,000,000,000, and end after them.)
        #[param(required = false, nullable = false, minimum = 1, maximum = 1000, default = 100)]
        limit: Option<u64>,
        /// How long to wait for a first event, at most 1m; an empty page comes only after it. NDJSON goes on until nothing came for so long.
        #[param(required = false, nullable = false, pattern = "^(0|[0-9]{1,4}ms|[1-5][0-9]{4}ms|60000ms|[0-5]?[0-9]s|60s|[01]m)$", example = "1s")]
        wait: Option<String>,
    }
}

/// A body of any bytes, but not of none.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary, min_length = 1)]
#[allow(dead_code, reason = "only the document needs it")]
pub struct Blob(Vec<u8>);

/// A body of any text, but not of none.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1)]
#[allow(dead_code, reason = "only the document needs it")]
pub struct Words(String);

/// What `POST …/events` answers: for one event, or for a batch of CloudEvents.
#[derive(ToSchema)]
#[schema(examples(json!({"stream": "orders", "seq": 42, "time": "2026-11-22T10:15:30.123456Z", "duplicate": false})))]
#[serde(untagged)]
#[allow(dead_code, reason = "only the document needs it")]
pub enum OneOrBatch {
    One(PublishAnswer),
    Batch(BatchAnswer),
}

/// Declares which problems an operation may answer.
macro_rules! problems {
    ($($name:ident: $($code:ident)*;)*) => {$(
        pub struct $name;
        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                by_status(&[$(Code::$code),*])
            }
        }
    )*};
}

problems! {
    StartingProblems: Starting Internal;
    ReadyProblems: Starting Rebuilding Draining NoQuorum Internal;
    ClusterProblems: InvalidParameter Internal Starting NoQuorum;
    NodeProblems: InvalidName InvalidParameter NodeNotFound Conflict Internal Starting NoLeader NoQuorum Draining OutcomeUnknown;
    ListProblems: InvalidParameter Internal Starting NoQuorum;
    StreamProblems: InvalidName InvalidParameter StreamNotFound Conflict Internal Starting NoLeader NoQuorum Draining OutcomeUnknown;
    CreateProblems: InvalidName InvalidParameter InvalidHeader MalformedBody BodyTooSlow Conflict BodyTooLarge UnsupportedMediaType InvalidBody LimitReached Internal Starting NoLeader NoQuorum Overloaded Draining OutcomeUnknown;
    PurgeProblems: InvalidName InvalidParameter InvalidHeader InvalidSubject MalformedBody EmptyBody StreamNotFound BodyTooSlow Conflict BodyTooLarge UnsupportedMediaType InvalidBody LimitReached Internal Starting NoLeader StreamDamaged NoQuorum Overloaded Draining OutcomeUnknown;
    LeaderProblems: InvalidName InvalidParameter InvalidHeader MalformedBody StreamNotFound NodeNotFound BodyTooSlow Conflict BodyTooLarge UnsupportedMediaType InvalidBody Internal Starting NoLeader NoQuorum Overloaded Draining OutcomeUnknown;
    VerifyProblems: InvalidName InvalidParameter InvalidHeader MalformedBody StreamNotFound BodyTooSlow BodyTooLarge UnsupportedMediaType InvalidBody Internal Starting NoLeader NoQuorum Overloaded Draining;
    PublishProblems: InvalidName InvalidParameter InvalidHeader InvalidSubject MalformedBody EmptyBody StreamNotFound BodyTooSlow Conflict ExpectationFailed BodyTooLarge EventTooLarge BatchTooLarge InvalidBody StreamFull DedupFull LimitReached Internal NoLeader StreamDamaged Overloaded Draining Starting NoQuorum OutcomeUnknown DiskFull;
    BatchProblems: InvalidName InvalidParameter InvalidHeader MalformedBody EmptyBody StreamNotFound BodyTooSlow Conflict ExpectationFailed BodyTooLarge EventTooLarge BatchTooLarge UnsupportedMediaType InvalidBody StreamFull DedupFull LimitReached Internal NoLeader StreamDamaged Overloaded Draining Starting NoQuorum OutcomeUnknown DiskFull;
    ReadProblems: InvalidName InvalidParameter InvalidHeader InvalidSubject StreamNotFound EventNotFound NotAcceptable Internal NoLeader StreamDamaged Overloaded Draining Starting NoQuorum OutcomeUnknown;
    EventProblems: InvalidName InvalidParameter StreamNotFound EventNotFound EventGone Internal NoLeader StreamDamaged Overloaded Draining Starting NoQuorum OutcomeUnknown;
    ProblemProblems: InvalidName ProblemNotFound;
}

/// One response a status, which tells the codes that it may have.
fn by_status(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut statuses: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        statuses.entry(code.entry().status).or_default().push(*code);
    }
    statuses.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

fn response(codes: &[Code]) -> Response {
    let told: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.entry().name, code.entry().title)).collect();
    let example = Problem::new(codes[0], codes[0].entry().explanation);
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(Some(serde_json::to_value(example).expect("a problem has only fields that JSON can hold")))
        .build();
    let text =
        |about: &str| HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String))).description(Some(about)).build();
    let mut response = ResponseBuilder::new()
        .description(told.join("; "))
        .content("application/problem+json", content)
        .header("X-Request-Id", text("The request's id, as in the node's log"));
    if codes.iter().any(|code| code.entry().retry_after_ms.is_some()) {
        let seconds = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::Integer)))
            .description(Some("Seconds to wait before the next try"))
            .build();
        response = response.header("Retry-After", seconds);
    }
    response.build()
}

/// Compares a document with the one that is checked in, or writes it there when that is asked for.
#[cfg(test)]
pub fn check_golden(path: &str, document: &str, module: &str) {
    let full = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("EVERMESH_REGENERATE").is_some() {
        std::fs::write(&full, document).unwrap();
    }
    let golden = std::fs::read_to_string(full).unwrap_or_default();
    let differs = golden.lines().zip(document.lines()).position(|(a, b)| a != b);
    assert!(
        golden == document,
        "{path} is not what the code says (first at line {:?}); if the change is meant:\n  EVERMESH_REGENERATE=1 cargo test --lib {module}",
        differs.map(|at| at + 1)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document is checked in, so that every change of the API is seen in review.
    #[test]
    fn the_document_is_the_golden_one() {
        check_golden("openapi/openapi.json", &document(), "api::openapi");
    }
}
