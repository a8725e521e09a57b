//! The client against servers that misbehave: what is repeated, what is not, and where.

use super::{Client, Error, Item, Message, Options, Subscribe};
use crate::wire::Start;
use futures_util::{SinkExt, StreamExt};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::{
    self, Message as Ws,
    handshake::server::{Request, Response},
};

const CREATED: &str = r#"{"stream":"s","seq":7,"time":"1970-01-01T00:00:00Z","duplicate":false}"#;
const OVERLOADED: &str =
    r#"{"type":"/problems/overloaded","title":"t","status":503,"detail":"d","code":"overloaded","retryable":true,"retry_after_ms":1}"#;
const NOT_FOUND: &str = r#"{"type":"/problems/stream-not-found","title":"t","status":404,"detail":"no such stream","code":"stream-not-found","retryable":false}"#;

/// What a server does with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer(u16, &'static str),
    /// Reads it and says nothing.
    Hang,
}

/// A server that does one thing after another, the last of them for ever, and remembers what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(acts: &[Act]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, acts.to_vec(), asked.clone()));
        Server { url, asked, task }
    }

    /// The values that a header had in all the requests.
    fn header(&self, name: &str) -> Vec<String> {
        let value = |request: &String| {
            let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        self.asked.lock().unwrap().iter().filter_map(value).collect()
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, acts: Vec<Act>, asked: Arc<Mutex<Vec<String>>>) {
    for at in 0.. {
        let (mut socket, _) = listener.accept().await.unwrap();
        let request = read_request(&mut socket).await;
        asked.lock().unwrap().push(request);
        if let Act::Answer(status, body) = acts[at.min(acts.len() - 1)] {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> String {
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    loop {
        let got = socket.read(&mut chunk).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk[..got]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

/// A server's URL where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn client(servers: &[&str], assign_ids: bool) -> Client {
    Client::new(servers, Options { assign_ids, ..Options::default() }).unwrap()
}

#[tokio::test]
async fn a_refused_connection_leads_to_the_next_server_and_stays_there() {
    let server = Server::start(&[Act::Answer(201, CREATED)]).await;
    let client = client(&[&nobody().await, &server.url], true);
    for _ in 0..2 {
        assert_eq!(client.publish("s", Message::new("x")).await.unwrap().seq, 7);
    }
    assert_eq!(client.server(), server.url);
    let ids = server.header("event-id:");
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn what_was_not_accepted_is_repeated_with_the_same_id() {
    let server = Server::start(&[Act::Answer(503, OVERLOADED), Act::Answer(503, OVERLOADED), Act::Answer(201, CREATED)]).await;
    client(&[&server.url], true).publish("s", Message::new("x").subject("a.b")).await.unwrap();
    let ids = server.header("event-id:");
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(server.asked.lock().unwrap()[2].starts_with("POST /v1/streams/s/events?subject=a.b "));
}

#[tokio::test]
async fn a_lost_answer_is_repeated_only_where_that_cannot_store_twice() {
    let (silent, other) = (Server::start(&[Act::Hang]).await, Server::start(&[Act::Answer(201, CREATED)]).await);
    client(&[&silent.url, &other.url], true).publish("s", Message::new("x")).await.unwrap();
    assert_eq!(silent.header("event-id:"), other.header("event-id:"));
    let lost = client(&[&silent.url, &other.url], false).publish("s", Message::new("x")).await;
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    assert_eq!((silent.requests(), other.requests()), (2, 1));
}

#[tokio::test]
async fn an_answer_that_every_server_would_give_is_final() {
    let (first, second) = (Server::start(&[Act::Answer(404, NOT_FOUND)]).await, Server::start(&[Act::Answer(201, CREATED)]).await);
    let error = client(&[&first.url, &second.url], true).stream("s").await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Some("stream-not-found"), "no such stream"));
    assert_eq!(second.requests(), 0);
}

#[tokio::test]
async fn nobody_there_is_told_soon_and_by_name() {
    let (a, b) = (nobody().await, nobody().await);
    let error = client(&[&a, &b], true).list_streams("").await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(why) if why.contains(&a) && why.contains(&b)), "{error}");
}

#[tokio::test]
async fn a_name_that_is_none_is_never_sent() {
    let client = client(&[&nobody().await], true);
    assert!(matches!(client.publish("..", Message::new("x")).await, Err(Error::Invalid(_))));
    assert!(matches!(client.remove("a/b").await, Err(Error::Invalid(_))));
}

/// Takes one WebSocket, hands over the frame that came, and sends these.
async fn push(listener: &TcpListener, frames: &[&str]) -> String {
    // The shape of this callback is tungstenite's, its large error too.
    #[allow(clippy::result_large_err)]
    fn agree(request: &Request, mut response: Response) -> Result<Response, tungstenite::handshake::server::ErrorResponse> {
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    }
    let (socket, _) = listener.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_hdr_async(socket, agree).await.unwrap();
    let asked = socket.next().await.unwrap().unwrap().into_text().unwrap();
    for frame in frames {
        socket.send(Ws::text(*frame)).await.unwrap();
    }
    asked.to_string()
}

#[tokio::test]
async fn a_subscription_goes_on_at_the_next_server_behind_what_it_has() {
    let (first, second) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (a, b) = (format!("http://{}", first.local_addr().unwrap()), format!("http://{}", second.local_addr().unwrap()));
    let nodes = format!(r#"{{"nodes":[{{"name":"n2","url":"{b}"}}]}}"#);
    let served = tokio::spawn(async move {
        let subscribed = r#"{"id":1,"subscribed":{"sub":1,"from":5}}"#;
        let events =
            r#"{"sub":1,"events":[{"seq":5,"time":"1970-01-01T00:00:00Z","data":1},{"seq":6,"time":"1970-01-01T00:00:00Z","data":1}]}"#;
        let before = push(&first, &[&nodes, subscribed, events]).await;
        drop(first);
        let again =
            r#"{"sub":4,"events":[{"seq":6,"time":"1970-01-01T00:00:00Z","data":1},{"seq":7,"time":"1970-01-01T00:00:00Z","data":1}]}"#;
        (before, push(&second, &[r#"{"id":1,"subscribed":{"sub":4,"from":7}}"#, again]).await)
    });
    // It knows the second server only from the first.
    let mut subscription = client(&[&a], true).subscribe("s", Subscribe { from: Start::New, subject: None }).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&7) {
        match subscription.next().await.unwrap() {
            Item::Events(events) => seen.extend(events.iter().map(|event| event.seq)),
            Item::Moved { server, .. } => assert_eq!(server, b),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [5, 6, 7]);
    let (before, after) = served.await.unwrap();
    assert!(before.contains(r#""from":"new""#) && after.contains(r#""from":7"#), "{before} {after}");
}
