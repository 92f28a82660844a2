//! The differences that are meant, each with a row in `docs/transparency.md`.

use super::message::{Difference, Part};
use super::shape::{Route, Shape};

/// Which end saw a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server, in a request.
    Server,
    /// The client, in an answer.
    Client,
}

/// A difference that is meant.
pub struct Intended {
    /// Its title, as in the documentation.
    pub title: &'static str,
    /// Whether it is this one.
    pub covers: fn(&Shape, Side, &Difference) -> bool,
}

/// The title of what is not forwarded at all.
pub const REFUSED: &str = "what cannot be read in one way only is refused";

/// Fields that belong to one connection; `x-mine` is what the corpus names in `connection`.
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "te", "upgrade", "http2-settings", "x-mine"];
const FOR_PROXIES: [&str; 4] =
    ["proxy-authorization", "proxy-authenticate", "proxy-authentication-info", "proxy-connection"];

/// All others.
pub const INTENDED: &[Intended] = &[
    Intended {
        title: "fields of the client's connection end here",
        covers: |shape, side, it| {
            side == Side::Server && shape.route != Route::WebSocket && it.removes(&HOP_BY_HOP)
        },
    },
    Intended {
        title: "fields of the server's connection end here",
        covers: |shape, side, it| {
            side == Side::Client && shape.route != Route::WebSocket && it.removes(&HOP_BY_HOP)
        },
    },
    Intended {
        title: "`te: trailers` goes on to HTTP/2",
        covers: |shape, side, it| {
            let kept = it.is_field(&["te"]) && it.outgate == "[\"trailers\"]" && it.reference.is_empty();
            side == Side::Server && shape.route == Route::Http1ToHttp2 && kept
        },
    },
    Intended {
        title: "fields for a proxy do not reach the server",
        covers: |_, side, it| side == Side::Server && it.removes(&FOR_PROXIES),
    },
    Intended {
        title: "fields for a proxy do not reach the client",
        covers: |_, side, it| side == Side::Client && it.removes(&FOR_PROXIES),
    },
    Intended {
        title: "`alt-svc` does not reach the client",
        covers: |_, side, it| side == Side::Client && it.removes(&["alt-svc"]),
    },
    Intended {
        title: "`x-outgate-*` of a server does not reach the client",
        covers: |_, side, it| side == Side::Client && it.removes(&["x-outgate-decision", "x-outgate-reason"]),
    },
    Intended {
        title: "the path has one spelling",
        covers: |_, side, it| {
            side == Side::Server && it.part == Part::Start && canonical(&it.reference) == it.outgate
        },
    },
    Intended {
        title: "the client is answered in HTTP/1.1",
        covers: |shape, side, it| side == Side::Client && shape.answers_in("HTTP/1.0") && is_upgraded(it),
    },
    Intended {
        title: "the client's connection outlives the server's",
        covers: |shape, _, it| {
            let further = it.outgate.starts_with(&format!("{} | ", it.reference));
            it.part == Part::Count && further && shape.answers_with("\r\nconnection: close\r\n")
        },
    },
    Intended {
        title: "where a server gives no answer, the client is told so",
        covers: |shape, side, it| {
            let told = it.part == Part::Body || it.is_field(&TOLD);
            side == Side::Client && !shape.answers_in("HTTP/") && told
        },
    },
    Intended {
        title: "extensions of WebSockets are not offered",
        covers: |_, side, it| side == Side::Server && it.removes(&["sec-websocket-extensions"]),
    },
    Intended {
        title: "the answer to a WebSocket's handshake is the server's",
        covers: |shape, side, it| {
            let of_handshake = it.is_field(&["connection", "sec-websocket-protocol", "date"]);
            side == Side::Client && shape.route == Route::WebSocket && of_handshake
        },
    },
    Intended {
        title: "a ping of a WebSocket is answered by the server alone",
        covers: |_, side, it| {
            side == Side::Client
                && it.part == Part::Count
                && it.reference.replacen(" | Pong", "", 1) == it.outgate
        },
    },
    Intended {
        title: "messages of a WebSocket keep their fragments",
        covers: |_, side, it| {
            side == Side::Client
                && it.part == Part::Count
                && it.outgate.contains("Text, and more | Continuation")
        },
    },
];

/// The fields of the gateway's own answers.
const TOLD: [&str; 5] =
    ["cache-control", "content-length", "content-type", "x-outgate-decision", "x-outgate-reason"];

impl Difference {
    fn is_field(&self, names: &[&str]) -> bool {
        matches!(&self.part, Part::Field(name) if names.contains(&&name[..]))
    }

    /// Whether it is one of these fields, and Outgate took it out.
    fn removes(&self, names: &[&str]) -> bool {
        self.is_field(names) && self.outgate.is_empty()
    }
}

impl Shape {
    fn answers_in(&self, version: &str) -> bool {
        self.answers.iter().all(|answer| answer.starts_with(version.as_bytes()))
    }

    fn answers_with(&self, text: &str) -> bool {
        self.answers.iter().any(|answer| answer.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

/// Whether an answer of HTTP/1.0 became the same one of HTTP/1.1, in chunks where it has no length.
fn is_upgraded(difference: &Difference) -> bool {
    let chunked = difference.is_field(&["transfer-encoding"]) && difference.outgate == "[\"chunked\"]";
    let same = difference.outgate.strip_prefix("HTTP/1.1") == difference.reference.strip_prefix("HTTP/1.0");
    chunked || (difference.part == Part::Start && same)
}

/// A request line with its path in the one spelling (RFC 3986, section 6.2.2): unreserved characters are decoded,
/// other escapes have upper-case digits. The query stays as it is.
fn canonical(line: &str) -> String {
    let end = line.find('?').unwrap_or(line.len());
    let mut pieces = line[..end].split('%');
    let mut canonical = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        let character = u8::from_str_radix(digits, 16).map(char::from).expect("two hexadecimal digits");
        if character.is_ascii_alphanumeric() || "-._~".contains(character) {
            canonical.push(character);
        } else {
            canonical += &format!("%{}", digits.to_ascii_uppercase());
        }
        canonical += rest;
    }
    canonical + &line[end..]
}
