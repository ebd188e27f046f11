//! Tables that programs answer for: questions reach them, their failures are temporary, and a
//! program that dies, stalls or talks nonsense is replaced and stops nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::peer::{Peer, message};
use common::process;
use common::root::SMTPD;
use common::server::{Server, free_address};
use common::sink::Sink;
use common::spec_case;
use common::table_program::{HANDSHAKE, TableProgram};
use common::wait::{SOON, wait_for, wait_until};
use nix::sys::signal::Signal;

/// What of the daemon's own must not take longer beside a program that fails.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Rules with one table of `program` in each place, and one recipient that needs none.
fn config(program: &str) -> String {
    r#"
@LISTEN@
table domains PROGRAM:@DIR@/mail/PROGRAM
table aliases PROGRAM:@DIR@/mail/PROGRAM
table users PROGRAM:@DIR@/mail/PROGRAM
table own { "@" = "@USER@" }
action "own" maildir "@DIR@/mail/%{rcpt.user}" virtual <own>
action "virtual" maildir "@DIR@/mail/%{rcpt.user}" virtual <aliases>
action "users" maildir "@DIR@/mail/users" userbase <users>
match from any for domain "own.example" action "own"
match from any for domain "virtual.example" action "virtual"
match from any for domain "users.example" action "users"
match from any for domain <domains> action "own"
"#
    .replace("PROGRAM", program)
}

/// A server with a program that knows `map`.
fn start(name: &str, map: &str) -> (Server, TableProgram) {
    let mut server = Server::prepare(&config(name), &[]);
    let map = map.replace("@USER@", &server.account().name);
    let program = TableProgram::install(&server, name, &map);
    server.run();
    (server, program)
}

/// Code and text of the reply to one recipient.
fn rcpt(server: &Server, recipient: &str) -> String {
    let mut peer = server.peer();
    peer.say("MAIL FROM:<sender@client.example>").unwrap();
    let line = peer.say(&format!("RCPT TO:<{recipient}>")).unwrap().line();
    // Whether it says good-bye is another test.
    let _ = peer.quit();
    line
}

fn is_taken(server: &Server, recipient: &str) -> bool {
    rcpt(server, recipient).starts_with("250 ")
}

/// A recipient of a rule before all tables is taken, and soon.
fn others_are_served(server: &Server) {
    let begun = Instant::now();
    assert!(is_taken(server, "any@own.example"));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

const MAP: &str = "domain|listed.example|\nalias|alice@virtual.example|@USER@\n\
                   alias|bob@virtual.example|alice@virtual.example, dora@listed.example\n\
                   userinfo|carol|1:2:/h\n";

#[test]
fn a_program_answers_for_rules_aliases_and_users() {
    let (server, program) = start("answers", MAP);
    let cases = [
        ("any@listed.example", "250 "),
        ("any@other.example", "550 "),
        ("Alice@VIRTUAL.example", "250 "),
        ("bob@virtual.example", "250 "),
        ("eve@virtual.example", "524 "),
        ("carol@users.example", "250 "),
        ("carol+tag@users.example", "250 "),
        ("eve@users.example", "550 "),
    ];
    for (recipient, expected) in cases {
        let reply = rcpt(&server, recipient);
        assert!(reply.starts_with(expected), "{recipient}: {reply}");
    }
    server.accept(&["alice@virtual.example"], &message("through"));
    wait_until("it is delivered", SOON, || server.maildir("alice").count() == 1);

    let told = "config|smtpd-version|7.9.0-pillarbox config|protocol|0.1 config|tablename|domains ";
    let starts = program.lines("starts");
    assert!(starts.iter().any(|line| line == told), "{starts:#?}");
    let asked = program.lines("asked");
    let without_ids: Vec<String> = asked
        .iter()
        .map(|line| line.split('|').enumerate().filter(|(at, _)| *at != 5))
        .map(|fields| fields.map(|(_, field)| field).collect::<Vec<_>>().join("|"))
        .collect();
    for expected in [
        "table|0.1|domains|check|domain|listed.example",
        "table|0.1|aliases|lookup|alias|alice@virtual.example",
        "table|0.1|users|lookup|userinfo|carol",
    ] {
        assert!(without_ids.iter().any(|line| line == expected), "{expected}: {without_ids:#?}");
    }
    // One program for each table, each told its name and started once.
    assert_eq!(program.starts(), 3);
    assert!(program.lines("as")[0].ends_with(" clean"), "{:?}", program.lines("as"));
}

#[test]
fn an_error_of_a_program_is_a_temporary_failure() {
    let (server, program) = start("refuses", MAP);
    // First found in no table at all, then refused by the program.
    assert!(rcpt(&server, "eve@users.example").starts_with("550 "));
    program.mode("error");
    let cases = [
        (174, "any@listed.example", "451 "),
        (241, "alice@virtual.example", "424 "),
        (242, "carol@users.example", "451 "),
    ];
    for (number, recipient, expected) in cases {
        let reply = rcpt(&server, recipient);
        assert!(reply.starts_with(expected), "config case {number}: {reply}");
        spec_case::ran("config", number);
    }
    server.wait_for_log("warn: table-proc: domains check failed: boom");
    server.wait_for_log("warn: table-proc: aliases lookup failed: boom");
    others_are_served(&server);
    program.mode("answer");
    assert!(is_taken(&server, "any@listed.example"), "no restart is needed");
    assert_eq!(program.starts(), 3);
}

#[test]
fn a_program_that_fails_is_replaced_and_stops_nobody_else() {
    let cases = [
        ("die", "warn: table-proc: unexpected EOF: domains is started anew"),
        ("kill", "warn: program of table domains ended: signal 9"),
        ("nonsense", "warn: table-proc: failed to parse reply: domains is started anew"),
        ("stall", "warn: table-proc: no reply within 10 s: domains is started anew"),
    ];
    for (mode, logged) in cases {
        let name = format!("fails-{mode}");
        let (server, program) = start(&name, MAP);
        assert!(is_taken(&server, "any@listed.example"));
        program.mode(mode);
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| rcpt(&server, "any@listed.example"));
            others_are_served(&server);
            let reply = failing.join().unwrap();
            assert!(reply.starts_with("451 "), "{mode}: {reply}");
        });
        server.wait_for_log(logged);
        others_are_served(&server);
        program.mode("answer");
        wait_until(&format!("{mode}: it answers again"), SOON, || {
            let reply = rcpt(&server, "any@listed.example");
            assert!(reply.starts_with(['2', '4']), "{mode}: {reply}");
            reply.starts_with('2')
        });
        server.wait_for_log("info: table-proc: domains answers again");
        assert!(program.starts() > 3, "{mode}");
        let log = server.log();
        assert!(!log.contains("panicked") && !log.contains("lookup ended"), "{log}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_nonsense() {
    let (server, program) = start("twice", MAP);
    program.mode("twice");
    // The first answer counts; the second ends the program.
    assert!(rcpt(&server, "any@listed.example").starts_with("550 "));
    server.wait_for_log("warn: table-proc: failed to parse reply: domains is started anew");
    program.mode("answer");
    wait_until("it answers again", SOON, || is_taken(&server, "any@listed.example"));
}

#[test]
fn a_program_that_breaks_the_handshake_is_started_again_until_it_does_not() {
    let cases = [
        ("hello\n", "invalid handshake reply"),
        ("register|none\n", "unknown service none"),
        ("register|ready\n", "no services registered"),
    ];
    for (number, (handshake, trouble)) in cases.into_iter().enumerate() {
        let name = format!("handshake-{number}");
        let mut server = Server::prepare(&config(&name), &[]);
        let program = TableProgram::install(&server, &name, MAP);
        program.handshake(handshake);
        server.run();
        server.wait_for_log(&format!("warn: table-proc: {trouble}: domains is started anew"));
        others_are_served(&server);
        let reply = rcpt(&server, "any@listed.example");
        assert!(reply.starts_with("451 "), "{trouble}: {reply}");
        program.handshake(HANDSHAKE);
        wait_until("it answers", SOON, || is_taken(&server, "any@listed.example"));
    }
}

#[test]
fn a_program_that_may_not_be_executed_is_logged_and_stops_nothing() {
    // config case 271
    let mut server = Server::prepare(&config("locked"), &[]);
    let _program = TableProgram::install(&server, "locked", MAP);
    let path = server.program("table-locked");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    server.run();
    let line = server.wait_for_log("warn: table-proc: ");
    assert!(line.contains("table-locked: Permission denied"), "{line}");
    others_are_served(&server);
    wait_until("without a program there is no answer", SOON, || {
        rcpt(&server, "any@listed.example").starts_with("451 ")
    });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    wait_until("it answers", SOON, || is_taken(&server, "any@listed.example"));
    spec_case::ran("config", 271);
}

/// The programs called `table-NAME` of a server, once there is one for each table and none of them
/// has just forked.
fn three_running(server: &Server, name: &str) -> Vec<process::Process> {
    let wanted = format!("table-{name}");
    wait_for("three programs", SOON, || {
        let mut found = server.processes();
        found.retain(|process| process.name == wanted);
        (found.len() == 3).then_some(found)
    })
}

#[test]
fn programs_end_with_whom_they_answer() {
    let (mut server, program) = start("ends", MAP);
    assert!(is_taken(&server, "any@listed.example"));
    let first = three_running(&server, "ends");

    // One of them hangs, and does not notice that lookup has gone.
    program.mode("stall");
    let mut peer = server.peer();
    peer.say("MAIL FROM:<sender@client.example>").unwrap();
    peer.send("RCPT TO:<any@listed.example>\r\n").unwrap();
    wait_until("it is asked", SOON, || program.lines("asked").len() == 2);
    process::send(server.role("lookup").pid, Signal::SIGKILL);
    process::wait_until_gone(&first);
    assert!(peer.reply().unwrap().line().starts_with("451 "));
    program.mode("answer");
    wait_until("the successors answer", SOON, || is_taken(&server, "any@listed.example"));
    let second = three_running(&server, "ends");

    program.mode("stall");
    let before = program.lines("asked").len();
    peer.send("RCPT TO:<any@listed.example>\r\n").unwrap();
    wait_until("it is asked", SOON, || program.lines("asked").len() > before);
    server.stop();
    process::wait_until_gone(&second);
}

#[test]
fn entries_in_turn_and_names_of_listeners_come_from_programs_too() {
    let sink = Sink::start();
    let address = free_address();
    let config = format!(
        "listen on {} port {} hostnames <t>\n\
         mta limit conn-delay-route 0\nmta limit conn-delay-relay 0\n\
         action \"out\" relay host <t> src <t>\nmatch from any for any action \"out\"\n",
        address.ip(),
        address.port()
    );
    let config = format!("@LISTEN@\ntable t turns:@DIR@/mail/turns\n{config}");
    let mut server = Server::prepare(&config, &[]);
    let map = format!(
        "relayhost||smtp+notls://{}\nsource||127.0.0.1\naddrname|127.0.0.1|mx7.example.org\n",
        sink.address()
    );
    let program = TableProgram::install(&server, "turns", &map);
    server.run();
    let mut peer = Peer::connect(address).unwrap();
    let greeting = peer.reply().unwrap().line();
    assert!(greeting.starts_with("220 mx7.example.org "), "{greeting}");
    server.accept(&["any@far.example"], &message("out"));
    let received = sink.wait_for(1, SOON);
    assert_eq!(received[0].recipients, ["any@far.example"]);
    let asked = program.lines("asked");
    for service in ["relayhost", "source"] {
        let begin = format!("table|0.1|t|fetch|{service}|");
        assert!(asked.iter().any(|line| line.starts_with(&begin)), "{begin}: {asked:#?}");
    }
}

#[test]
fn a_program_of_a_daemon_that_root_started_runs_as_the_daemon_does() {
    let config = "@LISTEN@\ntable t rooted:@DIR@/mail/rooted\naction \"a\" maildir\n\
                  match from any for domain <t> action \"a\"\n";
    let started = Server::start_as_root_with(config, |directory| {
        let program = directory.join("libexec/opensmtpd/table-rooted");
        TableProgram::put(&directory.join("mail"), &program, "rooted", "domain|listed.example|\n");
    });
    let Some(server) = started else { return };
    assert!(is_taken(&server, "alice@listed.example"));
    let written = fs::read_to_string(server.path("mail/rooted/as")).unwrap();
    assert!(written.starts_with(&format!("{SMTPD} {SMTPD} /usr/bin:/bin")), "{written}");
    assert!(written.ends_with(" clean\n"), "{written}");
}
