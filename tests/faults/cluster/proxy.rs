//! A proxy between peers: bytes of one direction between two nodes can be delayed, held up now and then as a lost packet holds
//! TCP up, or held back altogether, which from outside is a cut of that direction.
//!
//! Every node advertises the proxy's address for it; who dials is known by the address that the connection comes from.

use super::network::{PEER_PORT, our_peer_address, peer_address};
use crate::random::mix;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Nodes that can be behind the proxy; its ports are this and the following.
const NODES: usize = 24;
const PORT: u16 = 15_800;
const CHUNK: usize = 16 * 1024;
/// Chunks under way in one direction of one connection.
const CHUNKS: usize = 256;
const LOOK: Duration = Duration::from_millis(5);

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub cut: bool,
    pub ms: u64,
    pub jitter_ms: u64,
    /// Of the chunks, so many wait a good while longer.
    pub stall_percent: u64,
}

#[derive(Clone)]
pub struct Proxy {
    /// From the first to the second.
    links: Arc<RwLock<[[Link; NODES]; NODES]>>,
    chance: Arc<AtomicU64>,
}

pub fn address(node: usize) -> String {
    format!("{}:{}", our_peer_address(), PORT + node as u16)
}

impl Proxy {
    pub async fn start() -> std::io::Result<Proxy> {
        let proxy = Proxy { links: Arc::default(), chance: Arc::new(AtomicU64::new(1)) };
        for node in 0..NODES {
            let listener = TcpListener::bind(address(node)).await?;
            tokio::spawn(proxy.clone().accept(listener, node));
        }
        Ok(proxy)
    }

    pub fn set(&self, change: impl Fn(usize, usize, &mut Link)) {
        let mut links = self.links.write().expect("nobody panics while holding it");
        for (from, row) in links.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(to, link)| change(from, to, link));
        }
    }

    pub fn heal(&self) {
        self.set(|_, _, link| *link = Link::default());
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.links.read().expect("nobody panics while holding it")[from][to]
    }

    async fn until_open(&self, from: usize, to: usize) {
        while self.link(from, to).cut {
            sleep(LOOK).await;
        }
    }

    fn delay(&self, link: Link) -> Duration {
        let chance = mix(self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed));
        let jitter = if link.jitter_ms > 0 { chance % (link.jitter_ms + 1) } else { 0 };
        let stall = if (chance >> 32) % 100 < link.stall_percent { 200 + (chance >> 40) % 400 } else { 0 };
        Duration::from_millis(link.ms + jitter + stall)
    }

    async fn accept(self, listener: TcpListener, to: usize) {
        loop {
            let Ok((dialled, from)) = listener.accept().await else { continue };
            if let Some(from) = node_at(from) {
                tokio::spawn(self.clone().carry(dialled, from, to));
            }
        }
    }

    async fn carry(self, dialled: TcpStream, from: usize, to: usize) {
        // A handshake needs both directions.
        self.until_open(from, to).await;
        self.until_open(to, from).await;
        // Dropped where nobody listens: the dialler sees a connection that closes at once.
        let Ok(onward) = TcpStream::connect((peer_address(to), PEER_PORT)).await else { return };
        let _ = (dialled.set_nodelay(true), onward.set_nodelay(true));
        let ((read_a, write_a), (read_b, write_b)) = (dialled.into_split(), onward.into_split());
        tokio::select! {
            () = self.pump(read_a, write_b, from, to) => {}
            () = self.pump(read_b, write_a, to, from) => {}
        }
        // The end of a connection is a message, too.
        self.until_open(from, to).await;
        self.until_open(to, from).await;
    }

    async fn pump(&self, mut read: OwnedReadHalf, mut write: OwnedWriteHalf, from: usize, to: usize) {
        let (chunks, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
        let reading = async {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count) = read.read(&mut buffer).await {
                let at = Instant::now() + self.delay(self.link(from, to));
                if count == 0 || chunks.send((at, buffer[..count].to_vec())).await.is_err() {
                    break;
                }
            }
            drop(chunks);
        };
        let writing = async {
            while let Some((at, bytes)) = due.recv().await {
                if at > Instant::now() {
                    sleep_until(at).await;
                }
                self.until_open(from, to).await;
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(reading, writing);
    }
}

/// The node with this address in the peers' network.
fn node_at(address: SocketAddr) -> Option<usize> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    usize::from(ip.octets()[3]).checked_sub(1).filter(|node| *node < NODES)
}
