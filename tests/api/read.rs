//! Reading: pages, NDJSON, SSE and single events.

use crate::support::{expect, get, post, publish_all, request, soon};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn seqs(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn pages_follow_one_another_on_every_node() {
    publish_all("paged", &["1", "2", "3", "4", "5"]).await;
    for node in 0..3 {
        let first = expect(request(node, Method::GET, "/v1/streams/paged/events?limit=2"), 200).await;
        assert_eq!((seqs(&first.json), &first.json["next"], &first.json["last_seq"]), (vec![1, 2], &json!(3), &json!(5)));
        let rest = expect(request(node, Method::GET, "/v1/streams/paged/events?from=3&limit=1000"), 200).await;
        assert_eq!((seqs(&rest.json), &rest.json["next"]), (vec![3, 4, 5], &json!(6)));
        assert_eq!(rest.json["events"][0]["data"], "3");
        let end = expect(request(node, Method::GET, "/v1/streams/paged/events?from=6"), 200).await;
        assert_eq!((seqs(&end.json), &end.json["next"]), (vec![], &json!(6)));
    }
}

#[tokio::test]
async fn every_start_is_understood() {
    publish_all("starts", &["1", "2"]).await;
    let middle = expect(get("/v1/streams/starts/events?from=2"), 200).await.json["events"][0]["time"].as_str().unwrap().to_owned();
    for (from, expected) in [
        ("earliest", vec![1, 2]),
        ("latest", vec![2]),
        ("new", vec![]),
        ("1", vec![1, 2]),
        (&middle, vec![2]),
        ("2000-01-01T00:00:00Z", vec![1, 2]),
    ] {
        let page = expect(get(&format!("/v1/streams/starts/events?from={from}")), 200).await;
        assert_eq!(seqs(&page.json), expected, "{from}");
    }
    let beyond = expect(get("/v1/streams/starts/events?from=4"), 404).await;
    assert_eq!((&beyond.json["code"], &beyond.json["last_seq"]), (&json!("event-not-found"), &json!(2)));
}

#[tokio::test]
async fn a_filter_takes_its_subjects_only() {
    for subject in ["a.b", "a.c", "b.c"] {
        expect(post(&format!("/v1/streams/filtered/events?subject={subject}")).body("x"), 201).await;
    }
    for (filter, expected) in [("a.*", vec![1, 2]), ("*.c", vec![2, 3]), (">", vec![1, 2, 3]), ("c", vec![])] {
        let page = expect(get("/v1/streams/filtered/events").query(&[("subject", filter)]), 200).await;
        assert_eq!((seqs(&page.json), &page.json["next"]), (expected, &json!(4)), "{filter}");
    }
}

#[tokio::test]
async fn a_long_poll_wakes_with_the_event_or_ends_empty() {
    publish_all("polled", &["1"]).await;
    let began = Instant::now();
    let empty = expect(get("/v1/streams/polled/events?from=2&wait=300ms"), 200).await;
    assert_eq!(seqs(&empty.json), Vec::<u64>::new());
    assert!(began.elapsed() >= Duration::from_millis(300));
    let poll = tokio::spawn(expect(get("/v1/streams/polled/events?from=2&wait=30s"), 200));
    publish_all("polled", &["2"]).await;
    assert_eq!(seqs(&soon("the poll's event", poll).await.unwrap().json), [2]);
}

#[tokio::test]
async fn one_event_is_cached_for_good() {
    publish_all("single", &["one"]).await;
    let path = "/v1/streams/single/events/1";
    let event = expect(get(path), 200).await;
    assert_eq!((&event.bytes[..], event.header("content-type")), (&b"one"[..], "text/plain"));
    assert!(event.header("cache-control").contains("immutable"));
    expect(get(path).header("If-None-Match", event.header("etag")), 304).await;
    expect(get(path).header("If-None-Match", "\"other\""), 200).await;
    let head = expect(request(2, Method::HEAD, path), 200).await;
    assert_eq!((head.header("event-seq"), head.bytes.len()), ("1", 0));
    assert_eq!(expect(get("/v1/streams/single/events/2"), 404).await.json["last_seq"], 1);
}

#[tokio::test]
async fn ndjson_ends_with_the_stream_or_goes_on() {
    publish_all("lines", &["1", "2", "3"]).await;
    let accept = |path: &str| get(path).header("Accept", "application/x-ndjson");
    let lines =
        |bytes: &[u8]| -> Vec<Value> { String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let all = expect(accept("/v1/streams/lines/events"), 200).await;
    assert_eq!(all.header("content-type"), "application/x-ndjson");
    assert_eq!(lines(&all.bytes).iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines(&expect(accept("/v1/streams/lines/events?limit=2"), 200).await.bytes).len(), 2);
    let live = tokio::spawn(expect(accept("/v1/streams/lines/events?from=3&wait=30s&limit=3"), 200));
    publish_all("lines", &["4", "5"]).await;
    assert_eq!(lines(&soon("the limit's last line", live).await.unwrap().bytes).len(), 3);
    let idle = soon("the end of the wait", expect(accept("/v1/streams/lines/events?wait=200ms"), 200)).await;
    assert!(idle.bytes.is_empty());
}

/// Reads an SSE response until it holds a text.
async fn until(response: &mut Response, text: &str) -> String {
    let mut read = String::new();
    let reading = async {
        while !read.contains(text) {
            let chunk = response.chunk().await.unwrap().expect("the response goes on");
            read.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    soon(text, reading).await;
    read
}

#[tokio::test]
async fn sse_is_live_and_resumes() {
    publish_all("sse", &["1"]).await;
    let accept = || get("/v1/streams/sse/events").header("Accept", "text/event-stream");
    let mut live = accept().send().await.unwrap();
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    until(&mut live, ": connected").await;
    publish_all("sse", &["2"]).await;
    let read = until(&mut live, "\"data\":\"2\"}\n\n").await;
    assert!(read.contains("id: 2\ndata: {\"seq\":2,"), "{read}");
    drop(live);
    publish_all("sse", &["3"]).await;
    let mut resumed = accept().header("Last-Event-ID", "1").send().await.unwrap();
    let read = until(&mut resumed, "id: 3\n").await;
    assert!(read.contains("id: 2\n"), "{read}");
    drop(resumed);
    expect(post("/v1/streams/sse/purge").json(&json!({"before_seq": 3})), 200).await;
    // Reading a page makes sure that this node knows of the purge.
    expect(get("/v1/streams/sse/events?from=1"), 200).await;
    let ended = expect(accept().header("Last-Event-ID", "0").query(&[("limit", "1")]), 200).await;
    let read = String::from_utf8(ended.bytes).unwrap();
    assert!(read.contains("event: gap\nid: 2\ndata: {\"from\":1,\"to\":2,\"first_seq\":3}\n\nid: 3\n"), "{read}");
}
