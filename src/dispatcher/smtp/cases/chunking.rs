//! BDAT: case 23, and RFC 3030 beyond it.

use super::*;
use crate::dispatcher::smtp::{Ending, Refusal};
use crate::model::limits;
use crate::spec_case::ran;

/// Set-up P with a limit of 20 bytes, after RCPT.
fn small() -> Rehearsal {
    let settings = Settings { max_message_size: 20, ..settings() };
    after(greeted(settings, Script::default()), &TO_DATA[..3])
}

/// Set-up P on a listener with `no-chunking`, after RCPT.
fn no_chunking() -> Rehearsal {
    after(greeted(Settings { chunking: false, ..settings() }, Script::default()), &TO_DATA[..3])
}

fn no_pipelining() -> Rehearsal {
    after(strict(), &TO_DATA[..3])
}

#[test]
fn chunks_are_answered_one_by_one() {
    run(&[
        (
            "a message",
            rcpt,
            &[
                ("BDAT 12\r\nSubject: x\r\n", "250 2.0.0 12 octets received"),
                ("BDAT 0\r\n", "250 2.0.0 0 octets received"),
                ("bdat 6 last\r\n\r\nbody", "ACC 1"),
                ("NOOP\r\n", "OK"),
            ],
        ),
        (
            "all at once, and the next command",
            rcpt,
            &[(
                "BDAT 6\r\nS: x\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n",
                "250 2.0.0 6 octets received | ACC 1 | OK",
            )],
        ),
        (
            "pipelined from the start",
            greet,
            &[(
                "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6 LAST\r\nS: x\r\nQUIT\r\n",
                "OK | ROK | ACC 1 | BYE!",
            )],
        ),
        ("nothing at all", rcpt, &[("BDAT 0 LAST\r\n", "ACC 1")]),
        (
            "two messages",
            rcpt,
            &[
                ("BDAT 0 LAST\r\n", "ACC 1"),
                ("MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\n", "OK | ROK | ACC 2"),
            ],
        ),
        (
            "without pipelining a chunk may follow its command",
            no_pipelining,
            &[
                ("BDAT 6\r\nS: x\r\n", "250 2.0.0 6 octets received"),
                ("BDAT 2\r\n\r\nNOOP\r\n", "PIPE!"),
            ],
        ),
    ]);
}

#[test]
fn chunks_out_of_order_are_read_and_refused() {
    run(&[
        ("23", p, &[("BDAT 1 LAST\r\n", ""), ("x", "SEQ"), ("NOOP\r\n", "OK")]),
        (
            "no recipients, and the chunk is no command",
            tx,
            &[("BDAT 6\r\nQUIT\r\nNOOP\r\n", "SEQ | OK"), ("RCPT TO:<c@d>\r\n", "ROK")],
        ),
        (
            "behind the last",
            rcpt,
            &[("BDAT 0 LAST\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n", "ACC 1 | SEQ | OK")],
        ),
        (
            "mixed with DATA",
            rcpt,
            &[
                ("BDAT 0\r\n", "250 2.0.0 0 octets received"),
                ("DATA\r\nRCPT TO:<e@f>\r\nMAIL FROM:<a@b>\r\n", "SEQ | SEQ | SEQ"),
                ("RSET\r\nMAIL FROM:<a@b>\r\nDATA\r\n", "RESET | OK | NORCPT"),
            ],
        ),
        (
            "a greeting drops them",
            rcpt,
            &[
                ("BDAT 6\r\nno hdr", "250 2.0.0 6 octets received"),
                ("EHLO a.b\r\n", "EHLO"),
                ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "OK | ROK | GO"),
            ],
        ),
        (
            "no-chunking",
            no_chunking,
            &[
                ("BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1 Invalid command: Command not supported"),
                ("DATA\r\n", "GO"),
            ],
        ),
    ]);
    ran("smtp", 23);
}

#[test]
fn a_chunk_without_a_size_ends_the_session() {
    for argument in ["", " ", " x", " 1 FIRST", " -1", " 99999999999999999999", " LAST"] {
        for start in [p, rcpt, no_chunking] {
            let sent = format!("BDAT{argument}\r\nMAIL FROM:<evil@x>\r\n");
            let bad = "501 5.5.4 Invalid command arguments: Invalid size of a chunk!";
            run(&[(argument, start, &[(sent.as_str(), bad)])]);
        }
    }
}

#[test]
fn after_a_failure_the_rest_is_dropped_and_answered_alike() {
    let big = "554 5.3.4 Message too big for system: Transaction failed, message too big";
    let loops = "500 5.4.6 Routing loop detected: Loop detected";
    let received = format!("BDAT 1300\r\n{}", "Received: x\r\n".repeat(100));
    run(&[
        (
            "no header",
            rcpt,
            &[
                ("BDAT 7\r\nhello\r\n", "HDR"),
                ("BDAT 6\r\nQUIT\r\nBDAT 0\r\n", "HDR | HDR"),
                ("BDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b>\r\n", "HDR | OK"),
            ],
        ),
        (
            "no header, known at the end alone",
            rcpt,
            &[
                ("BDAT 5\r\nhello", "250 2.0.0 5 octets received"),
                ("BDAT 0 LAST\r\nMAIL FROM:<a@b>\r\n", "HDR | OK"),
            ],
        ),
        (
            "too big",
            small,
            &[
                ("BDAT 22\r\n\r\nxxxxxxxxxxxxxxxxxx\r\n", "250 2.0.0 22 octets received"),
                ("BDAT 2\r\n\r\nBDAT 6\r\nQUIT\r\nRSET\r\n", &format!("{big} | {big} | RESET")),
                ("MAIL FROM:<a@b>\r\n", "OK"),
            ],
        ),
        (
            "a loop",
            rcpt,
            &[
                (received.as_str(), loops),
                ("BDAT 0 LAST\r\nMAIL FROM:<a@b>\r\n", &format!("{loops} | OK")),
            ],
        ),
    ]);
    let mut session = after(rcpt(), &[]);
    session.send(received.as_bytes());
    session.send(b"BDAT 0\r\nBDAT 0 LAST\r\n");
    let log = session.log();
    assert_eq!(log.iter().filter(|line| *line == "warn: loop detected").count(), 1, "{log:?}");
    let refused =
        format!("0000000000000001 smtp failed-command command=\"BDAT\" result=\"{loops}\"");
    assert_eq!(log.iter().filter(|line| **line == refused).count(), 3, "{log:?}");
}

#[test]
fn what_is_in_chunks_is_stored_as_from_data() {
    let cases = [
        ("S: x\r\n\r\n.\r\n..dot\r\n.a\r\n", "S: x\n\n.\n..dot\n.a\n"),
        ("S: x\r\n\r\nb\n.\n.\r\nMAIL FROM:<evil@x>\r\n", "S: x\n\nb\n.\n.\nMAIL FROM:<evil@x>\n"),
        ("S: x\r\n\r\nb\r.\r\r\nlast", "S: x\n\nb . \nlast\n"),
        ("To: a, b\r\nBcc: c\r\n d\r\n\r\n", "To: a@mx.example.org, b@mx.example.org\n\n"),
        ("S: x", "S: x\n"),
    ];
    for (sent, expected) in cases {
        let whole = format!("BDAT {} LAST\r\n{sent}", sent.len());
        assert_eq!(stored(rcpt(), &whole), expected, "{sent:?}");
        // In chunks of each size, also between CR and LF, and in single bytes.
        for size in 1..sent.len() {
            let mut dialogue = String::new();
            for chunk in sent.as_bytes().chunks(size) {
                let chunk = std::str::from_utf8(chunk).unwrap();
                dialogue.push_str(&format!("BDAT {}\r\n{chunk}", chunk.len()));
            }
            dialogue.push_str("BDAT 0 LAST\r\n");
            let mut session = rcpt();
            for byte in dialogue.bytes() {
                session.send(&[byte]);
            }
            let body = String::from_utf8(session.stored.pop().unwrap().body).unwrap();
            assert!(body.ends_with(&format!("(UTC)\n{expected}")), "{sent:?} by {size}: {body}");
        }
    }
}

#[test]
fn large_chunks_are_streamed_and_a_full_spool_refuses_them() {
    let line = format!("{}\r\n", "x".repeat(998));
    let chunk = format!("BDAT 200000\r\n{}", line.repeat(200));
    let mut session = rcpt();
    assert_eq!(session.send(b"BDAT 2\r\n\r\n"), b"250 2.0.0 2 octets received\r\n");
    for _ in 0..3 {
        for piece in chunk.as_bytes().chunks(16 * 1024) {
            session.send(piece);
        }
    }
    assert_eq!(session.send(b"BDAT 0 LAST\r\n"), replies("ACC 1").into_bytes());
    assert!(session.largest_piece < limits::BODY_IN_MEMORY + 32 * 1024);
    assert_eq!(session.stored[0].commit.size(), session.stored[0].body.len() as u64);
    assert!(session.stored[0].body.len() > 3 * 200 * 999);

    let script = || Script { store: Err(Refusal::Full), ..Script::default() };
    let mut full = after(greeted(settings(), script()), &TO_DATA[..3]);
    full.send(b"BDAT 2\r\n\r\n");
    let refused = replies("452 4.3.1 Insufficient system storage");
    assert_eq!(String::from_utf8(full.send(chunk.as_bytes())).unwrap(), refused);
    assert_eq!(String::from_utf8(full.send(b"BDAT 6 LAST\r\nQUIT\r\n")).unwrap(), refused);
    assert_eq!(full.send(b"NOOP\r\n"), replies("OK").into_bytes());
    assert!(full.stored.is_empty());
}

#[test]
fn a_chunk_that_is_cut_off_leaves_nothing() {
    for left in ["BDAT 10 LAST\r\nS: x\r\n", "BDAT 6\r\nS: x\r\n", "BDAT 6 LAST\r\n"] {
        for ending in [Ending::Disconnect, Ending::Timeout] {
            let mut session = rcpt();
            session.send(left.as_bytes());
            session.end(ending);
            assert!(session.closed && session.stored.is_empty(), "{left:?}");
        }
    }
}

// Each option of a listener takes away its line, and nothing else; limits above six digits cannot
// be told (RFC 9422, section 4).
#[test]
fn extensions_are_told_where_they_are_offered() {
    let hello = |settings: Settings| {
        let mut session = greeted(settings, Script::default());
        let text = String::from_utf8(session.send(b"EHLO a.b\r\n")).unwrap();
        text.replace("\r\n", "\n").replace("250-", "").replace("250 ", "")
    };
    let all = hello(settings());
    let cases = [
        (Settings { chunking: false, ..settings() }, "CHUNKING\n"),
        (Settings { smtputf8: false, ..settings() }, "SMTPUTF8\n"),
        (Settings { limits: false, ..settings() }, "LIMITS MAILMAX=100 RCPTMAX=1000\n"),
    ];
    for (settings, line) in cases {
        assert!(all.contains(line), "{line}");
        assert_eq!(hello(settings), all.replace(line, ""), "{line}");
    }
    let few = Settings { max_messages: 3, max_recipients: usize::MAX, ..settings() };
    assert!(hello(few).contains("\nLIMITS MAILMAX=3\n"));
}
