//! Reads acknowledged events back, each at a node of its own choice, at once.

use super::http::Http;
use super::shared::{Check, Shared};
use crate::invariants::recency::{self, Read};
use crate::random::Random;
use crate::value::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);

pub async fn run(shared: Arc<Shared>, mut random: Random) {
    let http = Http::new();
    loop {
        let check = tokio::select! {
            check = async { shared.checks_due.lock().await.recv().await } => check,
            () = shared.closing.cancelled() => return,
        };
        let Some(Check { stream, seq, value }) = check else { return };
        let urls = shared.roster.urls();
        let url = random.choose(&urls);
        let read = read(&http, &format!("{url}/v1/streams/{}/events/{seq}", shared.streams[stream].name)).await;
        shared.counts.reads.fetch_add(1, Relaxed);
        shared.counts.reads_silent.fetch_add(u64::from(read == Read::Silent), Relaxed);
        shared.judge(recency::check(&format!("{url}, asked for {},", shared.streams[stream].name), value, seq, &read));
    }
}

async fn read(http: &Http, url: &str) -> Read {
    let Ok(answer) = http.0.get(url).timeout(DEADLINE).send().await else { return Read::Silent };
    match answer.status().as_u16() {
        200 => answer.bytes().await.map_or(Read::Silent, |bytes| Read::Found(Value::of_bytes(&bytes))),
        404 => Read::Beyond,
        410 => Read::Gone,
        _ => Read::Silent,
    }
}
