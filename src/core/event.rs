//! An event before and after it has its place in a stream.

use super::{limits, name, name::Invalid, text::Text};
use bytes::Bytes;

/// Microseconds since the Unix epoch, UTC. Set once, by the leader, and never decreasing within a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

/// What a publisher sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    pub subject: Option<Text>,
    /// The publisher's id, for deduplication.
    pub id: Option<Text>,
    /// Empty when the publisher named none.
    pub content_type: Text,
    pub headers: Vec<(Text, Text)>,
    pub data: Bytes,
}

impl NewEvent {
    /// Checks every field against the limits; `data_bytes_max` is the stream's own bound.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(subject) = &self.subject {
            name::check_subject(subject)?;
        }
        if let Some(id) = &self.id {
            name::check_event_id(id)?;
        }
        if self.content_type.len() > limits::CONTENT_TYPE_BYTES_MAX || self.content_type.chars().any(char::is_control) {
            return Err(Invalid(format!("a content type has at most {} printable bytes", limits::CONTENT_TYPE_BYTES_MAX)));
        }
        name::check_headers(&self.headers)
    }
}

/// What a reader gets: a published event with its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// 1, 2, 3 … without holes, per stream.
    pub seq: u64,
    pub time: Time,
    pub subject: Option<Text>,
    pub id: Option<Text>,
    pub content_type: Text,
    pub headers: Vec<(Text, Text)>,
    pub data: Bytes,
}

impl Event {
    pub fn new(event: NewEvent, seq: u64, time: Time) -> Event {
        let NewEvent { subject, id, content_type, headers, data } = event;
        Event { seq, time, subject, id, content_type, headers, data }
    }

    /// The size that a stream's `bytes` and `max_bytes` count for this event: everything of it but its seq and time.
    pub fn bytes(&self) -> u64 {
        event_bytes(&self.subject, &self.id, &self.content_type, &self.headers, &self.data)
    }
}

impl NewEvent {
    /// As [`Event::bytes`].
    pub fn bytes(&self) -> u64 {
        event_bytes(&self.subject, &self.id, &self.content_type, &self.headers, &self.data)
    }
}

fn event_bytes(subject: &Option<Text>, id: &Option<Text>, content_type: &Text, headers: &[(Text, Text)], data: &Bytes) -> u64 {
    let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.len());
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    (data.len() + text(subject) + text(id) + content_type.len() + headers) as u64
}
