//! Outgate's IO: the gateway that serves, and the commands people use it with.
//!
//! The path of a request, in order: [`accept`], [`connection`], [`identify`], [`tunnel`] (or [`passthrough`]),
//! [`head`], [`exchange`], [`inspect`], [`entry`], [`body`] and [`websocket`], [`forward`], [`dial`], [`reply`].

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "unit tests are their own clients, servers and shells")
)]

pub mod accept;
pub mod admin;
pub mod agents;
pub mod alert;
pub mod alive;
pub mod answering;
pub mod asked;
pub mod audit;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod control;
pub mod dial;
pub mod entry;
pub mod evidence;
pub mod exchange;
pub mod export;
pub mod fence;
pub mod folder;
pub mod forward;
pub mod gateway;
pub mod head;
pub mod hold;
pub mod identify;
pub mod inspect;
pub mod logging;
pub mod metrics;
pub mod pace;
pub mod passthrough;
pub mod patience;
pub mod policies;
pub mod presence;
pub mod reading;
pub mod remembered;
pub mod reply;
mod report;
pub mod resolve;
pub mod rewind;
pub mod rotation;
pub mod running;
pub mod serve;
mod shown;
pub mod signing;
pub mod slots;
pub mod store;
pub mod strangers;
pub mod streams;
pub mod tls;
pub mod token;
pub mod tunnel;
pub mod upkeep;
pub mod webhook;
pub mod websocket;
