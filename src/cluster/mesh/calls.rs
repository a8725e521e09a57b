//! The calls of this node over one dialled connection: numbered, queued in order, and matched with their replies.
//!
//! - A call is known here from before it is queued until it is answered, forgotten or the connection ends.
//! - When the connection ends, a call that was never handed to a write is `NotSent`; every other is `Lost`.

use super::frame::{BODY_BYTES_MAX, FRAME_OVERHEAD, Frame};
use super::outbox::Outbox;
use super::state::{CallError, Counters, NotSent};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

type Answer = Result<Bytes, CallError>;

pub struct Calls {
    book: Mutex<Book>,
    pub outbox: Outbox,
    /// A permit for each call that may be unanswered.
    slots: Arc<Semaphore>,
    /// A permit for each byte that may be queued or half written.
    room: Arc<Semaphore>,
    room_max: usize,
    pub counters: Arc<Counters>,
}

#[derive(Default)]
struct Book {
    last_id: u64,
    unanswered: HashMap<u64, Unanswered>,
    closed: bool,
}

struct Unanswered {
    caller: oneshot::Sender<Answer>,
    _slot: OwnedSemaphorePermit,
}

impl Calls {
    pub fn new(queue_bytes_max: usize, calls_max: usize, counters: Arc<Counters>) -> Arc<Calls> {
        let room_max = queue_bytes_max.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let (slots, room) = (Arc::new(Semaphore::new(calls_max)), Arc::new(Semaphore::new(room_max)));
        Arc::new(Calls { book: Mutex::default(), outbox: Outbox::new(queue_bytes_max), slots, room, room_max, counters })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while it holds the book")
    }

    /// Permits of a body: about its bytes, and never more than there are, so that any call fits into an empty queue.
    fn room_for(&self, body: &Bytes) -> Result<u32, NotSent> {
        match body.len() <= BODY_BYTES_MAX {
            true => Ok((FRAME_OVERHEAD + body.len()).min(self.room_max) as u32),
            false => Err(NotSent::TooLarge(body.len())),
        }
    }

    /// Queues a call behind those queued before.
    pub fn send(self: &Arc<Calls>, method: u16, body: Bytes, deadline: Instant) -> Result<PendingReply, NotSent> {
        let bytes = self.room_for(&body)?;
        let refused = |error| match error {
            TryAcquireError::NoPermits => NotSent::Overloaded,
            TryAcquireError::Closed => NotSent::Down,
        };
        let slot = self.slots.clone().try_acquire_owned().map_err(refused)?;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(refused)?;
        self.queue(method, body, deadline, slot, room)
    }

    /// As `send`, but waits for room until the deadline; who waits first is served first.
    pub async fn send_with_room(self: &Arc<Calls>, method: u16, body: Bytes, deadline: Instant) -> Result<PendingReply, NotSent> {
        let bytes = self.room_for(&body)?;
        let permits = async {
            let slot = self.slots.clone().acquire_owned().await?;
            Ok((slot, self.room.clone().acquire_many_owned(bytes).await?))
        };
        let permits = timeout_at(deadline, permits).await.map_err(|_| NotSent::Expired)?;
        let (slot, room) = permits.map_err(|_: AcquireError| NotSent::Down)?;
        self.queue(method, body, deadline, slot, room)
    }

    /// Numbers and queues a call under one lock, so that its order is that of the numbers.
    fn queue(
        self: &Arc<Calls>,
        method: u16,
        body: Bytes,
        deadline: Instant,
        slot: OwnedSemaphorePermit,
        room: OwnedSemaphorePermit,
    ) -> Result<PendingReply, NotSent> {
        let (caller, answered) = oneshot::channel();
        let mut book = self.lock();
        let id = book.last_id + 1;
        if book.closed || !self.outbox.push(Frame::Call { id, method, body }, room) {
            return Err(NotSent::Down);
        }
        book.last_id = id;
        book.unanswered.insert(id, Unanswered { caller, _slot: slot });
        drop(book);
        Counters::add(&self.counters.calls_sent, 1);
        Ok(PendingReply { calls: self.clone(), id, answered, deadline, sleep: None })
    }

    /// Hands a reply to its caller; one that nobody waits for any more is dropped.
    pub fn answer(&self, id: u64, answer: Answer) {
        let unanswered = self.lock().unanswered.remove(&id);
        if let Some(Unanswered { caller, .. }) = unanswered {
            let _ = caller.send(answer);
        }
    }

    /// The connection is gone: ends every call.
    pub fn close(&self) {
        self.slots.close();
        self.room.close();
        let mut book = self.lock();
        book.closed = true;
        let unsent: HashSet<u64> = self.outbox.close().into_iter().collect();
        let unanswered = std::mem::take(&mut book.unanswered);
        drop(book);
        for (id, Unanswered { caller, .. }) in unanswered {
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
        let _ = self.calls.lock().unanswered.remove(&self.id);
    }
}
