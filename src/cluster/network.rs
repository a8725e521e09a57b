//! openraft's network on the mesh: every group's messages to a peer share the connection to it, pipelined, each with a deadline.

use super::encoding;
use super::mesh::{CallError, Lane, Mesh, PendingReply};
use super::parts::Part;
use super::reverted::{Acknowledged, Reverted};
use super::types::{AppendRequest, AppendResponse, Content, LogId, Snapshot, TransferRequest, TypeConfig, Vote, VoteRequest, VoteResponse};
use crate::core::{codec::Corrupt, limits};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::FuturesOrdered};
use openraft::{
    OptionalSend,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2},
    raft::{SnapshotResponse, StreamAppendResult, TransferLeaderResponse},
};
use std::{future::Future, time::Duration};
use tokio::time::Instant;

/// What consensus asks of a peer; the numbers are part of the peer protocol.
pub mod method {
    pub const APPEND: u16 = 1;
    pub const VOTE: u16 = 2;
    pub const PRE_VOTE: u16 = 3;
    pub const SNAPSHOT: u16 = 4;
    pub const TRANSFER_LEADER: u16 = 5;
    /// What the sender says about a peer that is gone; from version 2 of the peer protocol on.
    pub const STATEMENT: u16 = 6;
    /// That the peer's log lacks what it acknowledged. An older build refuses it as unknown, and stays behind.
    pub const REVERTED: u16 = 7;
    /// A part of a snapshot that is larger than a frame. An older build refuses it as unknown, and stays behind.
    pub const SNAPSHOT_PART: u16 = 8;
    /// The last number of this page; larger ones belong to the room above.
    pub const LAST: u16 = 99;
}

/// Longest wait for the answer to an append: the follower's fsync under load is well within it, and a peer that is gone is noticed by
/// the mesh long before.
const APPEND_DEADLINE: Duration = Duration::from_secs(3);
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);
/// Append requests of one group on their way to one peer.
const PIPELINE: usize = 32;

/// Makes the network of one group.
#[derive(Clone)]
pub struct Factory {
    mesh: Mesh,
    group: u64,
    acknowledged: Acknowledged,
}

impl Factory {
    pub fn new(mesh: Mesh, group: u64) -> Factory {
        Factory { mesh, group, acknowledged: Acknowledged::default() }
    }
}

/// One group's way to one peer.
pub struct Link {
    mesh: Mesh,
    group: u64,
    target: u64,
    acknowledged: Acknowledged,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &openraft::impls::EmptyNode) -> Link {
        self.acknowledged.forget(target);
        Link { mesh: self.mesh.clone(), group: self.group, target, acknowledged: self.acknowledged.clone() }
    }
}

type RpcError = RPCError<TypeConfig>;

fn rpc_error(error: CallError) -> RpcError {
    match error {
        CallError::NotSent(_) | CallError::Refused { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        CallError::Lost | CallError::Timeout => RPCError::Network(NetworkError::new(&error)),
    }
}

fn corrupt(error: Corrupt) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl Link {
    fn send_append(&self, request: &AppendRequest) -> Result<PendingReply, RpcError> {
        let body = encoding::encode_append(self.group, request);
        self.mesh.send_call(self.target, Lane::Consensus, method::APPEND, body, Instant::now() + APPEND_DEADLINE).map_err(rpc_error)
    }

    /// The peer's answer, unless it says that the peer lacks what it acknowledged before: openraft takes that for impossible.
    fn judge(&self, response: AppendResponse, span: &Span) -> Result<AppendResponse, RpcError> {
        let matching = match &response {
            AppendResponse::Success => span.last,
            AppendResponse::PartialSuccess(upto) => *upto,
            AppendResponse::Conflict => match self.acknowledged.contradicts(self.target, &span.vote, span.prev) {
                Some(acknowledged) => return Err(self.tell_reverted(Reverted { vote: span.vote, acknowledged })),
                None => None,
            },
            AppendResponse::HigherVote(_) => None,
        };
        if let Some(upto) = matching {
            self.acknowledged.note(self.target, &span.vote, upto);
        }
        Ok(response)
    }

    fn tell_reverted(&self, reverted: Reverted) -> RpcError {
        let why = format!("node {} lacks entry {}, which it acknowledged", self.target, reverted.acknowledged.index());
        tracing::warn!(group = self.group, "{why}: it is told");
        // Whether it hears is seen at the next try.
        let deadline = Instant::now() + APPEND_DEADLINE;
        drop(self.mesh.send_call(self.target, Lane::Consensus, method::REVERTED, reverted.encode(self.group), deadline));
        RPCError::Unreachable(Unreachable::from_string(why))
    }

    /// Sends a snapshot's installation, whole or in parts; gives the answer to the whole.
    async fn send_snapshot(&self, body: Bytes) -> Result<Bytes, RpcError> {
        if body.len() <= limits::SNAPSHOT_PART_BYTES {
            return self.call(Lane::Bulk, method::SNAPSHOT, body, SNAPSHOT_DEADLINE).await;
        }
        let mut answer = Bytes::new();
        for part in Part::split(self.group, &body) {
            answer = self.call(Lane::Bulk, method::SNAPSHOT_PART, part.encode(), SNAPSHOT_DEADLINE).await?;
        }
        Ok(answer)
    }

    async fn call(&self, lane: Lane, method: u16, body: Bytes, within: Duration) -> Result<Bytes, RpcError> {
        self.mesh.call(self.target, lane, method, body, Instant::now() + within).await.map_err(rpc_error)
    }
}

/// What an append request reaches from and to, for reading its answer.
#[derive(Clone, Copy)]
struct Span {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
}

impl Span {
    fn of(request: &AppendRequest) -> Span {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        Span { vote: request.vote, prev: request.prev_log_id, last }
    }
}

/// The pipeline of one replication session.
///
/// - Requests are sent in the order of `input`; answers are given in the same order.
/// - After a failure nothing more is sent or given.
struct Pipeline<'a, S> {
    link: &'a Link,
    input: S,
    waiting: FuturesOrdered<BoxFuture<'a, Result<(AppendResponse, Span), RpcError>>>,
    /// `input` ended, or a send failed.
    closed: bool,
    /// An answer ended the session.
    failed: bool,
}

impl<'a, S: Stream<Item = AppendRequest> + Send + Unpin> Pipeline<'a, S> {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RpcError>> {
        if self.failed {
            return None;
        }
        loop {
            let can_send = !self.closed && self.waiting.len() < PIPELINE;
            tokio::select! {
                biased;
                Some(answer) = self.waiting.next(), if !self.waiting.is_empty() => return Some(self.take(answer)),
                request = self.input.next(), if can_send => match request {
                    Some(request) => self.send(request),
                    None => self.closed = true,
                },
                else => return None,
            }
        }
    }

    fn send(&mut self, request: AppendRequest) {
        let span = Span::of(&request);
        let sent = self.link.send_append(&request);
        self.closed |= sent.is_err();
        self.waiting.push_back(Box::pin(async move {
            let body = sent?.await.map_err(rpc_error)?;
            Ok((encoding::decode_append_response(body).map_err(corrupt)?, span))
        }));
    }

    fn take(&mut self, answer: Result<(AppendResponse, Span), RpcError>) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        let answer = answer.and_then(|(response, span)| Ok((self.link.judge(response, &span)?, span)));
        match answer {
            Ok((AppendResponse::Conflict, Span { prev: None, .. })) => {
                self.failed = true;
                Err(RPCError::Network(NetworkError::from_string("a conflict before the first entry")))
            }
            Ok((response, span)) => {
                let partial = matches!(&response, AppendResponse::PartialSuccess(upto) if *upto != span.last);
                let result = response.into_stream_result(span.prev, span.last);
                self.failed = result.is_err() || partial;
                Ok(result)
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Content;

    async fn append_entries(&mut self, request: AppendRequest, _option: RPCOption) -> Result<AppendResponse, RpcError> {
        let span = Span::of(&request);
        let body = self.send_append(&request)?.await.map_err(rpc_error)?;
        self.judge(encoding::decode_append_response(body).map_err(corrupt)?, &span)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline { link: self, input, waiting: FuturesOrdered::new(), closed: false, failed: false };
        let answers = futures_util::stream::unfold(pipeline, |mut pipeline| async move {
            let answer = pipeline.next().await?;
            Some((answer, pipeline))
        });
        let answers: BoxStream<'s, _> = Box::pin(answers);
        Box::pin(async move { Ok(answers) })
    }

    async fn vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        let body = encoding::encode_vote_request(self.group, &request);
        let answer = self.call(Lane::Consensus, method::VOTE, body, option.hard_ttl()).await?;
        encoding::decode_vote_response(answer).map_err(corrupt)
    }

    async fn pre_vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        let body = encoding::encode_vote_request(self.group, &request);
        let answer = self.call(Lane::Consensus, method::PRE_VOTE, body, option.hard_ttl()).await?;
        encoding::decode_vote_response(answer).map_err(corrupt)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let whole = encoding::encode_snapshot(&snapshot.meta, &snapshot.snapshot);
        let body = encoding::encode_install(self.group, &vote, &whole);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.send_snapshot(body) => {
                let answer = answer.map_err(StreamingError::from)?;
                let vote = encoding::decode_vote(answer).map_err(corrupt).map_err(StreamingError::from)?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let body = encoding::encode_transfer(self.group, &request);
        self.call(Lane::Consensus, method::TRANSFER_LEADER, body, option.hard_ttl()).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new([10, 20, 50, 100].into_iter().chain(std::iter::repeat(200)).map(Duration::from_millis)))
    }
}
