//! How a node is reached: HTTP, SSE and WebSockets.
//!
//! A request walks [`serve`] (the connection), [`edge`] (its id, what every answer has, problems as bodies), [`router`] (routes
//! and their documents in one list), and then one handler, which only unpacks, calls a verb of `node`, and wraps what comes back.
//! May touch `node`, `wire` and `core`; the only room that names axum and tower.
//!
//! - The listener is served before the node has started: `/livez` answers then, everything else says `starting`.
//! - Whatever a client sends is bounded before it is read: connections, bodies, frames, publishes in flight.
//! - A client that does not read costs its own connection and nothing else.
//!
//! Not done here: authentication. The API is meant for loopback or a trusted network, and does not look at `Host` or `Origin`:
//! a page from anywhere that a browser on this machine shows may call it.

mod ahead;
mod asyncapi;
mod body;
mod cloudevents;
mod cluster;
mod console;
mod docs;
mod edge;
mod error;
mod event;
mod extract;
mod follow;
mod health;
mod ndjson;
mod openapi;
mod params;
mod problems;
mod publish;
mod query;
mod read;
mod router;
mod serve;
mod socket;
mod sse;
mod stall;
mod state;
mod streams;
mod verify;

pub use asyncapi::document as asyncapi;
pub use openapi::document as openapi;
pub use serve::serve;
pub use state::{Options, Slot};
