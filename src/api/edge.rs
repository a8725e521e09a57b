//! What every answer has: a request id, the server's name, and a body where it is a problem.

use super::{error::Failure, state::App};
use crate::wire::{Code, Problem};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{any::Any, time::Instant};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The outermost layer.
pub async fn edge(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers())
        .unwrap_or_else(|| HeaderValue::try_from(app.next_request_id()).expect("hexadecimal digits are a header value"));
    let (method, path, began) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        log(&method, &path, &id, &problem);
        write_problem(&mut response, problem, &id);
    }
    tracing::debug!(%method, path, status = response.status().as_u16(), took_us = began.elapsed().as_micros() as u64, "request");
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(concat!("evermesh/", env!("CARGO_PKG_VERSION"))));
    response
}

/// The client's own id, if it is one that can be logged as it is.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    fits.then(|| id.clone())
}

fn log(method: &Method, path: &str, id: &HeaderValue, problem: &Problem) {
    if problem.code == Code::Internal.entry().name {
        tracing::error!(%method, path, request_id = id.to_str().unwrap_or_default(), detail = problem.detail, "a request failed");
    }
}

fn write_problem(response: &mut Response, mut problem: Problem, id: &HeaderValue) {
    problem.request_id = id.to_str().ok().map(str::to_owned);
    let body = serde_json::to_vec(&problem).expect("a problem has only fields that JSON can hold");
    // Whatever measured the empty body was wrong.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(body);
}

pub async fn route_not_found(request: Request) -> Failure {
    Failure::new(Code::RouteNotFound, format!("there is nothing at {}", request.uri().path()))
}

pub async fn method_not_allowed(request: Request) -> Failure {
    Failure::new(Code::MethodNotAllowed, format!("{} does not have the method {}", request.uri().path(), request.method()))
}

/// A handler that panicked is a fault of one request; the panic itself was logged where it happened.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    Failure::new(Code::Internal, "the request met a fault of this node").into_response()
}
