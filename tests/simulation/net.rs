//! A network of simulated TCP connections between the hosts, with faults by direction.
//!
//! As TCP behaves: bytes arrive in order or not at all; what is sent into a cut arrives some time after the cut is mended, unless the
//! connection was given up before; a connect into a cut, or to a machine without power, is not answered; one to a machine on which
//! nobody listens is refused. A process that ends closes its connections; a machine that loses power says nothing, and answers what
//! comes after its return with a reset.
//!
//! Nothing here wakes or drops anything while it holds its lock.

use bytes::{Buf, Bytes};
use evermesh::node::{Accept, Connection, Dial, ReadHalf, WriteHalf};
use evermesh::store::crash::Random;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Bytes that a connection holds in one direction.
const WINDOW: usize = 1 << 20;
/// Longest time until the first retransmission after a mended cut, in milliseconds.
const RETRANSMIT_MS: u64 = 150;
const PORT: u16 = 4800;

/// A host's number, from 1.
pub type HostId = usize;

pub fn address(host: HostId) -> String {
    format!("10.0.0.{host}:{PORT}")
}

fn host_of(address: &str) -> Option<HostId> {
    address.strip_prefix("10.0.0.")?.strip_suffix(":4800")?.parse().ok()
}

#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    now: u64,
    random: Random,
    links: BTreeMap<(HostId, HostId), Link>,
    hosts: BTreeMap<HostId, Machine>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    dials: Vec<Dialling>,
}

/// One direction between two hosts.
#[derive(Clone, Copy)]
struct Link {
    /// Cuts in force.
    cuts: u32,
    /// Nothing arrives before: the time of the retransmission after a cut.
    not_before: u64,
    latency: (u64, u64),
}

impl Default for Link {
    fn default() -> Link {
        Link { cuts: 0, not_before: 0, latency: (1, 2) }
    }
}

#[derive(Default)]
struct Machine {
    power: bool,
    /// The listener of the running process.
    listener: Option<u64>,
    accepted: VecDeque<(Ends, SocketAddr)>,
    accepting: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: HostId,
    to: HostId,
    /// The other direction.
    back: u64,
    flying: VecDeque<(u64, Segment)>,
    arrived: VecDeque<Bytes>,
    /// Bytes on their way or not read yet.
    held: usize,
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    reader_gone: bool,
    writer_gone: bool,
}

enum Segment {
    Data(Bytes),
    Fin,
}

/// The pipes of one side of a connection: what it reads from, and what it writes to.
#[derive(Clone, Copy)]
struct Ends {
    reads: u64,
    writes: u64,
}

struct Dialling {
    from: HostId,
    to: HostId,
    due: u64,
    answer: oneshot::Sender<io::Result<Ends>>,
}

/// What to do once the lock is given back.
#[derive(Default)]
struct After {
    wake: Vec<Waker>,
    answers: Vec<(oneshot::Sender<io::Result<Ends>>, io::Result<Ends>)>,
}

impl After {
    fn wake(&mut self, waker: &mut Option<Waker>) {
        self.wake.extend(waker.take());
    }

    fn run(self) {
        self.wake.into_iter().for_each(Waker::wake);
        for (sender, answer) in self.answers {
            let _ = sender.send(answer);
        }
    }
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net(Arc::new(Mutex::new(State {
            now: 0,
            random: Random(seed),
            links: BTreeMap::new(),
            hosts: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 1,
            dials: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// Moves the time forward and delivers what is due.
    pub fn tick(&self, now: u64) {
        let mut after = After::default();
        let mut state = self.state();
        state.now = now;
        state.answer_dials(&mut after);
        state.deliver(&mut after);
        drop(state);
        after.run();
    }

    /// A machine gets or loses power. Connections of one that loses it stay as they are, unanswered.
    pub fn set_power(&self, host: HostId, power: bool) {
        let mut state = self.state();
        state.hosts.entry(host).or_default().power = power;
        if !power {
            for pipe in state.pipes.values_mut() {
                pipe.writer_gone |= pipe.from == host;
                pipe.reader_gone |= pipe.to == host;
            }
        }
    }

    pub fn cut(&self, from: HostId, to: HostId) {
        self.state().links.entry((from, to)).or_default().cuts += 1;
    }

    pub fn mend(&self, from: HostId, to: HostId) {
        let mut state = self.state();
        let not_before = state.now + state.random.below(RETRANSMIT_MS);
        let link = state.links.entry((from, to)).or_default();
        link.cuts = link.cuts.saturating_sub(1);
        link.not_before = link.not_before.max(not_before);
    }

    pub fn set_latency(&self, from: HostId, to: HostId, latency: (u64, u64)) {
        self.state().links.entry((from, to)).or_default().latency = latency;
    }

    pub fn mend_all(&self) {
        self.state().links.clear();
    }

    pub fn listen(&self, host: HostId) -> Listener {
        let mut state = self.state();
        let id = state.next_pipe;
        state.next_pipe += 1;
        let machine = state.hosts.entry(host).or_default();
        machine.listener = Some(id);
        machine.accepted.clear();
        Listener { net: self.clone(), host, id }
    }

    pub fn dialler(&self, host: HostId) -> Dialler {
        Dialler { net: self.clone(), host }
    }

    fn stream(&self, ends: Ends) -> Stream {
        Stream { reads: Reads { net: self.clone(), pipe: ends.reads }, writes: Writes { net: self.clone(), pipe: ends.writes } }
    }
}

impl State {
    fn link(&self, from: HostId, to: HostId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    fn is_up(&self, from: HostId, to: HostId) -> bool {
        let link = self.link(from, to);
        link.cuts == 0 && link.not_before <= self.now
    }

    fn delay(&mut self, from: HostId, to: HostId) -> u64 {
        let (least, most) = self.link(from, to).latency;
        least + self.random.below(most - least + 1)
    }

    fn answer_dials(&mut self, after: &mut After) {
        let mut waiting = Vec::new();
        for dial in std::mem::take(&mut self.dials) {
            let (from, to) = (dial.from, dial.to);
            let reached =
                dial.due <= self.now && self.is_up(from, to) && self.is_up(to, from) && self.hosts.get(&to).is_some_and(|m| m.power);
            if dial.answer.is_closed() {
                continue;
            }
            if !reached {
                waiting.push(dial);
                continue;
            }
            let answer = match self.hosts[&to].listener {
                None => Err(io::ErrorKind::ConnectionRefused.into()),
                Some(_) => Ok(self.connect(from, to, after)),
            };
            after.answers.push((dial.answer, answer));
        }
        self.dials = waiting;
    }

    fn connect(&mut self, from: HostId, to: HostId, after: &mut After) -> Ends {
        let (forth, back) = (self.next_pipe, self.next_pipe + 1);
        self.next_pipe += 2;
        self.pipes.insert(forth, Pipe::new(from, to, back));
        self.pipes.insert(back, Pipe::new(to, from, forth));
        let peer = SocketAddr::from((Ipv4Addr::new(10, 0, 0, from as u8), 40_000));
        let machine = self.hosts.entry(to).or_default();
        machine.accepted.push_back((Ends { reads: forth, writes: back }, peer));
        after.wake(&mut machine.accepting);
        Ends { reads: back, writes: forth }
    }

    fn deliver(&mut self, after: &mut After) {
        let ids: Vec<u64> = self.pipes.iter().filter(|(_, pipe)| !pipe.flying.is_empty()).map(|(id, _)| *id).collect();
        for id in ids {
            let (from, to, back) = {
                let pipe = &self.pipes[&id];
                (pipe.from, pipe.to, pipe.back)
            };
            if !self.is_up(from, to) || !self.hosts[&to].power {
                continue;
            }
            let answers = self.is_up(to, from);
            let now = self.now;
            let pipe = self.pipes.get_mut(&id).expect("it was listed");
            let mut reset = false;
            while pipe.flying.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, segment)) = pipe.flying.pop_front() else { break };
                match segment {
                    Segment::Data(bytes) if pipe.reader_gone => {
                        pipe.held -= bytes.len();
                        reset = answers;
                    }
                    Segment::Data(bytes) => pipe.arrived.push_back(bytes),
                    Segment::Fin => pipe.ended = true,
                }
            }
            after.wake(&mut pipe.reader);
            if reset {
                self.reset(id, after);
                self.reset(back, after);
            }
        }
        self.pipes.retain(|_, pipe| !(pipe.reader_gone && pipe.writer_gone && (pipe.flying.is_empty() || pipe.reset)));
    }

    fn reset(&mut self, id: u64, after: &mut After) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.reset = true;
            pipe.flying.clear();
            after.wake(&mut pipe.reader);
            after.wake(&mut pipe.writer);
        }
    }

    fn send(&mut self, id: u64, segment: Segment) {
        let Some((from, to)) = self.pipes.get(&id).map(|pipe| (pipe.from, pipe.to)) else { return };
        let due = self.now + self.delay(from, to);
        let pipe = self.pipes.get_mut(&id).expect("it was there");
        let due = pipe.flying.back().map_or(due, |(last, _)| due.max(*last));
        pipe.flying.push_back((due, segment));
    }
}

impl Pipe {
    fn new(from: HostId, to: HostId, back: u64) -> Pipe {
        Pipe {
            from,
            to,
            back,
            flying: VecDeque::new(),
            arrived: VecDeque::new(),
            held: 0,
            ended: false,
            reset: false,
            reader: None,
            writer: None,
            reader_gone: false,
            writer_gone: false,
        }
    }
}

pub struct Dialler {
    net: Net,
    host: HostId,
}

impl Dial for Dialler {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            let to = host_of(address).ok_or_else(|| io::Error::other("no such host"))?;
            let (answer, answered) = oneshot::channel();
            {
                let mut state = self.net.state();
                let due = state.now + state.delay(self.host, to) + state.delay(to, self.host);
                state.dials.push(Dialling { from: self.host, to, due, answer });
            }
            let ends = answered.await.map_err(io::Error::other)??;
            let stream: Box<dyn Connection> = Box::new(self.net.stream(ends));
            Ok(stream)
        })
    }
}

pub struct Listener {
    net: Net,
    host: HostId,
    id: u64,
}

impl Accept for Listener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(poll_fn(move |context| {
            let mut state = self.net.state();
            let machine = state.hosts.entry(self.host).or_default();
            match machine.accepted.pop_front() {
                Some((ends, peer)) => {
                    drop(state);
                    let stream: Box<dyn Connection> = Box::new(self.net.stream(ends));
                    Poll::Ready(Ok((stream, peer)))
                }
                None => {
                    let _old = machine.accepting.replace(context.waker().clone());
                    drop(state);
                    Poll::Pending
                }
            }
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.net.state();
        let machine = state.hosts.entry(self.host).or_default();
        if machine.listener == Some(self.id) {
            machine.listener = None;
            let left = std::mem::take(&mut machine.accepted);
            for (ends, _) in left {
                for (pipe, reads) in [(ends.reads, true), (ends.writes, false)] {
                    if let Some(pipe) = state.pipes.get_mut(&pipe) {
                        pipe.reader_gone |= reads;
                        pipe.writer_gone |= !reads;
                    }
                }
                state.send(ends.writes, Segment::Fin);
            }
        }
    }
}

/// One side of a connection.
pub struct Stream {
    reads: Reads,
    writes: Writes,
}

struct Reads {
    net: Net,
    pipe: u64,
}

struct Writes {
    net: Net,
    pipe: u64,
}

impl Connection for Stream {
    fn split(self: Box<Self>) -> (ReadHalf, WriteHalf) {
        (Box::new(self.reads), Box::new(self.writes))
    }
}

impl AsyncRead for Reads {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut after = After::default();
        let mut state = self.net.state();
        let Some(pipe) = state.pipes.get_mut(&self.pipe) else { return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())) };
        let polled = match pipe.arrived.front_mut() {
            Some(bytes) => {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                bytes.advance(count);
                if bytes.is_empty() {
                    pipe.arrived.pop_front();
                }
                pipe.held -= count;
                after.wake(&mut pipe.writer);
                Poll::Ready(Ok(()))
            }
            None if pipe.reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None if pipe.ended => Poll::Ready(Ok(())),
            None => {
                after.wake.extend(pipe.reader.replace(context.waker().clone()).filter(|old| !old.will_wake(context.waker())));
                Poll::Pending
            }
        };
        drop(state);
        after.run();
        polled
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        let mut state = self.net.state();
        let Some(pipe) = state.pipes.get_mut(&self.pipe) else { return };
        pipe.reader_gone = true;
        let _reader = pipe.reader.take();
        drop(state);
    }
}

impl AsyncWrite for Writes {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.state();
        let Some(pipe) = state.pipes.get_mut(&self.pipe) else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = data.len().min(WINDOW - pipe.held);
        if count == 0 {
            let old = pipe.writer.replace(context.waker().clone());
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        pipe.held += count;
        state.send(self.pipe, Segment::Data(Bytes::copy_from_slice(&data[..count])));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let mut state = self.net.state();
        let Some(pipe) = state.pipes.get_mut(&self.pipe) else { return };
        let says = !pipe.writer_gone;
        pipe.writer_gone = true;
        let _writer = pipe.writer.take();
        if says {
            state.send(self.pipe, Segment::Fin);
        }
        drop(state);
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reads).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writes).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
