//! What holds for every command: its help, its examples, its exit codes.

use clap::{Command as Clap, CommandFactory};

use super::*;

/// Every command that does something, with the words that call it.
fn leaves(command: &Clap, path: &str, found: &mut Vec<(String, Clap)>) {
    let mut inner = command.get_subcommands().peekable();
    if inner.peek().is_none() {
        found.push((path.to_owned(), command.clone()));
    }
    for command in inner {
        leaves(command, &format!("{path} {}", command.get_name()), found);
    }
}

fn all() -> Vec<(String, Clap)> {
    let mut found = Vec::new();
    leaves(&Cli::command(), "outgate", &mut found);
    found
}

/// The example lines of a help text, as a shell would split them, up to a pipe, a redirection or a remark.
fn examples(command: &Clap) -> Vec<Vec<String>> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut found = Vec::new();
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        let Some(start) = line.find("outgate ") else { continue };
        // Two spaces begin a remark.
        let call = line[start..].split("  ").next().unwrap_or_default();
        let ends = |word: &String| ["|", ">", "&&"].contains(&word.as_str());
        found.push(words(call).into_iter().take_while(|word| !ends(word)).collect());
    }
    found
}

/// The words of a line, as far as our examples need a shell: spaces part them, double quotes keep them together.
fn words(line: &str) -> Vec<String> {
    // What is left of `eval "$(…)"` behind the call.
    let line = line.trim_end_matches(")\"");
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_commands_help_carries_an_example_of_itself_that_parses() {
    for (path, command) in all() {
        let examples = examples(&command);
        assert!(examples.iter().any(|words| words.join(" ").starts_with(&path)), "`{path}` has no example");
        for words in examples {
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("example of `{path}`: `{}`\n{error}", words.join(" "));
            }
        }
    }
    for words in examples(&Cli::command()) {
        Cli::try_parse_from(&words).unwrap();
    }
}

#[test]
fn every_command_says_in_a_sentence_what_it_does() {
    for (path, command) in all() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 10, "`{path}` says nothing");
        assert!(!about.contains("Arguments"), "`{path}` speaks of types: {about}");
    }
}

#[test]
fn wrong_usage_is_told_the_right_one() {
    for (arguments, words) in [
        (&["outgate", "demmo"][..], "demo"),
        (&["outgate", "log", "--folow"], "--follow"),
        (&["outgate", "log", "--since", "yesterday"], "2026-11-21T06:00:00Z"),
        (&["outgate", "log", "--action", "denied"], "deny"),
        (&["outgate", "log", "--reason", "unknown_destinatoin"], "unknown_destination"),
        (&["outgate", "run"], "<CMD>"),
        (&["outgate", "run", "--fence", "yes", "--", "true"], "require"),
        (&["outgate", "agent", "add", "Claude", "--owner", "ana"], "a name is 1 to 64 of"),
        (&["outgate", "agent", "add", "claude"], "--owner"),
        (&["outgate", "env", "--shell", "tcsh"], "powershell"),
        (&["outgate", "--log-format", "xml", "demo"], "json"),
    ] {
        let error = Cli::try_parse_from(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments:?}");
        assert!(error.to_string().contains(words), "{arguments:?}: `{words}` in: {error}");
    }
}

#[test]
fn global_options_stand_before_and_after_the_command() {
    for arguments in [["outgate", "--data-dir", "/d", "doctor"], ["outgate", "doctor", "--data-dir", "/d"]] {
        let cli = Cli::try_parse_from(arguments).unwrap();
        assert_eq!(cli.global.flags().data_dir, Some("/d".into()), "{arguments:?}");
    }
}
