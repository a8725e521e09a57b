//! One HTTP call, tried at one server after another for as long as that is safe and there is time.

use super::{
    Client,
    error::{Error, Result},
    servers::display,
};
use crate::core::limits;
use crate::wire::Problem;
use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, StatusCode, Url,
    header::{ACCEPT, HeaderMap, HeaderValue},
};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// The pause after a round over all servers: from this, doubled each time …
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// … to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A request, ready to be sent to any server.
pub struct Call {
    pub method: Method,
    /// Segments, unescaped.
    pub path: Vec<String>,
    pub query: Vec<(&'static str, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether doing it twice is the same as doing it once.
    pub repeatable: bool,
}

/// What a server said, all of it.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    pub server: Url,
}

impl Call {
    pub fn get(path: &[&str]) -> Call {
        Call::new(Method::GET, path)
    }

    /// Repeatable where HTTP says that its method is.
    pub fn new(method: Method, path: &[&str]) -> Call {
        let repeatable = method == Method::GET || method == Method::PUT;
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        Call { method, path, query: Vec::new(), headers, body: Bytes::new(), repeatable }
    }

    pub fn json(mut self, body: &impl serde::Serialize) -> Call {
        self.body = serde_json::to_vec(body).expect("the wire's shapes have a JSON form").into();
        self.headers.insert(reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    fn url(&self, server: &Url) -> Url {
        let mut url = server.clone();
        url.path_segments_mut().expect("an http URL has a path").clear().extend(&self.path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

impl Answer {
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Unexpected(format!("{} gave an answer that cannot be read: {error}", display(&self.server))))
    }

    /// A success as it is, anything else as an error.
    fn check(self) -> Result<Answer> {
        if self.status.is_success() {
            return Ok(self);
        }
        let server = display(&self.server);
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => Err(Error::Problem { server, problem: Box::new(problem) }),
            Err(_) => Err(Error::Unexpected(format!("{server} answered {}: is it a node of Evermesh?", self.status))),
        }
    }
}

impl Client {
    /// Tries the servers in turn. Gives the first success, or the first error that another server would give as well, or that
    /// must not be followed by a second try.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer> {
        let began = Instant::now();
        let options = self.options();
        let mut pause = PAUSE_MIN;
        loop {
            let mut last = None;
            let mut reached = false;
            let mut why = Vec::new();
            for server in self.candidates() {
                let Some(left) = options.timeout.checked_sub(began.elapsed()) else { break };
                match self.attempt(&server, call, left.min(options.attempt_timeout)).await {
                    Ok(answer) => {
                        self.prefer(&server);
                        return Ok(answer);
                    }
                    Err(Error::Unreachable(reason)) => why.push(reason),
                    Err(error) if error.was_refused() || (error.is_unknown() && call.repeatable) => {
                        reached = true;
                        last = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            let error = last.unwrap_or_else(|| Error::Unreachable(why.join("; ")));
            let patience = if reached { options.timeout } else { options.unreachable_wait.min(options.timeout) };
            let wait = error.retry_after_ms().map_or(pause, |ms| Duration::from_millis(ms).clamp(PAUSE_MIN, PAUSE_MAX));
            if began.elapsed() + wait >= patience {
                return Err(error);
            }
            tokio::time::sleep(jittered(wait)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks one server once.
    pub(super) async fn attempt(&self, server: &Url, call: &Call, timeout: Duration) -> Result<Answer> {
        let request = self.0.http.request(call.method.clone(), call.url(server)).headers(call.headers.clone());
        let request = request.body(call.body.clone()).timeout(timeout);
        let failed = |error: reqwest::Error| match error.is_connect() || error.is_builder() {
            true => Error::Unreachable(format!("{}: {}", display(server), root(&error))),
            false => Error::Lost { server: display(server), why: root(&error) },
        };
        let mut response = request.send().await.map_err(failed)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > limits::CLIENT_ANSWER_BYTES_MAX {
                return Err(Error::Unexpected(format!("{} gives an answer without end", display(server))));
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status();
        Answer { status, body: body.freeze(), server: server.clone() }.check()
    }
}

/// The innermost reason: the layers above it say nothing to a person.
fn root(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// Between half of it and all: clients that lost the same node do not come back in step.
pub fn jittered(wait: Duration) -> Duration {
    let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    wait.mul_f64(0.5 + random / 2.0)
}
