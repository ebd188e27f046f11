//! Every line as programs see it.

use super::*;
use crate::model::EnvelopeId;
use crate::spec_case::ran;

const TIME: u64 = 1_700_000_000_000_042;
const SESSION: u64 = 0xa1;

fn line(direction: Direction, event: &Event) -> String {
    let mut out = Vec::new();
    super::event(&mut out, Occasion { direction, session: SESSION, time: TIME }, event);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_program_is_told_who_we_are_and_what_it_sees() {
    let begin = "config|smtpd-version|7.9.0-pillarbox\nconfig|protocol|0.7\n\
                 config|smtp-session-timeout|300\n";
    let (incoming, outgoing) = ("config|subsystem|smtp-in\n", "config|subsystem|smtp-out\n");
    let cases = [
        (1, true, false, "mx.example.org", incoming.to_owned()),
        (2, false, true, "mx.example.org", outgoing.to_owned()),
        (2, true, true, "mx.example.org", format!("{incoming}{outgoing}")),
        (3, true, false, "example.net", incoming.to_owned()),
        (0, false, false, "x", String::new()),
    ];
    for (number, incoming, outgoing, admd, subsystems) in cases {
        let told = greeting(Subsystems { incoming, outgoing }, admd);
        assert_eq!(told, format!("{begin}{subsystems}config|admd|{admd}\nconfig|ready\n"));
        ran("filter", number);
    }
}

#[test]
fn events() {
    use TransactionResult::{Ok, Permanent, Temporary};
    let message = MessageId::new(0xabc).unwrap();
    let envelope = EnvelopeId::new(0xabc_0000_0007).unwrap();
    let connect = |hostname: &str, fcrdns, source: &str, destination: &str| Event::LinkConnect {
        hostname: hostname.to_owned(),
        fcrdns,
        source: source.to_owned(),
        destination: destination.to_owned(),
    };
    let auth = |result, user: &[u8]| Event::LinkAuth { result, user: user.to_vec() };
    let cases = [
        (
            14,
            connect("<unknown>", Fcrdns::Fail, "10.9.8.7:54790", "10.9.8.7:25"),
            "link-connect|SID|<unknown>|fail|10.9.8.7:54790|10.9.8.7:25",
        ),
        (
            15,
            connect("x", Fcrdns::Error, "[2001:db8::1]:7", "[2001:db8::2]:25"),
            "link-connect|SID|x|error|[2001:db8::1]:7|[2001:db8::2]:25",
        ),
        (
            16,
            connect("mx.example.org", Fcrdns::Pass, "unix:/run/s", "unix:/run/s"),
            "link-connect|SID|mx.example.org|pass|unix:/run/s|unix:/run/s",
        ),
        (0, connect("a|b\n", Fcrdns::Pass, "1|2", "3|4"), "link-connect|SID|a?b?|pass|1?2|3|4"),
        (
            14,
            Event::LinkGreeting { hostname: "mx.example.org".into() },
            "link-greeting|SID|mx.example.org",
        ),
        (
            17,
            Event::LinkIdentify { method: "EHLO".into(), name: "a.b".into() },
            "link-identify|SID|EHLO|a.b",
        ),
        (
            18,
            Event::LinkTls { description: "TLSv1.3:TLS_AES_256_GCM_SHA384:256".into() },
            "link-tls|SID|TLSv1.3:TLS_AES_256_GCM_SHA384:256",
        ),
        (19, auth(AuthResult::Fail, b"alice"), "link-auth|SID|fail|alice"),
        (0, auth(AuthResult::Pass, b"a|b"), "link-auth|SID|pass|a|b"),
        (0, auth(AuthResult::Error, b""), "link-auth|SID|error|"),
        (32, Event::Timeout, "timeout|SID"),
        (32, Event::LinkDisconnect, "link-disconnect|SID"),
        (22, Event::TxBegin(message), "tx-begin|SID|00000abc"),
        (22, Event::TxMail(Some(message), Ok, b"a@b".to_vec()), "tx-mail|SID|00000abc|ok|a@b"),
        (23, Event::TxMail(Some(message), Ok, Vec::new()), "tx-mail|SID|00000abc|ok|"),
        (24, Event::TxMail(None, Permanent, b"a@b".to_vec()), "tx-mail|SID|00000000|permfail|a@b"),
        (25, Event::TxRcpt(message, Ok, b"c@d".to_vec()), "tx-rcpt|SID|00000abc|ok|c@d"),
        (
            26,
            Event::TxRcpt(message, Temporary, b"bad".to_vec()),
            "tx-rcpt|SID|00000abc|tempfail|bad",
        ),
        (25, Event::TxEnvelope(envelope), "tx-envelope|SID|00000abc|00000abc00000007"),
        (28, Event::TxData(message, Ok), "tx-data|SID|00000abc|ok"),
        (28, Event::TxCommit(message, 1234), "tx-commit|SID|00000abc|1234"),
        (29, Event::TxRollback(message), "tx-rollback|SID|00000abc"),
        (29, Event::TxReset(message), "tx-reset|SID|00000abc"),
        (
            19,
            Event::ProtocolClient(b"AUTH PLAIN ********".to_vec()),
            "protocol-client|SID|AUTH PLAIN ********",
        ),
        (0, Event::ProtocolClient(b"a|b\r\n\0\tc".to_vec()), "protocol-client|SID|a|b???\tc"),
        (22, Event::ProtocolServer(b"250 2.0.0 Ok".to_vec()), "protocol-server|SID|250 2.0.0 Ok"),
    ];
    // That these events happen, and when, is for sessions to prove: here is what becomes of them.
    for (number, event, expected) in cases {
        let expected = expected.replace("SID", "00000000000000a1");
        for (direction, word) in [(Direction::In, "smtp-in"), (Direction::Out, "smtp-out")] {
            let said = line(direction, &event);
            let whole = format!("report|0.7|1700000000.000042|{word}|{expected}\n");
            assert_eq!(said, whole, "case F{number}");
        }
    }
}

#[test]
fn questions() {
    let mut out = Vec::new();
    let place = (SESSION, 0xb2);
    question_about_client(&mut out, TIME, place, "<unknown>", "10.9.8.7");
    question_about_client(&mut out, TIME, place, "a|b", "local");
    question_about(&mut out, TIME, Phase::MailFrom, place, b"");
    question_about(&mut out, TIME, Phase::MailFrom, place, b"@x:u@c");
    question_about(&mut out, TIME, Phase::Auth, place, b"PLAIN AGFs|\n");
    question(&mut out, TIME, Phase::DataLine, SESSION, 0xb2);
    let begin = |phase: &str| {
        format!("filter|0.7|1700000000.000042|smtp-in|{phase}|00000000000000a1|00000000000000b2|")
    };
    let (connect, mail) = (begin("connect"), begin("mail-from"));
    let expected = [
        format!("{connect}<unknown>|10.9.8.7\n{connect}a?b|local\n"),
        format!("{mail}\n{mail}@x:u@c\n{}PLAIN AGFs|?\n", begin("auth")),
        begin("data-line"),
    ];
    assert_eq!(String::from_utf8(out).unwrap(), expected.concat());
}

#[test]
fn decisions_and_reports() {
    let occasion = Occasion { direction: Direction::In, session: SESSION, time: TIME };
    let mut out = Vec::new();
    response(&mut out, occasion, Phase::Connect, "proceed", None);
    response(&mut out, occasion, Phase::StartTls, "reject", Some(b"454 a|b"));
    report(&mut out, occasion, Reporter::BuiltIn, "a|b", b"seen|x");
    report(&mut out, occasion, Reporter::Process, "f1", b"hello");
    let begin =
        |event: &str| format!("report|0.7|1700000000.000042|smtp-in|{event}|{SESSION:016x}|");
    let (response, report) = (begin("filter-response"), begin("filter-report"));
    let expected = format!(
        "{response}connected|proceed\n{response}tls|reject|454 a|b\n\
         {report}builtin|a?b|seen|x\n{report}proc|f1|hello\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
