//! The query string, taken parameter by parameter: what nobody took is an error, so that a typo is told.

use super::{
    error::{Failure, Result},
    state::App,
};
use crate::wire::{Code, Span};
use axum::{extract::FromRequestParts, http::request::Parts};
use std::fmt::Display;

pub struct Query(Vec<(String, String)>);

impl FromRequestParts<App> for Query {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Query> {
        match axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(query) => Ok(Query(query.0)),
            Err(error) => Err(Failure::new(Code::InvalidParameter, error.body_text())),
        }
    }
}

impl Query {
    /// The value of a parameter that may be there once.
    pub fn take(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.0.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        match self.0.iter().any(|(key, _)| key == name) {
            true => Err(bad(name, "it is there twice")),
            false => Ok(Some(value)),
        }
    }

    /// A parameter that `parse` understands; `what` says what it should be.
    pub fn parse<T>(&mut self, name: &str, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        match parse(&value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(bad(name, format_args!("{value:?} is not {what}"))),
        }
    }

    /// A whole number from `min` to `max`.
    pub fn number(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>> {
        self.parse(name, &format!("a whole number from {min} to {max}"), |text| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|number| digits && (min..=max).contains(number))
        })
    }

    /// A span of time from `min_ms` to `max_ms`, in milliseconds.
    pub fn span(&mut self, name: &str, min_ms: u64, max_ms: u64) -> Result<Option<u64>> {
        let what = format!("a span of time such as 500ms, 30s or 1m, from {} to {}", Span(min_ms), Span(max_ms));
        self.parse(name, &what, |text| Span::parse(text).map(|span| span.0).filter(|ms| (min_ms..=max_ms).contains(ms)))
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<()> {
        match self.0.first() {
            Some((name, _)) => Err(bad(name, "this path has no such parameter")),
            None => Ok(()),
        }
    }
}

fn bad(name: &str, why: impl Display) -> Failure {
    Failure::new(Code::InvalidParameter, format!("parameter {name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query(text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    #[test]
    fn parameters_are_strict() {
        assert_eq!(query("limit=5").number("limit", 1, 10).unwrap(), Some(5));
        assert_eq!(query("").number("limit", 1, 10).unwrap(), None);
        assert_eq!(query("wait=1m").span("wait", 0, 60_000).unwrap(), Some(60_000));
        for bad in ["limit=0", "limit=11", "limit=-1", "limit=+1", "limit=", "limit=1e1", "limit=99999999999999999999", "limit=1&limit=2"] {
            assert!(query(bad).number("limit", 1, 10).is_err(), "{bad}");
        }
        for bad in ["wait=30", "wait=-1s", "wait=2h", "wait=99999999999h"] {
            assert!(query(bad).span("wait", 0, 60_000).is_err(), "{bad}");
        }
        let error = query("form=new").end().unwrap_err();
        assert!(error.0.detail.contains("form"), "{error:?}");
    }
}
