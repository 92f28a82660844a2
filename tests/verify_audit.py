#!/usr/bin/env python3
"""Verifies Outgate's audit records with none of Outgate's code: an export, a store, or a copy of a store.

    python3 tests/verify_audit.py [--key KEY]... [--checkpoints FILE] [--json] FILE
    python3 tests/verify_audit.py --self-test

FILE is an export (JSON Lines; `-` reads it from standard input) or a database (`outgate.db`, which a gateway may be
writing to). KEY is a trusted public key, 64 hexadecimal digits, or a file with one a line, such as `audit.pub`.
Exit code 0: intact. 3: not intact. 1: cannot be read. 2: wrong usage.

The format is written down in docs/audit-format.md. This program was written from that page's rules and needs nothing
but Python 3.9 and its standard library; it reads top-down.
"""

import argparse
import hashlib
import json
import os
import re
import sqlite3
import sys
import urllib.parse

ZERO = "0" * 64  # what the first record of all follows on


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="an export, `-`, or a database")
    parser.add_argument("--key", action="append", metavar="KEY", help="trust this public key, or those in this file")
    parser.add_argument("--checkpoints", metavar="FILE", help="compare with checkpoints that were kept elsewhere")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--self-test", action="store_true", help="check this program itself")
    options = parser.parse_args(arguments)  # exits with 2 by itself
    if options.self_test:
        return self_test()
    if options.file is None:
        parser.error("which file?")
    try:
        keys = Keys(options.key and [key for named in options.key for key in trusted_keys(named)])
        noted = Noted(options.checkpoints, keys)
        report = verify(options.file, keys, noted)
    except (Unreadable, OSError, sqlite3.Error) as error:
        print(f"cannot verify `{options.file}`: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, separators=(",", ":")) if options.json else words(report, keys, noted))
    return 0 if report["intact"] else 3


def verify(file, keys, noted):
    """The report on an export or a store, whichever the file is."""
    chain = Chain(keys, noted)
    first_bad = None
    try:
        if file == "-":
            verify_export(sys.stdin.buffer, chain)
        elif is_database(file):
            verify_store(open_database(file), chain)
        else:
            with open(file, "rb") as lines:
                verify_export(lines, chain)
    except Bad as bad:
        first_bad = bad
    return {
        "intact": first_bad is None,
        "records": chain.records,
        "checkpoints": chain.checkpoints,
        "first_bad": first_bad and {"seq": first_bad.seq, "problem": first_bad.problem},
    }


def words(report, keys, noted):
    """The report for people."""
    counts = f"{report['records']} records, {report['checkpoints']} checkpoints"
    bad = report["first_bad"]
    lines = [f"not intact: record {bad['seq']}: {bad['problem']}; before it {counts}" if bad else f"intact: {counts}"]
    if noted.count:
        lines.append(f"compared with {noted.compared} of {noted.count} checkpoints kept elsewhere")
    for key in keys.seen:
        lines.append(f"signed by {key}" + ("" if keys.trusted else ", which nobody told this program to trust"))
    if not keys.seen:
        lines.append("nothing here is signed")
    return "\n".join(lines)


class Bad(Exception):
    """The first record that is wrong, and what is wrong with it."""

    def __init__(self, seq, problem):
        super().__init__(f"record {seq}: {problem}")
        self.seq, self.problem = seq, problem


class Unreadable(Exception):
    """What was given cannot be looked into at all."""


# The chain


class Chain:
    """The chain as far as it was found to be right: number and hash of its last record."""

    def __init__(self, keys, noted):
        self.keys, self.noted = keys, noted
        self.first, self.seq, self.hash = 1, 0, ZERO
        self.records = self.checkpoints = 0

    def begin_after(self, seq, hash):
        self.first, self.seq, self.hash = seq + 1, seq, hash
        self.noted.compare(seq, hash)

    def feed(self, seq, kind, text, hash, previous=None):
        """Takes the next record, and gives it back parsed."""
        if seq != self.seq + 1:
            raise Bad(seq, f"record {self.seq + 1} should stand here: records are missing, twice or out of order")
        if previous not in (None, self.hash):
            raise Bad(seq, "`previous` is not the hash of the record before")
        # Each hash is taken over the hash before it, as 32 bytes, and the record's text in UTF-8.
        linked = hashlib.sha256(bytes.fromhex(self.hash) + text.encode("utf-8", "surrogateescape")).hexdigest()
        if hash != linked:
            raise Bad(seq, "the hash does not fit: this record was changed, or the one before it was replaced")
        record = parse(text)
        if record is None or not is_record(record):
            raise Bad(seq, "this is not a record in canonical form")
        if kind != kind_of(record):
            raise Bad(seq, "the record is filed under another kind than its own")
        if record.get("event") == "checkpoint":
            self.check_checkpoint(seq, record)
        self.noted.compare(seq, hash)
        self.seq, self.hash = seq, hash
        self.records += 1
        return record

    def check_checkpoint(self, seq, record):
        """A checkpoint speaks of the record before it."""
        if (record["through"], record["hash"]) != (self.seq, self.hash):
            raise Bad(seq, "the checkpoint does not speak of the record before it")
        anchor = {name: record[name] for name in ("hash", "key", "signature", "through", "time")}
        problem = self.keys.disbelieve(anchor, "checkpoint")
        if problem:
            raise Bad(seq, f"the checkpoint is not believed: {problem}")
        self.checkpoints += 1


def parse(text):
    """A record's text parsed; `None` unless it is JSON in the one canonical form."""

    def no_key_twice(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    def no_such_number(digits):
        raise ValueError(f"{digits} is no integer")

    try:
        text.encode("utf-8")
        value = json.loads(
            text, object_pairs_hook=no_key_twice, parse_float=no_such_number, parse_constant=no_such_number
        )
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return value if canonical == text else None


# The records. `?` marks what may be null, which a key that an older version did not know is as well.

FINDINGS = (  # the order is that of the bits in the store's column `findings`
    "large_upload secret credential_used lookalike_domain encoded_data_in_name model_shaped mcp_shaped git_push "
    "undecodable dns_over_https method_override"
).split()

ACTION, MODE, CLASS = "allow|ask|deny", "enforce|observe", "model|tool|unknown"

DECISION = {
    "action": ACTION, "agent": "text", "class": CLASS, "domain": "text?", "findings": "findings", "host": "text?",
    "http_version": "text?", "id": "text", "kind": "http|websocket|connect|dns|tcp", "method": "text?", "mode": MODE,
    "owner": "text?", "path": "text?", "policy": "text", "port": "number?", "reason": "text", "rule": "text?",
    "scheme": "http|https|tcp?", "service": "text?", "session": "text?", "time": "integer", "would": ACTION + "?",
    "would_reason": "text?",
}  # fmt: skip

OUTCOME = {
    "action": ACTION, "body": "object?", "decided": ACTION + "?", "decision": "text", "findings": "findings",
    "model": "text?", "ns": "object", "outcome": "completed|denied|cut|failed|abandoned|interrupted",
    "reason": "text", "request_bytes": "number", "response_bytes": "number", "status": "number?", "time": "integer",
    "upstream": "text?", "would": ACTION + "?", "would_reason": "text?",
}  # fmt: skip

EVENTS = {  # each with `event`, `time` and `by`
    "started": {"version": "text", "configuration": "text?"},
    "stopped": {},
    "clock_jumped": {"milliseconds": "integer"},
    "policy_in_force": {"policy": "text", "mode": MODE, "previous": "text?"},
    "authority_in_force": {"fingerprint": "text", "previous": "text?"},
    "configuration_changed": {"configuration": "text", "keys": "list"},
    "agent_created": {"agent": "text", "owner": "text", "purpose": "text?", "expires": "integer?"},
    "agent_rotated": {"agent": "text", "expires": "integer?", "grace_until": "integer"},
    "agent_revoked": {"agent": "text"},
    "agent_expired": {"agent": "text"},
    "session_opened": {
        "session": "text", "agent": "text", "label": "text?", "tool": "text?", "command": "text?", "repo": "text?",
        "branch": "text?", "commit": "text?", "observe": "flag",
    },
    "session_ended": {"session": "text", "exit_code": "integer?", "why": "exited|idle|closed|lost"},
    "approval_answered": {
        "approval": "text", "answer": "text", "scope": "text", "agent": "text?", "destination": "text?", "rule": "text?",
    },
    "pruned": {"through": "number", "hash": "text", "records": "number"},
    "checkpoint": {"through": "number", "hash": "text", "key": "text", "signature": "text"},
}  # fmt: skip

TYPES = {
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "integer": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "number": lambda value: type(value) is int and 0 <= value < 2**64,
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "findings": lambda value: isinstance(value, list)
    and all(isinstance(finding, dict) and finding.get("kind") in FINDINGS for finding in value),
}


def kind_of(record):
    return "event" if "event" in record else "outcome" if "decision" in record else "decision"


def is_record(record):
    """Whether the keys of its kind are there, each with a value that it may have."""
    if not isinstance(record, dict):
        return False
    keys = {"decision": DECISION, "outcome": OUTCOME}.get(kind_of(record))
    if keys is None:
        keys = isinstance(record["event"], str) and EVENTS.get(record["event"])
        if not isinstance(keys, dict):
            return False
        keys = {"time": "integer", "by": "text?", **keys}
    return all(fits(record.get(name), expected) for name, expected in keys.items())


def fits(value, expected):
    if expected.endswith("?"):
        if value is None:
            return True
        expected = expected[:-1]
    return TYPES[expected](value) if expected in TYPES else value in expected.split("|")


# An export: a first line, a line for each record, a last line

ANCHOR = (
    r'\{"hash":"(?P<hash>[0-9a-f]{64})","key":"(?P<key>[0-9a-f]{64})","signature":"(?P<signature>[0-9a-f]{128})",'
    r'"through":(?P<through>0|[1-9][0-9]{0,18}),"time":(?P<time>0|-?[1-9][0-9]{0,18})\}'
)
FIRST_LINE = re.compile(r'\{"export":1,"follows":' + ANCHOR + r',"version":"[^"\\\x00-\x1f]*"\}')
RECORD_LINE = re.compile(
    r'\{"hash":"(?P<hash>[0-9a-f]{64})","kind":"(?P<kind>decision|outcome|event)",'
    r'"previous":"(?P<previous>[0-9a-f]{64})","seq":(?P<seq>[1-9][0-9]{0,18}),"record":(?P<record>\{.*\})\}'
)
LAST_LINE = re.compile(r'\{"end":' + ANCHOR + r"\}")


def verify_export(lines, chain):
    begin_export(lines, chain)
    for line in lines:
        text = text_of(line)
        last = LAST_LINE.fullmatch(text)
        if last:
            end_export(anchor_of(last), chain)
            if next(lines, None) is not None:
                raise Bad(chain.seq, "something follows on the last line")
            return chain.noted.end(chain.seq)
        found = RECORD_LINE.fullmatch(text)
        if not found:
            raise Bad(chain.seq + 1, "the line in its place is no line of an export")
        chain.feed(int(found["seq"]), found["kind"], found["record"], found["hash"], found["previous"])
    raise Bad(chain.seq, "the export ends here without its last line")


def text_of(line):
    """A line without its line feed. Bytes that are no UTF-8 survive, because hashes are taken over bytes."""
    return line.decode("utf-8", "surrogateescape").removesuffix("\n")


def begin_export(lines, chain):
    """The first line says what the first record follows on. Where it is wrong, the first record is named."""
    line = next(lines, b"")
    first = FIRST_LINE.fullmatch(text_of(line))
    if not first:
        raise Bad(first_seq([line], lines), "the first line is none of an export")
    anchor = anchor_of(first)
    problem = chain.keys.disbelieve(anchor, "export-start")
    if not problem and anchor["through"] == 0 and anchor["hash"] != ZERO:
        problem = "before record 1 stand zeros"
    if problem:
        raise Bad(first_seq(lines), f"the first line is not believed: {problem}")
    chain.begin_after(anchor["through"], anchor["hash"])


def first_seq(*groups_of_lines):
    for lines in groups_of_lines:
        for line in lines:
            found = RECORD_LINE.fullmatch(text_of(line))
            if found:
                return int(found["seq"])
    return 0


def end_export(anchor, chain):
    problem = chain.keys.disbelieve(anchor, "export-end")
    if problem:
        raise Bad(chain.seq, f"the last line is not believed: {problem}")
    if (anchor["through"], anchor["hash"]) != (chain.seq, chain.hash):
        raise Bad(chain.seq, f"the export ends here, but record {anchor['through']} should be its last")


def anchor_of(match):
    anchor = {name: match[name] for name in ("hash", "key", "signature")}
    return {**anchor, "through": int(match["through"]), "time": int(match["time"])}


# A store: the tables `records` and `meta` of an SQLite database

COLUMNS = "time id decision session agent class host domain action reason findings bytes fresh".split()


def is_database(file):
    with open(file, "rb") as opened:
        return opened.read(16) == b"SQLite format 3\0"


def open_database(file):
    """Opens it for reading only. A gateway may be writing meanwhile: all is read as it stands at one moment."""
    path = urllib.parse.quote(os.path.abspath(file))
    # Without a log nobody has it open, and nothing need be written beside it, such as on a medium that is read-only.
    how = "mode=ro" if os.path.exists(file + "-wal") else "immutable=1"
    database = sqlite3.connect(f"file:{path}?{how}", uri=True, isolation_level=None)
    try:
        database.execute("BEGIN")
        database.execute("SELECT 1 FROM records, meta").fetchone()
    except sqlite3.OperationalError as error:
        if how == "mode=ro":
            raise Unreadable(f"{error}; if nothing can be written beside it, copy it and `{file}-wal` elsewhere")
        raise
    database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    database.row_factory = sqlite3.Row
    return database


def verify_store(database, chain):
    begin_store(database, chain)
    open_decisions, beside = {}, Beside()
    # Up to there the indexes that decisions are searched by know everything. As a search reads it, whatever is there.
    said = "SELECT coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'filed'), 0)"
    filed = database.execute(said).fetchone()[0]
    for row in database.execute("SELECT * FROM records ORDER BY seq"):
        hash = row["hash"].hex() if isinstance(row["hash"], bytes) else None
        record = chain.feed(row["seq"], row["kind"], str(row["record"]), hash)
        seq, column = wrong_column(row, record, open_decisions, chain.first, filed)
        if column:
            chain.records -= 1
            raise Bad(seq, f"the column `{column}` says something else than the record")
        beside.note(row, record)
    # Now and then the gateway notes how far the chain has come.
    mark = meta(database, "mark")
    if isinstance(mark, dict) and type(mark.get("seq")) is int and mark["seq"] > chain.seq:
        raise Bad(chain.seq, f"the chain ends here, but record {mark['seq']} had been written")
    chain.noted.end(chain.seq)
    if filed > chain.seq:
        raise Bad(chain.seq, f"the chain ends here, but record {filed} had been written")
    for seq, decision in open_decisions.items():
        # No outcome came that could have changed the last word.
        if decision["columns"] != (decision["action"], decision["reason"]):
            raise Bad(seq, "the column `action` or `reason` says something else than the record")
    beside.compare(database, chain)


class Beside:
    """What the records say of the tables beside them: findings by kind, agents, sessions."""

    SESSION = "agent label tool command repo branch commit observe".split()

    def __init__(self):
        self.found, self.agents, self.sessions, self.revoked = set(), {}, {}, {}

    def note(self, row, record):
        if kind_of(record) != "event":
            seq = row["seq"] if kind_of(record) == "decision" else row["decision"]
            self.found.update((FINDINGS.index(finding["kind"]), seq) for finding in record["findings"])
        elif record["event"] == "agent_created":
            said = [record["owner"], record["purpose"], record["expires"], record["time"], None]
            self.agents[record["agent"]] = [row["seq"], *said]
        elif record["event"] in ("agent_rotated", "agent_revoked"):
            if record["event"] == "agent_revoked":
                self.revoked[record["agent"]] = row["seq"]
            # Of an agent whose creation was pruned nothing else is known.
            agent = self.agents.get(record["agent"], [None] * 6)
            agent[0] = row["seq"]
            if record["event"] == "agent_rotated":
                agent[3] = record.get("expires")
            else:
                agent[5] = record["time"]
        elif record["event"] == "session_opened":
            said = [record[key] for key in self.SESSION]
            self.sessions[record["session"]] = [row["seq"], *said, record["time"], None, None, None]
        elif record["event"] == "session_ended" and record["session"] in self.sessions:
            session = self.sessions[record["session"]]
            if session[-1] is None:
                session[0] = row["seq"]
                session[-3:] = [record["exit_code"], record["why"], record["time"]]

    def compare(self, database, chain):
        bounds = (chain.first - 1, chain.seq)
        found = database.execute("SELECT kind, seq FROM found WHERE seq > ? AND seq <= ?", bounds)
        # The outcome of a decision that was pruned has nobody to be found by.
        if {tuple(row) for row in found} != {pair for pair in self.found if pair[1] >= chain.first}:
            raise Bad(chain.seq, "the table `found` has other decisions than those with findings")
        for digest, text in database.execute("SELECT digest, text FROM policies"):
            if "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() != digest:
                raise Bad(chain.seq, f"the table `policies` does not say what `{digest}` is the digest of")
        agents = "SELECT name, owner, purpose, expires, created, revoked FROM agents"
        sessions = (
            "SELECT id, agent, label, tool, command, repo, branch, commit_id, observe, started, exit_code, why, ended "
            "FROM sessions"
        )
        wrong = []
        for table, said, query in (("agents", self.agents, agents), ("sessions", self.sessions, sessions)):
            rows = {row[0]: list(row)[1:] for row in database.execute(query)}
            wrong += [(seq, table, name) for name, (seq, *says) in said.items() if rows.get(name) != says]
            if chain.first == 1:
                # Where nothing was pruned, every row has its record.
                wrong += [(chain.seq, table, name) for name in rows if name not in said]
            if table == "agents":
                wrong += [(seq, table, name) for name, seq in self.revoked.items() if name in rows and rows[name][-1] is None]
        if wrong:
            seq, table, name = min(wrong)
            raise Bad(seq, f"the table `{table}` does not say of `{name}` what the records say")


def begin_store(database, chain):
    """A pruned chain begins where the row `pruned` says; it is signed, so that nobody else can move it."""
    pruned = meta(database, "pruned")
    if pruned is None:
        return
    first = database.execute("SELECT coalesce(min(seq), 0) FROM records").fetchone()[0]
    anchor = isinstance(pruned, dict) and {key: pruned.get(key) for key in pruned if key != "records"}
    if not is_anchor(anchor) or not TYPES["number"](pruned.get("records")):
        raise Bad(first, "what says where the pruned chain begins cannot be read")
    problem = chain.keys.disbelieve(anchor, "pruned")
    if problem:
        raise Bad(first, f"what says where the pruned chain begins is not believed: {problem}")
    chain.begin_after(anchor["through"], anchor["hash"])


def meta(database, name):
    row = database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    try:
        return row and json.loads(row["value"])
    except (ValueError, RecursionError):
        return False  # it is there and says nothing


def wrong_column(row, record, open_decisions, first, filed):
    """The record and the name of a column that does not say what it says. Where it has nothing to say it is null."""
    expected = {**dict.fromkeys(COLUMNS), "time": record["time"]}
    kind = kind_of(record)
    if kind != "event":
        expected["findings"] = sum({1 << FINDINGS.index(finding["kind"]) for finding in record["findings"]})
    if kind == "decision":
        expected.update({name: record.get(name) for name in ("id", "session", "agent", "class", "host", "domain")})
        # The last word is its outcome's, if one is to come.
        last_word = (row["action"], row["reason"])
        expected.update(action=last_word[0], reason=last_word[1])
        # A search looks through what comes after all that is filed, and finds the rest by the indexes.
        expected["fresh"] = 1 if row["fresh"] == 1 and row["seq"] > filed else None
        decision = {name: record[name] for name in ("id", "action", "reason")}
        open_decisions[row["seq"]] = {**decision, "columns": last_word}
    if kind == "outcome":
        expected["bytes"] = min(record["request_bytes"], 2**63 - 1)
        expected["decision"] = row["decision"]
        decision = open_decisions.pop(row["decision"], None)
        # Of a decision that was pruned nothing is left to compare with.
        was_pruned = type(row["decision"]) is int and 0 < row["decision"] < first
        was_read = decision is None and any(one["id"] == record["decision"] for one in open_decisions.values())
        if decision is None and (not was_pruned or was_read) or decision and decision["id"] != record["decision"]:
            return row["seq"], "decision"
        if decision and decision["columns"] != (record["action"], record["reason"]):
            return row["decision"], "action"
    return row["seq"], next((name for name in COLUMNS if row[name] != expected[name]), None)


# Signed points, "anchors": number and hash of a record, signed for one purpose


class Keys:
    """The keys that are trusted; without any, whatever key an anchor names."""

    def __init__(self, trusted):
        self.trusted = trusted and set(trusted)
        self.seen = {}

    def disbelieve(self, anchor, purpose):
        """Why an anchor is not believed; `None` where it is."""
        if not is_anchor(anchor):
            return "it is not a signed point"
        if self.trusted and anchor["key"] not in self.trusted:
            return f"it is signed by {anchor['key']}, which is not trusted"
        # Five lines of ASCII, each ended by a line feed. The purpose keeps one use from passing for another.
        statement = f"outgate-audit-1\n{purpose}\n{anchor['through']}\n{anchor['hash']}\n{anchor['time']}\n"
        key, signature = bytes.fromhex(anchor["key"]), bytes.fromhex(anchor["signature"])
        if not ed25519_verify(key, statement.encode(), signature):
            return "its signature does not fit"
        self.seen[anchor["key"]] = True
        return None


def is_anchor(value):
    def hexadecimal(name, digits):
        return isinstance(value[name], str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value[name])

    return (
        isinstance(value, dict)
        and value.keys() == {"hash", "key", "signature", "through", "time"}
        and bool(hexadecimal("hash", 64) and hexadecimal("key", 64) and hexadecimal("signature", 128))
        and TYPES["number"](value["through"])
        and TYPES["integer"](value["time"])
    )


def trusted_keys(named):
    """The keys of the option `--key`: one, or a file with one a line."""
    if re.fullmatch("[0-9a-fA-F]{64}", named):
        return [named.lower()]
    with open(named, encoding="ascii", errors="replace") as file:
        keys = [line.strip().lower() for line in file if line.strip()]
    if not keys or not all(re.fullmatch("[0-9a-f]{64}", key) for key in keys):
        raise Unreadable(f"`{named}` does not hold one key of 64 hexadecimal digits a line")
    return keys


class Noted:
    """Checkpoints kept where whoever can change the store cannot change them."""

    def __init__(self, file, keys):
        self.keys, self.anchors, self.count, self.compared = keys, {}, 0, 0
        if file is None:
            return
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"}\n"):
                    continue  # what a gateway that died had begun to write
                match = re.fullmatch(ANCHOR, text_of(line))
                if not match:
                    raise Unreadable(f"line {number} of `{file}` is no checkpoint")
                anchor = anchor_of(match)
                self.anchors.setdefault(anchor["through"], []).append(anchor)
                self.count += 1

    def compare(self, seq, hash):
        """Holds the chain's hash of a record against what was noted of it."""
        for anchor in self.anchors.pop(seq, []):
            self.believe(anchor, seq)
            if anchor["hash"] != hash:
                raise Bad(seq, "its hash is not the one in a checkpoint kept elsewhere")
            self.compared += 1

    def end(self, seq):
        """What was noted of records after the last one. What speaks of pruned ones cannot be compared any more."""
        beyond = [anchor for anchors in self.anchors.values() for anchor in anchors if anchor["through"] > seq]
        for anchor in beyond:
            self.believe(anchor, seq)
        if beyond:
            last = max(anchor["through"] for anchor in beyond)
            raise Bad(seq, f"the chain ends here, but a checkpoint kept elsewhere speaks of record {last}")

    def believe(self, anchor, seq):
        problem = self.keys.disbelieve(anchor, "checkpoint")
        if problem:
            raise Bad(seq, f"a checkpoint kept elsewhere is not believed: {problem}")


# Ed25519 (RFC 8032), verification only. Points are (X, Y, Z, T) with x = X/Z, y = Y/Z and xy = T/Z.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)  # of -1
NEUTRAL = (0, 1, 1, 0)


def ed25519_verify(key, message, signature):
    point, s = decompress(key), int.from_bytes(signature[32:], "little")
    # A signature with another `s` for the same message must not be had by adding L (section 5.1.7).
    if len(signature) != 64 or point is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    x, y, z, t = point
    # R = sB - kA. Comparing bytes also refuses an R that is not written in the one way it should be.
    return compress(sum_of_multiples(s, BASE, k, (-x % P, y, z, -t % P))) == signature[:32]


def decompress(data):
    """The point; `None` where the bytes are none, or not as a point is written (section 5.1.3)."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255
    if len(data) != 32 or y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * v**3 * pow(u * v**7, (P - 5) // 8, P) % P
    if (v * x * x + u) % P == 0:
        x = x * ROOT % P
    if (v * x * x - u) % P or (x == 0 and sign):
        return None
    x = P - x if x % 2 != sign else x
    return (x, y, 1, x * y % P)


def compress(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def add(one, other):
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def double(point):
    x, y, z, _ = point
    a, b = x * x % P, y * y % P
    h = a + b
    e, g = h - (x + y) * (x + y) % P, a - b
    f = 2 * z * z % P + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def sum_of_multiples(m, one, n, other):
    """m · one + n · other, both at once: one doubling for each bit."""
    choices = (None, one, other, add(one, other))
    total = NEUTRAL
    for bit in range(max(m.bit_length(), n.bit_length()) - 1, -1, -1):
        total = double(total)
        choice = choices[(m >> bit & 1) | (n >> bit & 1) << 1]
        if choice:
            total = add(total, choice)
    return total


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


# The self-test: the vectors of RFC 8032, then a chain good and tampered with, as an export and as a store. It signs
# with the secret key of the RFC's first vector, which the worked example of docs/audit-format.md does as well.


def ed25519_sign(secret, message):
    """Gives the public key and the signature."""
    digest = hashlib.sha512(secret).digest()
    a = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254

    def multiple(n):
        return compress(sum_of_multiples(n, BASE, 0, NEUTRAL))

    def number(*parts):
        return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L

    key = multiple(a)
    r = number(digest[32:], message)
    point = multiple(r)
    return key, point + ((r + number(point, key, message) * a) % L).to_bytes(32, "little")


VECTORS = [  # section 7.1: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b"
        "be24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb430"
        "2aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716e"
        "d28dc027beceea1ec40a",
    ),
]
TEST_KEY, OTHER_KEY = (bytes.fromhex(vector[0]) for vector in VECTORS[:2])
MOMENT = 1_795_000_000_000_000


def self_test():
    failures = []

    def expect(sentence, found, expected):
        if found != expected:
            failures.append(f"{sentence}: {found}, not {expected}")

    test_signatures(expect)
    test_canonical_form(expect)
    test_exports(expect)
    test_stores(expect)
    print("\n".join(failures) or "the self-test passed")
    return 1 if failures else 0


def test_signatures(expect):
    for secret, key, message, signature in ([bytes.fromhex(part) for part in vector] for vector in VECTORS):
        expect("a vector signed", ed25519_sign(secret, message), (key, signature))
        expect("a vector verified", ed25519_verify(key, message, signature), True)
        expect("another message", ed25519_verify(key, message + b"x", signature), False)
        for place in (0, 31, 32, 63):
            touched = bytearray(signature)
            touched[place] ^= 1
            expect(f"byte {place} touched", ed25519_verify(key, message, bytes(touched)), False)
        s = int.from_bytes(signature[32:], "little") + L
        expect("s not below L", ed25519_verify(key, message, signature[:32] + s.to_bytes(32, "little")), False)
        expect("a signature cut short", ed25519_verify(key, message, signature[:63]), False)
    for sentence, number in [
        ("y is p", P), ("y is p + 1, which is 1", P + 1), ("x is 0 and has a sign", 1 | 1 << 255), ("no point", 2),
    ]:  # fmt: skip
        expect(f"a key of which {sentence}", decompress(number.to_bytes(32, "little")), None)
    # With the neutral point as key anything could be signed for by R = sB; written in its one way it is a point.
    expect("the neutral point", decompress((1).to_bytes(32, "little")), (0, 1, 1, 0))


def test_canonical_form(expect):
    for text, canonical in [
        ('{"a":1,"b":[null,true,"\u00e9\\n\\u001f"]}', True), ('{"b":1,"a":1}', False), ('{"a":1, "b":1}', False),
        ('{"a":1,"a":1}', False), ('{"a":1.0}', False), ('{"a":1e3}', False), ('{"a":-0}', False), ('{"a":01}', False),
        ('{"a":NaN}', False), ('{"a":"\\u00e9"}', False), ('{"a":"\\/"}', False), ('{"a":"\\ud800"}', False),
        ('{"a":"\\u001F"}', False), ('{"a":1}\n', False), ("[" * 100_000, False), ("", False), ('{"a":"\udc80"}', False),
    ]:  # fmt: skip
        expect(f"the text {text[:40]!a}", parse(text) is not None, canonical)


def test_anchor(purpose, seq, hash, secret=TEST_KEY, time=MOMENT):
    key, signature = ed25519_sign(secret, f"outgate-audit-1\n{purpose}\n{seq}\n{hash}\n{time}\n".encode())
    return {"hash": hash, "key": key.hex(), "signature": signature.hex(), "through": seq, "time": time}


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_chain():
    """Rows of seq, kind, text and hash: an event, an exchange, a refused exchange, a checkpoint, an open exchange."""
    decision = {name: None for name in DECISION}
    decision.update(action="allow", agent="claude", findings=[{"kind": "git_push"}], id="01M7Q5CQKV0000000000000001")
    decision.update({"class": "unknown"}, host="evil.example", kind="http", mode="enforce", policy="sha256:00")
    decision.update(reason="allowed_by_rule", time=MOMENT)
    outcome = {name: None for name in OUTCOME}
    outcome.update(action="allow", decision=decision["id"], findings=[], ns={}, outcome="completed")
    outcome.update(reason="allowed_by_rule", request_bytes=12, response_bytes=34, time=MOMENT + 2)
    second = {**decision, "id": "01M7Q5CQKV0000000000000002"}
    cut = {**outcome, "decision": second["id"], "action": "deny", "reason": "secret_found", "outcome": "cut"}
    started = {"by": None, "configuration": None, "event": "started", "time": MOMENT, "version": "0.1.0"}
    rows = []
    for record in [started, decision, outcome, second, cut, None, {**decision, "id": "01M7Q5CQKV0000000000000003"}]:
        seq, previous = len(rows) + 1, rows[-1][3] if rows else ZERO
        if record is None:
            record = {"by": None, "event": "checkpoint", **test_anchor("checkpoint", seq - 1, previous)}
        rows.append(test_row(seq, kind_of(record), canonical(record), previous))
    return rows


def test_row(seq, kind, text, previous):
    return [seq, kind, text, hashlib.sha256(bytes.fromhex(previous) + text.encode()).hexdigest()]


def rehash(rows, record, changed):
    """What somebody could do who can write, but not sign: change a record and compute all hashes after it anew."""
    rows[record - 1][2] = rows[record - 1][2].replace(*changed)
    previous = rows[record - 2][3] if record > 1 else ZERO
    for place in range(record - 1, len(rows)):
        rows[place] = test_row(*rows[place][:3], previous)
        previous = rows[place][3]


def test_export(rows, first=None, last=None):
    first = first or test_anchor("export-start", 0, ZERO)
    last = last or test_anchor("export-end", rows[-1][0] if rows else 0, rows[-1][3] if rows else ZERO)
    lines, previous = [canonical({"export": 1, "follows": first, "version": "0.1.0"})], first["hash"]
    for seq, kind, text, hash in rows:
        place = f'{{"hash":"{hash}","kind":"{kind}","previous":"{previous}","seq":{seq},"record":{text}}}'
        lines.append(place)
        previous = hash
    return lines + [canonical({"end": last})]


def first_bad_of(write, keys=None, checkpoints=()):
    """What is found in a file that `write` makes: the number of the first bad record, `None` where there is none."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file, noted = os.path.join(folder, "file"), os.path.join(folder, "noted")
        write(file)
        with open(noted, "w", encoding="ascii") as lines:
            lines.writelines(canonical(anchor) + "\n" for anchor in checkpoints)
        keys = Keys(keys)
        report = verify(file, keys, Noted(noted, keys))
        return report["first_bad"] and report["first_bad"]["seq"]


def written(lines, end="\n"):
    def write(file):
        with open(file, "wb") as opened:
            opened.write("".join(line + end for line in lines).encode("utf-8", "surrogateescape"))

    return write


def test_exports(expect):
    rows = test_chain()
    whole = test_export(rows)
    key = test_anchor("checkpoint", 0, ZERO)["key"]
    other = test_anchor("checkpoint", 0, ZERO, OTHER_KEY)["key"]
    hash = [ZERO] + [row[3] for row in rows]

    def without(place):
        return whole[:place] + whole[place + 1 :]

    def changed(place, *pair):
        return whole[:place] + [whole[place].replace(*pair)] + whole[place + 1 :]

    later = test_export(rows[2:], first=test_anchor("export-start", 2, hash[2]))
    for sentence, lines, seq in [
        ("a whole export", whole, None),
        ("an export from record 3 on", later, None),
        ("an export of nothing", test_export([]), None),
        ("the first line missing", without(0), 1),
        ("the first line signed for another use", test_export(rows, first=test_anchor("export-end", 0, ZERO)), 1),
        ("the first line of another point", test_export(rows, first=test_anchor("export-start", 0, hash[1])), 1),
        ("the first line of another format", changed(0, '"export":1', '"export":2'), 1),
        ("an empty file", [], 0),
        ("the first line alone", whole[:1], 0),
        ("another beginning", test_export(rows[2:], first=test_anchor("export-start", 1, hash[1])), 3),
        ("a record changed", changed(3, "completed", "abandoned"), 3),
        ("a hash changed", changed(3, f'"hash":"{hash[3]}"', f'"hash":"{hash[2]}"'), 3),
        ("`previous` changed", changed(3, f'"previous":"{hash[2]}"', f'"previous":"{hash[3]}"'), 3),
        ("the kind changed", changed(3, '"kind":"outcome"', '"kind":"event"'), 3),
        ("a key added to a line", changed(3, ',"record"', ',"more":1,"record"'), 3),
        ("a key twice in a line", changed(3, '{"hash"', '{"seq":3,"hash"'), 3),
        ("bytes that are no UTF-8", changed(3, "completed", "\udcff"), 3),
        ("a record missing", without(3), 4),
        ("a record twice", whole[:4] + whole[3:], 3),
        ("two records in each other's place", whole[:3] + [whole[4], whole[3]] + whole[5:], 4),
        ("the end cut off before the last line", whole[:-3] + whole[-1:], 5),
        ("the end cut off with the last line", whole[:-3], 5),
        ("a line that is none", whole[:4] + ["{}"] + whole[4:], 4),
        ("the last line signed for another use", test_export(rows, last=test_anchor("pruned", 7, hash[7])), 7),
        ("the last line of another point", test_export(rows, last=test_anchor("export-end", 7, hash[6])), 7),
        ("something after the last line", whole + whole[-1:], 7),
    ]:
        expect(sentence, first_bad_of(written(lines)), seq)
    expect("lines that end otherwise", first_bad_of(written(whole, "\r\n")), 0)
    expect("no line feed at the end", first_bad_of(written(["\n".join(whole)], "")), None)
    expect("the end cut off within a line", first_bad_of(written(["\n".join(whole)[:-800]], "")), 7)
    expect("the key that was trusted", first_bad_of(written(whole), [other, key]), None)
    expect("another key", first_bad_of(written(whole), [other]), 1)
    for sentence, noted, seq in [
        ("a checkpoint kept", [test_anchor("checkpoint", 3, hash[3])], None),
        ("a checkpoint of another chain", [test_anchor("checkpoint", 3, hash[2])], 3),
        ("a checkpoint beyond the end", [test_anchor("checkpoint", 9, hash[3])], 7),
        ("an end passed off as a checkpoint", [test_anchor("export-end", 3, hash[3])], 3),
        ("a checkpoint beyond the end that is none", [test_anchor("export-end", 9, hash[3])], 7),
        ("two checkpoints that contradict", [test_anchor("checkpoint", 3, hash[place]) for place in (3, 2)], 3),
    ]:
        expect(sentence, first_bad_of(written(whole), [key], noted), seq)
    forged = [list(row) for row in rows]
    rehash(forged, 3, ("completed", "abandoned"))
    expect("a chain computed anew", first_bad_of(written(test_export(forged))), 6)
    forged = [list(row) for row in rows]
    rehash(forged, 3, ('"status":null,', ""))
    expect("a key that may be null left out", first_bad_of(written(test_export(forged[:5]))), None)
    rehash(forged, 3, ('"request_bytes":12,', ""))
    expect("a key that may not be null left out", first_bad_of(written(test_export(forged[:5]))), 3)
    rehash(forged, 2, ('"action":"allow",', '"action" : "allow",'))
    expect("white space", first_bad_of(written(test_export(forged[:5]))), 2)


def test_store(rows, statements=(), meta=()):
    def write(file):
        database = sqlite3.connect(file, isolation_level=None)
        columns = ", ".join(f"{name} {'TEXT' if name not in NUMBERS else 'INTEGER'}" for name in COLUMNS)
        database.execute(f"CREATE TABLE records (seq INTEGER PRIMARY KEY, kind TEXT, {columns}, record TEXT, hash BLOB)")
        database.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
        database.execute("CREATE TABLE found (kind INTEGER, seq INTEGER)")
        database.execute("CREATE TABLE agents (name, owner, purpose, expires, created, revoked)")
        texts = ", ".join(f"{name} TEXT" for name in "id agent label tool command repo branch commit_id why".split())
        numbers = "observe INTEGER, started INTEGER, ended INTEGER, exit_code INTEGER"
        database.execute(f"CREATE TABLE sessions ({texts}, {numbers})")
        database.execute("CREATE TABLE policies (digest TEXT, text TEXT)")
        decisions = {}
        for seq, kind, text, hash in rows:
            record = json.loads(text)
            row = {"time": record["time"]}
            if kind == "decision":
                decisions[record["id"]] = seq
                row.update({name: record[name] for name in COLUMNS if name in record and name != "findings"})
                row["findings"] = 128
                database.execute("INSERT INTO found VALUES (7, ?)", (seq,))
            if kind == "outcome":
                row.update(decision=decisions.get(record["decision"], 2), findings=0, bytes=12)
                last_word = (record["action"], record["reason"], row["decision"])
                database.execute("UPDATE records SET action = ?, reason = ? WHERE seq = ?", last_word)
            values = [seq, kind, *(row.get(name) for name in COLUMNS), text, bytes.fromhex(hash)]
            database.execute(f"INSERT INTO records VALUES ({', '.join('?' * len(values))})", values)
        database.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        first = rows[0][0] if rows else 1
        database.execute("DELETE FROM found WHERE seq < ?", (first,))
        for statement in statements:
            database.execute(statement)
        database.close()

    return write


NUMBERS = ("time", "decision", "findings", "bytes", "fresh")


def test_stores(expect):
    rows = test_chain()
    for statement, seq in [
        ("SELECT 1", None),
        ("UPDATE records SET record = replace(record, 'evil', 'good') WHERE seq = 2", 2),
        ("UPDATE records SET hash = zeroblob(32) WHERE seq = 5", 5),
        ("UPDATE records SET kind = 'event' WHERE seq = 3", 3),
        ("UPDATE records SET time = time + 1 WHERE seq = 1", 1),
        ("UPDATE records SET id = 'other' WHERE seq = 2", 2),
        ("UPDATE records SET session = 'other' WHERE seq = 2", 2),
        ("UPDATE records SET agent = 'other' WHERE seq = 2", 2),
        ("UPDATE records SET class = 'model' WHERE seq = 2", 2),
        ("UPDATE records SET host = 'good.example' WHERE seq = 2", 2),
        ("UPDATE records SET domain = 'good.example' WHERE seq = 2", 2),
        ("UPDATE records SET findings = 0 WHERE seq = 2", 2),
        ("UPDATE records SET bytes = 1 WHERE seq = 3", 3),
        ("UPDATE records SET fresh = 1 WHERE seq = 2", None),
        ("UPDATE records SET fresh = 2 WHERE seq = 2", 2),
        ("UPDATE records SET fresh = 1 WHERE seq = 3", 3),
        ("INSERT INTO meta VALUES ('filed', '7')", None),
        ("INSERT INTO meta VALUES ('filed', '8')", 7),
        ("UPDATE records SET host = 'good.example' WHERE seq = 3", 3),
        ("UPDATE records SET action = 'deny' WHERE seq = 1", 1),
        ("UPDATE records SET action = 'deny' WHERE seq = 2", 2),
        ("UPDATE records SET action = 'allow', reason = 'allowed_by_rule' WHERE seq = 4", 4),
        ("UPDATE records SET reason = 'denied_by_rule' WHERE seq = 7", 7),
        ("UPDATE records SET decision = NULL WHERE seq = 5", 5),
        ("UPDATE records SET decision = 2 WHERE seq = 5", 5),
        ("UPDATE records SET decision = 99 WHERE seq = 5", 5),
        ("DELETE FROM records WHERE seq = 1", 2),
        ("DELETE FROM records WHERE seq = 4", 5),
        ("DELETE FROM records WHERE seq = 7", 6),
        ("UPDATE records SET seq = 8 WHERE seq = 7", 8),
        ("DELETE FROM records", 0),
    ]:
        write = test_store(rows, [statement], [("mark", '{"hash":"","open":[],"seq":7}')])
        expect(statement, first_bad_of(write), seq)

    def pruned(anchor, keep=2):
        return test_store(rows[keep:], meta=[("pruned", canonical({**anchor, "records": 2}))])

    right = test_anchor("pruned", 2, rows[1][3])
    expect("a pruned store", first_bad_of(pruned(right)), None)
    expect("more missing than was pruned", first_bad_of(pruned(right, 3)), 4)
    expect("pruned by a stranger", first_bad_of(pruned(right), [VECTORS[1][1]]), 3)
    expect("pruned with a checkpoint", first_bad_of(pruned(test_anchor("checkpoint", 2, rows[1][3]))), 3)
    expect("pruned to nothing", first_bad_of(pruned(test_anchor("pruned", 7, rows[6][3]), 7)), None)
    expect("pruned without a word", first_bad_of(test_store(rows[2:])), 3)
    expect("pruned with an odd word", first_bad_of(test_store(rows[2:], meta=[("pruned", "{")])), 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
