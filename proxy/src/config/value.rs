//! How one value is written: sizes, durations, words, addresses, lists of them.
//!
//! A value comes from the file with its place there, or as bare text from a variable or a flag. Readers say what
//! a key takes, what stands there, and what was probably meant.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::spelling::nearest;
use super::words::Word;

/// Longest piece of somebody's text that is quoted back.
const QUOTE_LIMIT: usize = 60;

/// A listening address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP; port 0 picks a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An `http` or `https` URL of somebody else's that may hold a secret, so that it never prints whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(http::Uri);

impl Endpoint {
    /// The URL.
    pub fn uri(&self) -> &http::Uri {
        &self.0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/…", self.0.scheme_str().unwrap_or(""), self.0.host().unwrap_or(""))
    }
}

/// Mistakes inside one value, each with its span in the text.
#[derive(Debug, Default)]
pub(super) struct Wrong(pub(super) Vec<(Range<usize>, String)>);

/// What a reader gives.
pub(super) type Read<T> = Result<T, Wrong>;

/// One value, where it stands, and what it is called.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a Spanned<DeValue<'a>>,
    pub(super) source: &'a str,
    /// From a variable or a flag: text is all there is, so `100` and `true` arrive as text.
    pub(super) bare: bool,
}

impl<'a> Value<'a> {
    /// `KEY takes WHAT, not FOUND`, with the right spelling where one is known.
    fn wrong(&self, takes: &str, meant: Option<&str>) -> Wrong {
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        self.complaint(format!("`{}` takes {takes}, not `{}`{meant}", self.key, self.found()))
    }

    fn complaint(&self, message: String) -> Wrong {
        Wrong(vec![(self.value.span(), message)])
    }

    /// The value as it was written, for quoting.
    fn found(&self) -> String {
        match self.value.get_ref() {
            DeValue::String(text) => quoted(text),
            _ => quoted(self.source.get(self.value.span()).unwrap_or_default()),
        }
    }

    fn string(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self.value.get_ref() {
            DeValue::Integer(number) => {
                i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
            }
            DeValue::String(text) if self.bare => text.parse().ok(),
            _ => None,
        }
    }

    /// Any text but the empty one.
    pub(super) fn text(&self, takes: &str) -> Read<&'a str> {
        self.string().filter(|text| !text.is_empty()).ok_or_else(|| self.wrong(takes, None))
    }

    /// One word of a closed set.
    pub(super) fn word<T: Word>(&self) -> Read<T> {
        let found = self.string();
        if let Some(word) = T::ALL.iter().find(|word| Some(word.word()) == found) {
            return Ok(*word);
        }
        let meant = found.and_then(|found| nearest(found, T::ALL.iter().map(|word| word.word())));
        Err(self.wrong(&one_of::<T>(), meant))
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let number = self.integer().and_then(|number| u64::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let takes = format!("a whole number from {} to {}", range.start(), range.end());
            match self.string().filter(|text| text.parse().is_ok_and(|number| range.contains(&number))) {
                Some(text) => self.refused(&format!("takes {takes}; write `{text}` without quotes")),
                None => self.wrong(&takes, None),
            }
        })
    }

    /// A number of bytes within bounds: `64 KiB`, or a bare number.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let takes = "a size such as `64 KiB` or `10 GiB`";
        let bytes = match (self.integer(), self.string()) {
            (Some(number), _) => u64::try_from(number).map_err(|_| self.wrong(takes, None))?,
            (None, Some(text)) => parse_size(text).map_err(|meant| self.wrong(takes, meant.as_deref()))?,
            (None, None) => return Err(self.wrong(takes, None)),
        };
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let (least, most) = (print_size(*range.start()), print_size(*range.end()));
        Err(self.wrong(&format!("a size from `{least}` to `{most}`"), None))
    }

    /// A length of time above zero.
    pub(super) fn duration(&self) -> Read<Duration> {
        let takes = "a duration such as `10s`, `5m` or `90d`";
        let parsed = match self.string() {
            Some(text) => parse_duration(text),
            None => Err(self.integer().map(|number| format!("{number}s"))),
        };
        parsed.map_err(|meant| self.wrong(takes, meant.as_deref()))
    }

    /// An absolute path.
    pub(super) fn absolute_path(&self) -> Read<PathBuf> {
        let path = PathBuf::from(self.text("the path of a file")?);
        if path.is_absolute() { Ok(path) } else { Err(self.wrong("an absolute path", None)) }
    }

    /// An address to listen on.
    pub(super) fn listen_address(&self) -> Read<ListenAddress> {
        let takes = "an address such as `127.0.0.1:4480` or `unix:/run/outgate.sock`";
        let text = self.text(takes)?;
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(ListenAddress::Unix(path))
            } else {
                Err(self.wrong("an absolute path after `unix:`", None))
            };
        }
        text.parse().map(ListenAddress::Tcp).map_err(|_| self.wrong(takes, meant_address(text).as_deref()))
    }

    /// An address with a port, or with that port left out.
    pub(super) fn socket_address(&self, port: u16) -> Read<SocketAddr> {
        let takes = "an address such as `192.0.2.53` or `192.0.2.53:5353`";
        let text = self.text(takes)?;
        let bare: Option<IpAddr> = text.parse().ok();
        bare.map(|address| SocketAddr::new(address, port))
            .or_else(|| text.parse().ok())
            .ok_or_else(|| self.wrong(takes, None))
    }

    /// The address of a loopback service.
    pub(super) fn loopback_address(&self) -> Read<SocketAddr> {
        let takes = "a loopback address such as `127.0.0.1:11434`";
        let text = self.text(takes)?;
        let address: Option<SocketAddr> = text.parse().ok();
        address
            .filter(|address| address.ip().is_loopback() && address.port() != 0)
            .ok_or_else(|| self.wrong(takes, meant_address(text).as_deref()))
    }

    /// An IP address.
    pub(super) fn ip(&self) -> Read<IpAddr> {
        let takes = "an IP address such as `10.20.0.5`";
        self.text(takes)?.parse().map_err(|_| self.wrong(takes, None))
    }

    /// A URL, never quoted, since it may hold a secret.
    pub(super) fn endpoint(&self) -> Read<Endpoint> {
        let uri = self.string().and_then(|text| text.parse::<http::Uri>().ok());
        uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
            .map(Endpoint)
            .ok_or_else(|| {
                self.refused("takes a URL such as `https://hooks.example/outgate`; what stands there is not quoted, as it may hold a secret")
            })
    }

    /// A list, every element of which is read.
    pub(super) fn list<T>(&self, takes: &str, read: impl Fn(Value<'a>) -> Read<T>) -> Read<Vec<T>> {
        let DeValue::Array(elements) = self.value.get_ref() else {
            return Err(self.wrong(takes, None));
        };
        gather(elements.iter().map(|value| read(Value { value, ..*self })))
    }

    /// One value, or a list of at least one.
    pub(super) fn one_or_more<T>(&self, read: impl Fn(Value<'a>) -> Read<T>) -> Read<Vec<T>> {
        match self.value.get_ref() {
            DeValue::Array(elements) if elements.is_empty() => {
                Err(self.complaint(format!("`{}` takes at least one value, not `[]`", self.key)))
            }
            DeValue::Array(_) => self.list("", read),
            _ => Ok(vec![read(*self)?]),
        }
    }

    /// A table.
    pub(super) fn table(&self, takes: &str) -> Read<&'a DeTable<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(takes, None)),
        }
    }

    /// A refusal of this value in the words of the caller.
    pub(super) fn refused(&self, problem: &str) -> Wrong {
        self.complaint(format!("`{}` {problem}", self.key))
    }
}

/// All values, or all mistakes.
pub(super) fn gather<T>(results: impl Iterator<Item = Read<T>>) -> Read<Vec<T>> {
    let (mut values, mut wrong) = (Vec::new(), Wrong::default());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => wrong.0.extend(more.0),
        }
    }
    if wrong.0.is_empty() { Ok(values) } else { Err(wrong) }
}

/// Reads one word of a closed set, for flags.
pub(super) fn word<T: Word>(text: &str) -> Result<T, String> {
    let found = T::ALL.iter().find(|word| word.word() == text);
    found.copied().ok_or_else(|| format!("takes {}", one_of::<T>()))
}

fn one_of<T: Word>() -> String {
    let words: Vec<String> = T::ALL.iter().map(|word| format!("`{}`", word.word())).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// Bytes from `64 KiB`, or the spelling that was probably meant.
pub(super) fn parse_size(text: &str) -> Result<u64, Option<String>> {
    let (digits, unit) = number_and_unit(text).ok_or(None)?;
    let (spelling, factor) = match unit.to_ascii_lowercase().as_str() {
        "" => ("", 1),
        "b" => ("B", 1),
        "k" | "kb" | "kib" => ("KiB", 1 << 10),
        "m" | "mb" | "mib" => ("MiB", 1 << 20),
        "g" | "gb" | "gib" => ("GiB", 1 << 30),
        "t" | "tb" | "tib" => ("TiB", 1u64 << 40),
        _ => return Err(None),
    };
    // `KB` is a thousand to some and 1,024 to others, so it is neither here.
    if unit != spelling {
        return Err(Some(format!("{digits} {spelling}")));
    }
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or(None)
}

/// A duration from `10s`, or the spelling that was probably meant.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Option<String>> {
    let (digits, unit) = number_and_unit(text).ok_or(None)?;
    let number: u64 = digits.parse().map_err(|_| None)?;
    let (spelling, milliseconds) = match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" | "millis" => ("ms", 1),
        "" | "s" | "sec" | "secs" | "second" | "seconds" => ("s", 1_000),
        "m" | "min" | "mins" | "minute" | "minutes" => ("m", 60_000),
        "h" | "hour" | "hours" | "hr" => ("h", 3_600_000),
        "d" | "day" | "days" => ("d", 86_400_000u64),
        _ => return Err(None),
    };
    if unit != spelling || text.contains(' ') {
        return Err(Some(format!("{digits}{spelling}")));
    }
    let total = number.checked_mul(milliseconds).filter(|total| *total > 0).ok_or(None)?;
    Ok(Duration::from_millis(total))
}

fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits, unit.trim_start_matches(' ')))
}

fn print_size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(factor, _)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

/// `localhost:4480`, `:4480` and `4480` all mean loopback.
fn meant_address(text: &str) -> Option<String> {
    let port = text.strip_prefix("localhost").unwrap_or(text);
    let port: u16 = port.strip_prefix(':').unwrap_or(port).parse().ok()?;
    Some(format!("127.0.0.1:{port}"))
}

/// Somebody's text as it is quoted back: one line, short, without control characters.
pub(super) fn quoted(text: &str) -> String {
    let mut line: String = text.chars().take(QUOTE_LIMIT).flat_map(char::escape_debug).collect();
    // `escape_debug` is for literals; between backticks quotes need no escape.
    line = line.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().count() > QUOTE_LIMIT {
        line.push('…');
    }
    line
}
