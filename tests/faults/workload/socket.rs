//! Publishing over a WebSocket, many requests under way at a time, in order.

use super::http::{Answer, of_problem, subject};
use super::publisher::{Publisher, Recorded};
use super::shared::OUTCOME_WAIT;
use crate::history::{Op, Outcome};
use crate::value::Value;
use evermesh::client::{Client, Options, Socket};
use evermesh::wire::socket::{Command, Frame, Publish};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const WINDOW: usize = 32;
/// A socket that says nothing for so long, with requests under way, is given up.
const SILENCE: Duration = Duration::from_secs(13);
const SEND_WAIT: Duration = Duration::from_secs(5);

/// A request under way or to be sent again.
#[derive(Clone, Copy)]
struct Pending {
    value: Value,
    invoked_us: u64,
    attempts: u32,
    lane: u32,
}

/// What the next connection has to take care of.
#[derive(Default)]
struct Session {
    lane: u32,
    under_way: HashMap<u64, Pending>,
    next_id: u64,
    leaving: bool,
}

impl Publisher {
    pub(super) async fn run_socket(mut self) -> Recorded {
        let mut again = VecDeque::new();
        let mut ending = None;
        loop {
            if self.shared.ending.is_cancelled() {
                let began = *ending.get_or_insert_with(Instant::now);
                if again.is_empty() || began.elapsed() > OUTCOME_WAIT {
                    break;
                }
            }
            match connect(&self.url()).await {
                Some(socket) => self.session(socket, &mut again).await,
                None => sleep(Duration::from_millis(50)).await,
            }
            self.next_node();
        }
        again.into_iter().for_each(|pending| self.settle(pending, Outcome::Unknown));
        self.recorded
    }

    async fn session(&mut self, mut socket: Socket, again: &mut VecDeque<Pending>) {
        let mut session = Session { lane: self.shared.next_lane(), ..Session::default() };
        // A while on this node, then the next one.
        let until = Instant::now() + Duration::from_millis(self.random.between(3_000, 20_000));
        let (mut due, mut heard) = (Instant::now(), Instant::now());
        loop {
            session.leaving |= self.shared.ending.is_cancelled() && again.is_empty() || Instant::now() > until;
            if session.leaving && session.under_way.is_empty() {
                socket.close().await;
                break;
            }
            let may_send = !session.leaving && session.under_way.len() < WINDOW;
            tokio::select! {
                frame = timeout(SILENCE, socket.next()) => match frame {
                    Ok(Ok(frame)) => {
                        heard = Instant::now();
                        self.hear(frame, &mut session, again);
                    }
                    _ => break,
                },
                () = sleep_until(due), if may_send => {
                    // Four in a row, so that they are under way together.
                    for _ in 0..4 {
                        let Some(pending) = self.next_pending(&session, again) else { break };
                        if !self.send_one(&mut socket, pending, &mut session).await {
                            session.leaving = true;
                            break;
                        }
                    }
                    due = Instant::now() + self.pause.mul_f64(0.5 + self.random.below(100) as f64 / 100.0);
                },
                () = sleep_until(heard + SILENCE), if !session.under_way.is_empty() => break,
                () = self.shared.ending.cancelled(), if !session.leaving && again.is_empty() => {}
            }
        }
        let mut left: Vec<_> = session.under_way.into_values().collect();
        left.sort_unstable_by_key(|pending| pending.value);
        for pending in left {
            match self.style.ids() {
                true => again.push_back(pending),
                false => self.settle(pending, Outcome::Unknown),
            }
        }
    }

    fn next_pending(&mut self, session: &Session, again: &mut VecDeque<Pending>) -> Option<Pending> {
        if let Some(pending) = again.pop_front() {
            return Some(Pending { lane: 0, ..pending });
        }
        if self.shared.ending.is_cancelled() {
            return None;
        }
        let value = self.next_value(1);
        Some(Pending { value, invoked_us: self.shared.now_us(), attempts: 0, lane: session.lane })
    }

    /// Whether it could be handed to the socket; it counts as sent in any case.
    async fn send_one(&mut self, socket: &mut Socket, mut pending: Pending, session: &mut Session) -> bool {
        session.next_id += 1;
        pending.attempts += 1;
        let value = pending.value;
        session.under_way.insert(session.next_id, pending);
        let publish = Publish {
            stream: self.shared.streams[self.stream].name.clone(),
            subject: Some(subject(value)),
            event_id: self.style.ids().then(|| value.id()),
            content_type: Some("text/plain".into()),
            data: serde_json::value::to_raw_value(&value.text()).ok(),
            ..Publish::default()
        };
        let command = Command { id: session.next_id, publish: Some(publish), ..Command::default() };
        matches!(timeout(SEND_WAIT, socket.send(&command)).await, Ok(Ok(())))
    }

    fn hear(&mut self, frame: Frame, session: &mut Session, again: &mut VecDeque<Pending>) {
        session.leaving |= frame.goaway.is_some();
        let Some(pending) = frame.id.and_then(|id| session.under_way.remove(&id)) else { return };
        let answer = match (frame.ack, frame.error) {
            (Some(ack), _) => match ack.seq {
                Some(seq) => Answer::Acked { seq, duplicates: ack.duplicate.unwrap_or(false).into() },
                None => Answer::Wrong(format!("an acknowledgement without a seq: {ack:?}")),
            },
            (None, Some(problem)) => of_problem(&problem),
            (None, None) => Answer::Wrong("an answer that is none".into()),
        };
        match answer {
            Answer::Acked { seq, duplicates } => {
                if duplicates > 0 && pending.attempts == 1 {
                    self.wrong(format!("{} was called a duplicate when it was sent first", pending.value));
                }
                self.shared.acked(&self.name, self.stream, pending.value, 1, seq);
                self.settle(pending, Outcome::Acked { seq });
            }
            Answer::Refused { .. } if pending.attempts == 1 => {
                session.leaving |= self.random.chance(20);
                self.settle(pending, Outcome::Refused);
            }
            Answer::Unknown | Answer::Refused { .. } | Answer::Unsent if self.style.ids() => {
                session.leaving = true;
                again.push_back(pending);
            }
            Answer::Wrong(why) => {
                self.wrong(why);
                self.settle(pending, Outcome::Unknown);
            }
            _ => self.settle(pending, Outcome::Unknown),
        }
    }

    fn settle(&mut self, pending: Pending, outcome: Outcome) {
        let Pending { value, invoked_us, lane, .. } = pending;
        let op = Op {
            stream: self.stream as u16,
            lane,
            first: value,
            count: 1,
            invoked_us,
            done_us: self.shared.now_us(),
            expected: None,
            outcome,
        };
        self.record(op);
    }
}

pub async fn connect(url: &str) -> Option<Socket> {
    let options = Options { connect_timeout: Duration::from_secs(1), ..Options::default() };
    let client = Client::new(&[url], options).ok()?;
    client.socket().await.ok()
}
