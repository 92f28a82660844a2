//! Which hosts a filter means: those that are in the store, found by skipping from one to the next in the index.
//!
//! A store of millions of records knows a few hundred hosts. One look-up in the index for each is quicker than reading
//! the records, and each host then has its records in order. What is not in the index yet is short, and looked through.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::filing::{sought, unfiled};

pub(super) const KNOWN: &str =
    concat!("SELECT 1 FROM ", sought!(), " d WHERE d.domain = $1 AND d.host = $2 LIMIT 1");

pub(super) const DOMAINS: &str = concat!(
    "WITH RECURSIVE known (domain) AS (\
         SELECT min(domain) FROM records WHERE host IS NOT NULL AND fresh IS NULL \
         UNION ALL \
         SELECT (SELECT min(domain) FROM records \
             WHERE host IS NOT NULL AND fresh IS NULL AND domain > known.domain) \
         FROM known WHERE known.domain IS NOT NULL\
     ) SELECT domain FROM known WHERE domain IS NOT NULL \
     UNION SELECT domain FROM records WHERE ",
    unfiled!(),
    " AND domain IS NOT NULL AND host IS NOT NULL ORDER BY domain"
);

pub(super) const HOSTS: &str = concat!(
    "WITH RECURSIVE known (host) AS (\
         SELECT min(host) FROM records WHERE domain = $1 AND host IS NOT NULL AND fresh IS NULL \
         UNION ALL \
         SELECT (SELECT min(host) FROM records WHERE domain = $1 AND fresh IS NULL AND host > known.host) \
         FROM known WHERE known.host IS NOT NULL\
     ) SELECT host FROM known WHERE host IS NOT NULL \
     UNION SELECT host FROM records WHERE ",
    unfiled!(),
    " AND domain = $1 AND host IS NOT NULL ORDER BY host"
);

/// A host with the registrable domain it was recorded under, the two columns of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub domain: String,
    pub host: String,
}

/// The hosts that a pattern means: a host itself, `*.example.com` for those below it.
pub(super) async fn meant(
    connection: &mut SqliteConnection,
    pattern: &str,
) -> Result<Vec<Known>, sqlx::Error> {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        None => exactly(connection, &pattern).await,
        Some(end) => below(connection, end).await,
    }
}

/// A host was recorded under one of its own ends, whatever the list of public suffixes said then.
async fn exactly(connection: &mut SqliteConnection, host: &str) -> Result<Vec<Known>, sqlx::Error> {
    let mut found = Vec::new();
    for domain in ends(host) {
        let row = sqlx::query(KNOWN).bind(domain).bind(host).fetch_optional(&mut *connection).await?;
        if row.is_some() {
            found.push(Known { domain: domain.to_owned(), host: host.to_owned() });
        }
    }
    Ok(found)
}

async fn below(connection: &mut SqliteConnection, end: &str) -> Result<Vec<Known>, sqlx::Error> {
    let mut found = Vec::new();
    for domain in domains(connection).await? {
        if domain.ends_with(end) || end.ends_with(&domain) {
            let hosts = hosts_of(connection, &domain).await?;
            let hosts = hosts.into_iter().filter(|host| host.len() > end.len() && host.ends_with(end));
            found.extend(hosts.map(|host| Known { domain: domain.clone(), host }));
        }
    }
    Ok(found)
}

pub(super) async fn domains(connection: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(DOMAINS).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("domain")).collect()
}

async fn hosts_of(connection: &mut SqliteConnection, domain: &str) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(HOSTS).bind(domain).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("host")).collect()
}

/// The host itself and every end of it that begins with a label.
fn ends(host: &str) -> impl Iterator<Item = &str> {
    let dots = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
    std::iter::once(host).chain(dots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Folder, decision};
    use crate::store::{Entry, Opened};

    #[test]
    fn a_host_ends_at_each_label() {
        assert_eq!(ends("a.b.example").collect::<Vec<_>>(), ["a.b.example", "b.example", "example"]);
        assert_eq!(ends("localhost").collect::<Vec<_>>(), ["localhost"]);
    }

    #[tokio::test]
    async fn a_pattern_means_what_is_in_the_store() {
        let folder = Folder::new();
        let Opened { mut writer, .. } = folder.open().await;
        let record = |host: &'static str, domain: &'static str| {
            let mut decision = decision(host);
            decision.domain = Some(policy::redact::Redacted::literal(domain));
            Entry::decision(&decision)
        };
        let entries = [
            record("example.com", "example.com"),
            record("a.example.com", "example.com"),
            record("a.example.com", "example.com"),
            record("b.a.example.com", "example.com"),
            record("notexample.com", "notexample.com"),
            record("user.github.io", "user.github.io"),
            record("127.0.0.1", "127.0.0.1"),
        ];
        writer.commit(&entries).await.unwrap();
        let mut connection = folder.stranger().await;
        for (pattern, expected) in [
            ("example.com", &["example.com"][..]),
            ("A.Example.com", &["a.example.com"]),
            ("*.example.com", &["a.example.com", "b.a.example.com"]),
            ("*.a.example.com", &["b.a.example.com"]),
            ("*.com", &["a.example.com", "b.a.example.com", "example.com", "notexample.com"]),
            ("*.io", &["user.github.io"]),
            ("127.0.0.1", &["127.0.0.1"]),
            ("other.example", &[]),
            ("*.b.a.example.com", &[]),
            ("%.example.com", &[]),
        ] {
            let meant = meant(&mut connection, pattern).await.unwrap();
            let meant: Vec<&str> = meant.iter().map(|known| known.host.as_str()).collect();
            assert_eq!(meant, expected, "{pattern}");
        }
    }
}
