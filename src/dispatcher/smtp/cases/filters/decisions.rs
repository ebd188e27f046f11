//! What decisions of filters lead to, from the connection to the end of a message.

use super::*;

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
