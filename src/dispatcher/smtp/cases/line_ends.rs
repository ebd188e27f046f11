//! Cases 142 to 154: line ends, smuggling, NUL.

use super::*;

// Proves: smtp cases 142 to 151: where a message ends, and what is stored.
#[test]
fn only_one_form_ends_a_message() {
    let cases = [
        ("142", "S: x\r\n\r\nbody\r\n.\r\n", "S: x\n\nbody\n"),
        ("143", "\r\nbody\n.\n\r\n.\r\n", "\nbody\n\n\n"),
        ("143, at once", "\r\nbody\n.\n.\r\n\r\n.\r\n", "\nbody\n\n\n\n"),
        ("144", "\r\nbody\n.\r\ntail\r\n.\r\n", "\nbody\n\ntail\n"),
        ("145", "\r\nbody\r\n.\ntail\r\n.\r\n", "\nbody\n\ntail\n"),
        ("147", "\r\nbody\r.\r\ntail\r\n.\r\n", "\nbody .\ntail\n"),
        ("148", "\r\nbody\r\n.\r\r\ntail\r\n.\r\n", "\nbody\n \ntail\n"),
        ("149", "\r\nbody\r\n.\0zzz\r\n.\r\n", "\nbody\n\0zzz\n"),
        ("150", "\r\nb\n.\nMAIL FROM:<evil@x>\r\n.\r\n", "\nb\n\nMAIL FROM:<evil@x>\n"),
        ("151", "\r\nb\n.\r\nMAIL FROM:<evil@x>\r\n.\r\n", "\nb\n\nMAIL FROM:<evil@x>\n"),
        ("152", "X: a\rb\r\n\r\nx\ry\r\n\r\r\r\n.\r\n", "X: a b\n\nx y\n  \n"),
        ("bare LF lines", "X: y\n\nb\nc\n\r\n.\r\n", "X: y\n\nb\nc\n\n"),
    ];
    for (number, sent, expected) in cases {
        for start in [data, || after(loopback(), &TO_DATA)] {
            let body = stored(start(), sent);
            let body = body.replace("Date: Thu, 1 Jan 1970 00:00:00 +0000 (UTC)\n", "");
            let body = body.replace("Message-ID: <0000000000000abc@mx.example.org>\n", "");
            assert_eq!(body, expected, "smtp case {number}");
        }
        // In single bytes, the message is the same, and its end is not seen earlier.
        let mut session = data();
        for (position, byte) in sent.bytes().enumerate() {
            let received = session.send(&[byte]);
            assert_eq!(received.is_empty(), position + 1 < sent.len(), "smtp case {number}");
        }
        assert!(session.stored[0].body.ends_with(expected.as_bytes()), "smtp case {number}");
        note(number);
    }
}

// Proves: smtp case 146 and rule L3: the control socket alone is lenient.
#[test]
fn the_control_socket_takes_bare_line_feeds() {
    let local = || after(socket(), &TO_DATA);
    run(&[
        ("146, as 143", local, &[("\nbody\n.\n", "ACC 1"), ("NOOP\n", "OK")]),
        ("146, as 144", local, &[("\nbody\n.\r\n", "ACC 1")]),
        ("146, as 145", local, &[("\r\nbody\r\n.\n", "ACC 1")]),
        ("L3", local, &[("\nbody\n.\nMAIL FROM:<evil@x>\n", "PIPE!")]),
        ("L3, standard end", local, &[("\r\nbody\r\n.\r\nNOOP\r\n", "ACC 1 | OK")]),
    ]);
    let mut session = local();
    session.send(b"\nbody\n.\nNOOP\n");
    assert!(session.stored.is_empty());
    note("146");
}

// Proves: smtp case 154, and what L6 says of commands.
#[test]
fn a_nul_never_ends_a_command() {
    run(&[(
        "154",
        p,
        &[("EHLO x\0y\r\n", "UNK"), ("QUIT\0\r\n", "UNK"), ("\0\r\n", "UNK"), ("NOOP\r\n", "OK")],
    )]);
    run(&[("a bare CR", p, &[("NOOP\rNOOP\r\n", "UNK"), ("NOOP\r\r\n", "UNK")])]);
}
