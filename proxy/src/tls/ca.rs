//! The certificate authority of one installation: `ca.pem` and `ca.key` in the data folder, made on first use.
//!
//! With `[ca] key = "memory"` only the certificate is written, anew at each start: no file holds the key.
//!
//! A pair that cannot be read, does not belong together, lies open or has expired stops the program. There is no
//! way on without it: a gateway that cannot read its tunnels would have to relay them unread.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::CaKey;
use crate::folder::{self, FolderError};
use crate::reading;

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const OLD_CERTIFICATE: &str = "ca.pem.old";
const BUNDLE: &str = "bundle.pem";
/// Held while the pair is made, so that two commands started at once make one.
const LOCK: &str = "ca.lock";

/// Long enough to be installed once, short enough that a forgotten one ends.
const VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// How far certificates are back-dated, for clients whose clock is behind.
pub(super) const BACK_DATED: Duration = Duration::from_secs(3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file lies open, is a link, or cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// One of the pair is missing.
    #[error(
        "`{missing}` is missing but `{present}` is there; restore it, or make a new authority: outgate ca rotate"
    )]
    Incomplete {
        /// The file that is not there.
        missing: PathBuf,
        /// The file that is.
        present: PathBuf,
    },
    /// A file is not what its name says.
    #[error("`{path}` {problem}; restore it, or make a new authority: outgate ca rotate")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key lies in the data folder, though none is to.
    #[error("`{0}` is there, though `ca.key` is `memory`; remove it, it is not used: rm {0}")]
    KeyOnDisk(PathBuf),
    /// The key is to be in memory, and no gateway has made one yet.
    #[error("`{0}` is made when the gateway starts, since `ca.key` is `memory`; start it: outgate serve")]
    NotYet(PathBuf),
    /// The certificate could not be made.
    #[error("the certificate authority could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The provider of cryptography refused a key or a configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// There are no random numbers.
    #[error("the system has no random numbers to offer")]
    Random,
}

/// The authority that signs leaf certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// The certificate of an authority: what clients have to trust.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
}

/// What `outgate ca show` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, as browsers and openssl print it.
    pub fingerprint: String,
    /// First moment of validity, RFC 3339.
    pub not_before: String,
    /// Last moment of validity, RFC 3339.
    pub not_after: String,
}

impl Authority {
    /// The authority that a gateway starts with: that of the data folder, or a new one whose key no file holds.
    ///
    /// # Errors
    /// As [`Authority::open`]; or a key that lies in the data folder, where none is to.
    pub fn start(key: CaKey, data_dir: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
        match key {
            CaKey::File => Authority::open(data_dir, now),
            CaKey::Memory => Authority::in_memory(data_dir, now),
        }
    }

    /// The authority of a data folder, made where there is none.
    ///
    /// # Errors
    /// Anything that makes the pair unfit for use, with its cure.
    pub fn open(data_dir: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
        match Authority::load(data_dir, now) {
            Ok(Some(authority)) => return Ok(authority),
            // Half a pair may be one that another process is just making.
            Ok(None) | Err(AuthorityError::Incomplete { .. }) => {}
            Err(error) => return Err(error),
        }
        let _lock = lock(data_dir)?;
        Authority::load(data_dir, now)?.map_or_else(|| Authority::make(data_dir, now), Ok)
    }

    /// The authority of a data folder, if it has one.
    ///
    /// # Errors
    /// Anything that makes the pair unfit for use, with its cure.
    pub fn load(data_dir: &Path, now: SystemTime) -> Result<Option<Authority>, AuthorityError> {
        let (certificate_path, key_path) = (data_dir.join(CERTIFICATE), data_dir.join(KEY));
        let key = folder::read_secret(&key_path)?;
        let (key, certificate) = match (key, Certificate::read(data_dir)?) {
            (None, None) => return Ok(None),
            (Some(key), Some(certificate)) => (key, certificate),
            (None, Some(_)) => {
                return Err(AuthorityError::Incomplete { missing: key_path, present: certificate_path });
            }
            (Some(_), None) => {
                return Err(AuthorityError::Incomplete { missing: certificate_path, present: key_path });
            }
        };
        folder::check_trusted(&certificate_path)?;
        let key = String::from_utf8(key).ok().and_then(|key| KeyPair::from_pem(&key).ok());
        let key = key.ok_or_else(|| unusable(&key_path, "is not a private key"))?;
        check(&certificate.der, &key, now).map_err(|problem| unusable(&certificate_path, problem))?;
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)?;
        Ok(Some(Authority { issuer, certificate }))
    }

    /// The authority of a data folder as it is once whoever is just replacing it has done so.
    ///
    /// # Errors
    /// As [`Authority::load`].
    pub fn settled(data_dir: &Path, now: SystemTime) -> Result<Option<Authority>, AuthorityError> {
        let _lock = lock(data_dir)?;
        Authority::load(data_dir, now)
    }

    /// Makes a new authority, keeping the old certificate as `ca.pem.old`. A gateway that runs takes it over.
    ///
    /// # Errors
    /// Where it cannot be made or written.
    pub fn rotate(data_dir: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
        let _lock = lock(data_dir)?;
        keep_old(data_dir)?;
        Authority::make(data_dir, now)
    }

    /// The certificate: what clients have to trust.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    fn make(data_dir: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
        let (authority, key) = Authority::generate(now)?;
        folder::write_private(&data_dir.join(KEY), key.as_bytes())?;
        folder::write_private(&data_dir.join(CERTIFICATE), authority.certificate.pem.as_bytes())?;
        Ok(authority)
    }

    fn in_memory(data_dir: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
        let _lock = lock(data_dir)?;
        let key = data_dir.join(KEY);
        // Clients may still trust the certificate it belongs to, so it must not be forgotten there.
        if key.symlink_metadata().is_ok() {
            return Err(AuthorityError::KeyOnDisk(key));
        }
        keep_old(data_dir)?;
        let (authority, _) = Authority::generate(now)?;
        folder::write_private(&data_dir.join(CERTIFICATE), authority.certificate.pem.as_bytes())?;
        Ok(authority)
    }

    /// A new authority, and its key as PEM.
    fn generate(now: SystemTime) -> Result<(Authority, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let made = params(now)?.self_signed(&key)?;
        let certificate = Certificate { der: made.der().clone(), pem: made.pem() };
        let text = key.serialize_pem();
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)?;
        Ok((Authority { issuer, certificate }, text))
    }
}

impl Certificate {
    /// The certificate that the gateway of a data folder has or will have.
    ///
    /// # Errors
    /// As [`Authority::open`]; or that it is made only when the gateway starts.
    pub fn open(key: CaKey, data_dir: &Path, now: SystemTime) -> Result<Certificate, AuthorityError> {
        match key {
            CaKey::File => Ok(Authority::open(data_dir, now)?.certificate),
            CaKey::Memory => {
                Certificate::read(data_dir)?.ok_or_else(|| AuthorityError::NotYet(data_dir.join(CERTIFICATE)))
            }
        }
    }

    fn read(data_dir: &Path) -> Result<Option<Certificate>, AuthorityError> {
        let path = data_dir.join(CERTIFICATE);
        let pem = match reading::text(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FolderError::io(&path)(error).into()),
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .ok()
            .filter(|der| X509Certificate::from_der(der).is_ok())
            .ok_or_else(|| unusable(&path, "is not a certificate"))?;
        Ok(Some(Certificate { der, pem }))
    }

    /// PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Who it is, by which fingerprint, until when.
    pub fn summary(&self) -> Summary {
        let digest = Sha256::digest(&self.der);
        let fingerprint: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        let (_, parsed) = X509Certificate::from_der(&self.der).expect("parsed when it was read or made");
        let moment = |seconds| {
            jiff::Timestamp::from_second(seconds)
                .map_or_else(|_| seconds.to_string(), |moment| moment.to_string())
        };
        Summary {
            subject: parsed.subject().to_string(),
            fingerprint: fingerprint.join(":"),
            not_before: moment(parsed.validity().not_before.timestamp()),
            not_after: moment(parsed.validity().not_after.timestamp()),
        }
    }

    /// Writes `bundle.pem`, for clients whose variable names all roots at once (`SSL_CERT_FILE`): `others` and ours.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_bundle(
        &self,
        data_dir: &Path,
        others: &[CertificateDer<'_>],
    ) -> Result<PathBuf, AuthorityError> {
        let path = data_dir.join(BUNDLE);
        let mut text = self.pem.trim_end().to_owned();
        text.push('\n');
        // The system's own bundle may be ours already, where a variable of an earlier run is still set.
        for other in others.iter().filter(|other| **other != self.der) {
            push_pem(&mut text, other);
        }
        folder::write_private(&path, text.as_bytes())?;
        Ok(path)
    }
}

fn unusable(path: &Path, problem: &'static str) -> AuthorityError {
    AuthorityError::Unusable { path: path.to_owned(), problem }
}

/// Keeps the certificate there is as `ca.pem.old`.
fn keep_old(data_dir: &Path) -> Result<(), FolderError> {
    let certificate = data_dir.join(CERTIFICATE);
    match fs::rename(&certificate, data_dir.join(OLD_CERTIFICATE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FolderError::io(&certificate)(error))
        }
        _ => Ok(()),
    }
}

fn lock(data_dir: &Path) -> Result<File, FolderError> {
    let path = data_dir.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    open.and_then(|file| file.lock().map(|()| file)).map_err(FolderError::io(&path))
}

/// Whether a certificate and a key are an authority now.
fn check(certificate: &CertificateDer<'_>, key: &KeyPair, now: SystemTime) -> Result<(), &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "is not a certificate")?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err("does not belong to `ca.key`");
    }
    if !parsed.is_ca() {
        return Err("is not the certificate of an authority");
    }
    if i128::from(parsed.validity().not_after.timestamp())
        < i128::from(OffsetDateTime::from(now).unix_timestamp())
    {
        return Err("has expired");
    }
    Ok(())
}

fn params(now: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let mut tag = [0; 4];
    aws_lc_rs::rand::fill(&mut tag).map_err(|_| AuthorityError::Random)?;
    let mut name = DistinguishedName::new();
    // Installations must be told apart in a trust store, and two of one name confuse those who look issuers up.
    name.push(DnType::CommonName, format!("Outgate CA {:08x}", u32::from_be_bytes(tag)));
    name.push(DnType::OrganizationName, "Outgate");
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(now - BACK_DATED);
    params.not_after = OffsetDateTime::from(now + VALIDITY);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits: positive, and unique without a register (RFC 5280, section 4.1.2.2).
pub(super) fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn push_pem(text: &mut String, der: &[u8]) {
    let encoded = STANDARD.encode(der);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // RFC 7468, section 2: lines of 64 characters.
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
}

#[cfg(test)]
mod tests;
