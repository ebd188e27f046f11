//! Sessions as clients see them, where more than the session itself has a part in the answer: the
//! rules, the queue, deliveries, local submission.
//!
//! What the session decides alone is proved with it, in `dispatcher/smtp/cases`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::process::Command;
use std::time::Duration;

use common::account::become_account;
use common::maildir::header;
use common::peer::{Peer, message};
use common::server::{DELIVER, Server};
use common::sink::Sink;
use common::spec_case::ran;
use common::wait::{SOON, wait_for, wait_until};

#[test]
fn a_paused_listener_greets_after_the_pause() {
    let server = Server::start(DELIVER);
    server.control(&["pause", "smtp"]);
    // The order takes a moment to reach the role that accepts.
    let mut peer = wait_for("a client that is not greeted", SOON, || {
        let mut peer = Peer::connect(server.address()).unwrap();
        peer.stream().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        peer.reply().is_err().then_some(peer)
    });
    let refused = server.sendmail(&["-f", "me@client.example", "a@example.org"], "Subject: x\n\n");
    assert_ne!(refused.status, 0);
    assert!(refused.errors.contains("server disallowed submission request"), "{}", refused.errors);
    ran("smtp", 220);
    server.control(&["resume", "smtp"]);
    peer.stream().set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    ran("smtp", 36);
}

// RFC 5321, section 3.8.
#[test]
fn clients_are_told_when_the_server_leaves() {
    let mut server = Server::start(DELIVER);
    let in_data = || {
        let mut peer = server.peer();
        for command in ["MAIL FROM:<a@client.example>", "RCPT TO:<a@example.org>", "DATA"] {
            assert!(peer.say(command).unwrap().code < 400);
        }
        peer.send("Subject: cut\r\n\r\n").unwrap();
        peer
    };
    let told = |peers: [Peer; 2]| {
        for mut peer in peers {
            let line = peer.reply().unwrap().line();
            assert_eq!(line, "421 4.3.2 Service not available, closing transmission channel");
            assert!(peer.reply().is_err(), "the connection ends");
        }
    };
    // The set of roles is replaced, and the next one serves.
    let peers = [server.peer(), in_data()];
    assert_eq!(server.control(&["reload"]).status, 0);
    told(peers);
    server.wait_for_log("configuration reloaded, generation 2");

    let peers = [server.peer(), in_data()];
    server.stop();
    told(peers);
    assert_eq!(server.maildir("a").count(), 0);
    assert!(!server.log().contains(" smtp message "));
}

#[test]
fn a_listener_without_descriptors_says_so_once_and_goes_on() {
    let server = Server::start(DELIVER);
    let dispatcher = server.role("dispatcher").pid.to_string();
    let prlimit = |words: &[&str]| {
        let mut command = Command::new("prlimit");
        // Its own account may do that, root cannot everywhere.
        become_account(&mut command, server.account());
        let output = command.args(["--pid", &dispatcher]).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let before = prlimit(&["--nofile", "--noheadings", "--output=SOFT"]);
    // New descriptors would have to be below the number.
    prlimit(&["--nofile=3:"]);
    let mut peer = Peer::connect(server.address()).unwrap();
    let line = server.wait_for_log("Disabling incoming SMTP connections: ");
    assert!(line.contains("warn: Disabling") && line.contains("Too many open files"), "{line}");
    // Long enough for it to try again.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(server.log().matches("Disabling incoming").count(), 1, "{}", server.log());
    assert!(!server.log().contains("fd exhaustion over"));
    prlimit(&[&format!("--nofile={}:", before.trim())]);
    assert_eq!(peer.reply().unwrap().code, 220);
    server.wait_for_log("warn: smtp: fd exhaustion over, re-enabling incoming connections");
}

/// Rules of which most lead nowhere.
const NOWHERE: &str = r#"
@LISTEN@
table names {
    "err@example.org" = "error:550 5.2.1 go away",
    "later@example.org" = "error:451 4.2.1 come back",
    "loop@example.org" = "loop@example.org",
    "two@example.org" = "a@far.example, b@far.example",
    "@USER@@example.org" = "@USER@"
}
table users { "@" = "@USER@" }
action "virtual" maildir "@DIR@/mail/%{rcpt.user}" virtual <names>
action "local" maildir "@DIR@/mail/%{rcpt.user}"
action "any" maildir "@DIR@/mail/%{dest.user}" virtual <users>
match from any for domain "refused.example" reject
match from any for domain "example.org" action "virtual"
match from any for domain "local.example" action "local"
match from any for domain "far.example" action "any"
"#;

#[test]
fn recipients_are_refused_for_what_the_rules_say() {
    let server = Server::start(NOWHERE);
    let mut peer = server.peer();
    assert_eq!(peer.say("MAIL FROM:<a@b>").unwrap().code, 250);
    let cases = [
        (94, "c@d", "550 Invalid recipient: <c@d>"),
        (95, "c@refused.example", "550 Invalid recipient: <c@refused.example>"),
        (96, "err@example.org", "550 5.2.1 go away: <err@example.org>"),
        (0, "later@example.org", "451 4.2.1 come back: <later@example.org>"),
        (97, "none@example.org", "524 5.2.4 Mailing list expansion problem: <none@example.org>"),
        (98, "loop@example.org", "524 5.2.4 Mailing list expansion problem: <loop@example.org>"),
        (100, "nobodyhere@local.example", "550 Invalid recipient: <nobodyhere@local.example>"),
    ];
    for (number, recipient, reply) in cases {
        let said = peer.say(&format!("RCPT TO:<{recipient}>")).unwrap();
        assert_eq!(said.line(), reply);
        ran("smtp", number);
    }
    let taken = peer.say("RCPT TO:<two@example.org>").unwrap();
    assert_eq!(taken.line(), "250 2.1.5 Destination address valid: Recipient ok");
    let accepted = peer.data(&message("two")).unwrap();
    assert_eq!(accepted.code, 250, "{accepted:?}");
    server.maildir("a").wait_for(1, SOON);
    server.maildir("b").wait_for(1, SOON);
    let log = server.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines(" smtp message "), 1);
    assert_eq!(lines(" nrcpt=1 "), 1);
    assert_eq!(lines(" smtp envelope "), 1);
    assert_eq!(lines(" to=<two@example.org>"), 1);
    ran("smtp", 104);
}

#[test]
fn a_mailbox_is_told_who_sent_and_whom_for() {
    let server = Server::start(DELIVER);
    let looping = format!("Delivered-To: ALICE@example.org\n{}", message("loop"));
    server.accept(&["alice@example.org"], &looping);
    server.wait_for_log("Loop detected");
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert!(server.maildir("alice").ids().is_empty());
    ran("smtp", 140);

    server.accept(&["bob@example.org"], &message("one"));
    let text = server.maildir("bob").wait_for(1, SOON).remove(0);
    let start = "Return-Path: <sender@client.example>\nDelivered-To: bob@example.org\n";
    assert!(text.starts_with(start), "{text}");
    let mut peer = server.peer();
    let reply = peer.submit("", &["carol@example.org"], &message("null")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    let text = server.maildir("carol").wait_for(1, SOON).remove(0);
    assert!(text.starts_with("Delivered-To: carol@example.org\n"), "{text}");
    assert_eq!(header(&text, "Return-Path"), None);
    ran("smtp", 141);
}

/// Everything goes to one host, at once.
const RELAY: &str = r#"
@LISTEN@
action "out" relay host "smtp+notls://@SINK@"
match from any for any action "out"
"#;

#[test]
fn what_is_relayed_has_standard_line_ends_alone() {
    let sink = Sink::start();
    let server = Server::start(&RELAY.replace("@SINK@", &sink.address().to_string()));
    let mut peer = server.peer();
    for command in ["MAIL FROM:<a@b.example>", "RCPT TO:<c@far.example>", "DATA"] {
        assert!(peer.say(command).unwrap().code < 400, "{command}");
    }
    peer.send("Subject: x\r\n\r\nx\ry\r\n..bare\r\nend\r\r\n.\r\n").unwrap();
    assert_eq!(peer.reply().unwrap().code, 250);
    wait_until("the message is relayed", SOON, || sink.received().len() == 1);
    let received = sink.received().remove(0);
    assert!(received.content.ends_with("\n\nx y\n.bare\nend \n"), "{received:?}");
    ran("smtp", 152);
    // The sink undoes one dot a line: there were two.
    ran("smtp", 153);
}

#[test]
fn what_sendmail_hands_in_is_local_and_authenticated() {
    let server = Server::start(&format!(
        "listen on socket mask-src tag LOC no-dsn\n{}",
        DELIVER.replace("from any", "tag LOC from local")
    ));
    let said = server.sendmail(&["-f", "bob@example.org", "c@example.org"], "Subject: x\n\ny\n");
    assert_eq!((said.status, said.errors.as_str()), (0, ""));
    let text = server.maildir("c").wait_for(1, SOON).remove(0);
    let received = header(&text, "Received").unwrap();
    assert!(received.contains("by ") && received.contains(" with ESMTPA id "), "{text}");
    assert!(!received.contains("from "), "{text}");
    ran("smtp", 219);
}

#[test]
fn a_body_without_headers_gets_them() {
    let server = Server::start(&DELIVER.replace("from any", "from local"));
    let said = server.sendmail(&["-f", "bob@example.org", "c@example.org"], "hello no header\n");
    assert_eq!((said.status, said.errors.as_str()), (0, ""));
    let text = server.maildir("c").wait_for(1, SOON).remove(0);
    for name in ["From", "Date", "Message-ID"] {
        assert!(header(&text, name).is_some(), "{name}: {text}");
    }
    assert_eq!(header(&text, "From").as_deref(), Some("<bob@example.org>"));
    assert!(text.ends_with("\n\nhello no header\n"), "{text}");
    let received = header(&text, "Received").unwrap();
    assert!(received.starts_with("from localhost ("), "{received}");
    assert!(received.contains(" [local]) by ") && received.contains(" with ESMTPA id "));
    ran("smtp", 217);
    ran("smtp", 218);
}

#[test]
fn what_another_server_says_cannot_break_anything() {
    let sink = Sink::scripted(|command| {
        let short = command.starts_with("EHLO").then(|| "250-first\r\n25".to_owned());
        short.or_else(|| command.starts_with("HELO").then(String::new))
    });
    let server = Server::start(&RELAY.replace("@SINK@", &sink.address().to_string()));
    server.accept(&["c@far.example"], &message("short"));
    let failed = server.wait_for_log("Bad response: line too short");
    assert!(failed.contains(" mta "), "{failed}");
    wait_until("the message waits", SOON, || server.queue().len() == 1);
    server.accept(&["d@far.example"], &message("next"));
    ran("smtp", 225);

    let sink = Sink::scripted(|command| {
        let told = command.starts_with("RCPT").then_some("452 no\u{1}room\rtype: forged\u{1b}[1m");
        told.map(str::to_owned)
    });
    let server = Server::start(&RELAY.replace("@SINK@", &sink.address().to_string()));
    server.accept(&["c@far.example"], &message("odd"));
    let delivery = server.wait_for_log("result=\"TempFail\"");
    assert!(delivery.contains("452 no") && delivery.contains("type: forged"), "{delivery}");
    assert!(delivery.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{delivery:?}");
    let queued = server.queue();
    let id = queued[0].split('|').next().unwrap();
    let shown = server.control(&["show", "envelope", id]);
    assert_eq!(shown.status, 0, "{shown:?}");
    let lines = |start: &str| shown.output.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("type: "), lines("errorline: ")), (1, 1), "{}", shown.output);
    assert!(shown.output.lines().all(|line| line.bytes().all(|byte| byte != 0x1b && byte != 1)));
    ran("smtp", 226);
}
