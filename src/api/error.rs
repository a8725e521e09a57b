//! From what went wrong to what is answered: node errors become problems of the one catalogue in `wire`.

use crate::{
    node,
    wire::{Code, Problem},
};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// A problem on its way to the client. `edge` writes its body, so that it can add the request's id.
#[derive(Clone, Debug)]
pub struct Failure(pub Box<Problem>);

pub type Result<T = Response> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, detail: impl Into<String>) -> Failure {
        Failure(Box::new(Problem::new(code, detail)))
    }

    pub fn limit(mut self, limit: u64) -> Failure {
        self.0.limit = Some(limit);
        self
    }

    /// Names the event of a batch, from 1.
    pub fn line(mut self, line: usize) -> Failure {
        self.0.line = Some(line as u64);
        self.0.detail = format!("event {line}: {}", self.0.detail);
        self
    }
}

impl From<node::Error> for Failure {
    fn from(error: node::Error) -> Failure {
        use node::Error as E;
        let detail = error.to_string();
        let mut problem = Problem::new(code(&error), detail);
        match error {
            E::EventNotFound { last_seq, .. } | E::ExpectationFailed { last_seq } => problem.last_seq = Some(last_seq),
            E::EventGone { first_seq, .. } => problem.first_seq = Some(first_seq),
            E::EventTooLarge { limit, .. } | E::BatchTooLarge { limit, .. } | E::StreamFull { limit, .. } | E::DedupFull { limit } => {
                problem.limit = Some(limit)
            }
            _ => {}
        }
        Failure(Box::new(problem))
    }
}

fn code(error: &node::Error) -> Code {
    use node::Error as E;
    match error {
        E::Invalid(_) => Code::InvalidBody,
        E::StreamNotFound(_) => Code::StreamNotFound,
        E::NodeNotFound(_) => Code::NodeNotFound,
        E::Conflict(_) => Code::Conflict,
        E::EventNotFound { .. } => Code::EventNotFound,
        E::EventGone { .. } => Code::EventGone,
        E::ExpectationFailed { .. } => Code::ExpectationFailed,
        E::EventTooLarge { .. } => Code::EventTooLarge,
        E::BatchTooLarge { .. } => Code::BatchTooLarge,
        E::StreamFull { .. } => Code::StreamFull,
        E::DedupFull { .. } => Code::DedupFull,
        E::LimitReached(_) => Code::LimitReached,
        E::NoLeader => Code::NoLeader,
        E::Damaged(_) => Code::StreamDamaged,
        E::Overloaded(_) => Code::Overloaded,
        E::DiskFull => Code::DiskFull,
        E::Draining => Code::Draining,
        E::Starting => Code::Starting,
        E::NoQuorum(_) => Code::NoQuorum,
        E::OutcomeUnknown => Code::OutcomeUnknown,
        E::Internal(_) => Code::Internal,
    }
}

/// Whether a reader should go on trying: the node could not answer now.
pub fn is_refusal(error: &node::Error) -> bool {
    code(error).entry().status == 503
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).expect("the catalogue's statuses are in range");
        let mut response = status.into_response();
        if let Some(ms) = self.0.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        response.extensions_mut().insert(*self.0);
        response
    }
}
