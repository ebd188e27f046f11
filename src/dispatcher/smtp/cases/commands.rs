//! Cases 1 to 48: greeting, simple commands, pipelining, long lines.

use std::sync::Arc;

use super::*;
use crate::dispatcher::smtp::Ending;

#[test]
fn greeting_and_simple_commands() {
    run(&[
        ("2, 7, 8", p, &[("EHLO a.b\r\n", "EHLO"), ("ehlo a.b\r\n", "EHLO")]),
        ("6, 9", p, &[("EHLO a.b\r\n", "EHLO"), ("HELO a.b\r\n", "HELO")]),
        (
            "10",
            p,
            &[
                ("EHLO a.b\r\n", "EHLO"),
                ("RSET\r\n", "RESET"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
                ("EHLO a.b\r\n", "EHLO"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
            ],
        ),
        ("11", p, &[("HELO\r\n", "501 5.5.1 Invalid command: HELO requires domain name")]),
        ("12", p, &[("EHLO\r\n", "501 5.5.1 Invalid command: EHLO requires domain name")]),
        (
            "13, 14",
            p,
            &[("EHLO \r\n", "DOM"), ("EHLO foo bar\r\n", "DOM"), ("EHLO a.b\r\n", "EHLO")],
        ),
        ("15", p, &[("EHLO foo.\r\n", "DOM"), ("EHLO é.com\r\n", "DOM"), ("RSET\r\n", "SEQ")]),
        ("18, 19", p, &[("NOOP\r\n", "OK"), ("NOOP xyz\r\n", "OK")]),
        ("20, 21", p, &[("HELP\r\n", "HELP"), ("HELP MAIL\r\n", "NOARG")]),
        ("22", p, &[("WIZ\r\n", "UNK"), ("WIZ x\r\n", "UNK")]),
        (
            "23",
            p,
            &[
                ("EXPN a\r\n", "UNK"),
                ("ETRN a\r\n", "UNK"),
                ("XCLIENT ADDR=1.2.3.4\r\n", "UNK"),
                ("LHLO x\r\n", "UNK"),
                (".\r\n", "UNK"),
                ("\r\n", "UNK"),
                ("VRFY a\r\n", "VRFY"),
            ],
        ),
        ("24", p, &[("QUIT\r\n", "BYE!")]),
        ("25", p, &[("QUIT \r\n", "NOARG"), ("NOOP\r\n", "OK")]),
        ("26", p, &[("RSET\r\n", "SEQ")]),
        ("27, 28", greet, &[("RSET\r\n", "RESET"), ("RSET x\r\n", "NOARG")]),
        (
            "29",
            p,
            &[
                ("MAIL FROM:<a@b>\r\n", "SEQ"),
                ("RCPT TO:<c@d>\r\n", "SEQ"),
                ("DATA\r\n", "SEQ"),
                ("STARTTLS\r\n", "SEQ"),
                ("AUTH PLAIN x\r\n", "SEQ"),
            ],
        ),
        (
            "STARTTLS and AUTH not offered",
            greet,
            &[
                ("STARTTLS\r\n", "503 5.5.1 Invalid command: Command not supported"),
                ("AUTH PLAIN x\r\n", "503 5.5.1 Invalid command: Command not supported"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
                ("STARTTLS\r\n", "SEQ"),
                ("AUTH PLAIN x\r\n", "SEQ"),
            ],
        ),
        ("32", p, &[("EHLO a.b\n", "EHLO")]),
    ]);
}

#[test]
fn the_banner_names_the_server() {
    let banner = |settings: Settings, peer: Peer| {
        let mut session = Rehearsal::new(settings, peer, Script::default());
        String::from_utf8(session.send(b"")).unwrap()
    };
    let client = || Peer::remote([10, 9, 8, 7].into());
    assert_eq!(banner(settings(), client()), "220 mx.example.org ESMTP Pillarbox\r\n", "case 1");
    let named = Settings { hostname: Arc::from("foo.test"), ..settings() };
    assert_eq!(banner(named, client()), "220 foo.test ESMTP Pillarbox\r\n", "case 34");
    let by_table = Peer { server_name: Some(Arc::from("n.test")), ..client() };
    assert_eq!(banner(settings(), by_table), "220 n.test ESMTP Pillarbox\r\n", "case 35");
    note("1, 34");
}

// Proves: smtp case 33.
#[test]
fn an_early_command_is_answered_after_the_banner() {
    let peer = Peer::remote([10, 9, 8, 7].into());
    let mut session = Rehearsal::new(settings(), peer, Script::default());
    let received = String::from_utf8(session.send(b"HELO early\r\n")).unwrap();
    assert_eq!(
        received,
        "220 mx.example.org ESMTP Pillarbox\r\n\
         250 mx.example.org Hello early [10.9.8.7], pleased to meet you\r\n"
    );
    note("33");
}

// Proves: smtp cases 4 and 5.
#[test]
fn the_extensions_follow_the_settings() {
    let extensions = |settings: Settings| {
        let mut session = greeted(settings, Script::default());
        String::from_utf8(session.send(b"EHLO a.b\r\n")).unwrap()
    };
    assert!(!extensions(Settings { dsn: false, ..settings() }).contains("DSN"));
    assert!(!extensions(Settings { pipelining: false, ..settings() }).contains("PIPELINING"));
    let small = Settings { max_message_size: 20_000, ..settings() };
    assert!(extensions(small).contains("\r\n250-SIZE 20000\r\n"));
    note("4, 5");
}

// Proves: smtp cases 15 to 17 (with the cases of `proto::address`).
#[test]
fn greetings_name_a_domain_or_an_address() {
    let long = "a".repeat(255);
    for name in ["foo.", "-foo", "a..b", ".a", "[foo]", "é.com", long.as_str()] {
        run(&[("15", p, &[(&format!("EHLO {name}\r\n"), "DOM")])]);
    }
    for name in [
        "[1.2.3.4]",
        "[::1]",
        "[IPv6:::1]",
        "[ipv6:::1]",
        "[IPv6:1.2.3.4]",
        "1.2.3.4",
        "foo_bar.x",
        "foo-",
        "localhost",
    ] {
        after(p(), &[&format!("EHLO {name}")]);
    }
    note("16, 17");
}

// Proves: smtp case 30.
#[test]
fn bad_commands_are_answered_without_end() {
    let mut session = p();
    let received = session.send("FOO\r\n".repeat(200).as_bytes());
    assert_eq!(String::from_utf8(received).unwrap(), replies("UNK").repeat(200));
    assert!(!session.closed);
    note("30");
}

// Proves: smtp case 31, and 137 with its place in the data.
#[test]
fn a_silent_client_is_closed_without_a_reply() {
    for start in [p, greet, tx, rcpt, data] {
        let mut session = start();
        session.end(Ending::Timeout);
        assert!(session.closed && session.stored.is_empty());
        assert_eq!(session.send(b"NOOP\r\n"), b"");
        let log = session.log();
        assert_eq!(log.last().unwrap(), "0000000000000001 smtp disconnected reason=timeout");
        assert!(log[0].ends_with("smtp connected address=10.9.8.7 host=<unknown>"), "{log:?}");
    }
    note("31, 137");
}

#[test]
fn without_pipelining_nothing_may_follow_a_command() {
    let to_rcpt = || after(strict(), &TO_DATA[..3]);
    let to_data = || after(strict(), &TO_DATA);
    run(&[
        ("37", strict, &[("EHLO x\r\nNOOP\r\n", "PIPE!")]),
        ("39", to_rcpt, &[("DATA\r\nSubject: x\r\n", "PIPE!")]),
        ("40", to_data, &[("Subject: x\r\n\r\n.\r\nQUIT\r\n", "PIPE!")]),
        ("41", strict, &[("NOOP\r\nNO", "PIPE!")]),
        ("42", strict, &[("NOOP\r\n", "OK"), ("NOOP\r\n", "OK")]),
    ]);
    let mut session = after(strict(), &["EHLO a.b"]);
    session.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    assert!(session.closed && session.stored.is_empty(), "case 38");
    assert!(
        session.log().contains(
            &"0000000000000001 smtp bad-input result=\"500 5.5.1 Invalid command: Pipelining not \
          supported\""
                .to_owned()
        )
    );
    note("38");
}

#[test]
fn pipelined_commands_run_in_order() {
    run(&[
        ("37", p, &[("EHLO a.b\r\nNOOP\r\n", "EHLO | OK")]),
        ("38", greet, &[("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<>\r\n", "OK | ROK | RBAD")]),
        (
            "39, 40",
            rcpt,
            &[("DATA\r\nSubject: x\r\n\r\n.\r\nNOOP\r\nQUIT\r\n", "GO | ACC 1 | OK | BYE!")],
        ),
        ("41", p, &[("NOOP\r\nNO", "OK"), ("OP\r\n", "OK")]),
        ("after QUIT", p, &[("QUIT\r\nNOOP\r\n", "BYE!")]),
    ]);
}

#[test]
fn lines_have_a_limit() {
    let line = |length: usize| format!("{}\r\n", "x".repeat(length));
    let too_long = "500 5.0.0 Command line too long!";
    run(&[
        ("43", p, &[(&line(2047), "UNK"), (&"x".repeat(2047), "CLOSED"), ("\n", "UNK")]),
        ("44", p, &[(&line(2048), too_long)]),
        ("44, in pieces", p, &[(&"x".repeat(2050), "CLOSED"), ("x\n", too_long)]),
        ("45", p, &[(&"x".repeat(70_000), "ELINE!")]),
        ("45, below", p, &[(&line(65_533), too_long)]),
        ("45, exactly", p, &[(&line(65_534), "ELINE!")]),
        ("46", data, &[(&format!("x:{}\r\n.\r\n", "x".repeat(65_531)), "ACC 1")]),
        ("47", data, &[(&format!("x:{}\r\n.\r\n", "x".repeat(65_532)), "ELINE!")]),
        (
            "48",
            data,
            &[(&format!("x:{}\n.\r\n", "x".repeat(65_532)), "CLOSED"), ("\r\n.\r\n", "ACC 1")],
        ),
        ("47, body", data, &[(&format!("\r\n{}\r\n.\r\n", "x".repeat(65_534)), "ELINE!")]),
    ]);
    let mut session = data();
    session.send(format!("\r\n{}\r\n", "x".repeat(100_000)).as_bytes());
    assert!(session.closed && session.stored.is_empty(), "case 47: the message is lost");
}

// Proves: defect D7 of the specification is not ours.
#[test]
fn credentials_never_reach_the_log() {
    let mut session = p();
    for line in
        ["AUTH PLAIN s3cret", "auth  plain s3cret", " AUTH\tLOGIN s3cret", "AUTH PLAIN s3c\0"]
    {
        session.send(format!("{line}\r\n").as_bytes());
    }
    session.end(Ending::Disconnect);
    let log = session.log();
    assert!(log[1].contains("command=\"AUTH PLAIN (...)\""), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("s3c")), "{log:?}");
}
