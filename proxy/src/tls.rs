//! Certificates: the authority of this installation, the leaves it signs, and whom we trust upstream.
//!
//! aws-lc-rs is the one provider of cryptography, named wherever a configuration is built.

pub mod ca;
pub mod mint;
pub mod upstream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use ca::{Authority, AuthorityError, Certificate};
pub use mint::{Mint, MintError};
pub use upstream::{UpstreamTls, UpstreamTlsError, trusted_roots};

/// The application protocols spoken on both sides, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The cryptography of every connection.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes aws-lc-rs the provider of libraries that ask for the process's default. Later calls change nothing.
pub fn install_provider() {
    // An error only says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn protocols(names: &[&[u8]]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.to_vec()).collect()
}
