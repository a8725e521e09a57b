//! etcd's own protocol, gRPC over HTTP/2: `Put` and nothing else, one call under way.
//!
//! Headers are written as literals and never read: an answer with a message in it is a success, one without is not. The connection's
//! window is opened once as far as it goes; each call has a stream and so a window of its own.

use crate::Result;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub struct Grpc {
    socket: TcpStream,
    /// The headers of every call.
    headers: Vec<u8>,
    stream: u32,
    came: Vec<u8>,
}

impl Grpc {
    pub fn connect(at: &str, patience: Duration) -> Result<Grpc> {
        let mut socket = TcpStream::connect(at)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        let mut hello = PREFACE.to_vec();
        put_frame(&mut hello, SETTINGS, 0, 0, &[]);
        put_frame(&mut hello, WINDOW, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        socket.write_all(&hello)?;
        // By HPACK's static table: 3 is POST, 6 is http, 4 is :path, 1 is :authority, 31 is content-type.
        let mut headers = vec![0x83, 0x86];
        put_literal(&mut headers, &[0x04], "/etcdserverpb.KV/Put");
        put_literal(&mut headers, &[0x01], at);
        put_literal(&mut headers, &[0x0f, 0x10], "application/grpc");
        headers.extend([0x00, 2]);
        headers.extend(b"te");
        put_literal(&mut headers, &[], "trailers");
        Ok(Grpc { socket, headers, stream: 1, came: Vec::new() })
    }

    /// Whether the put was acknowledged.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let (mut message, mut request) = (Vec::new(), Vec::new());
        put_field(&mut message, 0x0a, key);
        put_field(&mut message, 0x12, value);
        let mut data = vec![0];
        data.extend((message.len() as u32).to_be_bytes());
        data.extend(message);
        put_frame(&mut request, HEADERS, END_HEADERS, self.stream, &self.headers);
        put_frame(&mut request, DATA, END_STREAM, self.stream, &data);
        self.socket.write_all(&request)?;
        let done = self.answer()?;
        self.stream += 2;
        Ok(done)
    }

    fn answer(&mut self) -> Result<bool> {
        let mut said = false;
        loop {
            let (kind, flags, stream, body) = self.next()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, &[])?,
                PING if flags & ACK == 0 => self.send(PING, ACK, &body)?,
                GOAWAY => return Err("goaway".into()),
                DATA if stream == self.stream => said |= body.len() > 5,
                RESET if stream == self.stream => return Ok(false),
                _ => {}
            }
            if stream == self.stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Ok(said);
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, body: &[u8]) -> Result {
        let mut out = Vec::new();
        put_frame(&mut out, kind, flags, 0, body);
        Ok(self.socket.write_all(&out)?)
    }

    fn next(&mut self) -> Result<(u8, u8, u32, Vec<u8>)> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = self.came.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.came.len() >= 9 + length {
                    let body = self.came[9..9 + length].to_vec();
                    self.came.drain(..9 + length);
                    return Ok((kind, flags, u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff, body));
                }
            }
            match self.socket.read(&mut chunk)? {
                0 => return Err("closed while an answer was due".into()),
                count => self.came.extend(&chunk[..count]),
            }
        }
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(body);
}

fn put_literal(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend(name);
    out.push(u8::try_from(value.len().min(126)).unwrap_or_default());
    out.extend(value.as_bytes());
}

fn put_field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    let mut length = value.len();
    while length > 0x7f {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(value);
}
