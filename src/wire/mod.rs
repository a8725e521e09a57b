//! The public shapes: JSON bodies, NDJSON lines, SSE data, WebSocket frames, problem codes, close codes.
//!
//! Values of `core` on one side, text on the other. May touch `core` only; knows no HTTP library, no socket and no node. What
//! a client sends is strict (an unknown field is an error); what a client reads is lenient, so that a newer node can add to it.

pub mod cluster;
pub mod event;
pub mod number;
pub mod page;
pub mod problem;
pub mod publish;
pub mod socket;
pub mod start;
pub mod stream;
pub mod time;
pub mod verify;

pub use cluster::{Cluster, Disk, Node, NodeState};
pub use event::{Event, encode_event, is_json_type};
pub use page::{Gap, Page, SseGap, encode_gap_line, encode_page};
pub use problem::{Code, Problem};
pub use publish::{BatchAnswer, BatchEvent, BatchRequest, PublishAnswer};
pub use start::Start;
pub use stream::{
    Leader, LeaderRequest, Purge, Purged, Replica, ReplicaState, Stream, StreamList, StreamSettings, StreamSettingsPatch, StreamState,
    StreamSummary,
};
pub use time::{Span, Timestamp};
pub use verify::{Agreement, ReplicaCheck, Reread, Verification, VerifyRequest};
