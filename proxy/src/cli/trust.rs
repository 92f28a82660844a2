//! The two certificate files that programs are pointed at.

use std::path::PathBuf;
use std::time::SystemTime;

use super::Failure;
use super::context::{folder_of, running};
use crate::config::Config;
use crate::tls::Certificate;
use crate::tls::upstream::trusted_roots;

/// Absolute paths: programs read them from wherever they are.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// The authority's certificate alone.
    pub(crate) certificate: PathBuf,
    /// The system's roots and the authority's certificate.
    pub(crate) bundle: PathBuf,
}

impl Trust {
    /// The files of a data folder: those that a running gateway has made, or made now. The bundle is written anew
    /// with each gateway, since the system's roots change.
    ///
    /// # Errors
    /// A folder or an authority that is not fit for use.
    pub(crate) fn prepare(config: &Config) -> Result<Trust, Failure> {
        let folder = folder_of(config)?;
        let (certificate, bundle) = (folder.join("ca.pem"), folder.join("bundle.pem"));
        if running(config)?.is_some() && certificate.exists() && bundle.exists() {
            return Ok(Trust { certificate, bundle });
        }
        let ours = Certificate::open(config.ca.key, &folder, SystemTime::now()).map_err(Failure::failed)?;
        let roots = trusted_roots(&config.upstream.ca_files).map_err(Failure::failed)?;
        let bundle = ours.write_bundle(&folder, &roots).map_err(Failure::failed)?;
        Ok(Trust { certificate, bundle })
    }
}
