//! The filter cases of the specification, 12.2 to 12.4 and 12.6, as far as the session itself shows
//! them: what filters are asked and told, in order, and what their decisions lead to.
//!
//! Lines are in the short forms of the specification: `Q|` a question, `R|` an event, both without
//! session and time, and `L|` a line of a message. What the lookup role adds, `filter-response` and
//! `filter-report`, is not among them.

mod decisions;
mod encrypted;
mod lines;

use super::*;
use crate::config::FilterId;
use crate::dispatcher::smtp::rehearsal::{FilterScript, Told};
use crate::dispatcher::smtp::{Ending, Refusal};
use crate::filter::engine::Wants;
use crate::filter::{AuthResult, Decision, Event, Phase, TransactionResult};
use crate::spec_case::ran;

/// Set-up P or T with `filter f1`, at its very start.
fn filtered(script: FilterScript) -> Rehearsal {
    on(settings(), script)
}

fn on(settings: Settings, script: FilterScript) -> Rehearsal {
    let settings = Settings { filter: Some(FilterId(0)), ..settings };
    let peer = Peer::remote([10, 9, 8, 7].into());
    let mut session = Rehearsal::new(settings, peer, Script::default());
    session.filter.script = script;
    session
}

/// A session whose filter decides so, once each.
fn deciding(decisions: &[(Phase, Decision)]) -> Rehearsal {
    filtered(FilterScript { decisions: decisions.to_vec(), ..FilterScript::default() })
}

/// Sends commands, and returns the replies as the client sees them.
fn say(session: &mut Rehearsal, sent: &str) -> String {
    String::from_utf8(session.send(sent.as_bytes())).unwrap()
}

/// A session with that filter, up to the reply of the last of `commands`.
fn up_to(mut session: Rehearsal, commands: &[&str]) -> Rehearsal {
    assert!(say(&mut session, "").starts_with("220 "));
    let mut session = after(session, commands);
    session.filter.told.clear();
    session
}

fn short(told: &Told) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let result = |result: &TransactionResult| match result {
        TransactionResult::Ok => "ok",
        TransactionResult::Permanent => "permfail",
        TransactionResult::Temporary => "tempfail",
    };
    let number = |id: &Option<crate::model::MessageId>| {
        id.map_or_else(|| "00000000".to_owned(), |id| id.to_string())
    };
    let event = match told {
        Told::Begin(name) => return format!("begin|{name}"),
        Told::Line(line) => return format!("L|{}", text(line)),
        Told::Question(phase, parameter) => {
            return format!("Q|{}|{}", phase.name(), text(parameter));
        }
        Told::Event(event) => event,
    };
    let fields = match event {
        Event::LinkConnect { hostname, .. } => format!("link-connect|{hostname}"),
        Event::LinkGreeting { hostname } => format!("link-greeting|{hostname}"),
        Event::LinkIdentify { method, name } => format!("link-identify|{method}|{name}"),
        Event::LinkTls { description } => format!("link-tls|{description}"),
        Event::LinkAuth { result, user } => {
            let result = match result {
                AuthResult::Pass => "pass",
                AuthResult::Fail => "fail",
                AuthResult::Error => "error",
            };
            format!("link-auth|{result}|{}", text(user))
        }
        Event::LinkDisconnect => "link-disconnect".to_owned(),
        Event::Timeout => "timeout".to_owned(),
        Event::TxBegin(id) => format!("tx-begin|{id}"),
        Event::TxMail(id, of, address) => {
            format!("tx-mail|{}|{}|{}", number(id), result(of), text(address))
        }
        Event::TxRcpt(id, of, address) => format!("tx-rcpt|{id}|{}|{}", result(of), text(address)),
        Event::TxEnvelope(id) => format!("tx-envelope|{id}"),
        Event::TxData(id, of) => format!("tx-data|{id}|{}", result(of)),
        Event::TxCommit(id, size) => format!("tx-commit|{id}|{size}"),
        Event::TxRollback(id) => format!("tx-rollback|{id}"),
        Event::TxReset(id) => format!("tx-reset|{id}"),
        Event::ProtocolClient(line) => format!("protocol-client|{}", text(line)),
        Event::ProtocolServer(line) => format!("protocol-server|{}", text(line)),
    };
    format!("R|{fields}")
}

/// What the filter was told since the last time.
fn told(session: &mut Rehearsal) -> Vec<String> {
    session.filter.told.drain(..).map(|told| short(&told)).collect()
}

/// The lines of one message.
fn lines(session: &mut Rehearsal) -> Vec<String> {
    told(session).iter().filter_map(|line| line.strip_prefix("L|")).map(str::to_owned).collect()
}

fn reject(phase: Phase, line: &str) -> (Phase, Decision) {
    (phase, Decision::Reject(line.to_owned()))
}

fn rewrite(phase: Phase, argument: &str) -> (Phase, Decision) {
    (phase, Decision::Rewrite(argument.as_bytes().to_vec()))
}

fn disconnect(phase: Phase, line: &str) -> (Phase, Decision) {
    (phase, Decision::Disconnect(line.to_owned()))
}

const OPTION: &str = "503 5.5.4 Invalid command arguments: Unsupported option FOO=1";

#[test]
fn events_and_questions_come_in_the_order_of_a_message() {
    let mut session = filtered(FilterScript { line: |_| Vec::new(), ..FilterScript::default() });
    assert_eq!(say(&mut session, ""), "220 mx.example.org ESMTP Pillarbox\r\n");
    assert_eq!(
        told(&mut session),
        [
            "begin|<unknown>",
            "Q|connect|",
            "R|protocol-server|220 mx.example.org ESMTP Pillarbox",
            "R|link-greeting|mx.example.org",
        ]
    );
    ran("filter", 14);
    ran("filter", 36);

    say(&mut session, "EHLO a.b\r\n");
    let greeting = told(&mut session);
    assert_eq!(
        greeting[..4],
        [
            "R|protocol-client|EHLO a.b",
            "Q|ehlo|a.b",
            "R|link-identify|EHLO|a.b",
            "R|protocol-server|250-mx.example.org Hello a.b [10.9.8.7], pleased to meet you",
        ]
    );
    assert_eq!(greeting.last().unwrap(), "R|protocol-server|250 HELP");
    assert!(greeting[4..].iter().all(|line| line.starts_with("R|protocol-server|250")));
    ran("filter", 17);

    say(&mut session, "MAIL FROM:<a@b> SIZE=10\r\n");
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|MAIL FROM:<a@b> SIZE=10",
            "Q|mail-from|a@b",
            "R|protocol-server|250 2.0.0 Ok",
            "R|tx-begin|00000001",
            "R|tx-mail|00000001|ok|a@b",
        ]
    );
    ran("filter", 22);

    say(&mut session, "RCPT TO:<c@d>\r\n");
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|RCPT TO:<c@d>",
            "Q|rcpt-to|c@d",
            "R|tx-envelope|0000000100000001",
            "R|protocol-server|250 2.1.5 Destination address valid: Recipient ok",
            "R|tx-rcpt|00000001|ok|c@d",
        ]
    );
    ran("filter", 25);

    say(&mut session, "DATA\r\n");
    say(&mut session, "S: x\r\n.\r\n");
    let size = session.stored[0].body.len();
    let all = told(&mut session);
    let heard: Vec<&String> = all.iter().filter(|line| !line.starts_with("L|")).collect();
    assert_eq!(
        heard,
        [
            "R|protocol-client|DATA",
            "Q|data|",
            "R|protocol-server|354 Enter mail, end with \".\" on a line by itself",
            "R|tx-data|00000001|ok",
            "R|protocol-client|.",
            "Q|commit|",
            "R|protocol-server|250 2.0.0 00000001 Message accepted for delivery",
            &format!("R|tx-commit|00000001|{size}"),
            "R|tx-reset|00000001",
        ]
    );
    ran("filter", 28);

    say(&mut session, "QUIT\r\n");
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|QUIT",
            "Q|quit|",
            "R|protocol-server|221 2.0.0 Bye",
            "R|link-disconnect",
        ]
    );
    assert!(session.closed);
}

/// A number, commands that succeed, one that is looked at, and what is told of it.
type Events<'a> = (u32, &'a [&'a str], &'a str, &'a [&'a str]);

#[test]
fn results_are_read_off_the_replies() {
    let cases: [Events<'_>; 20] = [
        (
            23,
            &["EHLO a.b"],
            "MAIL FROM:<>",
            &["Q|mail-from|", "R|protocol-server|OK", "R|tx-begin|1", "R|tx-mail|1|ok|"],
        ),
        (24, &["EHLO a.b"], "MAIL FROM:a@b", &["R|protocol-server|SBAD"]),
        (
            24,
            &["EHLO a.b"],
            "MAIL FROM:<a@b> FOO=1",
            &["Q|mail-from|a@b", "R|protocol-server|OPTION", "R|tx-mail|00000000|permfail|a@b"],
        ),
        (
            24,
            &["EHLO a.b", "MAIL FROM:<a@b>"],
            "MAIL FROM:<q@q>",
            &["R|protocol-server|SEQ", "R|tx-mail|1|permfail|q@q"],
        ),
        (
            26,
            &["EHLO a.b", "MAIL FROM:<a@b>"],
            "RCPT TO:<bad>x",
            &[
                "Q|rcpt-to|bad",
                "R|protocol-server|503 Unsupported option x",
                "R|tx-rcpt|1|permfail|bad",
            ],
        ),
        (
            26,
            &["EHLO a.b", "MAIL FROM:<a@b>"],
            "RCPT TO:<later@d>",
            &[
                "Q|rcpt-to|later@d",
                "R|protocol-server|451 Temporary failure: <later@d>",
                "R|tx-rcpt|1|tempfail|later@d",
            ],
        ),
        (
            27,
            &["EHLO a.b", "MAIL FROM:<a@b>"],
            "RCPT TO:<list@d>",
            &[
                "Q|rcpt-to|list@d",
                "R|tx-envelope|0000000100000001",
                "R|tx-envelope|0000000100000002",
                "R|protocol-server|ROK",
                "R|tx-rcpt|1|ok|list@d",
            ],
        ),
        (0, &["EHLO a.b", "MAIL FROM:<a@b>"], "RCPT TO:c@d", &["R|protocol-server|RBAD"]),
        (0, &["EHLO a.b"], "RCPT TO:<c@d>", &["R|protocol-server|SEQ"]),
        (
            29,
            &["EHLO a.b", "MAIL FROM:<a@b>"],
            "RSET",
            &["Q|rset|", "R|protocol-server|RESET", "R|tx-rollback|1", "R|tx-reset|1"],
        ),
        (0, &["EHLO a.b"], "RSET", &["Q|rset|", "R|protocol-server|RESET"]),
        (0, &[], "RSET", &["R|protocol-server|SEQ"]),
        (
            34,
            &[],
            "HELP",
            &[
                "R|protocol-server|214-2.0.0 This is Pillarbox",
                "R|protocol-server|214-2.0.0 Commands: HELO EHLO MAIL RCPT DATA RSET NOOP VRFY HELP \
                 QUIT",
                "R|protocol-server|214 2.0.0 End of HELP info",
            ],
        ),
        (0, &["EHLO a.b", "MAIL FROM:<a@b>"], "DATA", &["R|protocol-server|NORCPT"]),
        (
            0,
            &["EHLO a.b", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"],
            "DATA x",
            &["R|protocol-server|NOARG", "R|tx-data|1|permfail"],
        ),
        (0, &["EHLO a.b", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"], "FOO", &["R|protocol-server|UNK"]),
        (
            0,
            &["EHLO a.b", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"],
            "NOOP <x>",
            &["Q|noop|", "R|protocol-server|OK"],
        ),
        (
            63,
            &["EHLO a.b"],
            "MAIL FROM:<@x:u@c>",
            &[
                "Q|mail-from|@x:u@c",
                "R|protocol-server|OK",
                "R|tx-begin|1",
                "R|tx-mail|1|ok|@x:u@c",
            ],
        ),
        (
            63,
            &["EHLO a.b"],
            "MAIL FROM:<user>",
            &["Q|mail-from|user", "R|protocol-server|OK", "R|tx-begin|1", "R|tx-mail|1|ok|user"],
        ),
        (0, &[], "HELO b..c", &["R|protocol-server|DOM"]),
    ];
    for (number, before, command, expected) in cases {
        let mut session = filtered(FilterScript::default());
        session.script.expand = |expand| match expand.recipient.as_str() {
            "later@d" => Expansion::Failed,
            "list@d" => Expansion::Accepted(vec![crate::dispatcher::smtp::rehearsal::route(); 2]),
            _ => Expansion::Accepted(vec![crate::dispatcher::smtp::rehearsal::route()]),
        };
        let mut session = up_to(session, before);
        say(&mut session, &format!("{command}\r\n"));
        let mut full = vec![format!("R|protocol-client|{command}")];
        full.extend(expected.iter().map(|line| match line.strip_prefix("R|protocol-server|") {
            Some("OPTION") => format!("R|protocol-server|{OPTION}"),
            Some(reply) => format!("R|protocol-server|{}", reply_text(reply)),
            None => line.replacen("|1", "|00000001", 1),
        }));
        assert_eq!(told(&mut session), full, "filter case F{number}: {command}");
        ran("filter", number);
    }
}

#[test]
fn a_refused_lease_is_a_mail_without_a_number() {
    let cases = [
        (Refusal::Full, "452 4.3.1 Insufficient system storage"),
        (Refusal::Failure, "421 4.3.0 Temporary Error"),
    ];
    for (refusal, line) in cases {
        let mut session = up_to(filtered(FilterScript::default()), &["EHLO a.b"]);
        session.script.lease = Err(refusal);
        say(&mut session, "MAIL FROM:<a@b>\r\n");
        let heard = told(&mut session);
        assert_eq!(heard[2], format!("R|protocol-server|{line}"));
        assert_eq!(heard[3], "R|tx-mail|00000000|tempfail|a@b");
        let rest: &[&str] = if refusal == Refusal::Failure { &["R|link-disconnect"] } else { &[] };
        assert_eq!(heard[4..], *rest);
    }
}

#[test]
fn the_end_of_a_session_ends_its_transaction() {
    let mut session = up_to(filtered(FilterScript::default()), &TO_DATA[..2]);
    session.end(Ending::Disconnect);
    let rolled_back = ["R|tx-rollback|00000001", "R|tx-reset|00000001", "R|link-disconnect"];
    assert_eq!(told(&mut session), rolled_back);
    ran("filter", 30);

    let mut session = up_to(filtered(FilterScript::default()), &TO_DATA[..3]);
    session.end(Ending::Timeout);
    assert_eq!(told(&mut session), [&["R|timeout"][..], &rolled_back].concat());
    let mut session = up_to(filtered(FilterScript::default()), &[]);
    session.end(Ending::Timeout);
    assert_eq!(told(&mut session), ["R|timeout", "R|link-disconnect"]);
    ran("filter", 32);

    let strict = Settings { pipelining: false, ..settings() };
    let mut session = up_to(on(strict, FilterScript::default()), &TO_DATA[..3]);
    say(&mut session, "NOOP\r\nNOOP\r\n");
    let refused = "R|protocol-server|500 5.5.1 Invalid command: Pipelining not supported";
    let expected = [&[refused, "R|tx-rcpt|00000001|permfail|c@d"][..], &rolled_back].concat();
    assert_eq!(told(&mut session), expected);
    assert!(session.closed);
    ran("filter", 33);
}

#[test]
fn a_second_greeting_ends_the_transaction_before_it_is_told() {
    let mut session = up_to(filtered(FilterScript::default()), &TO_DATA[..2]);
    say(&mut session, "HELO x.y\r\n");
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|HELO x.y",
            "Q|helo|x.y",
            "R|tx-rollback|00000001",
            "R|tx-reset|00000001",
            "R|link-identify|HELO|x.y",
            "R|protocol-server|250 mx.example.org Hello x.y [10.9.8.7], pleased to meet you",
        ]
    );
}

#[test]
fn a_message_at_fault_is_asked_about_and_told() {
    let mut session = up_to(filtered(FilterScript::default()), &TO_DATA);
    assert_eq!(say(&mut session, "hello\r\n.\r\n"), replies("HDR"));
    let heard = told(&mut session);
    let tail = [
        "R|protocol-client|.",
        "Q|commit|",
        &format!("R|protocol-server|{}", reply_text("HDR")),
        "R|tx-data|00000001|permfail",
        "R|tx-rollback|00000001",
        "R|tx-reset|00000001",
    ];
    let heard: Vec<&String> = heard.iter().filter(|line| !line.starts_with("L|")).collect();
    assert_eq!(heard, tail);
    ran("filter", 31);

    let mut session = up_to(filtered(FilterScript::default()), &TO_DATA);
    session.script.commit = Err(Refusal::Failure);
    say(&mut session, "\r\n.\r\n");
    let heard = told(&mut session);
    let tail = [
        "R|protocol-server|421 4.3.0 Temporary failure",
        "R|tx-data|00000001|tempfail",
        "R|tx-rollback|00000001",
        "R|tx-reset|00000001",
        "R|link-disconnect",
    ];
    assert_eq!(heard[heard.len() - 5..], tail);
}

#[test]
fn credentials_are_never_told() {
    let cases = [
        (20, "auth  plain AGFsaWNlAHNlY3JldA==", "auth plain ********"),
        (0, "AUTH PLAIN x", "AUTH PLAIN ********"),
        (0, "AUTH LOGIN YWxpY2U=", "AUTH LOGIN ********"),
        (0, "AUTH\tLOGIN\tYWxpY2U=", "AUTH LOGIN ********"),
        (0, "AUTH AGFsaWNlAHNlY3JldA==", "AUTH ********"),
        (0, "AUTH LOGIN", "AUTH LOGIN"),
    ];
    for (number, sent, expected) in cases {
        for commands in [&[][..], &TO_DATA[..1]] {
            let mut session = up_to(filtered(FilterScript::default()), commands);
            say(&mut session, &format!("{sent}\r\n"));
            assert_eq!(told(&mut session)[0], format!("R|protocol-client|{expected}"));
        }
        ran("filter", number);
    }
}
