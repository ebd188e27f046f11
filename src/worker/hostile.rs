//! Addresses that try to break out of what a shell reads, run through real shells.
//!
//! Values are drawn from everything that a [`Mailbox`] may hold, which is more than sessions accept,
//! with a liking for what shells interpret. Each is put into templates in every way of quoting; the
//! words and variables that a command then sees must be those that were meant.

use std::ffi::OsString;
use std::path::{Component, Path};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::command::{self, Facts, LIMIT, environment};
use super::format::{FormatError, Target, Values, expand, for_environment};
use super::plan::tests::record;
use super::plan::{Plan, plan};
use crate::ipc::message::worker::{JobRecord, Method};
use crate::model::{Mailbox, ReversePath};

/// Deliveries that each property is tried with; every one starts shells.
const DELIVERIES: u32 = 100;
/// What shells take for more than text, and tricks that are more than one character.
const TRICKS: [&str; 39] = [
    "$(touch broken)",
    "`touch broken`",
    ";touch",
    "|touch",
    "&&touch",
    "||touch",
    "&",
    "'",
    "\"",
    "\\",
    "\\\\",
    "\\'",
    "\\\"",
    "$IFS",
    "${IFS}",
    "$",
    "*",
    "?",
    "[a-z]",
    "[!x]",
    "~root",
    "~",
    "#",
    "!",
    "!!",
    "{a,b}",
    "(",
    ")",
    "%{mda}",
    "%{sender}",
    "%%",
    "%",
    "-rf",
    "--",
    "=",
    "PATH=",
    "^",
    ":",
    "ü",
];

/// Half of an address.
fn half(with_at: bool) -> impl Strategy<Value = String> {
    let trick = proptest::sample::select(&TRICKS[..]).prop_map(str::to_owned);
    let piece = prop_oneof![3 => trick, 1 => "[!-~]{1,4}", 1 => "[a-z0-9]{1,6}"];
    let joined = proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
    joined.prop_map(move |text| text.chars().filter(|c| with_at || *c != '@').collect())
}

fn mailbox() -> impl Strategy<Value = Mailbox> {
    (half(true), half(false))
        .prop_filter_map("not a mailbox", |(local, domain)| Mailbox::new(&local, &domain).ok())
}

/// Sender, recipient, destination, user and sub-address.
type Hostile = (Mailbox, Mailbox, Mailbox, String, String);

fn hostile() -> impl Strategy<Value = Hostile> {
    (mailbox(), mailbox(), mailbox(), half(false), half(false))
}

/// Tries `property` with the same values in every run.
fn each(property: impl Fn(Hostile) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: DELIVERIES,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config).run(&hostile(), property).unwrap();
}

/// Runs a line as a delivery would; the words that it printed, each ended by a NUL.
fn words(directory: &Path, line: &str, environment: &[(OsString, OsString)]) -> Vec<String> {
    // Nothing but what the test put there is in the directory: no pattern can match.
    let line = format!("cd {} && {line}", directory.display());
    let finished = command::run(&line, environment, "", &mut &b""[..], LIMIT).unwrap();
    let text = String::from_utf8(finished.output).unwrap();
    let mut words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    assert_eq!(words.pop().as_deref(), Some(""), "{line}: {:?} {text}", finished.end);
    words
}

fn job(hostile: &Hostile, method: Method) -> JobRecord {
    let (sender, recipient, destination, user, subaddress) = hostile.clone();
    JobRecord {
        sender: ReversePath::from(sender),
        recipient,
        destination,
        user,
        subaddress,
        ..record(method)
    }
}

/// What of `value` reaches a shell.
fn harmless(value: &str, raw: bool) -> String {
    let bad = "!#$&'*?`{|}~\"\\;<>() ";
    value.chars().map(|c| if bad.contains(c) || (c == '%' && !raw) { ':' } else { c }).collect()
}

/// The helper that runs `mda` commands, as a script: a shell that reads its one argument.
fn helpers(directory: &Path) {
    let script = directory.join("mail.mda");
    std::fs::write(&script, "#!/bin/sh\n[ $# = 1 ] && exec /bin/sh -c \"$1\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
}

#[test]
fn no_address_breaks_out_of_a_command_line() {
    let libexec = tempfile::tempdir().unwrap();
    helpers(libexec.path());
    let empty = tempfile::tempdir().unwrap();
    // Bare, in each kind of quotes, and inside of other text. Within `mda`, the double quotes are
    // those of the outer shell.
    let line = "printf '%s\\0' a %{rcpt} '%{dest}' %{sender:raw} x%{rcpt.user}y \
                %{user.username} '%{sender.domain:uppercase}' z";
    let own = [("PATH".into(), command::SEARCH_PATH.into())];
    each(|hostile| {
        for method in
            [Method::Command { line: line.to_owned() }, Method::Pipe { line: line.to_owned() }]
        {
            let job = job(&hostile, method);
            let home = Path::new("/home");
            let planned = plan(&job, home, "/home", &libexec.path().display().to_string());
            let Ok(Plan::Shell { line, .. }) = planned else {
                return Err(TestCaseError::fail(format!("{planned:?}")));
            };
            let seen = words(empty.path(), &line, &own);
            let expected = [
                "a".to_owned(),
                harmless(job.recipient.as_str(), false),
                harmless(job.destination.as_str(), false),
                harmless(job.sender.as_str(), true),
                format!("x{}y", harmless(job.recipient.local(), false)),
                harmless(&job.user, false),
                harmless(&hostile.0.domain().to_ascii_uppercase(), false),
                "z".to_owned(),
            ];
            prop_assert_eq!(seen, expected);
            prop_assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none());
        }
        Ok(())
    });
}

#[test]
fn no_address_breaks_out_of_the_documented_helper_lines() {
    let libexec = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    for name in ["mail.lmtp", "mail.local", "mail.maildir", "mail.mboxfile"] {
        let script = libexec.path().join(name);
        std::fs::write(&script, "#!/bin/sh\nprintf '%s\\0' \"$@\"\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
    }
    let own = [("PATH".into(), command::SEARCH_PATH.into())];
    let methods = [
        Method::File { path: "/it's a $file".to_owned() },
        Method::Lmtp { destination: "h:%{rcpt.domain}".to_owned(), recipient_address: true },
        Method::Maildir { path: Some("/m/%{dest.user}/x y".to_owned()), junk: true },
        Method::Mbox,
    ];
    each(|hostile| {
        for method in &methods {
            let wrapper = Some("nice %{mda}".to_owned());
            let job = JobRecord { wrapper, ..job(&hostile, method.clone()) };
            let planned =
                plan(&job, Path::new("/home"), "/home", &libexec.path().display().to_string());
            let Ok(Plan::Shell { line, .. }) = planned else {
                return Err(TestCaseError::fail(format!("{planned:?}")));
            };
            let from = harmless(job.sender.as_str(), false);
            let expected = match method {
                Method::File { path } => vec!["-f".to_owned(), from, path.clone()],
                Method::Lmtp { .. } => {
                    let server = format!("h:{}", harmless(job.recipient.domain(), false));
                    vec!["-d".to_owned(), server, "-r".to_owned()]
                }
                Method::Maildir { .. } => {
                    let user = harmless(job.destination.local(), false);
                    vec!["-j".to_owned(), format!("/m/{user}/x y")]
                }
                _ => vec!["-f".to_owned(), from, harmless(&job.user, false)],
            };
            prop_assert_eq!(words(empty.path(), &line, &own), expected);
        }
        Ok(())
    });
}

#[test]
fn the_environment_of_a_command_holds_values_and_nothing_else() {
    let empty = tempfile::tempdir().unwrap();
    each(|(sender, recipient, destination, _, subaddress)| {
        let sender = ReversePath::from(sender);
        let facts = Facts {
            home: Path::new("/home/vmail"),
            username: "alice",
            sender: &sender,
            recipient: &recipient,
            destination: &destination,
            extension: &subaddress,
        };
        let seen = words(empty.path(), "exec env -0", &environment(&facts));
        let mut seen: Vec<&str> = seen
            .iter()
            .map(String::as_str)
            .filter(|one| !["PWD=", "OLDPWD=", "_="].iter().any(|own| one.starts_with(own)))
            .collect();
        seen.sort_unstable();
        let named = |name: &str, value: &str| format!("{name}={}", for_environment(value));
        let mut expected = vec![
            named("DOMAIN", recipient.domain()),
            named("HOME", "/home/vmail"),
            named("LOCAL", recipient.local()),
            named("LOGNAME", "alice"),
            named("ORIGINAL_RECIPIENT", recipient.as_str()),
            named("PATH", command::SEARCH_PATH),
            named("RECIPIENT", destination.as_str()),
            named("SENDER", sender.as_str()),
            named("SHELL", command::SHELL),
            named("USER", "alice"),
        ];
        if !subaddress.is_empty() {
            expected.push(named("EXTENSION", &subaddress));
        }
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
        Ok(())
    });
}

#[test]
fn no_address_climbs_out_of_a_directory() {
    each(|(sender, recipient, destination, user, _)| {
        let sender = ReversePath::from(sender);
        let values = Values {
            sender: &sender,
            recipient: &recipient,
            destination: &destination,
            username: &user,
            directory: "/home/alice",
            delimiter: '+',
        };
        for name in ["rcpt", "rcpt.user", "sender:raw", "dest.domain", "user.username"] {
            for dots in ["", ".", "..", "../", "/.."] {
                let template = format!("/mail/{dots}x/%{{{name}}}/new");
                match expand(&template, &values, Target::Path) {
                    Err(error) => prop_assert_eq!(error, FormatError::Expansion),
                    Ok(path) => {
                        let climbs = |path: &str| {
                            let parts = Path::new(path).components();
                            parts.filter(|part| *part == Component::ParentDir).count()
                        };
                        prop_assert_eq!(climbs(&path), climbs(&template), "{}", path);
                    }
                }
            }
        }
        Ok(())
    });
}
