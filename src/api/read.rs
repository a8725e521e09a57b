//! Reading: pages, and the choice among the forms.

use super::{
    cloudevents,
    error::{Failure, Result},
    extract::{Ready, Stream},
    follow, ndjson,
    openapi::{ReadProblems, ReadQuery, StreamPath},
    params,
    query::Query,
    sse,
    state::App,
};
use crate::{
    core::{StreamName, SubjectFilter, limits},
    node::{self, Delivery, From, Item, Reader, Take},
    wire::{self, Code, Gap},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::{fmt::Write, sync::Arc, time::Duration};

/// The forms in which events are given, the preferred one first.
const FORMS: [(&str, Form); 4] = [
    ("application/json", Form::Json),
    ("application/x-ndjson", Form::Ndjson),
    ("text/event-stream", Form::Sse),
    (cloudevents::BATCH, Form::CloudEvents),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Ndjson,
    Sse,
    CloudEvents,
}

impl Form {
    /// Whether it is a page, and so ends.
    fn is_page(self) -> bool {
        matches!(self, Form::Json | Form::CloudEvents)
    }
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
///
/// `application/cloudevents-batch+json` is a page of CloudEvents. An event that came otherwise has the stream's path as its `source`, its
/// subject as its `type`, and its id or seq as its `id`. Where the next page begins is in the header `Link`, what is gone in `Event-Gaps`.
#[utoipa::path(
    get, path = "/v1/streams/{stream}/events", operation_id = "readEvents", tag = "events", params(StreamPath, ReadQuery),
    responses(
        (status = 200, description = "Events in order of seq", headers(
            ("X-Request-Id" = String, description = "The request's id"),
            ("Link" = Option<String>, description = "Of a page of CloudEvents: the next page, with `rel=\"next\"`"),
            ("Event-Gaps" = Option<String>, description = "Of a page of CloudEvents: the seqs that are gone, such as `1-9, 20-29`"),
        ), content(
            (wire::Page = "application/json", example = json!({"events": [{"seq": 42, "time": "2026-11-22T10:15:30.123456Z", "subject": "orders.eu.created", "id": "o-1001", "content_type": "application/json", "data": {"order": 1001}}], "next": 43, "last_seq": 42})),
            (String = "application/x-ndjson", example = json!("{\"seq\":42,\"time\":\"2026-11-22T10:15:30.123456Z\",\"content_type\":\"application/json\",\"data\":{\"order\":1001}}\n")),
            (Vec<cloudevents::CloudEvent> = "application/cloudevents-batch+json"),
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
    let limit_max = if form.is_page() { limits::PAGE_EVENTS_MAX as u64 } else { limits::LIVE_EVENTS_MAX };
    let wanted = Wanted {
        from: params::start(&mut query)?,
        filter: params::filter(&mut query)?,
        limit: query.number("limit", 1, limit_max)?,
        wait: params::wait(&mut query)?,
    };
    query.end()?;
    match form {
        Form::Json | Form::CloudEvents => page(&node, &stream, wanted, form).await,
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
        .ok_or_else(|| Failure::new(Code::NotAcceptable, format!("events are read as {}", FORMS.map(|(name, _)| name).join(", "))))
}

/// A media range that names the type itself.
pub const EXACT: u32 = 3;

/// How much one media range of `Accept` wants a media type, in thousandths, and how exactly it names it; `None`: not at all.
pub fn weigh(range: &str, media_type: &str) -> Option<(u32, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?.to_ascii_lowercase();
    let exactness = match name.as_str() {
        "*/*" => 1,
        name if name == media_type => EXACT,
        name => match name.strip_suffix("/*") {
            Some(kind) if media_type.split('/').next() == Some(kind) => 2,
            _ => return None,
        },
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0f32), |q| q.parse().ok())?;
    Some(((weight.clamp(0.0, 1.0) * 1000.0) as u32, exactness))
}

/// A page of JSON.
async fn page(node: &node::Node, stream: &StreamName, wanted: Wanted, form: Form) -> Result {
    let from = wanted.from.unwrap_or(From::Earliest);
    let limit = wanted.limit.unwrap_or(limits::PAGE_EVENTS as u64) as usize;
    let mut reader = node.reader(stream, from, wanted.filter.clone()).await?;
    let mut gathered = Gathered::default();
    gathered.gather(&mut reader, limit, Duration::ZERO).await?;
    if gathered.is_empty()
        && let Some(wait) = wanted.wait.filter(|wait| *wait > 0)
    {
        gathered.gather(&mut reader, limit, Duration::from_millis(wait)).await?;
    }
    if form == Form::CloudEvents {
        return Ok(cloud_events(stream, &gathered, &next_page(stream, &wanted, reader.cursor(), limit)));
    }
    let events = gathered.events.iter().map(|delivery| follow::json(delivery));
    let body = wire::encode_page(events, &gathered.gaps, reader.cursor(), gathered.last_seq);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// A page of CloudEvents: a bare array, so that what else a page says is in headers.
fn cloud_events(stream: &StreamName, gathered: &Gathered, next: &str) -> Response {
    let mut headers = HeaderMap::new();
    put(&mut headers, header::CONTENT_TYPE, cloudevents::BATCH);
    put(&mut headers, header::CACHE_CONTROL, "no-store");
    put(&mut headers, header::LINK, &format!("<{next}>; rel=\"next\""));
    if !gathered.gaps.is_empty() {
        let gaps: Vec<String> = gathered.gaps.iter().map(|gap| format!("{}-{}", gap.from, gap.to)).collect();
        put(&mut headers, GAPS, &gaps.join(", "));
    }
    (headers, cloudevents::write_batch(stream, gathered.events.iter().map(|delivery| &delivery.event))).into_response()
}

/// Where the next page is, read in the same way.
fn next_page(stream: &StreamName, wanted: &Wanted, next: u64, limit: usize) -> String {
    let mut page = format!("/v1/streams/{stream}/events?from={next}&limit={limit}");
    if let Some(filter) = &wanted.filter {
        let _ = write!(page, "&subject={}", percent_encode(filter.as_str().as_bytes(), NON_ALPHANUMERIC));
    }
    if let Some(wait) = wanted.wait {
        let _ = write!(page, "&wait={wait}ms");
    }
    page
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

const GAPS: HeaderName = HeaderName::from_static("event-gaps");

/// Sets a header; a value that HTTP cannot carry was checked away when the event was published.
pub fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
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
        check(&["application/cloudevents-batch+json"], Some(Form::CloudEvents));
        check(&["image/png"], None);
        check(&["application/json;q=0"], None);
    }
}
