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
