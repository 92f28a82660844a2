//! What Outgate decides, as pure functions: no clock, socket, file or environment is read in this crate.
//!
//! In the order in which a request meets them: [`target`] (where to), [`identity`] (who), [`request`] (what is
//! asked), [`document`] and [`rule`] (the policy), [`Policy::decide`](decide::Policy::decide) → [`verdict`],
//! [`address`] (what may be dialled), [`record`] (what is kept of it), [`report`] (what that comes to), [`suggest`] and
//! [`replay`] (what policy it asks for, and what another one would have said).

pub mod address;
pub mod anchor;
pub mod approval;
pub mod catalogue;
pub mod chain;
pub mod decide;
pub mod decode;
pub mod difference;
pub mod document;
pub mod event;
pub mod export;
pub mod frame;
pub mod git;
pub mod glance;
pub mod identity;
mod json_start;
pub mod mcp;
pub mod model;
pub mod observed;
pub mod path;
pub mod record;
pub mod redact;
pub mod replay;
pub mod report;
pub mod request;
pub mod rule;
pub mod scan;
pub mod secret;
pub mod suggest;
pub mod target;
pub mod usage;
pub mod verdict;
pub mod view;

pub use decide::Policy;
