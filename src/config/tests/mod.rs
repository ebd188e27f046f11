//! The numbered cases of the language: what each text is answered with.
//!
//! Texts that are good are also written out and read again, as [`exercise`] demands.

use std::time::Duration;

use super::rehearsal::{Files, Loopback, exercise};
use super::*;
use crate::spec_case::ran;

mod hints;
mod language;
mod security;
mod statements;

fn files(main: &str) -> Files {
    let mut files = Files::main(main);
    for (name, text) in [
        ("/list", "a.org\nb.org\n"),
        ("/map", "root: bob\n"),
        ("/empty", "# nothing\n"),
        ("/urls", "smtp://a\nsmtp://b\n"),
        ("/malformed", "root:\n"),
        ("/bad", "foo\n"),
        ("/networks", "# @list\n10/8\nexample.org\n::1\nlocal\n"),
        ("rel.conf", "match reject"),
        ("/loop", "include \"/loop\"\n"),
        ("/cert", ""),
        ("/key", ""),
        ("/open-key", ""),
        ("/foreign-cert", ""),
    ] {
        files.add(name, text);
    }
    files.add("/map.db", b"redb\x1a\x0a\xa9\x0d\x0a");
    files.add("/old.db", b"............\x61\x15\x06\x00");
    files
}

fn load_with(main: &str, defines: &[(String, String)]) -> Result<Loaded, Diagnostics> {
    load(rehearsal::MAIN, &mut files(main), &mut Loopback, defines)
}

/// The configuration that a text means, whether all of it has an effect yet or not.
pub(crate) fn good(main: &str) -> Config {
    let Reading { config, diagnostics } = files(main).reading(&[]);
    assert!(!diagnostics.has_errors(), "{main}\n{diagnostics}");
    config
}

/// Lines about a text: one line a complaint, without the name of the main file.
fn lines(main: &str, wanted: fn(Severity) -> bool) -> Vec<String> {
    let diagnostics = files(main).reading(&[]).diagnostics;
    diagnostics
        .iter()
        .filter(|diagnostic| wanted(diagnostic.severity()))
        .map(ToString::to_string)
        .map(|line| line.strip_prefix("main:").map(str::to_owned).unwrap_or(line))
        .collect()
}

/// What is wrong or odd about a text.
fn said(main: &str) -> Vec<String> {
    lines(main, |severity| severity != Severity::Unsupported)
}

/// What has no effect yet in a text.
fn unsupported(main: &str) -> Vec<String> {
    lines(main, |severity| severity == Severity::Unsupported)
}

const NO_RULES: &str = "warn: no rules, nothing to do";

/// Checks what a text is answered with; no line means that it is good.
fn check_one(number: u32, main: &str, expected: &[&str]) {
    assert_eq!(said(main), expected, "config case {number}: {main:?}");
    let reading = files(main).reading(&[]);
    if !reading.diagnostics.has_errors() {
        let written = reading.config.to_string();
        let again = files(&written).reading(&[]);
        assert!(!again.diagnostics.has_errors(), "{main:?}\n{written}{}", again.diagnostics);
        assert_eq!(again.config.to_string(), written, "config case {number}: {main:?}");
    }
    ran("config", number);
}

/// Checks that each text is answered with these lines.
fn check(cases: &[(u32, &str, &[&str])]) {
    for (number, text, expected) in cases {
        check_one(*number, text, expected);
    }
}

/// As [`check`], each text being followed by a rule.
fn check_with_rule(cases: &[(u32, &str, &[&str])]) {
    for (number, text, expected) in cases {
        check_one(*number, &format!("{text}\nmatch reject\n"), expected);
    }
}

#[test]
fn the_installed_files_are_good() {
    let mut files = files(include_str!("../../../etc/smtpd.conf"));
    files.add("/etc/aliases", include_str!("../../../etc/aliases"));
    let loaded = load(rehearsal::MAIN, &mut files, &mut Loopback, &[]).unwrap();
    assert_eq!((loaded.config.actions.len(), loaded.config.rules.len()), (2, 2));
    assert_eq!(loaded.warnings.iter().count(), 0);
}

// What the fuzz target begins with; it includes the inputs of the numbered cases.
#[test]
fn the_seeds_of_the_fuzz_target_are_handled() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/config");
    let mut count = 0;
    for seed in std::fs::read_dir(directory).unwrap() {
        let path = seed.unwrap().path();
        assert_eq!(exercise(&std::fs::read(&path).unwrap()), Ok(()), "{}", path.display());
        count += 1;
    }
    assert!(count > 200, "{count}");
}

const WORDS: [&str; 64] = [
    "action",
    "match",
    "listen",
    "on",
    "table",
    "smtp",
    "limit",
    "mta",
    "mda",
    "bounce",
    "queue",
    "ttl",
    "for",
    "from",
    "any",
    "local",
    "domain",
    "regex",
    "auth",
    "relay",
    "host",
    "maildir",
    "mbox",
    "reject",
    "include",
    "pki",
    "filter",
    "phase",
    "chain",
    "{",
    "}",
    "<",
    ">",
    "!",
    ",",
    "=",
    "1h",
    "25",
    "$x",
    "\n",
    "lo",
    "a",
    "b",
    "tls",
    "ca",
    "cert",
    "key",
    "\"/key\"",
    "proc",
    "proc-exec",
    "connect",
    "fcrdns",
    "junk",
    "srs",
    "senders",
    "ciphers",
    "default",
    "protocols",
    "\"/list\"",
    "\"/map\"",
    "user",
    "alias",
    "virtual",
    "match reject\n",
];

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_what_is_good_is_read_back(
        indices in proptest::collection::vec(0..WORDS.len(), 0..60),
        junk in "[\\x00-\\xff]{0,20}",
    ) {
        let soup: Vec<_> = indices.into_iter().map(|index| WORDS[index]).collect();
        for text in [soup.join(" "), format!("x = \"{junk}\"\n{} {junk}", soup.join(" "))] {
            proptest::prop_assert_eq!(exercise(text.as_bytes()), Ok(()));
        }
    }
}
