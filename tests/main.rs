//! The integration tests: the real program, between clients and servers of our own, on loopback.
//!
//! `harness` is the vocabulary (`World`, `Gate`, `Agent`, `Origin`, `Resolver`, `Canary`); every other module is
//! one family of promises.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise stops there and says where")]
#![expect(clippy::print_stderr, reason = "what a test skips or measures is told to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "the tests are the clients and servers round the gateway")]
#![allow(dead_code, unreachable_pub, reason = "the vocabulary is one crate with its users; words may rest")]

mod alerts;
mod approvals;
mod big;
mod clients;
mod commands;
mod console;
mod documentation;
mod durability;
mod evasion;
mod evidence;
mod fence;
mod fence_gate;
mod harness;
mod independent;
mod kill;
mod leaks;
mod limits;
mod operation;
mod paths;
mod report;
mod rotation;
mod scale;
mod soak;
mod streams;
mod transparency;
mod watching;
mod week_one;
