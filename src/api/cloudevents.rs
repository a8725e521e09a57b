//! CloudEvents 1.0 over HTTP, in all three modes, as events and back.
//!
//! `id` becomes the event's id, `type` its subject unless one is given; `datacontenttype` its content type. Every attribute but the
//! id is kept as a header `ce-*`, `ce-type` too (a subject given beside it would hide it): so the event reads back as a CloudEvent.
//!
//! - What is kept is an attribute's text, whichever mode it came in: the percent-encoding of the binary mode is of the headers alone.
//! - Any event reads as a CloudEvent in JSON; one that came otherwise has attributes made from what it has.

use super::{
    body,
    error::{Failure, Result},
    extract::{bad_header, header_text},
};
use crate::{
    core::{Event, NewEvent, StreamName, Text, limits, name},
    node,
    wire::{Code, Timestamp, event::json_value, is_json_type, publish},
};
use axum::http::{HeaderMap, HeaderName};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

pub const STRUCTURED: &str = "application/cloudevents+json";
pub const BATCH: &str = "application/cloudevents-batch+json";

/// Where a CloudEvent's own id is kept when the event has another.
pub const ID: &str = "ce-id";

const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
/// What an attribute's text must not have in a header: with these, all that is not printable ASCII (CloudEvents over HTTP, 3.1.3.2).
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// The type of an event that has no subject and came otherwise.
const DEFAULT_TYPE: &str = "event";
/// Members of a CloudEvent in JSON that are no attributes of a header's name.
const MEMBERS: [&str; 2] = ["data", "datacontenttype"];
/// The attributes that every CloudEvent has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// A CloudEvent in JSON: the shape for the document; other attributes are strings, numbers or booleans.
#[derive(ToSchema)]
#[schema(examples(json!({"specversion": "1.0", "id": "o-1001", "source": "/shop", "type": "orders.eu.created", "datacontenttype": "application/json", "data": {"order": 1001}})))]
#[allow(dead_code, reason = "only the document needs its fields")]
pub struct CloudEvent {
    #[schema(schema_with = version)]
    specversion: String,
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    id: String,
    #[schema(min_length = 1, max_length = 4096, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    source: String,
    /// The event's subject, unless one is given.
    #[schema(
        rename = "type",
        min_length = 1,
        max_length = 256,
        pattern = "^[^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+(\\.[^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+){0,31}$"
    )]
    type_: String,
    #[schema(required = false, max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    datacontenttype: Option<String>,
    #[schema(required = false, value_type = Value)]
    data: serde_json::Value,
    #[schema(
        required = false,
        nullable = false,
        content_encoding = "base64",
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
    )]
    data_base64: Option<String>,
}

fn version() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["1.0"])).build()
}

/// A CloudEvent as it comes: every attribute, and `data` as it is written.
struct Incoming(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Incoming {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Incoming, D::Error> {
        BTreeMap::deserialize(from).map(Incoming)
    }
}

#[derive(Deserialize)]
struct Batch(#[serde(deserialize_with = "publish::bounded")] Vec<Incoming>);

/// Whether the request is a CloudEvent in binary mode.
pub fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key(SPEC_VERSION)
}

/// Takes the `ce-*` headers of the binary mode.
pub fn binary(headers: &HeaderMap, event: &mut NewEvent) -> Result<()> {
    let mut attributes = BTreeMap::new();
    for name in headers.keys().filter(|name| name.as_str().starts_with("ce-")) {
        let value = decode(&header_text(headers, name)?.unwrap_or_default()).map_err(|why| bad_header(name, why))?;
        attributes.insert(name.as_str()["ce-".len()..].to_owned(), value);
    }
    attribute_fields(attributes, event).map_err(|why| bad_header(&SPEC_VERSION, &why))
}

/// An attribute's text, as a header has it: a quoted string perhaps, percent-encoded. What is no encoding stands for itself.
fn decode(value: &str) -> std::result::Result<String, &'static str> {
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let plain = quoted.map_or_else(|| value.to_owned(), unescape);
    percent_decode_str(&plain).decode_utf8().map(String::from).map_err(|_| "its value is not UTF-8 when decoded")
}

/// What a quoted string stands for: a backslash gives the character behind it.
fn unescape(quoted: &str) -> String {
    let mut chars = quoted.chars();
    std::iter::from_fn(|| chars.next().and_then(|c| if c == '\\' { chars.next() } else { Some(c) })).collect()
}

/// An attribute's text for a header.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Reads one CloudEvent in structured mode.
pub fn structured(bytes: &[u8]) -> Result<NewEvent> {
    event(body::parse(bytes)?)
}

/// Reads the CloudEvents of the batched mode.
pub fn batch(bytes: &[u8]) -> Result<Vec<NewEvent>> {
    let Batch(events) = serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(if error.is_data() { Code::InvalidBody } else { Code::MalformedBody }, error.to_string()))?;
    if events.len() > limits::BATCH_EVENTS_MAX {
        return Err(node::Error::BatchTooLarge { limit: limits::BATCH_EVENTS_MAX as u64, unit: "events" }.into());
    }
    let checked = |incoming| {
        let event = event(incoming)?;
        event.check().map_err(|error| invalid(error.0))?;
        Ok(event)
    };
    events.into_iter().enumerate().map(|(at, incoming)| checked(incoming).map_err(|failure: Failure| failure.line(at + 1))).collect()
}

fn event(Incoming(mut fields): Incoming) -> Result<NewEvent> {
    let data = fields.remove("data");
    let data_base64 = fields.remove("data_base64").map(|raw| serde_json::from_str(raw.get())).transpose();
    let data_base64 = data_base64.map_err(|_| invalid("data_base64 is a string".into()))?;
    let mut attributes = BTreeMap::new();
    for (name, raw) in fields {
        check_name(&name).map_err(invalid)?;
        if let Some(value) = scalar(&name, &raw)? {
            attributes.insert(name, value);
        }
    }
    let content_type = attributes.remove("datacontenttype");
    let mut event = NewEvent::default();
    attribute_fields(attributes, &mut event).map_err(invalid)?;
    if data.is_some() || data_base64.is_some() {
        let default = if data.is_some() { "application/json" } else { "" };
        let content_type = content_type.unwrap_or_else(|| default.into());
        event.data = publish::data(data, data_base64, &content_type).map_err(|error| invalid(error.0))?;
        event.content_type = content_type.into();
    } else {
        event.content_type = content_type.unwrap_or_default().into();
    }
    Ok(event)
}

/// Whether an attribute may have this name.
fn check_name(name: &str) -> std::result::Result<(), String> {
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    fits.then_some(()).ok_or_else(|| format!("{name:?} is not the name of an attribute: those are made of a-z and 0-9"))
}

/// An attribute's text; `null` is absence.
fn scalar(name: &str, raw: &RawValue) -> Result<Option<String>> {
    match serde_json::from_str(raw.get()) {
        Ok(serde_json::Value::Null) => Ok(None),
        Ok(serde_json::Value::String(text)) => Ok(Some(text)),
        _ if REQUIRED.contains(&name) || name == "datacontenttype" => Err(invalid(format!("attribute {name} is a string"))),
        Ok(serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => Ok(Some(raw.get().to_owned())),
        _ => Err(invalid(format!("attribute {name} is a string, a number or a boolean"))),
    }
}

/// Puts attributes where an event keeps them.
fn attribute_fields(mut attributes: BTreeMap<String, String>, event: &mut NewEvent) -> std::result::Result<(), String> {
    if let Some(missing) = REQUIRED.iter().find(|name| attributes.get(**name).is_none_or(String::is_empty)) {
        return Err(format!("a CloudEvent has the attribute {missing}"));
    }
    if attributes["specversion"] != "1.0" {
        return Err(format!("CloudEvents of version {} are not understood, only 1.0", attributes["specversion"]));
    }
    // Checked here, since a subject that is given may hide it.
    name::check_subject(&attributes["type"]).map_err(|error| format!("the attribute type becomes the subject: {}", error.0))?;
    name::check_event_id(&attributes["id"]).map_err(|error| error.0)?;
    event.subject = attributes.get("type").map(|kind| Text::from(kind.as_str()));
    event.id = attributes.remove("id").map(Text::from);
    for (name, value) in attributes {
        check_name(&name)?;
        event.headers.push((Text::from(format!("ce-{name}")), Text::from(value)));
    }
    Ok(())
}

/// Whether an event came as a CloudEvent: it has the attributes that every one has.
pub fn is_one(event: &Event) -> bool {
    let has = |attribute: &str| event.headers.iter().any(|(name, _)| name.strip_prefix("ce-") == Some(attribute));
    event.id.is_some() && ["specversion", "source", "type"].into_iter().all(has)
}

/// An event as a CloudEvent in JSON.
pub fn write(stream: &StreamName, event: &Event) -> Vec<u8> {
    let mut fields: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for (name, value) in attributes(stream, event) {
        fields.insert(name, text(&value));
    }
    if !event.content_type.is_empty() {
        fields.insert("datacontenttype", text(&event.content_type));
    }
    if !event.data.is_empty() {
        let (name, data) = written_data(event);
        fields.insert(name, data);
    }
    serde_json::to_vec(&fields).expect("texts and JSON are written to memory")
}

/// Events as a batch of CloudEvents.
pub fn write_batch<'a>(stream: &StreamName, events: impl Iterator<Item = &'a Event>) -> Vec<u8> {
    let mut out = vec![b'['];
    for (at, event) in events.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend(write(stream, event));
    }
    out.push(b']');
    out
}

/// Every attribute but the content type.
fn attributes<'a>(stream: &StreamName, event: &'a Event) -> BTreeMap<&'a str, String> {
    let id = event.id.as_ref().map_or_else(|| event.seq.to_string(), |id| id.to_string());
    let mut attributes = BTreeMap::from([("id", id)]);
    if is_one(event) {
        let kept = event.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix("ce-")?, value.to_string())));
        attributes.extend(kept.filter(|(name, _)| check_name(name).is_ok() && !MEMBERS.contains(name)));
    } else {
        let kind = event.subject.as_ref().map_or(DEFAULT_TYPE, |subject| subject);
        let made = [("specversion", "1.0".into()), ("source", format!("/v1/streams/{stream}")), ("type", kind.to_owned())];
        attributes.extend(made);
        attributes.insert("time", Timestamp(event.time).to_string());
    }
    attributes
}

/// The data with the name of its member. A CloudEvent without a content type is JSON in this form.
fn written_data(event: &Event) -> (&'static str, Box<RawValue>) {
    let json = event.content_type.is_empty() || is_json_type(&event.content_type);
    let data = match std::str::from_utf8(&event.data) {
        _ if json => json_value(&event.data),
        Ok(plain) => Some(text(plain)),
        Err(_) => None,
    };
    data.map_or_else(|| ("data_base64", text(&BASE64_STANDARD.encode(&event.data))), |data| ("data", data))
}

fn text(text: &str) -> Box<RawValue> {
    to_raw_value(text).expect("a string is written to memory")
}

fn invalid(why: String) -> Failure {
    Failure::new(Code::InvalidBody, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Time;

    #[test]
    fn the_modes_give_the_same_event() {
        let structured = structured(br#"{"specversion":"1.0","id":"7","source":"/s","type":"a.b","rank":3,"note":null,"datacontenttype":"application/json","data":{"x": 1}}"#).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/s"), ("ce-type", "a.b"), ("ce-rank", "3")] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let mut binary_event = NewEvent { content_type: "application/json".into(), data: r#"{"x": 1}"#.into(), ..NewEvent::default() };
        binary(&headers, &mut binary_event).unwrap();
        assert_eq!(structured, binary_event);
        assert_eq!((structured.id.as_deref(), structured.subject.as_deref()), (Some("7"), Some("a.b")));
        let kept: Vec<_> = structured.headers.iter().map(|(name, value)| format!("{}={}", &**name, &**value)).collect();
        assert_eq!(kept, ["ce-rank=3", "ce-source=/s", "ce-specversion=1.0", "ce-type=a.b"]);
    }

    #[test]
    fn header_values_are_percent_encoded() {
        for (text, header) in [
            ("Fußball \"1\" 50%41", "Fu%C3%9Fball%20%221%22%2050%2541"),
            ("€ 😀", "%E2%82%AC%20%F0%9F%98%80"),
            ("/shop?a=b#c!~'", "/shop?a=b#c!~'"),
        ] {
            assert_eq!(encode(text), header);
            assert_eq!(decode(header).as_deref(), Ok(text));
        }
        for (header, text) in
            [("Fußball 1", "Fußball 1"), ("100%", "100%"), ("%zz", "%zz"), (r#""a \"b\" %41""#, "a \"b\" A"), ("\"", "\"")]
        {
            assert_eq!(decode(header).as_deref(), Ok(text), "{header}");
        }
        assert!(decode("%ff").is_err());
    }

    fn written(event: NewEvent) -> String {
        let stream = StreamName::new("orders").unwrap();
        String::from_utf8(write(&stream, &Event::new(event, 7, Time(0)))).unwrap()
    }

    #[test]
    fn a_cloud_event_is_written_as_it_was_read() {
        let attributes = r#""id":"7","source":"/s","specversion":"1.0","subject":"50%41","type":"a.b""#;
        for data in [
            String::new(),
            r#""data":{"x": 1},"datacontenttype":"application/json","#.into(),
            r#""data":"a\nb","datacontenttype":"text/plain","#.into(),
            r#""data_base64":"/w==","datacontenttype":"image/png","#.into(),
            r#""data_base64":"/w==","#.into(),
        ] {
            let json = format!("{{{data}{attributes}}}");
            assert_eq!(written(structured(json.as_bytes()).unwrap()), json);
        }
    }

    #[test]
    fn any_event_is_written_as_a_cloud_event() {
        let event = NewEvent { data: "x".into(), content_type: "text/plain".into(), ..NewEvent::default() };
        assert_eq!(
            written(event.clone()),
            r#"{"data":"x","datacontenttype":"text/plain","id":"7","source":"/v1/streams/orders","specversion":"1.0","time":"1970-01-01T00:00:00.000000Z","type":"event"}"#
        );
        let named = NewEvent { subject: Some("orders.eu".into()), id: Some("o-1".into()), data: Default::default(), ..event };
        assert_eq!(
            written(named),
            r#"{"datacontenttype":"text/plain","id":"o-1","source":"/v1/streams/orders","specversion":"1.0","time":"1970-01-01T00:00:00.000000Z","type":"orders.eu"}"#
        );
        assert!(structured(written(NewEvent::default()).as_bytes()).is_ok());
    }

    #[test]
    fn bad_cloud_events_are_refused() {
        let ok = r#""specversion":"1.0","id":"7","source":"/s","type":"a""#;
        for (bad, why) in [
            ("{}".to_owned(), "specversion"),
            (r#"{"specversion":"0.3","id":"7","source":"/s","type":"a"}"#.into(), "0.3"),
            (r#"{"specversion":"1.0","id":"","source":"/s","type":"a"}"#.into(), "attribute id"),
            (format!("{{{ok},\"Bad\":1}}"), "a-z"),
            (format!("{{{ok},\"ext\":[1]}}"), "ext"),
            (format!("{{{ok},\"\":null}}"), "a-z"),
            (ok.replace("\"7\"", "7").replace("\"spec", "{\"spec") + "}", "attribute id is a string"),
            (format!("{{{ok},\"data\":1,\"data_base64\":\"\"}}"), "not both"),
            ("[]".into(), "a map"),
            ("{".into(), "EOF"),
        ] {
            let detail = structured(bad.as_bytes()).unwrap_err().0.detail;
            assert!(detail.contains(why), "{bad}: {detail}");
        }
        assert!(structured(format!("{{{ok}}}").as_bytes()).unwrap().data.is_empty());
        let second = batch(format!("[{{{ok}}},{{}}]").as_bytes()).unwrap_err();
        assert_eq!(second.0.line, Some(2));
    }
}
