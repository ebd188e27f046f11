//! Filter programs at work: sessions go through them, what they decide happens, and one that dies,
//! stalls, floods or talks nonsense is replaced and stops nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::filter_program::{EVERYTHING, FilterProgram};
use common::peer::{Peer, message};
use common::process;
use common::server::{Server, free_address};
use common::sink::Sink;
use common::spec_case;
use common::wait::{SOON, wait_for, wait_until};
use nix::sys::signal::Signal;

/// What of the daemon's own must not take longer beside a filter that fails.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A listener with the filter `f1`, one without any, and Maildirs named by recipients.
const CONFIG: &str = r#"
filter f1 proc-exec "@DIR@/filter-test @DIR@/f1"
@LISTEN@ filter f1
listen on @PLAIN@
table users { "@" = "@USER@" }
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "example.org" action "local"
"#;

/// A server with the program `f1`, and the address of its listener without filters.
struct Scene {
    server: Server,
    program: FilterProgram,
    plain: SocketAddr,
}

impl Scene {
    fn new(config: &str, registrations: &str) -> Self {
        let plain = free_address();
        let words = format!("{} port {}", plain.ip(), plain.port());
        let mut server = Server::prepare(&config.replace("@PLAIN@", &words), &[]);
        let program = FilterProgram::install(&server, "f1");
        program.registers(registrations);
        server.run();
        Self { server, program, plain }
    }

    /// As [`Self::new`], with the program asked about everything and told of everything.
    fn with_all() -> Self {
        Self::new(CONFIG, EVERYTHING)
    }

    /// Who connects to the listener without filters is served, and soon.
    fn others_are_served(&self) {
        let begun = Instant::now();
        let mut peer = Peer::greeted(self.plain).unwrap();
        let reply = peer.submit("a@b.example", &["plain@example.org"], &message("x")).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }

    /// A message through the filter is taken, sooner or later.
    fn wait_until_served(&self) {
        wait_until("the filter serves", SOON, || {
            Peer::greeted(self.server.address()).is_ok_and(|mut peer| {
                let sent = peer.submit("a@b.example", &["user@example.org"], &message("x"));
                sent.is_ok_and(|reply| reply.code == 250)
            })
        });
    }

    /// The process of the program, once there is one.
    fn process(&self) -> process::Process {
        wait_for("the filter runs", SOON, || {
            let all = self.server.processes();
            all.into_iter().find(|process| process.name == "filter-test")
        })
    }
}

fn code(reply: &std::io::Result<common::peer::Reply>) -> u16 {
    reply.as_ref().map_or(0, |reply| reply.code)
}

#[test]
fn a_session_goes_through_a_filter_of_everything() {
    let scene = Scene::with_all();
    let mut peer = scene.server.peer();
    let reply = peer.submit("a@b.example", &["user@example.org"], &message("through")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    peer.quit().unwrap();
    wait_until("it is delivered", SOON, || scene.server.maildir("user").count() == 1);
    let greeted = scene.program.lines("config");
    let expected = [
        "config|smtpd-version|7.9.0-pillarbox",
        "config|protocol|0.7",
        "config|smtp-session-timeout|300",
        "config|subsystem|smtp-in",
    ];
    assert_eq!(greeted[..4], expected);
    assert!(greeted[4].starts_with("config|admd|"), "{greeted:?}");
    assert_eq!(greeted[5], "config|ready");
    spec_case::ran("filter", 1);

    wait_until("it is told of the end", SOON, || {
        // Before that one there is who waited for the server.
        scene.program.last_session().iter().any(|event| event == "link-disconnect")
    });
    let events = scene.program.last_session();
    let order = [
        "link-connect",
        "link-greeting",
        "link-identify",
        "tx-begin",
        "tx-mail",
        "tx-envelope",
        "tx-rcpt",
        "tx-data",
        "tx-commit",
        "tx-reset",
        "link-disconnect",
    ];
    let told: Vec<&str> = (events.iter().map(String::as_str))
        .filter(|event| event.starts_with("link-") || event.starts_with("tx-"))
        .collect();
    assert_eq!(told, order);
    let responses = events.iter().filter(|event| *event == "filter-response").count();
    assert_eq!(responses, 7, "connect, ehlo, mail, rcpt, data, commit, quit: {events:?}");
    // Others are not told about.
    let before = scene.program.events().len();
    scene.others_are_served();
    assert_eq!(scene.program.events().len(), before);
    spec_case::ran("filter", 5);
    assert!(scene.server.statistic("filter.f1.requests") >= 7);
}

#[test]
fn a_filter_that_takes_its_time_to_begin_delays_the_banner_only_of_its_listener() {
    let plain = free_address();
    let words = format!("{} port {}", plain.ip(), plain.port());
    let mut server = Server::prepare(&CONFIG.replace("@PLAIN@", &words), &[]);
    let program = FilterProgram::install(&server, "f1");
    program.registers("register|filter|smtp-in|connect\n");
    program.mode("slow");
    server.run();
    let mut waiting = Peer::connect(server.address()).unwrap();
    let begun = Instant::now();
    Peer::greeted(plain).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
    assert_eq!(waiting.reply().unwrap().code, 220);
    spec_case::ran("filter", 4);
}

#[test]
fn sessions_and_their_filters_outlive_the_lookup_role() {
    let scene = Scene::with_all();
    let mut peer = scene.server.peer();
    let before = scene.process();
    let lookup = scene.server.role("lookup");
    process::send(lookup.pid, Signal::SIGKILL);
    wait_until("the role is played again", SOON, || scene.server.role("lookup").pid != lookup.pid);
    let reply = peer.submit("a@b.example", &["user@example.org"], &message("on")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(scene.process().pid, before.pid);
}

#[test]
fn what_a_filter_writes_to_standard_error_is_logged() {
    let scene = Scene::new(CONFIG, "register|filter|smtp-in|connect\n");
    scene.program.mode("complain");
    Peer::connect(scene.server.address()).unwrap().reply().unwrap();
    scene.server.wait_for_log("f1: hi");
    spec_case::ran("filter", 11);
}

#[test]
fn a_command_that_does_not_exist_is_said_and_fails_its_sessions_only() {
    let plain = free_address();
    let words = format!("{} port {}", plain.ip(), plain.port());
    let config = CONFIG.replace("@PLAIN@", &words).replace("filter-test", "filter-none");
    let server = Server::start(&config);
    server.wait_for_log("not found");
    server.wait_for_log("warn: lost processor: f1 exited abnormally");
    let log = server.log();
    assert!(log.lines().any(|line| line.contains("f1: ") && line.contains("not found")), "{log}");
    let reply = Peer::connect(server.address()).unwrap().reply().unwrap();
    assert_eq!(reply.line(), "421 Internal server error");
    assert!(Peer::greeted(plain).is_ok());
    spec_case::ran("filter", 13);
}

#[test]
fn a_filter_that_ends_at_once_fails_its_sessions_only() {
    let plain = free_address();
    let words = format!("{} port {}", plain.ip(), plain.port());
    let config = CONFIG.replace("@PLAIN@", &words).replace("filter-test", "/bin/true");
    let server = Server::start(&config);
    server.wait_for_log("warn: lost processor: f1 exited abnormally");
    let reply = Peer::connect(server.address()).unwrap().reply().unwrap();
    assert_eq!(reply.line(), "421 Internal server error");
    assert!(Peer::greeted(plain).is_ok());
    spec_case::ran("config", 268);
}

#[test]
fn a_filter_that_is_killed_fails_its_sessions_and_is_back() {
    let scene = Scene::with_all();
    let mut peer = scene.server.peer();
    peer.say("MAIL FROM:<a@b.example>").unwrap();
    let victim = scene.process();
    process::send(victim.pid, Signal::SIGKILL);
    wait_until("it is gone", SOON, || !process::is_alive(victim.pid));
    let reply = peer.say("RCPT TO:<user@example.org>");
    assert_eq!(code(&reply), 421, "{reply:?}");
    scene.others_are_served();
    scene.server.wait_for_log("warn: lost processor: f1 terminated; signal 9");
    scene.wait_until_served();
    assert_ne!(scene.process().pid, victim.pid);
    assert!(scene.server.statistic("filter.f1.failures") >= 1);
    assert!(scene.server.statistic("filter.f1.restarts") >= 1);
}

#[test]
fn what_a_filter_must_not_do_is_logged_and_fails_its_sessions_only() {
    let cases = [
        (94, "exit", "warn: lost processor: f1 exited abnormally"),
        (95, "nonsense", "lookup: Invalid filter message type: hello world"),
        (0, "long", "lookup: line too long"),
        (0, "closed", "warn: lost processor: f1 "),
    ];
    for (number, mode, log) in cases {
        let scene = Scene::with_all();
        let mut peer = scene.server.peer();
        peer.say("MAIL FROM:<a@b.example>").unwrap();
        scene.program.mode(mode);
        let reply = peer.say("RCPT TO:<user@example.org>");
        assert_eq!(code(&reply), 421, "{mode}: {reply:?}");
        scene.program.mode("proceed");
        scene.others_are_served();
        if mode != "closed" {
            scene.server.wait_for_log(log);
        }
        scene.wait_until_served();
        spec_case::ran("filter", number);
    }
}

#[test]
fn a_filter_that_stops_in_the_middle_of_a_message_loses_nothing_and_lets_nothing_through() {
    let scene = Scene::with_all();
    let mut peer = scene.server.peer();
    peer.say("MAIL FROM:<a@b.example>").unwrap();
    peer.say("RCPT TO:<user@example.org>").unwrap();
    assert_eq!(peer.say("DATA").unwrap().code, 354);
    peer.send(b"Subject: x\r\n\r\nfirst\r\n").unwrap();
    let victim = scene.process();
    process::send(victim.pid, Signal::SIGKILL);
    wait_until("it is gone", SOON, || !process::is_alive(victim.pid));
    peer.send(b"second\r\n.\r\n").unwrap();
    let reply = peer.reply();
    assert_eq!(reply.as_ref().map_or(4, |reply| reply.code / 100), 4, "{reply:?}");
    scene.wait_until_served();
    wait_until("the other message is delivered", SOON, || scene.server.maildir("user").count() > 0);
    assert!(scene.server.maildir("user").texts().iter().all(|text| !text.contains("first")));
}

#[test]
fn large_messages_of_many_sessions_pass_unchanged() {
    let scene = Scene::with_all();
    let line = "0123456789".repeat(10);
    let body = format!("{line}\r\n").repeat(20_000);
    thread::scope(|scope| {
        for client in 0..4 {
            let (scene, body) = (&scene, &body);
            scope.spawn(move || {
                let mut peer = scene.server.peer();
                let content = format!("Subject: {client}\r\n\r\n{body}");
                let to = format!("large{client}@example.org");
                let reply = peer.submit("a@b.example", &[&to], &content).unwrap();
                assert_eq!(reply.code, 250, "{reply:?}");
            });
        }
    });
    for client in 0..4 {
        let maildir = scene.server.maildir(&format!("large{client}"));
        let texts = maildir.wait_for(1, SOON);
        let kept = texts[0].matches(&line).count();
        assert_eq!(kept, 20_000);
    }
}

#[test]
fn outgoing_sessions_are_told_of() {
    let sink = Sink::start();
    let config = format!(
        "filter f1 proc-exec \"@DIR@/filter-test @DIR@/f1\"\n\
         filter in1 proc-exec \"@DIR@/filter-test @DIR@/in1\"\n\
         filter both chain {{ f1 in1 }}\n@LISTEN@\nmta limit session-keepalive 1\n\
         action \"out\" relay host \"smtp://{}\" filter both\nmatch from any for any action \"out\"\n",
        sink.address()
    );
    let mut server = Server::prepare(&config, &[]);
    let program = FilterProgram::install(&server, "f1");
    program.registers("register|report|smtp-out|*\n");
    let incoming = FilterProgram::beside(&server, "in1");
    incoming.registers(EVERYTHING);
    server.run();
    server.accept(&["c@d.example"], &message("out"));
    sink.wait_for(1, SOON);
    wait_until("it is told of the end", SOON, || {
        program.events().iter().any(|event| event == "link-disconnect")
    });
    let events = program.events();
    // When an envelope is told of depends on whether commands are sent ahead of replies.
    let told: Vec<&str> = (events.iter().map(String::as_str))
        .filter(|event| event.starts_with("tx-") || *event == "link-connect")
        .filter(|event| *event != "tx-envelope")
        .collect();
    let order =
        ["link-connect", "tx-begin", "tx-mail", "tx-rcpt", "tx-data", "tx-commit", "tx-reset"];
    assert_eq!(told, order);
    assert_eq!(events.iter().filter(|event| *event == "tx-envelope").count(), 1);
    assert_eq!(program.lines("config")[3], "config|subsystem|smtp-out");
    spec_case::ran("filter", 2);
    let told = program.told();
    let [.., quit, bye, end] = &told[..] else { panic!("{told:?}") };
    assert_eq!((quit.as_str(), end.as_str()), ("R|protocol-client|QUIT", "R|link-disconnect|"));
    assert!(bye.starts_with("R|protocol-server|221"), "{told:?}");
    spec_case::ran("filter", 107);
    // Who wants to hear of incoming sessions alone runs, and hears nothing.
    assert_eq!(incoming.lines("config").last().map(String::as_str), Some("config|ready"));
    assert_eq!(incoming.lines("lines"), [""; 0]);
    spec_case::ran("filter", 109);
}

#[test]
fn outgoing_sessions_are_told_of_as_they_go() {
    let goes_on = Arc::new(AtomicBool::new(false));
    let may_go_on = Arc::clone(&goes_on);
    let sink = Sink::scripted(move |command| {
        while command.starts_with("MAIL ") && !may_go_on.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
        None
    });
    let config = format!(
        "filter f1 proc-exec \"@DIR@/filter-test @DIR@/f1\"\n@LISTEN@\n\
         action \"out\" relay host \"smtp://{}\" filter f1\nmatch from any for any action \"out\"\n",
        sink.address()
    );
    let mut server = Server::prepare(&config, &[]);
    let program = FilterProgram::install(&server, "f1");
    program.registers("register|report|smtp-out|*\n");
    server.run();
    server.accept(&["c@d.example"], &message("out"));
    wait_until("it is told of the greeting", SOON, || {
        program.events().iter().any(|event| event == "link-identify")
    });
    assert!(!program.events().iter().any(|event| event == "tx-begin"));
    goes_on.store(true, Ordering::Relaxed);
    sink.wait_for(1, SOON);
}

#[test]
fn a_client_that_leaves_before_its_banner_is_let_go_while_its_filter_is_silent() {
    let scene = Scene::with_all();
    scene.wait_until_served();
    scene.program.mode("stall");
    let before = scene.program.told().len();
    let client = Peer::connect(scene.server.address()).unwrap();
    wait_until("it is asked about the connection", SOON, || {
        let told = scene.program.told();
        told.get(before..)
            .is_some_and(|told| told.iter().any(|line| line.starts_with("Q|connect|")))
    });
    drop(client);
    scene.server.wait_for_log(" smtp disconnected reason=disconnect");
}

#[test]
fn a_filter_that_stalls_does_not_read_or_floods_holds_up_its_own_sessions_alone() {
    for mode in ["stall", "deaf", "flood"] {
        let scene = Scene::with_all();
        let mut waiting = scene.server.peer();
        let mut sending = scene.server.peer();
        for command in ["MAIL FROM:<a@b.example>", "RCPT TO:<user@example.org>", "DATA"] {
            assert!(sending.say(command).unwrap().code < 400);
        }
        scene.program.mode(mode);
        waiting.send("MAIL FROM:<a@b.example>\r\n").unwrap();
        // More than the server holds for a program that does not take it.
        let body = format!("{}\r\n", "y".repeat(998)).repeat(4000);
        thread::scope(|scope| {
            scope.spawn(|| {
                // That it is refused in the middle is as good.
                let _ = sending.send(format!("Subject: x\r\n\r\n{body}.\r\n"));
            });
            for _ in 0..5 {
                scene.others_are_served();
            }
            // A client that leaves is let go while its filter is silent.
            drop(waiting);
            if mode != "flood" {
                scene.server.wait_for_log(" smtp disconnected reason=disconnect");
            }
            scene.program.mode("proceed");
            if mode == "deaf" {
                // It sleeps, if it was not ended for that.
                process::send(scene.process().pid, Signal::SIGKILL);
            }
        });
        scene.wait_until_served();
        scene.others_are_served();
    }
}
