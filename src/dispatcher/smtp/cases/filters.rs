//! The filter cases of the specification, 12.2 to 12.4 and 12.6, as far as the session itself shows
//! them: what filters are asked and told, in order, and what their decisions lead to.
//!
//! Lines are in the short forms of the specification: `Q|` a question, `R|` an event, both without
//! session and time, and `L|` a line of a message. What the lookup role adds, `filter-response` and
//! `filter-report`, is not among them.

mod encrypted;

use super::*;
use crate::config::FilterId;
use crate::dispatcher::smtp::rehearsal::{FilterScript, Told};
use crate::dispatcher::smtp::{Ending, Refusal};
use crate::filter::{AuthResult, Decision, Event, Phase, TransactionResult};
use crate::ipc::message::lookup::Interests;
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

#[test]
fn a_connection_is_decided_before_the_banner() {
    let mut session = deciding(&[reject(Phase::Connect, "550 nope")]);
    assert_eq!(say(&mut session, ""), "550 nope\r\n");
    assert_eq!(say(&mut session, "EHLO a.b\r\n"), replies("SEQ"));
    assert_eq!(say(&mut session, "MAIL FROM:<a@b>\r\nNOOP\r\n"), replies("SEQ | OK"));
    assert_eq!(say(&mut session, "QUIT\r\n"), replies("BYE"));
    assert!(session.closed);
    let failed = "0000000000000001 smtp failed-command command=\"\" result=\"550 nope\"";
    assert!(session.log().iter().any(|line| line == failed));
    let heard = told(&mut session);
    assert_eq!(heard[2], "R|protocol-server|550 nope");
    assert!(!heard.iter().any(|line| line.contains("link-greeting")));
    ran("filter", 37);

    for (number, line) in [(38, "421 nope"), (39, "550 bye")] {
        let mut session = deciding(&[disconnect(Phase::Connect, line)]);
        assert_eq!(say(&mut session, "EHLO a.b\r\n"), format!("{line}\r\n"));
        assert!(session.closed);
        ran("filter", number);
    }

    let mut session = deciding(&[rewrite(Phase::Connect, "x")]);
    assert!(say(&mut session, "").starts_with("220 "));
    let ignored = "warn: 0000000000000001 smtp filter cannot rewrite phase=connect";
    assert!(session.log().iter().any(|line| line == ignored));
    ran("filter", 60);
}

#[test]
fn a_session_whose_filters_cannot_be_asked_ends_at_once() {
    let mut session = filtered(FilterScript { interests: None, ..FilterScript::default() });
    assert_eq!(say(&mut session, "EHLO a.b\r\n"), "421 Internal server error\r\n");
    assert!(session.closed);
    assert_eq!(session.log().len(), 3, "{:?}", session.log());
}

#[test]
fn spam_is_marked_in_the_message_or_in_all_of_the_session() {
    let message = ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "\r\n."];
    let cases = [
        (40, Phase::Connect, [true, true]),
        (0, Phase::Ehlo, [true, true]),
        (41, Phase::MailFrom, [true, false]),
        (0, Phase::RcptTo, [true, false]),
        (0, Phase::Data, [true, false]),
    ];
    for (number, phase, expected) in cases {
        let mut session = deciding(&[(phase, Decision::Junk)]);
        say(&mut session, "EHLO a.b\r\n");
        for (place, marked) in expected.into_iter().enumerate() {
            for command in message {
                say(&mut session, &format!("{command}\r\n"));
            }
            let body = String::from_utf8_lossy(&session.stored[place].body);
            assert_eq!(body.starts_with("X-Spam: Yes\nReceived: from "), marked, "{phase:?}");
        }
        ran("filter", number);
    }
    // A MAIL that fails takes its mark with it.
    let mut session = deciding(&[(Phase::MailFrom, Decision::Junk)]);
    say(&mut session, "EHLO a.b\r\nMAIL FROM:<a@b> FOO\r\n");
    for command in message {
        say(&mut session, &format!("{command}\r\n"));
    }
    assert!(session.stored[0].body.starts_with(b"Received: "));
}

/// A number, commands before, decisions, what is sent, and what is answered.
type Decided<'a> = (u32, &'a [&'a str], &'a [(Phase, Decision)], &'a [(&'a str, &'a str)]);

#[test]
fn decisions_are_carried_out() {
    let hello = "250 mx.example.org Hello new.name [10.9.8.7], pleased to meet you";
    let cases: &[Decided<'_>] = &[
        (
            43,
            &[],
            &[rewrite(Phase::Ehlo, "bad name")],
            &[("EHLO a.b\r\n", "DOM"), ("MAIL FROM:<a@b>\r\n", "SEQ")],
        ),
        (0, &[], &[rewrite(Phase::Helo, "new.name")], &[("HELO a.b\r\n", hello)]),
        (
            45,
            &["EHLO a.b"],
            &[rewrite(Phase::MailFrom, "new@from")],
            &[("MAIL FROM:<a@b>\r\n", "SBAD"), ("MAIL FROM:<a@b>\r\n", "OK")],
        ),
        (
            0,
            &["EHLO a.b"],
            &[rewrite(Phase::MailFrom, "<a\0@b>")],
            &[("MAIL FROM:<a@b>\r\n", "SBAD")],
        ),
        (
            47,
            &TO_DATA[..2],
            &[reject(Phase::RcptTo, "550 5.1.1 no")],
            &[("RCPT TO:<c@d>\r\n", "550 5.1.1 no"), ("RCPT TO:<c@d>\r\n", "ROK")],
        ),
        (
            48,
            &TO_DATA[..2],
            &[disconnect(Phase::RcptTo, "421 4.7.0 go")],
            &[("RCPT TO:<c@d>\r\n", "421 4.7.0 go!")],
        ),
        (
            49,
            &TO_DATA[..3],
            &[reject(Phase::Data, "554 no data"), reject(Phase::Data, "554 still not")],
            &[("DATA\r\n", "554 no data"), ("DATA\r\n", "554 still not"), ("RSET\r\n", "RESET")],
        ),
        (
            50,
            &TO_DATA,
            &[reject(Phase::Commit, "554 5.7.1 spam")],
            &[("\r\n.\r\n", "554 5.7.1 spam"), ("MAIL FROM:<a@b>\r\n", "OK")],
        ),
        (
            51,
            &TO_DATA,
            &[reject(Phase::Commit, "450 4.7.1 later")],
            &[("\r\n.\r\n", "450 4.7.1 later")],
        ),
        (52, &TO_DATA, &[disconnect(Phase::Commit, "421 x")], &[("\r\n.\r\n", "421 x!")]),
        (
            55,
            &[],
            &[reject(Phase::Quit, "550 stay")],
            &[("QUIT\r\n", "550 stay"), ("QUIT\r\n", "BYE!")],
        ),
        (
            56,
            &TO_DATA[..3],
            &[reject(Phase::Noop, "500 no"), reject(Phase::Rset, "500 no")],
            &[("NOOP\r\n", "500 no"), ("RSET\r\n", "500 no"), ("DATA\r\n", "GO")],
        ),
        (59, &TO_DATA, &[rewrite(Phase::Commit, "foo")], &[("\r\n.\r\n", "ACC 1")]),
        (
            0,
            &TO_DATA[..3],
            &[
                rewrite(Phase::Data, "x"),
                rewrite(Phase::Noop, "x"),
                rewrite(Phase::Rset, "x"),
                rewrite(Phase::Quit, "x"),
            ],
            &[
                ("NOOP\r\n", "OK"),
                ("DATA\r\n", "GO"),
                ("\r\n.\r\n", "ACC 1"),
                ("RSET\r\n", "RESET"),
                ("QUIT\r\n", "BYE!"),
            ],
        ),
        (
            61,
            &TO_DATA,
            &[(Phase::Commit, Decision::Junk)],
            &[("\r\n.\r\n", "421 Internal server error!")],
        ),
    ];
    for (number, before, decisions, dialogue) in cases {
        let mut session = up_to(deciding(&[]), before);
        session.filter.script.decisions = decisions.to_vec();
        for (sent, expected) in *dialogue {
            let received = say(&mut session, sent);
            assert_eq!(received, replies(expected), "filter case F{number}: {sent:?}");
            assert_eq!(session.closed, expected.ends_with('!'), "filter case F{number}: {sent:?}");
        }
        ran("filter", *number);
    }
}

#[test]
fn what_is_not_a_refusal_ends_the_session() {
    for line in ["200 ok", "55 foo", "550-foo"] {
        let mut session = up_to(deciding(&[reject(Phase::Ehlo, line)]), &[]);
        assert_eq!(say(&mut session, "EHLO a.b\r\n"), "421 Internal server error\r\n");
        assert!(session.closed);
    }
    ran("filter", 57);
}

#[test]
fn refusals_are_results_too() {
    let data = [
        reject(Phase::Data, "554 no data"),
        reject(Phase::Commit, "554 5.7.1 spam"),
        reject(Phase::Commit, "450 4.7.1 later"),
    ];
    let mut session = up_to(deciding(&data), &TO_DATA[..3]);
    say(&mut session, "DATA\r\n");
    assert_eq!(
        told(&mut session)[2..],
        ["R|protocol-server|554 no data", "R|tx-data|00000001|permfail",]
    );
    for (id, result, line) in
        [(1, "permfail", "554 5.7.1 spam"), (2, "tempfail", "450 4.7.1 later")]
    {
        say(&mut session, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        say(&mut session, "\r\n.\r\n");
        let heard = told(&mut session);
        assert_eq!(
            heard[heard.len() - 4..],
            [
                format!("R|protocol-server|{line}"),
                format!("R|tx-data|{id:08}|{result}"),
                format!("R|tx-rollback|{id:08}"),
                format!("R|tx-reset|{id:08}"),
            ]
        );
    }
    assert!(session.stored.is_empty());

    let mut session = up_to(deciding(&[disconnect(Phase::RcptTo, "421 4.7.0 go")]), &TO_DATA[..2]);
    say(&mut session, "RCPT TO:<c@d>\r\n");
    assert_eq!(
        told(&mut session)[2..],
        [
            "R|protocol-server|421 4.7.0 go",
            "R|tx-rcpt|00000001|tempfail|c@d",
            "R|tx-rollback|00000001",
            "R|tx-reset|00000001",
            "R|link-disconnect",
        ]
    );
}

#[test]
fn rewritten_arguments_are_used_and_events_keep_those_of_the_client() {
    let mut session = deciding(&[
        rewrite(Phase::Ehlo, "new.name"),
        rewrite(Phase::MailFrom, "<new@from> SIZE=1"),
        rewrite(Phase::RcptTo, "<x@y>"),
    ]);
    let greeting = say(&mut session, "EHLO a.b\r\n");
    assert!(greeting.contains("\r\n250-mx.example.org Hello new.name [10.9.8.7], "));
    say(&mut session, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    say(&mut session, "\r\n.\r\n");
    let stored = session.stored.pop().unwrap();
    let body = String::from_utf8(stored.body).unwrap();
    assert!(body.starts_with("Received: from new.name (<unknown> [10.9.8.7])\n"), "{body}");
    let heard = told(&mut session);
    let has = |line: &str| heard.iter().any(|one| one == line);
    assert!(has("R|link-identify|EHLO|new.name"));
    ran("filter", 42);
    assert_eq!(stored.commit.origin.sender.as_str(), "new@from");
    assert!(has("R|tx-mail|00000001|ok|a@b"));
    ran("filter", 44);
    assert_eq!(stored.commit.recipients[0].address.as_str(), "x@y");
    assert!(body.contains("\n\tfor <x@y>;\n") && has("R|tx-rcpt|00000001|ok|c@d"));
    ran("filter", 46);
}

/// A message through a filter with this script: what is stored behind the trace headers.
fn passed(script: FilterScript, sent: &str) -> (String, Vec<String>) {
    let mut session = up_to(filtered(script), &TO_DATA[..3]);
    say(&mut session, "DATA\r\n");
    assert_eq!(say(&mut session, sent), replies("ACC 1"), "{sent:?}");
    let body = String::from_utf8(session.stored.pop().unwrap().body).unwrap();
    let heard = lines(&mut session);
    (body, heard)
}

/// What is behind our own header.
fn content(body: &str) -> &str {
    body.split_once("(UTC)\n").map_or("no trace header", |(_, content)| content)
}

#[test]
fn lines_go_through_filters_in_order_and_back() {
    let sent = "S: x\r\n\r\n..dot\r\nb|c\r\n.\r\n";
    let (body, heard) = passed(FilterScript::default(), sent);
    assert_eq!(content(&body), "S: x\n\n.dot\nb|c\n");
    assert!(heard[0].starts_with("Received: from a.b ") && heard[1].starts_with("\tby "));
    assert_eq!(heard[4..], ["S: x", "", "..dot", "b|c", "."]);
    for number in [64, 65, 66] {
        ran("filter", number);
    }
    // However few bytes they take at once, and whether they answer at once or at the end.
    for (pace, collects) in [(1, false), (7, true), (usize::MAX, true)] {
        let script = FilterScript { pace, collects, ..FilterScript::default() };
        assert_eq!(passed(script, sent), (body.clone(), heard.clone()), "{pace}");
    }
    ran("filter", 69);

    let body_text = |line: &[u8]| match line {
        b"" => b"\nX-Added: 1\n".to_vec(),
        line => [line, b"\n"].concat(),
    };
    let script = FilterScript { line: body_text, ..FilterScript::default() };
    assert_eq!(content(&passed(script, "S: x\r\n\r\nb\r\n.\r\n").0), "S: x\n\nX-Added: 1\nb\n");
    let header = |line: &[u8]| match line {
        b"S: x" => b"X-Added: 1\nS: x\n".to_vec(),
        line => [line, b"\n"].concat(),
    };
    let script = FilterScript { line: header, ..FilterScript::default() };
    assert_eq!(content(&passed(script, "S: x\r\n\r\nb\r\n.\r\n").0), "X-Added: 1\nS: x\n\nb\n");
    ran("filter", 67);

    let script = FilterScript { line: |_| Vec::new(), ..FilterScript::default() };
    assert_eq!(passed(script, sent).0, "");
    ran("filter", 68);

    let stuffed = |line: &[u8]| match line {
        b"x" => b".x\n".to_vec(),
        line => [line, b"\n"].concat(),
    };
    let script = FilterScript { line: stuffed, ..FilterScript::default() };
    assert_eq!(content(&passed(script, "\r\nx\r\n.\r\n").0), "\nx\n");
    ran("filter", 72);
}

#[test]
fn filters_can_spoil_a_header_block() {
    let spoil = |line: &[u8]| if line == b"S: x" { b"hello\n".to_vec() } else { Vec::new() };
    let script = FilterScript { line: spoil, ..FilterScript::default() };
    let mut session = up_to(filtered(script), &TO_DATA);
    assert_eq!(say(&mut session, "S: x\r\n\r\n.\r\n"), replies("HDR"));
    ran("filter", 71);
}

#[test]
fn no_line_follows_a_fault_but_the_end_does() {
    let small = Settings { max_message_size: 100, ..settings() };
    let mut session = up_to(on(small, FilterScript::default()), &TO_DATA);
    say(&mut session, "\r\n");
    say(&mut session, &format!("{}\r\n", "x".repeat(100)));
    say(&mut session, "behind\r\n");
    let refused = say(&mut session, ".\r\n");
    assert!(refused.starts_with("554 5.3.4 "), "{refused}");
    let heard = lines(&mut session);
    assert!(!heard.iter().any(|line| line == "behind"));
    assert_eq!(heard.last().unwrap(), ".");
    ran("filter", 73);

    // The trace headers are no part of what the client may send.
    let small = Settings { max_message_size: 8, ..settings() };
    for (sent, expected) in [("\r\n12345\r\n.\r\n", "250 "), ("\r\n1234567\r\n.\r\n", "554 ")] {
        let mut session = up_to(on(small.clone(), FilterScript::default()), &TO_DATA);
        assert!(say(&mut session, sent).starts_with(expected), "{sent:?}");
    }
}

#[test]
fn a_line_that_was_begun_is_ended_before_the_end_of_a_message_at_fault() {
    // The fault shows while a part of the second line is with the filter.
    let small = Settings { max_message_size: 10, masks_source: true, ..settings() };
    let script = FilterScript { pace: 130, ..FilterScript::default() };
    let mut session = up_to(on(small, script), &TO_DATA);
    let sent = format!("\r\n{}\r\nbehind\r\n.\r\n", "x".repeat(300));
    assert!(say(&mut session, &sent).starts_with("554 5.3.4 "));
    let heard = lines(&mut session);
    assert!(heard.iter().all(|line| !line.ends_with("x.") && line != "behind"), "{heard:?}");
    assert_eq!(heard.last().unwrap(), ".");
}

#[test]
fn the_longest_line_goes_through() {
    let line = "x".repeat(65_534 - 1);
    let (body, heard) = passed(FilterScript::default(), &format!("\r\n{line}\r\n.\r\n"));
    assert_eq!(content(&body), format!("\n{line}\n"));
    assert_eq!(heard[5].len(), 65_533);
    ran("filter", 74);
}

#[test]
fn a_large_message_is_streamed() {
    let script = FilterScript { pace: 10_000, ..FilterScript::default() };
    let mut session = up_to(filtered(script), &TO_DATA);
    say(&mut session, "\r\n");
    let piece = format!("{}\r\n", "y".repeat(998)).repeat(16);
    for _ in 0..64 {
        say(&mut session, &piece);
        session.filter.told.clear();
    }
    assert_eq!(say(&mut session, ".\r\n"), replies("ACC 1"));
    assert!(session.largest_piece <= 2 * crate::model::limits::BODY_IN_MEMORY);
    let body = String::from_utf8(session.stored.pop().unwrap().body).unwrap();
    assert_eq!(content(&body).len(), 1 + 64 * 16 * 999);
}

#[test]
fn a_lone_dot_that_is_content_is_no_end_for_filters() {
    let (body, heard) = passed(FilterScript::default(), "\r\na\n.\nMAIL FROM:<evil@x>\r\n.\r\n");
    assert_eq!(content(&body), "\na\n\nMAIL FROM:<evil@x>\n");
    assert_eq!(heard[5..], ["a", "", "MAIL FROM:<evil@x>", "."]);
    // Neither can a filter end the message of a client.
    let smuggle = |line: &[u8]| [line, b"\r\n.\r\n"].concat();
    let script = FilterScript { line: smuggle, ..FilterScript::default() };
    let mut session = up_to(filtered(script), &TO_DATA);
    assert_eq!(say(&mut session, "\r\nb\r\n.\r\n"), "421 Internal server error\r\n");
    assert!(session.closed && session.stored.is_empty());
}

#[test]
fn a_filter_that_breaks_off_fails_the_message_for_now() {
    let script = FilterScript { breaks_after: Some(6), ..FilterScript::default() };
    let mut session = up_to(filtered(script), &TO_DATA);
    say(&mut session, "\r\na\r\n");
    assert!(!session.closed);
    say(&mut session, "b\r\n");
    assert_eq!(say(&mut session, ".\r\n"), "421 Internal server error\r\n");
    assert!(session.closed && session.stored.is_empty());
    let heard = told(&mut session);
    assert_eq!(
        heard[heard.len() - 5..],
        [
            "R|protocol-server|421 Internal server error",
            "R|tx-data|00000001|tempfail",
            "R|tx-rollback|00000001",
            "R|tx-reset|00000001",
            "R|link-disconnect",
        ]
    );
}

#[test]
fn a_filter_that_never_answers_ends_its_session() {
    for (number, phase) in [(101, Phase::Data), (0, Phase::Commit), (70, Phase::DataLine)] {
        let script = FilterScript { silent: Some(phase), ..FilterScript::default() };
        let mut session = up_to(filtered(script), &TO_DATA[..3]);
        assert!(!say(&mut session, "DATA\r\n").contains("421"));
        if phase != Phase::Data {
            assert_eq!(say(&mut session, "\r\n.\r\n"), "");
        }
        session.filter.told.clear();
        assert_eq!(session.filter_is_late(), b"421 Internal server error\r\n");
        assert!(session.closed && session.stored.is_empty());
        let heard = told(&mut session);
        let heard: Vec<&String> =
            heard.iter().filter(|line| *line != "R|protocol-client|.").collect();
        assert_eq!(
            heard,
            [
                "R|timeout",
                "R|protocol-server|421 Internal server error",
                "R|tx-data|00000001|tempfail",
                "R|tx-rollback|00000001",
                "R|tx-reset|00000001",
                "R|link-disconnect",
            ]
        );
        ran("filter", number);
    }
    // A client that leaves meanwhile is let go.
    let script = FilterScript { silent: Some(Phase::MailFrom), ..FilterScript::default() };
    let mut session = up_to(filtered(script), &TO_DATA[..1]);
    say(&mut session, "MAIL FROM:<a@b>\r\n");
    session.end(Ending::Disconnect);
    assert!(session.closed);
}

#[test]
fn only_what_filters_want_is_asked_and_told() {
    let phases = |phase: Phase| 1 << Phase::ALL.iter().position(|one| *one == phase).unwrap();
    let interests = Interests { events: false, phases: phases(Phase::RcptTo) };
    let script = FilterScript { interests: Some(interests), ..FilterScript::default() };
    let mut session = filtered(script);
    say(&mut session, "EHLO a.b\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    assert!(say(&mut session, "\r\n.\r\n").starts_with("250 "));
    say(&mut session, "QUIT\r\n");
    assert_eq!(told(&mut session), ["begin|<unknown>", "Q|rcpt-to|c@d"]);

    // Our own Received header counts, whether filters see it or not.
    for (headers, expected) in [(98, "250 "), (99, "500 5.4.6 ")] {
        for phases in [0, phases(Phase::DataLine)] {
            let interests = Some(Interests { events: false, phases });
            let script = FilterScript { interests, ..FilterScript::default() };
            let mut session = up_to(filtered(script), &TO_DATA);
            let sent = "Received: x\r\n".repeat(headers) + "\r\n.\r\n";
            assert!(say(&mut session, &sent).starts_with(expected), "{headers}");
        }
    }
}

/// A filter that wants everything but lines.
fn without_lines(decisions: &[(Phase, Decision)]) -> Rehearsal {
    let lines = 1 << Phase::ALL.iter().position(|one| *one == Phase::DataLine).unwrap();
    let interests = Some(Interests { events: true, phases: !lines });
    let decisions = decisions.to_vec();
    filtered(FilterScript { interests, decisions, ..FilterScript::default() })
}

#[test]
fn chunks_are_decided_like_data() {
    let mut session = up_to(without_lines(&[]), &TO_DATA[..3]);
    assert_eq!(say(&mut session, "BDAT 6\r\nS: x\r\n"), "250 2.0.0 6 octets received\r\n");
    assert_eq!(say(&mut session, "BDAT 0 LAST\r\n"), replies("ACC 1"));
    let size = session.stored[0].body.len();
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|BDAT 6",
            "Q|data|",
            "R|tx-data|00000001|ok",
            "R|protocol-server|250 2.0.0 6 octets received",
            "R|protocol-client|BDAT 0 LAST",
            "Q|commit|",
            "R|protocol-server|250 2.0.0 00000001 Message accepted for delivery",
            &format!("R|tx-commit|00000001|{size}"),
            "R|tx-reset|00000001",
        ]
    );

    // What is left of a refused message is no message, and no command either.
    let mut session = up_to(without_lines(&[reject(Phase::Data, "554 no")]), &TO_DATA[..3]);
    let sent = "BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b>\r\n";
    assert_eq!(say(&mut session, sent), replies("554 no | 554 no | OK"));
    let mut session = up_to(without_lines(&[reject(Phase::Commit, "554 spam")]), &TO_DATA[..3]);
    assert_eq!(say(&mut session, "BDAT 2 LAST\r\n\r\nNOOP\r\n"), replies("554 spam | OK"));
    assert!(session.stored.is_empty());

    // Filters that read lines are given no chunks.
    let mut session = filtered(FilterScript::default());
    assert!(!say(&mut session, "EHLO a.b\r\n").contains("CHUNKING"));
    say(&mut session, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    let refused = "503 5.5.1 Invalid command: Command not supported\r\n";
    assert_eq!(say(&mut session, "BDAT 6 LAST\r\nQUIT\r\n"), refused);
}
