//! Outgate's IO: the gateway that serves, and the commands people use it with.

pub mod cli;
pub mod config;
pub mod folder;
pub mod logging;
pub mod metrics;
pub mod running;
pub mod tls;
pub mod clock;
pub mod dial;
pub mod head;
pub mod reply;
pub mod resolve;
pub mod rewind;
pub mod slots;
