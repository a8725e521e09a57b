//! What waits to be written to one connection, and how it is gathered into few large writes.
//!
//! - Every frame brings a permit that it holds until it is written, so whoever gives out the permits bounds the queue: a caller has
//!   permits for bytes, a callee for unanswered calls. A callee also waits for room here before it lets the next call in, because a
//!   reply may be larger than its call.
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

pub struct Outbox {
    queue: Mutex<Queue>,
    /// There is something to write.
    ready: Notify,
    /// There is room; one task at most waits for it.
    room: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Frame, OwnedSemaphorePermit)>,
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

    /// Queues a frame and says so; on a closed connection it vanishes, as it would have a moment earlier on the wire.
    pub fn push(&self, frame: Frame, permit: OwnedSemaphorePermit) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        queue.bytes += frame.size();
        queue.frames.push_back((frame, permit));
        drop(queue);
        self.ready.notify_one();
        true
    }

    pub fn push_pong(&self, stamp: u64) {
        self.lock().pong = Some(stamp);
        self.ready.notify_one();
    }

    /// Waits until `take` may have something.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Waits while the queue holds `bytes_max` or more.
    pub async fn room(&self) {
        while self.lock().bytes >= self.bytes_max {
            self.room.notified().await;
        }
    }

    /// Takes the frames of the next write, `extra` before them; `None` when there are none.
    pub fn take(&self, extra: Option<Frame>, counters: &Counters) -> Option<Write> {
        let mut write = Write::default();
        let mut queue = self.lock();
        if let Some(stamp) = queue.pong.take() {
            write.add(Frame::Pong { stamp }, None);
        }
        if let Some(frame) = extra {
            write.add(frame, None);
        }
        while write.bytes < limits::PEER_WRITE_BYTES {
            let Some((frame, permit)) = queue.frames.pop_front() else { break };
            queue.bytes -= frame.size();
            write.add(frame, Some(permit));
        }
        // More is left: the writer comes again at once.
        if !queue.frames.is_empty() {
            self.ready.notify_one();
        }
        drop(queue);
        self.room.notify_one();
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
        self.room.notify_one();
        frames.into_iter().filter_map(|(frame, _)| if let Frame::Call { id, .. } = frame { Some(id) } else { None }).collect()
    }
}

/// The bytes of some frames on their way into the socket, with their permits.
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
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn call(id: u64, bytes: usize) -> Frame {
        Frame::Call { id, method: 1, body: vec![id as u8; bytes].into() }
    }

    fn all(mut write: Write) -> Vec<u8> {
        write.copy_to_bytes(write.remaining()).to_vec()
    }

    fn permit() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    #[test]
    fn order_is_kept_whatever_is_copied() {
        let outbox = Outbox::new(10 << 20);
        let calls: Vec<Frame> = [10, COPY_BYTES_MAX + 1, 0, COPY_BYTES_MAX, 100_000].iter().zip(1..).map(|(b, id)| call(id, *b)).collect();
        assert!(calls.iter().all(|c| outbox.push(c.clone(), permit())));
        let wanted: Vec<u8> = calls.iter().flat_map(|f| [&f.head()[..], &f.body()[..]].concat()).collect();
        assert_eq!(all(outbox.take(None, &Counters::default()).unwrap()), wanted);
        assert!(outbox.take(None, &Counters::default()).is_none());
    }

    #[test]
    fn a_write_takes_what_came_first_and_a_close_returns_the_rest() {
        let outbox = Outbox::new(10 << 20);
        let sizes = [limits::PEER_WRITE_BYTES / 2, limits::PEER_WRITE_BYTES, 1];
        sizes.iter().zip(1..).for_each(|(bytes, id)| assert!(outbox.push(call(id, *bytes), permit())));
        outbox.push_pong(8);
        outbox.push_pong(9);
        let first = all(outbox.take(Some(Frame::Alive), &Counters::default()).unwrap());
        assert!(first.starts_with(&[&Frame::Pong { stamp: 9 }.head()[..], &Frame::Alive.head()].concat()));
        assert_eq!(outbox.close(), [3]);
        assert!(!outbox.push(call(4, 1), permit()));
    }
}
