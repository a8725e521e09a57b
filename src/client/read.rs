//! Reading: a page, or one event.

use super::{Client, call::Call, error::Result, publish::check};
use crate::wire::{Page, Span, Start};
use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderValue};
use std::time::Duration;

impl Client {
    /// A page of events from there on. With a `wait` it is empty only when nothing came for so long.
    pub async fn read(&self, stream: &str, from: Start, subject: Option<&str>, limit: usize, wait: Duration) -> Result<Page> {
        let mut call = Call::get(&["v1", "streams", check(stream)?.as_str(), "events"]);
        call.query = vec![("from", from.to_string()), ("limit", limit.to_string())];
        call.query.extend(subject.map(|subject| ("subject", subject.to_owned())));
        if !wait.is_zero() {
            call.query.push(("wait", Span(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)).to_string()));
        }
        self.call(&call).await?.parse()
    }

    /// The data of one event.
    pub async fn read_one(&self, stream: &str, seq: u64) -> Result<Bytes> {
        let mut call = Call::get(&["v1", "streams", check(stream)?.as_str(), "events", &seq.to_string()]);
        // An event comes as it is, whatever its type.
        call.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        Ok(self.call(&call).await?.body)
    }
}
