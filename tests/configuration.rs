//! The command line of smtpd(8) and what a configuration does to the start of the real program.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use common::server::{DELIVER, Server, free_address};
use common::spec_case::ran;
use tempfile::TempDir;

/// A directory with a configuration.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config.replace("@DIR@", directory.path().to_str().unwrap());
        fs::write(directory.path().join("smtpd.conf"), config).unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs the program with these options and this configuration.
    fn smtpd(&self, options: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smtpd"));
        command.arg("-f").arg(self.path().join("smtpd.conf")).args(options);
        said(&command.output().unwrap())
    }

    /// Checks the configuration.
    fn check(&self) -> Said {
        self.smtpd(&["-n"])
    }
}

/// What a program said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

fn said(output: &Output) -> Said {
    Said {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const OK: &str = "configuration OK\n";
const USAGE: &str = "usage: smtpd [-dFhnv] [-D macro=value] [-f file] [-P system] [-T trace]\n";

#[test]
fn help_tells_the_version_and_the_options() {
    let said = Place::new("match reject\n").smtpd(&["-h"]);
    assert_eq!(said.code, Some(1));
    let version = concat!(
        "version: Pillarbox ",
        env!("CARGO_PKG_VERSION"),
        " (OpenSMTPD 7.9.0 compatible)\n"
    );
    assert!(said.errors.starts_with(&format!("{version}{USAGE}")), "{said:?}");
    ran("config", 261);
}

#[test]
fn what_is_built_in_can_be_asked_for() {
    let said = Place::new("match reject\n").smtpd(&["-V"]);
    assert_eq!(said.code, Some(0));
    for line in ["\nconfiguration: /", "\nspool: /", "\nuser: _smtpd\n", "\nqueue user: _smtpq\n"] {
        assert!(said.output.contains(line), "{line} in {said:?}");
    }
}

#[test]
fn operands_and_unknown_options_are_refused_with_the_usage() {
    let place = Place::new("match reject\n");
    for options in [&["-n", "extra"][..], &["-d", "extra"], &["-Q"], &["-B", "queue=null"]] {
        let said = place.smtpd(options);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.errors.contains(USAGE), "{said:?}");
    }
    ran("config", 262);
}

#[test]
fn odd_options_are_told_and_change_nothing() {
    let place = Place::new("match reject\n");
    let cases = [
        (263, ["-T", "bogus"], "warn: unknown trace flag \"bogus\"\n"),
        (264, ["-P", "bogus"], ""),
        (265, ["-B", "foo=x"], "warn: invalid backend specifier foo=x\n"),
        (37, ["-D", "foobar"], "warn: could not parse macro definition foobar\n"),
        (0, ["-T", "rules"], "warn: -T rules: not supported yet\n"),
    ];
    for (number, [option, value], warning) in cases {
        let said = place.smtpd(&["-n", option, value]);
        assert_eq!((said.code, said.errors), (Some(0), format!("{warning}{OK}")), "{option}");
        ran("config", number);
    }
}

#[test]
fn macros_of_the_command_line_count() {
    let place = Place::new("match tag $a reject\n");
    let undefined = place.smtpd(&["-n", "-D", "a=b=c"]);
    assert_eq!(undefined.code, Some(1));
    assert!(undefined.errors.contains(":1: macro 'a' not defined\n"), "{undefined:?}");
    ran("config", 273);
    let first = place.smtpd(&["-nv", "-D", "a=b", "-D", "a=}"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.output.contains("match tag { b } from local for local reject\n"), "{first:?}");
    ran("config", 274);
}

// The one line that scripts read stays as it is; what helps an administrator is for a terminal.
#[test]
fn a_check_tells_all_errors_with_their_places() {
    let place = Place::new("foo\nlisten on 127.0.0.1 port 0\naction a relay srs\npolicy x\n");
    let said = place.check();
    let file = place.path().join("smtpd.conf").display().to_string();
    let expected = [
        format!("{file}:1: syntax error"),
        format!("{file}:2: invalid port: 0"),
        format!("{file}:3: an srs key is required for srs to be specified in an action"),
        "warn: no rules, nothing to do".to_owned(),
        format!("{file}:4: policy: not supported yet"),
    ];
    assert_eq!(said.code, Some(1));
    assert_eq!(said.errors.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_printed_configuration_is_read_back_as_the_same() {
    let text = "names = \"a.org, b.org\"\ntable t { $names }\nlisten on 127.0.0.1 port 2525 tag x\n\
        action \"local\" maildir \"~/Mail\" junk ttl 36h\nmatch tag x for domain <t> action \"local\"\n";
    let first = Place::new(text).smtpd(&["-nv"]);
    assert_eq!((first.code, first.errors.as_str()), (Some(0), OK));
    let second = Place::new(&first.output).smtpd(&["-nv"]);
    assert_eq!(second.output, first.output);
    assert!(first.output.contains("table t { a.org, b.org }\n"), "{first:?}");
}

#[test]
fn a_check_looks_at_keys_accounts_and_programs() {
    let place = Place::new(
        "pki t cert \"@DIR@/cert\" key \"@DIR@/key\"\nproc p \"/bin/true\" user no_such_user_here\n\
         table t nosuchprogram:/x\nmatch reject\n",
    );
    for (name, mode) in [("cert", 0o644), ("key", 0o644)] {
        let path = place.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let said = place.check();
    assert_eq!(said.code, Some(1));
    for line in [
        ":2: getpwnam: no such user: no_such_user_here\n",
        ":3: table_create: backend \"nosuchprogram\" does not exist\n",
        ":1: load_pki_keys: failed to load key file\n",
    ] {
        assert!(said.errors.contains(line), "{line:?} in {said:?}");
    }
    ran("config", 269);
    if nix::unistd::geteuid().is_root() {
        let path = place.path().join("key").display().to_string();
        let insecure = format!("warn:  {path}: insecure permissions: must be at most rwxr-----\n");
        assert!(said.errors.contains(&insecure), "{said:?}");
        assert!(said.errors.contains(":1: load_pki_keys: failed to load key file\n"), "{said:?}");
        ran("config", 136);
    } else {
        assert!(said.errors.contains(": not owned by uid 0\n"), "{said:?}");
    }
}

#[test]
fn two_listeners_on_one_address_stop_the_start() {
    let address = free_address();
    let listen = format!("listen on {} port {}\n", address.ip(), address.port());
    let place = Place::new(&format!("{listen}{listen}match reject\n"));
    let state = place.path().join("state");
    for options in [vec!["-n"], vec!["-d", "--state", state.to_str().unwrap()]] {
        let said = place.smtpd(&options);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.errors.contains(&format!(":2: {address}: Address already in use\n")));
    }
    ran("config", 270);
}

#[test]
fn a_request_to_end_is_followed() {
    let mut server = Server::start(DELIVER);
    let status = server.stop();
    assert_eq!(status.code(), Some(0));
    server.wait_for_log("Exiting");
    ran("config", 266);
}

// A table program that cannot be run fails its own look-ups, and those temporarily.
#[test]
fn a_table_program_that_cannot_be_run_stops_nothing() {
    let mut server = Server::prepare(
        "@LISTEN@\ntable t broken\naction \"local\" maildir \"@DIR@/mail/%{rcpt.user}\"\n\
         match from any mail-from <t> for any action \"local\"\n",
        &[],
    );
    let program = server.program("smtpd").with_file_name("table-broken");
    fs::write(&program, "not a program").unwrap();
    server.run();
    let mut peer = server.peer();
    let reply = peer.say("MAIL FROM:<a@client.example>").unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    let reply = peer.say("RCPT TO:<b@example.org>").unwrap();
    assert_eq!(reply.code, 451, "{reply:?}");
    assert!(server.role("lookup").pid > 0);
    ran("config", 271);
}
