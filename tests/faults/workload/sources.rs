//! The five ways to read a stream, as one: a source of events from a cursor on, on one node.

use super::reader::Form;
use evermesh::client::{Client, Options, Receiver, Sender};
use evermesh::wire::socket::{Command, Credit, Subscribe};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// Events that a subscription with credit may have under way.
const CREDIT: u64 = 500;
const PAGE: usize = 200;

pub enum Next {
    /// One event's JSON.
    Event(Vec<u8>),
    Gap {
        from: u64,
        to: u64,
    },
    Nothing,
    Wrong(String),
}

pub enum Source {
    Text(Text),
    Single(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Many(Box<Many>),
    Pages(Pages),
}

/// A response that goes on: SSE or NDJSON.
pub struct Text {
    response: reqwest::Response,
    buffer: Vec<u8>,
    read: usize,
    sse: bool,
}

pub struct Many {
    sender: Sender,
    receiver: Receiver,
    sub: u64,
    used: u64,
    ready: VecDeque<Next>,
    id: u64,
}

pub struct Pages {
    http: reqwest::Client,
    url: String,
    next: u64,
    ready: VecDeque<Next>,
}

#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: u64,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    next: u64,
    #[serde(default)]
    gaps: Vec<Gap>,
}

#[derive(Deserialize)]
struct GapLine {
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Push<'a> {
    sub: Option<u64>,
    #[serde(borrow)]
    events: Option<Vec<&'a RawValue>>,
    gap: Option<Gap>,
    goaway: Option<serde::de::IgnoredAny>,
}

fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(1)).build();
    client.expect("the options are constants")
}

impl Source {
    /// `None`: not now, not here.
    pub async fn open(form: Form, url: &str, stream: &str, from: u64) -> Option<Source> {
        match form {
            Form::Sse | Form::Lines => {
                let sse = form == Form::Sse;
                let request = http().get(format!("{url}/v1/streams/{stream}/events"));
                let request = match sse {
                    // The first time there is no last id.
                    true if from > 1 => request.header("accept", "text/event-stream").header("last-event-id", from - 1),
                    true => request.header("accept", "text/event-stream").query(&[("from", "1")]),
                    false => {
                        request.header("accept", "application/x-ndjson").query(&[("from", &from.to_string()), ("wait", &"20s".into())])
                    }
                };
                let response = request.send().await.ok()?;
                let buffer = Vec::new();
                response.status().is_success().then_some(Source::Text(Text { response, buffer, read: 0, sse }))
            }
            Form::Single => {
                let url = format!("{}/v1/streams/{stream}/ws?from={from}", url.replacen("http", "ws", 1));
                let (socket, _) = tokio_tungstenite::connect_async(url).await.ok()?;
                Some(Source::Single(Box::new(socket)))
            }
            Form::Many => Many::open(url, stream, from).await.map(|many| Source::Many(Box::new(many))),
            Form::Pages => {
                let url = format!("{url}/v1/streams/{stream}/events");
                Some(Source::Pages(Pages { http: http(), url, next: from, ready: VecDeque::new() }))
            }
        }
    }

    /// `None`: the connection ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Next> {
        match self {
            Source::Text(text) => text.next().await,
            Source::Single(socket) => match socket.next().await? {
                Ok(Message::Text(text)) => Some(line(text.as_bytes())),
                Ok(Message::Close(_)) | Err(_) => None,
                Ok(_) => Some(Next::Nothing),
            },
            Source::Many(many) => many.next().await,
            Source::Pages(pages) => pages.next().await,
        }
    }
}

/// One JSON text that is an event or tells of a gap.
fn line(text: &[u8]) -> Next {
    match text.starts_with(b"{\"gap\"") {
        true => match serde_json::from_slice::<GapLine>(text) {
            Ok(GapLine { gap: Some(Gap { from, to }) }) => Next::Gap { from, to },
            _ => Next::Wrong(format!("no gap: {}", String::from_utf8_lossy(text))),
        },
        false => Next::Event(text.to_vec()),
    }
}

impl Text {
    async fn next(&mut self) -> Option<Next> {
        loop {
            let end: &[u8] = if self.sse { b"\n\n" } else { b"\n" };
            let rest = &self.buffer[self.read..];
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                let part = rest[..at].to_vec();
                self.read += at + end.len();
                return match self.sse {
                    true => Some(sse(&part)),
                    false if part.starts_with(b"{\"type\"") || part.starts_with(b"{\"problem\"") => None,
                    false => Some(line(&part)),
                };
            }
            self.buffer.drain(..self.read);
            self.read = 0;
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                _ => return None,
            }
        }
    }
}

/// One message of an event stream.
fn sse(message: &[u8]) -> Next {
    let text = String::from_utf8_lossy(message);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_start_matches(' '));
    let Some(data) = field("data:") else { return Next::Nothing };
    match field("event:") {
        Some("gap") => match serde_json::from_str::<Gap>(data) {
            Ok(Gap { from, to }) => Next::Gap { from, to },
            Err(error) => Next::Wrong(format!("no gap: {data}: {error}")),
        },
        Some(_) => Next::Nothing,
        None => {
            let id = field("id:").unwrap_or_default();
            match data.starts_with(&format!("{{\"seq\":{id},")) {
                true => Next::Event(data.as_bytes().to_vec()),
                false => Next::Wrong(format!("the id {id} is not that of {data}")),
            }
        }
    }
}

impl Many {
    async fn open(url: &str, stream: &str, from: u64) -> Option<Many> {
        let options = Options { connect_timeout: Duration::from_secs(1), ..Options::default() };
        let mut socket = Client::new(&[url], options).ok()?.socket().await.ok()?;
        let from = serde_json::from_value(serde_json::json!(from.to_string())).ok()?;
        let subscribe = Subscribe { stream: stream.into(), from: Some(from), subject: None, credit: Some(CREDIT) };
        socket.send(&Command { id: 1, subscribe: Some(subscribe), ..Command::default() }).await.ok()?;
        loop {
            let frame = socket.next().await.ok()?;
            if frame.id == Some(1) {
                let sub = frame.subscribed?.sub;
                let (sender, receiver) = socket.split();
                return Some(Many { sender, receiver, sub, used: 0, ready: VecDeque::new(), id: 1 });
            }
        }
    }

    async fn next(&mut self) -> Option<Next> {
        if let Some(next) = self.ready.pop_front() {
            return Some(next);
        }
        if self.used >= CREDIT / 2 {
            self.id += 1;
            let credit = Credit { sub: self.sub, add: self.used };
            self.used = 0;
            self.sender.send(&Command { id: self.id, credit: Some(credit), ..Command::default() }).await.ok()?;
        }
        let text = self.receiver.next_text().await.ok()?;
        let push: Push = serde_json::from_str(&text).ok()?;
        if push.goaway.is_some() {
            return None;
        }
        if push.sub == Some(self.sub) {
            if let Some(Gap { from, to }) = push.gap {
                self.ready.push_back(Next::Gap { from, to });
            }
            let events = push.events.unwrap_or_default();
            self.used += events.len() as u64;
            self.ready.extend(events.into_iter().map(|event| Next::Event(event.get().as_bytes().to_vec())));
        }
        Some(self.ready.pop_front().unwrap_or(Next::Nothing))
    }
}

impl Pages {
    async fn next(&mut self) -> Option<Next> {
        if let Some(next) = self.ready.pop_front() {
            return Some(next);
        }
        let query = [("from", self.next.to_string()), ("limit", PAGE.to_string()), ("wait", "800ms".into())];
        let answer = self.http.get(&self.url).query(&query).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let bytes = answer.bytes().await.ok()?;
        let page: Page = match serde_json::from_slice(&bytes) {
            Ok(page) => page,
            Err(error) => return Some(Next::Wrong(format!("no page: {error}"))),
        };
        self.ready.extend(page.gaps.into_iter().map(|Gap { from, to }| Next::Gap { from, to }));
        self.ready.extend(page.events.into_iter().map(|event| Next::Event(event.get().as_bytes().to_vec())));
        self.next = page.next;
        Some(self.ready.pop_front().unwrap_or(Next::Nothing))
    }
}
