//! What goes out over a socket of many streams: frames of several tasks, in the order in which they were put.
//!
//! There is no task that writes: whoever has put frames writes all that wait, its own and others'. So an event costs no way from its
//! subscription to a writer.
//!
//! - What waits is bounded in frames: with `limits::SOCKET_FRAMES_MAX` of them, `put` waits for the socket.
//! - Nobody writes more than waits when it begins, or one who is slow to put would write for ever for those who are quick.
//! - A subscription waits until its frames are written, and looks after what was put meanwhile ([`flush`](Outbox::flush)). The session has
//!   more to do: while somebody writes, it leaves its frames to that one ([`start`](Outbox::start)).
//! - A task that is aborted while it writes loses no frame, but may leave some for the next who writes: whoever aborts one has to put
//!   something itself, or to [`finish`](Outbox::finish).

use super::noting;
use crate::core::limits;
use axum::{
    Error,
    extract::ws::{Message, WebSocket},
};
use futures_util::{Sink, stream::SplitSink};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Mutex as SyncMutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The other end cannot be told anything any more.
#[derive(Debug)]
pub struct Gone;

pub type Flow<T = ()> = std::result::Result<T, Gone>;

pub struct Outbox<S = SplitSink<WebSocket, Message>> {
    waiting: SyncMutex<VecDeque<Message>>,
    /// Of what waits.
    room: Semaphore,
    /// Held by whoever writes.
    sink: Mutex<S>,
    /// When the socket took something after it was full: then the other end has read.
    taken: SyncMutex<Option<Instant>>,
    gone: CancellationToken,
}

impl<S: Sink<Message, Error = Error> + Unpin> Outbox<S> {
    pub fn new(sink: S) -> Outbox<S> {
        Outbox {
            waiting: SyncMutex::default(),
            room: Semaphore::new(limits::SOCKET_FRAMES_MAX),
            sink: Mutex::new(sink),
            taken: SyncMutex::default(),
            gone: CancellationToken::new(),
        }
    }

    /// Gives a message its place; somebody has to write it. Waits while too many wait.
    pub async fn put(&self, message: Message) -> Flow {
        let permit = match self.room.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                self.start().await?;
                self.room.acquire().await.map_err(|_| Gone)?
            }
        };
        permit.forget();
        self.waiting().push_back(message);
        Ok(())
    }

    /// Has written what was put, and what others put and left to this task.
    pub async fn flush(&self) -> Flow {
        let mut sink = Some(self.sink.lock().await);
        while let Some(mut writing) = sink.take() {
            self.write(&mut writing).await?;
            drop(writing);
            // Whoever left something did so before this one let go.
            if !self.waiting().is_empty() {
                sink = self.sink.try_lock().ok();
            }
        }
        Ok(())
    }

    /// Has written what was put, unless somebody writes already, who will see to it.
    pub async fn start(&self) -> Flow {
        if self.gone.is_cancelled() {
            return Err(Gone);
        }
        match self.sink.try_lock() {
            Ok(mut sink) => self.write(&mut sink).await,
            Err(_) => Ok(()),
        }
    }

    /// Has written what was put, even if somebody was aborted while writing it.
    pub async fn finish(&self) -> Flow {
        let mut sink = self.sink.lock().await;
        self.write(&mut sink).await
    }

    /// Done when the other end cannot be told anything any more. Cancel safe.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// When the other end last made room in a socket that was full.
    pub fn taken(&self) -> Option<Instant> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, sink: &mut S) -> Flow {
        if self.gone.is_cancelled() {
            return Err(Gone);
        }
        let mut count = self.waiting().len();
        let written = poll_fn(|cx| self.poll_write(cx, Pin::new(&mut *sink), &mut count));
        let written = noting(written, || *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now())).await;
        written.map_err(|_| {
            self.gone.cancel();
            self.room.close();
            Gone
        })
    }

    /// So many that wait, then one flush. A frame is taken only when it is the socket's in the same moment.
    fn poll_write(&self, cx: &mut Context<'_>, mut sink: Pin<&mut S>, count: &mut usize) -> Poll<Result<(), Error>> {
        while *count > 0 {
            ready!(sink.as_mut().poll_ready(cx))?;
            let Some(message) = self.waiting().pop_front() else { break };
            *count -= 1;
            self.room.add_permits(1);
            sink.as_mut().start_send(message)?;
        }
        sink.poll_flush(cx)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::socket::text;
    use bytes::Bytes;
    use futures_util::SinkExt;
    use std::{ops::Range, sync::Arc, time::Duration};
    use tokio::{
        sync::mpsc,
        task::{JoinHandle, yield_now},
        time::timeout,
    };
    use tokio_util::sync::PollSender;

    /// An outbox into a socket that takes so many messages until they are received.
    fn outbox(room: usize) -> (Arc<Outbox<impl Sink<Message, Error = Error> + Unpin + Send + 'static>>, mpsc::Receiver<Message>) {
        let (to, socket) = mpsc::channel(room);
        (Arc::new(Outbox::new(PollSender::new(to).sink_map_err(Error::new))), socket)
    }

    fn message(number: usize) -> Message {
        text(Bytes::from(number.to_string()))
    }

    /// A task that puts these messages, and has them written.
    fn writing<S>(out: &Arc<Outbox<S>>, messages: Range<usize>) -> JoinHandle<Flow>
    where
        S: Sink<Message, Error = Error> + Unpin + Send + 'static,
    {
        let out = out.clone();
        tokio::spawn(async move {
            for number in messages {
                out.put(message(number)).await?;
            }
            out.flush().await
        })
    }

    /// Waits until somebody writes, and waits for the socket.
    async fn busy<S: Sink<Message, Error = Error> + Unpin>(out: &Outbox<S>) {
        while out.sink.try_lock().is_ok() {
            yield_now().await;
        }
    }

    async fn numbers(socket: &mut mpsc::Receiver<Message>, count: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let Some(Message::Text(text)) = socket.recv().await else { break };
            numbers.push(text.parse().unwrap());
        }
        numbers
    }

    #[tokio::test]
    async fn whoever_writes_writes_for_the_others_and_in_order() {
        let (out, mut socket) = outbox(1);
        let writing = writing(&out, 0..3);
        // It writes one, and waits for the socket with the next.
        while out.room.available_permits() != limits::SOCKET_FRAMES_MAX - 2 || out.sink.try_lock().is_ok() {
            yield_now().await;
        }
        out.put(message(3)).await.unwrap();
        out.start().await.unwrap();
        assert!(!writing.is_finished());
        assert_eq!(numbers(&mut socket, 4).await, [0, 1, 2, 3]);
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_writes_for_ever_for_others() {
        let (out, mut socket) = outbox(1);
        out.put(message(0)).await.unwrap();
        out.put(message(1)).await.unwrap();
        let session = tokio::spawn({
            let out = out.clone();
            async move { out.start().await }
        });
        busy(&out).await;
        let subscription = writing(&out, 2..5);
        while out.waiting().len() < 4 {
            yield_now().await;
        }
        // The socket takes what waited when the session began, and nothing more.
        assert_eq!(numbers(&mut socket, 1).await, [0]);
        timeout(Duration::from_secs(30), session).await.expect("it has written what was its").unwrap().unwrap();
        assert!(!subscription.is_finished());
        assert_eq!(numbers(&mut socket, 4).await, [1, 2, 3, 4]);
        subscription.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_that_is_aborted_while_it_writes_loses_nothing() {
        let (out, mut socket) = outbox(1);
        let writing = writing(&out, 0..5);
        busy(&out).await;
        writing.abort();
        assert!(writing.await.unwrap_err().is_cancelled());
        out.put(message(5)).await.unwrap();
        let (finished, written) = tokio::join!(out.finish(), numbers(&mut socket, 6));
        assert_eq!((finished.is_ok(), written), (true, vec![0, 1, 2, 3, 4, 5]));
    }

    #[tokio::test]
    async fn a_full_outbox_waits_for_the_socket() {
        let (out, mut socket) = outbox(1);
        let count = 3 * limits::SOCKET_FRAMES_MAX;
        let puts = writing(&out, 0..count);
        busy(&out).await;
        assert_eq!((out.waiting().len(), puts.is_finished(), out.taken()), (limits::SOCKET_FRAMES_MAX - 1, false, None));
        let before = Instant::now();
        assert_eq!(numbers(&mut socket, count).await, (0..count).collect::<Vec<_>>());
        puts.await.unwrap().unwrap();
        assert!(out.taken() >= Some(before), "a slow reader is not a silent one");
    }

    #[tokio::test]
    async fn a_socket_that_broke_is_told_to_all() {
        let (out, socket) = outbox(1);
        drop(socket);
        out.put(message(0)).await.unwrap();
        assert!(out.flush().await.is_err());
        out.gone().await;
        assert!(out.flush().await.is_err());
        while out.put(message(1)).await.is_ok() {
            assert!(out.waiting().len() < limits::SOCKET_FRAMES_MAX);
        }
    }
}
