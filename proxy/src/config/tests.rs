//! Settings as people write them, rightly and wrongly.

use std::collections::HashMap;

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/outgate.example.toml");

fn read(text: &str) -> Result<Config, Mistakes> {
    Config::from_text(Path::new("outgate.toml"), text)
}

fn load(flags: &Flags, variables: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Config::load(flags, &|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn the_example_says_every_default() {
    assert_eq!(read(EXAMPLE).unwrap(), Config::default());
    let table: toml::Table = EXAMPLE.parse().unwrap();
    for key in keys().filter(|key| *key != "alerts.webhook") {
        let mut value = Some(&toml::Value::Table(table.clone())).cloned();
        for part in key.split('.') {
            value = value.and_then(|value| value.get(part).cloned());
        }
        assert!(value.is_some(), "`{key}` is missing in deploy/outgate.example.toml");
    }
}

#[test]
fn the_webhook_of_the_example_is_the_default_webhook() {
    let section = EXAMPLE.split("# [[alerts.webhook]]").nth(1).unwrap();
    let lines: Vec<&str> =
        section.lines().map_while(|line| line.strip_prefix("# ").or(line.is_empty().then_some(""))).collect();
    let whole = read(&format!("[[alerts.webhook]]\n{}", lines.join("\n"))).unwrap();
    let short = read("[[alerts.webhook]]\nurl = \"https://hooks.example/outgate\"").unwrap();
    assert_eq!(whole.alerts, short.alerts);
    assert_eq!(whole.alerts.webhook[0].on, AlertKind::ALL);
}

#[test]
fn every_setting_can_be_changed() {
    let text = r#"
        listen = ["127.0.0.1:1", "unix:/run/outgate.sock", "[::1]:2"]
        admin = "unix:/run/admin.sock"
        identity = "required"
        refuse = "connect"
        metrics = "token"
        [dns]
        servers = ["192.0.2.53", "[2001:db8::53]:5353"]
        hosts = { "DB.internal" = ["10.20.0.5", "10.20.0.6"], "one.internal" = "10.20.0.7" }
        timeout = "500ms"
        [upstream]
        ca_files = ["/etc/ssl/own.pem"]
        proxy = "http://parent.example:3128"
        connect_timeout = "1s"
        response_timeout = "2m"
        idle_timeout = "1h"
        [limits]
        connections = 1
        connections_per_agent = 2
        headers = 3
        header_bytes = "16 KiB"
        url_bytes = 4096
        header_timeout = "4s"
        keepalive_timeout = "5s"
        decoded_ratio = 6
        decoded_bytes = "7MiB"
        certificates = 1_000
        [audit]
        durability = "power"
        excerpt = 0
        retention = "1d"
        max_bytes = "1 TiB"
        [approvals]
        timeout = "1s"
        answerable = "2s"
        [fence]
        sockets = ["/run/user/1000/wayland-0"]
        forward = ["127.0.0.1:11434", "[::1]:8080"]
        [[alerts.webhook]]
        url = "https://hooks.example/secret-part"
        format = "slack"
        on = ["secret"]
        digest = "1m"
        [otlp]
        endpoint = "http://127.0.0.1:4318"
    "#;
    let config = read(text).unwrap();
    let (changed, default) = (format!("{config:#?}"), format!("{:#?}", Config::default()));
    for section in ["listen", "admin", "identity", "refuse", "metrics"] {
        let line = |text: &str| text.split(&format!("    {section}: ")).nth(1).unwrap()[..40].to_owned();
        assert_ne!(line(&changed), line(&default), "`{section}`");
    }
    assert_eq!(config.listen[1], ListenAddress::Unix("/run/outgate.sock".into()));
    assert_eq!(config.dns.servers[0], "192.0.2.53:53".parse().unwrap());
    assert_eq!(config.dns.hosts[&"db.internal".parse::<Host>().unwrap()].len(), 2);
    assert_eq!(config.dns.timeout, Duration::from_millis(500));
    assert_eq!(config.upstream.proxy.as_ref().unwrap().port, 3128);
    assert_eq!(config.limits.url_bytes, 4096);
    assert_eq!(config.limits.decoded_bytes, 7 * MIB);
    assert_eq!(config.limits.certificates, 1000);
    assert_eq!(config.audit.excerpt, 0);
    assert_eq!(config.audit.max_bytes, 1 << 40);
    assert_eq!(config.fence.forward.len(), 2);
    assert_eq!(config.alerts.webhook[0].digest, Duration::from_secs(60));
    assert!(!changed.contains("secret-part"), "a webhook's URL does not print whole");
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outgate.toml");
    std::fs::write(
        &file,
        "admin = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n[limits]\nheaders = 7\nconnections = 8\n",
    )
    .unwrap();
    let dir = folder.path().to_str().unwrap();
    let flags = Flags { admin: Some("127.0.0.1:5".into()), ..Flags::default() };
    let variables = [
        ("OUTGATE_DATA_DIR", dir),
        ("OUTGATE_ADMIN", "127.0.0.1:3"),
        ("OUTGATE_LISTEN", "127.0.0.1:4, unix:/run/o.sock"),
        ("OUTGATE_LIMITS_CONNECTIONS", "9"),
        ("OUTGATE_DNS_HOSTS", "{ \"a.test\" = [\"127.0.0.2\"] }"),
        ("OUTGATE_UNATTENDED", "true"),
        ("OUTGATE_IDENTITY", ""),
    ];
    let config = load(&flags, &variables).unwrap();
    assert_eq!(config.admin.to_string(), "127.0.0.1:5", "flag");
    assert_eq!(config.listen.len(), 2, "variable");
    assert_eq!(config.limits.connections, 9, "variable");
    assert_eq!(config.limits.headers, 7, "file");
    assert_eq!(config.limits.url_bytes, 8192, "default");
    assert_eq!(config.identity, IdentityMode::Optional, "a variable set to nothing counts as not set");
    assert_eq!(config.dns.hosts.len(), 1);
    assert!(config.unattended);
    assert_eq!(config.config, file);
}

#[test]
fn the_data_folder_is_found_as_the_xdg_specification_says() {
    for (variables, expected) in [
        (vec![("XDG_STATE_HOME", "/state"), ("HOME", "/home/ana")], "/state/outgate"),
        (vec![("XDG_STATE_HOME", "relative"), ("HOME", "/home/ana")], "/home/ana/.local/state/outgate"),
        (vec![("HOME", "/home/ana")], "/home/ana/.local/state/outgate"),
        (vec![("OUTGATE_DATA_DIR", "/data"), ("HOME", "/home/ana")], "/data"),
    ] {
        let config = load(&Flags::default(), &variables).unwrap();
        assert_eq!(config.data_dir, Path::new(expected), "{variables:?}");
    }
    let mistakes = load(&Flags::default(), &[]).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "--data-dir: there is no default without `HOME`; name the folder to keep data in"
    );
}

#[test]
fn policy_files_are_those_named_or_those_of_the_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut config = Config { data_dir: folder.path().into(), ..Config::default() };
    assert!(config.policy_files().unwrap().is_empty());
    std::fs::create_dir(at("policy.d")).unwrap();
    for name in ["policy.toml", "policy.d/b.toml", "policy.d/a.toml", "policy.d/notes.txt"] {
        std::fs::write(at(name), "").unwrap();
    }
    let expected = [at("policy.toml"), at("policy.d/a.toml"), at("policy.d/b.toml")];
    assert_eq!(config.policy_files().unwrap(), expected);
    config.policy = vec!["/other.toml".into()];
    assert_eq!(config.policy_files().unwrap(), [PathBuf::from("/other.toml")]);
}

#[test]
fn a_missing_file_is_a_mistake_only_where_it_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let flags = Flags { data_dir: Some(dir.clone()), ..Flags::default() };
    assert!(load(&flags, &[]).is_ok());
    let named = dir.join("none.toml");
    let flags = Flags { config: Some(named.clone()), ..flags };
    let expected = format!("{}: cannot be read: No such file or directory (os error 2)", named.display());
    assert_eq!(load(&flags, &[]).unwrap_err().to_string(), expected);
}

#[test]
fn a_file_that_others_may_write_is_refused_with_its_cure() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outgate.toml");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let flags = Flags { data_dir: Some(folder.path().into()), ..Flags::default() };
    let path = file.display();
    let expected = format!("{path}: `{path}` may be written by others (mode 0666); run: chmod go-w {path}");
    assert_eq!(load(&flags, &[]).unwrap_err().to_string(), expected);
}

#[test]
fn mistakes_in_variables_and_flags_name_them() {
    let flags = Flags {
        data_dir: Some("/nowhere".into()),
        listen: vec!["localhost:4480".into()],
        admin: Some("4481".into()),
        ..Flags::default()
    };
    let variables = [
        ("OUTGATE_IDENTITY", "requird"),
        ("OUTGATE_LIMITS_CONNECTIONS", "many"),
        ("OUTGATE_DNS_SERVERS", "192.0.2.53,dns.example"),
        ("OUTGATE_DNS_HOSTS", "{ a.test = "),
        ("OUTGATE_LOG_FORMAT", "xml"),
        ("OUTGATE_VERBOSE", "very"),
        ("OUTGATE_UNATTENDED", "maybe"),
    ];
    let expected = "\
OUTGATE_IDENTITY: `identity` takes `optional` or `required`, not `requird`; did you mean `required`?
OUTGATE_DNS_SERVERS: `dns.servers` takes an address such as `192.0.2.53` or `192.0.2.53:5353`, not `dns.example`
OUTGATE_DNS_HOSTS: unclosed inline table, expected `}`, at `{ a.test`
OUTGATE_LIMITS_CONNECTIONS: `limits.connections` takes a whole number from 1 to 1000000, not `many`
OUTGATE_LOG_FORMAT: takes `text` or `json`, not `xml`
OUTGATE_VERBOSE: takes a whole number from 0 to 255, not `very`
OUTGATE_UNATTENDED: takes `true` or `false`, not `maybe`
--listen: `listen` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `localhost:4480`; did you mean `127.0.0.1:4480`?
--admin: `admin` takes an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`, not `4481`; did you mean `127.0.0.1:4481`?";
    assert_eq!(load(&flags, &variables).unwrap_err().to_string(), expected);
}

/// Bad files, each with all that is said about it.
const BAD: &[(&str, &[&str])] = &[
    (r#"lisen = "127.0.0.1:1""#, &["1: unknown key `lisen`; did you mean `listen`?"]),
    (
        r#"version = 1"#,
        &[
            "1: unknown key `version`; known are `listen`, `admin`, `identity`, `refuse`, `metrics`, `dns`, `upstream`, `limits`, `audit`, `store`, `approvals`, `fence`, `alerts`, `otlp`",
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
            "4: `on` takes `upload`, `secret`, `denied`, `lookalike`, `audit_failure` or `approval`, not `secrets`; did you mean `secret`?",
            "4: `on` takes `upload`, `secret`, `denied`, `lookalike`, `audit_failure` or `approval`, not `nonsense`",
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

#[test]
fn bad_files_are_told_every_mistake_with_line_and_right_spelling() {
    for (text, expected) in BAD {
        let found = read(text).expect_err(text).to_string();
        let expected: Vec<String> = expected.iter().map(|line| format!("outgate.toml:{line}")).collect();
        assert_eq!(found, expected.join("\n"), "in\n{text}");
    }
    assert!(BAD.len() >= 25);
}
