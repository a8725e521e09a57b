//! Evermesh: durable events over REST, WebSockets and SSE, on every node of a full mesh.
//!
//! The rooms, from the bottom up: [`core`] decides, [`store`] keeps, [`cluster`] agrees, [`node`] offers, `api` is reached,
//! `cli` is typed. [`wire`] holds the public shapes and `client` speaks them. `ARCHITECTURE.md` has the whole picture.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod core;
pub mod node;
pub mod store;
pub mod wire;
