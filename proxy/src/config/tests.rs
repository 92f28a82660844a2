//! Settings as people write them, rightly and wrongly.

use std::collections::HashMap;

use super::*;

mod bad_files;

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
    assert_eq!(whole.alerts.webhook[0].on, AlertKind::USUAL);
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
fn a_variable_that_looks_like_a_setting_and_is_none_is_a_mistake() {
    let flags = Flags { data_dir: Some("/nowhere/outgate".into()), ..Flags::default() };
    let said = |name: &str| {
        let names = [name.to_owned(), "PATH".to_owned()].into_iter();
        let loaded = Config::load_naming(&flags, &|_| None, names);
        loaded.err().map(|mistakes| mistakes.to_string())
    };
    for (name, expected) in [
        ("OUTGATE_LIMITS_CONECTIONS", Some("is no setting; did you mean `OUTGATE_LIMITS_CONNECTIONS`?")),
        ("OUTGATE_LISTENS", Some("is no setting; did you mean `OUTGATE_LISTEN`?")),
        ("OUTGATE_UNATENDED", Some("is no setting; did you mean `OUTGATE_UNATTENDED`?")),
        ("OUTGATE_AUDIT_COLOUR", Some("is no setting; `[audit]` has no such setting")),
        ("OUTGATE_LIMITS_CONNECTIONS", None),
        ("OUTGATE_ALERTS_WEBHOOK", None),
        ("OUTGATE_SESSION", None),
        ("OUTGATE_TOKEN", None),
        ("OUTGATE_FENCE", None),
        ("OUTGATE_DATA_DIR", None),
        ("OUTGATE_PORT_4480_TCP", None),
        ("OUTGATE_TEST_PROGRAM", None),
        ("MY_OUTGATE_LISTENS", None),
    ] {
        let expected = expected.map(|why| format!("{name}: {why}"));
        assert_eq!(said(name), expected, "{name}");
    }
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
