//! Cases 158, 168 to 192: logging in, and what follows from it.

use super::*;
use crate::config::{Senders, TableId};
use crate::dispatcher::smtp::{AuthSettings, Authenticate, Authenticated, CheckSender, Ending};

const BADPW: &str = "535 Authentication failed";
const SUCCESS: &str = "235 2.0.0 Authentication succeeded";
const SYN: &str = "501 5.5.2 Syntax error: Syntax error";
/// `alice` with `secret`.
const RIGHT: &str = "AUTH PLAIN AGFsaWNlAHNlY3JldA==";

/// Alice and Bob with the password `secret`; `broken` stands for a table that fails.
fn users(asked: &Authenticate) -> Authenticated {
    let user = String::from_utf8(asked.user.to_ascii_lowercase()).unwrap();
    match user.as_str() {
        "broken" => Authenticated::Failed,
        "hasty" => Authenticated::Limited,
        "alice" | "bob@example.org" if asked.password.as_slice() == b"secret" => {
            Authenticated::Accepted
        }
        _ => Authenticated::Rejected,
    }
}

/// Alice may use `alice@example.org` and everything at `sub.example.org`.
fn senders(asked: &CheckSender) -> Option<bool> {
    match (asked.user.as_str(), asked.sender.as_str()) {
        ("alice", "broken@example.org") => None,
        ("alice", sender) => {
            let sender = sender.to_ascii_lowercase();
            let own = ["alice@example.org", "alice+tag@example.org"].contains(&sender.as_str());
            Some(own || sender.ends_with("@sub.example.org"))
        }
        _ => Some(false),
    }
}

fn script() -> Script {
    Script { authenticate: users, allow: senders, ..Script::default() }
}

fn offered(required: bool) -> Settings {
    let auth = AuthSettings { required, table: None, scram: false };
    let mode = if required { TlsMode::Required } else { TlsMode::Offered };
    Settings { tls: Some(offer(mode)), auth: Some(auth), ..settings() }
}

/// Set-up T.
fn t() -> Rehearsal {
    after(greeted(offered(false), script()), &["EHLO a.b"])
}

/// Set-up T after STARTTLS and EHLO.
fn t_secure() -> Rehearsal {
    after(t(), &["STARTTLS", "EHLO a.b"])
}

/// Set-up S after STARTTLS and EHLO.
fn s() -> Rehearsal {
    let senders = Senders { table: TableId(0), masquerade: true };
    let settings = Settings { senders: Some(senders), ..offered(true) };
    after(greeted(settings, script()), &["EHLO a.b", "STARTTLS", "EHLO a.b"])
}

fn s_as_alice() -> Rehearsal {
    after(s(), &[RIGHT])
}

#[test]
fn auth_is_checked_in_order() {
    const UNKNOWN: &str = "504 5.7.4 Security features not supported: AUTH method";
    const WITH_AUTH: &str = "250-mx.example.org Hello a.b [10.9.8.7], pleased to meet you\n\
        250-8BITMIME\n250-ENHANCEDSTATUSCODES\n250-SIZE 36700160\n250-DSN\n250-PIPELINING\n\
        250-CHUNKING\n250-SMTPUTF8\n250-LIMITS MAILMAX=100 RCPTMAX=1000\n250-AUTH PLAIN LOGIN\n250 HELP";
    let unknown = |name: &str| format!("{UNKNOWN} \"{name}\" not supported");
    run(&[
        (
            "158",
            || after(t(), &["STARTTLS"]),
            &[("EHLO a.b\r\n", WITH_AUTH), ("STARTTLS\r\n", "SECURE")],
        ),
        ("168", t, &[("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "NO"), ("AUTH\r\n", "NO")]),
        (
            "169, 170, 171",
            t_secure,
            &[
                ("AUTH\r\n", "501 5.5.4 Invalid command arguments: No parameters given"),
                ("AUTH \r\n", &unknown("")),
                ("AUTH CRAM-MD5\r\n", &unknown("CRAM-MD5")),
                ("AUTH SCRAM-SHA-256 biws\r\n", &unknown("SCRAM-SHA-256")),
                ("AUTH SCRAM-SHA-256-PLUS\r\n", &unknown("SCRAM-SHA-256-PLUS")),
            ],
        ),
        (
            "182, 183",
            || after(t_secure(), &[RIGHT]),
            &[
                ("AUTH PLAIN x\r\n", "503 5.5.1 Invalid command: Already authenticated"),
                ("AUTH\r\n", "503 5.5.1 Invalid command: Already authenticated"),
                ("EHLO a.b\r\n", "EHLO"),
                ("AUTH PLAIN x\r\n", "503 5.5.1 Invalid command: Already authenticated"),
            ],
        ),
        (
            "184",
            || after(t_secure(), &["MAIL FROM:<a@b>"]),
            &[("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "SEQ"), ("AUTH\r\n", "SEQ")],
        ),
        ("29", || after(t(), &["STARTTLS"]), &[("AUTH PLAIN x\r\n", "SEQ")]),
        (
            "189",
            s,
            &[
                (
                    "MAIL FROM:<a@b>\r\n",
                    "530 5.5.1 Invalid command: Must issue an AUTH command first",
                ),
                (
                    "MAIL FROM:nonsense\r\n",
                    "530 5.5.1 Invalid command: Must issue an AUTH command first",
                ),
            ],
        ),
    ]);
}

#[test]
fn exchanges_lead_to_their_replies() {
    run(&[
        ("172", t_secure, &[("AUTH PLAIN\r\n", "334 "), ("AGFsaWNlAHNlY3JldA==\r\n", SUCCESS)]),
        ("173", t_secure, &[("auth plain AGFsaWNlAHNlY3JldA==\r\n", SUCCESS)]),
        (
            "174",
            t_secure,
            &[
                ("AUTH PLAIN AGFsaWNlAHg=\r\n", BADPW),
                ("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", SUCCESS),
            ],
        ),
        (
            "175",
            t_secure,
            &[
                ("AUTH PLAIN\r\n", "334 "),
                ("*\r\n", SYN),
                ("AUTH PLAIN *\r\n", SYN),
                ("AUTH PLAIN \r\n", SYN),
                ("AUTH PLAIN =\r\n", SYN),
                ("AUTH PLAIN AAA=\r\n", SYN),
                ("AUTH PLAIN AHUA\r\n", SYN),
                ("NOOP\r\n", "OK"),
            ],
        ),
        ("176", t_secure, &[("AUTH PLAIN AGFsaWNlAHNlY3JldABqdW5r\r\n", SUCCESS)]),
        (
            "178",
            t_secure,
            &[
                ("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6"),
                ("YWxpY2U=\r\n", "334 UGFzc3dvcmQ6"),
                ("YmFk\r\n", BADPW),
            ],
        ),
        (
            "179",
            t_secure,
            &[("AUTH LOGIN QUxJQ0U=\r\n", "334 UGFzc3dvcmQ6"), ("c2VjcmV0\r\n", SUCCESS)],
        ),
        (
            "180",
            t_secure,
            &[
                ("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6"),
                ("\r\n", "334 UGFzc3dvcmQ6"),
                ("\r\n", BADPW),
            ],
        ),
        ("181", t_secure, &[("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6"), ("*\r\n", SYN)]),
        (
            "186",
            t_secure,
            &[("AUTH PLAIN AGJyb2tlbgB4\r\n", "421 4.3.0 Temporary failure"), ("NOOP\r\n", "OK")],
        ),
        (
            "too many failures from one address",
            t_secure,
            &[(
                "AUTH PLAIN AGhhc3R5AHg=\r\n",
                "421 4.7.0 Too many failed authentications, try again later!",
            )],
        ),
        (
            "an exchange is not a place for commands",
            t_secure,
            &[("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6"), ("EHLO a.b\r\n", SYN), ("QUIT\r\n", "BYE!")],
        ),
    ]);
}

#[test]
fn lines_of_an_exchange_may_come_together_but_not_too_long() {
    let mut session = t_secure();
    let received = session.send(b"AUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\nNOOP\r\n");
    let expected = replies(&format!("334 VXNlcm5hbWU6 | 334 UGFzc3dvcmQ6 | {SUCCESS} | OK"));
    assert_eq!(String::from_utf8(received).unwrap(), expected);
    let mut session = after(t_secure(), &["AUTH PLAIN"]);
    let received = session.send(("A".repeat(2048) + "\r\n").as_bytes());
    assert_eq!(received, b"500 5.0.0 Command line too long\r\n");
    assert!(session.closed);
}

#[test]
fn the_log_knows_who_but_never_the_password() {
    let mut session = t();
    let attempts = [
        RIGHT,
        "STARTTLS",
        RIGHT,
        "EHLO a.b",
        "MAIL FROM:<a@b>",
        "AUTH  PLAIN AGFsaWNlAHNlY3JldA==",
        "RSET",
        "AUTH LOGIN YWxpY2U=",
        "c2VjcmV0MQ==",
        "AUTH LOGIN =",
        "AUTH PLAIN",
        "AGFsaWNlAHNlY3JldDE=",
        "AUTH CRAM-MD5 AGFsaWNlAHNlY3JldA==",
        "AUTH PLAIN AGEgYgBz",
        "AUTH AGFsaWNlAHNlY3JldA==",
        "AUTH PLAIN\tAGFsaWNlAHNlY3JldA==",
        RIGHT,
        RIGHT,
    ];
    for line in attempts {
        session.send(format!("{line}\r\n").as_bytes());
    }
    let log = session.log();
    for secret in ["AGFsa", "AGEg", "c2Vj", "YWxpY2U", "secret"] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{secret}: {log:#?}");
    }
    let failed = |command: &str, result: &str| {
        format!("0000000000000001 smtp failed-command command=\"{command}\" result=\"{result}\"")
    };
    let verdict = |user: &str, result: &str| {
        format!("0000000000000001 smtp authentication user={user} result={result}")
    };
    let nameless =
        "504 5.7.4 Security features not supported: AUTH method \\\"(...)\\\" not supported";
    let not_now = "503 5.5.1 Invalid command: Command not allowed at this point.";
    let expected = [
        failed("AUTH PLAIN (...)", "503 5.5.1 Invalid command: Command not supported"),
        "0000000000000001 smtp tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256".to_owned(),
        failed("AUTH PLAIN (...)", not_now),
        failed("AUTH PLAIN (...)", not_now),
        verdict("alice", "permfail"),
        failed("AUTH LOGIN (password)", BADPW),
        failed("AUTH LOGIN (username)", SYN),
        verdict("alice", "permfail"),
        failed("AUTH PLAIN (...)", BADPW),
        failed(
            "AUTH CRAM-MD5 (...)",
            "504 5.7.4 Security features not supported: AUTH method \\\"CRAM-MD5\\\" not supported",
        ),
        verdict("a\\040b", "permfail"),
        failed("AUTH PLAIN (...)", BADPW),
        failed("AUTH (...)", nameless),
        failed("AUTH PLAIN (...)", nameless),
        verdict("alice", "ok"),
        failed("AUTH PLAIN (...)", "503 5.5.1 Invalid command: Already authenticated"),
    ];
    assert_eq!(log[1..], expected);
    note("168");
}

#[test]
fn wrong_passwords_are_answered_and_logged_each_time() {
    let mut session = t_secure();
    for _ in 0..20 {
        let received = session.send(b"AUTH PLAIN AGFsaWNlAHg=\r\n");
        assert_eq!(String::from_utf8(received).unwrap(), replies(BADPW));
    }
    assert!(!session.closed);
    session.end(Ending::Disconnect);
    let mut log = session.log();
    log.pop();
    let pair = [
        "0000000000000001 smtp authentication user=alice result=permfail",
        "0000000000000001 smtp failed-command command=\"AUTH PLAIN (...)\" \
         result=\"535 Authentication failed\"",
    ];
    assert_eq!(log[log.len() - 40..], pair.repeat(20));
    note("185");
}

/// What is stored of a message with this header From, and its envelope's user.
fn sent(session: Rehearsal, sender: &str, from: &str) -> (String, String) {
    let mail = format!("MAIL FROM:<{sender}>");
    let mut session = after(session, &[&mail, "RCPT TO:<c@d>", "DATA"]);
    let reply = session.send(format!("{from}\r\n\r\nb\r\n.\r\n").as_bytes());
    assert!(reply.starts_with(b"250 "), "{from}");
    let stored = session.stored.pop().unwrap();
    let origin = stored.commit.origin;
    assert_eq!(origin.authenticated, !origin.username.is_empty());
    (String::from_utf8(stored.body).unwrap(), origin.username.clone())
}

#[test]
fn the_trace_header_tells_of_the_login_where_that_is_wanted() {
    let start = |received_auth: bool| {
        let settings = Settings { received_auth, ..offered(false) };
        after(greeted(settings, script()), &["EHLO a.b", "STARTTLS", "EHLO a.b"])
    };
    let by = |session| sent(session, "a@b", "X: y").0.lines().nth(1).unwrap().to_owned();
    let tls = "(TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO)";
    let prefix = "\tby mx.example.org (Pillarbox) with";
    let mut failed = start(true);
    failed.send(b"AUTH PLAIN AG1hbGxvcnkAeA==\r\n");
    assert_eq!(by(failed), format!("{prefix} ESMTPS id 00000001 {tls} auth=no"));
    note("187");
    let right = after(start(true), &[RIGHT]);
    assert_eq!(by(right), format!("{prefix} ESMTPSA id 00000001 {tls} auth=yes user=alice"));
    note("188");
    let right = after(start(false), &[RIGHT]);
    assert_eq!(by(right), format!("{prefix} ESMTPSA id 00000001 {tls}"));
    // In clear text nothing is told.
    let settings = Settings { received_auth: true, ..settings() };
    let plain = after(greeted(settings, script()), &["EHLO a.b"]);
    assert_eq!(by(plain), format!("{prefix} ESMTP id 00000001"));
}

#[test]
fn the_envelope_has_the_user_who_logged_in() {
    assert_eq!(sent(t_secure(), "a@b", "X: y").1, "");
    assert_eq!(sent(after(t_secure(), &[RIGHT]), "a@b", "X: y").1, "alice");
    let bob = "AUTH PLAIN YXV0aHoAYm9iQGV4YW1wbGUub3JnAHNlY3JldA==";
    assert_eq!(sent(after(t_secure(), &[bob]), "a@b", "X: y").1, "bob@example.org");
    note("177");
    // Case and handshakes do not change who it is.
    let again = after(t_secure(), &[RIGHT, "EHLO c.d", "RSET"]);
    assert_eq!(sent(again, "a@b", "X: y").1, "alice");
    note("183");
}

#[test]
fn users_send_from_their_addresses_alone() {
    run(&[
        (
            "190",
            s_as_alice,
            &[
                ("MAIL FROM:<a@b>\r\n", "530 Sender rejected"),
                ("RCPT TO:<c@d>\r\n", "SEQ"),
                ("MAIL FROM:<>\r\n", "530 Sender rejected"),
                ("MAIL FROM:<broken@example.org>\r\n", "421 4.3.0 Temporary Error"),
                ("MAIL FROM:<alice@example.org>\r\n", "OK"),
            ],
        ),
        (
            "191",
            s_as_alice,
            &[
                ("MAIL FROM:<x@SUB.example.org>\r\n", "OK"),
                ("RSET\r\n", "RESET"),
                ("MAIL FROM:<Alice+tag@example.org>\r\n", "OK"),
            ],
        ),
    ]);
    // A table of senders concerns those who have logged in.
    let senders = Senders { table: TableId(0), masquerade: true };
    let settings = Settings { senders: Some(senders), ..offered(false) };
    let mut session = after(greeted(settings, script()), &["EHLO a.b"]);
    assert_eq!(session.send(b"MAIL FROM:<a@b>\r\n"), b"250 2.0.0 Ok\r\n");
}

#[test]
fn the_header_from_becomes_the_sender_where_that_is_wanted() {
    let from = |session, header: &str| {
        let (body, _) = sent(session, "alice@example.org", header);
        body.split_once("(UTC)\n").unwrap().1.split_once("\n\n").unwrap().0.to_owned()
    };
    for (header, expected) in [
        ("From: evil@x", "From: alice@example.org"),
        ("from: a b <c@d> (x)", "from: a b <alice@example.org> (x)"),
        ("From:", "From:alice@example.org"),
        ("From: grp: a@b;", "From: grp: a@b;"),
        (
            "From: a@b, c <d@e>,\r\n\tf",
            "From: alice@example.org, c <alice@example.org>,\n\talice@example.org",
        ),
        (
            "To: a\r\nFrom: b\r\nCc: c",
            "To: a@mx.example.org\nFrom: alice@example.org\nCc: c@mx.example.org",
        ),
        ("From: a@b\r\nFrom: c@d", "From: alice@example.org\nFrom: alice@example.org"),
        ("Reply-To: a@b\r\nSender: c@d", "Reply-To: a@b\nSender: c@d"),
    ] {
        assert_eq!(from(s_as_alice(), header), expected);
    }
    // Without a login, and without a sender, the header stays.
    let senders = Senders { table: TableId(0), masquerade: true };
    let settings = || Settings { senders: Some(senders), ..offered(false) };
    let anybody = Script { allow: |_| Some(true), ..script() };
    let session = after(greeted(settings(), script()), &["EHLO a.b"]);
    assert_eq!(from(session, "From: evil@x"), "From: evil@x");
    let session = greeted(settings(), anybody);
    let session = after(session, &["EHLO a.b", "STARTTLS", "EHLO a.b", RIGHT]);
    let (body, _) = sent(session, "", "From: evil@x");
    assert!(body.contains("\nFrom: evil@x\n"), "{body}");
    note("192");
}

mod scram;
