//! A message all the way, through a server of real processes: in over SMTP or `sendmail`, out to
//! Maildirs, commands, and LMTP. What goes wrong on the way is told to the sender.
//!
//! Relaying is in `relay.rs`, bad input in `bad_input.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::maildir::header;
use common::peer::{message, on_the_wire};
use common::server::{DELIVER, Server};
use common::sink::{END_OF_DATA, Sink};
use common::wait::{SOON, wait_for, wait_until};

#[test]
fn a_message_arrives_in_the_maildir_of_its_recipient() {
    let server = Server::start(DELIVER);
    server.accept(&["alice@example.org"], &message("one"));

    let messages = server.maildir("alice").wait_for(1, SOON);
    let text = &messages[0];
    assert_eq!(header(text, "Return-Path").as_deref(), Some("<sender@client.example>"));
    assert_eq!(header(text, "Delivered-To").as_deref(), Some("alice@example.org"));
    let received = header(text, "Received").unwrap();
    assert!(received.starts_with("from client.example (localhost [127.0.0.1]) by "), "{received}");
    assert!(received.contains(" for <alice@example.org>"), "{received}");
    assert!(text.ends_with("\n\nThis is one.\n"), "{text}");
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn a_message_of_sendmail_arrives_complete() {
    let server = Server::start(&DELIVER.replace("from any", "from local"));
    let said =
        server.sendmail(&["-f", "me@client.example", "alice@example.org"], "Subject: x\n\ny\n");
    assert_eq!((said.status, said.errors.as_str()), (0, ""));

    let messages = server.maildir("alice").wait_for(1, SOON);
    for name in ["Date", "Message-ID", "From"] {
        assert!(header(&messages[0], name).is_some(), "{name}: {}", messages[0]);
    }
    assert!(messages[0].ends_with("\n\ny\n"), "{}", messages[0]);
}

#[test]
fn every_recipient_gets_a_message_once() {
    let server = Server::start(DELIVER);
    server.accept(&["a@example.org", "b@example.org"], &message("both"));
    server.accept(&["b@example.org"], &message("second"));
    assert_eq!(server.maildir("b").wait_for(2, SOON).len(), 2);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(server.maildir("a").ids(), ["<both@client.example>"]);
}

#[test]
fn a_body_is_delivered_byte_for_byte_up_to_ten_mebibytes() {
    let server = Server::start(DELIVER);
    // Below and above what stays in memory, in the log, in one read; lines that begin with dots.
    for size in [0_usize, 30 << 10, 100 << 10, 1 << 20, 10 << 20] {
        let line = ".line with dots. and é, seventy bytes or so, again and again until done..\n";
        let body = line.repeat(size / line.len());
        let name = format!("size{size}");
        let content = format!("{}{body}", message(&name));
        server.accept(&[&format!("{name}@example.org")], &content);
        let messages = server.maildir(&name).wait_for(1, SOON);
        let delivered = messages[0].split_once("\n\n").unwrap().1;
        let sent = content.split_once("\n\n").unwrap().1;
        assert!(delivered == sent, "{size}: {} of {} bytes", delivered.len(), sent.len());
    }
    wait_until("large bodies are removed", SOON, || {
        fs::read_dir(server.state().join("spool/large")).unwrap().count() == 0
    });
}

#[test]
fn a_thousand_recipients_are_one_transaction() {
    let server = Server::start(&DELIVER.replace("%{rcpt.user}", "everyone"));
    let mut recipients: Vec<String> = (0..1000).map(|n| format!("r{n}@example.org")).collect();
    let mut peer = server.peer();
    // All at once: PIPELINING.
    let mut commands = String::from("MAIL FROM:<sender@client.example>\r\n");
    for recipient in &recipients {
        commands.push_str(&format!("RCPT TO:<{recipient}>\r\n"));
    }
    commands.push_str("RCPT TO:<one.too.many@example.org>\r\nDATA\r\n");
    peer.send(commands).unwrap();
    for _ in 0..=1000 {
        assert_eq!(peer.reply().unwrap().code, 250);
    }
    assert_eq!(peer.reply().unwrap().line(), "452 4.5.3 Too many recipients: Too many recipients");
    assert_eq!(peer.reply().unwrap().code, 354);
    peer.send(on_the_wire(&message("many"))).unwrap();
    assert_eq!(peer.reply().unwrap().code, 250);

    let messages = server.maildir("everyone").wait_for(1000, Duration::from_secs(60));
    let mut delivered: Vec<_> =
        messages.iter().map(|text| header(text, "Delivered-To").unwrap()).collect();
    delivered.sort();
    recipients.sort();
    assert_eq!(delivered, recipients);
}

#[test]
fn pipelined_messages_are_answered_in_order() {
    let server = Server::start(DELIVER);
    let mut peer = server.peer();
    let mut bytes = String::new();
    for n in 0..50 {
        bytes.push_str("MAIL FROM:<a@b.example>\r\nRCPT TO:<nobody@elsewhere.example>\r\n");
        bytes.push_str("RCPT TO:<alice@example.org>\r\nDATA\r\n");
        bytes.push_str(&on_the_wire(&message(&format!("p{n}"))));
    }
    bytes.push_str("QUIT\r\n");
    peer.send(bytes).unwrap();
    for n in 0..50 {
        let codes: Vec<u16> = (0..5).map(|_| peer.reply().unwrap().code).collect();
        assert_eq!(codes, [250, 550, 250, 354, 250], "message {n}");
    }
    assert_eq!(peer.reply().unwrap().code, 221);
    let alice = server.maildir("alice");
    alice.wait_for(50, SOON);
    let mut expected: Vec<_> = (0..50).map(|n| format!("<p{n}@client.example>")).collect();
    expected.sort();
    assert_eq!(alice.ids(), expected);
}

#[test]
fn aliases_and_virtual_tables_lead_to_mailboxes_and_addresses() {
    let server = Server::start(
        r#"
@LISTEN@
table names { "root" = "@USER@", "staff" = "@USER@, other@virtual.example" }
table places { "info@virtual.example" = "@USER@", "other@virtual.example" = "@USER@", "@caught.example" = "@USER@" }
action "aliased" maildir "@DIR@/mail/aliased-%{rcpt.user}" alias <names>
action "virtual" maildir "@DIR@/mail/virtual-%{rcpt.user}" virtual <places>
match from any for domain "aliased.example" action "aliased"
match from any for domain { "virtual.example", "caught.example" } action "virtual"
"#,
    );
    let mut peer = server.peer();
    for (recipient, code) in [
        ("root@aliased.example", 250),
        ("staff@aliased.example", 250),
        ("info@virtual.example", 250),
        ("info+tag@virtual.example", 250),
        ("anyone@caught.example", 250),
        ("unknown@virtual.example", 524),
        ("no-such-user@aliased.example", 550),
        ("root@elsewhere.example", 550),
    ] {
        let reply = peer.submit("s@client.example", &[recipient], &message(recipient)).unwrap();
        assert_eq!(reply.code, code, "{recipient}: {reply:?}");
        assert_eq!(peer.say("RSET").unwrap().code, 250);
    }
    for (name, count) in [
        ("aliased-root", 1),
        ("aliased-staff", 1),
        ("virtual-staff", 1),
        ("virtual-info", 1),
        ("virtual-info+tag", 1),
        ("virtual-anyone", 1),
    ] {
        assert_eq!(server.maildir(name).wait_for(count, SOON).len(), count, "{name}");
    }
}

#[test]
fn a_command_gets_the_message_and_its_failure_comes_back_as_a_report() {
    let server = Server::start(
        r#"
@LISTEN@
table users { "@" = "@USER@" }
action "keep" mda "cat > @DIR@/mail/kept.%{rcpt.user}" virtual <users>
action "fail" mda "echo it is broken; exit 65" virtual <users>
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "keep.example" action "keep"
match from any for domain "fail.example" action "fail"
match from any for domain "client.example" action "local"
match from local for domain "client.example" action "local"
"#,
    );
    server.accept(&["x@keep.example"], &message("kept"));
    let kept = server.path("mail/kept.x");
    let text = wait_for("the command writes the message", SOON, || {
        fs::read_to_string(&kept).ok().filter(|text| text.ends_with("This is kept.\n"))
    });
    assert!(header(&text, "Message-ID").is_some_and(|id| id == "<kept@client.example>"), "{text}");

    server.accept(&["x@fail.example"], &message("failed"));
    let reports = server.maildir("sender").wait_for(1, SOON);
    let report = &reports[0];
    assert_eq!(header(report, "Return-Path"), None, "the null sender has none");
    for expected in
        ["it is broken", "x@fail.example", "<failed@client.example>", "message/delivery-status"]
    {
        assert!(report.contains(expected), "{expected:?} is missing:\n{report}");
    }
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn an_lmtp_server_decides_about_each_recipient() {
    let sink = Sink::lmtp(|command| match command {
        "RCPT TO:<bad@example.org>" => Some("550 5.1.1 no such mailbox here".into()),
        _ => None,
    });
    let server = Server::start(
        &r#"
@LISTEN@
table users { "@" = "@USER@" }
action "lmtp" lmtp "@SINK@" rcpt-to virtual <users>
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "example.org" action "lmtp"
match from any for domain "client.example" action "local"
"#
        .replace("@SINK@", &sink.address().to_string()),
    );
    server.accept(&["good@example.org", "bad@example.org"], &message("lmtp"));
    let received = sink.wait_for(1, SOON);
    assert_eq!(received[0].sender, "sender@client.example");
    assert_eq!(received[0].recipients, ["good@example.org"]);
    assert!(received[0].content.ends_with("\n\nThis is lmtp.\n"), "{}", received[0].content);
    let reports = server.maildir("sender").wait_for(1, SOON);
    assert!(reports[0].contains("no such mailbox here"), "{}", reports[0]);
    assert!(sink.commands().iter().any(|command| command == END_OF_DATA || command == "DATA"));
}

#[test]
fn what_fails_temporarily_is_tried_again_and_given_up_at_its_end() {
    let server = Server::start(
        r#"
@LISTEN@
table users { "@" = "@USER@" }
action "later" mda "test -e @DIR@/mail/now || { echo not yet; exit 75; }; cat > @DIR@/mail/later" virtual <users>
action "never" mda "echo never; exit 75" virtual <users> ttl 3s
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "later.example" action "later"
match from any for domain "never.example" action "never"
match from any for domain "client.example" action "local"
"#,
    );
    server.accept(&["x@later.example"], &message("later"));
    server.accept(&["x@never.example"], &message("never"));
    wait_for("both wait in the queue with their errors", SOON, || {
        let queue = server.queue();
        (queue.len() == 2
            && queue.iter().any(|line| line.contains("not yet"))
            && queue.iter().any(|line| line.contains("never")))
        .then_some(())
    });

    fs::write(server.path("mail/now"), "").unwrap();
    let said = server.control(&["schedule", "all"]);
    assert_eq!(said.status, 0, "{said:?}");
    let later: PathBuf = server.path("mail/later");
    wait_until("the second attempt delivers", SOON, || {
        fs::read_to_string(&later).is_ok_and(|text| text.contains("This is later."))
    });

    let reports = server.maildir("sender").wait_for(1, SOON);
    assert!(reports[0].contains("x@never.example"), "{}", reports[0]);
    assert!(reports[0].contains("<never@client.example>"), "{}", reports[0]);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn a_restart_keeps_what_waits_and_delivers_it_once() {
    let mut server = Server::prepare(DELIVER, &["-P", "mda"]);
    server.run();
    for n in 0..20 {
        server.accept(&["alice@example.org"], &message(&format!("kept{n}")));
    }
    assert_eq!(server.queue().len(), 20);
    assert_eq!(server.maildir("alice").count(), 0);
    assert!(server.stop().success());
    for leftover in ["run/smtpd.sock", "run/smtpd.pid"] {
        assert!(!server.state().join(leftover).exists(), "{leftover} was left");
    }
    server.run();
    assert_eq!(server.queue().len(), 20, "paused again, by the command line");
    assert_eq!(server.control(&["resume", "mda"]).status, 0);
    let alice = server.maildir("alice");
    alice.wait_for(20, SOON);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    let mut expected: Vec<_> = (0..20).map(|n| format!("<kept{n}@client.example>")).collect();
    expected.sort();
    assert_eq!(alice.ids(), expected);
}
