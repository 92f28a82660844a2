//! What one agent can use up is bounded, and the others do not notice: each test attacks from one agent while another
//! goes on with its work.
//!
//! Held elsewhere: a body larger than memory by `big`, running out of descriptors by `evasion::exhaustion`, a store that
//! is full or locked by `durability`.

mod arena;
mod connections;
mod http2;
mod messages;

use arena::Arena;

const MIB: u64 = 1 << 20;
