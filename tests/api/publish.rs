//! Publishing in all its forms.

use crate::support::{expect, get, post, request};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn the_example_of_the_contract() {
    let publish = || {
        request(2, Method::POST, "/v1/streams/orders/events?subject=orders.eu.created")
            .header("Content-Type", "application/json")
            .header("Event-Id", "o-1001")
            .header("Event-Header-Trace", "t1")
            .body(r#"{"order": 1001}"#)
    };
    let first = expect(publish(), 201).await;
    assert_eq!(first.header("location"), "/v1/streams/orders/events/1");
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!((&first.json["stream"], &first.json["seq"], &first.json["duplicate"]), (&json!("orders"), &json!(1), &json!(false)));
    let again = expect(publish(), 200).await;
    assert_eq!((&again.json["seq"], &again.json["duplicate"]), (&json!(1), &json!(true)));
    for node in 0..3 {
        let event = expect(request(node, Method::GET, "/v1/streams/orders/events/1"), 200).await;
        assert_eq!(event.bytes, br#"{"order": 1001}"#);
        for (name, value) in [
            ("content-type", "application/json"),
            ("event-seq", "1"),
            ("event-subject", "orders.eu.created"),
            ("event-id", "o-1001"),
            ("event-header-trace", "t1"),
        ] {
            assert_eq!(event.header(name), value, "{name}");
        }
        assert_eq!(first.json["time"], event.header("event-time"));
    }
}

#[tokio::test]
async fn an_expectation_is_kept_or_told() {
    let publish = |expected: &str| post("/v1/streams/expected/events").header("Expected-Last-Seq", expected).body("x");
    expect(publish("0"), 201).await;
    let failed = expect(publish("0"), 412).await;
    assert_eq!((&failed.json["code"], &failed.json["last_seq"]), (&json!("expectation-failed"), &json!(1)));
    expect(publish("1"), 201).await;
}

#[tokio::test]
async fn batches_are_taken_whole() {
    let batch = json!({"events": [
        {"subject": "a.b", "id": "1", "headers": {"Trace": "t"}, "data": {"x": 1}},
        {"content_type": "text/plain", "data": "text"},
        {"data_base64": "AAEC/w=="},
    ]});
    let taken = expect(post("/v1/streams/batched/batch").json(&batch), 201).await;
    assert_eq!(taken.json, json!({"stream": "batched", "first_seq": 1, "last_seq": 3, "count": 3, "duplicates": 0}));
    let lines = "{\"id\":\"1\",\"data\":1}\n\n{\"data\":[1, 2]}\n";
    let more = expect(post("/v1/streams/batched/batch").header("Content-Type", "application/x-ndjson").body(lines), 201).await;
    assert_eq!((&more.json["first_seq"], &more.json["count"], &more.json["duplicates"]), (&json!(4), &json!(1), &json!(1)));
    let page = expect(get("/v1/streams/batched/events"), 200).await;
    let events = page.json["events"].as_array().unwrap();
    assert_eq!(events[0]["data"], json!({"x": 1}));
    assert_eq!((&events[0]["subject"], &events[0]["id"], &events[0]["headers"]), (&json!("a.b"), &json!("1"), &json!({"trace": "t"})));
    assert_eq!((&events[1]["data"], &events[1]["content_type"]), (&json!("text"), &json!("text/plain")));
    assert_eq!(events[2]["data_base64"], "AAEC/w==");
    assert_eq!(expect(get("/v1/streams/batched/events/4"), 200).await.bytes, b"[1, 2]");
    let all_known = expect(post("/v1/streams/batched/batch").json(&json!({"events": [{"id": "1", "data": 1}]})), 200).await;
    assert_eq!((&all_known.json["count"], &all_known.json["duplicates"], &all_known.json["first_seq"]), (&json!(0), &json!(1), &json!(1)));
}

/// The binary mode percent-encodes its headers; an attribute is the same whichever mode it came in, and its id too.
#[tokio::test]
async fn a_cloud_event_is_the_same_in_every_mode() {
    let path = "/v1/streams/cloud-modes/events";
    let binary = post(path)
        .header("Content-Type", "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-id", "b%201")
        .header("ce-source", "/shop")
        .header("ce-type", "orders.created")
        .header("ce-subject", "Fu%C3%9Fball%2050%2541")
        .body(r#"{"order":1}"#);
    expect(binary, 201).await;
    let event = json!({"specversion": "1.0", "id": "b 1", "source": "/shop", "type": "orders.created", "subject": "Fußball 50%41", "datacontenttype": "application/json", "data": {"order": 1}});
    let structured = post(path).header("Content-Type", "application/cloudevents+json").body(event.to_string());
    assert_eq!(expect(structured, 200).await.json["seq"], 1);
    let own = expect(get("/v1/streams/cloud-modes/events/1"), 200).await;
    assert_eq!((own.header("ce-id"), own.header("ce-subject")), ("b%201", "Fu%C3%9Fball%2050%2541"));
    let read = expect(get("/v1/streams/cloud-modes/events/1").header("Accept", "application/cloudevents+json"), 200).await;
    assert_eq!((read.header("content-type"), &read.json), ("application/cloudevents+json", &event));
    assert_ne!(read.header("etag"), own.header("etag"));
    expect(post(path).header("Content-Type", "text/plain").body("hello"), 201).await;
    let batch =
        expect(get("/v1/streams/cloud-modes/events?limit=1&subject=%3E").header("Accept", "application/cloudevents-batch+json"), 200).await;
    assert_eq!(batch.json, json!([event]));
    assert_eq!(batch.header("link"), "</v1/streams/cloud-modes/events?from=2&limit=1&subject=%3E>; rel=\"next\"");
    let batch = expect(get("/v1/streams/cloud-modes/events?from=2").header("Accept", "application/cloudevents-batch+json"), 200).await;
    assert_eq!(
        (&batch.json[0]["id"], &batch.json[0]["source"], &batch.json[0]["type"], &batch.json[0]["data"]),
        (&json!("2"), &json!("/v1/streams/cloud-modes"), &json!("event"), &json!("hello"))
    );
}

/// A publisher that names no content type gets none back, and data that is JSON stays JSON.
#[tokio::test]
async fn a_cloud_event_without_a_content_type_stays_one() {
    let path = "/v1/streams/cloud-plain/events";
    let binary = post(path).header("ce-specversion", "1.0").header("ce-id", "1").header("ce-source", "/shop").header("ce-type", "a");
    expect(binary.body(r#"{"order":1}"#), 201).await;
    let own = expect(get("/v1/streams/cloud-plain/events/1"), 200).await;
    assert_eq!((own.header("content-type"), &own.bytes[..]), ("", &br#"{"order":1}"#[..]));
    let read = expect(get("/v1/streams/cloud-plain/events/1").header("Accept", "application/cloudevents+json"), 200).await;
    assert_eq!(read.json, json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "a", "data": {"order": 1}}));
}

#[tokio::test]
async fn cloud_events_come_in_three_modes_and_go_out_in_binary() {
    let path = "/v1/streams/cloud/events";
    let binary = post(path)
        .header("Content-Type", "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-id", "b1")
        .header("ce-source", "/shop")
        .header("ce-type", "orders.created")
        .header("ce-traceparent", "00-1")
        .body(r#"{"order":1}"#);
    expect(binary, 201).await;
    let structured = r#"{"specversion":"1.0","id":"s1","source":"/shop","type":"orders.created","data":{"order":2}}"#;
    expect(post(path).header("Content-Type", "application/cloudevents+json; charset=utf-8").body(structured), 201).await;
    let batch = format!("[{}, {structured}]", structured.replace("s1", "s2"));
    let answer = expect(post(path).header("Content-Type", "application/cloudevents-batch+json").body(batch), 201).await;
    assert_eq!((&answer.json["count"], &answer.json["duplicates"]), (&json!(1), &json!(1)));
    let first = expect(get("/v1/streams/cloud/events/1"), 200).await;
    for (name, value) in [
        ("ce-id", "b1"),
        ("ce-type", "orders.created"),
        ("ce-traceparent", "00-1"),
        ("event-subject", "orders.created"),
        ("event-id", "b1"),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    let second = expect(get("/v1/streams/cloud/events/2"), 200).await;
    assert_eq!(
        (second.header("ce-id"), second.header("content-type"), &second.bytes[..]),
        ("s1", "application/json", &br#"{"order":2}"#[..])
    );
    assert_eq!(expect(get("/v1/streams/cloud/events/3"), 200).await.header("ce-id"), "s2");
}
