//! Bad configuration files in one table, each with exactly what is said about it.

use super::read;

#[test]
fn bad_files_are_told_every_mistake_with_line_and_right_spelling() {
    for (text, expected) in BAD {
        let found = read(text).expect_err(text).to_string();
        let expected: Vec<String> = expected.iter().map(|line| format!("outgate.toml:{line}")).collect();
        assert_eq!(found, expected.join("\n"), "in\n{text}");
    }
    assert!(BAD.len() >= 25);
}

/// Bad files, each with all that is said about it.
const BAD: &[(&str, &[&str])] = &[
    (r#"lisen = "127.0.0.1:1""#, &["1: unknown key `lisen`; did you mean `listen`?"]),
    (r#"allow = ["docs.rs"]"#, &["1: unknown key `allow`; it belongs in policy.toml"]),
    (
        r#"nonsense = 1"#,
        &[
            "1: unknown key `nonsense`; known are `listen`, `admin`, `identity`, `refuse`, `metrics`, `ca`, `dns`, `upstream`, `limits`, `audit`, `store`, `approvals`, `fence`, `alerts`, `otlp`",
        ],
    ),
    (
        r#"[limit]
connections = 1"#,
        &["1: unknown key `limit`; did you mean `limits`?"],
    ),
    (
        r#"[limits]
conections = 1"#,
        &["2: unknown key `conections` in `[limits]`; did you mean `connections`?"],
    ),
    (r#"connections = 1"#, &["1: unknown key `connections`; did you mean `limits.connections`?"]),
    (
        r#"[limits]
timeout = "1s""#,
        &[
            "2: unknown key `timeout` in `[limits]`; known are `connections`, `connections_per_agent`, `headers`, `header_bytes`, `url_bytes`, `header_timeout`, `keepalive_timeout`, `decoded_ratio`, `decoded_bytes`, `certificates`",
        ],
    ),
    (r#"limits = 5"#, &["1: `limits` takes settings under `[limits]`, not `5`"]),
    (
        r#"[[limits]]
connections = 1"#,
        &["1: `limits` takes settings under `[limits]`, not `[[limits]]`"],
    ),
    (
        r#"listen = "localhost:4480""#,
        &[
            "1: `listen` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `localhost:4480`; did you mean `127.0.0.1:4480`?",
        ],
    ),
    (
        r#"listen = ":4480""#,
        &[
            "1: `listen` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `:4480`; did you mean `127.0.0.1:4480`?",
        ],
    ),
    (
        r#"listen = 4480"#,
        &["1: `listen` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `4480`"],
    ),
    (r#"listen = []"#, &["1: `listen` takes at least one value, not `[]`"]),
    (
        r#"listen = ["127.0.0.1:4480", "unix:relative.sock", "0.0.0.0"]"#,
        &[
            "1: `listen` takes an absolute path after `unix:`, not `unix:relative.sock`",
            "1: `listen` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `0.0.0.0`",
        ],
    ),
    (
        r#"admin = "127.0.0.1:99999""#,
        &[
            "1: `admin` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `127.0.0.1:99999`",
        ],
    ),
    (r#"admin = "127.0.0.1:4480""#, &[" `listen` and `admin` are both `127.0.0.1:4480`"]),
    (
        r#"identity = "requird""#,
        &["1: `identity` takes `optional` or `required`, not `requird`; did you mean `required`?"],
    ),
    (r#"identity = true"#, &["1: `identity` takes `optional` or `required`, not `true`"]),
    (
        r#"refuse = "Inside""#,
        &["1: `refuse` takes `inside` or `connect`, not `Inside`; did you mean `inside`?"],
    ),
    (r#"metrics = "closed""#, &["1: `metrics` takes `open` or `token`, not `closed`"]),
    (
        r#"[dns]
servers = "192.0.2.53""#,
        &["2: `dns.servers` takes a list of addresses, not `192.0.2.53`"],
    ),
    (
        r#"[dns]
servers = ["192.0.2.53", "dns.example", 53]"#,
        &[
            "2: `dns.servers` takes an address such as `192.0.2.53` or `192.0.2.53:5353`, not `dns.example`",
            "2: `dns.servers` takes an address such as `192.0.2.53` or `192.0.2.53:5353`, not `53`",
        ],
    ),
    (
        r#"[dns]
hosts = { "bad host" = ["10.20.0.5"], "10.0.0.1" = ["10.20.0.5"], "a.test" = ["10.20.0"] }"#,
        &[
            "2: `dns.hosts` has `bad host`, which is not a host name",
            "2: `dns.hosts` has `10.0.0.1`, which is not a host name",
            "2: `dns.hosts` takes an IP address such as `10.20.0.5`, not `10.20.0`",
        ],
    ),
    (
        r#"[dns]
timeout = 5"#,
        &["2: `dns.timeout` takes a duration such as `10s`, `5m` or `90d`, not `5`; did you mean `5s`?"],
    ),
    (
        r#"[dns]
timeout = "5 sec""#,
        &["2: `dns.timeout` takes a duration such as `10s`, `5m` or `90d`, not `5 sec`; did you mean `5s`?"],
    ),
    (
        r#"[dns]
timeout = "soon""#,
        &["2: `dns.timeout` takes a duration such as `10s`, `5m` or `90d`, not `soon`"],
    ),
    (
        r#"[dns]
timeout = "0s""#,
        &["2: `dns.timeout` takes a duration such as `10s`, `5m` or `90d`, not `0s`"],
    ),
    (
        r#"[upstream]
ca_files = ["certs/own.pem"]"#,
        &["2: `upstream.ca_files` takes an absolute path, not `certs/own.pem`"],
    ),
    (
        r#"[upstream]
proxy = "https://parent.example:3128""#,
        &["2: `upstream.proxy` cannot be spoken to by `https`, only by `http`"],
    ),
    (
        r#"[upstream]
proxy = "http://ana:hunter2@parent.example""#,
        &["2: `upstream.proxy` has no host and port in `parent.example`"],
    ),
    (
        r#"[upstream]
proxy = "parent.example:3128""#,
        &["2: `upstream.proxy` has no `http://`"],
    ),
    (
        r#"[upstream]
connect_timeout = "10""#,
        &[
            "2: `upstream.connect_timeout` takes a duration such as `10s`, `5m` or `90d`, not `10`; did you mean `10s`?",
        ],
    ),
    (
        r#"[limits]
connections = 0"#,
        &["2: `limits.connections` takes a whole number from 1 to 1000000, not `0`"],
    ),
    (
        r#"[limits]
connections = "100""#,
        &["2: `limits.connections` takes a whole number from 1 to 1000000; write `100` without quotes"],
    ),
    (
        r#"[limits]
connections = -5"#,
        &["2: `limits.connections` takes a whole number from 1 to 1000000, not `-5`"],
    ),
    (
        r#"[limits]
headers = 1.5"#,
        &["2: `limits.headers` takes a whole number from 1 to 10000, not `1.5`"],
    ),
    (
        r#"[limits]
header_bytes = "64 KB""#,
        &[
            "2: `limits.header_bytes` takes a size such as `64 KiB` or `10 GiB`, not `64 KB`; did you mean `64 KiB`?",
        ],
    ),
    (
        r#"[limits]
header_bytes = "1 KiB""#,
        &["2: `limits.header_bytes` takes a size from `8 KiB` to `16 MiB`, not `1 KiB`"],
    ),
    (
        r#"[limits]
header_bytes = "8 KiB"
url_bytes = "16 KiB""#,
        &[" `limits.url_bytes` is larger than `limits.header_bytes`, which the URL is part of"],
    ),
    (
        r#"[limits]
decoded_bytes = "a lot""#,
        &["2: `limits.decoded_bytes` takes a size such as `64 KiB` or `10 GiB`, not `a lot`"],
    ),
    (
        r#"[audit]
durability = "fsync""#,
        &["2: `audit.durability` takes `commit` or `power`, not `fsync`"],
    ),
    (
        r#"[audit]
excerpt = "4 MiB""#,
        &["2: `audit.excerpt` takes a size from `0 B` to `1 MiB`, not `4 MiB`"],
    ),
    (
        r#"[audit]
retention = "90 days""#,
        &[
            "2: `audit.retention` takes a duration such as `10s`, `5m` or `90d`, not `90 days`; did you mean `90d`?",
        ],
    ),
    (
        r#"[audit]
max_bytes = "99999999999 TiB""#,
        &["2: `audit.max_bytes` takes a size such as `64 KiB` or `10 GiB`, not `99999999999 TiB`"],
    ),
    (
        r#"[store]
url = "postgres://outgate:hunter2@db.example/outgate""#,
        &[
            "2: `store.url` names a PostgreSQL database, which this version cannot use yet; leave it empty to keep records in SQLite in the data folder",
        ],
    ),
    (
        r#"[store]
url = "sqlite:///tmp/outgate.db""#,
        &["2: `store.url` is not needed for SQLite, which is always in the data folder; leave it empty"],
    ),
    (
        r#"[store]
url = "mysql://db.example/outgate""#,
        &["2: `store.url` takes nothing (SQLite in the data folder) or `postgres://…`"],
    ),
    (
        r#"[fence]
forward = ["10.0.0.1:80", "localhost:11434"]"#,
        &[
            "2: `fence.forward` takes a loopback address such as `127.0.0.1:11434`, not `10.0.0.1:80`",
            "2: `fence.forward` takes a loopback address such as `127.0.0.1:11434`, not `localhost:11434`; did you mean `127.0.0.1:11434`?",
        ],
    ),
    (
        r#"[fence]
sockets = ["docker.sock"]"#,
        &["2: `fence.sockets` takes an absolute path, not `docker.sock`"],
    ),
    (
        r#"[[alerts.webhook]]
format = "json""#,
        &["1: `alerts.webhook` has no `url`"],
    ),
    (
        r#"[[alerts.webhook]]
url = "ftp://hooks.example/hunter2"
formt = "json"
on = ["secrets", "denied", "nonsense"]
digest = "5""#,
        &[
            "2: `url` takes a URL such as `https://hooks.example/outgate`; what stands there is not quoted, as it may hold a secret",
            "3: unknown key `formt` in `[[alerts.webhook]]`; did you mean `format`?",
            "4: `on` takes `upload`, `secret`, `denied`, `lookalike`, `audit_failure`, `approval`, `first_seen` or `expiring`, not `secrets`; did you mean `secret`?",
            "4: `on` takes `upload`, `secret`, `denied`, `lookalike`, `audit_failure`, `approval`, `first_seen` or `expiring`, not `nonsense`",
            "5: `digest` takes a duration such as `10s`, `5m` or `90d`, not `5`; did you mean `5s`?",
        ],
    ),
    (
        r#"[alerts]
webhook = "https://hooks.example""#,
        &["2: `alerts.webhook` takes tables, `[[alerts.webhook]]`, not `https://hooks.example`"],
    ),
    (
        r#"[otlp]
endpoint = "127.0.0.1:4317""#,
        &[
            "2: `otlp.endpoint` takes a URL such as `https://hooks.example/outgate`; what stands there is not quoted, as it may hold a secret",
        ],
    ),
    (r#"listen = "127.0.0.1:4480"#, &[r#"1: invalid basic string, expected `"`, at `listen`"#]),
    (r#"listen = 127.0.0.1:4480"#, &["1: invalid float, expected nothing, at `.0.1:4480`"]),
    (
        r#"[limits
connections = 1"#,
        &["1: unclosed table, expected `]`, at `[limits`"],
    ),
    (
        r#"identity = "optional"
identity = "required""#,
        &["2: duplicate key, at `identity`"],
    ),
    (
        r#"identity = "no"
refuse = "no"

[limits]
header = 5
connections = "x""#,
        &[
            "1: `identity` takes `optional` or `required`, not `no`",
            "2: `refuse` takes `inside` or `connect`, not `no`",
            "5: unknown key `header` in `[limits]`; did you mean `headers`?",
            "6: `limits.connections` takes a whole number from 1 to 1000000, not `x`",
        ],
    ),
];
