//! Streams: create, change, list, show, delete, purge, and who leads.

use super::{
    body::{self, answer},
    error::{Failure, Result},
    extract::{Ready, Stream},
    openapi::{CreateProblems, LeaderProblems, ListProblems, ListQuery, PurgeProblems, StreamPath, StreamProblems},
    params,
    query::Query,
    state::App,
};
use crate::{
    core::{NodeName, limits},
    node::{self, Put},
    wire::{self, Code, LeaderRequest, StreamSettingsPatch, Timestamp},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};

/// Create or change a stream
///
/// All fields are optional, and so is the body. A field left out keeps its value, or takes its default at creation.
#[utoipa::path(
    put, path = "/v1/streams/{stream}", operation_id = "putStream", tag = "streams", params(StreamPath),
    request_body(content = Option<StreamSettingsPatch>, description = "The settings", example = json!({"replicas": 3, "max_age": "7d", "dedup_window": "2m"})),
    responses(
        (status = 201, description = "Created", body = wire::Stream, headers(("Location" = String, description = "Where the stream is"))),
        (status = 200, description = "There already: changed, or the same", body = wire::Stream),
        CreateProblems,
    ),
)]
pub async fn put_stream(
    State(app): State<App>,
    Stream(stream): Stream,
    query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
    body: Body,
) -> Result {
    query.end()?;
    let patch = body::json(&app, &headers, body, Some(StreamSettingsPatch::default())).await?;
    let (put, info) = node.put_stream(&stream, patch.into()).await?;
    let shown = answer(&shape(info));
    Ok(match put {
        Put::Created => (StatusCode::CREATED, [(header::LOCATION, format!("/v1/streams/{stream}"))], shown).into_response(),
        Put::Changed | Put::Same => shown,
    })
}

/// List streams
///
/// In order of name. `next` of one answer is `after` of the next request.
#[utoipa::path(
    get, path = "/v1/streams", operation_id = "listStreams", tag = "streams", params(ListQuery),
    responses((status = 200, description = "Streams in order of name", body = wire::StreamList), ListProblems),
)]
pub async fn list_streams(mut query: Query, Ready(node): Ready) -> Result {
    let prefix = query.take("prefix")?.unwrap_or_default();
    let after = query.take("after")?;
    let state = query.parse("state", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    let limit = query.number("limit", 1, limits::LIST_MAX as u64)?.unwrap_or(limits::PAGE_EVENTS as u64) as usize;
    let limit = if state { limit.min(limits::LIST_STATES_MAX) } else { limit };
    query.end()?;
    // One more than asked for tells whether there are more.
    let mut streams = node.list_streams(&prefix, after.as_deref(), limit + 1).await?;
    let more = streams.len() > limit;
    streams.truncate(limit);
    let next = streams.last().filter(|_| more).map(|last| last.name.to_string());
    let mut shown: Vec<_> = streams.iter().map(summary).collect();
    if state {
        let states = node.stream_states(streams.iter().map(|stream| &stream.name)).await;
        shown.iter_mut().zip(states).for_each(|(summary, info)| summary.state = info.map(state_of));
    }
    Ok(answer(&wire::StreamList { streams: shown, next, total: node.count_streams(&prefix) }))
}

/// Show a stream
///
/// Its settings and its state: first and last seq, size, leader, and each replica with how far it is behind.
#[utoipa::path(
    get, path = "/v1/streams/{stream}", operation_id = "getStream", tag = "streams", params(StreamPath),
    responses((status = 200, description = "Settings and state", body = wire::Stream), StreamProblems),
)]
pub async fn get_stream(Stream(stream): Stream, query: Query, Ready(node): Ready) -> Result {
    query.end()?;
    Ok(answer(&shape(node.stream_info(&stream).await?)))
}

/// Delete a stream and its events
///
/// All of its events are gone for good, on every replica. A stream that is made under the same name later begins at seq 1.
#[utoipa::path(
    delete, path = "/v1/streams/{stream}", operation_id = "deleteStream", tag = "streams", params(StreamPath),
    responses((status = 204, description = "Deleted"), StreamProblems),
)]
pub async fn delete_stream(Stream(stream): Stream, query: Query, Ready(node): Ready) -> Result {
    query.end()?;
    node.delete_stream(&stream).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Remove events of a stream
///
/// Those before a seq, all but the last so many, or those whose subject a filter takes. Seqs stay as they are: readers are told of the gap.
#[utoipa::path(
    post, path = "/v1/streams/{stream}/purge", operation_id = "purgeStream", tag = "streams", params(StreamPath),
    request_body(content = wire::Purge, description = "What to remove"),
    responses((status = 200, description = "What was removed", body = wire::Purged), PurgeProblems),
)]
pub async fn purge_stream(
    State(app): State<App>,
    Stream(stream): Stream,
    query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
    body: Body,
) -> Result {
    query.end()?;
    let purge = match body::json(&app, &headers, body, None).await? {
        wire::Purge { before_seq: Some(seq), keep: None, subject: None } => node::Purge::BeforeSeq(seq),
        wire::Purge { before_seq: None, keep: Some(keep), subject: None } => node::Purge::Keep(keep),
        wire::Purge { before_seq: None, keep: None, subject: Some(filter) } => node::Purge::Subject(params::subject_filter(&filter)?),
        _ => return Err(Failure::new(Code::InvalidBody, "a purge has exactly one of before_seq, keep and subject")),
    };
    let node::Purged { events, bytes, first_seq, last_seq } = node.purge(&stream, purge).await?;
    Ok(answer(&wire::Purged { events, bytes, first_seq, last_seq }))
}

/// Move a stream's leadership
///
/// Gracefully: nothing that is on its way is lost. Without `node`, to the other replica that is furthest.
#[utoipa::path(
    post, path = "/v1/streams/{stream}/leader", operation_id = "moveLeader", tag = "streams", params(StreamPath),
    request_body(content = Option<LeaderRequest>, description = "Who shall lead"),
    responses((status = 200, description = "Who leads now", body = wire::Leader), LeaderProblems),
)]
pub async fn move_leader(
    State(app): State<App>,
    Stream(stream): Stream,
    query: Query,
    headers: HeaderMap,
    Ready(node): Ready,
    body: Body,
) -> Result {
    query.end()?;
    let request = body::json(&app, &headers, body, Some(LeaderRequest::default())).await?;
    let to = request.node.map(|name| NodeName::new(&name)).transpose().map_err(|error| Failure::new(Code::InvalidName, error.0))?;
    let leader = node.move_leader(&stream, to).await?;
    Ok(answer(&wire::Leader { stream: stream.to_string(), leader: leader.to_string() }))
}

fn shape(info: node::StreamInfo) -> wire::Stream {
    let (name, created, settings) = (info.name.to_string(), Timestamp(info.created), (&info.settings).into());
    let wire::StreamState { first_seq, last_seq, events, bytes, leader, term, replicas } = state_of(info);
    wire::Stream { name, created, settings, first_seq, last_seq, events, bytes, leader, term, replicas }
}

fn state_of(info: node::StreamInfo) -> wire::StreamState {
    wire::StreamState {
        first_seq: info.first_seq,
        last_seq: info.last_seq,
        events: info.events,
        bytes: info.bytes,
        leader: info.leader.map(|leader| leader.to_string()),
        term: info.term,
        replicas: info.replicas.into_iter().map(replica).collect(),
    }
}

fn replica(replica: node::ReplicaInfo) -> wire::Replica {
    wire::Replica {
        node: replica.node.to_string(),
        leader: replica.leader,
        lag: replica.lag,
        reachable: replica.reachable,
        state: match replica.state {
            node::ReplicaState::Ok => wire::ReplicaState::Ok,
            node::ReplicaState::Behind => wire::ReplicaState::Behind,
            node::ReplicaState::Unreachable => wire::ReplicaState::Unreachable,
            node::ReplicaState::Rebuilding => wire::ReplicaState::Rebuilding,
            node::ReplicaState::Damaged => wire::ReplicaState::Damaged,
        },
        why: replica.why,
    }
}

fn summary(stream: &node::StreamSummary) -> wire::StreamSummary {
    wire::StreamSummary {
        name: stream.name.to_string(),
        created: Timestamp(stream.created),
        settings: (&stream.settings).into(),
        state: None,
        leader: stream.leader.as_ref().map(|leader| leader.to_string()),
        replicas: stream.replicas.iter().map(|node| node.to_string()).collect(),
    }
}
