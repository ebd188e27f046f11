//! Lines of messages on their way through filters, filters that fail meanwhile, and chunks.

use super::*;

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
    let interests = Wants { events: false, phases: phases(Phase::RcptTo) };
    let script = FilterScript { interests: Some(interests), ..FilterScript::default() };
    let mut session = filtered(script);
    say(&mut session, "EHLO a.b\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    assert!(say(&mut session, "\r\n.\r\n").starts_with("250 "));
    say(&mut session, "QUIT\r\n");
    assert_eq!(told(&mut session), ["begin|<unknown>", "Q|rcpt-to|c@d"]);

    // Our own Received header counts, whether filters see it or not.
    for (headers, expected) in [(98, "250 "), (99, "500 5.4.6 ")] {
        for phases in [0, phases(Phase::DataLine)] {
            let interests = Some(Wants { events: false, phases });
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
    let interests = Some(Wants { events: true, phases: !lines });
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
