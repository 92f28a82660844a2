use super::*;
use crate::secret::{Detector, KnownValue};

fn redactor() -> Redactor {
    let known = KnownValue::new("env:DB_PASSWORD", b"Tr0ub4dor&3-horse").expect("long enough");
    Redactor::new(Arc::new(Secrets::new(vec![known])))
}

fn example(name: &str) -> String {
    let [plain, _] = Detector::named(name).expect("a detector").examples();
    plain
}

#[test]
fn secrets_in_text_give_way_to_their_name() {
    let key = example("anthropic-api-key");
    let redactor = redactor();
    for (text, expected) in [
        (format!("key {key} end"), "key [redacted:anthropic-api-key] end"),
        ("pass Tr0ub4dor&3-horse end".to_owned(), "pass [redacted:known:env:DB_PASSWORD] end"),
        ("pass Tr0ub4dor%263-horse end".to_owned(), "pass [redacted:known:env:DB_PASSWORD] end"),
        ("\u{1b}[31mred\u{1b}[0m\r\n".to_owned(), "\\u{1b}[31mred\\u{1b}[0m\\r\\n"),
        ("a\u{202e}b".to_owned(), "a\\u{202e}b"),
    ] {
        assert_eq!(redactor.text(&text).as_str(), expected);
    }
    assert_eq!(redactor.text(b"caf\xe9 \xff").as_str(), "caf\u{fffd} \u{fffd}");
    let glued = [key.as_bytes(), b"\xff"].concat();
    assert_eq!(redactor.text(glued).as_str(), "[redacted:anthropic-api-key]\u{fffd}");
}

#[test]
fn paths_keep_their_shape_and_lose_their_values() {
    let key = example("stripe-live-key");
    let redactor = redactor();
    for (path, expected) in [
        ("/upload?token=abc&v=1".to_owned(), "/upload?token=[redacted:query]&v=[redacted:query]"),
        ("/plain/path".to_owned(), "/plain/path"),
        (format!("/v1/{key}/x"), "/v1/[redacted:stripe-live-key]/x"),
        (format!("/?{key}"), "/?[redacted:query]"),
        (format!("/?{key}=1"), "/?[redacted:stripe-live-key]=[redacted:query]"),
        ("/a?".to_owned(), "/a?"),
        ("/a#frag=1".to_owned(), "/a#frag=[redacted:query]"),
    ] {
        assert_eq!(redactor.path(&path).as_str(), expected, "{path}");
    }
}

#[test]
fn urls_lose_their_credentials_and_hosts_their_secret_labels() {
    let redactor = redactor();
    for (url, expected) in [
        ("https://me:hunter22@h.example/p?q=1", "https://h.example/p?q=[redacted:query]"),
        ("https://h.example:8443/", "https://h.example:8443/"),
        ("https://a@b@h.example", "https://h.example"),
        ("/only/path?x=1", "/only/path?x=[redacted:query]"),
    ] {
        assert_eq!(redactor.url(url).as_str(), expected, "{url}");
    }
    let access = example("aws-access-key").to_lowercase();
    assert_eq!(
        redactor.host(format!("{access}.wild.example:443")).as_str(),
        "[redacted:aws-access-key].wild.example:443"
    );
    assert_eq!(redactor.host("docs.rs").as_str(), "docs.rs");
}

#[test]
fn only_headers_known_to_be_plain_keep_their_values() {
    let redactor = redactor();
    for (name, value, expected) in [
        ("Content-Type", "text/plain", "text/plain"),
        ("referer", "https://x.example/?token=abc", "https://x.example/?token=[redacted:query]"),
        ("Authorization", "Bearer x", "[redacted:header]"),
        ("x-my-token", "1", "[redacted:header]"),
        ("cookie", "a=b", "[redacted:header]"),
    ] {
        assert_eq!(redactor.header_value(name, value).as_str(), expected, "{name}");
    }
}

#[test]
fn a_cut_through_a_secret_stores_no_part_of_it() {
    let key = example("anthropic-api-key");
    let redactor = redactor();
    for before in 0..key.len() + 20 {
        let body = format!("{}{key} and more text after it", ".".repeat(before));
        for limit in [8, 40, 64, 100] {
            let (text, _) = redactor.excerpt(body.as_bytes(), limit);
            assert!(text.as_str().len() <= limit, "{before} {limit}");
            for window in key.as_bytes().windows(8) {
                let window = std::str::from_utf8(window).expect("ASCII");
                assert!(!text.as_str().contains(window), "{before} {limit}: {text}");
            }
        }
    }
}

#[test]
fn an_excerpt_knows_nothing_of_people() {
    let (text, truncated) = redactor().excerpt(b"ana@example.com paid with 4111 1111 1111 1111", 4096);
    assert_eq!(text.as_str(), "[redacted:email] paid with [redacted:card-number]");
    assert!(!truncated);
}

#[test]
fn long_fields_are_cut_with_a_mark() {
    let text = redactor().text("ü".repeat(5000));
    assert!(text.as_str().len() <= LONGEST_FIELD);
    assert!(text.as_str().ends_with(CUT));
}
