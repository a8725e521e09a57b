//! Whether the process lives, whether it should get requests, and its metrics.

use super::{
    body::answer,
    error::{Failure, Result},
    extract::Ready,
    openapi::{ReadyProblems, StartingProblems},
    state::App,
};
use crate::{node::Readiness, wire::Code};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// How a node is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `live` or `ready`.
    #[schema(examples("ready"))]
    status: &'static str,
}

/// Whether the process lives
///
/// Answers as soon as the process listens, whatever else is wrong.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operation", responses((status = 200, description = "It does", body = Health)))]
pub async fn livez() -> Response {
    answer(&Health { status: "live" })
}

/// Whether this node should get requests
///
/// For load balancers and rolling restarts: 503 while the node starts, drains, or has no quorum for what it holds.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operation", responses((status = 200, description = "It should", body = Health), ReadyProblems))]
pub async fn readyz(State(app): State<App>) -> Result {
    let readiness = app.slot.get().map_or_else(|| Readiness::Starting("the node is not running yet".into()), |node| node.readiness());
    match readiness {
        Readiness::Ready if app.closing.is_cancelled() => Err(Failure::new(Code::Draining, "the node stops")),
        Readiness::Ready => Ok(answer(&Health { status: "ready" })),
        Readiness::Starting(why) => Err(Failure::new(Code::Starting, why)),
        Readiness::Rebuilding(why) => Err(Failure::new(Code::Rebuilding, why)),
        Readiness::Draining => Err(Failure::new(Code::Draining, "the node leaves the cluster or stops")),
        Readiness::NoQuorum(why) => Err(Failure::new(Code::NoQuorum, why)),
    }
}

/// Metrics for Prometheus
///
/// Of this node alone: a scraper asks every node.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), StartingProblems),
)]
pub async fn metrics(Ready(node): Ready) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], node.metrics_text()).into_response()
}
