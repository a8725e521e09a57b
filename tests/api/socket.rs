//! Both WebSocket forms.

use crate::support::{cluster, expect, post, publish_all, soon};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::CloseFrame},
};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(node: usize, path: &str) -> Socket {
        let url = cluster().urls[node].replace("http://", "ws://") + path;
        let mut request = url.into_client_request().unwrap();
        if path == "/v1/ws" {
            request.headers_mut().insert("sec-websocket-protocol", "evermesh.v1.json".parse().unwrap());
        }
        let (socket, answer) = connect_async(request).await.unwrap();
        if path == "/v1/ws" {
            assert_eq!(answer.headers()["sec-websocket-protocol"], "evermesh.v1.json");
        }
        Socket(socket)
    }

    /// Opens `/v1/ws` and takes the first push.
    async fn many(node: usize) -> Socket {
        let mut socket = Socket::open(node, "/v1/ws").await;
        let nodes = socket.next().await;
        assert_eq!(nodes["nodes"].as_array().unwrap().len(), 3, "{nodes}");
        socket
    }

    async fn send(&mut self, command: Value) {
        self.0.send(Message::text(command.to_string())).await.unwrap();
    }

    /// The next text frame.
    async fn next(&mut self) -> Value {
        let reading = async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    return serde_json::from_str(&text).unwrap();
                }
            }
        };
        soon("a frame", reading).await
    }

    async fn ask(&mut self, command: Value) -> Value {
        self.send(command).await;
        self.next().await
    }

    /// The code with which the other end closes.
    async fn closed(&mut self) -> u16 {
        let reading = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => return code.into(),
                    Some(Ok(_)) => {}
                    other => panic!("no close frame but {other:?}"),
                }
            }
        };
        soon("a close frame", reading).await
    }
}

#[tokio::test]
async fn one_stream_is_one_frame_an_event() {
    publish_all("ws-one", &["1"]).await;
    let mut socket = Socket::open(2, "/v1/streams/ws-one/ws?from=earliest").await;
    assert_eq!(socket.next().await["data"], "1");
    publish_all("ws-one", &["2", "3"]).await;
    assert_eq!((socket.next().await["seq"].clone(), socket.next().await["seq"].clone()), (json!(2), json!(3)));
    expect(post("/v1/streams/ws-one/purge").json(&json!({"before_seq": 3})), 200).await;
    // Reading a page makes sure that this node knows of the purge.
    expect(crate::support::get("/v1/streams/ws-one/events?from=1"), 200).await;
    let mut late = Socket::open(0, "/v1/streams/ws-one/ws?from=1").await;
    assert_eq!(late.next().await, json!({"gap": {"from": 1, "to": 2}}));
    assert_eq!(late.next().await["seq"], 3);
}

#[tokio::test]
async fn a_deleted_stream_closes_for_good() {
    publish_all("ws-deleted", &["1"]).await;
    let mut socket = Socket::open(0, "/v1/streams/ws-deleted/ws").await;
    expect(crate::support::request(1, reqwest::Method::DELETE, "/v1/streams/ws-deleted"), 204).await;
    assert_eq!(socket.closed().await, 4000);
}

#[tokio::test]
async fn a_wrong_request_gets_its_problem_before_the_upgrade() {
    for (path, status) in
        [("/v1/streams/ws-none/ws", 404), ("/v1/streams/ws-none/ws?from=x", 400), ("/v1/ws?x=1", 400), ("/v1/streams/.x/ws", 400)]
    {
        let url = cluster().urls[0].replace("http://", "ws://") + path;
        match connect_async(url).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status().as_u16(), status, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    let mut request = (cluster().urls[0].replace("http://", "ws://") + "/v1/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    assert!(matches!(connect_async(request).await, Err(Error::Http(answer)) if answer.status().as_u16() == 400));
}

#[tokio::test]
async fn the_commands_of_the_contract() {
    let mut socket = Socket::many(1).await;
    let ack =
        socket.ask(json!({"id": 1, "publish": {"stream": "ws-many", "subject": "orders.a", "event_id": "x", "data": {"n": 1}}})).await;
    assert_eq!(ack, json!({"id": 1, "ack": {"seq": 1, "duplicate": false}}));
    let again =
        socket.ask(json!({"id": 1, "publish": {"stream": "ws-many", "subject": "orders.a", "event_id": "x", "data": {"n": 1}}})).await;
    assert_eq!(again, json!({"id": 1, "ack": {"seq": 1, "duplicate": true}}));
    let batch = socket
        .ask(json!({"id": 2, "publish_batch": {"stream": "ws-many", "events": [{"data": 2, "subject": "orders.b"}, {"data": 3}]}}))
        .await;
    assert_eq!((&batch["ack"]["first_seq"], &batch["ack"]["last_seq"]), (&json!(2), &json!(3)));
    let subscribed =
        socket.ask(json!({"id": 3, "subscribe": {"stream": "ws-many", "from": "earliest", "subject": "orders.>", "credit": 1}})).await;
    let created = expect(cluster().request(0, Method::GET, "/v1/streams/ws-many"), 200).await.json["created"].clone();
    assert_eq!(subscribed, json!({"id": 3, "subscribed": {"sub": 1, "from": 1, "created": created}}));
    let push = socket.next().await;
    assert_eq!((&push["sub"], push["events"].as_array().unwrap().len(), &push["events"][0]["seq"]), (&json!(1), 1, &json!(1)));
    // No more without credit: the answer to the next command comes first.
    assert!(socket.ask(json!({"id": 6, "ping": {}})).await["pong"]["time"].is_string());
    assert_eq!(socket.ask(json!({"id": 4, "credit": {"sub": 1, "add": 10}})).await, json!({"id": 4, "ok": {}}));
    assert_eq!(socket.next().await["events"][0]["seq"], 2);
    assert_eq!(socket.ask(json!({"id": 5, "unsubscribe": {"sub": 1}})).await, json!({"id": 5, "ok": {}}));
    assert_eq!(socket.ask(json!({"id": 7, "unsubscribe": {"sub": 1}})).await["error"]["code"], "subscription-not-found");
}

#[tokio::test]
async fn pipelined_publishes_keep_their_order() {
    let mut socket = Socket::many(2).await;
    for id in 0..500 {
        socket.0.feed(Message::text(json!({"id": id, "publish": {"stream": "ws-order", "data": id}}).to_string())).await.unwrap();
    }
    socket.0.flush().await.unwrap();
    let mut acks = Vec::new();
    for _ in 0..500 {
        let frame = socket.next().await;
        acks.push((frame["id"].as_u64().unwrap(), frame["ack"]["seq"].as_u64().unwrap_or_else(|| panic!("{frame}"))));
    }
    acks.sort_unstable();
    assert!(acks.iter().all(|(id, seq)| id + 1 == *seq), "{acks:?}");
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_the_socket_goes_on() {
    let mut socket = Socket::many(0).await;
    for (text, id, code) in [
        ("hello", json!(null), "malformed-body"),
        ("[1]", json!(null), "malformed-body"),
        (r#"{"id":1,"dance":{}}"#, json!(1), "unknown-command"),
        (r#"{"id":2}"#, json!(2), "unknown-command"),
        (r#"{"id":3,"subscribe":{}}"#, json!(3), "invalid-body"),
        (r#"{"id":4,"subscribe":{"stream":"ws-nowhere"}}"#, json!(4), "stream-not-found"),
        (r#"{"id":5,"subscribe":{"stream":"a/b"}}"#, json!(5), "invalid-name"),
        (r#"{"id":6,"subscribe":{"stream":"x","subject":"a..b"}}"#, json!(6), "invalid-subject"),
        (r#"{"id":7,"subscribe":{"stream":"x","from":0}}"#, json!(7), "invalid-body"),
        (r#"{"id":8,"subscribe":{"stream":"x","credit":1000000001}}"#, json!(8), "invalid-body"),
        (r#"{"id":9,"credit":{"sub":9,"add":1}}"#, json!(9), "subscription-not-found"),
        (r#"{"id":10,"publish":{"stream":"x"}}"#, json!(10), "invalid-body"),
        (r#"{"id":11,"publish_batch":{"stream":"x","events":[]}}"#, json!(11), "invalid-body"),
        (r#"{"id":12,"ping":{},"unsubscribe":{"sub":1}}"#, json!(12), "unknown-command"),
    ] {
        socket.0.send(Message::text(text)).await.unwrap();
        let frame = socket.next().await;
        assert_eq!((&frame["id"], &frame["error"]["code"]), (&id, &json!(code)), "{text}: {frame}");
    }
    socket.0.send(Message::binary(vec![0, 1])).await.unwrap();
    assert_eq!(socket.next().await["error"]["code"], "malformed-body");
    publish_all("ws-credit", &["1"]).await;
    let sub = socket.ask(json!({"id": 20, "subscribe": {"stream": "ws-credit", "credit": 999_999_999}})).await["subscribed"]["sub"].clone();
    assert_eq!(socket.ask(json!({"id": 21, "credit": {"sub": sub, "add": 2}})).await["error"]["code"], "invalid-body");
    assert_eq!(
        socket.ask(json!({"id": 22, "credit": {"sub": sub, "add": 18_446_744_073_709_551_615u64}})).await["error"]["code"],
        "invalid-body"
    );
    assert_eq!(socket.ask(json!({"id": 23, "credit": {"sub": sub, "add": 1}})).await["ok"], json!({}));
    for _ in 0..16 {
        socket.0.send(Message::text("{")).await.unwrap();
    }
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn an_over_large_message_closes_its_socket() {
    let mut socket = Socket::many(0).await;
    socket.0.send(Message::text(" ".repeat(2 * 1024 * 1024 + 1))).await.unwrap();
    assert_eq!(socket.next().await["error"]["code"], "body-too-large");
    assert_eq!(socket.closed().await, 1009);
    // One that is far too large is not even read: its announcement is enough.
    let mut socket = Socket::many(0).await;
    let MaybeTlsStream::Plain(raw) = socket.0.get_mut() else { panic!("no TLS here") };
    let announced = [&[0x81, 0xff][..], &(64u64 << 20).to_be_bytes(), &[0; 4]].concat();
    tokio::io::AsyncWriteExt::write_all(raw, &announced).await.unwrap();
    assert_eq!(socket.closed().await, 1009);
}

#[tokio::test]
async fn a_slow_subscriber_gets_everything_in_order() {
    let mut socket = Socket::many(0).await;
    expect(crate::support::put("/v1/streams/ws-slow"), 201).await;
    socket.ask(json!({"id": 1, "subscribe": {"stream": "ws-slow", "from": "earliest"}})).await;
    let events: Vec<_> = (0..100).map(|n| json!({"data": {"n": n, "fill": "x".repeat(5_000)}})).collect();
    for _ in 0..20 {
        expect(post("/v1/streams/ws-slow/batch").json(&json!({"events": events})), 201).await;
    }
    let mut next = 1;
    while next <= 2000 {
        for event in socket.next().await["events"].as_array().unwrap() {
            assert_eq!(event["seq"], next);
            next += 1;
        }
    }
}
