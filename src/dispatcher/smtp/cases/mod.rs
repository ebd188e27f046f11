//! The numbered cases of the SMTP page of the specification, 11.1 to 11.8 and 11.10, as far as
//! the session itself shows them.
//!
//! A case is a set-up and a dialogue. Replies are written in the short forms of the
//! specification; `!` at their end means that the session is then closed.

mod answers;
mod auth;
mod chunking;
mod commands;
mod content;
mod envelope;
mod filters;
mod line_ends;
mod smtputf8;
mod starttls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::rehearsal::{Rehearsal, Script};
use super::{ExpandRecipient, Expansion, Peer, Settings, TlsOffer};
use crate::config::TlsMode;
use crate::proto::reply;
use crate::spec_case;

/// A case: its number, its set-up, and what is sent and answered.
type Case<'a> = (&'a str, fn() -> Rehearsal, &'a [(&'a str, &'a str)]);

const SERVER: &str = "mx.example.org";

/// The reply that a short form stands for.
fn reply_text(short: &str) -> String {
    let text = match short {
        "BYE" => "221 2.0.0 Bye",
        "CLOSED" => "",
        "DOM" => "501 5.5.4 Invalid command arguments: Invalid domain name",
        "ELINE" => "500 5.0.0 Line too long",
        "GO" => "354 Enter mail, end with \".\" on a line by itself",
        "HDR" => {
            "550 5.7.1 Delivery not authorized, message refused: Message is not RFC 2822 compliant"
        }
        "HELO" => "250 mx.example.org Hello a.b [10.9.8.7], pleased to meet you",
        "EHLO" => {
            "250-mx.example.org Hello a.b [10.9.8.7], pleased to meet you\n250-8BITMIME\n\
             250-ENHANCEDSTATUSCODES\n250-SIZE 36700160\n250-DSN\n250-PIPELINING\n\
             250-CHUNKING\n250-SMTPUTF8\n250-LIMITS MAILMAX=100 RCPTMAX=1000\n250 HELP"
        }
        "HELP" => {
            "214-2.0.0 This is Pillarbox\n\
             214-2.0.0 Commands: HELO EHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\n\
             214 2.0.0 End of HELP info"
        }
        "NOARG" => "500 5.5.4 Invalid command arguments: command does not accept arguments.",
        "NO" => "503 5.5.1 Invalid command: Command not supported",
        "NORCPT" => "503 5.5.4 Invalid command arguments: No recipient specified",
        "OK" => "250 2.0.0 Ok",
        "OPT" => "503 5.5.4 Invalid command arguments: Unsupported option",
        "PIPE" => "500 5.5.1 Invalid command: Pipelining not supported",
        "RBAD" => "501 5.1.3 Recipient address syntax error",
        "RESET" => "250 2.0.0 Reset state",
        "ROK" => "250 2.1.5 Destination address valid: Recipient ok",
        "SBAD" => "553 5.1.0 Sender address syntax error",
        "SECURE" => "503 5.5.1 Invalid command: Channel already secured",
        "SEQ" => "503 5.5.1 Invalid command: Command not allowed at this point.",
        "TLS" => "220 2.0.0 Ready to start TLS",
        "UNK" => "500 5.5.1 Invalid command: Command unrecognized",
        "VRFY" => "252 2.5.2 Cannot VRFY user: try RCPT",
        other => other,
    };
    match text.strip_prefix("ACC ") {
        Some(id) => format!("250 2.0.0 {id:0>8} Message accepted for delivery"),
        None => text.to_owned(),
    }
}

/// The bytes that a list of short forms, separated by bars, stands for.
fn replies(shorts: &str) -> String {
    let shorts = shorts.strip_suffix('!').unwrap_or(shorts);
    let lines: Vec<String> =
        shorts.split(" | ").map(reply_text).filter(|text| !text.is_empty()).collect();
    lines.iter().map(|text| text.replace('\n', "\r\n") + "\r\n").collect()
}

fn run(cases: &[Case<'_>]) {
    for (number, start, dialogue) in cases {
        let mut session = start();
        for (sent, expected) in *dialogue {
            let received = session.send(sent.as_bytes());
            let received = String::from_utf8(received).unwrap();
            assert_eq!(received, replies(expected), "smtp case {number}: {sent:?}");
            assert_eq!(session.closed, expected.ends_with('!'), "smtp case {number}: {sent:?}");
        }
        note(number);
    }
}

/// Notes the cases that a text like `13, 14` or `23, in a transaction` names.
fn note(numbers: &str) {
    for number in numbers.split(", ").filter_map(|number| number.parse().ok()) {
        spec_case::ran("smtp", number);
    }
}

fn settings() -> Settings {
    Settings::new(SERVER)
}

/// A session of the client 10.9.8.7 that has read the banner.
fn greeted(settings: Settings, script: Script) -> Rehearsal {
    connected(settings, script, Peer::remote([10, 9, 8, 7].into()))
}

fn connected(settings: Settings, script: Script, peer: Peer) -> Rehearsal {
    let mut session = Rehearsal::new(settings, peer, script);
    assert!(session.send(b"").starts_with(b"220 "));
    session
}

/// Set-up P.
fn p() -> Rehearsal {
    greeted(settings(), Script::default())
}

/// Set-up P after EHLO.
fn greet() -> Rehearsal {
    after(p(), &["EHLO a.b"])
}

/// Set-up P after MAIL.
fn tx() -> Rehearsal {
    after(greet(), &["MAIL FROM:<a@b>"])
}

/// Set-up P after RCPT.
fn rcpt() -> Rehearsal {
    after(tx(), &["RCPT TO:<c@d>"])
}

/// Set-up P after DATA.
fn data() -> Rehearsal {
    after(rcpt(), &["DATA"])
}

/// Set-up P on a listener with `no-pipelining`.
fn strict() -> Rehearsal {
    greeted(Settings { pipelining: false, ..settings() }, Script::default())
}

/// Set-up P on a listener with `no-dsn`.
fn no_dsn() -> Rehearsal {
    after(greeted(Settings { dsn: false, ..settings() }, Script::default()), &["EHLO a.b"])
}

/// Set-up L: a listener on the loopback address.
fn loopback() -> Rehearsal {
    let settings = Settings { completes_headers: true, ..settings() };
    connected(settings, Script::default(), Peer::remote([127, 0, 0, 1].into()))
}

/// Set-up T, without users: TLS is offered.
fn tls() -> Rehearsal {
    tls_listener(TlsMode::Offered, Script::default())
}

fn tls_listener(mode: TlsMode, script: Script) -> Rehearsal {
    greeted(Settings { tls: Some(offer(mode)), ..settings() }, script)
}

/// TLS that can be had.
fn offer(mode: TlsMode) -> TlsOffer {
    TlsOffer::new(mode, Arc::new(AtomicBool::new(true)))
}

/// The control socket.
fn socket() -> Rehearsal {
    connected(settings(), Script::default(), Peer::local(SERVER))
}

/// `session` after commands that succeed.
fn after(mut session: Rehearsal, commands: &[&str]) -> Rehearsal {
    for command in commands {
        let reply = session.send(format!("{command}\r\n").as_bytes());
        assert!(matches!(reply.first(), Some(b'2' | b'3')), "{command}");
    }
    session
}

/// The start of a message up to 354.
const TO_DATA: [&str; 4] = ["EHLO a.b", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"];

/// What `sent` is stored as behind the trace header, in a session that is ready for content.
fn stored(mut session: Rehearsal, sent: &str) -> String {
    let reply = session.send(sent.as_bytes());
    assert!(reply.starts_with(b"250 2.0.0 "), "{sent:?}: {}", String::from_utf8_lossy(&reply));
    let body = String::from_utf8(session.stored.pop().unwrap().body).unwrap();
    let end = body.find("(UTC)\n").unwrap() + "(UTC)\n".len();
    assert!(body.starts_with("Received: "), "{body}");
    body[end..].to_owned()
}

/// Rules that know a few addresses.
fn rules(recipient: &ExpandRecipient) -> Expansion {
    let line = match recipient.recipient.as_str() {
        "err@example.org" => "550 5.2.1 go away",
        "none@example.org" | "loop@example.org" => reply::EXPANSION_PROBLEM,
        "u@example.org" => reply::EXPANSION_PROBLEM_NOW,
        "forged@example.org" => "250 ok",
        "lost@example.org" => return Expansion::Failed,
        "empty@example.org" => return Expansion::Accepted(Vec::new()),
        "list@example.org" => return Expansion::Accepted(vec![super::rehearsal::route(); 2]),
        _ => reply::INVALID_RECIPIENT,
    };
    Expansion::Refused(line.to_owned())
}
