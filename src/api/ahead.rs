//! A connection that is read with little buffers and gives much: a quiet WebSocket keeps a small buffer only, a busy one still takes what
//! has come in few calls.
//!
//! A read that fills its buffer is taken as a sign of more; the next one is made with a large buffer, which lives until it is empty.

use crate::core::limits;
use bytes::{Buf, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// - `ahead` was read and not given yet, at most `limits::SOCKET_AHEAD_BYTES`.
pub struct Eager<T> {
    inner: T,
    more: bool,
    ahead: BytesMut,
}

impl<T> Eager<T> {
    pub fn new(inner: T) -> Eager<T> {
        Eager { inner, more: false, ahead: BytesMut::new() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Eager<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            let room = buffer.remaining();
            if !this.more || room >= limits::SOCKET_AHEAD_BYTES {
                ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
                this.more = room > 0 && buffer.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            this.more = false;
            let mut ahead = BytesMut::with_capacity(limits::SOCKET_AHEAD_BYTES);
            let count = ready!(poll_read_buf(Pin::new(&mut this.inner), context, &mut ahead))?;
            this.more = count == limits::SOCKET_AHEAD_BYTES;
            this.ahead = ahead;
        }
        let count = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..count]);
        this.ahead.advance(count);
        if this.ahead.is_empty() {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// Counts the reads that gave something.
    struct Counted<T>(T, usize);

    impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
        fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let read = ready!(Pin::new(&mut self.0).poll_read(context, buffer));
            self.1 += 1;
            Poll::Ready(read)
        }
    }

    #[tokio::test]
    async fn all_comes_in_order_and_in_few_reads() {
        let data: Vec<u8> = (0..3 * limits::SOCKET_AHEAD_BYTES + 100).map(|at| at as u8).collect();
        let mut eager = Eager::new(Counted(&data[..], 0));
        let mut got = Vec::new();
        let mut part = [0; 256];
        loop {
            match eager.read(&mut part).await.unwrap() {
                0 => break,
                count => got.extend_from_slice(&part[..count]),
            }
        }
        assert_eq!(got, data);
        // A small one, three large ones of which the last is not full, and the end.
        assert_eq!(eager.inner.1, 5);
        assert_eq!(eager.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn what_is_small_is_read_as_it_comes() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let mut eager = Eager::new(near);
        let mut part = [0; 8];
        for message in [&b"12345"[..], b"12345678", b"1"] {
            tokio::io::AsyncWriteExt::write_all(&mut far, message).await.unwrap();
            assert_eq!(eager.read(&mut part).await.unwrap(), message.len());
            assert_eq!((eager.more, eager.ahead.capacity()), (message.len() == part.len(), 0));
        }
        drop(far);
        assert_eq!(eager.read(&mut part).await.unwrap(), 0);
    }
}
