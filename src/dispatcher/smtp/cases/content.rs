//! Cases 108 to 141 and 217, 219: what is stored of a message.

use std::sync::Arc;

use super::*;
use crate::dispatcher::smtp::{Ending, Refusal};
use crate::model::limits::BODY_IN_MEMORY;

// Proves: smtp cases 108, 128 to 130, 138, 35 and 217: the whole trace header.
#[test]
fn the_trace_header_tells_the_way() {
    let body = |settings: Settings, peer: Peer, commands: &[&str]| {
        let mut session = after(connected(settings, Script::default(), peer), commands);
        session.send(b"Subject: x\r\n\r\nb\r\n.\r\n");
        String::from_utf8(session.stored.pop().unwrap().body).unwrap()
    };
    let client = || Peer::remote([10, 9, 8, 7].into());
    let end = "\tThu, 1 Jan 1970 00:00:00 +0000 (UTC)\nSubject: x\n\nb\n";
    let from = "Received: from a.b (<unknown> [10.9.8.7])\n";
    assert_eq!(
        body(settings(), client(), &TO_DATA),
        format!(
            "{from}\tby mx.example.org (Pillarbox) with ESMTP id 00000001\n\tfor <c@d>;\n{end}"
        ),
        "case 108"
    );
    let two = ["EHLO a.b", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<c@d>", "DATA"];
    assert_eq!(
        body(settings(), client(), &two),
        format!("{from}\tby mx.example.org (Pillarbox) with ESMTP id 00000001;\n{end}"),
        "case 128"
    );
    let plain = ["HELO a.b", "MAIL FROM:<>", "RCPT TO:<user>", "DATA"];
    assert_eq!(
        body(settings(), client(), &plain),
        format!(
            "{from}\tby mx.example.org (Pillarbox) with SMTP id 00000001\n\
             \tfor <user@mx.example.org>;\n{end}"
        ),
        "cases 129, 130"
    );
    let masked = Settings { masks_source: true, ..settings() };
    assert!(
        body(masked, client(), &TO_DATA).starts_with("Received: \n\tby mx.example.org (Pillarbox)"),
        "case 138"
    );
    let named = Peer { hostname: Some("c.test".into()), ..client() };
    assert!(
        body(settings(), named, &TO_DATA).starts_with("Received: from a.b (c.test [10.9.8.7])\n"),
    );
    let forged = Peer { hostname: Some("c)\nX: y".into()), ..client() };
    assert!(body(settings(), forged, &TO_DATA).starts_with(from), "a name that is none");
    let by_table = Peer { server_name: Some(Arc::from("n.test")), ..client() };
    let stored = body(Settings { completes_headers: true, ..settings() }, by_table, &TO_DATA);
    assert!(stored.contains("\tby n.test (Pillarbox)"), "case 35: {stored}");
    assert!(stored.contains("\nMessage-ID: <0000000000000abc@mx.example.org>\n"), "case 35");
    let local = ["EHLO localhost", "MAIL FROM:<a@b> ", "RCPT TO:<c@d> ", "DATA"];
    assert!(
        body(settings(), Peer::local(SERVER), &local).starts_with(
            "Received: from localhost (mx.example.org [local])\n\
             \tby mx.example.org (Pillarbox) with ESMTPA id 00000001\n"
        ),
        "case 217"
    );
    note("35, 108, 128, 129, 130, 138");
}

// Proves: smtp cases 217 and 219.
#[test]
fn the_control_socket_is_local_and_authenticated() {
    let settings = Settings { tag: Arc::from("LOC"), dsn: false, masks_source: true, ..settings() };
    let mut session = connected(settings, Script::default(), Peer::local(SERVER));
    let greeting = String::from_utf8(session.send(b"EHLO localhost\r\n")).unwrap();
    assert!(greeting.contains("Hello localhost [local], pleased") && !greeting.contains("DSN"));
    let refused = session.send(b"AUTH PLAIN x\r\n");
    assert_eq!(refused, b"503 5.5.1 Invalid command: Already authenticated\r\n");
    let mut session = after(session, &TO_DATA[1..]);
    session.send(b".\r\n");
    let origin = session.stored.pop().unwrap().commit.origin;
    assert_eq!((origin.tag.as_str(), origin.authenticated), ("LOC", true));
    assert_eq!((origin.source.to_string().as_str(), origin.hostname.as_str()), ("local", SERVER));
    assert!(session.log()[0].ends_with("smtp connected address=local host=mx.example.org"));
    note("217, 219");
}

#[test]
fn header_blocks_are_checked() {
    let name = |length: usize| format!("{}: x\r\n\r\n.\r\n", "n".repeat(length));
    let two_names = format!("{0}: x\r\n{1}: x\r\n.\r\n", "n".repeat(600), "m".repeat(600));
    let received = |count: usize| "Received: x\r\n".repeat(count) + "\r\nbody\r\n.\r\n";
    let to =
        |length: usize| format!("To:{}\r\n\r\n.\r\n", ("x".repeat(996) + ",\r\n\t").repeat(length));
    run(&[
        ("109", data, &[(".\r\n", "ACC 1")]),
        ("110", data, &[("\r\nbody\r\n.\r\n", "ACC 1")]),
        (
            "111",
            data,
            &[("hello\r\n.\r\n", "HDR"), ("NOOP\r\n", "OK"), ("RCPT TO:<c@d>\r\n", "SEQ")],
        ),
        ("112", data, &[("Subject: x\r\nhello\r\n\r\n.\r\n", "HDR")]),
        ("113", data, &[(" folded: x\r\n\r\n.\r\n", "HDR")]),
        ("115", data, &[(":x\r\nA B: x\r\n.\r\n", "ACC 1")]),
        ("131", data, &[(&received(99), "ACC 1")]),
        ("131, loop", data, &[(&received(100), "500 5.4.6 Routing loop detected: Loop detected")]),
        ("133", data, &[(&name(1022), "ACC 1")]),
        ("133, above", data, &[(&name(1023), "HDR")]),
        ("134", data, &[(&two_names, "ACC 1")]),
        ("address header of 65,000 bytes", data, &[(&to(65), "ACC 1")]),
        ("address header of 66,000 bytes", data, &[(&to(66), "HDR")]),
        (
            "139",
            data,
            &[
                (".\r\n", "ACC 1"),
                ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "OK | ROK | GO"),
                (".\r\n", "ACC 2"),
            ],
        ),
    ]);
    let mut looping = data();
    looping.send(received(100).as_bytes());
    assert_eq!(looping.log()[1], "warn: loop detected", "case 131");
}

#[test]
fn content_is_stored_with_the_edits_of_its_headers() {
    let from = "From a@b Mon Jan 1 00:00:00 2024\r\nSubject: x\r\n\r\n";
    let cases = [
        ("109", ".\r\n", ""),
        ("110", "\r\nbody\r\n.\r\n", "\nbody\n"),
        ("114", &format!("{from}.\r\n"), &from.replace("\r\n", "\n")),
        ("115", ":x\r\nA B: x\r\n.\r\n", ":x\nA B: x\n"),
        ("116", "\r\n..dot\r\n.a\r\n.\r\n", "\n.dot\na\n"),
        ("116, in a header", "..x: y\r\n.z: y\r\n\r\n.\r\n", ".x: y\nz: y\n\n"),
        ("117", "Bcc: x@y\r\n z@w\r\nSubject: q\r\n\r\n.\r\n", "Subject: q\n\n"),
        ("117, last", "Subject: q\r\nbcc: x@y\r\n z@w\r\n.\r\n", "Subject: q\n"),
        ("118", "To: root\r\n.\r\n", "To: root@mx.example.org\n"),
        (
            "118, then body",
            "To: root\r\n\r\nTo: root\r\n.\r\n",
            "To: root@mx.example.org\n\nTo: root\n",
        ),
        (
            "119",
            "To: root, bob@x, \"A, B\" <al>, (c) <>, <x >\r\n.\r\n",
            "To: root@mx.example.org, bob@x, \"A, B\" <al@mx.example.org>, (c) <>, \
             <x@mx.example.org >\n",
        ),
        (
            "120",
            "From: Foo Bar\r\nFrom: foo (comment)\r\n.\r\n",
            "From: Foo Bar@mx.example.org\nFrom: foo@mx.example.org (comment)\n",
        ),
        (
            "121",
            "to: x (a@b)\r\nTo: \"a@b\" <joe>\r\n.\r\n",
            "to: x@mx.example.org (a@b)\nTo: \"a@b\" <joe@mx.example.org>\n",
        ),
        (
            "122",
            "Cc: undisclosed-recipients:;\r\nTo: \"unbalanced\r\nTo: <a\r\nTo:\r\nTo: a\\@b\r\n\
             Reply-To: joe\r\n.\r\n",
            "Cc: undisclosed-recipients:;\nTo: \"unbalanced\nTo: <a\nTo:\nTo: a\\@b\nReply-To: joe\n",
        ),
        (
            "123",
            "To: a,\r\n b,\r\n\tc@d\r\n.\r\n",
            "To: a@mx.example.org,\n b@mx.example.org,\n\tc@d\n",
        ),
        ("124", "To: ,a,,\r\n.\r\n", "To: ,a@mx.example.org,,\n"),
        ("126", "Subject: x\r\n\r\n.\r\n", "Subject: x\n\n"),
    ];
    for (number, sent, expected) in cases {
        assert_eq!(stored(data(), sent), expected, "smtp case {number}");
        note(number);
    }
}

// Proves: smtp cases 125 and 127.
#[test]
fn local_listeners_add_date_and_message_id() {
    let added = "Date: Thu, 1 Jan 1970 00:00:00 +0000 (UTC)\n\
                 Message-ID: <0000000000000abc@mx.example.org>\n";
    let (date, id) = added.split_at(added.find("Message").unwrap());
    let cases = [
        ("X: y\r\n\r\nb\r\n.\r\n", format!("X: y\n{added}\nb\n")),
        ("X: y\r\n.\r\n", format!("X: y\n{added}")),
        (".\r\n", added.to_owned()),
        ("\r\n.\r\n", format!("{added}\n")),
        ("To: a\r\n\r\n.\r\n", format!("To: a@mx.example.org\n{added}\n")),
        ("Date: x\r\nmessage-id: y\r\n\r\n.\r\n", "Date: x\nmessage-id: y\n\n".to_owned()),
        ("Date: x\r\n\r\n.\r\n", format!("Date: x\n{id}\n")),
        ("Message-Id: x\r\n\r\nDate: y\r\n.\r\n", format!("Message-Id: x\n{date}\nDate: y\n")),
    ];
    for (sent, expected) in cases {
        assert_eq!(stored(after(loopback(), &TO_DATA), sent), expected, "{sent:?}");
        assert_eq!(stored(after(socket(), &TO_DATA), sent), expected, "{sent:?}");
    }
    note("125, 127");
}

// Proves: smtp case 132. The lines count as received, with one byte for the line end.
#[test]
fn a_message_has_a_largest_size() {
    let message = |size: usize| {
        let head = "Subject: x\r\n\r\n..\r\n";
        let counted = head.len() - 3;
        format!("{head}{}\r\n.\r\n", "x".repeat(size - counted - 1))
    };
    let small = || {
        let settings = Settings { max_message_size: 20_000, ..settings() };
        after(greeted(settings, Script::default()), &TO_DATA)
    };
    let refused = "554 5.3.4 Message too big for system: Transaction failed, message too big";
    run(&[
        ("132", small, &[(&message(20_000), "ACC 1")]),
        ("132, above", small, &[(&message(20_001), refused), ("NOOP\r\n", "OK")]),
    ]);
    let mut session = small();
    session.send("\r\n".as_bytes());
    for _ in 0..1000 {
        assert_eq!(session.send("x\r\n".repeat(1000).as_bytes()), b"");
    }
    assert_eq!(session.largest_piece, 0, "nothing is kept of what is too big");
    assert_eq!(session.send(b".\r\n"), replies(refused).into_bytes());
}

// Proves: smtp cases 135 and 136.
#[test]
fn eight_bit_text_is_kept_and_a_cut_message_is_not() {
    let bytes: Vec<u8> = (0x80..=0xff).collect();
    let mut session = data();
    session.send(b"X: y\r\n\r\n");
    session.send(&bytes);
    session.send(b"\r\n.\r\n");
    let body = session.stored.pop().unwrap().body;
    assert!(body.ends_with(&[b"\n\n", bytes.as_slice(), b"\n"].concat()), "case 135");

    let mut session = data();
    session.send(b"Subject: x\r\n\r\nbody\r\n");
    session.end(Ending::Disconnect);
    assert!(session.closed && session.stored.is_empty(), "case 136");
    assert!(session.log().last().unwrap().ends_with("disconnected reason=disconnect"));
    note("135, 136");
}

#[test]
fn large_bodies_leave_memory_in_pieces() {
    let line = "x".repeat(98) + "\r\n";
    let text = line.repeat(10_000);
    let mut session = data();
    session.send(b"Subject: x\r\n\r\n");
    for chunk in text.as_bytes().chunks(8192) {
        session.send(chunk);
    }
    session.send(b".\r\n");
    let stored = session.stored.pop().unwrap();
    assert!(stored.commit.spilled > 900_000, "{}", stored.commit.spilled);
    assert!(session.largest_piece <= BODY_IN_MEMORY + 8192);
    assert!(stored.body.ends_with(text.replace("\r\n", "\n").as_bytes()));
    assert_eq!(stored.body.len() as u64, stored.commit.size());
    assert_eq!(session.discarded, 0);
}

#[test]
fn lines_that_cannot_be_kept_lose_the_message_and_nothing_else() {
    let in_chunk = || {
        let mut session = rcpt();
        session.send(b"BDAT 10010 LAST\r\n");
        session
    };
    let refused = replies("452 4.3.1 Insufficient system storage");
    for (start, end) in [(data as fn() -> Rehearsal, "\r\n.\r\n"), (in_chunk, "\r\n\r\n\r\n")] {
        for lines in ["X: y\r\nTo: ", "To: a,\r\n ", "To: a\r\nX: "] {
            let mut session = start();
            let sent = lines.to_owned() + &"x".repeat(10_004 - lines.len());
            assert_eq!(session.send(sent.as_bytes()), b"");
            assert!(session.session.lines_in_memory() > 9_000, "{lines:?}");
            session.session.body_failed(Refusal::Full);
            assert_eq!(session.session.lines_in_memory(), 0, "{lines:?}");
            assert_eq!(String::from_utf8(session.send(end.as_bytes())).unwrap(), refused);
            assert_eq!(session.send(b"NOOP\r\n"), replies("OK").into_bytes());
            assert!(session.stored.is_empty() && session.session.body_in_memory() == 0);
        }
    }
}

#[test]
fn pieces_of_a_lost_message_are_discarded_once() {
    let part = "x".repeat(98) + "\r\n";
    let large = "Subject: x\r\n\r\n".to_owned() + &part.repeat(500);
    // The connection ends.
    let mut session = data();
    session.send(large.as_bytes());
    session.end(Ending::Timeout);
    assert_eq!((session.discarded, session.stored.len()), (1, 0));
    // The message becomes too big.
    let settings = Settings { max_message_size: 60_000, ..settings() };
    let mut session = after(greeted(settings, Script::default()), &TO_DATA);
    session.send(large.as_bytes());
    session.send(part.repeat(500).as_bytes());
    assert!(session.send(b".\r\n").starts_with(b"554 5.3.4 "));
    assert_eq!((session.discarded, session.stored.len()), (1, 0));
    // The store refuses.
    for (refusal, reply) in
        [(Refusal::Full, "452 4.3.1 "), (Refusal::Failure, "421 4.3.0 Temporary Error")]
    {
        let script = Script { store: Err(refusal), ..Script::default() };
        let mut session = after(greeted(super::settings(), script), &TO_DATA);
        session.send(large.as_bytes());
        session.send(large.as_bytes());
        assert!(session.send(b".\r\n").starts_with(reply.as_bytes()), "{refusal:?}");
        assert_eq!((session.discarded, session.stored.len(), session.closed), (1, 0, false));
        assert_eq!(session.send(b"NOOP\r\n"), replies("OK").into_bytes());
    }
}
