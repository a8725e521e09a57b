//! What waits to be written to one connection, and how it is gathered into few large writes.
//!
//! - Calls are refused when the queue is full. Replies are always taken: their number is bounded by the permits that they hold until
//!   they are written, and a reader of calls waits for room before it lets the next one in.
//! - Frames leave in the order in which they came; a ping's echo and news of life go first.

use super::frame::Frame;
use super::state::Counters;
use crate::core::limits;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Bodies up to this size are copied into the gathered buffer; larger ones are written from where they are.
const COPY_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub enum PushError {
    Full,
    Closed,
}

pub struct Outbox {
    queue: Mutex<Queue>,
    /// There is something to write.
    ready: Notify,
    /// There is room again after there was none.
    room: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Frame, Option<OwnedSemaphorePermit>)>,
    bytes: usize,
    /// The stamp of the newest ping that was not answered yet; older ones need no answer.
    pong: Option<u64>,
    closed: bool,
}

impl Outbox {
    pub fn new(bytes_max: usize) -> Outbox {
        Outbox { queue: Mutex::default(), ready: Notify::new(), room: Notify::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds the queue")
    }

    /// Queues a call. One always fits into an empty queue.
    pub fn push_call(&self, call: Frame) -> Result<(), PushError> {
        let mut queue = self.lock();
        let size = call.size();
        if queue.closed {
            return Err(PushError::Closed);
        }
        if !queue.frames.is_empty() && queue.bytes + size > self.bytes_max {
            return Err(PushError::Full);
        }
        self.push(queue, call, None);
        Ok(())
    }

    /// Queues a reply; on a closed connection it vanishes, as it would have a moment earlier on the wire.
    pub fn push_reply(&self, reply: Frame, permit: OwnedSemaphorePermit) {
        let queue = self.lock();
        if !queue.closed {
            self.push(queue, reply, Some(permit));
        }
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, frame: Frame, permit: Option<OwnedSemaphorePermit>) {
        queue.bytes += frame.size();
        queue.frames.push_back((frame, permit));
        drop(queue);
        self.ready.notify_one();
    }

    pub fn push_pong(&self, stamp: u64) {
        self.lock().pong = Some(stamp);
        self.ready.notify_one();
    }

    /// Waits until `take` may have something.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Waits while the queue is full.
    pub async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().bytes < self.bytes_max {
                return;
            }
            room.await;
        }
    }

    /// Resolves when room appears after this call. The permission to wait is taken at once, so nothing between is missed.
    pub fn room_appears(&self) -> impl Future<Output = ()> + '_ {
        self.room.notified()
    }

    /// Says that there is room for a reason outside the queue.
    pub fn wake_waiting(&self) {
        self.room.notify_waiters();
    }

    /// Takes the frames of the next write, `extra` before them; `None` when there are none.
    pub fn take(&self, extra: Option<Frame>, counters: &Counters) -> Option<Write> {
        let mut write = Write::default();
        let mut queue = self.lock();
        let full_before = queue.bytes > self.bytes_max / 2;
        if let Some(stamp) = queue.pong.take() {
            write.add(Frame::Pong { stamp }, None);
        }
        if let Some(frame) = extra {
            write.add(frame, None);
        }
        while write.bytes < limits::PEER_WRITE_BYTES {
            let Some((frame, permit)) = queue.frames.pop_front() else { break };
            queue.bytes -= frame.size();
            write.add(frame, permit);
        }
        // More is left: the writer comes again at once.
        if !queue.frames.is_empty() {
            self.ready.notify_one();
        }
        let room = queue.frames.is_empty() || full_before && queue.bytes <= self.bytes_max / 2;
        drop(queue);
        if room {
            self.room.notify_waiters();
        }
        write.seal();
        Counters::add(&counters.frames_sent, write.frames);
        Counters::add(&counters.bytes_sent, write.bytes);
        (write.frames > 0).then_some(write)
    }

    /// Takes no more frames. Returns the ids of the calls that were never handed to a write: they provably did not leave.
    pub fn close(&self) -> Vec<u64> {
        let mut queue = self.lock();
        queue.closed = true;
        queue.bytes = 0;
        let frames = std::mem::take(&mut queue.frames);
        drop(queue);
        self.room.notify_waiters();
        frames.into_iter().filter_map(|(frame, _)| if let Frame::Call { id, .. } = frame { Some(id) } else { None }).collect()
    }
}

/// The bytes of some frames on their way into the socket, with the permits of the replies among them.
#[derive(Default)]
pub struct Write {
    gathered: BytesMut,
    chunks: VecDeque<Bytes>,
    permits: Vec<OwnedSemaphorePermit>,
    frames: usize,
    /// Bytes at the start.
    bytes: usize,
}

impl Write {
    fn add(&mut self, frame: Frame, permit: Option<OwnedSemaphorePermit>) {
        let head = frame.head();
        let body = frame.body();
        self.frames += 1;
        self.bytes += head.len() + body.len();
        self.permits.extend(permit);
        self.gathered.extend_from_slice(&head);
        if body.len() <= COPY_BYTES_MAX {
            self.gathered.extend_from_slice(body);
        } else {
            self.seal();
            self.chunks.push_back(body.clone());
        }
    }

    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(self.gathered.split().freeze());
        }
    }
}

impl Buf for Write {
    fn remaining(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let front = self.chunks.front_mut().expect("no more is advanced than remains");
            let step = bytes.min(front.len());
            front.advance(step);
            bytes -= step;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: u64, bytes: usize) -> Frame {
        Frame::Call { id, method: 1, body: vec![id as u8; bytes].into() }
    }

    fn all(mut write: Write) -> Vec<u8> {
        write.copy_to_bytes(write.remaining()).to_vec()
    }

    #[test]
    fn order_is_kept_whatever_is_copied() {
        let outbox = Outbox::new(10 << 20);
        let calls: Vec<Frame> = [10, COPY_BYTES_MAX + 1, 0, COPY_BYTES_MAX, 100_000].iter().zip(1..).map(|(b, id)| call(id, *b)).collect();
        calls.iter().for_each(|c| outbox.push_call(c.clone()).unwrap());
        let wanted: Vec<u8> = calls.iter().flat_map(|f| [&f.head()[..], &f.body()[..]].concat()).collect();
        assert_eq!(all(outbox.take(None, &Counters::default()).unwrap()), wanted);
        assert!(outbox.take(None, &Counters::default()).is_none());
    }

    #[test]
    fn a_full_queue_refuses_and_an_empty_one_takes_anything() {
        let outbox = Outbox::new(1000);
        outbox.push_call(call(1, 5000)).unwrap();
        assert_eq!(outbox.push_call(call(2, 1)), Err(PushError::Full));
        assert!(outbox.take(None, &Counters::default()).is_some());
        outbox.push_call(call(3, 1)).unwrap();
        assert_eq!(outbox.close(), [3]);
        assert_eq!(outbox.push_call(call(4, 1)), Err(PushError::Closed));
    }
}
