//! The frames between peers: their bytes, and reading them off a socket. Knows nothing of who speaks or what is said.
//!
//! A frame is a little-endian `u32` length of what follows, a type byte, and:
//!
//! | type | name | rest |
//! |---|---|---|
//! | 1 | call | id `u64`, method varint, body |
//! | 2 | ok | id `u64`, body |
//! | 3 | refused | id `u64`, code varint, message (length and UTF-8) |
//! | 4 | alive | nothing: the sender lives |
//! | 5 | ping | stamp `u64`: to be returned at once |
//! | 6 | pong | the stamp |
//!
//! These are the frames of every protocol version so far; the handshake agrees on the version. No length beyond `FRAME_BYTES_MAX` is ever allocated, and a body
//! is a slice of the read buffer: who keeps a small one for long should copy it.

use crate::core::codec::{Corrupt, Reader, Writer};
use crate::core::limits;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// The length field.
const LENGTH_BYTES: usize = 4;
/// The largest head of a frame with a body: type, id, method.
const HEAD_BYTES_MAX: usize = 1 + 8 + 3;
/// The largest body of a call or reply.
pub const BODY_BYTES_MAX: usize = limits::FRAME_BYTES_MAX - HEAD_BYTES_MAX;
/// Bytes of a frame beside its body, at most.
pub const FRAME_OVERHEAD: usize = LENGTH_BYTES + HEAD_BYTES_MAX;
/// Free space that a fresh buffer offers to the socket, and the least that a used one still does.
const READ_BYTES: usize = 128 * 1024;
const READ_BYTES_MIN: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Call { id: u64, method: u16, body: Bytes },
    Ok { id: u64, body: Bytes },
    Refused { id: u64, code: u16, message: String },
    Alive,
    Ping { stamp: u64 },
    Pong { stamp: u64 },
}

impl Frame {
    /// Everything of the frame but its body.
    pub fn head(&self) -> Bytes {
        let mut w = Writer::with_capacity(LENGTH_BYTES + HEAD_BYTES_MAX);
        match self {
            Frame::Call { id, method, .. } => {
                w.u8(1);
                w.u64(*id);
                w.varint(u64::from(*method));
            }
            Frame::Ok { id, .. } => {
                w.u8(2);
                w.u64(*id);
            }
            Frame::Refused { id, code, message } => {
                w.u8(3);
                w.u64(*id);
                w.varint(u64::from(*code));
                w.str(message);
            }
            Frame::Alive => w.u8(4),
            Frame::Ping { stamp } => {
                w.u8(5);
                w.u64(*stamp);
            }
            Frame::Pong { stamp } => {
                w.u8(6);
                w.u64(*stamp);
            }
        }
        length_prefixed(w.finish(), self.body().len())
    }

    pub fn body(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        match self {
            Frame::Call { body, .. } | Frame::Ok { body, .. } => body,
            _ => &NONE,
        }
    }

    /// Bytes that it takes in a queue, about.
    pub fn size(&self) -> usize {
        let message = if let Frame::Refused { message, .. } = self { 2 + message.len() } else { 0 };
        FRAME_OVERHEAD + message + self.body().len()
    }

    /// Decodes what follows the length.
    pub fn decode(bytes: Bytes) -> Result<Frame, Corrupt> {
        let mut r = Reader::new("a peer's frame", bytes);
        let frame = match r.u8()? {
            1 => return Ok(Frame::Call { id: r.u64()?, method: short(&mut r)?, body: r.rest() }),
            2 => return Ok(Frame::Ok { id: r.u64()?, body: r.rest() }),
            3 => Frame::Refused { id: r.u64()?, code: short(&mut r)?, message: message(&mut r)? },
            4 => Frame::Alive,
            5 => Frame::Ping { stamp: r.u64()? },
            6 => Frame::Pong { stamp: r.u64()? },
            _ => return Err(r.corrupt("its type is not known")),
        };
        r.end()?;
        Ok(frame)
    }
}

fn short(r: &mut Reader) -> Result<u16, Corrupt> {
    let value = r.varint()?;
    u16::try_from(value).map_err(|_| r.corrupt("a method or code is too large"))
}

/// A text for people from a peer: bounded, valid, and without control characters that would spoil a log.
pub fn message(r: &mut Reader) -> Result<String, Corrupt> {
    let bytes = r.bytes()?;
    match bytes.len() <= limits::PEER_MESSAGE_BYTES_MAX {
        true => Ok(String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect()),
        false => Err(r.corrupt("a message is too long")),
    }
}

/// Cuts a text to `max` bytes at a character's edge.
pub fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// Puts the length of `head` and `body` before `head`.
fn length_prefixed(head: Bytes, body: usize) -> Bytes {
    let mut w = Writer::with_capacity(LENGTH_BYTES + head.len());
    w.u32((head.len() + body) as u32);
    w.raw(&head);
    w.finish()
}

/// A whole message of the handshake with its length.
pub fn enclose(message: Bytes) -> Bytes {
    length_prefixed(message, 0)
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the peer closed it")]
    Eof,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("silent")]
    Silent,
    #[error("{0}")]
    Garbage(#[from] Corrupt),
}

/// Gathers the bytes of one connection and cuts them into frames.
pub struct Inbox {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Inbox {
    /// For the handshake: small frames only.
    pub fn new() -> Inbox {
        Inbox { buffer: BytesMut::new(), frame_bytes_max: limits::HANDSHAKE_BYTES_MAX }
    }

    /// The peer is known: frames may have their full size.
    pub fn authenticated(&mut self) {
        self.frame_bytes_max = limits::FRAME_BYTES_MAX;
    }

    /// The next frame without its length. Waits for each piece of it at most `silent_after`. Cancelling it loses nothing.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin), silent_after: Duration) -> Result<Bytes, ReadError> {
        loop {
            let wanted = self.wanted()?;
            if self.buffer.len() >= wanted && wanted > LENGTH_BYTES {
                self.buffer.advance(LENGTH_BYTES);
                return Ok(self.buffer.split_to(wanted - LENGTH_BYTES).freeze());
            }
            self.make_room(wanted - self.buffer.len());
            match timeout(silent_after, stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(ReadError::Silent),
                Ok(Ok(0)) => return Err(ReadError::Eof),
                Ok(read) => read?,
            };
        }
    }

    /// Small frames share one allocation until it is nearly used up: a new one for each read would let every kept body pin it whole.
    fn make_room(&mut self, missing: usize) {
        let free = self.buffer.capacity() - self.buffer.len();
        if free < missing.max(READ_BYTES_MIN.min(self.frame_bytes_max)) {
            self.buffer.reserve(missing.max(READ_BYTES.min(self.frame_bytes_max)));
        }
    }

    /// Bytes of the frame at the front with its length, or of a length when not even that is here.
    fn wanted(&self) -> Result<usize, Corrupt> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(LENGTH_BYTES) };
        match u32::from_le_bytes(*length) as usize {
            0 => Err(Corrupt { what: "a peer's frame", why: "it is empty" }),
            length if length > self.frame_bytes_max => Err(Corrupt { what: "a peer's frame", why: "it is too long" }),
            length => Ok(LENGTH_BYTES + length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(frame: &Frame) -> Bytes {
        [&frame.head()[..], &frame.body()[..]].concat().into()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Protocol version 1 is frozen: a change here is version 2.
    #[test]
    fn golden() {
        let body = Bytes::from_static(b"abc");
        let cases = [
            (Frame::Call { id: 0x0102030405060708, method: 300, body: body.clone() }, "0e000000010807060504030201ac02616263"),
            (Frame::Ok { id: 7, body }, "0c000000020700000000000000616263"),
            (Frame::Refused { id: 7, code: 0xff00, message: "no".into() }, "0f00000003070000000000000080fe03026e6f"),
            (Frame::Alive, "0100000004"),
            (Frame::Ping { stamp: 9 }, "09000000050900000000000000"),
            (Frame::Pong { stamp: 9 }, "09000000060900000000000000"),
        ];
        for (frame, golden) in cases {
            let bytes = bytes_of(&frame);
            assert_eq!(hex(&bytes), golden, "{frame:?}");
            assert_eq!(Frame::decode(bytes.slice(LENGTH_BYTES..)).unwrap(), frame);
            assert!(bytes.len() <= frame.size());
        }
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let frames: Vec<Frame> = (0..50).map(|id| Frame::Ok { id, body: vec![id as u8; id as usize * 40].into() }).collect();
        let wire: Vec<u8> = frames.iter().flat_map(|f| bytes_of(f).to_vec()).collect();
        for piece in [1, 3, 4, 5, 1000, wire.len()] {
            let (mut far, mut near) = tokio::io::duplex(piece);
            let wire = wire.clone();
            let writer = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut far, &wire).await });
            let mut inbox = Inbox::new();
            for frame in &frames {
                let bytes = inbox.next(&mut near, Duration::from_secs(5)).await.unwrap();
                assert_eq!(&Frame::decode(bytes).unwrap(), frame);
            }
            writer.await.unwrap().unwrap();
            assert!(matches!(inbox.next(&mut near, Duration::from_secs(5)).await, Err(ReadError::Eof)));
        }
    }

    #[tokio::test]
    async fn the_largest_frame_passes_and_a_larger_one_does_not() {
        for (length, allowed) in [(limits::FRAME_BYTES_MAX, true), (limits::FRAME_BYTES_MAX + 1, false)] {
            let mut wire = (length as u32).to_le_bytes().to_vec();
            wire.resize(LENGTH_BYTES + length, 2);
            let mut inbox = Inbox::new();
            inbox.authenticated();
            let read = inbox.next(&mut &wire[..], Duration::from_secs(5)).await;
            assert_eq!(read.is_ok(), allowed, "{length}");
        }
    }

    #[test]
    fn a_cut_respects_characters() {
        assert_eq!((cut("abc", 9), cut("aéc", 2), cut("aéc", 3), cut("é", 0)), ("abc", "a", "aé", ""));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Frame::decode(bytes.into());
        }
    }
}
