//! Reading one event: its own bytes with its own content type, or a CloudEvent.

use super::{
    cloudevents,
    error::Result,
    extract::{Ready, Seq, Stream},
    openapi::{EventPath, EventProblems},
    query::Query,
    read::{EXACT, put, weigh},
};
use crate::{core::Event, wire::Timestamp};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::IntoResponse,
};

const SEQ: HeaderName = HeaderName::from_static("event-seq");
const TIME: HeaderName = HeaderName::from_static("event-time");
const SUBJECT: HeaderName = HeaderName::from_static("event-subject");
const ID: HeaderName = HeaderName::from_static("event-id");

/// Read one event
///
/// Its own bytes with its own content type. User headers come back as `Event-Header-*`; of an event that came as a CloudEvent, as
/// the `ce-*` headers of the binary mode. With `Accept: application/cloudevents+json` any event is a CloudEvent in structured mode.
#[utoipa::path(
    get, path = "/v1/streams/{stream}/events/{seq}", operation_id = "getEvent", tag = "events", params(EventPath),
    responses(
        (status = 200, description = "The event as it was published", content((serde_json::Value = "*/*"), (cloudevents::CloudEvent = "application/cloudevents+json")), headers(
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
    let structured = wants_structured(&headers);
    let tag = format!("\"{seq}-{:x}{}\"", event.time.0, if structured { "-ce" } else { "" });
    let mut answer = HeaderMap::new();
    put(&mut answer, header::ETAG, &tag);
    put(&mut answer, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    put(&mut answer, header::VARY, "accept");
    if matches_tag(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    put_event(&mut answer, event);
    if structured {
        put(&mut answer, header::CONTENT_TYPE, cloudevents::STRUCTURED);
        return Ok((answer, cloudevents::write(&stream, event)).into_response());
    }
    put_attributes(&mut answer, event);
    Ok((answer, Body::from(event.data.clone())).into_response())
}

/// Whether the client names the structured mode: any event is given as its own bytes to who takes anything.
fn wants_structured(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.filter_map(|range| weigh(range, cloudevents::STRUCTURED)).any(|(weight, exactness)| weight > 0 && exactness == EXACT)
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
    put(answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // What a stranger published must not run as a page of this node.
    put(answer, header::CONTENT_SECURITY_POLICY, "sandbox");
    let cloud_event = cloudevents::is_one(event);
    for (name, value) in event.headers.iter().filter(|(name, _)| !(cloud_event && name.starts_with("ce-"))) {
        if let Ok(name) = HeaderName::try_from(format!("event-header-{}", &**name)) {
            put(answer, name, value);
        }
    }
}

/// What the body is; and of a CloudEvent its attributes, as the binary mode has them.
fn put_attributes(answer: &mut HeaderMap, event: &Event) {
    let cloud_event = cloudevents::is_one(event);
    // A CloudEvent without a content type stays one without.
    if is_media_type(&event.content_type) {
        put(answer, header::CONTENT_TYPE, &event.content_type);
    } else if !cloud_event || !event.content_type.is_empty() {
        put(answer, header::CONTENT_TYPE, "application/octet-stream");
    }
    if !cloud_event {
        return;
    }
    // Its own id, if it has another, follows among the headers and takes this one's place.
    event.id.iter().for_each(|id| put(answer, HeaderName::from_static(cloudevents::ID), &cloudevents::encode(id)));
    for (name, value) in event.headers.iter().filter(|(name, _)| name.starts_with("ce-")) {
        if let Ok(name) = HeaderName::try_from(&**name) {
            put(answer, name, &cloudevents::encode(value));
        }
    }
}

fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).map(str::trim).any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

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
