//! Reading a request's body: bounded in bytes and time, and counted over all requests.

use super::{
    error::{Failure, Result},
    extract::media_type,
    state::{App, BODY_UNIT},
};
use crate::{core::limits, node, wire::Code};
use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use std::{pin::Pin, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// A body in memory, and its share of the bytes that this node holds.
pub struct Held {
    pub bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// The whole body, at most `max` bytes; `too_large` says what it is when it has more.
pub async fn read(app: &App, headers: &HeaderMap, body: Body, max: usize, too_large: Code) -> Result<Held> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|bytes| bytes > max as u64) && headers.contains_key(header::EXPECT) {
        // The client waits for leave to send it.
        return Err(over(max, too_large));
    }
    let share = (announced.unwrap_or(max as u64) as usize).min(max).div_ceil(BODY_UNIT) as u32;
    let share = app.bodies.clone().try_acquire_many_owned(share).map_err(|_| node::Error::Overloaded("request bodies"))?;
    let read = collect(body, max, announced);
    match tokio::time::timeout(Duration::from_millis(limits::BODY_WAIT_MS), read).await {
        Ok(Ok(Some(bytes))) => Ok(Held { bytes, _share: share }),
        Ok(Ok(None)) => Err(over(max, too_large)),
        Ok(Err(error)) => Err(Failure::new(Code::MalformedBody, format!("the body broke off: {error}"))),
        Err(_) => Err(Failure::new(Code::BodyTooSlow, format!("the body took longer than {} s", limits::BODY_WAIT_MS / 1000))),
    }
}

fn over(max: usize, code: Code) -> Failure {
    Failure::new(code, format!("the body has more than {max} bytes")).limit(max as u64)
}

/// The bytes; `None` when there are more than `max`. A body that is not far too large is read to its end even then: a connection
/// that is closed on unread bytes is reset, and the client would never see why.
async fn collect(mut body: Body, max: usize, announced: Option<u64>) -> std::result::Result<Option<Bytes>, axum::Error> {
    let mut kept = BytesMut::with_capacity(announced.unwrap_or(0).min(max as u64) as usize);
    let mut seen = 0;
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        seen += data.len();
        if seen <= max {
            kept.extend_from_slice(&data);
        } else if seen > limits::BODY_DROPPED_BYTES_MAX {
            break;
        }
    }
    Ok((seen <= max).then(|| kept.freeze()))
}

/// A JSON body of a small request; an empty one is `T`'s default where `T` allows that.
pub async fn json<T: DeserializeOwned>(app: &App, headers: &HeaderMap, body: Body, empty: Option<T>) -> Result<T> {
    let held = read(app, headers, body, limits::BODY_BYTES_MAX, Code::BodyTooLarge).await?;
    if matches!(held.bytes.trim_ascii(), b"" | b"null")
        && let Some(empty) = empty
    {
        return Ok(empty);
    }
    match media_type(headers)?.as_str() {
        "" | "application/json" => parse(&held.bytes),
        other => Err(unsupported(other, "application/json")),
    }
}

pub fn unsupported(given: &str, wanted: &str) -> Failure {
    Failure::new(Code::UnsupportedMediaType, format!("the Content-Type is {given}, and this path takes {wanted}"))
}

/// Reads JSON; says whether it is no JSON at all, or says something that cannot be.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.is_empty() {
        return Err(Failure::new(Code::EmptyBody, "the body is empty"));
    }
    // A JSON array is an object's fields in order to serde, and nothing of the kind to anybody else.
    let object = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let parsed = serde_json::from_slice(bytes);
    match parsed {
        Ok(_) if !object => Err(Failure::new(Code::InvalidBody, "the body is JSON, but not an object")),
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => Err(Failure::new(Code::InvalidBody, error.to_string())),
        Err(error) => Err(Failure::new(Code::MalformedBody, error.to_string())),
    }
}

/// JSON as an answer.
pub fn answer(value: &impl serde::Serialize) -> axum::response::Response {
    use axum::response::IntoResponse;
    let body = serde_json::to_vec(value).expect("a public shape has only fields that JSON can hold");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
