//! What the admin listener may ask of the gateway.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use policy::redact::Redactor;
use tokio::sync::oneshot;

use crate::admin;
use crate::clock;
use crate::gateway::Gateway;
use crate::running::Running;

/// How long a reload may take before whoever asked is told that it hangs.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway under control.
pub struct Control {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where it listens.
    pub running: Running,
}

impl admin::Control for Control {
    fn status(&self) -> admin::Status {
        let policy = self.gateway.policy();
        let started = self.running.started;
        admin::Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: self.running.pid,
            started: policy::view::rfc3339(started),
            uptime_seconds: u64::try_from((clock::now() - started) / 1_000_000).unwrap_or(0),
            policy: policy.rules.digest().to_string(),
            mode: policy.rules.mode().as_str(),
            listen: self.gateway.config.listen.iter().map(ToString::to_string).collect(),
            admin: self.running.admin.to_string(),
            data_dir: self.gateway.config.data_dir.display().to_string(),
        }
    }

    fn unready(&self) -> BoxFuture<'_, Vec<String>> {
        async {
            let mut reasons = Vec::new();
            if self.gateway.draining.is_cancelled() {
                reasons.push("the gateway is stopping".to_owned());
            }
            if let Err(error) = self.gateway.store.last_seq().await {
                reasons.push(error.to_string());
            }
            reasons.extend(self.gateway.recorder.counters().problem());
            reasons
        }
        .boxed()
    }

    fn policy(&self) -> serde_json::Value {
        let policy = self.gateway.policy();
        serde_json::json!({
            "digest": &**policy.rules.digest(),
            "mode": policy.rules.mode().as_str(),
            "policy": policy.rules.to_string(),
        })
    }

    fn redactor(&self) -> Redactor {
        self.gateway.policy().redactor.clone()
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), Vec<String>>> {
        async {
            let (sender, answer) = oneshot::channel();
            let unavailable = || vec!["the gateway does not answer".to_owned()];
            self.gateway.reloads.send(sender).await.map_err(|_| unavailable())?;
            match tokio::time::timeout(RELOAD_TIMEOUT, answer).await {
                Ok(Ok(reloaded)) => reloaded,
                _ => Err(unavailable()),
            }
        }
        .boxed()
    }
}
