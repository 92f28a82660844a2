//! Leaf certificates, minted when a tunnel needs one and kept for the next.
//!
//! A leaf is for the host of the CONNECT, whatever the ClientHello says; that its server name is the same host is
//! checked before. All configurations share one ticket key, so that sessions resume for every host; rustls binds
//! a ticket to the server name it was given under.
//!
//! The authority may be replaced while leaves are minted: it and the leaves it signed are one value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use policy::target::Host;
use prometheus::IntCounter;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, sign};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use time::OffsetDateTime;

use super::ca::{Authority, AuthorityError, BACK_DATED, Certificate, serial};
use super::{PROTOCOLS, protocols, provider};

/// From the first to the last moment of a leaf.
const VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// A leaf that ends sooner than this is replaced, so that no connection outlives its certificate by much.
const RENEWED_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Longest common name (RFC 5280, appendix A.1, `ub-common-name`).
const COMMON_NAME_LIMIT: usize = 64;

/// Why there is no certificate for a host.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no certificate for `{host}` could be made: {problem}")]
pub struct MintError {
    /// The host.
    pub host: Host,
    /// What went wrong.
    pub problem: Arc<str>,
}

/// Makes leaf certificates and keeps the most recently used.
pub struct Mint {
    current: ArcSwap<Signed>,
    limit: usize,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    base: ServerConfig,
    minted: IntCounter,
}

/// An authority and what it has signed.
struct Signed {
    authority: Authority,
    leaves: Cache<Host, Leaf>,
}

impl Signed {
    fn nothing_by(authority: Authority, limit: usize) -> Signed {
        let leaves =
            Cache::builder().max_capacity(limit as u64).eviction_policy(EvictionPolicy::lru()).build();
        Signed { authority, leaves }
    }
}

#[derive(Clone)]
struct Leaf {
    certified: Arc<CertifiedKey>,
    valid_from: SystemTime,
    renew_at: SystemTime,
}

impl Leaf {
    fn is_fresh(&self, now: SystemTime) -> bool {
        // A clock that was set back makes a leaf that is not valid yet.
        (self.valid_from..self.renew_at).contains(&now)
    }
}

impl Mint {
    /// A mint that keeps up to `limit` leaves, and counts those it makes.
    ///
    /// # Errors
    /// Where the key of the leaves, which is made anew for each process and is never the authority's, cannot be.
    pub fn new(authority: Authority, limit: usize, minted: IntCounter) -> Result<Mint, AuthorityError> {
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let signer = sign::any_ecdsa_type(&der)?;
        let current = ArcSwap::from_pointee(Signed::nothing_by(authority, limit));
        Ok(Mint { current, limit, key, signer, base: base_config()?, minted })
    }

    /// The certificate of the authority that signs.
    pub fn certificate(&self) -> Certificate {
        self.current.load().authority.certificate().clone()
    }

    /// Lets another authority sign from here on. What the one before has signed is forgotten; connections that were
    /// opened with it go on.
    pub fn replace(&self, authority: Authority) {
        self.current.store(Arc::new(Signed::nothing_by(authority, self.limit)));
    }

    /// What a client that asked for `host` is met with: its leaf, HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// Where no leaf can be made. The tunnel must then be closed, never relayed.
    pub fn config_for(&self, host: &Host) -> Result<Arc<ServerConfig>, MintError> {
        let mut config = self.base.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(self.certified(host)?));
        Ok(Arc::new(config))
    }

    /// The leaf of a host with its key, minted once however many ask at the same time.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn certified(&self, host: &Host) -> Result<Arc<CertifiedKey>, MintError> {
        self.certified_at(host, SystemTime::now())
    }

    fn certified_at(&self, host: &Host, now: SystemTime) -> Result<Arc<CertifiedKey>, MintError> {
        let current = self.current.load_full();
        if let Some(leaf) = current.leaves.get(host).filter(|leaf| leaf.is_fresh(now)) {
            return Ok(leaf.certified);
        }
        let computed = current.leaves.entry_by_ref(host).and_try_compute_with(|known| match known {
            Some(known) if known.value().is_fresh(now) => Ok(Op::Nop),
            _ => self.mint(&current.authority, host, now).map(Op::Put),
        })?;
        match computed {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                Ok(entry.into_value().certified)
            }
            CompResult::StillNone(_) | CompResult::Removed(_) => {
                Err(MintError { host: host.clone(), problem: "the cache lost it".into() })
            }
        }
    }

    fn mint(&self, authority: &Authority, host: &Host, now: SystemTime) -> Result<Leaf, MintError> {
        let failed = |problem: String| MintError { host: host.clone(), problem: problem.into() };
        let valid_from = now - BACK_DATED;
        let params = params(host, valid_from).map_err(|error| failed(error.to_string()))?;
        let signed = params.signed_by(&self.key, authority.issuer());
        let certificate = signed.map_err(|error| failed(error.to_string()))?;
        self.minted.inc();
        let certified = CertifiedKey::new(vec![certificate.der().clone()], Arc::clone(&self.signer));
        Ok(Leaf {
            certified: Arc::new(certified),
            valid_from,
            renew_at: valid_from + VALIDITY - RENEWED_BEFORE,
        })
    }
}

fn base_config() -> Result<ServerConfig, AuthorityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        // Replaced for every tunnel; by itself it has no certificate for anybody.
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    config.alpn_protocols = protocols(&PROTOCOLS);
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

fn params(host: &Host, valid_from: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let text = host.as_str();
    name.push(DnType::CommonName, if text.len() <= COMMON_NAME_LIMIT { text } else { "outgate" });
    params.distinguished_name = name;
    params.subject_alt_names = vec![match host.ip() {
        Some(address) => SanType::IpAddress(address),
        None => SanType::DnsName(Ia5String::try_from(text)?),
    }];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = OffsetDateTime::from(valid_from);
    params.not_after = OffsetDateTime::from(valid_from + VALIDITY);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests;
