//! Every setting in one table: its key, and how its value enters the [`Config`].

use std::path::Path;

use policy::target::Host;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistakes, Place};
use super::spelling::nearest;
use super::upstream_proxy::ParentProxy;
use super::value::{Read, Value, Wrong, gather, quoted};
use policy::address::AddressEntry;

use super::words::{AlertFormat, AlertKind};
use super::{Config, Environment, Flags, Hidden, KIB, MIB, Webhook, variable};

struct Setting {
    /// Section and key, with dots.
    key: &'static str,
    set: fn(&mut Config, Value<'_>) -> Read<()>,
}

macro_rules! settings {
    ($($key:literal => |$config:ident, $value:ident| $set:expr,)*) => {
        const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            set: |$config, $value| { $set; Ok(()) },
        },)*];
    };
}

settings! {
    "listen" => |c, v| c.listen = v.one_or_more(|v| v.listen_address())?,
    "admin" => |c, v| c.admin = v.listen_address()?,
    "identity" => |c, v| c.identity = v.word()?,
    "refuse" => |c, v| c.refuse = v.word()?,
    "metrics" => |c, v| c.metrics = v.word()?,
    "ca.key" => |c, v| c.ca.key = v.word()?,
    "dns.servers" => |c, v| c.dns.servers = v.list("a list of addresses", |v| v.socket_address(53))?,
    "dns.hosts" => |c, v| c.dns.hosts = hosts(v)?.into_iter().collect(),
    "dns.timeout" => |c, v| c.dns.timeout = v.duration()?,
    "upstream.ca_files" => |c, v| c.upstream.ca_files = v.list("a list of files", |v| v.absolute_path())?,
    "upstream.proxy" => |c, v| c.upstream.proxy = parent_proxy(v)?,
    "upstream.connect_timeout" => |c, v| c.upstream.connect_timeout = v.duration()?,
    "upstream.response_timeout" => |c, v| c.upstream.response_timeout = v.duration()?,
    "upstream.idle_timeout" => |c, v| c.upstream.idle_timeout = v.duration()?,
    "limits.connections" => |c, v| c.limits.connections = v.count(1..=1_000_000)? as usize,
    "limits.connections_per_agent" =>
        |c, v| c.limits.connections_per_agent = v.count(1..=1_000_000)? as usize,
    "limits.headers" => |c, v| c.limits.headers = v.count(1..=10_000)? as usize,
    // The HTTP library's own buffer is never smaller than 8 KiB.
    "limits.header_bytes" => |c, v| c.limits.header_bytes = v.size(8 * KIB..=16 * MIB)? as usize,
    // The HTTP library takes no longer request target than 65,534 bytes.
    "limits.url_bytes" => |c, v| c.limits.url_bytes = v.size(256..=63 * KIB)? as usize,
    "limits.header_timeout" => |c, v| c.limits.header_timeout = v.duration()?,
    "limits.keepalive_timeout" => |c, v| c.limits.keepalive_timeout = v.duration()?,
    "limits.decoded_ratio" => |c, v| c.limits.decoded_ratio = v.count(2..=100_000)?,
    "limits.decoded_bytes" => |c, v| c.limits.decoded_bytes = v.size(KIB..=1 << 50)?,
    "limits.certificates" => |c, v| c.limits.certificates = v.count(16..=1_000_000)? as usize,
    "audit.durability" => |c, v| c.audit.durability = v.word()?,
    "audit.excerpt" => |c, v| c.audit.excerpt = v.size(0..=MIB)? as usize,
    "audit.retention" => |c, v| c.audit.retention = v.duration()?,
    "audit.max_bytes" => |c, v| c.audit.max_bytes = v.size(MIB..=1 << 50)?,
    "audit.checkpoint_records" => |c, v| c.audit.checkpoint_records = v.count(1..=1_000_000)?,
    "audit.checkpoint_interval" => |c, v| c.audit.checkpoint_interval = v.duration()?,
    "audit.checkpoint_file" => |c, v| c.audit.checkpoint_file = or_none(v, |v| v.absolute_path())?,
    "audit.checkpoint_webhook" => |c, v| c.audit.checkpoint_webhook = or_none(v, |v| v.endpoint())?,
    "store.url" => |c, v| c.store.url = store_url(v)?,
    "approvals.timeout" => |c, v| c.approvals.timeout = v.duration()?,
    "approvals.answerable" => |c, v| c.approvals.answerable = v.duration()?,
    "fence.sockets" => |c, v| c.fence.sockets = v.list("a list of sockets", |v| v.absolute_path())?,
    "fence.forward" => |c, v| c.fence.forward = v.list("a list of addresses", |v| v.loopback_address())?,
    "alerts.desktop" => |c, v| c.alerts.desktop = v.word()?,
    "alerts.webhook" => |c, v| c.alerts.webhook = v.list("tables, `[[alerts.webhook]]`", webhook)?,
    "otlp.endpoint" => |c, v| c.otlp.endpoint = or_none(v, |v| v.endpoint())?,
}

/// What every variable of ours begins with.
const VARIABLE: &str = "OUTGATE_";
/// Characters of a webhook's own secret at least.
const SECRET: usize = 16;
/// The keys of one `[[alerts.webhook]]`.
const WEBHOOK_KEYS: &[&str] = &["url", "format", "on", "digest", "secret", "addresses"];

/// Every key of the configuration file, with dots.
pub fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

/// Reads a configuration file's text over `config`.
pub(super) fn from_text(config: &mut Config, name: &Path, text: &str, mistakes: &mut Mistakes) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut found: Vec<(usize, String)> = Vec::new();
    for error in &errors {
        found.push((error.span().map_or(0, |span| span.start), syntax(text, error)));
    }
    // A file that is not TOML says nothing reliable about its keys.
    if errors.is_empty() {
        let mut wrong = Wrong::default();
        read_table(config, "", table.get_ref(), text, &mut wrong);
        found.extend(wrong.0.into_iter().map(|(span, message)| (span.start, message)));
    }
    found.sort_by_key(|(start, _)| *start);
    for (start, message) in found {
        let line = text[..start.min(text.len())].matches('\n').count() + 1;
        mistakes.add(Place::Line(name.to_owned(), line), message);
    }
}

/// Reads the variables of all settings over `config`.
pub(super) fn from_environment(config: &mut Config, environment: Environment<'_>, mistakes: &mut Mistakes) {
    for setting in SETTINGS {
        let name = format!("{VARIABLE}{}", setting.key.replace('.', "_").to_ascii_uppercase());
        if let Some(text) = variable(environment, &name) {
            read_bare(config, setting, &text, Place::Variable(name), mistakes);
        }
    }
    if let Some(text) = variable(environment, "OUTGATE_POLICY") {
        config.policy = std::env::split_paths(&text).collect();
    }
    let mut only_outside = |name: &str, read: &mut dyn FnMut(&str) -> Option<()>, takes: &str| {
        if let Some(text) = variable(environment, name)
            && read(&text).is_none()
        {
            let message = format!("takes {takes}, not `{}`", quoted(&text));
            mistakes.add(Place::Variable(name.to_owned()), message);
        }
    };
    only_outside(
        "OUTGATE_LOG_FORMAT",
        &mut |text| text.parse().map(|format| config.log_format = format).ok(),
        "`text` or `json`",
    );
    only_outside(
        "OUTGATE_VERBOSE",
        &mut |text| text.parse().map(|level| config.verbosity = level).ok(),
        "a whole number from 0 to 255",
    );
    only_outside(
        "OUTGATE_UNATTENDED",
        &mut |text| truth(text).map(|unattended| config.unattended = unattended),
        "`true` or `false`",
    );
}

/// Variables that are read, but are no setting of the table.
const OTHER_VARIABLES: &[&str] =
    &["data_dir", "config", "policy", "log_format", "verbose", "unattended", "session", "token", "fence"];

/// Names variables that look like settings and are none: the nearest to one, or in a section. What else begins with our
/// name, such as what a cluster sets for a service that is called so, is somebody else's.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>, mistakes: &mut Mistakes) {
    let known: Vec<String> = keys()
        .map(|key| key.replace('.', "_"))
        .chain(OTHER_VARIABLES.iter().map(|&name| name.to_owned()))
        .collect();
    let mut unknown: Vec<(String, String)> = names
        .filter_map(|name| Some((name.strip_prefix(VARIABLE)?.to_ascii_lowercase(), name)))
        .filter(|(key, _)| !known.contains(key))
        .collect();
    unknown.sort();
    for (key, name) in unknown {
        let section = key.split_once('_').map_or("", |(section, _)| section);
        let hint = match nearest(&key, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{VARIABLE}{}`?", meant.to_ascii_uppercase()),
            None if is_section(section) => format!("`[{section}]` has no such setting"),
            None => continue,
        };
        mistakes.add(Place::Variable(name), format!("is no setting; {hint}"));
    }
}

/// Reads the flags over `config`.
pub(super) fn from_flags(config: &mut Config, flags: &Flags, mistakes: &mut Mistakes) {
    if !flags.listen.is_empty() {
        let text = flags.listen.join(",");
        read_bare(config, setting("listen"), &text, Place::Flag("--listen"), mistakes);
    }
    if let Some(text) = &flags.admin {
        read_bare(config, setting("admin"), text, Place::Flag("--admin"), mistakes);
    }
    if !flags.policy.is_empty() {
        config.policy.clone_from(&flags.policy);
    }
    config.log_format = flags.log_format.unwrap_or(config.log_format);
    config.verbosity = config.verbosity.max(flags.verbosity);
    config.unattended |= flags.unattended;
}

/// What no setting can see by itself.
pub(super) fn check_together(config: &Config, name: &Path, mistakes: &mut Mistakes) {
    let file = || Place::File(name.to_owned());
    if config.limits.url_bytes > config.limits.header_bytes {
        mistakes
            .add(file(), "`limits.url_bytes` is larger than `limits.header_bytes`, which the URL is part of");
    }
    let picks_a_port = config.admin.to_string().ends_with(":0");
    if config.listen.contains(&config.admin) && !picks_a_port {
        mistakes.add(file(), format!("`listen` and `admin` are both `{}`", config.admin));
    }
}

fn setting(key: &str) -> &'static Setting {
    let found = SETTINGS.iter().find(|setting| setting.key == key);
    found.expect("asked for by a literal that is in the table")
}

fn read_table(config: &mut Config, prefix: &str, table: &DeTable<'_>, source: &str, wrong: &mut Wrong) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let value = Value { key: &key, value, source, bare: false };
        let result = if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            (setting.set)(config, value)
        } else if is_section(&key) {
            value
                .table(&format!("settings under `[{key}]`"))
                .map(|inner| read_table(config, &format!("{key}."), inner, source, wrong))
        } else {
            Err(Wrong(vec![(name.span(), unknown(prefix, name.get_ref()))]))
        };
        if let Err(more) = result {
            wrong.0.extend(more.0);
        }
    }
}

fn is_section(key: &str) -> bool {
    keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// Names an unknown key, and the known one that it is nearest to: here, or in another section.
fn unknown(prefix: &str, name: &str) -> String {
    let here: Vec<&str> = keys()
        .filter_map(|key| key.strip_prefix(prefix))
        .map(|rest| rest.split_once('.').map_or(rest, |(section, _)| section))
        .collect();
    let place = match prefix.strip_suffix('.') {
        Some(section) => format!(" in `[{section}]`"),
        None => String::new(),
    };
    let mut elsewhere = keys().filter(|key| key.rsplit('.').next() == Some(name));
    let only = elsewhere.next().filter(|_| elsewhere.next().is_none());
    if prefix.is_empty() && policy::document::keys().any(|key| key == name) {
        return format!("unknown key `{}`; it belongs in policy.toml", quoted(name));
    }
    let hint = match nearest(name, here.iter().copied()).or(only) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known are {}", listed(&here)),
    };
    format!("unknown key `{}`{place}; {hint}", quoted(name))
}

fn listed(words: &[&str]) -> String {
    let mut words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.dedup();
    words.join(", ")
}

/// The TOML parser's complaint in one line, with the text that it is about.
fn syntax(source: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    let at = error.span().unwrap_or_default();
    let start = at.start.min(source.len());
    // Where nothing stands at the place itself, as at the end of a file, the line before it is meant.
    let line = source[start..].lines().next().filter(|line| !line.trim().is_empty());
    let line = line.or_else(|| source[..start].trim_end().lines().last()).unwrap_or_default();
    // Of a line only the key is quoted, and of a value nothing that may hold a password.
    let key = line.split('=').next().unwrap_or_default().trim();
    let exact = source.get(at).filter(|text| !text.trim().is_empty() && !text.contains(['\n', '@', '/']));
    match exact.unwrap_or(key) {
        "" => message,
        about => format!("{message}, at `{}`", quoted(about)),
    }
}

/// Reads a setting from bare text. What begins like a TOML list or table is read as one; else a comma parts the
/// elements of a list.
fn read_bare(config: &mut Config, setting: &Setting, text: &str, place: Place, mistakes: &mut Mistakes) {
    let parsed = match text.trim_start().starts_with(['[', '{']) {
        true => match DeValue::parse(text) {
            Ok(value) => value,
            Err(error) => return mistakes.add(place, syntax(text, &error)),
        },
        false => {
            let element =
                |part: &str| Spanned::new(0..text.len(), DeValue::String(part.trim().to_owned().into()));
            match takes_list(setting.key) {
                true => Spanned::new(0..text.len(), DeValue::Array(text.split(',').map(element).collect())),
                false => element(text),
            }
        }
    };
    let value = Value { key: setting.key, value: &parsed, source: text, bare: true };
    for (_, message) in (setting.set)(config, value).err().unwrap_or_default().0 {
        mistakes.add(place.clone(), message);
    }
}

fn takes_list(key: &str) -> bool {
    matches!(key, "listen" | "dns.servers" | "upstream.ca_files" | "fence.sockets" | "fence.forward")
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// An empty text is the setting's absence.
fn or_none<'a, T>(value: Value<'a>, read: impl Fn(Value<'a>) -> Read<T>) -> Read<Option<T>> {
    match value.value.get_ref() {
        DeValue::String(text) if text.is_empty() => Ok(None),
        _ => read(value).map(Some),
    }
}

fn hosts(value: Value<'_>) -> Read<Vec<(Host, Vec<std::net::IpAddr>)>> {
    let table = value.table("a table such as `{ \"db.internal\" = [\"10.20.0.5\"] }`")?;
    gather(table.iter().map(|(name, addresses)| {
        let host = name.get_ref().parse::<Host>().ok().filter(|host| host.name().is_some());
        let host = host.ok_or_else(|| {
            let message =
                format!("`{}` has `{}`, which is not a host name", value.key, quoted(name.get_ref()));
            Wrong(vec![(name.span(), message)])
        })?;
        let addresses = Value { value: addresses, ..value }.one_or_more(|v| v.ip())?;
        Ok((host, addresses))
    }))
}

fn parent_proxy(value: Value<'_>) -> Read<Option<ParentProxy>> {
    let read = |value: Value<'_>| {
        let text = value.text("a proxy such as `http://proxy.example:3128`")?;
        ParentProxy::parse(text).map_err(|problem| value.refused(&problem))
    };
    or_none(value, read)
}

fn store_url(value: Value<'_>) -> Read<Option<String>> {
    let read = |value: Value<'_>| {
        let text = value.text("the URL of a database")?;
        // The URL may hold a password: only its scheme is quoted.
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        Err(value.refused(&match scheme {
            "postgres" | "postgresql" => {
                "names a PostgreSQL database, which this version cannot use yet; leave it empty to keep records in SQLite in the data folder".to_owned()
            }
            "sqlite" => "is not needed for SQLite, which is always in the data folder; leave it empty".to_owned(),
            _ => "takes nothing (SQLite in the data folder) or `postgres://…`".to_owned(),
        }))
    };
    or_none(value, read)
}

fn webhook(value: Value<'_>) -> Read<Webhook> {
    let table = value.table("tables, `[[alerts.webhook]]`")?;
    let mut wrong = Wrong::default();
    for (name, _) in table {
        if !WEBHOOK_KEYS.contains(&name.get_ref().as_ref()) {
            let hint = match nearest(name.get_ref(), WEBHOOK_KEYS.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", listed(WEBHOOK_KEYS)),
            };
            let message = format!("unknown key `{}` in `[[alerts.webhook]]`; {hint}", quoted(name.get_ref()));
            wrong.0.push((name.span(), message));
        }
    }
    let field = |key: &'static str| table.get(key).map(|inner| Value { key, value: inner, ..value });
    let url = field("url").map_or_else(|| Err(value.refused("has no `url`")), |v| v.endpoint());
    let format = field("format").map_or(Ok(AlertFormat::Json), |v| v.word());
    let all = || Ok(AlertKind::USUAL.to_vec());
    let on = field("on").map_or_else(all, |v| v.list("a list of kinds", |v| v.word()));
    let digest = field("digest").map_or(Ok(super::DEFAULT_DIGEST), |v| v.duration());
    let key = field("secret").map_or(Ok(None), secret);
    let addresses =
        field("addresses").map_or(Ok(Vec::new()), |v| v.list("a list of addresses", address_entry));
    let url = keep(url, &mut wrong);
    let format = keep(format, &mut wrong);
    let on = keep(on, &mut wrong);
    let digest = keep(digest, &mut wrong);
    let key = keep(key, &mut wrong);
    let addresses = keep(addresses, &mut wrong);
    match (url, format, on, digest, key, addresses) {
        (Some(url), Some(format), Some(on), Some(digest), Some(key), Some(addresses))
            if wrong.0.is_empty() =>
        {
            Ok(Webhook { url, format, on, digest, key, addresses })
        }
        _ => Err(wrong),
    }
}

/// What messages are signed with. It is not quoted where it is wrong.
fn secret(value: Value<'_>) -> Read<Option<Hidden>> {
    let long = value.text("a text of at least 16 characters").ok().filter(|text| text.len() >= SECRET);
    let refused = || value.refused("takes a text of at least 16 characters; what stands there is not quoted");
    long.map(|text| Some(Hidden(text.to_owned()))).ok_or_else(refused)
}

fn address_entry(value: Value<'_>) -> Read<AddressEntry> {
    let text = value.text("an address such as `10.20.0.5:8443`")?;
    AddressEntry::parse(text).map_err(|why| value.refused(&why))
}

fn keep<T>(result: Read<T>, wrong: &mut Wrong) -> Option<T> {
    result.map_err(|more| wrong.0.extend(more.0)).ok()
}
