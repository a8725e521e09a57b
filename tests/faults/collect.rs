//! The end of a run: every node's copy of every stream, read from its first event to its last.

use crate::history::{NodeLog, Stored};
use crate::value::Value;
use serde::Deserialize;
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// A response that brings nothing for so long is given up, and the rest asked for again.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    #[serde(borrow, default)]
    data: Cow<'a, str>,
}

/// What the node gives, or why it does not. At least `last` events are waited for.
pub async fn log(node: &str, url: &str, stream: &str, last: u64) -> Result<NodeLog, String> {
    let mut log = NodeLog { node: node.into(), events: Vec::new() };
    let mut progress = Instant::now();
    loop {
        let before = log.events.len();
        let outcome = more(url, stream, &mut log).await;
        if outcome.is_ok() && log.events.len() as u64 >= last {
            return Ok(log);
        }
        if log.events.len() > before {
            progress = Instant::now();
        }
        if progress.elapsed() > PATIENCE {
            let why = outcome.err().unwrap_or_else(|| "it says that this is all".into());
            return Err(format!("{node} gave {} of {last} events of {stream}: {why}", log.events.len()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads on from where the log ends, to the end as the node sees it.
async fn more(url: &str, stream: &str, log: &mut NodeLog) -> Result<(), String> {
    let http = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
    let from = (log.events.len() + 1).to_string();
    let request = http.get(format!("{url}/v1/streams/{stream}/events")).query(&[("from", from.as_str()), ("limit", "1000000000")]);
    let mut answer = request.header("accept", "application/x-ndjson").send().await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default()));
    }
    let mut buffer = Vec::new();
    loop {
        let chunk = tokio::time::timeout(SILENCE, answer.chunk()).await.map_err(|_| "it says nothing any more")?;
        let Some(chunk) = chunk.map_err(|error| error.to_string())? else { return Ok(()) };
        buffer.extend_from_slice(&chunk);
        let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { continue };
        for line in buffer[..end].split(|byte| *byte == b'\n') {
            take(line, log)?;
        }
        buffer.drain(..=end);
    }
}

fn take(text: &[u8], log: &mut NodeLog) -> Result<(), String> {
    let line: Line = serde_json::from_slice(text).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(text)))?;
    let next = log.events.len() as u64 + 1;
    if line.seq != next {
        return Err(format!("{next} is next, and there came {}", String::from_utf8_lossy(text)));
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    log.events.push(Stored { value: Value::of_bytes(line.data.as_bytes()), hash: hasher.finish() });
    Ok(())
}
