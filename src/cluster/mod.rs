//! What is agreed: every stream and the catalog is a Raft group over the nodes that hold it. The only room that names openraft.
//!
//! A message's way: `mesh` (one authenticated connection a peer pair and lane) → `groups` (which group) → openraft's core →
//! `log` (the store) and `machine` (the fold of the room above, and the rolling hash of `chain`). `network` is the way out, `encoding` the bytes on it.
//! This room may touch `core` and `store`. It knows nothing of events: a command is bytes to it.

mod chain;
pub mod encoding;
mod group;
mod groups;
mod log;
mod machine;
mod members;
pub mod mesh;
mod network;
mod types;

#[cfg(test)]
mod tests;

pub use chain::Point;
pub use encoding::encode_followed_vote;
pub use group::{Checked, Commands, Ended, Failure, Group, Leadership, NotProposed, Progress, Timers};
pub use groups::{Groups, refusal};
pub use machine::{Fold, Folded};
pub use members::NotOut;
pub use network::method;
pub use types::{LeaderId, Response};
