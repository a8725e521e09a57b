//! Every bound of Evermesh on one page, with the relations between them asserted at compile time.
//!
//! A bound that a user can change has its default and its ceiling here; one that cannot be changed is a plain constant.

use std::time::Duration;

/// Longest stream or node name, in bytes (API: 1–128 of `A-Z a-z 0-9 - _ .`).
pub const NAME_BYTES_MAX: usize = 128;
/// Longest subject or subject filter, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Most tokens of a subject or subject filter.
pub const SUBJECT_TOKENS_MAX: usize = 32;
/// Longest publisher's event id, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 256;
/// Longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Most user headers of one event.
pub const HEADERS_MAX: usize = 32;
/// Longest user header name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Longest user header value, in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;
/// Longest stream description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;

/// Most data bytes of one event, unless the stream's `max_event_bytes` says less.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Most events of one publish request.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Most data bytes of all the events of one publish request.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a request's body: a batch as JSON with base64 is larger than its data.
pub const BODY_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;
/// Most bytes of one encoded publish request: the data and every header at its longest would not fit; it is refused.
pub const REQUEST_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// Most encoded bytes of one Raft entry; a single request may always fill one alone.
pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most publish requests in one Raft entry.
pub const ENTRY_REQUESTS_MAX: usize = 1_024;
/// Most bytes of entries in one replication message.
pub const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of one frame between peers.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Event ids remembered by one stream for deduplication, at most; beyond it publishes with an id are refused.
pub const DEDUP_IDS_MAX: usize = 1_000_000;
/// Default deduplication window, in milliseconds (2 minutes).
pub const DEDUP_WINDOW_MS: u64 = 120_000;
/// Longest deduplication window, in milliseconds (1 day).
pub const DEDUP_WINDOW_MS_MAX: u64 = 24 * 3600 * 1000;
/// Subject purges that one stream remembers at a time.
pub const TOMBSTONES_MAX: usize = 64;

/// A stream's machine marks a place in its log every so many events …
pub const MARK_EVENTS: u64 = 64;
/// … or bytes, whichever comes first; more as the stream grows, so that there are at most `MARKS_MAX`.
pub const MARK_BYTES: u64 = 64 * 1024;
/// Most marks of one stream (32 bytes each in memory, about 10 in a checkpoint).
pub const MARKS_MAX: usize = 32_768;

/// Publish requests of one node to one stream that wait for their outcome.
pub const PENDING_REQUESTS_MAX: usize = 16_384;
/// Bytes of publish requests of one node, all streams, that wait for their outcome.
pub const PENDING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Origins (node and boot) whose outcomes one stream remembers; a node has one live boot.
pub const ORIGINS_MAX: usize = 64;

/// Default deadline of a publish, in milliseconds.
pub const PUBLISH_WAIT_MS: u64 = 10_000;
/// Longest `wait` of a read, in milliseconds.
pub const READ_WAIT_MS_MAX: u64 = 60_000;
/// Most events of one JSON page.
pub const PAGE_EVENTS_MAX: usize = 1_000;
/// Most data bytes of one JSON page or chunk read from the log.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Most events of one chunk read from the log.
pub const CHUNK_EVENTS_MAX: usize = 1_000;
/// Bytes of the log that a reader has read ahead between two steps; what is more it reads again.
pub const READ_AHEAD_BYTES_MAX: usize = CHUNK_BYTES_MAX / 2;
/// Applied events that a stream keeps in memory for readers at its tail; of the newest entry, all …
pub const TAIL_EVENTS_MAX: usize = 2_048;
/// … and their encoded bytes.
pub const TAIL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most streams of one cluster.
pub const STREAMS_MAX: usize = 10_000;
/// Most nodes of one cluster.
pub const NODES_MAX: usize = 64;
/// Most subscriptions of one WebSocket.
pub const SOCKET_SUBSCRIPTIONS_MAX: usize = 256;
/// Most publishes of one WebSocket that wait for their outcome.
pub const SOCKET_PENDING_MAX: usize = 4_096;
/// Most bytes of one WebSocket message from a client.
pub const SOCKET_MESSAGE_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Most credit that one subscription may hold, in events.
pub const CREDIT_MAX: u64 = 1_000_000_000;

// The client and the command line.

/// Servers that one client keeps in mind: those it was given and those it was told of.
pub const CLIENT_SERVERS_MAX: usize = 2 * NODES_MAX;
/// Most bytes of one answer that the client takes: a page of events whose text needs escapes, at its worst.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 8 * CHUNK_BYTES_MAX;
/// Longest log line that `evermesh dev` takes from a node; a longer one is left out.
pub const LOG_LINE_BYTES_MAX: usize = 64 * 1024;
/// Log lines of the nodes that wait for `evermesh dev` to print them.
pub const LOG_LINES_WAITING_MAX: usize = 1_024;
/// Lines read ahead by `evermesh pub`.
pub const LINES_AHEAD_MAX: usize = 2 * BATCH_EVENTS_MAX;
const _: () = assert!(CLIENT_ANSWER_BYTES_MAX > 6 * CHUNK_BYTES_MAX);

// Between peers (cluster::mesh).

/// Most bytes of one snapshot that is sent to a peer: the event ids of a stream at their most and longest fit.
pub const SNAPSHOT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of a snapshot above which it travels in parts of so many.
pub const SNAPSHOT_PART_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of snapshots that a node has received in part.
pub const SNAPSHOTS_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Most bytes of one message of the handshake, before the peer has proved that it knows the secret.
pub const HANDSHAKE_BYTES_MAX: usize = 4 * 1024;
/// Connections that may be in the handshake at a time; beyond it a new one is closed.
pub const HANDSHAKES_MAX: usize = 256;
/// Connections that peers may hold to this node; beyond it a new one is closed.
pub const PEER_CONNECTIONS_MAX: usize = 1_024;
/// Bytes that wait to be written to one connection of a peer.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Calls over one connection that may be unanswered at the caller.
pub const PEER_CALLS_MAX: usize = 16_384;
/// Work of one connection that may be unanswered at the callee, in units of `PEER_WORK_UNIT_BYTES` begun: beyond it the connection is
/// not read. So at most 16,384 calls and about 64 MiB.
pub const PEER_WORK_UNITS_MAX: usize = 16_384;
/// Bytes of one such unit.
pub const PEER_WORK_UNIT_BYTES: usize = 4 * 1024;
/// Longest refusal message between peers, in bytes.
pub const PEER_MESSAGE_BYTES_MAX: usize = 1_024;
/// Longest software version string of a peer, in bytes.
pub const PEER_VERSION_BYTES_MAX: usize = 64;
/// Groups that one statement about a lost peer names; a node that held more is the subject of several.
pub const STATEMENT_GROUPS_MAX: usize = 1_024;
/// Statements of peers that wait to be considered; a further one is lost, and said again in the next round.
pub const STATEMENTS_WAITING_MAX: usize = 1_024;
/// News of elections that wait to be logged; older ones are forgotten.
pub const ELECTIONS_WAITING_MAX: usize = 1_024;
/// Bytes of frames that one write to a peer gathers; the last frame of them may exceed it.
pub const PEER_WRITE_BYTES: usize = 1024 * 1024;
// The store.

/// Default size at which a log segment is sealed, in bytes.
pub const SEGMENT_BYTES: u64 = 128 << 20;
/// Length of the store's journal, in bytes.
pub const JOURNAL_BYTES: u64 = 2 << 20;
/// Rows in the journal after which they are put into the segment: so many cost a commit little more than one.
pub const JOURNAL_ROWS_MAX: usize = 256;
/// Default bytes of one group's newest durable entries kept in memory.
pub const GROUP_TAIL_BYTES: usize = 1 << 20;
/// Default bytes of such entries of all groups together.
pub const TAILS_BYTES: usize = 256 << 20;
/// Default number of sealed segments that are open for reading.
pub const OPEN_SEGMENTS: usize = 32;
/// Bytes of rows that the scrub of sealed segments verifies in a second, by default.
pub const SCRUB_BYTES_PER_SECOND: u64 = 16 << 20;
/// How long the scrub rests between two passes, by default.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Bytes that a merge of segments gives back, at least.
pub const MERGE_FREED_BYTES: u64 = 8 << 20;
/// Most segments that are merged into one at a time.
pub const MERGE_SEGMENTS_MAX: usize = 32;
/// Operations that wait for the store's writer, at most.
pub const QUEUED_OPS_MAX: usize = 1 << 20;
/// Payload bytes that wait for the store's writer, at most.
pub const QUEUED_BYTES_MAX: usize = 1 << 30;
/// Most rows of one commit, unless a single operation has more.
pub const COMMIT_ROWS_MAX: usize = 4_096;
/// Most payload bytes of one commit, unless a single operation has more.
pub const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Commits whose entries may still be in tails and are to be let go, oldest first.
pub const AGED_COMMITS_MAX: usize = 1 << 16;
/// Largest default reserve of free space on the disk, in bytes …
pub const DISK_RESERVE_BYTES: u64 = 512 << 20;
/// … and the smallest, except where that is a large part of the disk.
pub const DISK_FLOOR_BYTES: u64 = 32 << 20;
/// Entries of one message that even a follower without room takes: a trim is much smaller.
pub const SMALL_APPEND_BYTES: usize = 16 * 1024;
/// Segments that wait to be sealed or removed; beyond it the writer waits.
pub const KEEPER_JOBS_MAX: usize = 1_024;

// The API.

/// Connections that one node's API holds at a time; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 32_768;
/// Publish requests over HTTP that one node works on at a time; further ones are refused at once.
pub const PUBLISHES_MAX: usize = 8_192;
/// Bytes of request bodies that one node holds at a time.
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of a body over the limit that are read and dropped, so that its sender gets to read the answer.
pub const BODY_DROPPED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a request's body may take, in milliseconds.
pub const BODY_WAIT_MS: u64 = 30_000;
/// How long a connection may take to send a request's headers, idle time included, in milliseconds.
pub const HEADERS_WAIT_MS: u64 = 60_000;
/// How long a connection may take no byte that is to be written to it, in milliseconds.
pub const STALL_MS: u64 = 60_000;
/// Time between two comments on a quiet SSE response, in milliseconds.
pub const COMMENT_EVERY_MS: u64 = 15_000;
/// Time between two pings on a WebSocket, in milliseconds.
pub const PING_EVERY_MS: u64 = 20_000;
/// A WebSocket from which nothing came for so long is closed, unless it reads what waits for it, in milliseconds.
pub const SILENT_MS: u64 = 60_000;
/// Time over which a leaving node spreads the ends of its long-lived connections, in milliseconds.
pub const GOAWAY_SPREAD_MS: u64 = 3_000;
/// How long a stopping node waits for its connections to end, in milliseconds.
pub const SHUTDOWN_WAIT_MS: u64 = 8_000;
/// Default `limit` of a JSON page.
pub const PAGE_EVENTS: usize = 100;
/// Largest `limit` of a response that goes on (NDJSON, SSE).
pub const LIVE_EVENTS_MAX: u64 = 1_000_000_000;
/// Most streams of one list.
pub const LIST_MAX: usize = 1_000;
/// Most streams of one list whose leaders are asked for their state.
pub const LIST_STATES_MAX: usize = 100;
/// Most events of one WebSocket frame, and of one step of a live response.
pub const PUSH_EVENTS_MAX: usize = 256;
/// Encoded bytes after which a WebSocket frame is closed; it may go over by one event.
pub const PUSH_BYTES_MAX: usize = 128 * 1024;
/// Frames that wait for one WebSocket's writer.
pub const SOCKET_FRAMES_MAX: usize = 64;
/// Bytes that a busy connection reads at once.
pub const SOCKET_AHEAD_BYTES: usize = 16 * 1024;

const _: () = assert!(EVENT_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX <= ENTRY_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX <= APPEND_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < PENDING_BYTES_MAX);
const _: () = assert!(BATCH_EVENTS_MAX <= CHUNK_EVENTS_MAX);
const _: () = assert!(FRAME_BYTES_MAX / PEER_WORK_UNIT_BYTES < PEER_WORK_UNITS_MAX);
const _: () = assert!(DEDUP_IDS_MAX * (EVENT_ID_BYTES_MAX + 32) < SNAPSHOT_BYTES_MAX && SNAPSHOT_BYTES_MAX <= SNAPSHOTS_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < PEER_QUEUE_BYTES_MAX);
const _: () = assert!(PEER_MESSAGE_BYTES_MAX + PEER_VERSION_BYTES_MAX < HANDSHAKE_BYTES_MAX);
const _: () = assert!(NODES_MAX * 2 <= HANDSHAKES_MAX && HANDSHAKES_MAX <= PEER_CONNECTIONS_MAX);

/// Rolling hashes of the newest entries that a group keeps in memory, to be compared with other replicas' (24 bytes each).
pub const HASHES_KEPT_MAX: usize = 1_024;
/// Payload bytes applied between two checkpoints of a group's folded state; a restart replays at most about this much.
pub const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// Entries applied between two checkpoints.
pub const CHECKPOINT_ENTRIES: u64 = 100_000;
/// Payload bytes that a group which is closed in good order leaves to be folded again, without a checkpoint …
pub const REPLAY_BYTES: u64 = 1024 * 1024;
/// … and entries.
pub const REPLAY_ENTRIES: u64 = 256;
/// Changes of streams in the catalog that are followed one by one; with more a node looks at all streams.
pub const NEWS_MAX: usize = 1_024;
/// Groups that peers called, and that were not open, which wait to be opened.
pub const MISSED_GROUPS_MAX: usize = 16_384;
/// How long nothing happens to a stream before it sleeps, by default, in milliseconds …
pub const SLEEP_AFTER_MS: u64 = 30_000;
/// … while so many replicas are awake on its leader's node; with more it is shorter, in proportion …
pub const AWAKE_MAX: usize = 200;
/// … down to this.
pub const SLEEP_AFTER_LEAST_MS: u64 = 1_000;
const _: () = assert!(SLEEP_AFTER_LEAST_MS < SLEEP_AFTER_MS);
const _: () = assert!(ENTRY_BYTES_MAX <= COMMIT_BYTES_MAX);
const _: () = assert!(COMMIT_BYTES_MAX + PENDING_BYTES_MAX < QUEUED_BYTES_MAX);
const _: () = assert!(GROUP_TAIL_BYTES <= TAILS_BYTES);

const _: () = assert!(PAGE_EVENTS <= PAGE_EVENTS_MAX);
const _: () = assert!(PUSH_EVENTS_MAX <= CHUNK_EVENTS_MAX);
const _: () = assert!(PING_EVERY_MS * 2 < SILENT_MS);
const _: () = assert!(GOAWAY_SPREAD_MS < SHUTDOWN_WAIT_MS);
const _: () = assert!(BODY_BYTES_MAX < BODIES_BYTES_MAX);
