//! What is agreed: every stream and the catalog is a Raft group over the nodes that hold it. The only room that names openraft.
//!
//! A message's way: `mesh` (one authenticated connection a peer pair and lane) → `groups` (which group) → openraft's core →
//! `log` (the store) and `machine` (the fold of the room above, and the rolling hash of `chain`). `network` is the way out, `encoding`
//! the bytes on it. `evidence` makes a lost peer's groups elect at once; `leadership` follows who leads, `elections` counts;
//! `reverted` is about replicas that lost what they acknowledged, `parts` about snapshots larger than a frame.
//! This room may touch `core` and `store`. It knows nothing of events: a command is bytes to it.

mod chain;
mod elections;
pub mod encoding;
mod evidence;
mod group;
mod groups;
mod leadership;
mod log;
mod machine;
mod members;
pub mod mesh;
mod network;
mod parts;
mod reverted;
mod types;

#[cfg(test)]
mod tests;

pub use chain::Point;
pub use elections::{Cause, Elected, ElectionsSeen, STAGE_BOUNDS_MS, Times};
pub use encoding::encode_followed_vote;
pub use group::{Candidacy, Checked, Commands, Ended, Failure, Group, NotProposed, Progress, Timers};
pub use groups::{Groups, refusal};
pub use leadership::{Leadership, changed_within};
pub use machine::{Fold, Folded};
pub use members::{CountedOut, NotOut};
pub use network::method;
pub use types::{LeaderId, Response};
