//! The certificate authority of the test origins: the gateway is told to trust it by `[upstream] ca_files`.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

/// What is wrong with an origin's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// It ended yesterday.
    Expired,
    /// It is for `other.test`.
    WrongName,
    /// No authority signed it.
    SelfSigned,
}

/// An authority made for one test.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestCa {
    /// A new authority with a key of its own.
    pub fn new() -> Arc<TestCa> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of the test origins");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Arc::new(TestCa { issuer })
    }

    /// Its certificate, as a file of roots.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its key, for a proxy that is to sign with it.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A resolver that signs for whatever name a client asks, with the given flaw.
    pub fn signer(self: &Arc<Self>, flaw: Flaw) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Signer { ca: self.clone(), key: KeyPair::generate().unwrap(), flaw })
    }

    fn certificate(&self, name: &str, key: &KeyPair, flaw: Flaw) -> CertificateDer<'static> {
        let name = if flaw == Flaw::WrongName { "other.test" } else { name };
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.try_into().unwrap()),
        }];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(7);
        params.not_after =
            if flaw == Flaw::Expired { now - Duration::days(1) } else { now + Duration::days(7) };
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(key),
            _ => params.signed_by(key, &*self.issuer),
        };
        certificate.unwrap().der().clone()
    }
}

struct Signer {
    ca: Arc<TestCa>,
    key: KeyPair,
    flaw: Flaw,
}

impl ResolvesServerCert for Signer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A client that dials an address sends no name; every test origin is on 127.0.0.2 unless it says so.
        let name = hello.server_name().unwrap_or("127.0.0.2");
        let certificate = self.ca.certificate(name, &self.key, self.flaw);
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Some(Arc::new(CertifiedKey::new(vec![certificate], key)))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} bytes of key)", self.key.der_bytes().len())
    }
}
