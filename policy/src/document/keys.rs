//! Every key that a policy file may hold: the reader checks files against these tables and the schema is made
//! from them, so the two cannot disagree.

/// A table of the file, and the keys it may hold.
pub(super) struct Table {
    /// How messages call it: `the policy`, `` `[uploads]` ``.
    pub(super) name: &'static str,
    /// Its keys, in the order in which they are listed to users.
    pub(super) keys: &'static [Key],
}

/// A key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) help: &'static str,
    pub(super) required: bool,
}

/// What a key's value looks like.
pub(super) enum Shape {
    /// The integer 1.
    Version,
    Text,
    Flag,
    /// `1 MiB`, or an integer of bytes.
    Size,
    /// `10m`.
    Window,
    /// One of some words; the first field says what they are.
    Word(&'static str, &'static [&'static str]),
    /// A list of strings; the second field is an example of an entry.
    Texts(&'static str),
    /// A list of integers from 1 to 65535.
    Ports,
    /// A date and time, as TOML's own or as a string.
    Time,
    /// A table from public suffix to list of labels.
    Domains,
    /// A list of known values: strings, or tables with `from` and `to`.
    Known,
    /// `[x]` or `{ … }`.
    Table(&'static Table),
    /// `[[x]]`.
    Tables(&'static Table),
}

const fn key(name: &'static str, shape: Shape, help: &'static str) -> Key {
    Key { name, shape, help, required: false }
}

const fn required(name: &'static str, shape: Shape, help: &'static str) -> Key {
    Key { name, shape, help, required: true }
}

const ACTIONS: Shape = Shape::Word("an action", &["allow", "ask", "deny"]);
const SECRET_ACTIONS: Shape = Shape::Word("an action on secrets", &["block", "mask", "alert"]);
const HOSTS_HELP: &str = "Hosts, wildcards, blocks of addresses, services and classes.";

pub(super) static POLICY: Table = Table {
    name: "the policy",
    keys: &[
        key("version", Shape::Version, "Version of the format: 1."),
        key(
            "mode",
            Shape::Word("a mode", &["enforce", "observe"]),
            "Whether what the policy would stop is stopped, or only recorded.",
        ),
        key("allow", Shape::Texts("docs.rs"), "What may be reached."),
        key("ask", Shape::Texts("docs.rs"), "What a person is asked about."),
        key("deny", Shape::Texts("docs.rs"), "What may not be reached, whatever else says so."),
        key("defaults", Shape::Table(&DEFAULTS), "What is done where no rule matches."),
        key("rule", Shape::Tables(&RULE), "A rule on methods, paths, agents or limits."),
        key("uploads", Shape::Table(&UPLOADS), "How much may leave."),
        key("secrets", Shape::Table(&SECRETS), "What is done with secrets found where they do not belong."),
        key("tls", Shape::Table(&TLS), "How encrypted connections are treated."),
        key("addresses", Shape::Table(&ADDRESSES), "Which addresses may be dialled besides public ones."),
        key("service", Shape::Tables(&SERVICE), "A service of your own, or an addition to a known one."),
        key("approved", Shape::Tables(&APPROVED), "A standing answer to what a rule asks."),
    ],
};

static DEFAULTS: Table = Table {
    name: "`[defaults]`",
    keys: &[
        key("model", ACTIONS, "For endpoints that serve a model."),
        key("tool", ACTIONS, "For other services of the catalogue."),
        key("unknown", ACTIONS, "For everything else."),
    ],
};

static RULE: Table = Table {
    name: "`[[rule]]`",
    keys: &[
        key("name", Shape::Text, "How records and answers call the rule."),
        required("action", ACTIONS, "What the rule does; of all that match the strictest wins."),
        required("to", Shape::Texts("docs.rs"), HOSTS_HELP),
        key("methods", Shape::Texts("GET"), "Methods, in upper case; all where left out."),
        key("paths", Shape::Texts("/repos/example/**"), "Path patterns; all where left out."),
        key("agents", Shape::Texts("claude-*"), "Agents; all where left out."),
        key("observe", Shape::Flag, "Only record what the rule would do."),
        key("uploads", Shape::Table(&RULE_UPLOADS), "Limits tighter than the class's."),
        key("wide", Shape::Flag, "Accept wildcards that everyone can register names under."),
        key("why", Shape::Text, "For the reviewer."),
    ],
};

static RULE_UPLOADS: Table =
    Table { name: "a rule's `uploads`", keys: &[REQUEST_ALERT, REQUEST_BLOCK, WINDOW_ALERT, WINDOW_BLOCK] };

const REQUEST_ALERT: Key = key("request_alert", Shape::Size, "A larger request is a finding.");
const REQUEST_BLOCK: Key = key("request_block", Shape::Size, "A larger request is refused.");
const WINDOW_ALERT: Key =
    key("window_alert", Shape::Size, "More to one domain within the window is a finding.");
const WINDOW_BLOCK: Key =
    key("window_block", Shape::Size, "More to one domain within the window is refused.");

static UPLOADS: Table = Table {
    name: "`[uploads]`",
    keys: &[
        REQUEST_ALERT,
        REQUEST_BLOCK,
        key("window", Shape::Window, "Length of the window: `10m`."),
        WINDOW_ALERT,
        WINDOW_BLOCK,
        key(
            "window_block_agent",
            Shape::Size,
            "More from one agent to everywhere within the window is refused.",
        ),
        key("model", Shape::Table(&CLASS_UPLOADS), "For endpoints that serve a model."),
        key("tool", Shape::Table(&CLASS_UPLOADS), "For other services of the catalogue."),
        key("unknown", Shape::Table(&CLASS_UPLOADS), "For everything else."),
    ],
};

static CLASS_UPLOADS: Table =
    Table { name: "`[uploads.CLASS]`", keys: &[REQUEST_ALERT, REQUEST_BLOCK, WINDOW_ALERT, WINDOW_BLOCK] };

static SECRETS: Table = Table {
    name: "`[secrets]`",
    keys: &[
        key("action", SECRET_ACTIONS, "What is done with a secret where it does not belong."),
        key("known", Shape::Known, "Where exact values to look for are read from."),
        key("model", Shape::Table(&CLASS_SECRETS), "For endpoints that serve a model."),
        key("tool", Shape::Table(&CLASS_SECRETS), "For other services of the catalogue."),
        key("unknown", Shape::Table(&CLASS_SECRETS), "For everything else."),
    ],
};

static CLASS_SECRETS: Table = Table {
    name: "`[secrets.CLASS]`",
    keys: &[key("action", SECRET_ACTIONS, "What is done with a secret where it does not belong.")],
};

pub(super) static KNOWN: Table = Table {
    name: "an entry of `known`",
    keys: &[
        required("from", Shape::Text, "`dotenv:PATH`, `file:PATH` or `env:NAME`."),
        key("to", Shape::Texts("@github"), "Where the value belongs."),
    ],
};

static TLS: Table = Table {
    name: "`[tls]`",
    keys: &[key(
        "passthrough",
        Shape::Texts("*.pinned.example"),
        "What is decided and recorded, but not decrypted.",
    )],
};

static ADDRESSES: Table = Table {
    name: "`[addresses]`",
    keys: &[key(
        "allow",
        Shape::Texts("10.20.0.0/16"),
        "Addresses and blocks, each with `:PORT` or for every port.",
    )],
};

static SERVICE: Table = Table {
    name: "`[[service]]`",
    keys: &[
        required("name", Shape::Text, "Name, as used after `@`."),
        key("class", Shape::Word("a class of a service", &["model", "tool"]), "What it is."),
        key(
            "kind",
            Shape::Word(
                "a kind",
                &[
                    "inference",
                    "forge",
                    "registry",
                    "docs",
                    "search",
                    "issues",
                    "chat",
                    "ci",
                    "cloud",
                    "storage",
                    "telemetry",
                    "mcp",
                    "other",
                ],
            ),
            "What it is for.",
        ),
        key("title", Shape::Text, "Name for people."),
        key("docs", Shape::Text, "Link to the page that documents its endpoints."),
        key("aliases", Shape::Texts("short-name"), "Other names usable after `@`."),
        key("groups", Shape::Texts("web-search"), "Names shared with other services."),
        key("hosts", Shape::Texts("api.example.com"), "Hosts and wildcards."),
        key("domains", Shape::Domains, "Registrable labels by public suffix."),
        key("ports", Shape::Ports, "Ports on loopback, for services on the agent's own machine."),
        key("wide", Shape::Flag, "Accept wildcards that everyone can register names under."),
        key("credentials", Shape::Tables(&CREDENTIAL), "Credentials that it takes, and where."),
    ],
};

static CREDENTIAL: Table = Table {
    name: "`[[service.credentials]]`",
    keys: &[
        required("detector", Shape::Text, "The detector that recognises it."),
        required("in", Shape::Texts("header:authorization"), "Where it belongs."),
        key(
            "hosts",
            Shape::Texts("api.example.com"),
            "The hosts that take it; all of the service where left out.",
        ),
    ],
};

static APPROVED: Table = Table {
    name: "`[[approved]]`",
    keys: &[
        required("host", Shape::Text, "The host that was asked about."),
        required("agent", Shape::Text, "The agent that asked."),
        required("rule", Shape::Text, "The rule whose question is answered."),
        key("by", Shape::Text, "Who answered."),
        key("at", Shape::Time, "When."),
    ],
};
