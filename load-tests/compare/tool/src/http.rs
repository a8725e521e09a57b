//! One HTTP/1.1 connection with one request under way.

use crate::{Result, payload};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

pub struct Http {
    socket: TcpStream,
    at: String,
    /// What has come of the answer.
    answer: Vec<u8>,
}

pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Http {
    pub fn connect(at: &str, patience: Duration) -> Result<Http> {
        let socket = TcpStream::connect(at)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Http { socket, at: at.to_owned(), answer: Vec::with_capacity(16 * 1024) })
    }

    pub fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer<'_>> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.at,
            body.len()
        )
        .into_bytes();
        request.extend(body);
        self.socket.write_all(&request)?;
        self.answer.clear();
        let (status, body) = loop {
            self.more()?;
            if let Some(found) = complete(&self.answer)? {
                break found;
            }
        };
        Ok(Answer { status, body: &self.answer[body] })
    }

    fn more(&mut self) -> Result {
        let mut chunk = [0; 16 * 1024];
        match self.socket.read(&mut chunk)? {
            0 => Err("closed while an answer was due".into()),
            count => {
                self.answer.extend(&chunk[..count]);
                Ok(())
            }
        }
    }
}

/// The status and the place of the body, once all of it is there. Of a chunked body, with its chunk sizes.
fn complete(answer: &[u8]) -> Result<Option<(u16, std::ops::Range<usize>)>> {
    let Some(end) = payload::find(answer, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or("no HTTP answer")?;
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let body = end + 4;
    if value("transfer-encoding:") == Some("chunked") {
        return Ok(answer.ends_with(b"0\r\n\r\n").then_some((status, body..answer.len())));
    }
    let length: usize = value("content-length:").map_or(Ok(0), str::parse)?;
    Ok((answer.len() >= body + length).then_some((status, body..body + length)))
}

/// One call on a connection of its own.
pub fn once(at: &str, method: &str, path: &str, body: &str) -> Result<String> {
    let mut http = Http::connect(at, Duration::from_secs(20))?;
    let answer = http.call(method, path, body.as_bytes())?;
    let text = String::from_utf8_lossy(answer.body).into_owned();
    if answer.status >= 400 { Err(format!("{method} {at}{path}: {} {text}", answer.status).into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_body_is_there() {
        let check = |text: &str, expected: Option<(u16, &str)>| {
            let found = complete(text.as_bytes()).unwrap();
            assert_eq!(found.map(|(status, body)| (status, &text[body])), expected, "{text}");
        };
        check("HTTP/1.1 201 Created\r\nContent-Len", None);
        check("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\na", None);
        check("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nab", Some((201, "ab")));
        check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, "")));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", None);
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Some((200, "2\r\nab\r\n0\r\n\r\n")));
    }
}
