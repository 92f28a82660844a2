//! The fence: a command in namespaces of its own, where the gateway is the only way out (Linux, no root needed).
//!
//! Listeners are made inside and handed to the gateway as descriptors; there is no forwarder, and a listener is the
//! session's identity.

pub mod gate;
pub mod git;
mod inlets;
pub mod names;
pub mod packets;
pub mod pass;
mod resolver;
mod rows;
