//! Outgate's IO: the gateway that serves, and the commands people use it with.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "unit tests are their own clients, servers and shells")
)]

pub mod admin;
pub mod agents;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dial;
pub mod folder;
pub mod head;
pub mod identify;
pub mod logging;
pub mod metrics;
pub mod reply;
pub mod resolve;
pub mod rewind;
pub mod running;
pub mod slots;
pub mod store;
pub mod tls;
pub mod token;
