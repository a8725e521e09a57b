//! Bad input: each has its problem, and nobody else is disturbed.

use crate::support::{cluster, expect, get, publish_all, put, request, soon};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn check(request: RequestBuilder, status: u16, code: &str) -> serde_json::Value {
    let answer = expect(request, status).await;
    let json = &answer.json;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!((json["code"].as_str(), json["status"].as_u64()), (Some(code), Some(u64::from(status))), "{json}");
    assert_eq!(json["type"], format!("/problems/{code}"));
    assert_eq!(json["request_id"], answer.header("x-request-id"));
    answer.json
}

fn post(path: &str) -> RequestBuilder {
    request(1, Method::POST, path)
}

#[tokio::test]
async fn names_and_subjects() {
    let long = "x".repeat(129);
    for name in ["a%2Fb", "..%2F", ".hidden", "%00", "a%0A", "a%20b", "%FF", &long] {
        check(put(&format!("/v1/streams/{name}")), 400, "invalid-name").await;
        check(post(&format!("/v1/streams/{name}/events")).body("x"), 400, "invalid-name").await;
    }
    for subject in ["a..b", ".a", "a%20b", "a.*", "%3E", ""] {
        check(post(&format!("/v1/streams/bad-subject/events?subject={subject}")).body("x"), 400, "invalid-subject").await;
    }
    for filter in ["a..b", "a.%3E.b", "a*", ""] {
        check(get(&format!("/v1/streams/bad-subject/events?subject={filter}")), 400, "invalid-subject").await;
    }
    check(post("/v1/streams/bad-id/events").header("Event-Id", "x".repeat(257)).body("x"), 400, "invalid-header").await;
    check(post("/v1/streams/bad-id/events").header("Event-Id", "1").header("Event-Id", "2").body("x"), 400, "invalid-header").await;
    check(post("/v1/streams/bad-id/events").header("Expected-Last-Seq", "-1").body("x"), 400, "invalid-header").await;
    check(get("/v1/streams/bad-subject/events"), 404, "stream-not-found").await;
}

#[tokio::test]
async fn parameters() {
    publish_all("bad-parameters", &["1"]).await;
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=99999999999999999999",
        "limit=x",
        "limit=",
        "wait=-1s",
        "wait=5",
        "wait=61s",
        "wait=99999999h",
        "wait=",
        "from=0",
        "from=-1",
        "from=x",
        "from=",
        "from=99999999999999999999999",
        "form=1",
        "limit=1&limit=2",
        "from=2026-13-01T00:00:00Z",
    ] {
        check(get(&format!("/v1/streams/bad-parameters/events?{query}")), 400, "invalid-parameter").await;
    }
    check(get("/v1/streams/bad-parameters/events?from=3"), 404, "event-not-found").await;
    check(get("/v1/streams/bad-parameters/events/0"), 400, "invalid-parameter").await;
    check(get("/v1/streams/bad-parameters/events/x"), 400, "invalid-parameter").await;
    check(get("/v1/streams/bad-parameters/events/2"), 404, "event-not-found").await;
    check(get("/v1/streams?limit=1001"), 400, "invalid-parameter").await;
    check(get("/v1/streams/bad-parameters?x=1"), 400, "invalid-parameter").await;
    for id in ["x", "-1", "18446744073709551615"] {
        let sse = get("/v1/streams/bad-parameters/events").header("Accept", "text/event-stream").header("Last-Event-ID", id);
        check(sse, 400, "invalid-header").await;
    }
    check(get("/v1/streams/bad-parameters/events").header("Accept", "image/png"), 406, "not-acceptable").await;
}

#[tokio::test]
async fn bodies() {
    let batch = || post("/v1/streams/bad-bodies/batch");
    let settings = || put("/v1/streams/bad-settings");
    let as_json = |request: RequestBuilder, body: &str| request.header("Content-Type", "application/json").body(body.to_owned());
    check(post("/v1/streams/bad-bodies/events"), 400, "empty-body").await;
    check(as_json(batch(), ""), 400, "empty-body").await;
    check(as_json(batch(), "{\"events\":[{]}"), 400, "malformed-body").await;
    check(as_json(batch(), "{\"events\":[]}"), 422, "invalid-body").await;
    check(as_json(batch(), "{\"events\":[{\"data\":1}],\"more\":1}"), 422, "invalid-body").await;
    check(as_json(batch(), "[]"), 422, "invalid-body").await;
    let second = check(as_json(batch(), "{\"events\":[{\"data\":1},{\"data\":1,\"subject\":\"a b\"}]}"), 422, "invalid-body").await;
    assert_eq!(second["line"], 2);
    let lines = batch().header("Content-Type", "application/x-ndjson").body("{\"data\":1}\n{\"data\":2}\n{\"data\":\n{\"data\":4}\n");
    let problem = check(lines, 400, "malformed-body").await;
    assert_eq!(problem["line"], 3);
    assert!(problem["detail"].as_str().unwrap().contains("line 3"), "{problem}");
    let many = json!({"events": vec![json!({"data": 1}); 1001]});
    assert_eq!(check(batch().json(&many), 413, "batch-too-large").await["limit"], 1000);
    let heavy = json!({"events": vec![json!({"data": "x".repeat(600_000)}); 2]});
    check(batch().json(&heavy), 413, "batch-too-large").await;
    assert_eq!(check(as_json(batch(), &" ".repeat(3_000_000)), 413, "body-too-large").await["limit"], 2 * 1024 * 1024);
    check(post("/v1/streams/bad-bodies/events").body(vec![b'x'; 1024 * 1024 + 1]), 413, "event-too-large").await;
    check(batch().header("Content-Type", "text/plain").body("x"), 415, "unsupported-media-type").await;
    check(settings().header("Content-Type", "application/x-www-form-urlencoded").body("replicas=3"), 415, "unsupported-media-type").await;
    for wrong in [
        json!({"replica": 3}),
        json!({"replicas": 2}),
        json!({"max_age": "soon"}),
        json!({"max_bytes": 0}),
        json!({"dedup_window": "2d"}),
        json!([]),
    ] {
        check(settings().json(&wrong), 422, "invalid-body").await;
    }
    check(settings().json(&json!({"replicas": 5})), 409, "conflict").await;
    // Nothing of all this was stored, or made a stream.
    check(get("/v1/streams/bad-bodies"), 404, "stream-not-found").await;
    check(get("/v1/streams/bad-settings"), 404, "stream-not-found").await;
    for wrong in [json!({}), json!({"keep": 1, "before_seq": 1}), json!({"keep": -1}), json!({"all": true})] {
        check(post("/v1/streams/bad-bodies/purge").json(&wrong), 422, "invalid-body").await;
    }
}

#[tokio::test]
async fn an_events_own_bound() {
    expect(put("/v1/streams/small").json(&json!({"max_event_bytes": 10, "max_events": 1, "discard": "new"})), 201).await;
    assert_eq!(check(post("/v1/streams/small/events").body("12345678901"), 413, "event-too-large").await["limit"], 10);
    expect(post("/v1/streams/small/events").body("1234567890"), 201).await;
    assert_eq!(check(post("/v1/streams/small/events").body("1"), 429, "stream-full").await["limit"], 1);
}

#[tokio::test]
async fn methods_and_paths() {
    check(get("/v2"), 404, "route-not-found").await;
    check(get("/v1/streams/"), 404, "route-not-found").await;
    for (method, path, allowed) in [
        (Method::PATCH, "/v1/streams/x", "PUT"),
        (Method::PUT, "/v1/streams/x/events", "POST"),
        (Method::DELETE, "/v1/streams", "GET"),
        (Method::POST, "/livez", "GET"),
    ] {
        let answer = expect(request(0, method, path), 405).await;
        assert!(answer.header("allow").split(',').any(|method| method.trim() == allowed), "{path}: {}", answer.header("allow"));
        assert_eq!(answer.json["code"], "method-not-allowed");
    }
    check(get("/v1/ws"), 426, "upgrade-required").await;
    check(get("/v1/streams/x/ws"), 426, "upgrade-required").await;
    check(get("/problems/none"), 404, "problem-not-found").await;
}

/// What a raw connection answers to some bytes, until it closes or the answer holds a text.
async fn raw(bytes: &[u8], half_close: bool, until: &str) -> String {
    let mut socket = TcpStream::connect(cluster().urls[0].trim_start_matches("http://")).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    if half_close {
        socket.shutdown().await.unwrap();
    }
    let mut read = Vec::new();
    let reading = async {
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&read).contains(until) {
            match socket.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => read.extend_from_slice(&chunk[..n]),
            }
        }
    };
    soon("an answer", reading).await;
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn broken_connections_disturb_nobody() {
    let garbage = raw(b"\x16\x03\x01\x02\x00garbage\r\n\r\n", false, "HTTP/1.1 400").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    // Half a request, and nothing more: the connection ends, and the event is not stored.
    let half = b"POST /v1/streams/broken/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf";
    raw(half, true, "HTTP/1.1 4").await;
    check(get("/v1/streams/broken"), 404, "stream-not-found").await;
    let too_large = b"POST /v1/streams/broken/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n";
    assert!(raw(too_large, false, "event-too-large").await.starts_with("HTTP/1.1 413"));
    // One that only connects, while others go on.
    let _silent = TcpStream::connect(cluster().urls[0].trim_start_matches("http://")).await.unwrap();
    expect(get("/livez"), 200).await;
}
