//! Publishing: one event as the body is, or a batch as JSON or NDJSON.

use super::{
    body::{self, Held},
    cloudevents,
    error::{Failure, Result},
    extract::{Ready, Stream, bad_header, header_number, header_text, media_type},
    openapi::{BatchProblems, PublishBatchHeaders, PublishHeaders, PublishProblems, PublishQuery, StreamPath, TimeoutQuery},
    query::Query,
    state::App,
};
use crate::{
    core::{NewEvent, StreamName, Text, limits, name},
    node::{self, Node, Publish, Published},
    wire::{BatchAnswer, BatchEvent, BatchRequest, Code, PublishAnswer, Timestamp},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::time::Duration;
use tokio::{sync::SemaphorePermit, time::Instant};

const SUBJECT: HeaderName = HeaderName::from_static("event-subject");
const ID: HeaderName = HeaderName::from_static("event-id");
const EXPECTED: HeaderName = HeaderName::from_static("expected-last-seq");
const USER: &str = "event-header-";

/// Publish one event
///
/// The body is the event, as it is; its `Content-Type` is kept and given back. Headers whose names begin with `Event-Header-` are
/// kept with the event. A 201 means that the event is on disk on a majority of the stream's replicas; a repeat of an `Event-Id` inside
/// the stream's `dedup_window` is 200 with the first `seq`. Any node takes it.
///
/// CloudEvents are understood in all three modes: binary (`ce-*` headers), structured (`application/cloudevents+json`) and batched
/// (`application/cloudevents-batch+json`, all or none, answered as a batch). `id` becomes the event's id, `type` its subject unless
/// one is given, and every other attribute a header `ce-*`.
#[utoipa::path(
    post, path = "/v1/streams/{stream}/events", operation_id = "publishEvent", tag = "events", params(StreamPath, PublishQuery, PublishHeaders),
    request_body(description = "The event", content(
        (serde_json::Value = "application/json", example = json!({"order": 1001})),
        (inline(super::openapi::Words) = "text/plain", example = json!("hello")),
        (inline(super::openapi::Blob) = "application/octet-stream"),
        (cloudevents::CloudEvent = "application/cloudevents+json"),
        (Vec<cloudevents::CloudEvent> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 201, description = "Stored", body = inline(super::openapi::OneOrBatch), headers(("Location" = String, description = "Where the event is read"))),
        (status = 200, description = "Known already by its id, and not stored again", body = inline(super::openapi::OneOrBatch), headers(("Location" = String, description = "Where the first one is read"))),
        PublishProblems,
    ),
)]
pub async fn publish_event(
    State(app): State<App>,
    Stream(stream): Stream,
    mut query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
    body: Body,
) -> Result {
    let _place = place(&app)?;
    let given = Given::read(query.take("subject")?, &headers)?;
    let deadline = deadline(&mut query)?;
    query.end()?;
    let expected_last_seq = header_number(&headers, &EXPECTED)?;
    let media_type = media_type(&headers)?;
    let (events, many, _held) = match media_type.as_str() {
        cloudevents::BATCH => {
            let held = batch_body(&app, &headers, body).await?;
            let mut events = cloudevents::batch(&held.bytes)?;
            events.iter_mut().for_each(|event| given.name_subject(event));
            (events, true, held)
        }
        cloudevents::STRUCTURED => {
            let held = batch_body(&app, &headers, body).await?;
            let event = with_given(cloudevents::structured(&held.bytes)?, &headers, given, Code::InvalidBody)?;
            (vec![event], false, held)
        }
        _ => {
            let (event, held) = plain(&app, &headers, given, body).await?;
            (vec![event], false, held)
        }
    };
    let published = publish(&node, &stream, Publish { events, expected_last_seq, deadline }).await?;
    Ok(if many { batch_answer(&stream, published) } else { one_answer(&stream, published) })
}

/// Publish a batch
///
/// Up to 1,000 events or 1 MiB of data, all or none, as one JSON object or as NDJSON: there, each event of the array that this document
/// shows is a line.
#[utoipa::path(
    post, path = "/v1/streams/{stream}/batch", operation_id = "publishBatch", tag = "events", params(StreamPath, TimeoutQuery, PublishBatchHeaders),
    request_body(description = "The events", content(
        (BatchRequest = "application/json", example = json!({"events": [{"subject": "orders.eu.created", "id": "o-1001", "data": {"order": 1001}}, {"content_type": "text/plain", "data": "hello"}]})),
        (Vec<BatchEvent> = "application/x-ndjson", example = json!([{"subject": "orders.eu.created", "id": "o-1001", "data": {"order": 1001}}, {"data": {"order": 1002}}])),
        (Vec<cloudevents::CloudEvent> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 201, description = "Stored", body = BatchAnswer),
        (status = 200, description = "All known already by their ids, and none stored again", body = BatchAnswer),
        BatchProblems,
    ),
)]
pub async fn publish_batch(
    State(app): State<App>,
    Stream(stream): Stream,
    mut query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
    body: Body,
) -> Result {
    let _place = place(&app)?;
    let deadline = deadline(&mut query)?;
    query.end()?;
    let expected_last_seq = header_number(&headers, &EXPECTED)?;
    let held = batch_body(&app, &headers, body).await?;
    let events = match media_type(&headers)?.as_str() {
        "application/json" => json(&held.bytes)?,
        "application/x-ndjson" => ndjson(&held.bytes)?,
        cloudevents::BATCH => cloudevents::batch(&held.bytes)?,
        other => return Err(body::unsupported(other, "application/json, application/x-ndjson or application/cloudevents-batch+json")),
    };
    let published = publish(&node, &stream, Publish { events, expected_last_seq, deadline }).await?;
    Ok(batch_answer(&stream, published))
}

/// A place among the publishes that this node works on; taken before the body is read.
fn place(app: &App) -> Result<SemaphorePermit<'_>> {
    app.publishes.try_acquire().map_err(|_| node::Error::Overloaded("publishes").into())
}

fn deadline(query: &mut Query) -> Result<Instant> {
    let ms = query.span("timeout", 1, limits::READ_WAIT_MS_MAX)?.unwrap_or(limits::PUBLISH_WAIT_MS);
    Ok(Instant::now() + Duration::from_millis(ms))
}

async fn batch_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Held> {
    let held = body::read(app, headers, body, limits::BODY_BYTES_MAX, Code::BodyTooLarge).await?;
    match held.bytes.is_empty() {
        true => Err(Failure::new(Code::EmptyBody, "the body is empty")),
        false => Ok(held),
    }
}

async fn publish(node: &Node, stream: &StreamName, publish: Publish) -> Result<Published> {
    check_batch(&publish.events)?;
    Ok(node.publish(stream, publish).await?)
}

/// The bounds of one publish request.
pub fn check_batch(events: &[NewEvent]) -> Result<()> {
    if events.is_empty() {
        return Err(Failure::new(Code::InvalidBody, "a batch has at least one event"));
    }
    if events.len() > limits::BATCH_EVENTS_MAX {
        return Err(node::Error::BatchTooLarge { limit: limits::BATCH_EVENTS_MAX as u64, unit: "events" }.into());
    }
    if events.iter().map(|event| event.data.len()).sum::<usize>() > limits::BATCH_BYTES_MAX {
        return Err(node::Error::BatchTooLarge { limit: limits::BATCH_BYTES_MAX as u64, unit: "data bytes" }.into());
    }
    Ok(())
}

/// An event whose data is the body as it is: a plain one, or a CloudEvent in binary mode.
async fn plain(app: &App, headers: &HeaderMap, given: Given, body: Body) -> Result<(NewEvent, Held)> {
    let cloud_event = cloudevents::is_binary(headers);
    let mut event =
        NewEvent { content_type: header_text(headers, &header::CONTENT_TYPE)?.unwrap_or_default().into(), ..NewEvent::default() };
    if cloud_event {
        cloudevents::binary(headers, &mut event)?;
    }
    let mut event = with_given(event, headers, given, Code::InvalidHeader)?;
    let held = body::read(app, headers, body, limits::EVENT_BYTES_MAX, Code::EventTooLarge).await?;
    if held.bytes.is_empty() && !cloud_event {
        return Err(Failure::new(Code::EmptyBody, "the body is the event, and it is empty"));
    }
    event.data = held.bytes.clone();
    Ok((event, held))
}

/// What a request may say beside the event itself; checked, even where something else wins over it.
struct Given {
    subject: Option<Text>,
    id: Option<Text>,
}

impl Given {
    /// The parameter wins over the header.
    fn read(parameter: Option<String>, headers: &HeaderMap) -> Result<Given> {
        let header = header_text(headers, &SUBJECT)?;
        for subject in parameter.iter().chain(&header) {
            name::check_subject(subject).map_err(|error| Failure::new(Code::InvalidSubject, error.0))?;
        }
        let id = header_text(headers, &ID)?;
        if let Some(id) = &id {
            name::check_event_id(id).map_err(|error| bad_header(&ID, &error.0))?;
        }
        Ok(Given { subject: parameter.or(header).map(Text::from), id: id.map(Text::from) })
    }

    /// The subject that is given wins over a CloudEvent's type.
    fn name_subject(&self, event: &mut NewEvent) {
        if self.subject.is_some() {
            event.subject.clone_from(&self.subject);
        }
    }
}

/// Puts in what is given, and checks the whole; `code` is for what the event itself says wrong.
fn with_given(mut event: NewEvent, headers: &HeaderMap, given: Given, code: Code) -> Result<NewEvent> {
    given.name_subject(&mut event);
    if let Some(id) = given.id {
        // A CloudEvent keeps the id that it has of its own.
        if let Some(own) = event.id.take().filter(|own| *own != id) {
            event.headers.push((Text::from(cloudevents::ID), own));
        }
        event.id = Some(id);
    }
    user_headers(headers, &mut event)?;
    event.check().map_err(|error| Failure::new(code, error.0))?;
    Ok(event)
}

/// Keeps `Event-Header-*`; one that is there several times is joined with commas, as HTTP has it.
fn user_headers(headers: &HeaderMap, event: &mut NewEvent) -> Result<()> {
    for name in headers.keys() {
        let Some(own) = name.as_str().strip_prefix(USER) else { continue };
        let values: Vec<&str> = headers
            .get_all(name)
            .iter()
            .map(|value| std::str::from_utf8(value.as_bytes()))
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| bad_header(name, "its value is not UTF-8"))?;
        event.headers.push((Text::from(own), Text::from(values.join(", "))));
    }
    Ok(())
}

fn json(bytes: &[u8]) -> Result<Vec<NewEvent>> {
    let batch: BatchRequest = body::parse(bytes)?;
    batch_events(batch.events)
}

/// Checks the events of a batch; a wrong one is named by its place.
pub fn batch_events(events: Vec<BatchEvent>) -> Result<Vec<NewEvent>> {
    if events.len() > limits::BATCH_EVENTS_MAX {
        return Err(node::Error::BatchTooLarge { limit: limits::BATCH_EVENTS_MAX as u64, unit: "events" }.into());
    }
    events.into_iter().enumerate().map(|(at, event)| new_event(event).map_err(|failure| failure.line(at + 1))).collect()
}

fn new_event(event: BatchEvent) -> Result<NewEvent> {
    NewEvent::try_from(event).map_err(|error| Failure::new(Code::InvalidBody, error.0))
}

/// One event a line; empty lines are skipped, and counted.
fn ndjson(bytes: &[u8]) -> Result<Vec<NewEvent>> {
    let mut events = Vec::new();
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if events.len() == limits::BATCH_EVENTS_MAX {
            return Err(node::Error::BatchTooLarge { limit: limits::BATCH_EVENTS_MAX as u64, unit: "events" }.into());
        }
        let event = body::parse::<BatchEvent>(line).and_then(new_event).map_err(|mut failure| {
            failure.0.line = Some(at as u64 + 1);
            failure.0.detail = format!("line {}: {}", at + 1, failure.0.detail);
            failure
        })?;
        events.push(event);
    }
    Ok(events)
}

fn one_answer(stream: &StreamName, published: Published) -> Response {
    let duplicate = published.count == 0;
    let status = if duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let location = format!("/v1/streams/{stream}/events/{}", published.first_seq);
    let answer = PublishAnswer { stream: stream.to_string(), seq: published.first_seq, time: Timestamp(published.time), duplicate };
    (status, [(header::LOCATION, location)], body::answer(&answer)).into_response()
}

fn batch_answer(stream: &StreamName, published: Published) -> Response {
    let status = if published.count == 0 { StatusCode::OK } else { StatusCode::CREATED };
    let Published { first_seq, last_seq, count, duplicates, .. } = published;
    let location = format!("/v1/streams/{stream}/events/{first_seq}");
    let answer = BatchAnswer { stream: stream.to_string(), first_seq, last_seq, count, duplicates };
    (status, [(header::LOCATION, location)], body::answer(&answer)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str) -> std::result::Result<usize, (String, Option<u64>)> {
        ndjson(lines.as_bytes()).map(|events| events.len()).map_err(|failure| (failure.0.code.clone(), failure.0.line))
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        assert_eq!(check("{\"data\":1}\n{\"data\":2}"), Ok(2));
        assert_eq!(check("{\"data\":1}\r\n\n{\"data\":2}\n"), Ok(2));
        let fails = |code: &str, line| Err((code.to_owned(), Some(line)));
        assert_eq!(check("{\"data\":1}\n\n{\"data\":2\n"), fails("malformed-body", 3));
        assert_eq!(check("{\"data\":1}\n{\"dat\":2}\n"), fails("invalid-body", 2));
        assert_eq!(check("{\"data\":1}\n[1]\n"), fails("invalid-body", 2));
        assert_eq!(check("{\"data\":1,\"subject\":\"a.*\"}"), fails("invalid-body", 1));
        assert_eq!(check(&"{\"data\":1}\n".repeat(1000)), Ok(1000));
        assert_eq!(check(&"{\"data\":1}\n".repeat(1001)), Err(("batch-too-large".into(), None)));
    }

    #[test]
    fn a_batch_is_bounded_in_events_and_bytes() {
        let event = |bytes: usize| NewEvent { data: vec![0; bytes].into(), ..NewEvent::default() };
        assert!(check_batch(&[]).is_err());
        assert!(check_batch(&[event(limits::BATCH_BYTES_MAX)]).is_ok());
        assert!(check_batch(&[event(limits::BATCH_BYTES_MAX), event(1)]).is_err());
        assert!(json(br#"{"events":[]}"#).is_ok_and(|events| check_batch(&events).is_err()));
    }
}
