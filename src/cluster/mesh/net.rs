//! The network below the mesh, behind a trait: TCP in production, and the seam where the simulation puts its own.
//!
//! A connection is boxed once; each of its reads and writes moves many frames, so the indirection is not seen.

use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// One connection: ordered bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    fn split(self: Box<Self>) -> (ReadHalf, WriteHalf);
}

/// Takes connections.
pub trait Accept: Send + Sync {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// Makes connections.
pub trait Dial: Send + Sync {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

/// A node's network: how it dials. A handle.
#[derive(Clone)]
pub struct Network(Arc<dyn Dial>);

impl Network {
    pub fn new(dial: impl Dial + 'static) -> Network {
        Network(Arc::new(dial))
    }

    pub(super) async fn dial(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        self.0.dial(address).await
    }
}

impl Default for Network {
    /// TCP.
    fn default() -> Network {
        Network::new(Tcp)
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

/// Where a node takes its peers' connections.
pub enum Listener {
    Tcp(TcpListener),
    Other(Box<dyn Accept>),
}

impl Listener {
    /// Moves a TCP listener to the runtime in which this is called.
    pub fn here(self) -> io::Result<Listener> {
        match self {
            Listener::Tcp(listener) => Ok(Listener::Tcp(TcpListener::from_std(listener.into_std()?)?)),
            other => Ok(other),
        }
    }

    pub(super) async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // A connection that is gone already says so at its first read.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), address))
            }
            Listener::Other(other) => other.accept().await,
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl Stream for TcpStream {
    fn split(self: Box<Self>) -> (ReadHalf, WriteHalf) {
        let (reads, writes) = self.into_split();
        (Box::new(reads), Box::new(writes))
    }
}

struct Tcp;

impl Dial for Tcp {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok(stream)
        })
    }
}
