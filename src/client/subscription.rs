//! Following one stream over a WebSocket: every event from the start on, in order, each once, on whichever node is there.
//!
//! - `cursor` is the next seq to give out. It moves only forward, and is where a new connection begins.
//! - Nothing is given out twice: what a node sends before the cursor is dropped.
//! - A hole that nobody announced is told as [`Item::Hole`]; it would be a broken promise.

use super::{
    Client, Socket,
    call::jittered,
    error::{Error, Result},
    publish::check,
    servers::display,
};
use crate::core::StreamName;
use crate::wire::socket::{self, Subscribed, close};
use crate::wire::{Event, Gap, Start, Timestamp};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// After so much silence the node is asked whether it is there …
const SILENCE_ASK: Duration = Duration::from_secs(10);
/// … and after so much more it is given up.
const SILENCE_LEAVE: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The ids of the two commands that a subscription sends.
const SUBSCRIBE: u64 = 1;
const PING: u64 = 2;

/// What to follow.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub from: Start,
    /// A subject filter.
    pub subject: Option<String>,
}

/// What a subscription brings.
#[derive(Debug)]
pub enum Item {
    /// At least one.
    Events(Vec<Event>),
    /// Retention or a purge removed these before they could be read.
    Gap(Gap),
    /// These never came, and nobody said why.
    Hole(Gap),
    /// The connection broke, and the subscription goes on at this server.
    Moved { server: String, why: String },
}

pub struct Subscription {
    client: Client,
    stream: StreamName,
    from: Start,
    subject: Option<String>,
    cursor: Option<u64>,
    /// When the stream was created, as the first server said.
    created: Option<Timestamp>,
    link: Option<Link>,
    /// What one frame brought beyond its first item: at most two.
    waiting: VecDeque<Item>,
    /// Why the last connection broke.
    broke: Option<String>,
}

/// A connection with a subscription that was asked for.
struct Link {
    socket: Socket,
    heard: Instant,
    asked: bool,
}

impl Client {
    /// Follows a stream. Returns once a node has taken the subscription.
    pub async fn subscribe(&self, stream: &str, what: Subscribe) -> Result<Subscription> {
        let stream = check(stream)?;
        let mut subscription = Subscription {
            client: self.clone(),
            stream,
            from: what.from,
            subject: what.subject,
            cursor: None,
            created: None,
            link: None,
            waiting: VecDeque::new(),
            broke: None,
        };
        subscription.connect(self.options().unreachable_wait).await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// The next seq that it may bring.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// The next item; an error when following on would not help, or no node could be reached for `resume_wait`. Cancel safe.
    pub async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(item) = self.waiting.pop_front() {
                return Ok(item);
            }
            if self.link.is_none() {
                self.connect(self.client.options().resume_wait).await?;
                if let Some(why) = self.broke.take() {
                    return Ok(Item::Moved { server: self.client.server(), why });
                }
            }
            match self.hear().await {
                Ok(()) => {}
                Err(error) => self.part(error)?,
            }
        }
    }

    pub async fn close(self) {
        if let Some(link) = self.link {
            link.socket.close().await;
        }
    }

    /// Leaves a connection that broke; an error that stands in the way of another one is passed on.
    fn part(&mut self, error: Error) -> Result<()> {
        if let Some(link) = self.link.take() {
            self.client.avoid(link.socket.url());
        }
        if is_final(&error) {
            return Err(error);
        }
        self.broke = Some(match error {
            Error::Lost { server, why } => format!("{server} is gone ({why})"),
            other => other.to_string(),
        });
        Ok(())
    }

    /// Tries the servers in turn until one takes the subscription.
    async fn connect(&mut self, patience: Duration) -> Result<()> {
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let mut why = Vec::new();
            for server in self.client.candidates() {
                match self.connect_to(&server).await {
                    Ok(()) => {
                        self.client.prefer(&server);
                        return Ok(());
                    }
                    Err(error) if is_final(&error) => return Err(error),
                    Err(Error::Unreachable(reason)) => why.push(reason),
                    Err(error) => why.push(format!("{}: {error}", display(&server))),
                }
            }
            if began.elapsed() + pause >= patience {
                return Err(Error::Unreachable(why.join("; ")));
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect_to(&mut self, server: &reqwest::Url) -> Result<()> {
        let mut socket = self.client.socket_to(server).await?;
        let subscribe = socket::Subscribe {
            stream: self.stream.to_string(),
            from: Some(self.cursor.map_or(self.from, Start::Seq)),
            subject: self.subject.clone(),
            credit: None,
        };
        socket.send(&socket::Command { id: SUBSCRIBE, subscribe: Some(subscribe), ..Default::default() }).await?;
        self.link = Some(Link { socket, heard: Instant::now(), asked: false });
        let answer = tokio::time::timeout(self.client.options().attempt_timeout, self.await_answer()).await;
        let answer = answer.unwrap_or_else(|_| Err(Error::Lost { server: display(server), why: "no answer in time".into() }));
        if answer.is_err() {
            self.link = None;
        }
        answer
    }

    async fn await_answer(&mut self) -> Result<()> {
        loop {
            let link = self.link.as_mut().expect("it was connected just now");
            let frame = link.socket.next().await?;
            let answered = frame.subscribed.is_some();
            self.take(frame)?;
            if answered {
                return Ok(());
            }
        }
    }

    /// Waits for the next frame and takes it in; asks after the node when it is silent.
    async fn hear(&mut self) -> Result<()> {
        let link = self.link.as_mut().expect("only called while connected");
        let until = link.heard + if link.asked { SILENCE_ASK + SILENCE_LEAVE } else { SILENCE_ASK };
        match tokio::time::timeout_at(until, link.socket.next()).await {
            Ok(frame) => {
                let frame = frame?;
                (link.heard, link.asked) = (Instant::now(), false);
                self.take(frame)
            }
            Err(_) if link.asked => Err(Error::Lost { server: link.socket.server().to_owned(), why: "it fell silent".into() }),
            Err(_) => {
                link.asked = true;
                link.socket.send(&socket::Command { id: PING, ping: Some(Default::default()), ..Default::default() }).await
            }
        }
    }

    fn take(&mut self, frame: socket::Frame) -> Result<()> {
        if let Some(problem) = frame.error {
            return Err(Error::Problem { server: self.client.server(), problem: Box::new(problem) });
        }
        if let Some(nodes) = frame.nodes {
            self.client.learn(nodes.into_iter().map(|node| node.url));
        }
        if let Some(subscribed) = frame.subscribed {
            self.take_start(subscribed)?;
        }
        if let Some(gap) = frame.gap {
            self.take_gap(gap);
        }
        if let Some(events) = frame.events {
            self.take_events(events);
        }
        if frame.goaway.is_some() {
            return Err(Error::Lost { server: self.client.server(), why: "it is leaving".into() });
        }
        Ok(())
    }

    /// A stream that was deleted and made anew has other events under the same seqs.
    fn take_start(&mut self, subscribed: Subscribed) -> Result<()> {
        if let (Some(before), Some(now)) = (self.created, subscribed.created)
            && before != now
        {
            let reason = "the stream was deleted and made anew meanwhile".into();
            return Err(Error::Closed { server: self.client.server(), code: close::STREAM_GONE.code, reason });
        }
        self.created = self.created.or(subscribed.created);
        self.cursor.get_or_insert(subscribed.from);
        Ok(())
    }

    fn take_gap(&mut self, gap: Gap) {
        let cursor = self.cursor.unwrap_or(gap.from);
        if gap.to >= cursor {
            self.cursor = Some(gap.to + 1);
            self.waiting.push_back(Item::Gap(Gap { from: gap.from.max(cursor), to: gap.to }));
        }
    }

    fn take_events(&mut self, mut events: Vec<Event>) {
        let cursor = self.cursor.unwrap_or(1);
        events.retain(|event| event.seq >= cursor);
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        self.cursor = Some(last.seq + 1);
        // A filter leaves holes on purpose.
        if self.subject.is_none() && first.seq > cursor {
            self.waiting.push_back(Item::Hole(Gap { from: cursor, to: first.seq - 1 }));
        }
        self.waiting.push_back(Item::Events(events));
    }
}

/// Whether another connection would end the same way.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Closed { code, .. } => matches!(code, 1000 | 1008 | 1009 | 4000..=4099),
        Error::Problem { problem, .. } => !problem.retryable && problem.status < 500,
        Error::BadServer(_) | Error::Invalid(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Options;

    fn subscription(subject: Option<&str>) -> Subscription {
        Subscription {
            client: Client::new(&["http://127.0.0.1:1"], Options::default()).unwrap(),
            stream: StreamName::new("s").unwrap(),
            from: Start::New,
            subject: subject.map(str::to_owned),
            cursor: None,
            created: None,
            link: None,
            waiting: VecDeque::new(),
            broke: None,
        }
    }

    /// Feeds frames and gives what came out, `e3-5` for events, `g1-2` for a gap, `h4-4` for a hole.
    fn check(subject: Option<&str>, frames: &[&str], expected: &str, cursor: u64) {
        let mut subscription = subscription(subject);
        for frame in frames {
            subscription.take(serde_json::from_str(frame).unwrap()).unwrap();
        }
        let shown = subscription.waiting.iter().map(|item| match item {
            Item::Events(events) => format!("e{}-{}", events[0].seq, events.last().unwrap().seq),
            Item::Gap(gap) => format!("g{}-{}", gap.from, gap.to),
            Item::Hole(gap) => format!("h{}-{}", gap.from, gap.to),
            Item::Moved { .. } => "m".into(),
        });
        let shown: Vec<String> = shown.collect();
        assert_eq!((shown.join(" ").as_str(), subscription.cursor), (expected, Some(cursor)), "{frames:?}");
    }

    fn events(seqs: &[u64]) -> String {
        let events: Vec<_> = seqs.iter().map(|seq| format!(r#"{{"seq":{seq},"time":"1970-01-01T00:00:00Z","data":1}}"#)).collect();
        format!(r#"{{"sub":1,"events":[{}]}}"#, events.join(","))
    }

    #[test]
    fn the_cursor_gives_each_event_once_and_hides_no_hole() {
        let start = r#"{"id":1,"subscribed":{"sub":1,"from":3}}"#;
        check(None, &[start], "", 3);
        check(None, &[start, &events(&[3, 4, 5])], "e3-5", 6);
        check(None, &[start, &events(&[3, 4]), r#"{"id":1,"subscribed":{"sub":9,"from":4}}"#, &events(&[4, 5])], "e3-4 e5-5", 6);
        check(None, &[start, &events(&[1, 2])], "", 3);
        check(None, &[start, &events(&[5])], "h3-4 e5-5", 6);
        check(Some("a.>"), &[start, &events(&[5, 9])], "e5-9", 10);
        check(None, &[start, r#"{"sub":1,"gap":{"from":3,"to":9}}"#, &events(&[10])], "g3-9 e10-10", 11);
        check(None, &[start, &events(&[3]), r#"{"sub":1,"gap":{"from":1,"to":3}}"#], "e3-3", 4);
    }

    #[test]
    fn a_stream_that_was_made_anew_ends_the_subscription() {
        let start = |created: &str| serde_json::from_str(&format!(r#"{{"id":1,"subscribed":{{"sub":1,"from":3{created}}}}}"#)).unwrap();
        let mut subscription = subscription(None);
        for same in ["", r#","created":"2026-01-01T00:00:00Z""#, "", r#","created":"2026-01-01T00:00:00Z""#] {
            subscription.take(start(same)).unwrap();
        }
        let error = subscription.take(start(r#","created":"2026-01-01T00:00:01Z""#)).unwrap_err();
        assert!(is_final(&error), "{error}");
    }

    #[test]
    fn close_codes_say_whether_to_come_back() {
        let closed = |code| Error::Closed { server: String::new(), code, reason: String::new() };
        for code in [1000, 1008, 1009, 4000, 4099] {
            assert!(is_final(&closed(code)), "{code}");
        }
        for code in [1001, 1005, 1011, 1013, 4100, 4199, 4200, 4299] {
            assert!(!is_final(&closed(code)), "{code}");
        }
    }
}
