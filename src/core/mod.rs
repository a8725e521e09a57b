//! What is true: names, limits, events, settings, commands, and the machines that fold commands into state.
//!
//! This room takes values and returns values. It has no async, no IO, no clock, no randomness and no logging: whoever
//! proposes a command stamps the time and the ids into it, and applying only folds. It may touch no other room.

pub mod batch;
pub mod catalog;
pub mod codec;
pub mod command;
pub mod event;
pub mod filter;
#[cfg(test)]
pub(crate) mod golden;
pub mod limits;
pub mod machine;
pub mod name;
pub mod pack;
pub mod placement;
pub mod settings;
pub mod text;

pub use event::{Event, NewEvent, Time};
pub use filter::SubjectFilter;
pub use name::{Invalid, NodeName, StreamName};
pub use settings::{Discard, Settings, SettingsPatch};
pub use text::Text;
