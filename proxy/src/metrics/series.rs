//! Every series in one block: name, labels, help. Nothing is measured that does not stand here.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

/// Overhead is tens of microseconds where nothing is held, and a person's minutes where it is.
const OVERHEAD: &[f64] = &[
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 5.0,
];
/// Deciding takes a few microseconds, however many rules there are.
const DECIDE: &[f64] = &[1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 250e-6, 1e-3, 10e-3];
/// Resolution, connection and handshake: from the same machine to the other side of the world, and retries.
const CONNECT: &[f64] =
    &[500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0];

macro_rules! series {
    ($($field:ident: $kind:ident = $name:literal [$($label:literal),*] $(in $buckets:ident)?, $help:literal;)*) => {
        /// Every series by its name, with the names of its labels.
        pub const SERIES: &[(&str, &[&str])] = &[$(($name, &[$($label),*]),)*];

        /// The registered series.
        pub(super) struct Series { $(pub(super) $field: $kind,)* }

        impl Series {
            pub(super) fn registered(registry: &Registry) -> Result<Series> {
                let series = Series {
                    $($field: $kind::build($name, $help, &[$($label),*], &[$(Buckets($buckets))?])?,)*
                };
                $(registry.register(Box::new(series.$field.clone()))?;)*
                Ok(series)
            }
        }
    };
}

series! {
    decisions: IntCounterVec = "outgate_decisions_total" ["class", "action", "reason"],
        "Requests by the last word on them.";
    requests: IntCounterVec = "outgate_requests_total" ["class", "service"],
        "Requests by the service they were for; empty for destinations outside the catalogue.";
    agent_requests: IntCounterVec = "outgate_agent_requests_total" ["agent", "action"],
        "Requests by registered agent and the last word on them.";
    agent_uploads: IntCounterVec = "outgate_agent_upload_bytes_total" ["agent", "class"],
        "Bytes that left, by registered agent.";
    in_flight: IntGauge = "outgate_requests_in_flight" [],
        "Requests between head and end.";
    uploads: IntCounterVec = "outgate_upload_bytes_total" ["class"],
        "Bytes that left, heads included.";
    downloads: IntCounterVec = "outgate_download_bytes_total" ["class"],
        "Bytes that came back, heads included.";
    upload_alerts: IntCounterVec = "outgate_upload_alerts_total" ["class", "limit"],
        "Uploads that passed a limit.";
    findings: IntCounterVec = "outgate_findings_total" ["kind"],
        "What was seen in requests.";
    redactions: IntCounterVec = "outgate_redactions_total" ["detector"],
        "Pieces of text that were redacted or masked.";
    overhead: Histogram = "outgate_overhead_seconds" [] in OVERHEAD,
        "Time a request spent in the gateway rather than upstream or with a person.";
    decide: Histogram = "outgate_decide_seconds" [] in DECIDE,
        "Time to decide.";
    connect: Histogram = "outgate_upstream_connect_seconds" [] in CONNECT,
        "Time to resolve, connect and shake hands, where a connection was made.";
    handshakes: IntCounterVec = "outgate_tls_handshakes_total" ["side", "result"],
        "TLS handshakes with clients and destinations.";
    certificates: IntCounter = "outgate_certificates_minted_total" [],
        "Leaf certificates made.";
    connections_refused: IntCounter = "outgate_connections_refused_total" [],
        "Client connections turned away because too many were open.";
    audit_commits: IntCounter = "outgate_audit_commits_total" [],
        "Transactions of records that were committed.";
    audit_failures: IntCounter = "outgate_audit_failures_total" [],
        "Records that could not be committed; their requests were refused.";
    audit_queue: IntGauge = "outgate_audit_queue_depth" [],
        "Records waiting to be committed.";
    approvals_pending: IntGauge = "outgate_approvals_pending" [],
        "Questions that wait for a person.";
    approvals: IntCounterVec = "outgate_approvals_total" ["answer"],
        "Answers that people gave, and requests that got none in time.";
    sessions: IntGauge = "outgate_sessions_active" [],
        "Sessions that have begun and not ended.";
    reloads: IntCounterVec = "outgate_policy_reloads_total" ["result"],
        "Policy reloads; a failed one leaves the policy in force.";
    alerts: IntCounterVec = "outgate_alerts_sent_total" ["result"],
        "Alerts by whether they were delivered.";
    build: IntGaugeVec = "outgate_build_info" ["version"],
        "1, with the version that runs.";
}

/// Upper bounds of a histogram, in seconds.
struct Buckets(&'static [f64]);

trait Build: Collector + Clone + Sized + 'static {
    fn build(name: &str, help: &str, labels: &[&str], buckets: &[Buckets]) -> Result<Self>;
}

impl Build for IntCounter {
    fn build(name: &str, help: &str, _: &[&str], _: &[Buckets]) -> Result<IntCounter> {
        IntCounter::new(name, help)
    }
}

impl Build for IntGauge {
    fn build(name: &str, help: &str, _: &[&str], _: &[Buckets]) -> Result<IntGauge> {
        IntGauge::new(name, help)
    }
}

impl Build for IntCounterVec {
    fn build(name: &str, help: &str, labels: &[&str], _: &[Buckets]) -> Result<IntCounterVec> {
        IntCounterVec::new(Opts::new(name, help), labels)
    }
}

impl Build for IntGaugeVec {
    fn build(name: &str, help: &str, labels: &[&str], _: &[Buckets]) -> Result<IntGaugeVec> {
        IntGaugeVec::new(Opts::new(name, help), labels)
    }
}

impl Build for Histogram {
    fn build(name: &str, help: &str, _: &[&str], buckets: &[Buckets]) -> Result<Histogram> {
        let bounds = buckets.iter().flat_map(|buckets| buckets.0).copied().collect();
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds))
    }
}
