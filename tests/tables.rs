//! Tables of a running server: read again when an administrator says so, and when a map file has been
//! replaced; and the programs that make map files.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::account::{become_account, give, ordinary_account};
use common::peer::message;
use common::root::SMTPD;
use common::server::Server;
use common::sink::Sink;
use common::spec_case;
use common::wait::{SOON, wait_until};

/// Who is in the table has a mailbox.
const USERS: &str = r#"
@LISTEN@
table users "@SOURCE@"
table written { a = b }
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "example.org" action "local"
"#;

/// The reply for who is not in a table of virtual recipients.
const NOBODY: u16 = 524;

/// A rootless server whose users are in `source`, not started yet.
fn prepare(source: &str) -> Server {
    Server::prepare(&USERS.replace("@SOURCE@", source), &[])
}

/// The code of the reply to RCPT for a user.
fn answer_for(server: &Server, user: &str) -> u16 {
    let mut peer = server.peer();
    peer.say("MAIL FROM:<sender@client.example>").unwrap();
    peer.say(&format!("RCPT TO:<{user}@example.org>")).unwrap().code
}

/// Writes a file that the server's account owns.
fn write(server: &Server, name: &str, text: &str) {
    fs::write(server.path(name), text).unwrap();
    give(&server.path(name), server.account());
}

/// A line for each user, who is the account of the server.
fn users(server: &Server, names: &[&str]) -> String {
    let account = &server.account().name;
    names.iter().map(|name| format!("{name}@example.org: {account}\n")).collect()
}

/// `smtpctl update table NAME`: what it prints, and its exit status.
fn update(server: &Server, name: &str) -> (String, i32) {
    let said = server.control(&["update", "table", name]);
    (said.output, said.status)
}

fn succeeded() -> (String, i32) {
    ("command succeeded\n".to_owned(), 0)
}

fn failed() -> (String, i32) {
    ("command failed\n".to_owned(), 1)
}

/// Runs `smtpctl` under another name, in the directory of the server and as its account.
fn run_as(server: &Server, name: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(server.program("smtpctl"));
    command.arg0(name).args(arguments).current_dir(server.path("mail"));
    become_account(&mut command, server.account());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that reads no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Exit status, standard output, standard error.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Makes the map NAME.db in the directory of mailboxes.
fn make_map(server: &Server, name: &str, text: &str) {
    write(server, &format!("mail/{name}"), text);
    let made = said(&run_as(server, "makemap", &[name], ""));
    assert_eq!(made, (0, String::new(), String::new()), "makemap {name}");
}

#[test]
fn a_file_is_read_again_when_it_is_right_and_stays_as_it_was_when_not() {
    let mut server = prepare("@DIR@/users");
    write(&server, "users", &users(&server, &["alice"]));
    server.run();
    assert_eq!((answer_for(&server, "alice"), answer_for(&server, "bob")), (250, NOBODY));
    write(&server, "users", &users(&server, &["bob"]));
    assert_eq!(update(&server, "users"), succeeded());
    server.wait_for_log("info: Table \"users\" successfully updated");
    assert_eq!((answer_for(&server, "alice"), answer_for(&server, "bob")), (NOBODY, 250));

    let wrong = [
        ("a malformed line", format!("{}eve:\n", users(&server, &["alice"]))),
        ("a list where a mapping was", "alice\n".to_owned()),
    ];
    for (name, text) in wrong {
        write(&server, "users", &text);
        assert_eq!(update(&server, "users"), failed(), "{name}");
        assert_eq!((answer_for(&server, "alice"), answer_for(&server, "bob")), (NOBODY, 250));
    }
    server.wait_for_log("info: Failed to update table \"users\"");
    server.wait_for_log("users:2 invalid map entry");
    spec_case::ran("config", 198);

    fs::remove_file(server.path("users")).unwrap();
    assert_eq!(update(&server, "users"), failed());
    assert_eq!(answer_for(&server, "bob"), 250);
}

#[test]
fn what_has_no_file_is_always_up_to_date_and_what_is_unknown_never() {
    let mut server = prepare("@DIR@/users");
    write(&server, "users", "");
    server.run();
    assert_eq!(update(&server, "nosuch"), failed());
    server.wait_for_log("warn: Lookup table not found: \"nosuch\"");
    for name in ["<getpwnam>", "<localnames>", "written"] {
        assert_eq!(update(&server, name), succeeded(), "{name}");
    }
    spec_case::ran("config", 199);
    spec_case::ran("queue", 169);
}

#[test]
fn a_file_that_the_daemon_may_not_read_is_not_read_again() {
    let config = r#"
@LISTEN@
table names file:/etc/hostname-of-the-test
action "local" maildir "@DIR@/mail/%{rcpt.user}"
match from any for domain <names> action "local"
"#;
    let directory = common::account::open_directory();
    let names = directory.path().join("names");
    fs::write(&names, "# @list\nexample.org\n").unwrap();
    let config = config.replace("/etc/hostname-of-the-test", names.to_str().unwrap());
    let Some(server) = Server::start_as_root(&config) else { return };
    assert_eq!(answer_for(&server, "alice"), 250);
    fs::write(&names, "# @list\nexample.com\n").unwrap();
    fs::set_permissions(&names, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(update(&server, "names"), failed());
    assert_eq!(answer_for(&server, "alice"), 250);
    spec_case::ran("config", 197);

    chown(&names, Some(SMTPD), None).unwrap();
    assert_eq!(update(&server, "names"), succeeded());
    assert_eq!(answer_for(&server, "alice"), 550);
}

#[test]
fn a_map_that_was_replaced_is_noticed_without_being_told() {
    let mut server = prepare("db:@DIR@/mail/users.db");
    make_map(&server, "users", &users(&server, &["alice"]));
    server.run();
    assert_eq!((answer_for(&server, "alice"), answer_for(&server, "bob")), (250, NOBODY));
    make_map(&server, "users", &users(&server, &["bob"]));
    wait_until("the new map counts", SOON, || answer_for(&server, "bob") == 250);
    assert_eq!(answer_for(&server, "alice"), NOBODY);
    // Who does not want to wait says so.
    make_map(&server, "users", &users(&server, &["carol"]));
    assert_eq!(update(&server, "users"), succeeded());
    assert_eq!(answer_for(&server, "carol"), 250);
    server.accept(&["carol@example.org"], &message("map"));
    wait_until("it is delivered", SOON, || server.maildir("carol").messages().len() == 1);
}

#[test]
fn a_map_that_is_none_fails_its_questions_until_it_is_one_again() {
    let mut server = prepare("db:@DIR@/mail/users.db");
    make_map(&server, "users", &users(&server, &["alice"]));
    server.run();
    let mut old = vec![0; 4096];
    old[12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
    fs::write(server.path("mail/old"), old).unwrap();
    fs::rename(server.path("mail/old"), server.path("mail/users.db")).unwrap();
    assert_eq!(update(&server, "users"), failed());
    let path = server.path("mail/users");
    server.wait_for_log(&format!("makemap {}, or for aliases", path.display()));
    wait_until("the old map is given up", SOON, || answer_for(&server, "alice") / 100 == 4);
    fs::remove_file(server.path("mail/users.db")).unwrap();
    assert_eq!(update(&server, "users"), failed());
    make_map(&server, "users", &users(&server, &["alice"]));
    wait_until("it answers again", SOON, || answer_for(&server, "alice") == 250);
}

#[test]
fn a_file_of_berkeley_db_is_refused_at_the_start_with_what_to_do() {
    let server = prepare("db:@DIR@/mail/users.db");
    let mut old = vec![0; 4096];
    old[12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
    fs::write(server.path("mail/users.db"), old).unwrap();
    let mut command = Command::new(server.program("smtpd"));
    command.args(["-n", "-f"]).arg(server.path("smtpd.conf"));
    become_account(&mut command, server.account());
    let (status, _, errors) = said(&command.output().unwrap());
    assert_eq!(status, 1, "{errors}");
    let source = server.path("mail/users");
    assert!(errors.contains(&format!("makemap {}", source.display())), "{errors}");
    assert!(errors.contains("invalid configuration file"), "{errors}");
}

// T25 of the specification, as decided.
#[test]
fn the_keys_of_a_map_are_used_in_turn() {
    let sinks = [Sink::start(), Sink::start()];
    let config = r#"
@LISTEN@
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
table hosts db:@DIR@/mail/hosts.db
action "out" relay host <hosts>
match from any for any action "out"
"#;
    let mut server = Server::prepare(config, &[]);
    let hosts: String =
        sinks.iter().map(|sink| format!("smtp+notls://{}\n", sink.address())).collect();
    make_map(&server, "hosts", &format!("# @list\n{hosts}"));
    server.run();
    wait_until("both hosts have got mail", SOON, || {
        server.accept(&["a@far.example"], &message("turn"));
        sinks.iter().all(|sink| !sink.received().is_empty())
    });
}

#[test]
fn makemap_says_what_is_wrong() {
    let server = prepare("@DIR@/users");
    write(&server, "mail/m", "Foo: bar baz\n");
    write(&server, "mail/twice", "foo: a\nFOO: b\n");
    write(&server, "mail/key", "key\n");
    write(&server, "mail/empty", "# nothing\n");
    const USAGE: &str = "usage: makemap [-U] [-d dbtype] [-o dbfile] [-t type] file\n";
    /// Number of the case, arguments, input, exit status, output, errors.
    type Case = (u32, &'static [&'static str], &'static str, i32, &'static str, &'static str);
    let cases: [Case; 11] = [
        (197, &["m"], "", 0, "", ""),
        (197, &["-U", "m.db"], "", 0, "foo\tbar baz\n", ""),
        (198, &["twice"], "", 1, "", "makemap: twice:2: duplicate entry for foo\n"),
        (200, &["key"], "", 1, "", "makemap: key:1: invalid entry\n"),
        (201, &["-d", "dbm", "m"], "", 1, "", "makemap: unsupported DB type 'dbm'\n"),
        (201, &["-t", "foo", "m"], "", 1, "", "makemap: unsupported type 'foo'\n"),
        (202, &["empty"], "", 0, "", "makemap: warning: empty map created: empty.db\n"),
        (0, &["hash", "other"], "a: b\n", 0, "", ""),
        (0, &["-U", "other.db"], "", 0, "a\tb\n", ""),
        (0, &["-h"], "", 1, "", USAGE),
        (0, &["none"], "", 1, "", "makemap: none: No such file or directory (os error 2)\n"),
    ];
    for (number, arguments, input, status, output, errors) in cases {
        let found = said(&run_as(&server, "makemap", arguments, input));
        let expected = (status, output.to_owned(), errors.to_owned());
        assert_eq!(found, expected, "queue case {number}: {arguments:?}");
        spec_case::ran("queue", number);
    }
    assert!(!server.path("mail/twice.db").exists());
    assert_eq!(mode_of(&server.path("mail/other.db")), 0o600);
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn newaliases_makes_the_map_and_has_the_server_read_the_table_again() {
    let config = r#"
@LISTEN@
table aliases file:@DIR@/mail/aliases
action "local" maildir "@DIR@/mail/box" alias <aliases>
match from any for domain "example.org" action "local"
"#;
    let mut server = Server::prepare(config, &[]);
    let account = server.account().name.clone();
    write(&server, "mail/aliases", &format!("alice: {account}\nbob: {account}\n"));
    server.run();
    assert_eq!(answer_for(&server, "carol"), 550);
    write(&server, "mail/aliases", &format!("alice: {account}\ncarol: {account}\n"));
    let (file, state) = (server.path("smtpd.conf"), server.state());
    let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
    let aliases = server.path("mail/aliases");
    let made = said(&run_as(&server, "newaliases", &["-f", file, "--state", state], ""));
    assert_eq!(made, (0, format!("{}: 2 aliases\n", aliases.display()), String::new()));
    assert_eq!(answer_for(&server, "carol"), 250);
    let dumped = said(&run_as(&server, "makemap", &["-U", "aliases.db"], ""));
    assert_eq!(dumped, (0, format!("alice\t{account}\ncarol\t{account}\n"), String::new()));

    // The aliases of the system are root's.
    if ordinary_account().uid != 0 {
        let refused = said(&run_as(&server, "newaliases", &["-f", file], ""));
        assert_eq!(refused, (1, String::new(), "newaliases: need root privileges\n".to_owned()));
    }
    spec_case::ran("queue", 203);

    write(&server, "mail/aliases", "alice: bob smith\n");
    let wrong = said(&run_as(&server, "sendmail", &["-bi", "-f", file, "--state", state], ""));
    let expected = format!("newaliases: {}:1: invalid entry\n", aliases.display());
    assert_eq!(wrong, (1, String::new(), expected));
}
