//! Publishing one event or a batch, so that it is stored once however often it had to be sent.

use super::{Client, call::Call, error::Result};
use crate::core::{Invalid, StreamName};
use crate::wire::{BatchAnswer, BatchEvent, BatchRequest, PublishAnswer, is_json_type};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// An event to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub subject: Option<String>,
    /// For deduplication; given by the client when missing.
    pub id: Option<String>,
    pub content_type: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub data: Bytes,
}

impl Message {
    pub fn new(data: impl Into<Bytes>) -> Message {
        Message { data: data.into(), ..Message::default() }
    }

    pub fn json(value: &impl serde::Serialize) -> Message {
        let data = serde_json::to_vec(value).expect("the value has a JSON form");
        Message { content_type: Some("application/json".into()), ..Message::new(data) }
    }

    pub fn subject(mut self, subject: impl Into<String>) -> Message {
        self.subject = Some(subject.into());
        self
    }

    pub fn id(mut self, id: impl Into<String>) -> Message {
        self.id = Some(id.into());
        self
    }

    /// As an event of a JSON batch: the same bytes come out of it that went in.
    pub fn into_batch_event(self) -> BatchEvent {
        let mut event = BatchEvent { subject: self.subject, id: self.id, headers: self.headers, ..BatchEvent::default() };
        let is_json = self.content_type.as_deref().is_some_and(is_json_type);
        // JSON is kept as it is written, without the white space around it.
        let json = std::str::from_utf8(&self.data)
            .ok()
            .filter(|text| is_json && !text.starts_with(char::is_whitespace) && !text.ends_with(char::is_whitespace));
        match json.and_then(|text| RawValue::from_string(text.to_owned()).ok()) {
            Some(raw) => event.data = Some(raw),
            None => match std::str::from_utf8(&self.data) {
                Ok(text) if !is_json && self.content_type.is_some() => event.data = serde_json::value::to_raw_value(text).ok(),
                _ => event.data_base64 = Some(BASE64_STANDARD.encode(&self.data)),
            },
        }
        event.content_type = self.content_type;
        event
    }
}

impl Client {
    /// Publishes one event; when this returns, it is durable on a majority.
    pub async fn publish(&self, stream: &str, message: Message) -> Result<PublishAnswer> {
        self.publish_expecting(stream, message, None).await
    }

    /// Publishes one event if the stream's last seq is the expected one.
    pub async fn publish_expecting(&self, stream: &str, message: Message, last_seq: Option<u64>) -> Result<PublishAnswer> {
        let id = self.id_for(message.id);
        let mut call = Call::new(Method::POST, &["v1", "streams", check(stream)?.as_str(), "events"]);
        call.repeatable = id.is_some();
        // In the query, where any character can stand.
        call.query.extend(message.subject.map(|subject| ("subject", subject)));
        let mut put = |name: &str, value: &str| -> Result<()> {
            let bad = |_| Invalid(format!("{name}: {value:?} does not fit into an HTTP header"));
            let name = HeaderName::try_from(name).map_err(|_| Invalid(format!("{name:?} is no header name")))?;
            call.headers.insert(name, HeaderValue::from_str(value).map_err(bad)?);
            Ok(())
        };
        if let Some(id) = &id {
            put("event-id", id)?;
        }
        if let Some(content_type) = &message.content_type {
            put(CONTENT_TYPE.as_str(), content_type)?;
        }
        if let Some(last_seq) = last_seq {
            put("expected-last-seq", &last_seq.to_string())?;
        }
        for (name, value) in &message.headers {
            put(&format!("event-header-{name}"), value)?;
        }
        call.body = message.data;
        self.call(&call).await?.parse()
    }

    /// Publishes a batch, all or none.
    pub async fn publish_batch(&self, stream: &str, messages: Vec<Message>) -> Result<BatchAnswer> {
        let mut repeatable = true;
        let mut events = Vec::with_capacity(messages.len());
        for mut message in messages {
            message.id = self.id_for(message.id);
            repeatable &= message.id.is_some();
            events.push(message.into_batch_event());
        }
        let mut call = Call::new(Method::POST, &["v1", "streams", check(stream)?.as_str(), "batch"]).json(&BatchRequest { events });
        call.repeatable = repeatable;
        self.call(&call).await?.parse()
    }

    /// The publisher's id, or one of ours where it gave none and wants them.
    fn id_for(&self, id: Option<String>) -> Option<String> {
        id.or_else(|| self.options().assign_ids.then(|| self.next_id()))
    }
}

/// A stream's name, refused before it becomes part of a path.
pub(super) fn check(stream: &str) -> Result<StreamName> {
    Ok(StreamName::new(stream)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::NewEvent;

    #[test]
    fn a_batch_keeps_every_byte() {
        for (content_type, data) in [
            (Some("application/json"), &b"{\"a\": 1.00}"[..]),
            (Some("application/json"), b" {\"a\": 1}\n"),
            (Some("application/json"), b"no json"),
            (Some("text/plain"), b"{\"a\": 1}"),
            (Some("text/plain"), b"\"quoted\"\n"),
            (Some("image/png"), b"\x89PNG\xff"),
            (None, b"text"),
            (None, b""),
        ] {
            let message = Message { content_type: content_type.map(str::to_owned), ..Message::new(data) };
            let json = serde_json::to_string(&message.into_batch_event()).unwrap();
            let event = NewEvent::try_from(serde_json::from_str::<BatchEvent>(&json).unwrap()).unwrap();
            assert_eq!((&event.data[..], &*event.content_type), (data, content_type.unwrap_or_default()), "{json}");
        }
    }
}
