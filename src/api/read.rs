//! Reading: pages of JSON, one event with its own bytes, and the choice among the forms.

use super::{
    cloudevents,
    error::{Failure, Result},
    extract::{Ready, Seq, Stream},
    follow, ndjson,
    openapi::{EventPath, EventProblems, ReadProblems, ReadQuery, StreamPath},
    params,
    query::Query,
    sse,
    state::App,
};
use crate::{
    core::{Event, SubjectFilter, limits},
    node::{self, Delivery, From, Item, Reader, Take},
    wire::{self, Code, Gap, Timestamp},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};

/// The forms in which events are given, the preferred one first.
const FORMS: [(&str, Form); 3] =
    [("application/json", Form::Json), ("application/x-ndjson", Form::Ndjson), ("text/event-stream", Form::Sse)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Ndjson,
    Sse,
}

/// What a reader asked for.
pub struct Wanted {
    pub from: Option<From>,
    pub filter: Option<SubjectFilter>,
    pub limit: Option<u64>,
    pub wait: Option<u64>,
}

/// Read events
///
/// The header `Accept` chooses the form: `application/json` (the default) is a page; `application/x-ndjson` is the same events, one
/// a line, to the end of the stream, and with `wait` goes on until nothing came for so long; `text/event-stream` is live (SSE): the
/// `id` of each message is its seq, `Last-Event-ID` resumes, `event: gap` tells what retention removed, and a comment comes every
/// 15 s. NDJSON and SSE end after `limit` events (up to 1,000,000,000), if it is given.
#[utoipa::path(
    get, path = "/v1/streams/{stream}/events", operation_id = "readEvents", tag = "events", params(StreamPath, ReadQuery),
    responses(
        (status = 200, description = "Events in order of seq", headers(("X-Request-Id" = String, description = "The request's id")), content(
            (wire::Page = "application/json", example = json!({"events": [{"seq": 42, "time": "2026-11-22T10:15:30.123456Z", "subject": "orders.eu.created", "id": "o-1001", "content_type": "application/json", "data": {"order": 1001}}], "next": 43, "last_seq": 42})),
            (String = "application/x-ndjson", example = json!("{\"seq\":42,\"time\":\"2026-11-22T10:15:30.123456Z\",\"content_type\":\"application/json\",\"data\":{\"order\":1001}}\n")),
            (String = "text/event-stream", example = json!("id: 42\ndata: {\"seq\":42,\"time\":\"2026-11-22T10:15:30.123456Z\",\"content_type\":\"application/json\",\"data\":{\"order\":1001}}\n\n")),
        )),
        ReadProblems,
    ),
)]
pub async fn read_events(
    State(app): State<App>,
    Stream(stream): Stream,
    mut query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
) -> Result {
    let form = negotiate(&headers)?;
    let limit_max = if form == Form::Json { limits::PAGE_EVENTS_MAX as u64 } else { limits::LIVE_EVENTS_MAX };
    let wanted = Wanted {
        from: params::start(&mut query)?,
        filter: params::filter(&mut query)?,
        limit: query.number("limit", 1, limit_max)?,
        wait: params::wait(&mut query)?,
    };
    query.end()?;
    match form {
        Form::Json => page(&node, &stream, wanted).await,
        Form::Ndjson => ndjson::respond(&app, &node, &stream, wanted).await,
        Form::Sse => sse::respond(&app, &node, &stream, wanted, &headers).await,
    }
}

/// The form that the client likes best; among equals the first of [`FORMS`].
fn negotiate(headers: &HeaderMap) -> Result<Form> {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
    if accept.iter().all(|range| range.trim().is_empty()) {
        return Ok(Form::Json);
    }
    let mut best = None;
    for (media_type, form) in FORMS {
        let (weight, exactness) =
            accept.iter().filter_map(|range| weigh(range, media_type)).max_by_key(|(weight, exact)| (*exact, *weight)).unwrap_or((0, 0));
        if weight > 0 && best.is_none_or(|(weight_before, exactness_before, _)| (weight, exactness) > (weight_before, exactness_before)) {
            best = Some((weight, exactness, form));
        }
    }
    best.map(|(_, _, form)| form)
        .ok_or_else(|| Failure::new(Code::NotAcceptable, "events are read as application/json, application/x-ndjson or text/event-stream"))
}

/// How much one media range of `Accept` wants a media type, in thousandths, and how exactly it names it; `None`: not at all.
fn weigh(range: &str, media_type: &str) -> Option<(u32, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?.to_ascii_lowercase();
    let exactness = match name.as_str() {
        "*/*" => 1,
        name if name == media_type => 3,
        name => match name.strip_suffix("/*") {
            Some(kind) if media_type.split('/').next() == Some(kind) => 2,
            _ => return None,
        },
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0f32), |q| q.parse().ok())?;
    Some(((weight.clamp(0.0, 1.0) * 1000.0) as u32, exactness))
}

/// A page of JSON.
async fn page(node: &node::Node, stream: &crate::core::StreamName, wanted: Wanted) -> Result {
    let from = wanted.from.unwrap_or(From::Earliest);
    let limit = wanted.limit.unwrap_or(limits::PAGE_EVENTS as u64) as usize;
    let mut reader = node.reader(stream, from, wanted.filter).await?;
    let mut gathered = Gathered::default();
    gathered.gather(&mut reader, limit, Duration::ZERO).await?;
    if gathered.is_empty()
        && let Some(wait) = wanted.wait.filter(|wait| *wait > 0)
    {
        gathered.gather(&mut reader, limit, Duration::from_millis(wait)).await?;
    }
    let events = gathered.events.iter().map(|delivery| follow::json(delivery));
    let body = wire::encode_page(events, &gathered.gaps, reader.cursor(), gathered.last_seq);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

#[derive(Default)]
struct Gathered {
    events: Vec<Arc<Delivery>>,
    gaps: Vec<Gap>,
    bytes: usize,
    last_seq: u64,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gaps.is_empty()
    }

    /// Steps on until there are `limit` events, a page's worth of bytes, or no more.
    async fn gather(&mut self, reader: &mut Reader, limit: usize, mut wait: Duration) -> std::result::Result<(), node::Error> {
        while self.events.len() < limit && self.bytes < limits::CHUNK_BYTES_MAX {
            let chunk = reader.next(Take { events: limit - self.events.len(), wait }).await?;
            let done = chunk.items.is_empty() || chunk.next > chunk.last_seq;
            self.last_seq = chunk.last_seq;
            chunk.items.into_iter().for_each(|item| self.add(item));
            if done {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Event(delivery) => {
                self.bytes += delivery.event.data.len();
                self.events.push(delivery);
            }
            Item::Gap { from, to } => self.gaps.push(Gap { from, to }),
        }
    }
}

const SEQ: HeaderName = HeaderName::from_static("event-seq");
const TIME: HeaderName = HeaderName::from_static("event-time");
const SUBJECT: HeaderName = HeaderName::from_static("event-subject");
const ID: HeaderName = HeaderName::from_static("event-id");

/// Read one event
///
/// Its own bytes with its own content type. User headers come back as `Event-Header-*`; of an event that came as a CloudEvent, as
/// the `ce-*` headers of the binary mode.
#[utoipa::path(
    get, path = "/v1/streams/{stream}/events/{seq}", operation_id = "getEvent", tag = "events", params(EventPath),
    responses(
        (status = 200, description = "The event as it was published", content_type = "*/*", body = serde_json::Value, headers(
            ("Event-Seq" = u64, description = "Its seq"),
            ("Event-Time" = String, description = "When it was taken, RFC 3339"),
            ("Event-Subject" = Option<String>, description = "Its subject, if it has one"),
            ("Event-Id" = Option<String>, description = "The publisher's id, if it has one"),
            ("ETag" = String, description = "Never changes"),
            ("Cache-Control" = String, description = "An event never changes"),
        )),
        (status = 304, description = "The client has it already", headers(("ETag" = String, description = "Never changes"))),
        EventProblems,
    ),
)]
pub async fn get_event(Stream(stream): Stream, Seq(seq): Seq, query: Query, headers: HeaderMap, Ready(node): Ready) -> Result {
    query.end()?;
    let delivery = node.get_event(&stream, seq).await?;
    let event = &delivery.event;
    // The time tells an event from the one with the same seq in a stream that was deleted and made anew.
    let tag = format!("\"{seq}-{:x}\"", event.time.0);
    let mut answer = HeaderMap::new();
    put(&mut answer, header::ETAG, &tag);
    put(&mut answer, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    if matches_tag(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    put_event(&mut answer, event);
    Ok((answer, Body::from(event.data.clone())).into_response())
}

/// Whether a publisher's content type may stand in a header: `type/subtype` of tokens, and ASCII behind it (RFC 9110, 8.3.1). In the
/// event's JSON it stands as it came.
fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let token = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    text.is_ascii() && essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

fn put_event(answer: &mut HeaderMap, event: &Event) {
    put(answer, SEQ, &event.seq.to_string());
    put(answer, TIME, &Timestamp(event.time).to_string());
    event.subject.iter().for_each(|subject| put(answer, SUBJECT, subject));
    event.id.iter().for_each(|id| put(answer, ID, id));
    put(answer, header::CONTENT_TYPE, if is_media_type(&event.content_type) { &event.content_type } else { "application/octet-stream" });
    put(answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // What a stranger published must not run as a page of this node.
    put(answer, header::CONTENT_SECURITY_POLICY, "sandbox");
    let cloud_event = event.headers.iter().any(|(name, _)| &**name == "ce-specversion");
    if let Some(id) = event.id.as_ref().filter(|_| cloud_event) {
        // Its own id, if it has another, follows among the headers and takes this one's place.
        put(answer, HeaderName::from_static(cloudevents::ID), id);
    }
    for (name, value) in &event.headers {
        let name = if cloud_event && name.starts_with("ce-") { name.to_string() } else { format!("event-header-{}", &**name) };
        if let Ok(name) = HeaderName::try_from(name) {
            put(answer, name, value);
        }
    }
}

/// Sets a header; a value that HTTP cannot carry was checked away when the event was published.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).map(str::trim).any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

/// A live response: never cached, never held back by something on the way.
pub fn live(content_type: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// How a live response tells why it ends: `{"error":{problem}}`.
pub fn problem_line(error: node::Error) -> String {
    let problem = Failure::from(error).0;
    format!("{{\"error\":{}}}", serde_json::to_string(&problem).expect("a problem has only fields that JSON can hold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &[&str], expected: Option<Form>) {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(negotiate(&headers).ok(), expected, "{accept:?}");
    }

    #[test]
    fn accept_chooses_the_form() {
        check(&[], Some(Form::Json));
        check(&[""], Some(Form::Json));
        check(&["*/*"], Some(Form::Json));
        check(&["application/*"], Some(Form::Json));
        check(&["text/event-stream"], Some(Form::Sse));
        check(&["text/*"], Some(Form::Sse));
        check(&["text/event-stream, */*"], Some(Form::Sse));
        check(&["text/html,application/xhtml+xml,*/*;q=0.8"], Some(Form::Json));
        check(&["application/json;q=0.5, application/x-ndjson"], Some(Form::Ndjson));
        check(&["application/json;q=0.5", "application/x-ndjson;q=0.4"], Some(Form::Json));
        check(&["application/json;q=0, */*"], Some(Form::Ndjson));
        check(&["Application/X-NDJSON; charset=utf-8"], Some(Form::Ndjson));
        check(&["image/png"], None);
        check(&["application/json;q=0"], None);
    }

    #[test]
    fn only_a_media_type_stands_in_the_header() {
        for (text, expected) in
            [("application/json", true), ("text/plain; charset=utf-8", true), ("", false), ("x", false), ("a/", false), ("é/x", false)]
        {
            assert_eq!(is_media_type(text), expected, "{text:?}");
        }
    }

    #[test]
    fn tags_are_compared() {
        for (given, expected) in [("\"1-a\"", true), ("W/\"1-a\"", true), ("\"x\", \"1-a\"", true), ("*", true), ("\"1-b\"", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(given).unwrap());
            assert_eq!(matches_tag(&headers, "\"1-a\""), expected, "{given}");
        }
    }
}
