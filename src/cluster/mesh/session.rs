//! One connection at work, from the end of the handshake until it closes: a loop that reads and one that writes, in one task.
//!
//! - Each side says that it lives whenever it had nothing else to write for `ping_every`; who hears nothing for `silent_after` while
//!   it reads closes. A side that does not read (backpressure) does not judge.
//! - Calls go to the handler in the order of arrival. A connection whose unanswered calls fill `PEER_WORK_UNITS_MAX` is not read on.
//! - On cancellation what is queued is still written, for `FLUSH` at most.

use super::calls::Calls;
use super::frame::{BODY_BYTES_MAX, Frame, Inbox, ReadError, cut};
use super::net::{ReadHalf, Stream, WriteHalf};
use super::options::{Lane, NodeId, Options};
use super::outbox::Outbox;
use super::state::{CallError, Counters, DownReason, code};
use crate::core::codec::Corrupt;
use crate::core::limits;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

const FLUSH: Duration = Duration::from_millis(200);
/// Every how many signs of life the consensus connection measures the round trip.
const TICKS_PER_PING: u64 = 10;

/// Who called: authenticated by the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 for a node that is joining.
    pub node: NodeId,
    /// The boot that it claims; 0 while joining.
    pub boot: u64,
    pub address: SocketAddr,
    pub lane: Lane,
}

/// Answers the calls of peers.
pub trait Handler: Send + Sync + 'static {
    /// Called in order of arrival from the connection's read loop: it must not block, and spawns what takes time. `body` is a slice
    /// of the read buffer: copy it to keep a small one for long.
    fn handle(&self, from: Peer, method: u16, body: Bytes, reply: Reply);
}

/// The way back of one call, on the connection that it came over. Dropped without an answer, it refuses with `code::DROPPED`.
pub struct Reply {
    outbox: Arc<Outbox>,
    id: u64,
    /// Given on to the reply's frame, which frees it when it is written: so replies are as bounded as calls.
    permit: Option<OwnedSemaphorePermit>,
}

impl Reply {
    pub fn ok(mut self, body: Bytes) {
        if body.len() > BODY_BYTES_MAX {
            tracing::error!(bytes = body.len(), "a reply to a peer is too large for a frame");
            return self.refuse(code::REPLY_TOO_LARGE, "the reply is too large for a frame");
        }
        self.send(Frame::Ok { id: self.id, body });
    }

    /// `message` is cut to `PEER_MESSAGE_BYTES_MAX`.
    pub fn refuse(mut self, code: u16, message: &str) {
        self.send_refusal(code, message);
    }

    fn send_refusal(&mut self, code: u16, message: &str) {
        let message = cut(message, limits::PEER_MESSAGE_BYTES_MAX).to_string();
        self.send(Frame::Refused { id: self.id, code, message });
    }

    fn send(&mut self, frame: Frame) {
        if let Some(permit) = self.permit.take() {
            self.outbox.push(frame, permit);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.send_refusal(code::DROPPED, "the call was dropped without an answer");
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    Closed(String),
    Silent,
    Garbage(Corrupt),
    /// This node wanted it.
    Cancelled,
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> End {
        match error {
            ReadError::Silent => End::Silent,
            ReadError::Garbage(corrupt) => End::Garbage(corrupt),
            other => End::Closed(other.to_string()),
        }
    }
}

impl From<Corrupt> for End {
    fn from(corrupt: Corrupt) -> End {
        End::Garbage(corrupt)
    }
}

impl From<End> for DownReason {
    fn from(end: End) -> DownReason {
        match end {
            End::Closed(why) => DownReason::Closed(why),
            End::Silent => DownReason::Silent,
            End::Garbage(corrupt) => DownReason::Closed(corrupt.to_string()),
            End::Cancelled => DownReason::Closed("by this node".into()),
        }
    }
}

/// A socket after its handshake, and what it has in hand already.
pub struct Connection {
    pub stream: Box<dyn Stream>,
    pub inbox: Inbox,
    pub lane: Lane,
}

/// Writes calls and hands out their replies until the connection ends; then every call has ended too. `rtt` hears each round trip,
/// in microseconds.
pub async fn run_dialled(
    connection: Connection,
    calls: &Calls,
    options: &Options,
    token: &CancellationToken,
    mut rtt: impl FnMut(u64),
) -> End {
    let Connection { stream, mut inbox, lane } = connection;
    let (mut reads, writes) = stream.split();
    let start = Instant::now();
    let reading = async {
        loop {
            match next(&mut inbox, &mut reads, options, &calls.counters).await? {
                Frame::Ok { id, body } => calls.answer(id, Ok(body)),
                Frame::Refused { id, code, message } => calls.answer(id, Err(CallError::Refused { code, message })),
                Frame::Pong { stamp } => rtt((start.elapsed().as_micros() as u64).saturating_sub(stamp).max(1)),
                Frame::Alive => (),
                Frame::Call { .. } | Frame::Ping { .. } => return Err(unexpected().into()),
            }
        }
    };
    let pinging = (lane == Lane::Consensus).then_some(start);
    let writing = write_all(writes, &calls.outbox, options.ping_every(lane), pinging, &calls.counters, token);
    let end = run(reading, writing, token).await;
    calls.close();
    end
}

/// Hands calls to the handler and writes their replies until the connection ends.
pub async fn run_accepted(
    connection: Connection,
    peer: Peer,
    handler: &dyn Handler,
    options: &Options,
    counters: &Counters,
    token: &CancellationToken,
) -> End {
    let Connection { stream, mut inbox, lane } = connection;
    let (mut reads, writes) = stream.split();
    let outbox = Arc::new(Outbox::new(options.queue_bytes_max));
    let work = Arc::new(Semaphore::new(limits::PEER_WORK_UNITS_MAX));
    let reading = async {
        loop {
            match next(&mut inbox, &mut reads, options, counters).await? {
                Frame::Call { id, method, body } => {
                    Counters::add(&counters.calls_received, 1);
                    let units = 1 + body.len() / limits::PEER_WORK_UNIT_BYTES;
                    let permit = work.clone().acquire_many_owned(units as u32).await.expect("it is never closed");
                    outbox.room().await;
                    handler.handle(peer, method, body, Reply { outbox: outbox.clone(), id, permit: Some(permit) });
                }
                Frame::Ping { stamp } => outbox.push_pong(stamp),
                Frame::Alive => (),
                Frame::Ok { .. } | Frame::Refused { .. } | Frame::Pong { .. } => return Err(unexpected().into()),
            }
        }
    };
    let writing = write_all(writes, &outbox, options.ping_every(lane), None, counters, token);
    let end = run(reading, writing, token).await;
    outbox.close();
    end
}

fn unexpected() -> Corrupt {
    Corrupt { what: "a peer's frame", why: "its type does not belong to this side" }
}

/// Reads and writes until one of them ends, or cancellation has had its time.
async fn run(reading: impl Future<Output = Result<(), End>>, writing: impl Future<Output = End>, token: &CancellationToken) -> End {
    let cancelled = async {
        token.cancelled().await;
        sleep(FLUSH).await;
    };
    tokio::select! {
        read = reading => read.expect_err("a reading loop ends only with an error"),
        end = writing => end,
        () = cancelled => End::Cancelled,
    }
}

async fn next(inbox: &mut Inbox, reads: &mut ReadHalf, options: &Options, counters: &Counters) -> Result<Frame, End> {
    let bytes = inbox.next(reads, options.silent_after).await?;
    Counters::add(&counters.frames_received, 1);
    Counters::add(&counters.bytes_received, bytes.len());
    Ok(Frame::decode(bytes)?)
}

/// Writes what is queued, and signs of life when nothing is. With `pinging` some of them measure the round trip since that start.
async fn write_all(
    mut writes: WriteHalf,
    outbox: &Outbox,
    every: Duration,
    pinging: Option<Instant>,
    counters: &Counters,
    token: &CancellationToken,
) -> End {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tick, mut quiet) = (0u64, true);
    loop {
        let extra = tokio::select! {
            biased;
            () = outbox.ready() => None,
            _ = ticks.tick() => {
                let sign = sign_of_life(tick, quiet, pinging);
                (tick, quiet) = (tick + 1, true);
                sign
            }
            () = token.cancelled() => None,
        };
        if let Some(mut write) = outbox.take(extra, counters) {
            quiet = false;
            if let Err(error) = writes.write_all_buf(&mut write).await {
                return End::Closed(error.to_string());
            }
        } else if token.is_cancelled() {
            return End::Cancelled;
        }
    }
}

fn sign_of_life(tick: u64, quiet: bool, pinging: Option<Instant>) -> Option<Frame> {
    match pinging {
        Some(start) if tick.is_multiple_of(TICKS_PER_PING) => Some(Frame::Ping { stamp: start.elapsed().as_micros() as u64 }),
        _ => quiet.then_some(Frame::Alive),
    }
}
