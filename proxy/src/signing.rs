//! The key that signs points of the audit chain: made at the first start, kept in the data folder, 0600.
//!
//! `audit.key` signs; `audit.pub` lists the public keys that were in use here, one a line, the oldest first, so that
//! what was signed before the key was lost or replaced still verifies.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use policy::anchor::{Anchor, Purpose, from_hex, statement, to_hex};
use policy::chain::Head;

use crate::clock;
use crate::folder::{self, FolderError};

/// The private key, PKCS #8.
const KEY: &str = "audit.key";
/// The public keys.
const PUBLIC: &str = "audit.pub";
/// Bytes of a public key.
const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A file that cannot be read or written, or that others may.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The private key's file holds something else.
    #[error("`{}` is not an Ed25519 key; restore it, or remove it to have a new one made", .0.display())]
    NoKey(PathBuf),
    /// A line of a file of public keys is none.
    #[error("line {line} of `{}` is not a public key of 64 hexadecimal digits", path.display())]
    NoPublicKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes for a key")]
    Randomness,
}

/// Signs points of the chain.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: Arc<str>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.public).finish()
    }
}

impl Signer {
    /// The key of a data folder; made on first use.
    ///
    /// # Errors
    /// A file that is loose, foreign or no key, a folder that cannot be written.
    pub fn open(data_dir: &Path) -> Result<Arc<Signer>, SigningError> {
        let path = data_dir.join(KEY);
        let pkcs8 = match folder::read_secret(&path)? {
            Some(bytes) => bytes,
            None => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| SigningError::Randomness)?;
                folder::write_private(&path, made.as_ref())?;
                made.as_ref().to_vec()
            }
        };
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| SigningError::NoKey(path))?;
        let public: Arc<str> = to_hex(pair.public_key().as_ref()).into();
        let mut known = public_keys(data_dir)?;
        if !known.contains(&public) {
            known.push(Arc::clone(&public));
            let text: String = known.iter().map(|key| format!("{key}\n")).collect();
            folder::write_private(&data_dir.join(PUBLIC), text.as_bytes())?;
        }
        Ok(Arc::new(Signer { pair, public }))
    }

    /// Signs that the chain has come to `head`, now.
    pub fn sign(&self, purpose: Purpose, head: Head) -> Anchor {
        let time = clock::now();
        let signature = self.pair.sign(statement(purpose, head, time).as_bytes());
        Anchor {
            hash: head.hash.to_string().into(),
            key: Arc::clone(&self.public),
            signature: to_hex(signature.as_ref()).into(),
            through: head.seq,
            time,
        }
    }
}

/// The public keys that were in use in a data folder, the oldest first; none where nothing was signed yet.
///
/// # Errors
/// A file that cannot be read or is no list of keys.
pub fn public_keys(data_dir: &Path) -> Result<Vec<Arc<str>>, SigningError> {
    let path = data_dir.join(PUBLIC);
    if path.exists() { read_public_keys(&path) } else { Ok(Vec::new()) }
}

/// A file of public keys, one a line.
///
/// # Errors
/// A file that cannot be read or is no list of keys.
pub fn read_public_keys(path: &Path) -> Result<Vec<Arc<str>>, SigningError> {
    let text = std::fs::read_to_string(path).map_err(FolderError::io(path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let key = |(number, line): (usize, &str)| {
        public_key(line.trim())
            .ok_or_else(|| SigningError::NoPublicKey { path: path.to_owned(), line: number + 1 })
    };
    lines.map(key).collect()
}

/// A public key from 64 hexadecimal digits.
pub fn public_key(text: &str) -> Option<Arc<str>> {
    let bytes = from_hex(text).filter(|bytes| bytes.len() == KEY_BYTES)?;
    Some(to_hex(&bytes).into())
}

/// Whether `signature` is that of `key` over `message`.
pub fn check(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use policy::anchor::Disbelief;
    use policy::chain::Hash;

    use super::*;

    #[test]
    fn a_key_is_made_once_kept_private_and_known_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let head = Head { seq: 7, hash: Hash::ZERO.link(b"x") };
        let first = Signer::open(folder.path()).unwrap();
        let anchor = first.sign(Purpose::Checkpoint, head);
        assert_eq!(Signer::open(folder.path()).unwrap().public, first.public);
        for name in [KEY, PUBLIC] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        std::fs::remove_file(folder.path().join(KEY)).unwrap();
        let second = Signer::open(folder.path()).unwrap();
        let keys = public_keys(folder.path()).unwrap();
        assert_eq!(keys, [first.public.clone(), second.public.clone()]);
        assert_eq!(anchor.check(Purpose::Checkpoint, &keys, &check), Ok(head));
        assert_eq!(anchor.check(Purpose::Checkpoint, &keys[1..], &check), Err(Disbelief::ForeignKey));
        assert_eq!(anchor.check(Purpose::Pruned, &keys, &check), Err(Disbelief::BadSignature));
        let later = Anchor { through: 8, ..anchor };
        assert_eq!(later.check(Purpose::Checkpoint, &keys, &check), Err(Disbelief::BadSignature));
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        folder::write_private(&folder.path().join(KEY), b"no key").unwrap();
        let error = Signer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("audit.key` is not an Ed25519 key; restore it"), "{error}");
        std::fs::write(folder.path().join(PUBLIC), format!("{}\n\nxyz\n", "ab".repeat(32))).unwrap();
        let error = public_keys(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("line 3 of") && error.contains("64 hexadecimal digits"), "{error}");
    }
}
