//! A connection that notices when its other end stops taking bytes.
//!
//! One watch for every kind of answer: a reader of SSE, NDJSON or a WebSocket that does not read is cut off after
//! [`limits::STALL_MS`] without a byte of progress, however slow it was before.

use crate::core::limits;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::AsyncWrite,
    time::{Instant, Sleep},
};

/// A stream of bytes whose writes fail when they make no progress for too long.
///
/// - `stalled` runs only while the last write was refused by a full socket.
pub struct Watched<T> {
    inner: T,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Watched<T> {
    pub fn new(inner: T) -> Watched<T> {
        Watched { inner, stalled: None }
    }

    /// Passes on what a write gave; when it waits, watches the time.
    fn watch<R>(&mut self, written: Poll<io::Result<R>>, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = Duration::from_millis(limits::STALL_MS);
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes no bytes")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn only_a_write_without_progress_fails() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Watched::new(near);
        near.write_all(b"1234").await.unwrap();
        // Slow, but it reads: each byte that it takes begins the patience anew.
        let reader = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(limits::STALL_MS - 1)).await;
                far.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(b"5678"), reader);
        written.unwrap();
        let began = Instant::now();
        let error = near.write_all(b"9").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= Duration::from_millis(limits::STALL_MS));
    }
}
