//! Streams: create, change, list, show, purge, delete, and who leads.

use crate::support::{expect, get, post, publish_all, put, request};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_stream_lives_from_put_to_delete() {
    let path = "/v1/streams/life";
    let made = expect(put(path).json(&json!({"max_age": "1h30m", "max_events": 10, "description": "a test"})), 201).await;
    assert_eq!(made.header("location"), path);
    assert_eq!(made.json["settings"]["replicas"], 3);
    assert_eq!(made.json["settings"]["max_age"], "1h30m");
    assert_eq!(made.json["settings"]["dedup_window"], "2m");
    // A field left out stays, and null takes a bound away.
    let changed = expect(put(path).json(&json!({"max_age": null})), 200).await;
    assert_eq!((&changed.json["settings"]["max_age"], &changed.json["settings"]["max_events"]), (&json!(null), &json!(10)));
    expect(put(path), 200).await;
    let shown = expect(get(path), 200).await;
    assert_eq!((&shown.json["first_seq"], &shown.json["last_seq"], &shown.json["events"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(shown.json["replicas"].as_array().unwrap().len(), 3);
    expect(request(1, Method::DELETE, path), 204).await;
    let gone = expect(get(path), 404).await;
    assert_eq!(gone.json["code"], "stream-not-found");
    assert_eq!(gone.header("content-type"), "application/problem+json");
    expect(request(1, Method::DELETE, path), 404).await;
}

#[tokio::test]
async fn streams_are_listed_page_by_page() {
    for name in ["list-a", "list-b", "list-c"] {
        expect(put(&format!("/v1/streams/{name}")), 201).await;
    }
    let first = expect(get("/v1/streams?prefix=list-&limit=2"), 200).await;
    let names = |json: &serde_json::Value| {
        json["streams"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first.json), ["list-a", "list-b"]);
    assert_eq!(first.json["next"], "list-b");
    let rest = expect(get("/v1/streams?prefix=list-&limit=2&after=list-b"), 200).await;
    assert_eq!(names(&rest.json), ["list-c"]);
    assert!(rest.json.get("next").is_none());
    // `total` counts all of them, whatever the page.
    assert_eq!((&first.json["total"], &rest.json["total"]), (&json!(3), &json!(3)));
    assert!(first.json["streams"][0].get("state").is_none());
}

#[tokio::test]
async fn a_list_tells_how_its_streams_are_when_asked() {
    publish_all("state-a", &["1", "2"]).await;
    expect(put("/v1/streams/state-b").json(&json!({"replicas": 1})), 201).await;
    for node in 0..3 {
        let list = expect(request(node, Method::GET, "/v1/streams?prefix=state-&state=true"), 200).await;
        let [a, b] = [0, 1].map(|at| &list.json["streams"][at]["state"]);
        assert_eq!((&a["last_seq"], &a["events"], a["replicas"].as_array().unwrap().len()), (&json!(2), &json!(2), 3));
        assert_eq!((&b["last_seq"], b["replicas"].as_array().unwrap().len()), (&json!(0), 1));
        let single = expect(get("/v1/streams/state-a"), 200).await;
        assert_eq!(a["leader"], single.json["leader"]);
    }
    let page = expect(get("/v1/streams?state=true&limit=1000"), 200).await;
    assert!(page.json["streams"].as_array().unwrap().len() <= 100);
    expect(get("/v1/streams?state=yes"), 400).await;
}

#[tokio::test]
async fn purges_remove_what_they_say() {
    publish_all("purged", &["1", "2", "3", "4", "5"]).await;
    let purge = |body| post("/v1/streams/purged/purge").json(&body);
    let before = expect(purge(json!({"before_seq": 3})), 200).await;
    assert_eq!((&before.json["events"], &before.json["first_seq"], &before.json["last_seq"]), (&json!(2), &json!(3), &json!(5)));
    let keep = expect(purge(json!({"keep": 1})), 200).await;
    assert_eq!((&keep.json["events"], &keep.json["first_seq"]), (&json!(2), &json!(5)));
    expect(post("/v1/streams/purged/events?subject=a.b").body("6"), 201).await;
    let subject = expect(purge(json!({"subject": "a.>"})), 200).await;
    assert_eq!(subject.json["events"], 1);
    assert_eq!(expect(get("/v1/streams/purged/events/1"), 410).await.json["first_seq"], 5);
    let page = expect(get("/v1/streams/purged/events?from=1"), 200).await;
    assert_eq!(page.json["gaps"][0], json!({"from": 1, "to": 4}));
    assert_eq!(page.json["events"][0]["seq"], 5);
}

#[tokio::test]
async fn leadership_moves_to_the_named_node() {
    expect(put("/v1/streams/led"), 201).await;
    for node in ["n1", "n2", "n3"] {
        let moved = expect(post("/v1/streams/led/leader").json(&json!({"node": node})), 200).await;
        assert_eq!(moved.json, json!({"stream": "led", "leader": node}));
    }
    assert_eq!(expect(post("/v1/streams/led/leader").json(&json!({"node": "n9"})), 404).await.json["code"], "node-not-found");
    let other = expect(post("/v1/streams/led/leader"), 200).await;
    assert_ne!(other.json["leader"], "n3");
}

#[tokio::test]
async fn replicas_are_compared() {
    expect(put("/v1/streams/compared").json(&json!({"replicas": 3})), 201).await;
    publish_all("compared", &["1", "2", "3"]).await;
    for body in [json!({}), json!({"read": true})] {
        let verified = expect(post("/v1/streams/compared/verify").json(&body), 200).await.json;
        assert_eq!((&verified["stream"], &verified["at_seq"]), (&json!("compared"), &json!(3)), "{verified}");
        let replicas = verified["replicas"].as_array().unwrap();
        assert_eq!(replicas.len(), 3);
        for replica in replicas {
            assert_eq!((&replica["result"], &replica["hash"]), (&json!("identical"), &verified["hash"]), "{replica}");
            assert_eq!(replica["read"]["ok"], if body["read"] == true { json!(true) } else { json!(null) }, "{replica}");
        }
    }
    expect(post("/v1/streams/compared/verify"), 200).await;
    assert_eq!(expect(post("/v1/streams/compared/verify").json(&json!({"reed": true})), 422).await.json["code"], "invalid-body");
    assert_eq!(expect(post("/v1/streams/none/verify"), 404).await.json["code"], "stream-not-found");
}
