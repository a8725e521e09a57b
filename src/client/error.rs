//! Why a client's call did not succeed, with what was accepted and what is not known kept apart.

use crate::core::Invalid;
use crate::wire::Problem;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    BadServer(String),
    /// Wrong before anything was sent.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// No server took a connection: nothing was sent. Names each with its reason.
    #[error("no server can be reached: {0}")]
    Unreachable(String),
    /// A node answered with a problem.
    #[error("{}", explain(problem))]
    Problem { server: String, problem: Box<Problem> },
    /// It was sent, and no answer came: it may have been done.
    #[error("{server} did not answer ({why}): the request may or may not have been carried out")]
    Lost { server: String, why: String },
    /// The other side ended a WebSocket, and coming back would not help.
    #[error("{server} closed the connection: {code} {reason}")]
    Closed { server: String, code: u16, reason: String },
    /// An answer that no node gives.
    #[error("{0}")]
    Unexpected(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The problem's code, where a node answered with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Problem { problem, .. } => Some(&problem.code),
            _ => None,
        }
    }

    /// Whether the same may succeed later, on this server or another, and certainly was not done yet.
    pub fn was_refused(&self) -> bool {
        match self {
            Error::Unreachable(_) => true,
            Error::Problem { problem, .. } => problem.retryable && matches!(problem.status, 429 | 503 | 507),
            _ => false,
        }
    }

    /// Whether it is not known if it was done.
    pub fn is_unknown(&self) -> bool {
        match self {
            Error::Lost { .. } => true,
            Error::Problem { problem, .. } => matches!(problem.status, 500 | 504),
            _ => false,
        }
    }

    /// How long the node asks to wait before the next try.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Error::Problem { problem, .. } => problem.retry_after_ms,
            _ => None,
        }
    }
}

fn explain(problem: &Problem) -> &str {
    if problem.detail.is_empty() { &problem.title } else { &problem.detail }
}
