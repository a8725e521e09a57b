//! The calls of this node over one dialled connection: numbered, queued in order, and matched with their replies.
//!
//! - A call is known here from before it is queued until it is answered, forgotten or the connection ends.
//! - When the connection ends, a call that was never handed to a write is `NotSent`; every other is `Lost`.

use super::frame::{BODY_BYTES_MAX, Frame};
use super::outbox::{Outbox, PushError};
use super::state::{CallError, Counters, NotSent};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

type Answer = Result<Bytes, CallError>;

pub struct Calls {
    book: Mutex<Book>,
    pub outbox: Outbox,
    calls_max: usize,
    pub counters: Arc<Counters>,
}

#[derive(Default)]
struct Book {
    last_id: u64,
    unanswered: HashMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

impl Calls {
    pub fn new(queue_bytes_max: usize, calls_max: usize, counters: Arc<Counters>) -> Arc<Calls> {
        Arc::new(Calls { book: Mutex::default(), outbox: Outbox::new(queue_bytes_max), calls_max, counters })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while it holds the book")
    }

    /// Queues a call behind those queued before.
    pub fn send(self: &Arc<Calls>, method: u16, body: Bytes, deadline: Instant) -> Result<PendingReply, NotSent> {
        if body.len() > BODY_BYTES_MAX {
            return Err(NotSent::TooLarge(body.len()));
        }
        let mut book = self.lock();
        if book.closed {
            return Err(NotSent::Down);
        }
        if book.unanswered.len() >= self.calls_max {
            return Err(NotSent::Overloaded);
        }
        let id = book.last_id + 1;
        self.outbox.push_call(Frame::Call { id, method, body }).map_err(|error| match error {
            PushError::Full => NotSent::Overloaded,
            PushError::Closed => NotSent::Down,
        })?;
        let (answer, answered) = oneshot::channel();
        book.last_id = id;
        book.unanswered.insert(id, answer);
        drop(book);
        Counters::add(&self.counters.calls_sent, 1);
        Ok(PendingReply { calls: self.clone(), id, answered, deadline, sleep: None })
    }

    /// As `send`, but waits for room until the deadline. Those who wait are served in no order.
    pub async fn send_with_room(self: &Arc<Calls>, method: u16, body: Bytes, deadline: Instant) -> Result<PendingReply, NotSent> {
        loop {
            let mut room = std::pin::pin!(self.outbox.room_appears());
            match self.send(method, body.clone(), deadline) {
                Err(NotSent::Overloaded) => timeout_at(deadline, room.as_mut()).await.map_err(|_| NotSent::Expired)?,
                sent => return sent,
            }
        }
    }

    /// Hands a reply to its caller; one that nobody waits for any more is dropped.
    pub fn answer(&self, id: u64, answer: Answer) {
        if let Some(caller) = self.remove(id) {
            let _ = caller.send(answer);
        }
    }

    fn remove(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        let mut book = self.lock();
        let removed = book.unanswered.remove(&id)?;
        let room = book.unanswered.len() == self.calls_max * 3 / 4;
        drop(book);
        if room {
            self.outbox.wake_waiting();
        }
        Some(removed)
    }

    /// The connection is gone: ends every call.
    pub fn close(&self) {
        let mut book = self.lock();
        book.closed = true;
        let unsent: HashSet<u64> = self.outbox.close().into_iter().collect();
        let unanswered = std::mem::take(&mut book.unanswered);
        drop(book);
        for (id, caller) in unanswered {
            let error = if unsent.contains(&id) { NotSent::Down.into() } else { CallError::Lost };
            if error == CallError::Lost {
                Counters::add(&self.counters.calls_lost, 1);
            }
            let _ = caller.send(Err(error));
        }
    }
}

/// The reply of a call that was queued. Dropping it forgets the call; it may be done nevertheless.
pub struct PendingReply {
    calls: Arc<Calls>,
    id: u64,
    answered: oneshot::Receiver<Answer>,
    deadline: Instant,
    /// Made at the first poll that has to wait: most replies of a pipeline are here before anybody asks.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Future for PendingReply {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answered).poll(cx) {
            return Poll::Ready(answer.unwrap_or(Err(CallError::Lost)));
        }
        let deadline = self.deadline;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        sleep.as_mut().poll(cx).map(|()| {
            Counters::add(&self.calls.counters.calls_timed_out, 1);
            Err(CallError::Timeout)
        })
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.calls.remove(self.id);
    }
}
