//! What stands around the API: health, documents, pages, and what every answer has.

use crate::support::{cluster, expect, get, publish_all, request, soon};
use evermesh::api;
use futures_util::StreamExt;
use reqwest::{Client, Method};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_tungstenite::{connect_async, tungstenite::Message};

#[tokio::test]
async fn before_the_node_is_there_only_livez_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(api::serve(listener, api::Slot::default(), api::Options::default(), async { stopped.await.unwrap() }));
    let client = Client::new();
    expect(client.get(format!("{url}/livez")), 200).await;
    for path in ["/readyz", "/v1/cluster", "/v1/streams", "/metrics"] {
        let answer = expect(client.get(format!("{url}{path}")), 503).await;
        assert_eq!((answer.json["code"].as_str(), answer.header("retry-after")), (Some("starting"), "1"), "{path}");
    }
    stop.send(()).unwrap();
    soon("the server's end", serving).await.unwrap().unwrap();
    assert!(client.get(format!("{url}/livez")).send().await.is_err());
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let slot = api::Slot::default();
    slot.set(cluster().nodes[0].clone()).unwrap_or_else(|_| unreachable!("set once"));
    let serving = tokio::spawn(api::serve(listener, slot, api::Options::default(), async { stopped.await.unwrap() }));
    publish_all("goodbye", &["1"]).await;
    let (mut many, _) = connect_async(format!("ws://{address}/v1/ws")).await.unwrap();
    let (mut one, _) = connect_async(format!("ws://{address}/v1/streams/goodbye/ws")).await.unwrap();
    let sse = Client::new()
        .get(format!("http://{address}/v1/streams/goodbye/events"))
        .header("Accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    stop.send(()).unwrap();
    let mut told = false;
    let code = soon("the goodbye of the many-streams socket", async {
        loop {
            match many.next().await.unwrap().unwrap() {
                Message::Text(text) => told |= text.contains(r#"{"goaway":{"reconnect_within_ms":3000}}"#),
                Message::Close(frame) => return u16::from(frame.unwrap().code),
                _ => {}
            }
        }
    });
    assert_eq!(code.await, 1001);
    assert!(told);
    let closed = soon("the goodbye of the one-stream socket", one.next()).await.unwrap().unwrap();
    assert!(matches!(closed, Message::Close(Some(frame)) if u16::from(frame.code) == 1001));
    soon("the end of the SSE response", sse.bytes()).await.unwrap();
    // The close of a socket is an agreement of both ends.
    drop((many, one));
    soon("the server's end", serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn health_and_cluster() {
    expect(get("/readyz"), 200).await;
    let shown = expect(get("/v1/cluster"), 200).await.json;
    let names: Vec<_> = shown["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(shown["node"], "n1");
    let metrics = expect(get("/metrics"), 200).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = String::from_utf8(metrics.bytes).unwrap();
    let stages = ["route", "queue", "commit"].map(|stage| format!("publish_stage_seconds_count{{stage=\"{stage}\"}}"));
    let others = ["publish_events_total", "publish_seconds_bucket{le=\"0.0001\"}", "read_events_total"];
    for name in stages.iter().map(String::as_str).chain(others) {
        assert!(text.contains(&format!("\nevermesh_{name} ")), "{name} is not in\n{text}");
    }
}

#[tokio::test]
async fn documents_and_pages() {
    for (path, document) in [("/openapi.json", api::openapi()), ("/asyncapi.json", api::asyncapi())] {
        let served = expect(get(path), 200).await;
        assert!(served.header("content-type").starts_with("application/json"), "{path}");
        assert_eq!(String::from_utf8(served.bytes).unwrap(), document, "{path}");
    }
    for (path, kind) in [("/", "text/html"), ("/docs", "text/html"), ("/problems", "text/html"), ("/problems/no-leader", "text/html")] {
        let page = expect(get(path), 200).await;
        assert!(page.header("content-type").starts_with(kind), "{path}");
        let text = String::from_utf8(page.bytes).unwrap();
        assert!(!text.contains("https://") && !text.contains("//cdn"), "{path} needs an outside host");
    }
    for path in ["/docs/rapidoc-min.js", "/evermesh.js"] {
        assert!(expect(get(path), 200).await.header("content-type").starts_with("text/javascript"), "{path}");
    }
}

#[tokio::test]
async fn the_console_is_kept_and_asked_about() {
    let page = expect(get("/"), 200).await;
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    for path in ["/", "/console/app.js", "/console/base.css", "/evermesh.js"] {
        let file = expect(get(path), 200).await;
        let again = expect(get(path).header("If-None-Match", file.header("etag")), 304).await;
        assert!(again.bytes.is_empty() && !file.bytes.is_empty(), "{path}");
        assert_eq!(again.header("etag"), file.header("etag"));
    }
    assert_eq!(expect(get("/console/none.js"), 404).await.json["code"], "route-not-found");
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_servers_name() {
    let answer = expect(get("/livez"), 200).await;
    assert!(answer.header("server").starts_with("evermesh/"));
    assert_eq!(answer.header("x-request-id").len(), 16);
    let own = expect(get("/v1/streams/none").header("X-Request-Id", "mine-1"), 404).await;
    assert_eq!((own.header("x-request-id"), own.json["request_id"].as_str()), ("mine-1", Some("mine-1")));
    let unfit = expect(get("/livez").header("X-Request-Id", "x".repeat(200)), 200).await;
    assert_eq!(unfit.header("x-request-id").len(), 16);
}

#[tokio::test]
async fn pages_of_other_origins_may_call() {
    let preflight = request(0, Method::OPTIONS, "/v1/streams/x/events")
        .header("Origin", "http://elsewhere")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "event-id,content-type");
    let answer = expect(preflight, 200).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(answer.header("access-control-allow-headers").contains("event-id"));
    let get = expect(get("/v1/streams/none").header("Origin", "http://elsewhere"), 404).await;
    assert_eq!(get.header("access-control-allow-origin"), "*");
    assert!(get.header("access-control-expose-headers").contains("event-seq"));
}
