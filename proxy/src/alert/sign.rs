//! Signs what is sent: HMAC-SHA256 over the time and the body, so that whoever receives it can tell it from a forgery
//! and from an old message sent again.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use policy::anchor::to_hex;

use crate::folder::{self, FolderError};

/// The key in the data folder: 64 hexadecimal digits, of which the text is the key.
const FILE: &str = "alerts.key";
/// Random bytes of a key.
const BYTES: usize = 32;

/// The key of one webhook.
#[derive(Clone)]
pub struct AlertKey(hmac::Key);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file that cannot be read or written, or that others may.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes for a key")]
    Randomness,
}

impl fmt::Debug for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlertKey")
    }
}

impl AlertKey {
    /// The key that a text is.
    pub fn of(text: &str) -> AlertKey {
        AlertKey(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// The key of a data folder; made on first use.
    ///
    /// # Errors
    /// A file that is loose or cannot be read or written.
    pub fn open(data_dir: &Path) -> Result<AlertKey, KeyError> {
        let path = data_dir.join(FILE);
        if let Some(bytes) = folder::read_secret(&path)? {
            return Ok(AlertKey::of(String::from_utf8_lossy(&bytes).trim()));
        }
        let mut random = [0; BYTES];
        SystemRandom::new().fill(&mut random).map_err(|_| KeyError::Randomness)?;
        let text = to_hex(&random);
        folder::write_private(&path, format!("{text}\n").as_bytes())?;
        Ok(AlertKey::of(&text))
    }

    /// The value of `x-outgate-signature` for a body sent at a time, in seconds since the Unix epoch.
    pub(super) fn sign(&self, seconds: i64, body: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{seconds}.{body}").as_bytes());
        format!("t={seconds},v1={}", to_hex(tag.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation: `printf '%s' '1795000000.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn a_signature_is_what_other_programs_make_of_it() {
        assert_eq!(
            AlertKey::of("key").sign(1_795_000_000, "{}"),
            "t=1795000000,v1=71f6cd81e7ac967a6bfd8d621347e9ee7792b1fde3a9a64c3161a631437c7fb6"
        );
    }

    #[test]
    fn the_key_of_a_folder_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let first = AlertKey::open(folder.path()).unwrap().sign(1, "x");
        assert_eq!(AlertKey::open(folder.path()).unwrap().sign(1, "x"), first);
        let path = folder.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(AlertKey::of(text.trim()).sign(1, "x"), first, "the text of the file is the key");
    }
}
