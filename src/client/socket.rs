//! One WebSocket to one node, speaking `evermesh.v1.json`: commands out, frames in.
//!
//! It answers the other side's pings while it is read, reconnects never, and buffers at most one message.

use super::{
    Client,
    error::{Error, Result},
    servers::display,
};
use crate::core::limits;
use crate::wire::socket::{Command, Frame, SUBPROTOCOL};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};

/// The default of 128 KiB a socket would be most of a client's memory.
const READ_BUFFER_BYTES: usize = 16 * 1024;

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket that stands.
pub struct Socket {
    url: Url,
    sender: Sender,
    receiver: Receiver,
}

/// The half that sends.
pub struct Sender {
    server: String,
    sink: SplitSink<Stream, Message>,
}

/// The half that receives.
pub struct Receiver {
    server: String,
    stream: SplitStream<Stream>,
}

impl Client {
    /// A WebSocket to the preferred server, or the next one that takes it.
    pub async fn socket(&self) -> Result<Socket> {
        let mut why = Vec::new();
        for server in self.candidates() {
            match self.socket_to(&server).await {
                Ok(socket) => {
                    self.prefer(&server);
                    return Ok(socket);
                }
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(Error::Unreachable(why.join("; ")))
    }

    pub(super) async fn socket_to(&self, server: &Url) -> Result<Socket> {
        let failed = |why: String| Error::Unreachable(format!("{}: {why}", display(server)));
        let mut url = server.join("/v1/ws").expect("a path joins to any server");
        url.set_scheme("ws").expect("http becomes ws");
        let mut request = url.as_str().into_client_request().map_err(|error| failed(error.to_string()))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(limits::CLIENT_ANSWER_BYTES_MAX))
            .max_frame_size(Some(limits::CLIENT_ANSWER_BYTES_MAX));
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let connected = tokio::time::timeout(2 * self.options().connect_timeout, connecting).await;
        let (stream, _) = connected.map_err(|_| failed("no answer in time".into()))?.map_err(|error| failed(error.to_string()))?;
        let (sink, stream) = stream.split();
        let (url, server) = (server.clone(), display(server));
        Ok(Socket { url, sender: Sender { server: server.clone(), sink }, receiver: Receiver { server, stream } })
    }
}

impl Socket {
    pub fn server(&self) -> &str {
        &self.sender.server
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The halves, for tasks of their own.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    pub async fn send(&mut self, command: &Command) -> Result<()> {
        self.sender.send(command).await
    }

    /// The next frame. Cancel safe.
    pub async fn next(&mut self) -> Result<Frame> {
        self.receiver.next().await
    }

    /// Says goodbye; the other side may be gone already.
    pub async fn close(mut self) {
        let _ = self.sender.sink.close().await;
    }
}

impl Sender {
    pub async fn send(&mut self, command: &Command) -> Result<()> {
        let text = serde_json::to_string(command).expect("the wire's shapes have a JSON form");
        self.send_text(text).await
    }

    /// Sends a command that is encoded already.
    pub async fn send_text(&mut self, text: impl Into<Utf8Bytes>) -> Result<()> {
        self.sink.send(Message::Text(text.into())).await.map_err(|error| lost(&self.server, error))
    }
}

impl Receiver {
    /// The next frame. Cancel safe.
    pub async fn next(&mut self) -> Result<Frame> {
        let text = self.next_text().await?;
        serde_json::from_str(&text).map_err(|error| Error::Unexpected(format!("{} sent a frame that cannot be read: {error}", self.server)))
    }

    /// The next frame as it came. Cancel safe.
    pub async fn next_text(&mut self) -> Result<Utf8Bytes> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(close))) => {
                    let (code, reason) = close.map_or((1005, String::new()), |close| (close.code.into(), close.reason.to_string()));
                    return Err(Error::Closed { server: self.server.clone(), code, reason });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(&self.server, error)),
                None => return Err(Error::Lost { server: self.server.clone(), why: "the connection ended".into() }),
            }
        }
    }
}

fn lost(server: &str, error: tungstenite::Error) -> Error {
    Error::Lost { server: server.to_owned(), why: error.to_string() }
}
