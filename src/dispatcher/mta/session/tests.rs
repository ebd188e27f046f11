//! Dialogues with a scripted server, as transcripts: `>` what we say, `*` what the driver is told.

mod talk;

use std::sync::Arc;

use self::talk::Talk;
use super::*;
use crate::dispatcher::mta::body::Body;
use crate::dispatcher::mta::fixture::{envelope, task};
use crate::model::ReversePath;
use crate::model::envelope::{Notify, Ret};

const EHLO: &str = "250-fake.test|250 HELP";
const PIPELINING: &str = "250-fake.test|250 PIPELINING";

fn smtp(tasks: Vec<Task>, server: &[&str]) -> Vec<String> {
    Talk::new(Protocol::Smtp, tasks).run(server)
}

fn to(recipients: &[&str]) -> Task {
    task(recipients, b"body\n")
}

// queue cases 56 and 57
#[test]
fn one_message_to_two_recipients_is_one_transaction_in_lock_step() {
    let said = smtp(
        vec![to(&["a@r.test", "b@r.test"])],
        &["220 hi", EHLO, "250 mail", "250 rcpt", "250 rcpt", "354 go", "250 queued"],
    );
    let expected = [
        "> EHLO mx.test",
        "> MAIL FROM:<sender@md.test>",
        "> RCPT TO:<a@r.test>",
        "> RCPT TO:<b@r.test>",
        "> DATA",
        "> (message)",
        "* 0 Ok: 250 queued",
        "* 1 Ok: 250 queued",
        "* ready",
    ];
    assert_eq!(said, expected);
}

#[test]
fn pipelined_commands_leave_in_one_write() {
    let mut talk = Talk::new(Protocol::Smtp, vec![to(&["a@r.test", "b@r.test"])]);
    talk.hear("220 hi");
    talk.transcript.clear();
    talk.hear(PIPELINING);
    let together =
        ["> MAIL FROM:<sender@md.test>", "> RCPT TO:<a@r.test>", "> RCPT TO:<b@r.test>", "> DATA"];
    assert_eq!(talk.transcript, together);
    talk.transcript.clear();
    talk.hear("250 mail|250 rcpt|250 rcpt|354 go");
    talk.hear("250 queued");
    let rest = ["> (message)", "* 0 Ok: 250 queued", "* 1 Ok: 250 queued", "* ready"];
    assert_eq!(talk.transcript, rest);
}

#[test]
fn no_more_than_a_window_of_commands_is_sent_ahead() {
    let many: Vec<String> = (0..200).map(|n| format!("r{n}@r.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut talk = Talk::new(Protocol::Smtp, vec![to(&many)]);
    talk.hear("220 hi");
    talk.transcript.clear();
    talk.hear(PIPELINING);
    assert_eq!(talk.transcript.len(), 64);
    let mut answered = 0;
    while talk.transcript.last().map(String::as_str) != Some("> DATA") {
        talk.hear("250 ok");
        answered += 1;
        assert!(talk.transcript.len() - answered <= 65);
    }
    assert_eq!(talk.transcript.len(), 202);
}

// queue case 59
#[test]
fn each_recipient_has_its_own_fate() {
    let task = || vec![to(&["a@r.test", "b@r.test", "c@r.test"])];
    let lock_step = smtp(
        task(),
        &["220 hi", EHLO, "250 m", "250 a", "550 no b", "450 later c", "354 go", "250 done"],
    );
    let together = smtp(
        task(),
        &["220 hi", PIPELINING, "250 m|250 a|550 no b|450 later c|354 go", "250 done"],
    );
    for said in [lock_step, together] {
        let fates: Vec<_> = said.iter().filter(|line| line.starts_with('*')).collect();
        let expected =
            ["* 1 PermFail: 550 no b", "* 2 TempFail: 450 later c", "* 0 Ok: 250 done", "* ready"];
        assert_eq!(fates, expected);
    }
}

// queue case 60
#[test]
fn when_all_recipients_are_rejected_there_is_no_data() {
    let said = smtp(vec![to(&["a@r.test"])], &["220 hi", EHLO, "250 m", "550 no", "250 reset"]);
    assert_eq!(said[2..], ["> RCPT TO:<a@r.test>", "> RSET", "* 0 PermFail: 550 no", "* ready"]);
}

#[test]
fn data_sent_ahead_for_nobody_is_refused_or_ends_in_an_empty_message() {
    let refused = smtp(
        vec![to(&["a@r.test"])],
        &["220 hi", PIPELINING, "250 m|550 no|503 no recipients", "250 reset"],
    );
    assert_eq!(refused[3..], ["> DATA", "> RSET", "* 0 PermFail: 550 no", "* ready"]);

    let taken = smtp(
        vec![to(&["a@r.test"])],
        &["220 hi", PIPELINING, "250 m|550 no|354 go", "554 no message", "250 reset"],
    );
    assert_eq!(taken[3..], ["> DATA", "> .", "* 0 PermFail: 550 no", "> RSET", "* ready"]);

    let sender = smtp(
        vec![to(&["a@r.test"])],
        &["220 hi", PIPELINING, "550 not you|503 x|503 y", "250 reset"],
    );
    assert_eq!(sender[3..], ["> DATA", "> RSET", "* 0 PermFail: 550 not you", "* ready"]);
}

// queue cases 61 and 62
#[test]
fn a_refused_sender_fails_the_whole_task() {
    let reply = "550-5.7.1 first part|550-5.7.1 second part|550 5.7.1 third";
    let cases = [
        (reply, "PermFail: 550-5.7.1 first part second part third"),
        ("451 later", "TempFail: 451 later"),
        ("354 what", "TempFail: 354 what"),
    ];
    for (reply, verdict) in cases {
        let said = smtp(vec![to(&["a@r.test", "b@r.test"])], &["220 hi", EHLO, reply, "250 reset"]);
        let expected = [
            "> RSET".to_owned(),
            format!("* 0 {verdict}"),
            format!("* 1 {verdict}"),
            "* ready".to_owned(),
        ];
        assert_eq!(said[2..], expected, "{reply}");
    }
}

// queue case 63
#[test]
fn a_refused_message_fails_all_accepted_recipients() {
    let said = smtp(
        vec![to(&["a@r.test", "b@r.test"])],
        &["220 hi", EHLO, "250 m", "250 a", "250 b", "354 go", "554 spam"],
    );
    assert_eq!(said[6..], ["* 0 PermFail: 554 spam", "* 1 PermFail: 554 spam", "* ready"]);
}

#[test]
fn refused_data_fails_the_accepted_recipients() {
    let said = smtp(
        vec![to(&["a@r.test", "b@r.test"])],
        &["220 hi", EHLO, "250 m", "250 a", "550 no", "451 later", "250 reset"],
    );
    let rest = ["* 1 PermFail: 550 no", "> RSET", "* 0 TempFail: 451 later", "* ready"];
    assert_eq!(said[4..5], ["> DATA"]);
    assert_eq!(said[5..], rest);
}

// queue cases 64 and 110
#[test]
fn a_lost_connection_defers_what_is_not_settled() {
    for reason in ["Connection closed unexpectedly", "Connection timeout", "IO Error: reset"] {
        let mut talk = Talk::new(Protocol::Smtp, vec![to(&["a@r.test", "b@r.test"])]);
        for read in ["220 hi", EHLO, "250 m", "550 no", "250 b", "354 go"] {
            talk.hear(read);
        }
        talk.transcript.clear();
        talk.session.fail(reason);
        talk.act();
        let expected =
            [format!("* 1 TempFail: {reason}"), format!("* error {reason}"), "* close".into()];
        assert_eq!(talk.transcript, expected);
    }
}

// queue cases 65 and 66
#[test]
fn greetings_that_fail() {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["554 go away"], &["* error BANNER rejected: 554 go away", "* close"]),
        (&["220 hi", "502 what", "250 ok"], &["> EHLO mx.test", "> HELO mx.test", "* ready"]),
        (
            &["220 hi", "502 what", "502 no"],
            &["> EHLO mx.test", "> HELO mx.test", "* error HELO rejected: 502 no", "* close"],
        ),
        (&["what"], &["* error Bad response: reply code out of range", "* close"]),
        (
            &["220 hi|250 early"],
            &["> EHLO mx.test", "* error Remote host sent too much data", "* close"],
        ),
    ];
    for (server, expected) in cases {
        assert_eq!(smtp(vec![], server), expected, "{server:?}");
    }
}

// queue case 66
#[test]
fn after_helo_no_extension_is_used() {
    let mut one = to(&["a@r.test"]);
    one.envelopes[0].origin.ret = Some(Ret::Full);
    let said = smtp(vec![one], &["220 hi", "502 PIPELINING", "250-x|250 DSN", "250 m"]);
    assert_eq!(said[2..], ["> MAIL FROM:<sender@md.test>", "> RCPT TO:<a@r.test>"]);
}

// RFC 6531, sections 3.2 and 3.5
#[test]
fn what_needs_smtputf8_is_sent_to_who_offers_it_alone() {
    let needs = || Task { smtputf8: true, ..to(&["ü@r.test", "b@r.test"]) };
    let said = smtp(vec![needs()], &["220 hi", "250-x|250 smtputf8", "250 m"]);
    assert_eq!(said[1..], ["> MAIL FROM:<sender@md.test> SMTPUTF8", "> RCPT TO:<ü@r.test>"]);
    let refused = [
        "* 0 NotAscii: SMTPUTF8 required but not supported by remote host",
        "* 1 NotAscii: SMTPUTF8 required but not supported by remote host",
        "> MAIL FROM:<sender@md.test>",
    ];
    let said = smtp(vec![needs(), to(&["c@r.test"])], &["220 hi", "250-x|250 8BITMIME"]);
    assert_eq!(said[1..], refused);
    // What does not need it is sent without.
    let said = smtp(vec![to(&["a@r.test"])], &["220 hi", "250-x|250 SMTPUTF8"]);
    assert_eq!(said[1..], ["> MAIL FROM:<sender@md.test>"]);
}

// queue cases 68 and 69
#[test]
fn a_message_above_the_offered_size_is_not_tried() {
    let big = || vec![task(&["a@r.test"], &[b'x'; 300]), to(&["b@r.test"])];
    let said = smtp(big(), &["220 hi", "250-x|250 SIZE 100"]);
    let expected = ["* 0 PermFail: message too large for peer", "> MAIL FROM:<sender@md.test>"];
    assert_eq!(said[1..], expected);
    for no_limit in ["250-x|250 SIZE 0", "250-x|250 SIZE", "250-x|250 SIZE many"] {
        let said = smtp(big(), &["220 hi", no_limit]);
        assert_eq!(said[1..], ["> MAIL FROM:<sender@md.test>"], "{no_limit}");
    }
}

// queue cases 70 and 71
#[test]
fn report_requests_are_passed_on_to_servers_that_understand_them() {
    let asking = || {
        let mut one = envelope(1, "a@r.test");
        one.origin.ret = Some(Ret::Full);
        one.origin.envid = Some("EN1".into());
        one.dsn.notify = Notify(Notify::SUCCESS | Notify::DELAY);
        one.dsn.orcpt = Some("rfc822;x@y".into());
        let body = Body::Memory(Arc::from(&b"x\n"[..]));
        let sender = one.origin.sender.clone();
        vec![Task { sender, envelopes: vec![one], smtputf8: false, body }]
    };
    let understood =
        smtp(asking(), &["220 hi", "250-x|250 dsn", "250 m", "250 r", "354 go", "250 ok"]);
    let expected = [
        "> MAIL FROM:<sender@md.test> RET=FULL ENVID=EN1",
        "> RCPT TO:<a@r.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x@y",
        "> DATA",
        "> (message)",
        "* 0 Ok with DSN: 250 ok",
        "* ready",
    ];
    assert_eq!(understood[1..], expected);

    let not = smtp(asking(), &["220 hi", EHLO, "250 m", "250 r", "354 go", "250 ok"]);
    assert_eq!(not[1..3], ["> MAIL FROM:<sender@md.test>", "> RCPT TO:<a@r.test>"]);
    assert_eq!(not[5], "* 0 Ok: 250 ok");
}

#[test]
fn a_parameter_that_would_break_a_command_is_left_out() {
    let mut one = to(&["a@r.test"]);
    one.envelopes[0].origin.envid = Some("x\r\nRSET".into());
    one.sender = ReversePath::NULL;
    let said = smtp(vec![one], &["220 hi", "250-x|250 DSN"]);
    assert_eq!(said[1..], ["> MAIL FROM:<>"]);
}

#[test]
fn a_server_that_answers_unasked_is_left() {
    let mut talk = Talk::new(Protocol::Smtp, vec![to(&["a@r.test"])]);
    talk.hear("220 hi");
    talk.hear(EHLO);
    talk.transcript.clear();
    // The answer to RCPT before RCPT was sent.
    talk.hear("250 m|250 r");
    let last = &talk.transcript[talk.transcript.len() - 3..];
    let reason = "Remote host sent too much data";
    assert_eq!(
        last,
        [format!("* 0 TempFail: {reason}"), format!("* error {reason}"), "* close".into()]
    );
}

#[test]
fn a_server_that_closes_says_so_once() {
    let idle = smtp(vec![], &["220 hi", EHLO, "421 idle too long"]);
    assert_eq!(idle[1..], ["* ready", "* error 421 idle too long", "* close"]);
    let busy = smtp(vec![to(&["a@r.test"])], &["220 hi", EHLO, "250 m", "421 shutting down"]);
    let expected = ["* 0 TempFail: 421 shutting down", "* error 421 shutting down", "* close"];
    assert_eq!(busy[3..], expected);
}

#[test]
fn a_reply_in_the_middle_of_the_message_settles_it() {
    let mut talk = Talk::new(Protocol::Smtp, vec![to(&["a@r.test"])]);
    for read in ["220 hi", EHLO, "250 m", "250 r"] {
        talk.hear(read);
    }
    talk.transcript.clear();
    talk.session.receive(b"354 go\r\n");
    assert_eq!(talk.session.next_action(), Some(Action::SendBody));
    talk.hear("552 too big");
    let expected = ["* 0 PermFail: 552 too big", "* error 552 too big", "* close"];
    assert_eq!(talk.transcript, expected);
}

// queue case 103 and 104
#[test]
fn lmtp_settles_each_recipient_by_its_own_reply() {
    let task = || vec![to(&["a@r.test", "b@r.test", "c@r.test"])];
    let head = ["220 hi", "250-x|250 DSN", "250 m", "250 a", "550 no", "250 c", "354 go"];
    let apart = [&head[..], &["250 got a", "452 full c"]].concat();
    let together = [&head[..], &["250 got a|452 full c"]].concat();
    for server in [apart, together] {
        let said = Talk::new(Protocol::Lmtp, task()).run(&server);
        assert_eq!(said[0], "> LHLO mx.test");
        let fates: Vec<_> = said.iter().filter(|line| line.starts_with('*')).collect();
        let expected =
            ["* 1 PermFail: 550 no", "* 0 Ok: 250 got a", "* 2 TempFail: 452 full c", "* ready"];
        assert_eq!(fates, expected);
    }
    let excess = [&head[..], &["250 got a|452 full c|250 more"]].concat();
    let said = Talk::new(Protocol::Lmtp, task()).run(&excess);
    assert_eq!(said.last().unwrap(), "* close");
}

#[test]
fn lmtp_servers_must_greet_by_lhlo() {
    let said = Talk::new(Protocol::Lmtp, vec![]).run(&["220 hi", "500 smtp only"]);
    assert_eq!(said[1..], ["* error LHLO rejected: 500 smtp only", "* close"]);
}

// queue case 105
#[test]
fn a_session_ends_after_its_number_of_messages() {
    let mut talk = Talk::new(Protocol::Smtp, (0..101).map(|_| to(&["a@r.test"])).collect());
    talk.hear("220 hi");
    talk.hear(EHLO);
    for _ in 0..100 {
        for read in ["250 m", "250 r", "354 go", "250 ok"] {
            talk.hear(read);
        }
    }
    assert_eq!(talk.tasks.len(), 1);
    assert_eq!(talk.transcript.last().unwrap(), "* 0 Ok: 250 ok");
    assert!(talk.transcript.iter().any(|line| line == "> QUIT"));
    assert_eq!(talk.session.accepted(), 100);
    talk.hear("221 bye");
    assert_eq!(talk.transcript.last().unwrap(), "* close");
}

// queue case 106
#[test]
fn a_host_that_takes_none_of_ten_messages_is_left() {
    let mut talk = Talk::new(Protocol::Smtp, (0..20).map(|_| to(&["a@r.test"])).collect());
    talk.hear("220 hi");
    talk.hear(EHLO);
    for _ in 0..5 {
        for read in ["250 m", "250 r", "354 go", "554 no"] {
            talk.hear(read);
        }
    }
    for _ in 0..5 {
        for read in ["250 m", "550 no", "250 reset"] {
            talk.hear(read);
        }
    }
    assert_eq!(talk.tasks.len(), 10);
    let end = &talk.transcript[talk.transcript.len() - 2..];
    assert_eq!(end, ["> QUIT", "* rejects all"]);
}

// queue case 107
#[test]
fn too_many_rejected_recipients_in_a_row_end_the_session() {
    let many: Vec<String> = (0..27).map(|n| format!("r{n}@r.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut server = vec!["220 hi", EHLO, "250 m"];
    server.extend(["550 no"; 25]);
    let said = smtp(vec![to(&many)], &server);
    let end = [
        "* 24 PermFail: 550 no",
        "* 25 TempFail not tried: Too many consecutive errors, closing connection",
        "* 26 TempFail not tried: Too many consecutive errors, closing connection",
    ];
    assert_eq!(said[said.len() - 3..], end);
    assert!(said.contains(&"> QUIT".to_owned()));

    // An acceptance in between starts the count anew.
    let mut server = vec!["220 hi", EHLO, "250 m", "250 yes"];
    server.extend(["550 no"; 24]);
    server.extend(["250 yes", "550 no", "354 go"]);
    let said = smtp(vec![to(&many)], &server);
    assert_eq!(said.last().unwrap(), "> (message)");
}

#[test]
fn quit_waits_for_any_answer() {
    for answer in ["221 bye", "500 what"] {
        let mut talk = Talk::new(Protocol::Smtp, vec![]);
        talk.hear("220 hi");
        talk.hear(EHLO);
        talk.session.quit();
        talk.act();
        talk.hear(answer);
        assert_eq!(talk.transcript[1..], ["* ready", "> QUIT", "* close"]);
    }
    let mut talk = Talk::new(Protocol::Smtp, vec![]);
    talk.session.quit();
    talk.session.fail("Connection closed unexpectedly");
    talk.act();
    assert_eq!(talk.transcript, ["> QUIT", "* close"]);
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Whatever a server sends, every envelope is settled exactly once.
        #[test]
        fn every_envelope_is_settled_once(
            lmtp: bool,
            reads in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![
                    Just("220 hi"), Just("250 ok"), Just("250-a"), Just("250 PIPELINING"),
                    Just("354 go"), Just("421 bye"), Just("450 later"), Just("550 no"), Just("x"),
                ], 1..5),
                0..30),
        ) {
            let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
            let mut talk = Talk::new(protocol, vec![to(&["a@r.test", "b@r.test", "c@r.test"])]);
            for read in &reads {
                talk.hear(&read.join("|"));
            }
            let begun = talk.tasks.len() == 0;
            talk.session.fail("end");
            talk.act();
            for index in 0..3 {
                let prefix = format!("* {index} ");
                let times = talk.transcript.iter().filter(|l| l.starts_with(&prefix)).count();
                prop_assert_eq!(times, usize::from(begun), "{} {:?}", index, talk.transcript);
            }
            let closes = talk.transcript.iter().filter(|line| *line == "* close").count();
            prop_assert_eq!(closes, 1);
        }
    }
}
