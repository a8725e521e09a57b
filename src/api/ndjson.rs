//! Events one a line: to the end of the stream, or on and on with `wait`.

use super::{
    error::Result,
    follow::{self, Follow, Step},
    read::{Wanted, live, problem_line},
    state::App,
};
use crate::{
    core::{StreamName, limits},
    node::{Chunk, Error, From, Item, Node},
    wire::{Gap, encode_gap_line},
};
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use std::{convert::Infallible, time::Duration};

pub async fn respond(app: &App, node: &Node, stream: &StreamName, wanted: Wanted) -> Result {
    let from = wanted.from.unwrap_or(if wanted.wait.is_some() { From::New } else { From::Earliest });
    let mut follow = Follow::open(app, node, stream, from, wanted.filter).await?;
    let mut lines = Lines {
        left: wanted.limit.unwrap_or(u64::MAX),
        wait: Duration::from_millis(wanted.wait.unwrap_or(0)),
        ended: false,
        end_seq: None,
    };
    // The first step decides about the answer's status, and about where a stream without `wait` ends.
    let first = match follow.step(lines.take(), Duration::ZERO).await {
        Step::Failed(error) | Step::Refused(error) => return Err(error.into()),
        Step::Items(chunk) => {
            lines.end_seq = wanted.wait.is_none().then_some(chunk.last_seq);
            lines.write(chunk)
        }
        Step::Idle => {
            lines.ended = wanted.wait.is_none();
            Bytes::new()
        }
        Step::Leaving => {
            lines.ended = true;
            Bytes::new()
        }
    };
    let rest = stream::unfold((follow, lines), |(mut follow, mut lines)| async move {
        let bytes = lines.next(&mut follow).await?;
        Some((Ok::<_, Infallible>(bytes), (follow, lines)))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest));
    Ok(live("application/x-ndjson", body))
}

/// How far a response has come.
struct Lines {
    /// Events that it may still give.
    left: u64,
    wait: Duration,
    ended: bool,
    /// Without `wait`: the stream's end when the response began; what comes later is not waited for.
    end_seq: Option<u64>,
}

impl Lines {
    fn take(&self) -> usize {
        self.left.min(limits::PUSH_EVENTS_MAX as u64) as usize
    }

    async fn next(&mut self, follow: &mut Follow) -> Option<Bytes> {
        if self.ended || self.left == 0 {
            return None;
        }
        match follow.step(self.take(), self.wait).await {
            Step::Items(chunk) => Some(self.write(chunk)),
            Step::Idle => None,
            Step::Leaving => self.end_with(Error::Draining),
            Step::Failed(error) | Step::Refused(error) => self.end_with(error),
        }
    }

    /// An end for a reason must not look like the stream's end: that would be a silent hole.
    fn end_with(&mut self, error: Error) -> Option<Bytes> {
        self.ended = true;
        Some(Bytes::from(problem_line(error) + "\n"))
    }

    fn write(&mut self, chunk: Chunk) -> Bytes {
        let mut out = BytesMut::new();
        for item in &chunk.items {
            match item {
                Item::Event(delivery) => {
                    self.left -= 1;
                    out.put_slice(follow::json(delivery));
                }
                Item::Gap { from, to } => out.put_slice(encode_gap_line(Gap { from: *from, to: *to }).as_bytes()),
            }
            out.put_u8(b'\n');
        }
        self.ended = self.left == 0 || self.end_seq.is_some_and(|end| chunk.next > end);
        out.freeze()
    }
}
