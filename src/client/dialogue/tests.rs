//! Dialogues with a server whose replies are given.

use super::*;
use crate::client::server::Credentials;
use crate::config::Secret;
use crate::spec_case;

fn wishes(text: &str, recipients: &[&str]) -> Wishes {
    let (protocol, encryption) = match text {
        "lmtp" => (Protocol::Lmtp, Encryption::Offered),
        "smtp+notls" => (Protocol::Smtp, Encryption::Never),
        "smtp+tls" => (Protocol::Smtp, Encryption::Required),
        "smtps" => (Protocol::Smtp, Encryption::Immediate),
        _ => (Protocol::Smtp, Encryption::Offered),
    };
    let transaction = (!recipients.is_empty()).then(|| Transaction {
        sender: "me@x".into(),
        recipients: recipients.iter().map(|one| (*one).to_owned()).collect(),
    });
    Wishes { protocol, encryption, helo: "host".into(), credentials: None, transaction }
}

fn with_login(mut wishes: Wishes) -> Wishes {
    let password = Secret::from("pass".to_owned());
    wishes.credentials = Some(Credentials { user: "user".into(), password });
    wishes
}

/// Plays to the end with these replies, one each time the client reads: what the client said, with
/// `(tls)` and `(body)`, what the user was told, and whether it came to its end.
fn play(wishes: Wishes, replies: &[&str]) -> (String, Vec<String>, bool) {
    let mut dialogue = Dialogue::new(wishes);
    let (mut said, mut told) = (String::new(), Vec::new());
    let mut replies = replies.iter();
    loop {
        match dialogue.step() {
            Step::Body => {
                said.push_str("(body) ");
                dialogue.body_sent();
            }
            Step::Close => return (said, told, dialogue.is_complete()),
            Step::Fail(failure) => told.push(failure.to_string()),
            Step::Read => match replies.next() {
                Some(reply) => dialogue.receive(reply.replace('|', "\r\n").as_bytes()),
                None => dialogue.broken(Failure::Connection("gone".into())),
            },
            Step::Say(command) => {
                let line = command.line.strip_suffix("\r\n").unwrap();
                said.push_str(&format!("{line}; "));
            }
            Step::StartTls => {
                said.push_str("(tls) ");
                dialogue.encrypted();
            }
            Step::Tell(status) => told.push(status.to_string()),
        }
    }
}

/// Recipients, replies, or what the user is told.
type Words<'a> = &'a [&'a str];

const GREETED: [&str; 2] = ["220 mx|", "250-mx|250 STARTTLS|"];
const PLAIN: [&str; 2] = ["220 mx|", "250 mx|"];

// queue cases 204, 205 and 209
#[test]
fn every_recipient_is_told_about() {
    let to = "MAIL FROM:<me@x>; RCPT TO:<a@y>; ";
    let both = "MAIL FROM:<me@x>; RCPT TO:<a@y>; RCPT TO:<b@y>; ";
    let cases: [(u32, Words<'_>, Words<'_>, &str, Words<'_>); 10] = [
        (
            204,
            &["a@y"],
            &["250 ok|", "250 ok|", "354 go|", "250-2.0.0 taken|250 2.0.0  as 1|"],
            &format!("{to}DATA; (body) QUIT; "),
            &["a@y: EOM: 250-2.0.0 taken  as 1"],
        ),
        (
            205,
            &["a@y", "b@y"],
            &["250 ok|", "250 ok|", "250 ok|", "354 go|", "554 no|", "221 bye|"],
            &format!("{both}DATA; (body) QUIT; "),
            &["a@y: EOM: 554 no", "b@y: EOM: 554 no"],
        ),
        (
            209,
            &["a@y", "bad@y", "b@y"],
            &["250 ok|", "250 ok|", "550 who|", "250 ok|", "354 go|", "250 taken|"],
            "MAIL FROM:<me@x>; RCPT TO:<a@y>; RCPT TO:<bad@y>; RCPT TO:<b@y>; DATA; (body) QUIT; ",
            &["bad@y: RCPT: 550 who", "a@y: EOM: 250 taken", "b@y: EOM: 250 taken"],
        ),
        (
            0,
            &["a@y", "b@y"],
            &["550 not you|"],
            "MAIL FROM:<me@x>; QUIT; ",
            &["a@y: MAIL: 550 not you", "b@y: MAIL: 550 not you"],
        ),
        (
            0,
            &["a@y", "b@y"],
            &["250 ok|", "550 who|", "450 later|"],
            &format!("{both}QUIT; "),
            &["a@y: RCPT: 550 who", "b@y: RCPT: 450 later"],
        ),
        (
            0,
            &["a@y", "b@y"],
            &["250 ok|", "550 who|", "250 ok|", "451 no room|"],
            &format!("{both}DATA; QUIT; "),
            &["a@y: RCPT: 550 who", "b@y: DATA: 451 no room"],
        ),
        // One that closes gets no good-bye.
        (
            0,
            &["a@y", "b@y"],
            &["250 ok|", "250 ok|", "421 closing|"],
            both,
            &["a@y: RCPT: 421 closing", "b@y: RCPT: 421 closing"],
        ),
        (0, &["a@y"], &["421 closing|"], "MAIL FROM:<me@x>; ", &["a@y: MAIL: 421 closing"]),
        (
            0,
            &["a@y"],
            &["250 ok|", "250 ok|", "354 go|", "421 closing|"],
            &format!("{to}DATA; (body) "),
            &["a@y: EOM: 421 closing"],
        ),
        (
            0,
            &["a@y"],
            &["250 ok|", "250 ok|", "421 closing|"],
            &format!("{to}DATA; "),
            &["a@y: DATA: 421 closing"],
        ),
    ];
    for (number, recipients, replies, said, told) in cases {
        let replies = [&PLAIN[..], replies].concat();
        let expected = (format!("EHLO host; {said}"), told.to_vec(), true);
        let found = play(wishes("smtp", recipients), &replies);
        let found = (found.0, found.1.iter().map(String::as_str).collect::<Vec<_>>(), found.2);
        assert_eq!(found, expected, "{replies:?}");
        spec_case::ran("queue", number);
    }
}

#[test]
fn lmtp_has_a_reply_for_each_recipient_in_any_pieces() {
    let to = "LHLO host; MAIL FROM:<me@x>; RCPT TO:<a@y>; RCPT TO:<b@y>; RCPT TO:<c@y>; ";
    let expected = ["b@y: RCPT: 550 who", "a@y: EOM: 250 one", "c@y: EOM: 452 two"];
    for end in [&["250 one|452 two|"][..], &["250 one|", "452 two|"], &["250 one|45", "2 two|"]] {
        let begin = ["220 h|", "250 h|", "250 ok|", "250 ok|", "550 who|", "250 ok|", "354 go|"];
        let replies = [&begin[..], end, &["221 bye|"]].concat();
        let found = play(wishes("lmtp", &["a@y", "b@y", "c@y"]), &replies);
        assert_eq!(found.0, format!("{to}DATA; (body) QUIT; "));
        assert_eq!((found.1, found.2), (expected.map(str::to_owned).to_vec(), true), "{end:?}");
    }
}

// queue case 208
#[test]
fn encryption_is_as_wanted() {
    let missing = "missing feature: TLS not supported by remote host";
    let cases: [(u32, &str, Words<'_>, &str, Words<'_>); 10] = [
        (208, "smtp+tls", &PLAIN, "EHLO host; QUIT; ", &[missing]),
        (0, "smtp", &PLAIN, "EHLO host; QUIT; ", &[]),
        (0, "smtp+notls", &GREETED, "EHLO host; QUIT; ", &[]),
        (0, "smtps", &GREETED, "EHLO host; QUIT; ", &[]),
        (
            0,
            "smtp",
            &[GREETED[0], GREETED[1], "220 go|", "250 mx|"],
            "EHLO host; STARTTLS; (tls) EHLO host; QUIT; ",
            &[],
        ),
        (
            0,
            "lmtp",
            &["220 h|", "250-h|250 STARTTLS|", "220 go|", "250 h|"],
            "LHLO host; STARTTLS; (tls) LHLO host; QUIT; ",
            &[],
        ),
        (0, "smtp", &[GREETED[0], GREETED[1], "454 no|"], "EHLO host; STARTTLS; QUIT; ", &[]),
        (
            0,
            "smtp+tls",
            &[GREETED[0], GREETED[1], "454 no|"],
            "EHLO host; STARTTLS; QUIT; ",
            &["rejected by server: 454 no"],
        ),
        // Not to be taken for what is said inside TLS.
        (
            0,
            "smtp",
            &[GREETED[0], GREETED[1], "220 go|250 injected|"],
            "EHLO host; STARTTLS; ",
            &["protocol error: Remote host sent too much data"],
        ),
        (0, "smtp", &["220 mx|", "502 what|", "250 mx|"], "EHLO host; HELO host; QUIT; ", &[]),
    ];
    for (number, scheme, replies, said, told) in cases {
        let found = play(wishes(scheme, &[]), replies);
        assert_eq!(
            (found.0.as_str(), found.1),
            (said, told.iter().map(|t| (*t).to_owned()).collect()),
            "{scheme} {replies:?}"
        );
        assert_eq!(found.2, told.is_empty(), "{scheme} {replies:?}");
        spec_case::ran("queue", number);
    }
}

// queue case 208
#[test]
fn a_login_is_inside_tls_with_the_method_that_is_offered() {
    let requires = "missing feature: Authentication requires TLS";
    let plain = "AUTH PLAIN AHVzZXIAcGFzcw==; ";
    let login = "AUTH LOGIN; dXNlcg==; cGFzcw==; ";
    let cases: [(u32, &str, &str, Words<'_>, &str, Words<'_>); 8] = [
        (208, "smtp", "250-mx|250 AUTH PLAIN|", &[], "", &[requires]),
        (208, "smtp+notls", "250-mx|250 AUTH PLAIN|", &[], "", &[requires]),
        (0, "smtps", "250-mx|250 AUTH LOGIN PLAIN|", &["235 ok|"], plain, &[]),
        (
            0,
            "smtps",
            "250-mx|250 auth login|",
            &["334 VXNlcg|", "334 UGFz|", "235 ok|"],
            login,
            &[],
        ),
        (
            0,
            "smtps",
            "250-mx|250 AUTH PLAIN|",
            &["535 wrong|"],
            plain,
            &["rejected by server: 535 wrong"],
        ),
        (
            0,
            "smtps",
            "250-mx|250 AUTH LOGIN|",
            &["235 so soon|"],
            "AUTH LOGIN; ",
            &["rejected by server: 235 so soon"],
        ),
        (0, "smtps", "250 mx|", &[], "", &["missing feature: AUTH not supported by remote host"]),
        (
            0,
            "smtps",
            "250-mx|250 AUTH SCRAM-SHA-256|",
            &[],
            "",
            &["missing feature: no supported AUTH method"],
        ),
    ];
    for (number, scheme, hello, replies, said, told) in cases {
        let replies = [&["220 mx|", hello][..], replies].concat();
        let found = play(with_login(wishes(scheme, &[])), &replies);
        assert_eq!(found.0, format!("EHLO host; {said}QUIT; "), "{scheme} {replies:?}");
        assert_eq!(found.1, told, "{scheme} {replies:?}");
        spec_case::ran("queue", number);
    }
}

#[test]
fn a_password_is_not_shown() {
    let mut dialogue = Dialogue::new(with_login(wishes("smtps", &[])));
    dialogue.receive(b"220 mx\r\n");
    let Step::Say(hello) = dialogue.step() else { panic!("no EHLO") };
    assert_eq!(hello.shown(), "EHLO host");
    dialogue.receive(b"250-mx\r\n250 AUTH PLAIN\r\n");
    let Step::Say(login) = dialogue.step() else { panic!("no AUTH") };
    assert_eq!(*login.line, "AUTH PLAIN AHVzZXIAcGFzcw==\r\n");
    assert!(!format!("{login:?} {}", login.shown()).contains("AHVz"));
}

#[test]
fn what_goes_wrong_is_told_in_one_line() {
    let cases: [(&[&str], &str); 6] = [
        (&[], "connection error: gone"),
        (&["220 mx|"], "connection error: gone"),
        (&["554 go away|"], "rejected by server: 554 go away"),
        (&["220 mx|", "502 a|", "502 b|"], "rejected by server: 502 b"),
        (&["SSH-2.0|"], "protocol error: Bad response: reply code out of range"),
        (&["421 closing|"], "rejected by server: 421 closing"),
    ];
    for (replies, expected) in cases {
        let (_, told, complete) = play(wishes("smtp", &["a@y"]), replies);
        assert_eq!((told, complete), (vec![expected.to_owned()], false), "{replies:?}");
    }
}

#[test]
fn a_connection_that_breaks_after_the_message_leaves_it_uncertain() {
    let mut dialogue = Dialogue::new(wishes("smtp", &["a@y"]));
    for reply in ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
        dialogue.receive(reply.as_bytes());
        assert!(!dialogue.is_uncertain());
    }
    dialogue.body_sent();
    dialogue.broken(Failure::Connection("gone".into()));
    assert!(dialogue.is_uncertain() && !dialogue.is_complete());
}

#[test]
fn addresses_beyond_ascii_need_smtputf8() {
    let to = || wishes("smtp", &["bücher@y"]);
    let (said, _, _) = play(to(), &["220 mx|", "250-mx|250 SMTPUTF8|"]);
    assert_eq!(said, "EHLO host; MAIL FROM:<me@x> SMTPUTF8; ");
    let (said, told, complete) = play(to(), &PLAIN);
    assert_eq!(said, "EHLO host; QUIT; ");
    assert_eq!(told, ["missing feature: SMTPUTF8 not supported by remote host"]);
    assert!(!complete);
}
