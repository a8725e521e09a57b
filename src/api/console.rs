//! The console and the browser client, built into the binary: a page, and the files that it asks this node for.

use super::{
    error::{Failure, Result},
    state::App,
};
use crate::wire::Code;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::LazyLock};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PAGE: &str = include_str!("../../web/console/index.html");

/// The files under `/console/`: name, content type, content.
macro_rules! files {
    ($($name:literal $kind:ident $path:literal,)*) => {
        &[$(($name, $kind, include_bytes!(concat!("../../web/", $path)))),*]
    };
}

const FILES: &[(&str, &str, &[u8])] = files! {
    "theme.js" SCRIPT "console/theme.js",
    "base.css" STYLE "console/base.css",
    "views.css" STYLE "console/views.css",
    "app.js" SCRIPT "console/app.js",
    "view.js" SCRIPT "console/view.js",
    "format.js" SCRIPT "console/format.js",
    "api.js" SCRIPT "console/api.js",
    "cluster.js" SCRIPT "console/cluster.js",
    "metrics.js" SCRIPT "console/metrics.js",
    "overview.js" SCRIPT "console/overview.js",
    "mesh.js" SCRIPT "console/mesh.js",
    "plots.js" SCRIPT "console/plots.js",
    "streams.js" SCRIPT "console/streams.js",
    "listing.js" SCRIPT "console/listing.js",
    "spark.js" SCRIPT "console/spark.js",
    "stream.js" SCRIPT "console/stream.js",
    "tail.js" SCRIPT "console/tail.js",
    "publish.js" SCRIPT "console/publish.js",
    "actions.js" SCRIPT "console/actions.js",
    "preact.mjs" SCRIPT "vendor/preact/preact.mjs",
    "hooks.mjs" SCRIPT "vendor/preact/hooks.mjs",
    "htm.mjs" SCRIPT "vendor/htm/htm.mjs",
    "uplot.js" SCRIPT "vendor/uplot/uPlot.iife.min.js",
    "uplot.css" STYLE "vendor/uplot/uPlot.min.css",
};

struct File {
    content_type: &'static str,
    content: &'static [u8],
    etag: String,
}

impl File {
    fn new(content_type: &'static str, content: &'static [u8]) -> File {
        let sum: String = Sha256::digest(content)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        File { content_type, content, etag: format!("\"{sum}\"") }
    }

    /// A browser keeps what it has and asks whether it is still that: a node of another version may answer the next request.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let caching = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, self.etag.as_str())];
        let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|tag| tag.as_bytes() == self.etag.as_bytes());
        match known {
            true => (StatusCode::NOT_MODIFIED, caching).into_response(),
            false => (caching, [(header::CONTENT_TYPE, self.content_type)], self.content).into_response(),
        }
    }
}

static FILES_BY_NAME: LazyLock<BTreeMap<&str, File>> =
    LazyLock::new(|| FILES.iter().map(|(name, kind, content)| (*name, File::new(kind, content))).collect());
static INDEX: LazyLock<File> = LazyLock::new(|| File::new("text/html; charset=utf-8", PAGE.as_bytes()));
static CLIENT: LazyLock<File> = LazyLock::new(|| File::new(SCRIPT, include_bytes!("../../web/client/evermesh.js")));

/// Everything that the page runs and shows comes from this node; what it asks, any node of the cluster may answer. Its one inline
/// script, the import map, is named by its hash.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let map = import_map(PAGE).expect("the page has an import map");
    let sum = BASE64_STANDARD.encode(Sha256::digest(map));
    format!(
        "default-src 'none'; script-src 'self' 'sha256-{sum}'; style-src 'self'; img-src 'self' data:; connect-src *; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
});

fn import_map(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<script type=\"importmap\">")?;
    rest.split_once("</script>").map(|(map, _)| map)
}

/// The console
///
/// Shows the nodes, who leads what, and the streams with their events as they come.
#[utoipa::path(get, path = "/", operation_id = "console", tag = "operation", responses((status = 200, description = "A page for people", body = String, content_type = "text/html")))]
pub async fn page(headers: HeaderMap) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY.as_str())], INDEX.answer(&headers)).into_response()
}

/// The browser client, an ES module
///
/// Publishes and subscribes over one WebSocket, and goes on at another node when its node goes away. It needs no other file.
#[utoipa::path(get, path = "/evermesh.js", operation_id = "client", tag = "operation", responses((status = 200, description = "An ES module", body = String, content_type = "text/javascript")))]
pub async fn client(headers: HeaderMap) -> Response {
    CLIENT.answer(&headers)
}

/// One of the console's own files.
pub async fn file(State(_): State<App>, Path(name): Path<String>, headers: HeaderMap) -> Result {
    let file = FILES_BY_NAME.get(name.as_str());
    let file = file.ok_or_else(|| Failure::new(Code::RouteNotFound, format!("there is nothing at /console/{name}")))?;
    Ok(file.answer(&headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the page and its modules name is in the table.
    #[test]
    fn the_console_finds_all_of_its_files() {
        let texts = FILES.iter().filter(|(name, ..)| !name.contains("uplot")).map(|(_, _, content)| *content).chain([PAGE.as_bytes()]);
        let mut named = 0;
        for text in texts.map(|content| std::str::from_utf8(content).unwrap()) {
            for (at, prefix) in text.match_indices("\"/console/").chain(text.match_indices("from \"./")) {
                let name = text[at + prefix.len()..].split('"').next().unwrap();
                assert!(FILES_BY_NAME.contains_key(name), "{name}");
                named += 1;
            }
        }
        assert!(named > 20, "{named}");
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        assert_eq!(INDEX.answer(&headers).status(), StatusCode::OK);
        headers.insert(header::IF_NONE_MATCH, INDEX.etag.parse().unwrap());
        assert_eq!(INDEX.answer(&headers).status(), StatusCode::NOT_MODIFIED);
        assert!(POLICY.contains("'sha256-"));
    }
}
