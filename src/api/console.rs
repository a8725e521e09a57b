//! The console page and the browser client, built into the binary.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

/// The console
#[utoipa::path(get, path = "/", operation_id = "console", tag = "operation", responses((status = 200, description = "A page for people", body = String, content_type = "text/html")))]
pub async fn page() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("../../web/console/index.html")).into_response()
}

/// The browser client, an ES module
#[utoipa::path(get, path = "/evermesh.js", operation_id = "client", tag = "operation", responses((status = 200, description = "An ES module", body = String, content_type = "text/javascript")))]
pub async fn client() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../../web/client/evermesh.js")).into_response()
}
