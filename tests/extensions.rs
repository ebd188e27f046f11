//! Extensions of SMTP between real processes: content in chunks (CHUNKING), also encrypted, and
//! addresses in all scripts (SMTPUTF8).

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use common::certificates::{Kind, certificate};
use common::encrypted::{Encrypted, anyone, encrypt, encrypt_behind, start_tls};
use common::peer::{Peer, message};
use common::server::{DELIVER, Server};
use common::sink::Sink;
use common::wait::{SOON, wait_until};

/// `content` in chunks of `size` bytes, all at once.
fn in_chunks(content: &str, size: usize) -> Vec<u8> {
    let wire = content.replace('\n', "\r\n");
    let mut sent = Vec::new();
    for chunk in wire.as_bytes().chunks(size) {
        sent.extend(format!("BDAT {}\r\n", chunk.len()).into_bytes());
        sent.extend(chunk);
    }
    sent.extend(b"BDAT 0 LAST\r\n");
    sent
}

fn begin<S: Read + Write>(peer: &mut Peer<S>, recipient: &str) {
    for command in ["MAIL FROM:<sender@client.example>", &format!("RCPT TO:<{recipient}>")] {
        assert_eq!(peer.say(command).unwrap().code, 250);
    }
}

#[test]
fn content_in_chunks_is_delivered_as_it_was_sent() {
    let server = Server::start(DELIVER);
    carries_chunks(&server, server.peer());
}

#[test]
fn content_in_encrypted_chunks_is_delivered_as_it_was_sent() {
    let server = with_tls();
    carries_chunks(&server, encrypted(&server));
}

/// [`DELIVER`] with STARTTLS.
fn with_tls() -> Server {
    let pki = "pki srv cert \"@DIR@/mx.crt\"\npki srv key \"@DIR@/mx.key\"\n";
    let config = DELIVER.replace("@LISTEN@", "@LISTEN@ tls pki srv");
    let mut server = Server::prepare(&format!("{pki}{config}"), &[]);
    server.write_certificate("mx", &certificate(Kind::P256, "mx.example.org"));
    server.run();
    server
}

/// An encrypted session after EHLO.
fn encrypted(server: &Server) -> Peer<Encrypted> {
    let mut peer = start_tls(server.address(), &anyone(), "mx.example.org").unwrap();
    let greeting = peer.say("EHLO client.example").unwrap();
    assert!(greeting.lines.iter().any(|line| line == "CHUNKING"), "{greeting:?}");
    peer
}

fn carries_chunks<S: Read + Write>(server: &Server, mut peer: Peer<S>) {
    let lines: String =
        (0..40_000).map(|line| format!(".line {line} of a long message\n..\n")).collect();
    let long = format!("{}{lines}", message("long"));
    for (content, size) in [(message("short"), 7), (long.clone(), 100_000)] {
        begin(&mut peer, "one@example.org");
        let sent = in_chunks(&content, size);
        let chunks = content.replace('\n', "\r\n").len().div_ceil(size);
        peer.send(&sent).unwrap();
        for chunk in 0..chunks {
            let reply = peer.reply().unwrap();
            assert!(reply.line().ends_with(" octets received"), "{chunk}: {reply:?}");
        }
        assert!(peer.reply().unwrap().line().ends_with(" Message accepted for delivery"));
    }
    let maildir = server.maildir("one");
    wait_until("both are delivered", SOON, || maildir.texts().len() == 2);
    for content in [message("short"), long] {
        // A Date is added between the two.
        let (headers, body) = content.split_once("\n\n").unwrap();
        let is_it = |one: &String| one.contains(headers) && one.ends_with(&format!("\n\n{body}"));
        assert!(maildir.texts().iter().any(is_it), "{} bytes are not there", content.len());
    }
}

#[test]
fn a_connection_that_ends_in_a_chunk_leaves_no_message() {
    let server = Server::start(DELIVER);
    for left in ["BDAT 100 LAST\r\nSubject: x\r\n", "BDAT 12\r\nSubject: x\r\n"] {
        let mut peer = server.peer();
        begin(&mut peer, "one@example.org");
        peer.send(left).unwrap();
        drop(peer);
    }
    server.wait_for_log("smtp disconnected reason=disconnect");
    // What looks like commands in a refused chunk is not carried out.
    let mut peer = server.peer();
    peer.send("BDAT 35 LAST\r\nMAIL FROM:<sender@client.example>\r\nNOOP\r\n").unwrap();
    assert_eq!(peer.reply().unwrap().code, 503);
    assert_eq!(peer.reply().unwrap().line(), "250 2.0.0 Ok");
    server.accept(&["one@example.org"], &message("whole"));
    let maildir = server.maildir("one");
    wait_until("it is delivered", SOON, || maildir.texts().len() == 1);
    assert!(maildir.texts()[0].ends_with("This is whole.\n"));
}

#[test]
fn an_encrypted_connection_that_ends_in_a_chunk_leaves_no_message() {
    let server = with_tls();
    for (left, polite) in [
        ("BDAT 100 LAST\r\nSubject: x\r\n\r\nhalf", false),
        ("BDAT 100 LAST\r\nSubject: x\r\n\r\nhalf", true),
        ("BDAT 12\r\nSubject: x\r\nBDAT 10 LAST\r\n\r\nhalf", false),
        // All is there but the last chunk.
        ("BDAT 12\r\nSubject: x\r\n", true),
    ] {
        let ended = || server.log().matches(" smtp disconnected reason=disconnect").count();
        let before = ended();
        let mut peer = encrypted(&server);
        begin(&mut peer, "one@example.org");
        peer.send(left).unwrap();
        if polite {
            peer.end();
        } else {
            // Without close_notify, as somebody between the two could do it.
            peer.stream().sock.shutdown(Shutdown::Both).unwrap();
        }
        wait_until("the session ends", SOON, || ended() > before);
    }
    let mut peer = encrypted(&server);
    let reply = peer.submit("a@client.example", &["one@example.org"], &message("whole")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    let texts = server.maildir("one").wait_for(1, SOON);
    assert_eq!(server.log().matches(" smtp message ").count(), 1);
    assert!(texts.len() == 1 && texts[0].ends_with("This is whole.\n"), "{texts:?}");
}

#[test]
fn what_is_injected_in_front_of_a_handshake_is_never_carried_out() {
    let server = with_tls();
    let chunk = in_chunks(&message("injected"), 10_000);
    let mut mail = b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<one@example.org>\r\n".to_vec();
    mail.extend(&chunk);
    let greeted = [b"EHLO evil.example\r\n", &mail[..]].concat();
    // In the packet of STARTTLS: no answer and no handshake.
    for behind in [&chunk[..], &mail, &greeted, b"BDAT 1", b"NOOP\r\n", b"\0"] {
        let mut peer = server.peer();
        peer.send([b"STARTTLS\r\n", behind].concat()).unwrap();
        let answer = peer.reply();
        assert!(answer.is_err(), "{answer:?}");
    }
    // Behind the answer, in the packet of the ClientHello: no TLS, and the end.
    for before in [&chunk[..], &mail, &greeted, b"\r\n"] {
        let mut peer = server.peer();
        assert_eq!(peer.say("STARTTLS").unwrap().code, 220);
        let (stream, client) = (peer.into_stream(), anyone());
        assert!(encrypt_behind(before, stream, &client, "mx.example.org").is_err());
    }
    // A transaction in clear text has to end first, and so does a chunk.
    let mut peer = server.peer();
    begin(&mut peer, "one@example.org");
    peer.send("BDAT 12\r\n\r\nSTARTTLS\r\nSTARTTLS\r\nRSET\r\n").unwrap();
    assert_eq!(peer.reply().unwrap().line(), "250 2.0.0 12 octets received");
    assert_eq!(peer.reply().unwrap().code, 503);
    assert_eq!(peer.reply().unwrap().code, 250);
    // Who then encrypts begins anew: nothing of before counts.
    assert_eq!(peer.say("STARTTLS").unwrap().code, 220);
    let mut peer = encrypt(peer.into_stream(), &anyone(), "mx.example.org").unwrap();
    let sequence = "503 5.5.1 Invalid command: Command not allowed at this point.";
    assert_eq!(peer.say("RCPT TO:<one@example.org>").unwrap().line(), sequence);
    peer.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n").unwrap();
    assert_eq!(peer.reply().unwrap().code, 503);
    assert_eq!(peer.reply().unwrap().line(), "250 2.0.0 Ok");
    assert_eq!(server.maildir("one").count(), 0);
    assert!(!server.log().contains(" smtp message "));
    assert!(!server.log().contains("evil"));
}

/// Everything for far away goes to a smart host, reports come back to a Maildir.
const RELAY: &str = r#"
@LISTEN@
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
table users { "@" = "@USER@" }
table names { "müller" = "@USER@" }
action "out" relay host "smtp+notls://@SINK@"
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
action "names" maildir "@DIR@/mail/names" virtual <names>
match from any for domain "client.example" action "local"
match from any for domain "xn--bcher-kva.example" action "names"
match from any for any action "out"
"#;

fn relay_to(address: SocketAddr) -> Server {
    Server::start(&RELAY.replace("@SINK@", &address.to_string()))
}

fn offers_smtputf8(command: &str) -> Option<String> {
    let hello = "250-sink.example\r\n250-8BITMIME\r\n250 SMTPUTF8";
    command.starts_with("EHLO").then(|| hello.to_owned())
}

/// Sends a message with SMTPUTF8.
fn submit(server: &Server, from: &str, to: &str, content: &str) {
    let mut peer = server.peer();
    let mail = format!("MAIL FROM:<{from}> SMTPUTF8");
    for command in [mail.as_str(), &format!("RCPT TO:<{to}>")] {
        let reply = peer.say(command).unwrap();
        assert_eq!(reply.code, 250, "{command}: {reply:?}");
    }
    assert_eq!(peer.data(content).unwrap().code, 250);
}

#[test]
fn what_needs_smtputf8_goes_to_who_offers_it() {
    let sink = Sink::scripted(offers_smtputf8);
    let server = relay_to(sink.address());
    let content = "Subject: Grüße\n\nJürgen\n";
    submit(&server, "jürgen@client.example", "用户@例子.测试", content);
    let received = sink.wait_for(1, Duration::from_secs(30));
    assert!(received[0].content.contains(" with UTF8SMTP id "), "{}", received[0].content);
    assert!(received[0].content.contains("\nSubject: Grüße\n"), "headers are left alone");
    assert!(received[0].content.ends_with("\n\nJürgen\n"), "{}", received[0].content);
    let commands = sink.commands();
    let says = |line: &str| commands.iter().any(|command| command == line);
    assert!(says("MAIL FROM:<jürgen@client.example> SMTPUTF8"), "{commands:?}");
    assert!(says("RCPT TO:<用户@xn--fsqu00a.xn--0zwm56d>"), "{commands:?}");
}

#[test]
fn what_needs_smtputf8_comes_back_from_who_does_not() {
    let sink = Sink::start();
    let server = relay_to(sink.address());
    submit(&server, "sender@client.example", "ü@far.example", &message("back"));
    let reports = server.maildir("sender");
    wait_until("the report is there", SOON, || reports.texts().len() == 1);
    let report = reports.texts().remove(0);
    for part in [
        "Content-Type: message/global-delivery-status\n",
        "Final-Recipient: utf-8; ü@far.example\nAction: failed\nStatus: 5.6.7\n",
        "SMTPUTF8 required but not supported by remote host",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    // The sender of the next is not ASCII, so that the report needs SMTPUTF8 itself.
    submit(&server, "jürgen@client.example", "a@far.example", &message("back"));
    let reports = server.maildir("jürgen");
    wait_until("the report is there", SOON, || reports.texts().len() == 1);
    assert!(reports.texts()[0].contains("To: jürgen@client.example\n"));
    assert!(sink.received().is_empty());
    // What is in ASCII after all goes on, whatever the client has said.
    submit(&server, "sender@client.example", "a@bücher.test", &message("plain"));
    let received = sink.wait_for(1, Duration::from_secs(30));
    assert_eq!(received[0].recipients, ["a@xn--bcher-kva.test"]);
    assert!(sink.commands().iter().all(|command| !command.contains("SMTPUTF8")));
}

#[test]
fn names_in_all_scripts_are_found_in_tables_and_shown() {
    // Nothing listens there: what is for it stays in the queue.
    let server = relay_to("127.0.0.1:9".parse().unwrap());
    submit(&server, "sender@client.example", "müller@bücher.example", &message("name"));
    let maildir = server.maildir("names");
    wait_until("it is delivered", SOON, || maildir.texts().len() == 1);
    assert!(maildir.texts()[0].contains("Delivered-To: müller@xn--bcher-kva.example\n"));

    submit(&server, "sender@client.example", "ü@far.example", &message("waits"));
    let line = server.wait_for_log(" mta delivery evpid=");
    let envelope = line.split("evpid=").nth(1).unwrap().split(' ').next().unwrap();
    let output = server.control(&["show", "envelope", envelope]).output;
    assert!(output.contains("\nflags: smtputf8\n"), "{output}");
    assert!(output.contains("\ndest: ü@far.example\n"), "{output}");
}
