//! The vocabulary of the integration tests.
//!
//! A `World` is an origin, a resolver, a canary that must stay untouched, and a gateway between them and an
//! `Agent`. Every wait is bounded, every port is free, every file is in a folder that goes away with its owner.

#![allow(unused_imports, reason = "the vocabulary is offered whole")]

mod agent;
mod answer;
mod authority;
mod books;
mod canary;
mod clock;
mod disk;
mod gate;
mod load;
mod namespace;
mod origin;
mod raw;
mod request;
mod resolver;
mod row;
mod script;
pub mod secrets;
mod session;
pub mod tally;
mod verifier;
mod watch;
mod websocket;
mod world;

mod checks;

pub use agent::{Agent, NO_NAME, Way};
pub use answer::Answer;
pub use authority::{Flaw, TestCa};
pub use books::Books;
pub use canary::Canary;
pub use clock::Clock;
pub use disk::FailingDisk;
pub use gate::{Gate, GateBuilder, Refusal, command, resident};
pub use load::{Load, Told};
pub use namespace::{
    ELSEWHERE, ELSEWHERE6, all_inside_a_network, inside_a_namespace, inside_a_network, is_inside_a_namespace,
};
pub use origin::{Asked, End, Origin, Reply, Seen, reply};
pub use raw::Raw;
pub use request::{Body, Request};
pub use resolver::{Reply as NameReply, Resolver};
pub use row::Row;
pub use session::{Inlets, Session, ask, hand_over, listener, question};
pub use tally::{Tally, stream};
pub use verifier::{python, verify_audit};
pub use watch::Watch;
pub use websocket::{Frame, Opcode};
pub use world::{UNAWARE, World, WorldBuilder};

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;

/// Longest wait for anything that should come at once; generous, because machines under test are busy.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `probe` again every 20 ms until it yields something, for at most `PATIENCE`.
///
/// # Panics
/// When it never does, naming `what` was waited for.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cryptography of the clients and servers of the tests.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
