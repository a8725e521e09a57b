//! What handlers unpack from a request's head: the node, names in the path, headers.

use super::{
    error::{Failure, Result},
    state::App,
};
use crate::{
    core::{Invalid, NodeName, StreamName},
    node::{self, Node},
    wire::{Code, number},
};
use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, HeaderName, header, request::Parts},
};

/// The node, once it has started.
pub struct Ready(pub Node);

impl FromRequestParts<App> for Ready {
    type Rejection = Failure;
    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Ready> {
        app.slot.get().cloned().map(Ready).ok_or_else(|| node::Error::Starting.into())
    }
}

/// The stream that the path names.
pub struct Stream(pub StreamName);

impl FromRequestParts<App> for Stream {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Stream> {
        let name = path_param(parts, app, "stream").await?;
        StreamName::new(&name).map(Stream).map_err(invalid_name)
    }
}

/// The node that the path names.
pub struct NamedNode(pub NodeName);

impl FromRequestParts<App> for NamedNode {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<NamedNode> {
        let name = path_param(parts, app, "name").await?;
        NodeName::new(&name).map(NamedNode).map_err(invalid_name)
    }
}

/// The seq in the path.
pub struct Seq(pub u64);

impl FromRequestParts<App> for Seq {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Seq> {
        let text = path_param(parts, app, "seq").await?;
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(seq) if (1..=number::MAX).contains(&seq) && digits => Ok(Seq(seq)),
            _ => Err(Failure::new(Code::InvalidParameter, format!("{text:?} is not a seq: seqs are the numbers from 1"))),
        }
    }
}

/// One decoded parameter of the path.
pub async fn path_param(parts: &mut Parts, app: &App, name: &str) -> Result<String> {
    let params = RawPathParams::from_request_parts(parts, app).await.map_err(|error| Failure::new(Code::InvalidName, error.body_text()))?;
    let value = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    Ok(value.unwrap_or_default())
}

fn invalid_name(error: Invalid) -> Failure {
    Failure::new(Code::InvalidName, error.0)
}

/// The UTF-8 value of a header that may be there once.
pub fn header_text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad_header(name, "it is there twice"));
    }
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(bad_header(name, "its value is not UTF-8")),
    }
}

/// A header whose value is a whole number.
pub fn header_number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>> {
    let Some(text) = header_text(headers, name)? else { return Ok(None) };
    match text.parse() {
        Ok(number) if number <= number::MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(number)),
        _ => Err(bad_header(name, &format!("{text:?} is not a whole number"))),
    }
}

pub fn bad_header(name: &HeaderName, why: &str) -> Failure {
    Failure::new(Code::InvalidHeader, format!("header {name}: {why}"))
}

/// The media type of the body, in lower case and without parameters; empty when none is given.
pub fn media_type(headers: &HeaderMap) -> Result<String> {
    let text = header_text(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
