//! The environment variables by which programs find the gateway and trust its certificates.

use std::path::Path;

use policy::identity::SessionId;

/// The session a process belongs to; set by `run` alone, and read to refuse changes from inside.
pub(crate) const SESSION: &str = "OUTGATE_SESSION";

/// An agent's token, for commands that need one.
pub(crate) const TOKEN: &str = "OUTGATE_TOKEN";

/// Names of variables that name the proxy. Programs disagree about the case, and curl reads `http_proxy` only.
pub(crate) const PROXY: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Loopback only: whatever else went past the gateway would go past the policy.
const LOOPBACK: &str = "localhost,127.0.0.1,::1";

/// Variables whose certificates are trusted besides a program's own: the gateway's is enough.
const CERTIFICATE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Variables whose certificates are trusted instead of a program's own: they need the system's roots too, for
/// destinations that pass undecrypted.
const BUNDLE: [&str; 14] = [
    "SSL_CERT_FILE",
    "NIX_SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "npm_config_cafile",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "BUNDLE_SSL_CA_CERT",
    "HEX_CACERTS_PATH",
    "YARN_HTTPS_CA_FILE_PATH",
];

/// The variables, in the order in which they are printed.
///
/// `certificate` holds the gateway's CA, `bundle` the system's roots and the gateway's CA.
pub(crate) fn variables(
    proxy: &str,
    certificate: &Path,
    bundle: &Path,
    session: Option<SessionId>,
) -> Vec<(&'static str, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut all = Vec::new();
    all.extend(PROXY.map(|name| (name, proxy.to_owned())));
    all.extend(NO_PROXY.map(|name| (name, LOOPBACK.to_owned())));
    // Node's own fetch reads the variables above only when told to (since 24 and 22.21).
    all.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    all.extend(CERTIFICATE.map(|name| (name, text(certificate))));
    all.extend(BUNDLE.map(|name| (name, text(bundle))));
    all.extend(session.map(|session| (SESSION, session.to_string())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_replace_their_roots_get_the_bundle_and_the_others_our_certificate_alone() {
        let all = variables("http://127.0.0.1:4480", Path::new("/d/ca.pem"), Path::new("/d/all.pem"), None);
        let value = |name| all.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
        for (name, expected) in [
            ("http_proxy", Some("http://127.0.0.1:4480")),
            ("HTTPS_PROXY", Some("http://127.0.0.1:4480")),
            ("NO_PROXY", Some("localhost,127.0.0.1,::1")),
            ("NODE_USE_ENV_PROXY", Some("1")),
            ("NODE_EXTRA_CA_CERTS", Some("/d/ca.pem")),
            ("DENO_CERT", Some("/d/ca.pem")),
            ("SSL_CERT_FILE", Some("/d/all.pem")),
            ("GIT_SSL_CAINFO", Some("/d/all.pem")),
            ("OUTGATE_SESSION", None),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
    }
}
