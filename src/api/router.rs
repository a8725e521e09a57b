//! The routes and their documents in one list, and the layers around them.

use super::{cluster, console, docs, edge, event, health, openapi, problems, publish, read, socket, state::App, streams, verify};
use axum::{
    Router,
    http::{HeaderName, Method, header},
    middleware,
    routing::get,
};
use std::time::Duration;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, Any, CorsLayer},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub type Service = Router;

/// Every route that the document shows.
pub fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(streams::list_streams))
        .routes(routes!(streams::put_stream, streams::get_stream, streams::delete_stream))
        .routes(routes!(streams::purge_stream))
        .routes(routes!(streams::move_leader))
        .routes(routes!(verify::verify_stream))
        .routes(routes!(publish::publish_event, read::read_events))
        .routes(routes!(publish::publish_batch))
        .routes(routes!(event::get_event))
        .routes(routes!(cluster::get_cluster))
        .routes(routes!(cluster::drain_node))
        .routes(routes!(cluster::remove_node))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(docs::document))
        .routes(routes!(docs::async_document))
        .routes(routes!(docs::page))
        .routes(routes!(problems::list))
        .routes(routes!(problems::one))
        .routes(routes!(console::page))
        .routes(routes!(console::client))
}

/// The whole service. The WebSockets are in the AsyncAPI document: OpenAPI has no words for them.
pub fn service(app: App) -> Service {
    let (router, _) = documented().split_for_parts();
    let mut router = router
        .route("/v1/streams/{stream}/ws", get(socket::single::open))
        .route("/v1/ws", get(socket::many::open))
        .route("/docs/rapidoc-min.js", get(docs::script))
        .route("/console/{file}", get(console::file))
        .fallback(edge::route_not_found)
        .method_not_allowed_fallback(edge::method_not_allowed)
        .layer(CatchPanicLayer::custom(edge::panicked));
    if app.options.cors {
        router = router.layer(cors());
    }
    router.layer(middleware::from_fn_with_state(app.clone(), edge::edge)).with_state(app)
}

/// Any page may call, and read every header of the answer. Preflights are good for a day.
fn cors() -> CorsLayer {
    const OWN: [&str; 16] = [
        "event-seq",
        "event-time",
        "event-subject",
        "event-id",
        "etag",
        "location",
        "link",
        "event-gaps",
        "retry-after",
        "x-request-id",
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-subject",
        "ce-time",
        "ce-specversion",
    ];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(OWN.map(HeaderName::from_static).into_iter().chain([header::ALLOW]).collect::<Vec<_>>())
        .max_age(Duration::from_secs(24 * 3600))
}
