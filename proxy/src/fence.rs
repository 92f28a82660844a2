//! The fence: a command in namespaces of its own, where the gateway is the only way out (Linux, no root needed).
//!
//! Listeners are made inside and handed to the gateway as descriptors; there is no forwarder, and a listener is the
//! session's identity. [`outside`] is `outgate run`'s part, [`inside`] becomes the command, [`plan`] says what is
//! hidden from it, [`gate`] is the gateway's part, and [`pass`] is how they talk.

mod environment;
pub mod gate;
pub mod git;
mod init;
mod inlets;
pub mod inside;
mod mounts;
pub mod names;
mod network;
pub mod outside;
pub mod packets;
pub mod pass;
pub mod plan;
mod probe;
mod resolver;
mod rows;
mod seccomp;
mod sockets;
mod sys;
pub mod terminal;

pub use network::PROXY;
