//! The settings as text, for the record of what changed: every key with its value, secrets left out.

use std::fmt::Debug;

use sha2::{Digest as _, Sha256};

use super::Config;

impl Config {
    /// Every setting of the file with its value, in the order of their keys' sections. What may hold a secret shows
    /// without it.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let Config {
            listen, admin, identity, refuse, metrics, ca, dns, upstream, limits, audit, store, ..
        } = self;
        let Config { approvals, fence, alerts, otlp, .. } = self;
        let text = |value: &dyn Debug| format!("{value:?}");
        vec![
            ("listen", text(listen)),
            ("admin", text(admin)),
            ("identity", text(identity)),
            ("refuse", text(refuse)),
            ("metrics", text(metrics)),
            ("ca.key", text(&ca.key)),
            ("dns.servers", text(&dns.servers)),
            ("dns.hosts", text(&dns.hosts)),
            ("dns.timeout", text(&dns.timeout)),
            ("upstream.ca_files", text(&upstream.ca_files)),
            ("upstream.proxy", text(&upstream.proxy)),
            ("upstream.connect_timeout", text(&upstream.connect_timeout)),
            ("upstream.response_timeout", text(&upstream.response_timeout)),
            ("upstream.idle_timeout", text(&upstream.idle_timeout)),
            ("limits.connections", text(&limits.connections)),
            ("limits.connections_per_agent", text(&limits.connections_per_agent)),
            ("limits.headers", text(&limits.headers)),
            ("limits.header_bytes", text(&limits.header_bytes)),
            ("limits.url_bytes", text(&limits.url_bytes)),
            ("limits.header_timeout", text(&limits.header_timeout)),
            ("limits.keepalive_timeout", text(&limits.keepalive_timeout)),
            ("limits.decoded_ratio", text(&limits.decoded_ratio)),
            ("limits.decoded_bytes", text(&limits.decoded_bytes)),
            ("limits.certificates", text(&limits.certificates)),
            ("audit.durability", text(&audit.durability)),
            ("audit.excerpt", text(&audit.excerpt)),
            ("audit.retention", text(&audit.retention)),
            ("audit.max_bytes", text(&audit.max_bytes)),
            ("audit.checkpoint_records", text(&audit.checkpoint_records)),
            ("audit.checkpoint_interval", text(&audit.checkpoint_interval)),
            ("audit.checkpoint_file", text(&audit.checkpoint_file)),
            ("audit.checkpoint_webhook", text(&audit.checkpoint_webhook)),
            // A URL that may hold a password: only whether there is one.
            ("store.url", text(&store.url.is_some())),
            ("approvals.timeout", text(&approvals.timeout)),
            ("approvals.answerable", text(&approvals.answerable)),
            ("fence.sockets", text(&fence.sockets)),
            ("fence.forward", text(&fence.forward)),
            ("alerts.desktop", text(&alerts.desktop)),
            ("alerts.webhook", text(&alerts.webhook)),
            ("otlp.endpoint", text(&otlp.endpoint)),
        ]
    }

    /// A digest of [`Config::values`], `sha256:…`.
    pub fn digest(&self) -> String {
        let lines: String = self.values().iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let digest: [u8; 32] = Sha256::digest(lines).into();
        format!("sha256:{}", policy::anchor::to_hex(&digest))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_key_is_shown_once() {
        let shown: Vec<&str> = Config::default().values().iter().map(|(key, _)| *key).collect();
        assert_eq!(shown, crate::config::keys().collect::<Vec<_>>());
    }

    #[test]
    fn secrets_are_not_shown_and_changes_are() {
        let text = "[upstream]\nproxy = \"http://ana:hunter2secret@proxy.example:3128\"\n\
                    [[alerts.webhook]]\nurl = \"https://hooks.example/T0KENsecret\"\nsecret = \"a-long-enough-secret\"\n";
        let config = Config::from_text(Path::new("x"), text).unwrap();
        let shown = format!("{:?}", config.values());
        assert!(!shown.contains("secret") && !shown.contains("aHVudGVy"), "{shown}");
        assert!(shown.contains("proxy.example") && shown.contains("hooks.example"), "{shown}");
        assert_ne!(config.digest(), Config::default().digest());
        assert_eq!(Config::default().digest(), Config::default().digest());
    }
}
