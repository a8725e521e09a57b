//! The text protocol of NATS, as far as JetStream's publishing needs it.

use crate::{
    Result,
    frames::{Buffer, Framing},
    payload,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// What NATS answers where nobody listens on a subject: a stream without a leader, for one.
pub const NO_RESPONDERS: &[u8] = b"NATS/1.0 503";
/// Where answers to a connection come; numbered.
pub const INBOX: &str = "_INBOX.compare";

pub struct Nats {
    pub socket: TcpStream,
    pub buffer: Buffer,
    inbox: String,
    asked: u64,
    patience: Duration,
}

impl Nats {
    /// A connection that listens on an inbox of its own.
    pub fn connect(at: &str, patience: Duration) -> Result<Nats> {
        let socket = TcpStream::connect(at)?;
        socket.set_nodelay(true)?;
        let inbox = format!("{INBOX}.{}", socket.local_addr()?.port());
        let mut nats = Nats { socket, buffer: Buffer::new(64 * 1024), inbox, asked: 0, patience };
        let hello =
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"rust\",\"version\":\"1\"}";
        let subscribe = format!("{hello}\r\nSUB {}.* 1\r\n", nats.inbox);
        nats.socket.write_all(subscribe.as_bytes())?;
        nats.socket.set_read_timeout(Some(patience))?;
        Ok(nats)
    }

    /// Where the answer to request `n` comes.
    pub fn reply(&self, n: u64) -> String {
        format!("{}.{n}", self.inbox)
    }

    /// One request and its answer, its headers included.
    pub fn ask(&mut self, subject: &str, body: &[u8]) -> Result<Vec<u8>> {
        self.asked += 1;
        let mut request = Vec::with_capacity(body.len() + 128);
        let reply = self.reply(self.asked);
        put_publish(&mut request, subject, &reply, body);
        self.socket.write_all(&request)?;
        let (until, mut found) = (Instant::now() + self.patience, None);
        while found.is_none() {
            if Instant::now() > until {
                return Err("no answer in time".into());
            }
            self.read(|message| {
                let mut parts = message.splitn(2, |&byte| byte == b'\n');
                let line = parts.next().unwrap_or_default();
                if line.split(|&byte| byte == b' ').nth(1) == Some(reply.as_bytes()) {
                    found = parts.next().map(<[u8]>::to_vec);
                }
            })?;
        }
        found.ok_or_else(|| "no answer".into())
    }

    /// Waits for bytes and gives every message that is complete.
    pub fn read(&mut self, each: impl FnMut(&[u8])) -> Result {
        let count = match self.socket.read(self.buffer.room()) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error.into()),
        };
        self.buffer.filled(count);
        let send = self.buffer.take(Framing::Nats, each)?;
        Ok(self.socket.write_all(&send)?)
    }

    /// A call of the JetStream API.
    pub fn api(&mut self, call: &str, body: &str) -> Result<serde_json::Value> {
        let answer = self.ask(&format!("$JS.API.{call}"), body.as_bytes())?;
        if answer.starts_with(NO_RESPONDERS) {
            return Err("JetStream does not answer".into());
        }
        let answer: serde_json::Value = serde_json::from_slice(answer.trim_ascii())?;
        if answer["error"].is_null() { Ok(answer) } else { Err(format!("{call}: {}", answer["error"]).into()) }
    }
}

pub fn put_publish(out: &mut Vec<u8>, subject: &str, reply: &str, body: &[u8]) {
    out.extend(format!("PUB {subject} {reply} {}\r\n", body.len()).as_bytes());
    out.extend(body);
    out.extend(b"\r\n");
}

/// Whether a message is JetStream's word that it has stored an event.
pub fn is_ack(message: &[u8]) -> bool {
    payload::find(message, b"\"seq\":").is_some() && payload::find(message, b"\"error\"").is_none()
}
