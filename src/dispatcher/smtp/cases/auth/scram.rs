//! Logging in with SCRAM. The specification has no cases of it.

use super::*;
use crate::dispatcher::smtp::NoVerifier;
use crate::dispatcher::smtp::rehearsal::secured;
use crate::model::tls::Secured;
use crate::proto::scram::Verifier;

/// A session on a listener whose users have verifiers.
fn scram(handshake: Secured) -> Rehearsal {
    let auth = AuthSettings { required: false, table: None, scram: true };
    let settings = Settings { auth: Some(auth), ..offered(false) };
    let script = Script {
        handshake: Ok(handshake),
        verifier: |user| match user {
            "alice" => Ok(Verifier::derive(b"secret", b"saltsalt", 1).unwrap().to_string()),
            "odd" => Ok("nonsense".to_owned()),
            "carol" => Err(NoVerifier::Missing),
            "hasty" => Err(NoVerifier::Limited),
            _ => Err(NoVerifier::Failed),
        },
        ..script()
    };
    after(greeted(settings, script), &["EHLO a.b", "STARTTLS"])
}

fn b64(text: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn decoded(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn scram_is_offered_where_it_can_be_had() {
    let lines = |handshake| {
        let mut session = scram(handshake);
        let lines = String::from_utf8(session.send(b"EHLO a.b\r\n")).unwrap();
        lines.lines().find(|line| line.starts_with("250-AUTH")).unwrap().to_owned()
    };
    let bound = "250-AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
    assert_eq!(lines(secured()), bound);
    let old = Secured { version: "TLSv1.2".into(), exporter: None, ..secured() };
    assert_eq!(lines(old), "250-AUTH PLAIN LOGIN SCRAM-SHA-256");
}

/// Sends the messages of SCRAM; returns the last reply, without its line end.
fn log_in(session: &mut Rehearsal, mechanism: &str, first: &str, password: &str) -> String {
    let mut reply = |line: String| {
        let received = String::from_utf8(session.send(format!("{line}\r\n").as_bytes())).unwrap();
        received.trim_end_matches("\r\n").to_owned()
    };
    let challenge = reply(format!("AUTH {mechanism} {}", b64(first)));
    let Some(challenge) = challenge.strip_prefix("334 ") else { return challenge };
    let binding: &[u8] = if first.starts_with('p') { &[7; 32] } else { b"" };
    let last =
        crate::proto::scram::tests::client_final(first, &decoded(challenge), password, binding);
    let signature = reply(b64(last));
    let Some(signature) = signature.strip_prefix("334 ") else { return signature };
    assert!(decoded(signature).starts_with("v="));
    reply(String::new())
}

#[test]
fn scram_logs_in_without_the_password() {
    let greeted = || after(scram(secured()), &["EHLO a.b"]);
    let bound = "p=tls-exporter,,n=alice,r=abc";
    for (mechanism, first) in [("SCRAM-SHA-256", "n,,n=alice,r=abc"), ("scram-sha-256-plus", bound)]
    {
        let mut session = greeted();
        assert_eq!(log_in(&mut session, mechanism, first, "Secret"), BADPW);
        assert_eq!(log_in(&mut session, mechanism, first, "secret"), SUCCESS);
        // Not before the client's name is known is anything logged.
        let session = after(session, &["MAIL FROM:<a@b>", "RSET"]);
        let log = session.log();
        let verdicts: Vec<&str> =
            log.iter().filter_map(|line| line.split_once("user=")).map(|it| it.1).collect();
        assert_eq!(verdicts, ["alice result=permfail", "alice result=ok"]);
        assert!(log.iter().any(|line| line.contains("command=\"AUTH SCRAM-SHA-256")), "{log:?}");
        assert_eq!(sent(session, "a@b", "X: y").1, "alice");
    }
    let mut session = greeted();
    // A client that was told of no binding, and one that gives up when it sees who we are.
    assert_eq!(log_in(&mut session, "SCRAM-SHA-256", "y,,n=alice,r=abc", "secret"), BADPW);
    assert_eq!(log_in(&mut session, "SCRAM-SHA-256", "nonsense", "secret"), SYN);
    let failed = "421 4.3.0 Temporary failure";
    assert_eq!(log_in(&mut session, "SCRAM-SHA-256", "n,,n=nobody,r=abc", "x"), failed);
    assert_eq!(log_in(&mut session, "SCRAM-SHA-256", "n,,n=odd,r=abc", "x"), failed);
    // One with a hash of another form, with whom other mechanisms work.
    let other = "432 4.7.12 A password transition is needed: use PLAIN or LOGIN";
    assert_eq!(log_in(&mut session, "SCRAM-SHA-256", "n,,n=carol,r=abc", "x"), other);
    assert_eq!(session.send(format!("{RIGHT}\r\n").as_bytes()), replies(SUCCESS).as_bytes());
    let log = after(session, &["MAIL FROM:<a@b>"]).log();
    assert!(log.iter().any(|line| line.ends_with(" user=carol result=tempfail")), "{log:?}");
    let mut limited = greeted();
    limited.script.count = |_| Authenticated::Limited;
    let refused = "421 4.7.0 Too many failed authentications, try again later";
    assert_eq!(log_in(&mut limited, "SCRAM-SHA-256", "n,,n=alice,r=abc", "secret"), refused);
    assert!(limited.closed);
    let mut limited = greeted();
    assert_eq!(log_in(&mut limited, "SCRAM-SHA-256", "n,,n=hasty,r=abc", "secret"), refused);
    assert!(limited.closed);
}
