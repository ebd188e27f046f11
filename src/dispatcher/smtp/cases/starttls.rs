//! Cases 3 and 155 to 167, as far as they are not about the handshake itself: STARTTLS, smtps.

use std::sync::atomic::Ordering;

use super::*;
use crate::dispatcher::smtp::Ending;
use crate::dispatcher::smtp::rehearsal::secured;
use crate::model::tls::Secured;

/// What EHLO is answered where STARTTLS is offered, and not used yet.
const OFFERED: &str = "250-mx.example.org Hello a.b [10.9.8.7], pleased to meet you\n\
    250-8BITMIME\n250-ENHANCEDSTATUSCODES\n250-SIZE 36700160\n250-DSN\n250-PIPELINING\n\
    250-CHUNKING\n250-SMTPUTF8\n250-LIMITS MAILMAX=100 RCPTMAX=1000\n250-STARTTLS\n250 HELP";

/// Set-up T after EHLO.
fn greeted_tls() -> Rehearsal {
    after(tls(), &["EHLO a.b"])
}

#[test]
fn starttls_is_checked_in_order() {
    run(&[
        ("3", tls, &[("EHLO a.b\r\n", OFFERED)]),
        ("155", greet, &[("STARTTLS\r\n", "NO"), ("STARTTLS x\r\n", "NO")]),
        (
            "156",
            greeted_tls,
            &[
                ("STARTTLS x\r\n", "501 5.5.4 Invalid command arguments: No parameters allowed"),
                ("STARTTLS \r\n", "501 5.5.4 Invalid command arguments: No parameters allowed"),
                ("starttls\r\n", "TLS"),
            ],
        ),
        ("before the greeting", tls, &[("STARTTLS\r\n", "SEQ")]),
        (
            "157, 158",
            greeted_tls,
            &[
                ("STARTTLS\r\n", "TLS"),
                ("MAIL FROM:<a@b>\r\n", "SEQ"),
                ("RCPT TO:<c@d>\r\n", "SEQ"),
                ("DATA\r\n", "SEQ"),
                ("RSET\r\n", "SEQ"),
                ("STARTTLS\r\n", "SEQ"),
                ("EHLO a.b\r\n", "EHLO"),
                ("STARTTLS\r\n", "SECURE"),
                ("STARTTLS x\r\n", "SECURE"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
            ],
        ),
        ("159", greeted_tls, &[("MAIL FROM:<a@b>\r\n", "OK"), ("STARTTLS\r\n", "SEQ")]),
        (
            "162",
            || tls_listener(TlsMode::Required, Script::default()),
            &[
                ("MAIL FROM:<a@b>\r\n", "SEQ"),
                ("EHLO a.b\r\n", OFFERED),
                (
                    "MAIL FROM:<a@b>\r\n",
                    "530 5.5.1 Invalid command: Must issue a STARTTLS command first",
                ),
                (
                    "MAIL FROM:nonsense\r\n",
                    "530 5.5.1 Invalid command: Must issue a STARTTLS command first",
                ),
                ("STARTTLS\r\n", "TLS"),
                ("EHLO a.b\r\n", "EHLO"),
                ("MAIL FROM:<a@b>\r\n", "OK"),
            ],
        ),
    ]);
}

#[test]
fn a_session_that_begins_with_a_handshake_greets_inside_of_it() {
    run(&[(
        "163",
        || tls_listener(TlsMode::Immediate, Script::default()),
        &[("EHLO a.b\r\n", "EHLO"), ("STARTTLS\r\n", "NO")],
    )]);
    let client = Peer::remote([10, 9, 8, 7].into());
    let settings = || Settings { tls: Some(offer(TlsMode::Immediate)), ..settings() };
    let script = Script { handshake: Err("no"), ..Script::default() };
    let mut session = Rehearsal::new(settings(), client.clone(), script);
    assert_eq!(session.send(b""), b"", "nothing is said in clear text");
    assert_eq!(
        session.log(),
        [
            "0000000000000001 smtp connected address=10.9.8.7 host=<unknown>",
            "0000000000000001 smtp disconnected reason=\"io-error: handshake failed: no\"",
        ]
    );
    spec_case::ran("smtp", 163);
    let without_key = TlsOffer::new(TlsMode::Immediate, Arc::default());
    let without_key = Settings { tls: Some(without_key), ..settings() };
    let mut session = Rehearsal::new(without_key, client, Script::default());
    assert_eq!(session.send(b""), b"");
    assert!(session.closed);
    assert!(session.log()[1].ends_with("disconnected reason=tls-accept-failed"));
}

#[test]
fn nothing_sent_in_clear_text_behind_starttls_is_believed_or_answered() {
    for (sent, answered) in [
        ("STARTTLS\r\nRSET\r\n", ""),
        ("STARTTLS\r\n\r", ""),
        ("STARTTLS\nx", ""),
        ("NOOP\r\nSTARTTLS\r\nMAIL FROM:<evil@x>\r\n", "250 2.0.0 Ok\r\n"),
    ] {
        let mut session = greeted_tls();
        assert_eq!(session.send(sent.as_bytes()), answered.as_bytes(), "{sent:?}");
        assert!(session.closed, "{sent:?}");
        let log = session.log();
        assert_eq!(
            log[log.len() - 2..],
            [
                "0000000000000001 smtp bad-input result=\"500 5.5.1 Invalid command: Pipelining \
                 not supported\"",
                "0000000000000001 smtp disconnected reason=quit",
            ],
            "{sent:?}"
        );
    }
    // A command that is refused changes nothing, so what is behind it is only the next one.
    let mut session = greet();
    let refused = b"503 5.5.1 Invalid command: Command not supported\r\n250 2.0.0 Ok\r\n";
    assert_eq!(session.send(b"STARTTLS\r\nNOOP\r\n"), refused);
    spec_case::ran("smtp", 160);
}

#[test]
fn starttls_without_a_key_fails_temporarily() {
    let available = Arc::new(AtomicBool::new(true));
    let offer = TlsOffer::new(TlsMode::Offered, Arc::clone(&available));
    let settings = Settings { tls: Some(offer), ..settings() };
    let mut session = after(greeted(settings, Script::default()), &["EHLO a.b"]);
    available.store(false, Ordering::Relaxed);
    let refused = b"454 4.7.0 TLS not available due to temporary reason\r\n";
    assert_eq!(session.send(b"STARTTLS\r\n"), refused);
    assert_eq!(session.send(b"NOOP\r\n"), b"250 2.0.0 Ok\r\n");
    available.store(true, Ordering::Relaxed);
    assert_eq!(session.send(b"STARTTLS\r\n"), b"220 2.0.0 Ready to start TLS\r\n");
}

#[test]
fn the_log_and_the_trace_header_tell_how_a_session_was_encrypted() {
    let script = Script {
        handshake: Ok(Secured {
            verified: true,
            fingerprint: Some("0af9".to_owned()),
            ..secured()
        }),
        ..Script::default()
    };
    let cases = [
        ("161", Script::default(), "TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO", None),
        (
            "a certificate",
            script,
            "TLSv1.3:TLS_AES_256_GCM_SHA384:256:YES",
            Some("smtp cert-check result=\"verified\" fingerprint=\"SHA256:0af9\""),
        ),
    ];
    for (number, script, encryption, certificate) in cases {
        let session = after(tls_listener(TlsMode::Offered, script), &["EHLO a.b", "STARTTLS"]);
        let mut session = after(session, &TO_DATA);
        session.send(b"Subject: x\r\n\r\nb\r\n.\r\n");
        let body = String::from_utf8(session.stored.pop().unwrap().body).unwrap();
        let by = format!("with ESMTPS id 00000001 ({encryption})\n\tfor <c@d>;\n");
        assert!(body.contains(&by), "{number}: {body}");
        let log = session.log();
        assert!(
            log[1].ends_with(" smtp tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256"),
            "{number}: {log:?}"
        );
        let seen = log.iter().find(|line| line.contains("cert-check"));
        assert_eq!(seen.and_then(|line| line.split_once(' ')).map(|it| it.1), certificate);
        note(number);
    }
}

#[test]
fn a_failed_handshake_ends_the_session() {
    let text = "InvalidContentType";
    let script = Script { handshake: Err(text), ..Script::default() };
    let mut session = after(tls_listener(TlsMode::Offered, script), &["EHLO a.b"]);
    assert_eq!(session.send(b"STARTTLS\r\n"), b"220 2.0.0 Ready to start TLS\r\n");
    assert!(session.closed);
    let last = session.log().pop().unwrap();
    assert!(
        last.ends_with("disconnected reason=\"io-error: handshake failed: InvalidContentType\""),
        "{last}"
    );
    session.end(Ending::Disconnect);
    assert_eq!(session.log().pop().unwrap(), last, "it ends once");
}
