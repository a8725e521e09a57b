//! The catalogue of problems as pages for people: each problem's `type` leads here.

use super::{
    error::{Failure, Result},
    extract::path_param,
    state::App,
};
use crate::wire::{Code, problem::CATALOGUE, problem::Entry};
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
    response::{IntoResponse, Response},
};

pub struct Name(String);

impl FromRequestParts<App> for Name {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Name> {
        path_param(parts, app, "code").await.map(Name)
    }
}

/// Every problem
///
/// The codes that `code` of a problem may have, each with its status and a link to what it means.
#[utoipa::path(get, path = "/problems", operation_id = "listProblems", tag = "operation", responses((status = 200, description = "A page for people", body = String, content_type = "text/html")))]
pub async fn list() -> Response {
    let rows: String = CATALOGUE
        .iter()
        .map(|entry| format!("<tr><td><a href=\"/problems/{0}\">{0}</a><td>{1}<td>{2}\n", entry.name, entry.status, escape(entry.title)))
        .collect();
    page("Problems", &format!("<h1>Problems</h1>\n<table>\n<tr><th>code<th>status<th>title\n{rows}</table>"))
}

/// One problem
///
/// Why it happens and what to do: `type` of a problem leads here.
#[utoipa::path(
    get, path = "/problems/{code}", operation_id = "getProblem", tag = "operation",
    params(("code" = String, Path, description = "The code of a problem", example = "stream-not-found")),
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html"), super::openapi::ProblemProblems),
)]
pub async fn one(Name(name): Name) -> Result {
    let entry = Code::of_name(&name).ok_or_else(|| Failure::new(Code::ProblemNotFound, format!("there is no problem {name}")))?;
    Ok(page(entry.title, &explain(entry)))
}

fn explain(entry: &Entry) -> String {
    let again = match (entry.retryable, entry.retry_after_ms) {
        (false, _) => "Repeating the same request gives the same answer.".to_owned(),
        (true, None) => "The same request may be repeated.".to_owned(),
        (true, Some(ms)) => {
            format!("The same request may be repeated after about {ms} ms (<code>retry_after_ms</code>, <code>Retry-After</code>).")
        }
    };
    format!(
        "<h1>{}</h1>\n<p><code>{}</code>, status {}\n<p>{}\n<p>{again}\n<p><a href=\"/problems\">All problems</a>",
        escape(entry.title),
        entry.name,
        entry.status,
        escape(entry.explanation)
    )
}

fn page(title: &str, body: &str) -> Response {
    let style = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}\
        td,th{text-align:left;padding:.2rem 1.2rem .2rem 0}code{font-size:.95em}";
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{}</title>\n<style>{style}</style>\n{body}\n</html>\n",
        escape(title)
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
