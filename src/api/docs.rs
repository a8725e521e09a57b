//! The API's documents, and the page that shows the one for HTTP without any outside host.

use super::{asyncapi, openapi};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::LazyLock;

static DOCUMENT: LazyLock<String> = LazyLock::new(openapi::document);
static ASYNC_DOCUMENT: LazyLock<String> = LazyLock::new(asyncapi::document);

/// Everything that the page shows comes from this node.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src *";
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evermesh API</title>
<script type="module" src="/docs/rapidoc-min.js"></script>
<rapi-doc spec-url="/openapi.json" load-fonts="false" render-style="read" show-header="false" allow-authentication="false"
  allow-spec-file-load="false" allow-spec-url-load="false" regular-font="system-ui, sans-serif" schema-style="table"></rapi-doc>
</html>
"#;

/// The document of this API
///
/// Requests and answers over HTTP; for WebSockets and server-sent events see `/asyncapi.json`.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "operation", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json")))]
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

/// The document of the WebSockets and of server-sent events
///
/// Their channels and every message that goes over them, of the same types as this document.
#[utoipa::path(get, path = "/asyncapi.json", operation_id = "asyncapi", tag = "operation", responses((status = 200, description = "AsyncAPI 3.1", body = serde_json::Value, content_type = "application/json")))]
pub async fn async_document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], ASYNC_DOCUMENT.as_str()).into_response()
}

/// The document as a page
///
/// Shows `/openapi.json`, and needs no other host for it.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "operation", responses((status = 200, description = "A page for people", body = String, content_type = "text/html")))]
pub async fn page() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)], PAGE).into_response()
}

/// RapiDoc, which draws the page.
pub async fn script() -> Response {
    let script = include_bytes!("../../web/vendor/rapidoc/rapidoc-min.js");
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=86400")], script.as_slice())
        .into_response()
}
