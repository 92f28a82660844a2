//! The fence: a command in namespaces of its own, where the gateway is the only way out (Linux, no root needed).
//!
//! Listeners are made inside and handed to the gateway as descriptors; there is no forwarder, and a listener is the
//! session's identity. [`outside`] is `outgate run`'s part, [`inside`] becomes the command, [`plan`] says what is
//! hidden from it, and [`pass`] is how they talk.

pub mod git;
mod init;
pub mod inside;
mod mounts;
mod network;
pub mod outside;
pub mod pass;
pub mod plan;
mod probe;
mod seccomp;
mod sys;

pub use network::PROXY;
