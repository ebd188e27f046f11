//! SMTPUTF8: case 71, and RFC 6531 beyond it.

use super::*;
use crate::model::envelope::Smtputf8;
use crate::spec_case::ran;

/// Set-up P on a listener with `no-smtputf8`, after EHLO.
fn without() -> Rehearsal {
    after(greeted(Settings { smtputf8: false, ..settings() }, Script::default()), &["EHLO a.b"])
}

#[test]
fn addresses_in_utf8_need_the_parameter() {
    let refused = "553 5.6.7 Non-ASCII address not permitted: MAIL had no SMTPUTF8";
    run(&[
        ("71", greet, &[("MAIL FROM:<a@b> SMTPUTF8\r\n", "OK"), ("RCPT TO:<c@d>\r\n", "ROK")]),
        (
            "71, in UTF-8",
            greet,
            &[
                ("MAIL FROM:<müller@bücher.example> BODY=8BITMIME SMTPUTF8\r\n", "OK"),
                ("RCPT TO:<用户@例子.测试>\r\n", "ROK"),
                ("RCPT TO:<c@d>\r\n", "ROK"),
            ],
        ),
        (
            "65, and nothing is open then",
            greet,
            &[
                ("MAIL FROM:<é@b>\r\n", "SBAD"),
                ("MAIL FROM:<a@é.test>\r\n", "SBAD"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
                ("RCPT TO:<é@d>\r\n", refused),
                ("RCPT TO:<c@é.test>\r\n", refused),
                ("RCPT TO:<c@d>\r\n", "ROK"),
            ],
        ),
        (
            "no-smtputf8",
            without,
            &[
                (
                    "MAIL FROM:<a@b> SMTPUTF8\r\n",
                    "503 5.5.4 Invalid command arguments: Unsupported option SMTPUTF8",
                ),
                ("MAIL FROM:<é@b> SMTPUTF8\r\n", "SBAD"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
                ("RCPT TO:<é@d>\r\n", "RBAD"),
            ],
        ),
        (
            "what is no UTF-8 and what is no letter",
            greet,
            &[("MAIL FROM:<☃@b> SMTPUTF8\r\n", "SBAD"), ("EHLO é.com\r\n", "DOM")],
        ),
    ]);
    let mut latin = greet();
    let refused = latin.send(b"MAIL FROM:<\xe9@b> SMTPUTF8\r\n");
    assert_eq!(String::from_utf8(refused).unwrap(), replies("SBAD"));
    ran("smtp", 71);
}

// RFC 6533, section 3.
#[test]
fn an_original_recipient_in_utf8_needs_the_parameter_too() {
    run(&[(
        "without",
        tx,
        &[("RCPT TO:<c@d> ORCPT=utf-8;é@d\r\n", "553 ORCPT address syntax error")],
    )]);
    let commands =
        ["MAIL FROM:<a@b> SMTPUTF8", "RCPT TO:<c@d> ORCPT=utf-8;é@d NOTIFY=SUCCESS", "BDAT 0 LAST"];
    let mut session = after(greet(), &commands);
    let commit = session.stored.pop().unwrap().commit;
    assert_eq!(commit.recipients[0].dsn.orcpt.as_deref(), Some("utf-8;\\x{E9}@d"));
}

#[test]
fn a_message_says_how_it_was_handed_in() {
    let data = ["DATA\r\n", "BDAT LEN LAST\r\n"];
    let cases = [
        ("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "S: é\r\n\r\n", Smtputf8::Absent, "ESMTP"),
        (
            "MAIL FROM:<a@b> SMTPUTF8",
            "RCPT TO:<c@d>",
            "S: e\r\n\r\né",
            Smtputf8::Addresses,
            "UTF8SMTP",
        ),
        (
            "MAIL FROM:<a@b> SMTPUTF8",
            "RCPT TO:<c@d>",
            "S: é\r\n\r\n",
            Smtputf8::Headers,
            "UTF8SMTP",
        ),
        (
            "MAIL FROM:<é@b> SMTPUTF8",
            "RCPT TO:<ü@d>",
            "S: e\r\n\r\n",
            Smtputf8::Addresses,
            "UTF8SMTP",
        ),
    ];
    for (mail, recipient, content, smtputf8, protocol) in cases {
        for command in data {
            let mut session = after(greet(), &[mail, recipient]);
            let content = format!("{content}\r\n");
            let command = command.replace("LEN", &content.len().to_string());
            session.send(command.as_bytes());
            session.send(content.as_bytes());
            if command.starts_with("DATA") {
                session.send(b".\r\n");
            }
            let stored = session.stored.pop().unwrap();
            assert_eq!(stored.commit.origin.smtputf8, smtputf8, "{mail} {content:?}");
            let body = String::from_utf8(stored.body).unwrap();
            assert!(body.contains(&format!(" with {protocol} id ")), "{body}");
            assert!(
                body.ends_with(&content.replace("\r\n", "\n")),
                "headers are left alone: {body}"
            );
            // What we add is ASCII: it must not make the message need what it did not.
            let trace = body.split_once("(UTC)\n").unwrap().0;
            assert!(trace.is_ascii(), "{trace}");
            assert_eq!(trace.contains("\n\tfor <"), recipient.is_ascii());
        }
    }
}

#[test]
fn the_envelope_has_domains_as_resolvers_know_them() {
    let commands =
        ["MAIL FROM:<müller@bücher.example> SMTPUTF8", "RCPT TO:<用户@例子.测试>", "BDAT 0 LAST"];
    let mut session = after(greet(), &commands);
    let commit = session.stored.pop().unwrap().commit;
    assert_eq!(commit.origin.sender.as_str(), "müller@xn--bcher-kva.example");
    assert_eq!(commit.recipients[0].address.as_str(), "用户@xn--fsqu00a.xn--0zwm56d");
}
