//! The parameters of reading, the same for pages, live responses and WebSockets.

use super::{
    error::{Failure, Result},
    query::Query,
};
use crate::{
    core::{SubjectFilter, limits},
    node::From,
    wire::{Code, Start},
};

/// `from=` as it may be written.
pub const START: &str = "a seq from 1, earliest, latest, new, or an RFC 3339 time";

/// Where to start; `None` when the client does not say.
pub fn start(query: &mut Query) -> Result<Option<From>> {
    query.parse("from", START, |text| Start::parse(text).and_then(from))
}

/// The node's word for a start; `None` for seq 0, which no event has.
pub fn from(start: Start) -> Option<From> {
    match start {
        Start::Seq(0) => None,
        Start::Seq(seq) => Some(From::Seq(seq)),
        Start::Earliest => Some(From::Earliest),
        Start::Latest => Some(From::Latest),
        Start::New => Some(From::New),
        Start::Time(time) => Some(From::Time(time.0)),
    }
}

/// The subject filter, if any.
pub fn filter(query: &mut Query) -> Result<Option<SubjectFilter>> {
    query.take("subject")?.map(|text| subject_filter(&text)).transpose()
}

pub fn subject_filter(text: &str) -> Result<SubjectFilter> {
    SubjectFilter::new(text).map_err(|error| Failure::new(Code::InvalidSubject, error.0))
}

/// `wait=`, in milliseconds.
pub fn wait(query: &mut Query) -> Result<Option<u64>> {
    query.span("wait", 0, limits::READ_WAIT_MS_MAX)
}
