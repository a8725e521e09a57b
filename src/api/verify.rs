//! Comparing a stream's replicas with each other.

use super::{
    body::{self, answer},
    error::Result,
    extract::{Ready, Stream},
    openapi::{StreamPath, VerifyProblems},
    query::Query,
    state::App,
};
use crate::{node, wire};
use axum::{body::Body, extract::State, http::HeaderMap};

/// Compare a stream's replicas
///
/// Online and cheap: every replica keeps a rolling hash of what it applied, and they are compared at the leader's newest entry. With
/// `read`, each also reads its log from disk again.
#[utoipa::path(
    post, path = "/v1/streams/{stream}/verify", operation_id = "verifyStream", tag = "streams", params(StreamPath),
    request_body(content = Option<wire::VerifyRequest>, description = "How to compare"),
    responses((status = 200, description = "What is known of each replica, whatever that is", body = wire::Verification), VerifyProblems),
)]
pub async fn verify_stream(
    State(app): State<App>,
    Stream(stream): Stream,
    query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
    body: Body,
) -> Result {
    query.end()?;
    let request = body::json(&app, &headers, body, Some(wire::VerifyRequest::default())).await?;
    let verification = node.verify(&stream, request.read).await?;
    Ok(answer(&wire::Verification {
        stream: stream.to_string(),
        at_seq: verification.at_seq,
        index: verification.index,
        hash: verification.hash.map(hex),
        leader: verification.leader.to_string(),
        replicas: verification.replicas.into_iter().map(shape).collect(),
    }))
}

fn shape(replica: node::ReplicaCheck) -> wire::ReplicaCheck {
    wire::ReplicaCheck {
        node: replica.node.to_string(),
        leader: replica.leader,
        result: match replica.result {
            node::Agreement::Identical => wire::Agreement::Identical,
            node::Agreement::Behind => wire::Agreement::Behind,
            node::Agreement::Different => wire::Agreement::Different,
            node::Agreement::Unreachable => wire::Agreement::Unreachable,
            node::Agreement::Unknown => wire::Agreement::Unknown,
        },
        behind: replica.behind,
        hash: replica.hash.map(hex),
        same_through: replica.differs.and_then(|(same, _)| same),
        differs_from: replica.differs.map(|(_, different)| different),
        detail: replica.detail,
        read: replica.reread.map(|read| wire::Reread {
            ok: read.damage.is_none() && read.stopped.is_none(),
            rows: read.rows,
            bytes: read.bytes,
            damage: read.damage,
            stopped: read.stopped,
        }),
    }
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}
