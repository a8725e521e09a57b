//! One event as JSON: written once for all readers, read back by clients.
//!
//! - Written on one line, always: it is an NDJSON line, an SSE `data` field and a WebSocket frame as it is.
//! - `data` says by itself, with the content type, which bytes were published: see [`Event::data`].

use super::time::Timestamp;
use crate::core;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt};
use utoipa::ToSchema;

/// Deepest nesting of JSON data that is passed on as JSON: common parsers stop at 128, and a page nests it a little further.
const JSON_DEPTH_MAX: u8 = 100;

/// An event as readers get it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Event {
    /// Its place in the stream: 1, 2, 3 … without holes.
    #[schema(minimum = 1)]
    pub seq: u64,
    /// When the stream's leader took it; never decreasing within a stream.
    pub time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("orders.eu.created"))]
    pub subject: Option<String>,
    /// The publisher's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("o-1001"))]
    pub id: Option<String>,
    /// As the publisher gave it; left out when none was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(examples("application/json"))]
    pub content_type: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// With a JSON content type the published JSON, else the published text as a string.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    #[schema(value_type = Value, examples(json!({"order": 1001})))]
    pub data: Option<Box<RawValue>>,
    /// The published bytes, where they are neither JSON nor text, or are not the JSON that their content type says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, content_encoding = "base64", examples("AAEC"))]
    pub data_base64: Option<String>,
}

impl Event {
    /// The published bytes; of JSON, line breaks between tokens have become spaces. `None` when the event does not decode.
    pub fn data(&self) -> Option<Bytes> {
        match (&self.data, &self.data_base64) {
            (_, Some(base64)) => BASE64_STANDARD.decode(base64).ok().map(Bytes::from),
            (Some(raw), None) if is_json_type(&self.content_type) => Some(Bytes::copy_from_slice(raw.get().as_bytes())),
            (Some(raw), None) => serde_json::from_str::<String>(raw.get()).ok().map(Bytes::from),
            (None, None) => None,
        }
    }
}

/// Reads any JSON value, `null` too, as it is written; a field that is missing is `None`.
pub(super) fn raw<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// Whether a content type says that the data is JSON: `application/json`, or any type with the suffix `+json`.
pub fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.len() > 5 && essence.as_bytes()[essence.len() - 5..].eq_ignore_ascii_case(b"+json")
}

/// The event's JSON object, on one line.
pub fn encode_event(event: &core::Event) -> Bytes {
    let mut out = BytesMut::with_capacity(160 + event.data.len());
    out.put_slice(b"{\"seq\":");
    put(&mut out, event.seq);
    out.put_slice(b",\"time\":\"");
    put(&mut out, Timestamp(event.time));
    out.put_slice(b"\"");
    if let Some(subject) = &event.subject {
        put_string(&mut out, ",\"subject\":", subject);
    }
    if let Some(id) = &event.id {
        put_string(&mut out, ",\"id\":", id);
    }
    if !event.content_type.is_empty() {
        put_string(&mut out, ",\"content_type\":", &event.content_type);
    }
    put_headers(&mut out, &event.headers);
    put_data(&mut out, event);
    out.put_slice(b"}");
    out.freeze()
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
}

fn put(out: &mut BytesMut, value: impl fmt::Display) {
    fmt::Write::write_fmt(out, format_args!("{value}")).expect("there is room in memory");
}

fn put_string(out: &mut BytesMut, key: &str, value: &str) {
    put_text(out, key);
    serde_json::to_writer(out.writer(), value).expect("a string is written to memory");
}

fn put_headers(out: &mut BytesMut, headers: &[(core::Text, core::Text)]) {
    for (at, (name, value)) in headers.iter().enumerate() {
        put_string(out, if at == 0 { ",\"headers\":{" } else { "," }, name);
        put_string(out, ":", value);
    }
    if !headers.is_empty() {
        out.put_u8(b'}');
    }
}

fn put_data(out: &mut BytesMut, event: &core::Event) {
    let text = std::str::from_utf8(&event.data).ok();
    match (is_json_type(&event.content_type), text) {
        (true, Some(text)) if is_portable_json(text) => {
            put_text(out, ",\"data\":");
            let at = out.len();
            put_text(out, text);
            // Inside JSON strings line breaks are escaped, so those that are left are white space. In place and without a branch: byte
            // by byte into the buffer was a third of what a reader costs that catches up.
            out[at..].iter_mut().for_each(|byte| *byte = if matches!(*byte, b'\n' | b'\r') { b' ' } else { *byte });
        }
        (false, Some(text)) => put_string(out, ",\"data\":", text),
        _ => put_string(out, ",\"data_base64\":", &BASE64_STANDARD.encode(&event.data)),
    }
}

/// Data as the JSON value that it is, if it is one that can be passed on as JSON.
pub fn json_value(data: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(data).ok().filter(|text| is_portable_json(text))?;
    RawValue::from_string(text.to_owned()).ok()
}

/// Whether a text is one JSON value that common parsers take: no lone surrogate, no number out of range, not nested too deep. A
/// value that only some parsers take would make a whole page unreadable for the others.
fn is_portable_json(text: &str) -> bool {
    let mut parser = serde_json::Deserializer::from_str(text);
    Portable(JSON_DEPTH_MAX).deserialize(&mut parser).is_ok() && parser.end().is_ok()
}

/// Walks a JSON value and keeps nothing of it; the number is how deep it may still go.
struct Portable(u8);

impl Portable {
    fn deeper<E: Error>(&self) -> Result<Portable, E> {
        self.0.checked_sub(1).map(Portable).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Portable {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Portable {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.deeper()?)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(self.deeper()?)?.is_some() {
            map.next_value_seed(self.deeper()?)?;
        }
        Ok(())
    }
}

/// Whether a text is one JSON value at all.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Text, Time};

    fn check(content_type: &str, data: &[u8], expected: &str) {
        let event = core::Event {
            seq: 7,
            time: Time(0),
            subject: None,
            id: None,
            content_type: content_type.into(),
            headers: vec![],
            data: Bytes::copy_from_slice(data),
        };
        let json = encode_event(&event);
        let text = std::str::from_utf8(&json).unwrap();
        let tail = text.split_once("00Z\"").unwrap().1.rsplit_once(",\"data").unwrap().1;
        assert_eq!(tail, format!("{expected}}}"), "{text}");
        assert!(!text.contains(['\n', '\r']));
        let back: Event = serde_json::from_slice(&json).unwrap();
        let unbroken: Vec<u8> = data
            .iter()
            .map(|b| if is_json_type(content_type) && back.data.is_some() && matches!(b, b'\n' | b'\r') { b' ' } else { *b })
            .collect();
        assert_eq!(back.data().unwrap(), unbroken);
    }

    #[test]
    fn data_shows_as_json_text_or_base64() {
        check("application/json", br#"{"a": [1, null]}"#, r#"":{"a": [1, null]}"#);
        check("application/vnd.x+json; v=1", b"1.50", r#"":1.50"#);
        check("application/json", b"{\n \"a\":\r\n1}", "\":{  \"a\":  1}");
        check("application/json", b"null", r#"":null"#);
        check("application/json", br#""text""#, r#"":"text""#);
        check("application/json", b"text", r#"_base64":"dGV4dA==""#);
        check("application/json", br#""\ud800""#, r#"_base64":"Ilx1ZDgwMCI=""#);
        check("application/json", b"1 2", r#"_base64":"MSAy""#);
        check("text/plain", b"a \"b\"\n", r#"":"a \"b\"\n""#);
        check("", b"text", r#"":"text""#);
        check("text/plain", b"\xff", r#"_base64":"/w==""#);
        check("application/octet-stream", b"", r#"":"""#);
        check("application/json", b"", r#"_base64":"""#);
    }

    #[test]
    fn deep_json_is_not_passed_on_as_json() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_portable_json(&nested(100)));
        assert!(!is_portable_json(&nested(102)));
        assert!(!is_portable_json(&nested(100_000)));
    }

    #[test]
    fn every_field_has_its_place() {
        let event = core::Event {
            seq: 42,
            time: Time(1_795_342_530_123_456),
            subject: Some(Text::from("orders.eu.created")),
            id: Some(Text::from("o-\"1\"")),
            content_type: "application/json".into(),
            headers: vec![("trace".into(), "1".into()), ("zone".into(), "b".into())],
            data: Bytes::from_static(br#"{"order":1001}"#),
        };
        assert_eq!(
            encode_event(&event),
            r#"{"seq":42,"time":"2026-11-22T10:15:30.123456Z","subject":"orders.eu.created","id":"o-\"1\"","content_type":"application/json","headers":{"trace":"1","zone":"b"},"data":{"order":1001}}"#
        );
    }
}
