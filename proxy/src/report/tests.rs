use std::collections::BTreeSet;

use policy::event::{Event, Happening, SessionEnd};
use policy::redact::Redacted;
use policy::report::{
    AgentRow, AgentStatus, Amount, Builder, ChainStatus, CheckpointSeen, Moment, Report, Scope, SessionRow,
};
use policy::verdict::Mode;
use policy::view::{DecisionView, rfc3339};
use serde_json::{Value, json};

use super::{html, markdown};
use crate::cli::summary::tests::view;

const BEGIN: i64 = 1_795_672_800_000_000;

/// What somebody might write where text is taken.
const HOSTILE: [&str; 18] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</title></style></svg>",
    "]]><!-- -->",
    "&lt;script&gt;&#60;",
    "a|b\\|c",
    "`one` ``two`` ```",
    "``` ",
    "line\nbreak\r\n# heading",
    "@team #1 GH-1",
    "](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "gpj.\u{202e}exe\u{200b}",
    "nul\u{0}esc\u{1b}[31m\u{9b}31m",
    "${{ secrets }} {{ x }} $`x`$",
    "\\",
];

fn redacted(text: &str) -> Redacted {
    Redacted::from_store(text.to_owned())
}

/// A decision with the text in every field that can carry any.
fn hostile_view(text: &str, changes: Value) -> DecisionView {
    let mut fields = json!({
        "time": rfc3339(BEGIN), "host": text, "domain": text, "rule": text, "owner": text, "service": text,
        "path": text, "method": text, "policy": text, "class": "unknown",
        "body": {"excerpt": text, "truncated": false, "content_type": text},
        "findings": [
            {"kind": "secret", "detector": text, "count": 1, "where": text, "key": "hmac:0"},
            {"kind": "credential_used", "detector": text, "where": text, "key": "hmac:0"},
            {"kind": "large_upload", "bytes": 3, "limit": 2, "of": text},
            {"kind": "lookalike_domain", "of": text},
            {"kind": "model_shaped", "api": text},
            {"kind": "undecodable", "encoding": text}
        ]
    });
    let (Some(map), Value::Object(changes)) = (fields.as_object_mut(), changes) else { unreachable!() };
    map.extend(changes);
    view(fields)
}

/// A report with the text everywhere.
fn hostile(text: &str) -> Report {
    let scope = Scope::default();
    let mut builder = Builder::new(scope, Some((Moment(BEGIN), Moment(BEGIN + 60_000_000))));
    let own = || Some(text.to_owned());
    builder.session(SessionRow {
        session: serde_json::from_value(json!("01M7Q5CQG00000000000000001")).unwrap(),
        agent: "claude".parse().unwrap(),
        label: own(),
        tool: own(),
        repo: own(),
        branch: own(),
        commit: own(),
        model: own(),
        observe: true,
        started: Moment(BEGIN),
        ended: Some(Moment(BEGIN)),
        exit_code: Some(1),
        why: Some(SessionEnd::Exited),
        amount: Amount::default(),
    });
    builder.agent(AgentRow {
        agent: "claude".parse().unwrap(),
        owner: own(),
        purpose: own(),
        status: Some(AgentStatus::Active),
        expires: Some(Moment(BEGIN)),
        amount: Amount::default(),
        secrets: 0,
    });
    builder.add(&hostile_view(text, json!({})));
    builder.add(&hostile_view(
        text,
        json!({"service": null, "action": "allow", "reason": "allowed_by_observe",
        "would": "deny", "would_reason": "denied_by_rule", "outcome": "completed", "request_bytes": 9}),
    ));
    for what in [
        Happening::ApprovalAnswered {
            approval: text.into(),
            answer: text.into(),
            scope: text.into(),
            agent: None,
            destination: None,
            rule: None,
        },
        Happening::PolicyInForce { policy: text.into(), mode: Mode::Enforce, previous: Some(text.into()) },
        Happening::ConfigurationChanged { configuration: text.into(), keys: vec![text.into()] },
        Happening::Started { version: text.into(), configuration: None },
    ] {
        builder.event(1, &Event { time: BEGIN, by: Some(redacted(text)), what });
    }
    let seen = CheckpointSeen { through: 1, time: Moment(BEGIN), key: text.to_owned() };
    builder.finish("0.1.0", Moment(BEGIN), Some(chain(Some(seen))))
}

fn chain(last_checkpoint: Option<CheckpointSeen>) -> ChainStatus {
    ChainStatus {
        checked_from: 1,
        checked_through: 4,
        records: 4,
        intact: true,
        problem: None,
        checkpoints: 1,
        last_checkpoint,
    }
}

/// The tags of a page, without what stands in quotes.
fn tags(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        let (mut tag, mut quoted, mut length) = (String::new(), false, 0);
        for character in after.chars() {
            length += character.len_utf8();
            match character {
                '"' => quoted = !quoted,
                '>' if !quoted => break,
                _ if quoted => {}
                other => tag.push(other),
            }
        }
        tags.push(tag);
        rest = &after[length..];
    }
    tags
}

#[test]
fn no_text_can_become_part_of_the_page() {
    // No host either, as none of the hostile ones is: nothing is advised about it.
    let plain = tags(&html::page(&hostile("plain text")));
    assert!(plain.len() > 400, "the page is gone");
    for text in HOSTILE {
        let page = html::page(&hostile(text));
        assert!(tags(&page) == plain, "{text:?} changes the page's structure");
        assert!(!page.contains(['\0', '\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}', '\r']), "{text:?}");
    }
}

#[test]
fn the_page_needs_nothing_and_runs_nothing() {
    let page = html::page(&hostile("plain"));
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{}", &page[..60]);
    assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'; img-src data:"));
    for absent in
        ["<script", "<link", "<img", "<iframe", " src=", " href=", "@import", "http://", "https://", " on"]
    {
        let found = page.split("</style>").flat_map(tags).any(|tag| format!("<{tag}").contains(absent));
        assert!(!found, "`{absent}` is in the page");
    }
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    assert!(!style.contains("http") && !style.contains("@import"));
    for present in
        ["prefers-color-scheme: dark", "@media print", "@page", "table-header-group", "break-inside: avoid"]
    {
        assert!(style.contains(present), "`{present}` is not in the style");
    }
}

#[test]
fn every_table_is_named_and_every_column_headed() {
    let page = html::page(&hostile("plain"));
    let tables: Vec<&str> =
        page.split("<table").skip(1).map(|rest| rest.split("</table>").next().unwrap()).collect();
    assert_eq!(tables.len(), 16, "one for each section, and one more for some");
    for table in tables {
        assert!(table.split_once('>').unwrap().1.starts_with("<caption>"), "{table}");
        let (head, body) = table.split_once("<tbody>").unwrap();
        let columns = head.matches("scope=\"col\"").count();
        for row in body.split("<tr").skip(1).filter(|row| !row.contains("colspan")) {
            let cells = row.matches("<td").count() + row.matches("<th").count();
            assert_eq!(cells, columns, "{row}");
        }
        assert!(body.contains("scope=\"row\""), "{body}");
    }
    for id in ["timeline-title", "sent-title"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "the chart of `{id}`");
    }
}

#[test]
fn a_report_of_nothing_is_one_line_a_section() {
    let report = Builder::new(Scope::default(), None).finish("0.1.0", Moment(BEGIN), None);
    let page = html::page(&report);
    assert!(
        page.contains("No request was recorded")
            && !page.contains("<table")
            && !page.contains("role=\"img\"")
    );
    assert!(
        page.contains("Nothing was denied.") && page.contains("There is no record of the period to check.")
    );
    let text = markdown::text(&report);
    assert!(
        text.contains("**No request was recorded") && !text.contains("| ") && !text.contains("<details>"),
        "{text}"
    );
}

#[test]
fn a_record_that_is_not_intact_is_said_at_the_top() {
    let mut builder = Builder::new(Scope::default(), None);
    builder.add(&view(json!({})));
    let problem = Some("record 3: the hash does not fit".to_owned());
    let status = ChainStatus {
        intact: false,
        problem,
        records: 2,
        checked_from: 1,
        checked_through: 2,
        ..chain(None)
    };
    let report = builder.finish("0.1.0", Moment(BEGIN), Some(status));
    let page = html::page(&report);
    assert!(page.contains(
        r#"<p class="verdict bad">1 request to 1 destination; 1 denied; the record is NOT intact.</p>"#
    ));
    let text = markdown::text(&report).replace('`', "");
    for text in [page, text] {
        assert!(text.contains("NOT intact: record 3: the hash does not fit. 2 records were checked."));
    }
}

#[test]
fn every_key_of_the_data_is_explained() {
    fn gather(value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                keys.extend(object.keys().cloned());
                object.values().for_each(|value| gather(value, keys));
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, keys)),
            _ => {}
        }
    }
    let page = include_str!("../../../docs/report.md");
    let mut keys = BTreeSet::new();
    gather(&serde_json::to_value(hostile("plain text")).unwrap(), &mut keys);
    assert!(keys.len() > 80, "the report's shape has changed: {keys:?}");
    for key in keys.iter().filter(|key| !["rows", "omitted"].contains(&key.as_str())) {
        assert!(page.contains(&format!("`{key}`")), "docs/report.md does not explain `{key}`");
    }
}

/// What a reader of Markdown takes as code, taken out: fences of backticks and what is between equal ones.
fn without_code(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        plain.push_str(&rest[..start]);
        let run = rest[start..].chars().take_while(|c| *c == '`').count();
        let mut after = start + run;
        // The next run of exactly as many (CommonMark, section 6.1).
        let end = loop {
            let next =
                after + rest[after..].find('`').unwrap_or_else(|| panic!("a span without end: {line}"));
            let length = rest[next..].chars().take_while(|c| *c == '`').count();
            after = next + length;
            if length == run {
                break after;
            }
        };
        rest = &rest[end..];
    }
    plain + rest
}

/// The cells of a row as GitHub cuts it: at every `|` without a backslash before it.
fn cells(line: &str) -> usize {
    let bars = line.char_indices().filter(|(at, c)| *c == '|' && !line[..*at].ends_with('\\')).count();
    bars - 1
}

#[test]
fn no_text_can_become_markdown() {
    let shape = |text: &str| -> Vec<String> { text.lines().map(without_code).collect() };
    let plain = shape(&markdown::text(&hostile("plain")));
    assert!(plain.len() > 100, "the text is gone");
    for text in HOSTILE {
        let written = markdown::text(&hostile(text));
        let written_shape = shape(&written);
        assert_eq!(written_shape, plain, "{text:?} changes the structure");
        let mut columns = 0;
        for line in written.lines() {
            match line.starts_with('|') {
                true if columns == 0 => columns = cells(line),
                true => assert_eq!(cells(line), columns, "{text:?}: {line}"),
                false => columns = 0,
            }
        }
        assert!(!written.contains(['\0', '\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}', '\r']), "{text:?}");
    }
}

#[test]
fn a_text_for_a_comment_fits_into_one_whatever_the_records_hold() {
    let mut builder = Builder::new(Scope::default(), Some((Moment(BEGIN), Moment(BEGIN))));
    for number in 0..3000 {
        let text = format!("{number}{}", "`|\u{202e}".repeat(400));
        builder.add(&hostile_view(&text, json!({"class": "tool"})));
        builder.add(&hostile_view(
            &text,
            json!({"action": "allow", "reason": "allowed_by_rule",
            "service": null, "outcome": "completed"}),
        ));
    }
    let report = builder.finish("0.1.0", Moment(BEGIN), Some(chain(None)));
    let text = markdown::text(&report);
    assert!(text.len() < 65_536, "{} bytes", text.len());
    assert!(text.contains("rows left out here.") && text.ends_with("</sub>\n"), "it was cut, not shortened");
    let page = html::page(&report);
    assert!(page.contains("2800 more rows stand in the JSON form"), "a page of 3000 rows is no page");
}
