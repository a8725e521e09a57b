//! The public contract over HTTP, against three nodes.

mod bad;
mod door;
mod nodes;
mod publish;
mod read;
mod socket;
mod streams;
