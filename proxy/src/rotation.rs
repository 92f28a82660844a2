//! A new certificate authority in the data folder is taken over while the gateway runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use policy::event::Happening;
use policy::redact::Redacted;

use crate::config::CaKey;
use crate::gateway::Gateway;
use crate::tls::{self, Authority};

/// Watches the certificate of the data folder.
#[derive(Default)]
pub struct Rotation {
    /// The file that was looked at last.
    seen: Option<Stamp>,
}

/// What a replaced file differs in.
type Stamp = (u64, i64, i64);

fn stamp(data_dir: &Path) -> Option<Stamp> {
    let file = fs::metadata(data_dir.join("ca.pem")).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec()))
}

impl Rotation {
    /// Takes over another authority, where the certificate's file has changed since this was last asked.
    pub async fn notice(&mut self, gateway: &Gateway, by: &'static str) {
        if stamp(&gateway.config.data_dir) != self.seen {
            self.look(gateway, by).await;
        }
    }

    /// Takes over another authority, where there is one.
    pub async fn look(&mut self, gateway: &Gateway, by: &'static str) {
        if gateway.config.ca.key == CaKey::Memory {
            return;
        }
        // Before it is read: what changes meanwhile is looked at again.
        let seen = stamp(&gateway.config.data_dir);
        match Authority::settled(&gateway.config.data_dir, SystemTime::now()) {
            Ok(Some(authority)) => {
                if let Err(error) = take_over(gateway, authority, by).await {
                    // Tried again with the next look.
                    return tracing::error!("the certificate authority is not replaced yet: {error}");
                }
            }
            // Its files were removed; what is in memory is as good as before.
            Ok(None) => {}
            Err(error) => {
                tracing::error!("the certificate authority is not replaced, the old one goes on: {error}");
            }
        }
        self.seen = seen;
    }
}

/// Records it first: a leaf of an authority that is not on record must not be seen by anybody.
async fn take_over(gateway: &Gateway, authority: Authority, by: &'static str) -> anyhow::Result<()> {
    let (before, after) = (gateway.mint.certificate(), authority.certificate());
    if before.pem() == after.pem() {
        return Ok(());
    }
    after.write_bundle(&gateway.config.data_dir, &tls::trusted_roots(&gateway.config.upstream.ca_files)?)?;
    let fingerprint = after.summary().fingerprint;
    let what = Happening::AuthorityInForce {
        fingerprint: fingerprint.as_str().into(),
        previous: Some(before.summary().fingerprint.into()),
    };
    gateway.recorder.event(what, Some(Redacted::literal(by))).await?;
    gateway.mint.replace(authority);
    tracing::info!(fingerprint, "a new certificate authority signs from here on");
    Ok(())
}
