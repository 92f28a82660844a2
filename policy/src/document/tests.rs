//! Uniting files, and printing what they come to.

use proptest::prelude::*;

use super::*;

fn read(texts: &[&str]) -> Document {
    let names = ["one.toml", "two.toml", "three.toml"];
    let sources: Vec<Source<'_>> =
        names.into_iter().zip(texts).map(|(name, text)| Source { name, text }).collect();
    parse(&sources, Catalogue::builtin())
        .unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{}", texts.join("\n---\n")))
}

#[test]
fn lists_unite_and_of_two_scalars_the_stricter_wins() {
    let one = r#"
        mode = "observe"
        allow = ["a.test"]
        [defaults]
        tool = "allow"
        unknown = "ask"
        [uploads]
        request_block = "1 MiB"
        window = "10m"
        window_block_agent = "1 GiB"
        [uploads.model]
        request_block = "8 MiB"
        [secrets]
        action = "alert"
        known = ["dotenv:.env"]
        [secrets.model]
        action = "mask"
        [tls]
        passthrough = ["a.test"]
        [addresses]
        allow = ["10.0.0.0/8"]
    "#;
    let two = r#"
        mode = "enforce"
        allow = ["b.test", "a.test"]
        [defaults]
        tool = "ask"
        [uploads]
        request_block = "2 MiB"
        window = "1h"
        window_block_agent = "512 MiB"
        [uploads.model]
        request_block = "4 MiB"
        [secrets]
        action = "mask"
        known = ["dotenv:.env", "env:TOKEN"]
        [secrets.model]
        action = "alert"
        [tls]
        passthrough = ["b.test"]
        [addresses]
        allow = ["127.0.0.1:1"]
    "#;
    for texts in [[one, two], [two, one]] {
        let united = read(&texts);
        assert_eq!(united.mode, Mode::Enforce);
        let names: Vec<&str> = united.rules.iter().map(|rule| &*rule.name).collect();
        assert_eq!(names, [r#"allow "a.test""#, r#"allow "b.test""#]);
        let ByClass { model, tool, unknown } = united.defaults;
        assert_eq!((model, tool, unknown), (Action::Deny, Action::Ask, Action::Ask));
        assert_eq!(united.uploads.tool.request_block, 1 << 20);
        assert_eq!(united.uploads.model.request_block, 4 << 20);
        assert_eq!(united.uploads.model.window_seconds, 3600, "a longer window counts more");
        assert_eq!(united.uploads.tool.window_block_agent, 512 << 20);
        let ByClass { model, tool, .. } = united.secrets;
        assert_eq!((model, tool), (SecretAction::Mask, SecretAction::Mask));
        assert_eq!(united.known.len(), 3, "each file names its own `.env`");
        assert_eq!((united.passthrough.len(), united.addresses.entries().len()), (2, 2));
    }
}

#[test]
fn what_no_file_says_is_strict() {
    let silent = read(&[""]);
    assert_eq!(silent.mode, Mode::Enforce);
    assert_eq!(silent.defaults, ByClass { model: Action::Deny, tool: Action::Deny, unknown: Action::Deny });
    assert_eq!(silent.uploads.model, DEFAULT_LIMITS);
    assert_eq!(silent.secrets.unknown, SecretAction::Block);
    assert!(silent.rules.is_empty() && silent.addresses.entries().is_empty());
}

#[test]
fn known_sources_say_where_they_are_read_from_and_where_they_belong() {
    let text =
        "[secrets]\nknown = [\"dotenv:.env\", { from = \"env:TOKEN\", to = [\"@github\", \"a.test\"] }]";
    let document = read(&[text]);
    let [dotenv, token] = document.known_sources() else { panic!("{:?}", document.known) };
    assert_eq!(
        (dotenv.from.to_string(), &*dotenv.origin.file, dotenv.origin.line),
        ("dotenv:.env".into(), "one.toml", 2)
    );
    assert!(dotenv.to.is_empty());
    assert_eq!(token.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.test", "@github"]);
}

#[test]
fn an_answer_to_a_rule_that_went_away_is_a_warning() {
    let text = "[[rule]]\nname = \"writes\"\naction = \"ask\"\nto = [\"a.test\"]\n\n\
                [[approved]]\nhost = \"a.test\"\nagent = \"claude\"\nrule = \"write\"\n";
    let warnings: Vec<String> = read(&[text]).warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["one.toml:6: `write` is no rule that asks, so this answers nothing; did you mean `writes`?"]
    );
}

#[test]
fn the_starter_policy_is_sound() {
    let starter = read(&[STARTER]);
    assert_eq!(starter.warnings, []);
    let UploadLimits { request_alert, request_block, window_alert, window_block, .. } = starter.uploads.model;
    assert_eq!((request_alert, request_block), (8 << 20, 40 << 20));
    assert_eq!((window_alert, window_block), (256 << 20, 2 << 30));
    assert!(
        window_block <= starter.uploads.model.window_block_agent,
        "or the agent's limit would make it void"
    );
    assert_eq!(
        (starter.uploads.unknown.request_alert, starter.uploads.unknown.request_block),
        (64 << 10, 1 << 20)
    );
    // What is commented out must be right as well, for whoever takes the `#` away.
    let uncommented: String = STARTER
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(rest) if rest.starts_with(['"', '[']) || rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(read(&[&uncommented]).rules.len() > starter.rules.len() + 3);
}

/// An entry of `to`, in spellings that are not always the canonical one.
fn destination() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z]{1,6}\\.(test|example\\.com)",
        "\\*\\.[a-z]{1,6}\\.(test|co\\.uk)",
        "[a-z]{1,6}\\.test:[1-9][0-9]{0,3}",
        Just("@github".to_owned()),
        Just("@models".to_owned()),
        Just("@registries:8443".to_owned()),
        Just("m\u{fc}nchen.example".to_owned()),
        (0u8..=255, 8u8..=32).prop_map(|(byte, length)| {
            let block = ipnet::Ipv4Net::new([10, byte, byte, byte].into(), length).unwrap().trunc();
            block.to_string()
        }),
        (0u16..=0xffff).prop_map(|low| format!("[2001:db8::{low:x}]:443")),
        (0u16..=0xffff).prop_map(|low| format!("2001:db8:{low:x}::/48")),
    ]
}

fn list(entries: &[String]) -> String {
    let quoted: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

prop_compose! {
    fn rule()(
        name in proptest::option::of("[a-z \"\\\\\u{e9}]{1,12}x"),
        action in prop_oneof![Just("allow"), Just("ask"), Just("deny")],
        to in prop::collection::vec(destination(), 1..4),
        methods in proptest::option::of(prop::collection::vec("(GET|POST|PUT|M-SEARCH)", 1..3)),
        paths in proptest::option::of(prop::collection::vec("(/[a-zA-Z*%\u{e9}]{1,5}){1,3}(/\\*\\*)?", 1..3)),
        agents in proptest::option::of(prop::collection::vec("[a-z*]{1,5}", 1..3)),
        observe in any::<bool>(),
        block in proptest::option::of(0u64..1 << 40),
        why in proptest::option::of("[a-z]{1,5}"),
    ) -> String {
        let mut text = format!("[[rule]]\naction = \"{action}\"\nto = {}\nobserve = {observe}\n", list(&to));
        let paths = paths.map(|paths| paths.iter().map(|path| path.replace('%', "%2f").replace("**", "*")).collect());
        let paths: Option<Vec<String>> = paths;
        for (key, entries) in [("methods", methods), ("paths", paths), ("agents", agents)] {
            if let Some(entries) = entries {
                text += &format!("{key} = {}\n", list(&entries));
            }
        }
        for (key, value) in [("name", name), ("why", why)] {
            if let Some(value) = value {
                text += &format!("{key} = {}\n", advice::quoted(&value));
            }
        }
        if let (Some(block), true) = (block, action != "deny") {
            text += &format!("uploads = {{ request_block = {block} }}\n");
        }
        text
    }
}

prop_compose! {
    fn policy()(
        mode in prop_oneof![Just("enforce"), Just("observe")],
        allow in prop::collection::vec(destination(), 0..6),
        ask in prop::collection::vec(destination(), 0..3),
        deny in prop::collection::vec(destination(), 0..3),
        default in prop_oneof![Just("allow"), Just("ask"), Just("deny")],
        rules in prop::collection::vec(rule(), 0..5),
        (block, alert) in (0u64..1 << 50, 0u64..1 << 30),
        window in 1u32..600_000,
        secret in prop_oneof![Just("block"), Just("mask"), Just("alert")],
        passthrough in prop::collection::vec(destination(), 0..3),
    ) -> String {
        format!(
            "mode = \"{mode}\"\nallow = {}\nask = {}\ndeny = {}\n[defaults]\ntool = \"{default}\"\n{}\n\
             [uploads]\nrequest_block = {block}\nwindow = \"{window}s\"\n[uploads.tool]\nrequest_alert = {alert}\n\
             [secrets.unknown]\naction = \"{secret}\"\n[tls]\npassthrough = {}\n",
            list(&allow), list(&ask), list(&deny), rules.concat(), list(&passthrough),
        )
    }
}

proptest! {
    /// Printing a policy and reading it again gives the same policy, rule by rule.
    #[test]
    fn a_printed_policy_is_the_same_policy(text in policy()) {
        let Ok(first) = parse(&[Source { name: "one.toml", text: &text }], Catalogue::builtin()) else {
            // Two rules of one name, or a method twice: another table's business.
            return Ok(());
        };
        let printed = first.to_string();
        let second = read(&[&printed]);
        prop_assert_eq!(&second.to_string(), &printed);
        prop_assert_eq!(first.rules.len(), second.rules.len());
        for (a, b) in first.rules.iter().zip(&second.rules) {
            prop_assert_eq!((&a.name, a.action, &a.to, &a.methods), (&b.name, b.action, &b.to, &b.methods));
            prop_assert_eq!((&a.paths, &a.agents, a.observe, &a.uploads), (&b.paths, &b.agents, b.observe, &b.uploads));
        }
        prop_assert_eq!((first.mode, first.defaults, first.uploads), (second.mode, second.defaults, second.uploads));
        prop_assert_eq!((first.secrets, first.passthrough), (second.secrets, second.passthrough));
    }

    /// Whatever stands in a file, reading it ends, and every mistake has a line that exists.
    #[test]
    fn any_text_is_read_or_refused(text in "(allow|\\[\\[rule\\]\\]|to|=|\"|\\[|\\]|a\\.test|\\n| |@|\\*|\\\\|\u{e9}|\\.|mode|#|\\{|\\}|,|1){0,40}") {
        if let Err(mistakes) = parse(&[Source { name: "one.toml", text: &text }], Catalogue::builtin()) {
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                prop_assert!(mistake.line >= 1 && mistake.line as usize <= text.lines().count().max(1) + 1);
            }
        }
    }
}
