//! One publish request, encoded once where it came in and carried as it is to the log; and the events in it.

use super::{codec::Corrupt, event::{Event, NewEvent, Time}};
use bytes::Bytes;

/// Who sent a request, so that it can be sent again to another leader and still be done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node that took the request from its client.
    pub node: u64,
    /// That node's boot: larger at every start.
    pub epoch: u64,
}

/// What stands before the events of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub origin: Origin,
    /// Larger with every request of this origin to this stream.
    pub counter: u64,
    /// Every counter below is settled at the origin: its outcome need not be remembered, and it must not be applied any more.
    pub floor: u64,
    /// Taken only if the stream's last seq is this.
    pub expected_last_seq: Option<u64>,
    /// Number of events.
    pub count: u32,
    /// Sum of the events' sizes, as `event_bytes` counts them.
    pub bytes: u64,
}

/// The size that a stream's `bytes` and `max_bytes` count for one event: everything of it but its seq and time.
pub fn event_bytes(event: &NewEvent) -> u64 { todo!("core") }

/// Encodes a request, version 1.
pub fn encode_request(head: &RequestHead, events: &[NewEvent]) -> Bytes { todo!("core") }

/// Decodes only what stands before the events.
pub fn decode_head(request: &Bytes) -> Result<RequestHead, Corrupt> { todo!("core") }

/// One event inside a request, before it has a seq: what applying needs, without decoding the rest.
pub struct EventHead { pub id: Option<super::Text>, pub bytes: u64 }

/// The ids and sizes of a request's events, in order.
pub fn event_heads(request: &Bytes) -> Result<Vec<EventHead>, Corrupt> { todo!("core") }

/// Decodes the events of a request, in order, without copying: the fields share the request's bytes.
pub fn decode_events(request: &Bytes) -> Result<Vec<NewEvent>, Corrupt> { todo!("core") }
