//! One publish over HTTP, sent once to one node, and what its answer means.

use crate::value::Value;
use evermesh::wire::{BatchAnswer, BatchEvent, BatchRequest, Problem, PublishAnswer};
use std::time::Duration;

/// Longer than a node holds a request back, so that "no answer" is about the node and not about us.
const DEADLINE: Duration = Duration::from_secs(13);
const CONNECT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Http(pub reqwest::Client);

#[derive(Debug, PartialEq)]
pub enum Answer {
    /// `duplicates`: how many of the events were known by their id.
    Acked {
        seq: u64,
        duplicates: u32,
    },
    /// A node says that it did not take it.
    Refused {
        wait: Duration,
    },
    /// No connection: nothing was sent.
    Unsent,
    Mismatch {
        actual: u64,
    },
    Unknown,
    /// What the contract does not have.
    Wrong(String),
}

impl Http {
    pub fn new() -> Http {
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).connect_timeout(CONNECT).pool_max_idle_per_host(4).build();
        Http(client.expect("the options are constants"))
    }

    pub async fn publish(&self, node: &str, stream: &str, value: Value, id: bool, expected: Option<u64>) -> Answer {
        let mut request = self.0.post(format!("{node}/v1/streams/{stream}/events")).timeout(DEADLINE);
        request = request.header("content-type", "text/plain").header("event-subject", subject(value)).body(value.bytes());
        if id {
            request = request.header("event-id", value.id());
        }
        if let Some(expected) = expected {
            request = request.header("expected-last-seq", expected);
        }
        let parse = |bytes: &[u8]| {
            let answer: PublishAnswer = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            Ok((answer.seq, answer.duplicate.into()))
        };
        answer(request, parse).await
    }

    pub async fn batch(&self, node: &str, stream: &str, first: Value, count: u32, ids: bool) -> Answer {
        let event = |value: Value| BatchEvent {
            subject: Some(subject(value)),
            id: ids.then(|| value.id()),
            content_type: Some("text/plain".into()),
            data: serde_json::value::to_raw_value(&value.text()).ok(),
            ..BatchEvent::default()
        };
        let body = BatchRequest { events: (0..u64::from(count)).map(|at| event(first.plus(at))).collect() };
        let request = self.0.post(format!("{node}/v1/streams/{stream}/batch")).timeout(DEADLINE).json(&body);
        let parse = |bytes: &[u8]| {
            let answer: BatchAnswer = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            let whole = answer.last_seq + 1 == answer.first_seq + u64::from(count) && answer.count + answer.duplicates == count;
            match whole && (answer.duplicates == 0 || answer.duplicates == count) {
                true => Ok((answer.first_seq, answer.duplicates)),
                false => Err(format!("a batch of {count} was answered with {answer:?}")),
            }
        };
        answer(request, parse).await
    }
}

pub fn subject(value: Value) -> String {
    format!("faults.p{}", value.publisher())
}

async fn answer(request: reqwest::RequestBuilder, parse: impl Fn(&[u8]) -> Result<(u64, u32), String>) -> Answer {
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Answer::Unsent,
        Err(error) if error.is_builder() => return Answer::Wrong(error.to_string()),
        Err(_) => return Answer::Unknown,
    };
    let status = answer.status().as_u16();
    let Ok(bytes) = answer.bytes().await else { return Answer::Unknown };
    if status == 200 || status == 201 {
        return match parse(&bytes) {
            Ok((seq, duplicates)) if (status == 200) == (duplicates > 0) => Answer::Acked { seq, duplicates },
            Ok(other) => Answer::Wrong(format!("status {status} with seq and duplicates {other:?}")),
            Err(why) => Answer::Wrong(why),
        };
    }
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => of_problem(&problem),
        Err(_) => Answer::Wrong(format!("status {status}: {}", String::from_utf8_lossy(&bytes))),
    }
}

/// What a problem says about a publish.
pub fn of_problem(problem: &Problem) -> Answer {
    match (problem.status, problem.last_seq) {
        (412, Some(actual)) => Answer::Mismatch { actual },
        // 507: the disk is nearly full there; another node may have room.
        (503 | 507, _) => Answer::Refused { wait: Duration::from_millis(problem.retry_after_ms.unwrap_or(100).min(1000)) },
        (429, _) if problem.retryable => Answer::Refused { wait: Duration::from_millis(500) },
        (500 | 504, _) => Answer::Unknown,
        _ => Answer::Wrong(format!("{} {}: {}", problem.status, problem.code, problem.detail)),
    }
}
