//! Names to addresses: configured hosts first, then the configured or the system's servers.
//!
//! Nothing here judges an address; [`crate::dial`] does, and dials what was judged.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};

/// How many answers are cached; a name is looked up again when its own time to live ends.
const CACHE_SIZE: u64 = 4096;

/// Turns names into addresses.
pub struct Resolver {
    hosts: HashMap<String, Vec<IpAddr>>,
    dns: TokioResolver,
    timeout: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    #[error("the name does not resolve")]
    NotFound,
    /// No server answered in time.
    #[error("no name server answered in time")]
    Timeout,
    /// The servers answered with a failure.
    #[error("the name servers failed")]
    Failed,
}

impl Resolver {
    /// A resolver over `servers`, or over the system's where that is empty.
    ///
    /// # Errors
    /// Where the system's configuration is asked for and cannot be read.
    pub fn new(
        servers: &[SocketAddr],
        hosts: HashMap<String, Vec<IpAddr>>,
        timeout: Duration,
    ) -> anyhow::Result<Resolver> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if servers.is_empty() {
            TokioResolver::builder(provider)?
        } else {
            let servers = servers.iter().map(name_server).collect();
            TokioResolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers),
                provider,
            )
        };
        let options = builder.options_mut();
        options.timeout = timeout / 2;
        options.attempts = 1;
        options.ndots = 0;
        options.cache_size = CACHE_SIZE;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        // The system's hosts file is part of the system's answer; with own servers it is not asked.
        options.use_hosts_file = if servers.is_empty() { ResolveHosts::Always } else { ResolveHosts::Never };
        Ok(Resolver { hosts, dns: builder.build()?, timeout })
    }

    /// Every address of a name, in the order in which they should be tried.
    ///
    /// # Errors
    /// Where there is none, or nobody said so in time.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(addresses) = self.hosts.get(name) {
            return Ok(addresses.clone());
        }
        // The final dot keeps the search list of the system out: the name that was judged is the one asked for.
        let lookup = self.dns.lookup_ip(format!("{name}."));
        match tokio::time::timeout(self.timeout, lookup).await {
            Err(_) => Err(ResolveError::Timeout),
            Ok(Err(error)) => Err(classify(&error)),
            Ok(Ok(answer)) => {
                let addresses: Vec<IpAddr> = answer.iter().collect();
                if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) }
            }
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn classify(error: &NetError) -> ResolveError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => ResolveError::NotFound,
        NetError::Timeout => ResolveError::Timeout,
        _ => ResolveError::Failed,
    }
}
