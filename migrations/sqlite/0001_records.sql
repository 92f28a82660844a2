-- The audit chain: one row per record, numbered without gaps. `record` is the canonical text that the hash is
-- taken over; every other column is there to be searched by and says nothing that the record does not.
CREATE TABLE records (
    seq      INTEGER PRIMARY KEY,
    kind     TEXT    NOT NULL,  -- decision, outcome, event
    time     INTEGER NOT NULL,  -- microseconds since the Unix epoch
    id       TEXT,              -- of a decision: its ULID
    decision INTEGER,           -- of an outcome: the decision's seq
    session  TEXT,
    agent    TEXT,
    class    TEXT,
    host     TEXT,
    domain   TEXT,
    action   TEXT,              -- of a decision: the last word, changed where its outcome says otherwise
    reason   TEXT,
    findings INTEGER,           -- one bit per kind of finding, in the order of Finding::KINDS
    bytes    INTEGER,           -- of an outcome: bytes that left
    record   TEXT    NOT NULL,
    hash     BLOB    NOT NULL
) STRICT;

-- Few indexes: each is paid for on every request. `id` also finds where a time begins, ULIDs sort by time.
CREATE UNIQUE INDEX records_id ON records (id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX records_decision ON records (decision) WHERE decision IS NOT NULL;
CREATE INDEX records_session ON records (session) WHERE session IS NOT NULL;
CREATE INDEX records_host ON records (host) WHERE host IS NOT NULL;
-- What passes for the usual reasons is found by looking; what is rare is found here. A query has to repeat the
-- condition word by word for SQLite to use the index.
CREATE INDEX records_action ON records (action) WHERE action <> 'allow';
CREATE INDEX records_reason ON records (reason)
    WHERE reason NOT IN ('allowed_by_rule', 'allowed_by_default');

CREATE TABLE agents (
    name    TEXT    PRIMARY KEY,
    owner   TEXT    NOT NULL,
    purpose TEXT,
    created INTEGER NOT NULL,
    expires INTEGER,
    revoked INTEGER
) STRICT;

-- Tokens are kept as their SHA-256 alone. A token with a session is that session's.
CREATE TABLE tokens (
    digest  BLOB    PRIMARY KEY,
    agent   TEXT    NOT NULL,
    session TEXT,
    created INTEGER NOT NULL,
    ends    INTEGER            -- not taken from then on
) STRICT;

CREATE TABLE sessions (
    id        TEXT    PRIMARY KEY,
    agent     TEXT    NOT NULL,
    label     TEXT,
    tool      TEXT,
    command   TEXT,
    repo      TEXT,
    branch    TEXT,
    commit_id TEXT,
    model     TEXT,            -- as last seen in a request
    observe   INTEGER NOT NULL,
    implicit  INTEGER NOT NULL, -- opened by a label in credentials, ended when idle
    started   INTEGER NOT NULL,
    ended     INTEGER,
    exit_code INTEGER,
    why       TEXT             -- it ended
) STRICT;
CREATE INDEX sessions_open ON sessions (agent, label) WHERE ended IS NULL;

-- `mark`: the chain's head and the open decisions as last noted. `identities`: counts changes to agents and sessions.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
