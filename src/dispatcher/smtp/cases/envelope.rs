//! Cases 49 to 107 and 224: MAIL, RCPT, DATA, and what the queue says.

use super::*;
use crate::dispatcher::smtp::Refusal;
use crate::model::envelope::Ret;

#[test]
fn mail_commands() {
    let oversized = "552 5.3.4 Message too big for system";
    run(&[
        ("49", greet, &[("MAIL FROM:<a@b>\r\n", "OK"), ("MAIL FROM:<a@b>\r\n", "SEQ")]),
        ("50", greet, &[("mail from: <a@b>\r\n", "OK")]),
        ("51", greet, &[("MAIL FROM:<>\r\n", "OK")]),
        ("59", greet, &[("MAIL FROM:a@b\r\n", "SBAD")]),
        ("60", greet, &[("MAIL FROM:\r\n", "SBAD")]),
        ("61, 62", greet, &[("MAIL FROM:<a@b\r\n", "SBAD"), ("MAIL FROM:<@b>\r\n", "SBAD")]),
        (
            "66",
            greet,
            &[
                ("MAIL FROM <a@b>\r\n", "UNK"),
                ("MAIL  FROM:<a@b>\r\n", "UNK"),
                ("MAIL FROM :<a@b>\r\n", "UNK"),
                ("MAIL FROM\r\n", "UNK"),
            ],
        ),
        ("67", greet, &[("MAIL FROM:<a@b> SIZE=10\r\n", "OK")]),
        (
            "67, refused",
            greet,
            &[
                ("MAIL FROM:<a@b> SIZE=99999999999\r\n", oversized),
                (
                    "MAIL FROM:<a@b> SIZE=abc\r\n",
                    "501 5.5.4 Invalid command arguments: Invalid SIZE",
                ),
            ],
        ),
        ("68", greet, &[("MAIL FROM:<a@b>SIZE=10\r\n", "OK")]),
        (
            "70, 71 where it is not offered, 77, 78",
            greet,
            &[
                (
                    "MAIL FROM:<a@b> BODY=BINARYMIME\r\n",
                    "503 5.5.4 Invalid command arguments: Unsupported option BODY=BINARYMIME",
                ),
                (
                    "MAIL FROM:<a@b>\tSIZE=1\r\n",
                    "503 5.5.4 Invalid command arguments: Unsupported option \tSIZE=1",
                ),
                ("MAIL FROM:<a@b>\r\n", "OK"),
            ],
        ),
        (
            "76",
            no_dsn,
            &[(
                "MAIL FROM:<a@b> RET=FULL\r\n",
                "503 5.5.4 Invalid command arguments: Unsupported option RET=FULL",
            )],
        ),
        ("80", p, &[("HELO a.b\r\n", "HELO"), ("MAIL FROM:<a@b> SIZE=10\r\n", "OK")]),
        ("69", greet, &[("MAIL FROM:<a@b> BODY=8BITMIME\r\n", "OK")]),
        ("69", greet, &[("MAIL FROM:<a@b> body=7bit\r\n", "OK")]),
        ("72", greet, &[("MAIL FROM:<a@b> AUTH=<>\r\n", "OK")]),
        ("74", greet, &[("MAIL FROM:<a@b> RET=FOO\r\n", "OK")]),
        ("224", greet, &[("MAIL FROM:<;id;@b>\r\n", "SBAD"), ("MAIL FROM:<;id;>\r\n", "SBAD")]),
    ]);
}

#[test]
fn senders_are_addresses_or_refused() {
    let local = |length: usize| format!("MAIL FROM:<{}@b>\r\n", "a".repeat(length));
    let envid = |length: usize| format!("MAIL FROM:<a@b> ENVID={}\r\n", "x".repeat(length));
    let too_large = format!(
        "503 5.5.4 Invalid command arguments: option too large, truncated: {}",
        "x".repeat(101)
    );
    run(&[
        ("56", greet, &[("MAIL FROM:<a@[1.2.3.4]>\r\n", "OK")]),
        ("56", greet, &[("MAIL FROM:<a@[IPv6:::1]>\r\n", "OK")]),
        ("57", greet, &[("MAIL FROM:<!#%&'*/?^~+-=_@b>\r\n", "OK")]),
        ("58", greet, &[(&local(256), "SBAD"), (&local(255), "OK")]),
        ("75", greet, &[(&envid(101), &too_large), (&envid(100), "OK")]),
    ]);
    let refused = [
        ("57", &["a$b@c", "a`b@c", "a{b@c", "a|b@c", "a}b@c"][..]),
        ("63", &["a.@b", ".a@b", "a..b@c"][..]),
        ("64", &["\"a b\"@c", "\"a\"@c"][..]),
        ("65", &["a@b@c", "a@b.", "é@b", "a(b)@c", "a@b c", "<a@b>", "a\\b@c"][..]),
    ];
    for (number, addresses) in refused {
        for address in addresses {
            run(&[(number, greet, &[(&format!("MAIL FROM:<{address}>\r\n"), "SBAD")])]);
        }
    }
}

// Proves: smtp cases 51 to 57 and 73: what the envelope gets.
#[test]
fn the_envelope_knows_the_sender_and_its_wishes() {
    let origin = |command: &str| {
        let mut session = after(greet(), &[command, "RCPT TO:<c@d>", "DATA"]);
        session.send(b".\r\n");
        session.stored.pop().unwrap().commit.origin
    };
    for (path, sender) in [
        ("<>", ""),
        ("<a>", "a@mx.example.org"),
        ("<a@>", "a@mx.example.org"),
        ("<@x,@y:u@c>", "u@c"),
        ("<p:u@c>", "u@c"),
        ("<a@[IPv6:::1]>", "a@[IPv6:::1]"),
        ("<!#%&'*/?^~+-=_@b>", "!#%&'*/?^~+-=_@b"),
    ] {
        assert_eq!(origin(&format!("MAIL FROM:{path}")).sender.as_str(), sender);
    }
    let wishes = origin("MAIL FROM:<a@b> RET=HDRS ENVID=abc");
    assert_eq!((wishes.ret, wishes.envid.as_deref()), (Some(Ret::Headers), Some("abc")));
    assert_eq!((wishes.helo.as_str(), wishes.hostname.as_str()), ("a.b", "<unknown>"));
    assert_eq!(wishes.smtp_name, SERVER);
    assert!(!wishes.authenticated);
    note("52, 53, 54, 55, 73");
}

// Proves: smtp case 79.
#[test]
fn a_session_may_send_a_number_of_messages() {
    let few = || {
        let settings = Settings { max_messages: 3, ..settings() };
        let mut session = after(greeted(settings, Script::default()), &["EHLO a.b"]);
        for _ in 0..3 {
            session = after(session, &TO_DATA[1..]);
            session.send(b".\r\n");
        }
        session
    };
    let refused = "452 4.5.3 Too many recipients: Too many messages sent";
    run(&[("79", few, &[("MAIL FROM:<a@b>\r\n", refused), ("NOOP\r\n", "OK")])]);
}

#[test]
fn rcpt_commands() {
    let ruled = || {
        let script = Script { expand: rules, ..Script::default() };
        after(greeted(settings(), script), &["EHLO a.b", "MAIL FROM:<a@b>"])
    };
    run(&[
        ("81", tx, &[("RCPT TO:<c@d>\r\n", "ROK")]),
        ("82", greet, &[("RCPT TO:<c@d>\r\n", "SEQ")]),
        ("84", tx, &[("RCPT TO:<>\r\n", "RBAD"), ("RCPT TO:c@d\r\n", "RBAD")]),
        (
            "85, 86",
            tx,
            &[
                ("RCPT TO:<a@b>x\r\n", "503 Unsupported option x"),
                ("RCPT TO:<a@b> FOO=1\r\n", "503 Unsupported option FOO=1"),
            ],
        ),
        (
            "89, 90",
            tx,
            &[
                (
                    "RCPT TO:<a@b> NOTIFY=NEVER,DELAY\r\n",
                    "553 NOTIFY option NEVER cannot be combined with other options",
                ),
                ("RCPT TO:<a@b> NOTIFY=NEVER\r\n", "ROK"),
                ("RCPT TO:<a@b> NOTIFY=SUCCESS\r\n", "ROK"),
            ],
        ),
        (
            "91, 92",
            tx,
            &[
                ("RCPT TO:<a@b> ORCPT=rfc822;a+2Bb@c\r\n", "ROK"),
                ("RCPT TO:<a@b> ORCPT=rfc822;a+2bb@c\r\n", "553 ORCPT address syntax error"),
                ("RCPT TO:<a@b> ORCPT=foo\r\n", "553 ORCPT address syntax error"),
                ("RCPT TO:<a@b> ORCPT=rfc822;a=b\r\n", "553 ORCPT address syntax error"),
                ("RCPT TO:<a@b> ORCPT=;\r\n", "ROK"),
            ],
        ),
        (
            "93",
            || after(no_dsn(), &["MAIL FROM:<a@b>"]),
            &[("RCPT TO:<a@b> NOTIFY=NEVER\r\n", "503 Unsupported option NOTIFY=NEVER")],
        ),
        (
            "94-100",
            ruled,
            &[
                ("RCPT TO:<c@d>\r\n", "550 Invalid recipient: <c@d>"),
                ("RCPT TO:<err@example.org>\r\n", "550 5.2.1 go away: <err@example.org>"),
                (
                    "RCPT TO:<none@example.org>\r\n",
                    "524 5.2.4 Mailing list expansion problem: <none@example.org>",
                ),
                (
                    "RCPT TO:<empty@example.org>\r\n",
                    "524 5.2.4 Mailing list expansion problem: <empty@example.org>",
                ),
                (
                    "RCPT TO:<u@example.org>\r\n",
                    "424 4.2.4 Mailing list expansion problem: <u@example.org>",
                ),
                ("RCPT TO:<lost@example.org>\r\n", "451 Temporary failure: <lost@example.org>"),
                ("RCPT TO:<forged@example.org>\r\n", "451 Temporary failure: <forged@example.org>"),
                ("RCPT TO:<user>\r\n", "550 Invalid recipient: <user@mx.example.org>"),
                ("DATA\r\n", "NORCPT"),
                ("RCPT TO:<list@example.org>\r\n", "ROK"),
                ("DATA\r\n", "GO"),
            ],
        ),
    ]);
}

// Proves: smtp cases 83, 87, 88 and 90: what the envelopes get.
#[test]
fn each_recipient_has_its_own_wishes() {
    let mut session = after(
        tx(),
        &[
            "RCPT TO:<user> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@y",
            "RCPT TO:<a@b> NOTIFY=NEVER",
            "RCPT TO:<a@b>",
            "DATA",
        ],
    );
    session.send(b".\r\n");
    let commit = session.stored.pop().unwrap().commit;
    let wishes: Vec<_> = commit
        .recipients
        .iter()
        .map(|r| (r.address.as_str(), r.dsn.notify.0, r.dsn.orcpt.as_deref()))
        .collect();
    let expected =
        [("user@mx.example.org", 3, Some("rfc822;x@y")), ("a@b", 8, None), ("a@b", 0, None)];
    assert_eq!(wishes, expected);
    note("83, 87, 88, 90");
}

// Proves: smtp cases 101 and 102.
#[test]
fn a_message_has_a_number_of_recipients() {
    let full = || {
        let settings = Settings { max_recipients: 100, ..settings() };
        let mut session =
            after(greeted(settings, Script::default()), &["EHLO a.b", "MAIL FROM:<a@b>"]);
        let received = session.send("RCPT TO:<c@d>\r\n".repeat(100).as_bytes());
        assert_eq!(received, replies("ROK").repeat(100).into_bytes());
        session
    };
    let refused = "452 4.5.3 Too many recipients: Too many recipients";
    run(&[
        ("101", full, &[("RCPT TO:<c@d>\r\n", refused), ("DATA\r\n", "GO"), (".\r\n", "ACC 1")]),
        (
            "102",
            full,
            &[
                ("RCPT TO:<c@d>\r\n", refused),
                ("RSET\r\n", "RESET"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
                ("RCPT TO:<c@d>\r\n", "ROK"),
            ],
        ),
    ]);
}

// Proves: smtp cases 103 and 104.
#[test]
fn the_log_has_a_line_for_each_recipient_command() {
    let script = Script { expand: rules, ..Script::default() };
    let list = "RCPT TO:<list@example.org>";
    let mut session =
        after(greeted(settings(), script), &["EHLO a.b", "MAIL FROM:<>", list, list, "DATA"]);
    session.send(b".\r\n");
    let stored = session.stored.pop().unwrap();
    let envelopes: usize = stored.commit.recipients.iter().map(|r| r.envelopes.len()).sum();
    assert_eq!(envelopes, 4);
    let size = stored.body.len();
    let expected = [
        format!("0000000000000001 smtp message msgid=00000001 size={size} nrcpt=2 proto=ESMTP"),
        "0000000000000001 smtp envelope evpid=0000000100000002 from=<> to=<list@example.org>"
            .into(),
        "0000000000000001 smtp envelope evpid=0000000100000004 from=<> to=<list@example.org>"
            .into(),
    ];
    assert_eq!(session.log()[1..], expected);
    note("51, 103, 104");
}

// Proves: smtp cases 105 to 107.
#[test]
fn data_needs_a_recipient_and_no_argument() {
    run(&[
        ("105", greet, &[("DATA\r\n", "SEQ")]),
        ("105", tx, &[("DATA\r\n", "NORCPT")]),
        ("106", rcpt, &[("DATA x\r\n", "NOARG"), ("DATA \r\n", "NOARG")]),
        ("107", rcpt, &[("DATA\r\n", "GO")]),
    ]);
}

#[test]
fn what_the_queue_refuses_is_said() {
    let mail = |lease: Refusal| {
        let script = Script { lease: Err(lease), ..Script::default() };
        let mut session = after(greeted(settings(), script), &["EHLO a.b"]);
        (String::from_utf8(session.send(b"MAIL FROM:<a@b>\r\n")).unwrap(), session.closed)
    };
    let commit = |refusal: Refusal| {
        let script = Script { commit: Err(refusal), ..Script::default() };
        let mut session = after(greeted(settings(), script), &TO_DATA);
        let received = String::from_utf8(session.send(b".\r\n")).unwrap();
        assert!(session.stored.is_empty() && session.session.messages == 0);
        assert!(session.log()[1].contains("smtp failed-command command=\"DATA\" result=\"4"));
        (received, session.closed)
    };
    let full = "452 4.3.1 Insufficient system storage\r\n".to_owned();
    let timeout = "451 4.3.0 Temporary failure\r\n".to_owned();
    assert_eq!(mail(Refusal::Full), (full.clone(), false));
    assert_eq!(mail(Refusal::Timeout), (timeout.clone(), false));
    assert_eq!(mail(Refusal::Failure), ("421 4.3.0 Temporary Error\r\n".to_owned(), true));
    assert_eq!(commit(Refusal::Full), (full, false));
    assert_eq!(commit(Refusal::Timeout), (timeout, false));
    assert_eq!(commit(Refusal::Failure), ("421 4.3.0 Temporary failure\r\n".to_owned(), true));
}
