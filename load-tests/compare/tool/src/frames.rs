//! Where one message ends and the next begins, for the two framings in question: WebSocket frames and the text protocol of NATS.

use crate::{Result, payload, ws};
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    WebSocket,
    Nats,
}

#[derive(Debug, PartialEq)]
pub enum Kind {
    /// Something that was subscribed to, or an answer to something sent.
    Message,
    /// Wants to be answered.
    Ping,
    /// Anything else that a client may pass over.
    Other,
    /// The other side ends the connection, or says that we are at fault.
    End,
}

/// One message at the start of a buffer.
pub struct Frame {
    pub kind: Kind,
    /// The message without its framing; of NATS with its first line.
    pub body: Range<usize>,
    /// How many bytes of the buffer it took.
    pub used: usize,
}

impl Framing {
    /// The message that `bytes` begins with; `None` while it is not complete.
    pub fn next(self, bytes: &[u8]) -> Option<Frame> {
        match self {
            Framing::WebSocket => websocket(bytes),
            Framing::Nats => nats(bytes),
        }
    }

    /// The answer to a ping.
    pub fn pong(self, body: &[u8]) -> Vec<u8> {
        match self {
            Framing::WebSocket => ws::frame(ws::PONG, body),
            Framing::Nats => b"PONG\r\n".to_vec(),
        }
    }
}

fn websocket(bytes: &[u8]) -> Option<Frame> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (head, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let used = head + usize::try_from(length).ok()?;
    let kind = match first & 0x0f {
        ws::CLOSE => Kind::End,
        ws::PING => Kind::Ping,
        ws::PONG => Kind::Other,
        _ => Kind::Message,
    };
    (bytes.len() >= used).then_some(Frame { kind, body: head..used, used })
}

fn nats(bytes: &[u8]) -> Option<Frame> {
    let line = payload::find(&bytes[..bytes.len().min(4096)], b"\r\n")?;
    let text = &bytes[..line];
    let kind = match text.first()? {
        b'M' | b'H' => Kind::Message,
        b'P' if text.get(1) == Some(&b'I') => Kind::Ping,
        b'-' => Kind::End,
        _ => Kind::Other,
    };
    let mut used = line + 2;
    if kind == Kind::Message {
        let size = text.rsplit(|&byte| byte == b' ').next()?;
        used += payload::digits(size) as usize + 2;
    }
    (bytes.len() >= used).then_some(Frame { kind, body: 0..used, used })
}

/// Bytes that have come, from which whole messages are taken.
pub struct Buffer {
    bytes: Vec<u8>,
    /// What lies before has been taken.
    from: usize,
    to: usize,
}

impl Buffer {
    pub fn new(size: usize) -> Buffer {
        Buffer { bytes: vec![0; size], from: 0, to: 0 }
    }

    /// Room to read into; the buffer grows to hold one whole message.
    pub fn room(&mut self) -> &mut [u8] {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.bytes.len() {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            if self.to == self.bytes.len() {
                self.bytes.resize(2 * self.to, 0);
            }
        }
        &mut self.bytes[self.to..]
    }

    pub fn grow(&mut self, size: usize) {
        self.bytes.resize(size.max(self.bytes.len()), 0);
    }

    pub fn filled(&mut self, count: usize) {
        self.to += count;
    }

    /// Gives every whole message to `each` and keeps the rest; what it returns is to be sent.
    pub fn take(&mut self, framing: Framing, mut each: impl FnMut(&[u8])) -> Result<Vec<u8>> {
        let mut send = Vec::new();
        while let Some(frame) = framing.next(&self.bytes[self.from..self.to]) {
            let body = &self.bytes[self.from..self.to][frame.body];
            match frame.kind {
                Kind::Message => each(body),
                Kind::Ping => send.extend(framing.pong(body)),
                Kind::Other => {}
                Kind::End => return Err(format!("the server ended the connection: {}", String::from_utf8_lossy(body)).into()),
            }
            self.from += frame.used;
        }
        Ok(send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of bytes that arrive one by one.
    fn check(framing: Framing, bytes: &[u8], messages: &[&str], sent: &[u8]) {
        let (mut buffer, mut got, mut send) = (Buffer::new(8), Vec::new(), Vec::new());
        for byte in bytes {
            buffer.room()[0] = *byte;
            buffer.filled(1);
            send.extend(buffer.take(framing, |message| got.push(String::from_utf8_lossy(message).into_owned())).unwrap());
        }
        assert_eq!((got.iter().map(String::as_str).collect::<Vec<_>>(), &*send), (messages.to_vec(), sent));
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_were_cut() {
        let long = "x".repeat(300);
        let frames = [&[0x81, 2][..], b"ab", &[0x89, 1], b"p", &[0x81, 126, 1, 44], long.as_bytes()].concat();
        check(Framing::WebSocket, &frames, &["ab", &long], &[0x8a, 0x81, 0, 0, 0, 0, b'p']);
        let text = b"INFO {}\r\nMSG a 1 5\r\nhello\r\nPING\r\nHMSG a 1 b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n";
        check(Framing::Nats, text, &["MSG a 1 5\r\nhello\r\n", "HMSG a 1 b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"], b"PONG\r\n");
    }

    #[test]
    fn an_end_is_told() {
        for (framing, bytes) in [(Framing::WebSocket, &[0x88, 0][..]), (Framing::Nats, b"-ERR 'no'\r\n")] {
            let mut buffer = Buffer::new(64);
            buffer.room()[..bytes.len()].copy_from_slice(bytes);
            buffer.filled(bytes.len());
            assert!(buffer.take(framing, |_| {}).is_err());
        }
    }
}
