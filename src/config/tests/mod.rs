//! The numbered cases of the language: what each text is answered with.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::*;

mod language;
mod statements;

/// A machine with one loopback interface, a few files and a few services.
#[derive(Default)]
struct Machine {
    files: HashMap<String, Vec<u8>>,
}

impl SourceReader for Machine {
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::from_raw_os_error(2);
        self.files.get(path).cloned().ok_or_else(missing)
    }

    fn table_program(&mut self, backend: &str) -> bool {
        backend == "passwd"
    }
}

struct Loopback;

impl Network for Loopback {
    fn server_name(&mut self) -> String {
        "mail.example.org".into()
    }

    fn addresses(&mut self) -> Vec<LocalAddress> {
        vec![address("127.0.0.1"), address("::1")]
    }

    fn interface(&mut self, name: &str) -> Option<Vec<LocalAddress>> {
        (name == "lo").then(|| self.addresses())
    }

    fn host(&mut self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "localhost" => Ok(vec!["127.0.0.1".parse().unwrap()]),
            "broken" => Err(io::Error::other("no answer")),
            _ => Ok(Vec::new()),
        }
    }

    fn service(&mut self, name: &str) -> Option<u16> {
        match name {
            "smtp" => Some(25),
            "smtps" => Some(465),
            "submission" => Some(587),
            _ => None,
        }
    }
}

fn address(text: &str) -> LocalAddress {
    text.parse::<IpAddr>().unwrap().into()
}

fn machine(main: &str) -> Machine {
    let mut machine = Machine::default();
    let files: [(&str, &[u8]); 9] = [
        ("main", main.as_bytes()),
        ("/list", b"a.org\nb.org\n"),
        ("/map", b"root: bob\n"),
        ("/empty", b"# nothing\n"),
        ("/urls", b"smtp://a\nsmtp://b\n"),
        ("/malformed", b"root:\n"),
        ("/bad", b"foo\n"),
        ("rel.conf", b"match reject"),
        ("/loop", b"include \"/loop\"\n"),
    ];
    for (name, text) in files {
        machine.files.insert(name.into(), text.into());
    }
    machine
}

fn load_with(main: &str, defines: &[(String, String)]) -> Result<Loaded, Diagnostics> {
    load("main", &mut machine(main), &mut Loopback, defines)
}

/// The configuration that a text means.
pub(crate) fn good(main: &str) -> Config {
    match load_with(main, &[]) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{main}\n{errors}"),
    }
}

/// What is said about a text: one line a complaint, without the name of the main file.
fn said(main: &str) -> Vec<String> {
    let diagnostics = match load_with(main, &[]) {
        Ok(loaded) => loaded.warnings,
        Err(errors) => errors,
    };
    diagnostics
        .to_string()
        .lines()
        .map(|line| line.strip_prefix("main:").unwrap_or(line).to_owned())
        .collect()
}

const NO_RULES: &str = "warn: no rules, nothing to do";

/// Checks that each text is answered with these lines; no line means that it is good.
fn check(cases: &[(u32, &str, &[&str])]) {
    for (number, text, expected) in cases {
        assert_eq!(said(text), *expected, "config case {number}: {text:?}");
    }
}

/// As [`check`], each text being followed by a rule.
fn check_with_rule(cases: &[(u32, &str, &[&str])]) {
    for (number, text, expected) in cases {
        let main = format!("{text}\nmatch reject\n");
        assert_eq!(said(&main), *expected, "config case {number}: {text:?}");
    }
}

#[test]
fn a_diagnostic_shows_the_line_on_a_terminal() {
    let errors = load_with("match reject\nsmtp limit max-rcpt 9\n", &[]).unwrap_err();
    assert_eq!(errors.render(false), "main:2: invalid session limit: max-rcpt 9\n");
    let shown = errors.render(true);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "main:2: invalid session limit: max-rcpt 9");
    assert!(shown.contains("2 | smtp limit max-rcpt 9"), "{shown}");
    assert!(shown.contains("^^^^^^^^ a session must be allowed at least 100"), "{shown}");
    let reserved = load_with("action local mbox\n", &[]).unwrap_err();
    assert!(reserved.render(true).contains("^^^^^ a reserved word: put it in quotes"));
    let unquoted = load_with("table t /path\n", &[]).unwrap_err();
    assert!(unquoted.render(true).contains("^ text that begins with this character"));
}

#[test]
fn the_installed_files_are_good() {
    let mut machine = machine(include_str!("../../../etc/smtpd.conf"));
    machine.files.insert("/etc/aliases".into(), include_bytes!("../../../etc/aliases").to_vec());
    let loaded = load("main", &mut machine, &mut Loopback, &[]).unwrap();
    assert_eq!((loaded.config.actions.len(), loaded.config.rules.len()), (2, 2));
    assert_eq!(loaded.warnings.iter().count(), 0);
}

const WORDS: [&str; 40] = [
    "action", "match", "listen", "on", "table", "smtp", "limit", "mta", "mda", "bounce", "queue",
    "ttl", "for", "from", "any", "local", "domain", "regex", "auth", "relay", "host", "maildir",
    "mbox", "reject", "include", "pki", "filter", "phase", "chain", "{", "}", "<", ">", "!", ",",
    "=", "1h", "25", "$x", "\n",
];

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_every_refusal_says_why(
        indices in proptest::collection::vec(0..WORDS.len(), 0..60),
        junk in "[\\x00-\\xff]{0,20}",
    ) {
        let soup: Vec<_> = indices.into_iter().map(|index| WORDS[index]).collect();
        for text in [soup.join(" "), format!("x = \"{junk}\"\n{} {junk}", soup.join(" "))] {
            if let Err(errors) = load_with(&text, &[]) {
                proptest::prop_assert!(errors.has_errors());
                proptest::prop_assert!(!errors.render(true).is_empty());
            }
        }
    }
}
