//! What HTTP costs here by itself: an axum handler that takes a body and answers 201, on the same library and runtime as a node.

use crate::Result;
use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::post,
};
use std::net::SocketAddr;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    listen: SocketAddr,
}

pub fn run(args: &Args) -> Result {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await?;
        Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |socket| drop(socket.set_nodelay(true))), routes()).await?)
    })
}

fn routes() -> Router {
    Router::new().route("/events", post(take))
}

async fn take(body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], format!("{{\"bytes\":{}}}", body.len()))
}
