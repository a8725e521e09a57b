//! A reader with a cursor of its own that outlives its connections: a while on one node, then on another, always from where it was.

use super::shared::Shared;
use super::sources::{Next, Source};
use crate::invariants::{Kind, Violation, reader::Cursor};
use crate::random::Random;
use crate::value::Value;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Sse,
    Single,
    Many,
    Lines,
    Pages,
}

impl Form {
    pub const ALL: [Form; 5] = [Form::Sse, Form::Single, Form::Many, Form::Lines, Form::Pages];
}

/// A connection that brings nothing for so long, though there is more, is left.
const SILENCE: Duration = Duration::from_secs(3);
/// Such leavings in a row, all nodes being well, after which a reader counts as stuck; the run's end judges it.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Reader {
    pub name: String,
    pub stream: usize,
    pub cursor: Cursor,
    shared: Arc<Shared>,
    form: Form,
    random: Random,
}

/// As much of an event as is judged.
#[derive(Deserialize)]
struct Seen<'a> {
    seq: u64,
    #[serde(borrow, default)]
    data: Cow<'a, str>,
}

impl Reader {
    pub fn new(shared: Arc<Shared>, stream: usize, form: Form, number: usize) -> Reader {
        let random = Random::part(shared.seed, 10_000 + 100 * stream as u64 + number as u64);
        let name = format!("reader {number} of {} ({form:?})", shared.streams[stream].name);
        Reader { name, stream, cursor: Cursor::new(1), shared, form, random }
    }

    /// Whether everything that anybody was told of was read.
    pub fn is_at_end(&self) -> bool {
        self.cursor.next > self.last()
    }

    pub fn last(&self) -> u64 {
        self.shared.streams[self.stream].told.lock().expect("nobody panics while holding it").last()
    }

    fn is_done(&self) -> bool {
        self.shared.closing.is_cancelled() || self.shared.finishing.is_cancelled() && self.is_at_end()
    }

    pub async fn run(mut self) -> Reader {
        while !self.is_done() {
            let urls = self.shared.roster.urls();
            let url = self.random.choose(&urls).clone();
            let stream = self.shared.streams[self.stream].name.clone();
            let opened = timeout(SILENCE, Source::open(self.form, &url, &stream, self.cursor.next)).await;
            match opened {
                Ok(Some(source)) => {
                    self.shared.counts.resumes.fetch_add(1, Relaxed);
                    self.follow(source, &url).await;
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        self
    }

    async fn follow(&mut self, mut source: Source, url: &str) {
        let until = Instant::now() + Duration::from_millis(self.random.between(500, 15_000));
        let who = format!("{} at {url}", self.name);
        while Instant::now() < until && !self.is_done() {
            let before = self.cursor.next;
            match timeout(SILENCE.min(Duration::from_secs(1)), source.next()).await {
                Ok(Some(Next::Event(text))) => self.meet(&who, &text),
                Ok(Some(Next::Gap { from, to })) => {
                    let judged = self.cursor.gap(&who, from, to, self.shared.retention);
                    self.shared.judge(judged);
                }
                Ok(Some(Next::Nothing)) => {}
                Ok(Some(Next::Wrong(why))) => {
                    self.shared.violate(Violation::new(Kind::Answer, format!("{who}: {why}")));
                    return;
                }
                Ok(None) => return,
                // Silent though there is more: perhaps the node is cut off.
                Err(_) if self.cursor.next == before && !self.is_at_end() => return,
                Err(_) => {}
            }
        }
    }

    fn meet(&mut self, who: &str, text: &[u8]) {
        self.shared.counts.delivered.fetch_add(1, Relaxed);
        let Ok(seen) = serde_json::from_slice::<Seen>(text) else {
            let text = String::from_utf8_lossy(text);
            return self.shared.violate(Violation::new(Kind::Answer, format!("{who} got what is no event: {text}")));
        };
        let judged = self.cursor.meet(who, seen.seq);
        self.shared.judge(judged);
        let judged = match Value::of_bytes(seen.data.as_bytes()) {
            Some(value) => {
                let mut told = self.shared.streams[self.stream].told.lock().expect("nobody panics while holding it");
                told.tell(who, seen.seq, value)
            }
            None => Err(Violation::new(Kind::Wrong, format!("{who} read bytes at {} that nobody sent: {}", seen.seq, seen.data))),
        };
        self.shared.judge(judged);
    }
}
