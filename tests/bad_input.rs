//! Clients that are broken or mean: each gets a precise reply or a closed connection, and the
//! service goes on for the others, with the same processes as before.
//!
//! What is wrong with the disk is in `bad_disk.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::peer::{Peer, message, on_the_wire};
use common::process::{self, Process};
use common::server::{DELIVER, Server};
use common::wait::{SOON, wait_until};

/// Runs a hostile scene and proves that it harmed nobody: mail is still taken and delivered, and no
/// process was replaced.
fn survives(scene: impl FnOnce(&Server)) -> Server {
    let server = Server::start(DELIVER);
    let before = roles(&server);
    scene(&server);
    server.accept(&["witness@example.org"], &message("witness"));
    server.maildir("witness").wait_for(1, SOON);
    assert_eq!(roles(&server), before, "a process was replaced:\n{}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server
}

fn roles(server: &Server) -> Vec<Process> {
    let mut roles = process::children(server.parent());
    roles.sort_by_key(|process| process.pid);
    roles
}

/// Resident memory of the dispatcher, in KiB.
fn dispatcher_memory(server: &Server) -> u64 {
    let status = process::status(server.role("dispatcher").pid).unwrap();
    status["VmRSS"].trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn commands_that_are_garbage_are_refused_one_by_one() {
    let cases: [(&[u8], u16); 16] = [
        (b"", 500),
        (b" ", 500),
        (b"\0", 500),
        (b"\xff\xfe\xfd", 500),
        (b"NOOP\0NOOP", 500),
        (b"GET / HTTP/1.1", 500),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 500),
        (b"HELO", 501),
        (b"MAIL", 501),
        (b"MAIL FROM:", 501),
        (b"MAIL FROM:<a@b\0c>", 501),
        (b"MAIL FROM:<a@b.example> SIZE=99999999999999999999999", 501),
        (b"MAIL FROM:<a@b.example> NO=SUCH", 501),
        (b"RCPT TO:<a@example.org>", 503),
        (b"DATA", 503),
        (b"%s%n%x%d", 500),
    ];
    survives(|server| {
        for (command, class) in cases {
            let mut peer = server.peer();
            peer.send([command, b"\r\n"].concat()).unwrap();
            let reply = peer.reply().unwrap();
            let shown = command.escape_ascii();
            assert_eq!(reply.code / 100, class / 100, "{shown}: {reply:?}");
            assert_eq!(peer.say("NOOP").unwrap().code, 250, "{shown}: the session goes on");
        }
    });
}

#[test]
fn any_number_of_bad_commands_is_answered() {
    survives(|server| {
        let mut peer = server.peer();
        for _ in 0..100 {
            peer.send("garbage\r\n".repeat(100)).unwrap();
            for _ in 0..100 {
                assert_eq!(peer.reply().unwrap().code, 500);
            }
        }
        let reply = peer.submit("a@b.example", &["patient@example.org"], &message("patient"));
        assert_eq!(reply.unwrap().code, 250);
    });
}

#[test]
fn a_line_of_a_hundred_mebibytes_takes_no_memory() {
    survives(|server| {
        let before = dispatcher_memory(server);
        let piece = vec![b'x'; 1 << 20];

        // As a command: refused, and the connection ends.
        let mut peer = server.peer();
        let mut sent = 0;
        while sent < 100 && peer.send(&piece).is_ok() {
            sent += 1;
        }
        let reply = peer.reply().unwrap();
        assert_eq!(reply.code, 500, "{reply:?}");

        // As a line of a message: read to its end, and the message is refused.
        let mut peer = server.peer();
        for command in ["MAIL FROM:<a@b.example>", "RCPT TO:<long@example.org>"] {
            assert_eq!(peer.say(command).unwrap().code, 250);
        }
        assert_eq!(peer.say("DATA").unwrap().code, 354);
        let mut sent = 0;
        while sent < 100 && peer.send(&piece).is_ok() {
            sent += 1;
        }
        // It may have been ended already.
        let _ = peer.send("\r\n.\r\n");
        let reply = peer.reply().unwrap();
        assert_eq!(reply.code / 100, 5, "{reply:?}");

        let grown = dispatcher_memory(server).saturating_sub(before);
        assert!(grown < 16 << 10, "the dispatcher grew by {grown} KiB");
        assert_eq!(server.maildir("long").count(), 0);
    });
}

#[test]
fn only_a_dot_between_two_proper_line_ends_ends_a_message() {
    let hidden =
        "MAIL FROM:<a@b.example>\r\nRCPT TO:<smuggled@example.org>\r\nDATA\r\nhidden\r\n.\r\n";
    let ends: [&str; 9] = [
        "\n.\n",
        "\r\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\r",
        "\r.\r\n",
        "\n.\r",
        "\r\n\0.\r\n",
        "\r\r\n.\n",
    ];
    let server = survives(|server| {
        for (number, end) in ends.iter().enumerate() {
            let mut peer = server.peer();
            for command in ["MAIL FROM:<a@b.example>", "RCPT TO:<open@example.org>"] {
                assert_eq!(peer.say(command).unwrap().code, 250);
            }
            assert_eq!(peer.say("DATA").unwrap().code, 354);
            peer.send(format!("Message-ID: <{number}@x>\r\n\r\ntext{end}{hidden}QUIT\r\n"))
                .unwrap();
            let shown = end.escape_debug();
            assert_eq!(peer.reply().unwrap().code, 250, "{shown}");
            assert_eq!(peer.reply().unwrap().code, 221, "{shown}: one message, then QUIT");
        }
        let messages = server.maildir("open").wait_for(ends.len(), SOON);
        assert_eq!(messages.len(), ends.len());
        for text in messages {
            assert!(text.contains("RCPT TO:<smuggled@example.org>"), "{text}");
            assert!(!text.contains('\r'), "{text:?}");
        }
    });
    assert_eq!(server.maildir("smuggled").count(), 0);
}

#[test]
fn odd_bytes_in_a_message_are_delivered_and_harm_nobody() {
    let cases: [(&str, &[u8], u16); 9] = [
        ("nothing", b"", 250),
        ("bare-cr", b"Subject: x\r\n\r\na\rb\r\rc\r\n", 250),
        ("bare-cr-in-header", b"Subject: x\ry\r\r\r\n\r\n", 250),
        ("bare-lf", b"Subject: x\n\na\nb\n\nc\r\n", 250),
        ("nul", b"Subject: \0\r\n\r\na\0b\0\0\r\n", 250),
        ("high", b"Subject: \xff\xfe\r\n\r\n\x80\xc3\r\n", 250),
        ("header-only", b"Subject: x\r\n", 250),
        ("no-header", b"just text without a header\r\n", 550),
        ("broken-header", b"\tfolded nothing\r\nSubject\r\n\r\n", 550),
    ];
    survives(|server| {
        let mut peer = server.peer();
        for (name, bytes, code) in cases {
            for command in ["MAIL FROM:<a@b.example>", &format!("RCPT TO:<{name}@example.org>")] {
                assert_eq!(peer.say(command).unwrap().code, 250);
            }
            assert_eq!(peer.say("DATA").unwrap().code, 354);
            peer.send([bytes, b".\r\n"].concat()).unwrap();
            let reply = peer.reply().unwrap();
            assert_eq!(reply.code, code, "{name}: {reply:?}");
        }
        for (name, _, code) in cases {
            let maildir = server.maildir(name);
            if code == 250 {
                maildir.wait_for(1, SOON);
            }
        }
        wait_until("the queue is empty", SOON, || server.queue().is_empty());
        assert_eq!(server.maildir("no-header").count(), 0);
    });
}

#[test]
fn clients_that_leave_in_any_state_leave_nothing_behind() {
    let content = "x".repeat(60);
    let content = format!("{content}\r\n").repeat(4000);
    let steps: Vec<String> = vec![
        String::new(),
        "EH".into(),
        "EHLO c.example\r\n".into(),
        "MAIL FROM:<a@b.example>".into(),
        "\r\n".into(),
        "RCPT TO:<left@example.org>\r\n".into(),
        "RCPT TO:<left@exam".into(),
        "ple.org>\r\n".into(),
        "DATA\r\n".into(),
        "Subject: cut\r\n".into(),
        "\r\n".into(),
        // More than stays in memory.
        content,
        ".".into(),
        "\r".into(),
    ];
    survives(|server| {
        for last in 0..=steps.len() {
            for reset in [false, true] {
                let mut peer = Peer::connect(server.address()).unwrap();
                peer.send(steps[..last].concat()).unwrap();
                if reset {
                    // Unread replies make the system reset the connection.
                    continue;
                }
                peer.stream().shutdown(Shutdown::Write).unwrap();
                let mut rest = Vec::new();
                // The server closes too.
                let _ = peer.stream().read_to_end(&mut rest);
            }
        }
        let large = server.state().join("spool/large");
        wait_until("unfinished bodies are removed", SOON, || {
            std::fs::read_dir(&large).unwrap().count() == 0
        });
        assert_eq!(server.queue(), [""; 0]);
        assert_eq!(server.maildir("left").count(), 0);
    });
}

#[test]
fn ten_thousand_recipients_are_answered_and_the_first_thousand_served() {
    let config = DELIVER.replace("%{rcpt.user}", "everyone");
    let server = Server::start(&config);
    let mut peer = server.peer();
    assert_eq!(peer.say("MAIL FROM:<a@b.example>").unwrap().code, 250);
    let mut codes = Vec::new();
    for block in 0..100 {
        let mut commands = String::new();
        for n in 0..100 {
            commands.push_str(&format!("RCPT TO:<r{block}.{n}@example.org>\r\n"));
        }
        peer.send(commands).unwrap();
        for _ in 0..100 {
            codes.push(peer.reply().unwrap().code);
        }
    }
    assert!(codes[..1000].iter().all(|code| *code == 250));
    assert!(codes[1000..].iter().all(|code| *code == 452));
    assert_eq!(peer.data(&message("crowd")).unwrap().code, 250);
    server.maildir("everyone").wait_for(1000, Duration::from_secs(60));
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(server.maildir("everyone").count(), 1000);
}

#[test]
fn a_client_that_never_reads_stops_nobody_and_takes_no_memory() {
    survives(|server| {
        let before = dispatcher_memory(server);
        let block = "HELP\r\nRCPT TO:<x>\r\n".repeat(5000);
        let mut peers: Vec<Peer> = (0..8).map(|_| server.peer()).collect();
        let until = Instant::now() + Duration::from_secs(2);
        for peer in &peers {
            peer.stream().set_nonblocking(true).unwrap();
        }
        let mut total = 0_u64;
        while Instant::now() < until {
            for peer in &mut peers {
                // Full at some time: the server has stopped reading too.
                total += peer.stream().write(block.as_bytes()).unwrap_or(0) as u64;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Meanwhile others are served.
        server.accept(&["witness2@example.org"], &message("meanwhile"));
        server.maildir("witness2").wait_for(1, SOON);
        let grown = dispatcher_memory(server).saturating_sub(before);
        assert!(grown < 16 << 10, "grown by {grown} KiB after {} KiB of commands", total >> 10);
    });
}

#[test]
fn a_client_that_sends_one_byte_at_a_time_is_understood() {
    survives(|server| {
        let mut peer = Peer::connect(server.address()).unwrap();
        assert_eq!(peer.reply().unwrap().code, 220);
        let content = on_the_wire(&message("slow"));
        let commands = [
            "EHLO x.example\r\n",
            "MAIL FROM:<a@b.example>\r\n",
            "RCPT TO:<slow@example.org>\r\n",
            "DATA\r\n",
            &content,
        ];
        for (command, code) in commands.into_iter().zip([250, 250, 250, 354, 250]) {
            for byte in command.as_bytes() {
                peer.send([*byte]).unwrap();
            }
            assert_eq!(peer.reply().unwrap().code, code, "{command}");
        }
        server.maildir("slow").wait_for(1, SOON);
    });
}
