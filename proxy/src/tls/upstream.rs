//! Whom we trust upstream: the system's roots and those of `[upstream] ca_files`. Verification is never off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::{PROTOCOLS, protocols, provider};
use crate::reading;

/// Sessions kept for resumption; a destination has a few.
const SESSIONS: usize = 1024;

/// Why there is no way to verify destinations.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// A file of `[upstream] ca_files` cannot be read.
    #[error("`{path}` of `upstream.ca_files`: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A file of `[upstream] ca_files` holds no certificate, or one that is none.
    #[error("`{path}` of `upstream.ca_files` {problem}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The provider refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS towards destinations, by what is offered.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// `h2` and `http/1.1`.
    pub any: Arc<ClientConfig>,
    /// `http/1.1` alone: WebSockets.
    pub http1: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Trusts the system and the certificates of `ca_files`. Where the system has no roots, as in a minimal
    /// container, Mozilla's stand in for them.
    ///
    /// # Errors
    /// A file without certificates.
    pub fn new(ca_files: &[PathBuf]) -> Result<UpstreamTls, UpstreamTlsError> {
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(system_roots());
        if usable == 0 {
            tracing::warn!("the system has no root certificates; using the built-in ones");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for path in ca_files {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|_| UpstreamTlsError::Certificates {
                    path: path.clone(),
                    problem: "has a certificate that cannot be a root",
                })?;
            }
        }
        UpstreamTls::trusting(roots)
    }

    /// Trusts exactly these roots.
    ///
    /// # Errors
    /// Where the provider refuses the configuration.
    pub fn trusting(roots: RootCertStore) -> Result<UpstreamTls, UpstreamTlsError> {
        let mut any = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        any.resumption = Resumption::in_memory_sessions(SESSIONS);
        any.alpn_protocols = protocols(&PROTOCOLS);
        let mut http1 = any.clone();
        http1.alpn_protocols = protocols(&PROTOCOLS[1..]);
        Ok(UpstreamTls { any: Arc::new(any), http1: Arc::new(http1) })
    }
}

/// The roots that clients of this machine trust without us, for `bundle.pem`: the system's and those of `ca_files`.
///
/// # Errors
/// A file without certificates.
pub fn trusted_roots(ca_files: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, UpstreamTlsError> {
    let mut roots = system_roots();
    for path in ca_files {
        roots.extend(read_certificates(path)?);
    }
    Ok(roots)
}

/// What cannot be read of the system's roots is left out: that is less trust, never more.
fn system_roots() -> Vec<CertificateDer<'static>> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::debug!(%error, "a root certificate of the system was not read");
    }
    loaded.certs
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamTlsError> {
    let read = reading::bytes(path, reading::FILE_LIMIT);
    let bytes = read.map_err(|error| UpstreamTlsError::Read { path: path.to_owned(), error })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let problem = match certificates {
        Ok(certificates) if !certificates.is_empty() => return Ok(certificates),
        Ok(_) => "holds no certificate in PEM",
        Err(_) => "holds PEM that cannot be read",
    };
    Err(UpstreamTlsError::Certificates { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_files_are_read_or_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.pem");
        let said = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            UpstreamTls::new(std::slice::from_ref(&path)).map_err(|error| error.to_string())
        };
        let name = path.display();
        assert_eq!(
            said(None).unwrap_err(),
            format!("`{name}` of `upstream.ca_files`: No such file or directory (os error 2)")
        );
        assert_eq!(
            said(Some("nothing")).unwrap_err(),
            format!("`{name}` of `upstream.ca_files` holds no certificate in PEM")
        );
        assert_eq!(
            said(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")).unwrap_err(),
            format!("`{name}` of `upstream.ca_files` has a certificate that cannot be a root")
        );
        let authority = rcgen::generate_simple_self_signed(vec!["root.test".to_owned()]).unwrap();
        let tls = said(Some(&authority.cert.pem())).unwrap();
        assert_eq!(tls.any.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
        assert_eq!(tls.http1.alpn_protocols, [b"http/1.1"]);
    }
}
