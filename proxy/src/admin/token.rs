//! The admin token: made at first start, kept in `admin.token`, compared in constant time.

use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::folder::{self, FolderError};
use crate::token::{self, NoRandom};

const FILE: &str = "admin.token";
/// Shortest token taken from a file that somebody else wrote.
const SHORTEST: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file lies open, or cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file holds something too short to be a secret.
    #[error("`{0}` holds no token of at least {SHORTEST} characters; delete it, and a new one is made")]
    Weak(String),
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// What opens the admin listener. Only its digest is kept, so that it cannot be printed.
pub struct AdminToken {
    digest: [u8; 32],
}

impl AdminToken {
    /// The token of a data folder, made where there is none.
    ///
    /// # Errors
    /// A file that others may read, or that holds no secret.
    pub fn open(data_dir: &Path) -> Result<AdminToken, TokenError> {
        let path = data_dir.join(FILE);
        if let Some(bytes) = folder::read_secret(&path)? {
            let token = bytes.trim_ascii();
            if token.len() < SHORTEST {
                return Err(TokenError::Weak(path.display().to_string()));
            }
            return Ok(AdminToken::of(token));
        }
        let token = token::fresh()?;
        folder::write_private(&path, format!("{token}\n").as_bytes())?;
        Ok(AdminToken::of(token.as_bytes()))
    }

    pub(super) fn of(token: &[u8]) -> AdminToken {
        AdminToken { digest: Sha256::digest(token).into() }
    }

    /// Whether the headers carry `Authorization: Bearer` with this token, once.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked("bearer ".len()) else { return false };
        self.is(token.trim_ascii()) && scheme.eq_ignore_ascii_case(b"bearer ")
    }

    /// Whether this is the token.
    pub(super) fn is(&self, token: &[u8]) -> bool {
        // Digests are compared, so that not even the length of the token takes part in the time.
        let presented: [u8; 32] = Sha256::digest(token).into();
        aws_lc_rs::constant_time::verify_slices_are_equal(&presented, &self.digest).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn bearer(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let made = AdminToken::open(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.trim().len() >= 43);
        assert_eq!(AdminToken::open(folder.path()).unwrap().digest, made.digest);
        assert!(made.is_in(&bearer(&[&format!("Bearer {}", text.trim())])));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            AdminToken::open(folder.path()),
            Err(TokenError::Folder(FolderError::Readable { .. }))
        ));
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "\n", "secret", "0123456789012345678901234567890\n"] {
            folder::write_private(&folder.path().join(FILE), text.as_bytes()).unwrap();
            assert!(matches!(AdminToken::open(folder.path()), Err(TokenError::Weak(_))), "{text:?}");
        }
    }

    #[test]
    fn only_the_token_itself_presented_once_opens() {
        let token = AdminToken::of(b"right-right-right-right-right-right");
        for (values, opens) in [
            (&["Bearer right-right-right-right-right-right"][..], true),
            (&["bearer right-right-right-right-right-right"], true),
            (&["Bearer right-right-right-right-right-righ"], false),
            (&["Bearer right-right-right-right-right-rightt"], false),
            (&["Basic right-right-right-right-right-right"], false),
            (&["Bearer "], false),
            (&["Bearer"], false),
            (&[""], false),
            (&[], false),
            (&["Bearer right-right-right-right-right-right", "Bearer x"], false),
        ] {
            assert_eq!(token.is_in(&bearer(values)), opens, "{values:?}");
        }
    }
}
