//! Publishing: the batch that a client sends, and what it gets back.

use super::{event, time::Timestamp};
use crate::core::{Invalid, NewEvent, Text, limits};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt, marker::PhantomData};
use utoipa::ToSchema;

/// What became of one event: durable on a majority of the stream's replicas.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublishAnswer {
    #[schema(examples("orders"))]
    pub stream: String,
    #[schema(minimum = 1, examples(42))]
    pub seq: u64,
    pub time: Timestamp,
    /// Whether the event was known already by its id; then `seq` is the first one's.
    pub duplicate: bool,
}

/// What became of a batch: durable on a majority of the stream's replicas.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct BatchAnswer {
    #[schema(examples("orders"))]
    pub stream: String,
    /// Of the events that were stored; when all were duplicates, of the first and the last original.
    #[schema(minimum = 1, examples(43))]
    pub first_seq: u64,
    #[schema(minimum = 1, examples(57))]
    pub last_seq: u64,
    /// Events that were stored.
    #[schema(minimum = 0, maximum = 1000, examples(15))]
    pub count: u32,
    /// Events that were known already by their id and not stored again.
    #[schema(minimum = 0, maximum = 1000, examples(0))]
    pub duplicates: u32,
}

/// Up to 1,000 events that are taken all or none.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    #[serde(deserialize_with = "bounded")]
    #[schema(min_items = 1, max_items = 1000)]
    pub events: Vec<BatchEvent>,
}

/// Reads a field that is there; `null` is not a text.
pub(super) fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    String::deserialize(from).map(Some)
}

/// Reads an array, but keeps only one element more than a batch may have: the others are known to be too many.
pub fn bounded<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of events")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while kept.len() <= limits::BATCH_EVENTS_MAX
                && let Some(element) = seq.next_element()?
            {
                kept.push(element);
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }
    from.deserialize_seq(Bounded(PhantomData))
}

/// One event of a batch: exactly one of `data` and `data_base64`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchEvent {
    /// Dot-separated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+(\\.[^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+){0,31}$",
        examples("orders.eu.created")
    )]
    pub subject: Option<String>,
    /// For deduplication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", examples("o-1001"))]
    pub id: Option<String>,
    /// Names are taken without regard to case, and kept in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = headers)]
    pub headers: BTreeMap<String, String>,
    /// Default: `application/json` for `data`, none for `data_base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$", examples("application/json"))]
    pub content_type: Option<String>,
    /// Any JSON value. With a JSON content type the value is kept as it is written; with another, a string stands for its text.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "event::raw")]
    #[schema(value_type = Value, examples(json!({"order": 1001})))]
    pub data: Option<Box<RawValue>>,
    /// Any bytes, in standard base64.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    #[schema(
        nullable = false,
        content_encoding = "base64",
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$",
        examples("AAEC")
    )]
    pub data_base64: Option<String>,
}

/// User headers: token names, values without control characters.
pub(super) fn headers() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    let value = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(limits::HEADER_VALUE_BYTES_MAX))
        .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$"));
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(limits::HEADER_NAME_BYTES_MAX))
        .pattern(Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(name))
        .additional_properties(Some(value))
        .max_properties(Some(limits::HEADERS_MAX))
        .description(Some("Names are taken without regard to case, and kept in lower case."))
        .build()
}

impl TryFrom<BatchEvent> for NewEvent {
    type Error = Invalid;

    /// Checks everything but the stream's own bounds.
    fn try_from(event: BatchEvent) -> Result<NewEvent, Invalid> {
        let content_type =
            event.content_type.unwrap_or_else(|| if event.data.is_some() { "application/json".into() } else { String::new() });
        let new = NewEvent {
            subject: event.subject.map(Text::from),
            id: event.id.map(Text::from),
            headers: lower_case(event.headers)?,
            data: data(event.data, event.data_base64, &content_type)?,
            content_type: content_type.into(),
        };
        new.check()?;
        Ok(new)
    }
}

/// The bytes that `data` or `data_base64` stand for.
pub fn data(json: Option<Box<RawValue>>, base64: Option<String>, content_type: &str) -> Result<Bytes, Invalid> {
    match (json, base64) {
        (Some(json), None) => Ok(json_data(json, content_type)),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map(Bytes::from).map_err(|error| Invalid(format!("data_base64 is not standard base64: {error}")))
        }
        (Some(_), Some(_)) => Err(Invalid("an event has data or data_base64, not both".into())),
        (None, None) => Err(Invalid("an event has data or data_base64; this one has neither".into())),
    }
}

fn json_data(json: Box<RawValue>, content_type: &str) -> Bytes {
    if !event::is_json_type(content_type)
        && let Ok(text) = serde_json::from_str::<String>(json.get())
    {
        return Bytes::from(text);
    }
    Bytes::from(String::from(Box::<str>::from(json)))
}

fn lower_case(headers: BTreeMap<String, String>) -> Result<Vec<(Text, Text)>, Invalid> {
    let mut kept: Vec<(Text, Text)> = Vec::with_capacity(headers.len());
    for (mut name, value) in headers {
        name.make_ascii_lowercase();
        if kept.iter().any(|(other, _)| **other == *name) {
            return Err(Invalid(format!("header {name} is there twice")));
        }
        kept.push((name.into(), value.into()));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(String, String), String> {
        let event: BatchEvent = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let new = NewEvent::try_from(event).map_err(|e| e.to_string())?;
        Ok((new.content_type.to_string(), String::from_utf8_lossy(&new.data).into_owned()))
    }

    #[test]
    fn data_becomes_bytes_by_its_content_type() {
        let ok = |t: &str, d: &str| Ok((t.to_string(), d.to_string()));
        assert_eq!(check(r#"{"data":{"a": 1.0}}"#), ok("application/json", r#"{"a": 1.0}"#));
        assert_eq!(check(r#"{"data":null}"#), ok("application/json", "null"));
        assert_eq!(check(r#"{"data":"x"}"#), ok("application/json", "\"x\""));
        assert_eq!(check(r#"{"data":"x\n","content_type":"text/plain"}"#), ok("text/plain", "x\n"));
        assert_eq!(check(r#"{"data":[1],"content_type":"text/plain"}"#), ok("text/plain", "[1]"));
        assert_eq!(check(r#"{"data_base64":"eA=="}"#), ok("", "x"));
        assert_eq!(check(r#"{"data_base64":""}"#), ok("", ""));
    }

    #[test]
    fn bad_events_are_refused_with_a_reason() {
        for (bad, why) in [
            ("{}", "neither"),
            (r#"{"data":1,"data_base64":""}"#, "not both"),
            (r#"{"data_base64":"*"}"#, "base64"),
            (r#"{"data":1,"subjet":"a"}"#, "unknown field"),
            (r#"{"data":1,"subject":"a..b"}"#, "subject"),
            (r#"{"data":1,"id":""}"#, "event id"),
            (r#"{"data":1,"headers":{"A":"1","a":"2"}}"#, "twice"),
            (r#"{"data":1,"headers":{"a b":"1"}}"#, "header"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
