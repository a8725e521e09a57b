//! As much of a WebSocket client as a load generator needs. It masks with zeroes, which every server takes and which costs nothing here.

use crate::{Result, frames::Buffer, payload};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A connection that has been upgraded, and what came behind the answer.
pub fn connect(at: &str, path: &str, protocol: Option<&str>) -> Result<(TcpStream, Buffer)> {
    let mut socket = TcpStream::connect(at)?;
    socket.set_nodelay(true)?;
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: ZXZlcm1lc2gtY29tcGFyZQ==\r\n{protocol}\r\n"
    );
    socket.write_all(request.as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = payload::find(&answer, b"\r\n\r\n") {
            break end + 4;
        }
        match socket.read(&mut chunk)? {
            0 => return Err(format!("{at} closed instead of upgrading").into()),
            count => answer.extend(&chunk[..count]),
        }
    };
    if !answer.starts_with(b"HTTP/1.1 101") {
        return Err(format!("{at}{path}: {}", String::from_utf8_lossy(&answer)).into());
    }
    let rest = &answer[end..];
    let mut buffer = Buffer::new(16 * 1024);
    buffer.room()[..rest.len()].copy_from_slice(rest);
    buffer.filled(rest.len());
    Ok((socket, buffer))
}

/// One whole frame from a client.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 14);
    put(&mut out, kind, body);
    out
}

/// Appends one whole frame from a client.
pub fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(0x80 | kind);
    match body.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(body);
}
