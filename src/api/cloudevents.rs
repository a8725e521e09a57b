//! CloudEvents 1.0 over HTTP, in all three modes, as events and back.
//!
//! `id` becomes the event's id, `type` its subject unless one is given; `datacontenttype` its content type. Every attribute but the
//! id is kept as a header `ce-*`, `ce-type` too (a subject given beside it would hide it): so the event reads back as a CloudEvent in
//! binary mode.

use super::{
    body,
    error::{Failure, Result},
    extract::{bad_header, header_text},
};
use crate::{
    core::{NewEvent, Text, limits},
    node,
    wire::{Code, publish},
};
use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

pub const STRUCTURED: &str = "application/cloudevents+json";
pub const BATCH: &str = "application/cloudevents-batch+json";

/// Where a CloudEvent's own id is kept when the event has another.
pub const ID: &str = "ce-id";

const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
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
        let value = header_text(headers, name)?.unwrap_or_default();
        attributes.insert(name.as_str()["ce-".len()..].to_owned(), value);
    }
    attribute_fields(attributes, event).map_err(|why| bad_header(&SPEC_VERSION, &why))
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
    event.id = attributes.remove("id").map(Text::from);
    event.subject = attributes.get("type").map(|kind| Text::from(kind.as_str()));
    // Checked here, so that they are even where the request gives others.
    event.check().map_err(|error| error.0)?;
    for (name, value) in attributes {
        check_name(&name)?;
        event.headers.push((Text::from(format!("ce-{name}")), Text::from(value)));
    }
    Ok(())
}

fn invalid(why: String) -> Failure {
    Failure::new(Code::InvalidBody, why)
}

#[cfg(test)]
mod tests {
    use super::*;

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
