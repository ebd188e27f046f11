//! The filter cases of sessions that encrypt and log in: F18, F19, F21, F53, F54, and D16 of
//! section 9, that nothing is said in clear text before a handshake that has to come first.

use super::*;
use crate::dispatcher::smtp::{AuthSettings, Authenticated};

/// Set-up T; only Alice with `secret` may log in.
fn t(decisions: &[(Phase, Decision)]) -> Rehearsal {
    let auth = AuthSettings { required: false, table: None, scram: false };
    let settings = Settings { auth: Some(auth), tls: Some(offer(TlsMode::Offered)), ..settings() };
    let decisions = decisions.to_vec();
    let mut session = on(settings, FilterScript { decisions, ..FilterScript::default() });
    session.script.authenticate = |asked| match (&asked.user[..], &asked.password[..]) {
        (b"alice", b"secret") => Authenticated::Accepted,
        (b"broken", _) => Authenticated::Failed,
        _ => Authenticated::Rejected,
    };
    session
}

/// Set-up T, encrypted and greeted again.
fn encrypted(decisions: &[(Phase, Decision)]) -> Rehearsal {
    up_to(t(decisions), &["EHLO a.b", "STARTTLS", "EHLO a.b"])
}

#[test]
fn a_handshake_is_decided_and_told() {
    let mut session = up_to(t(&[]), &["EHLO a.b"]);
    assert_eq!(say(&mut session, "STARTTLS\r\n"), replies("TLS"));
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|STARTTLS",
            "Q|starttls|",
            "R|protocol-server|220 2.0.0 Ready to start TLS",
            "R|link-tls|TLSv1.3:TLS_AES_256_GCM_SHA384:256",
        ]
    );
    ran("filter", 18);

    // Nobody is asked about one that cannot be.
    for (before, command) in
        [(&["EHLO a.b"][..], "STARTTLS x"), (&["EHLO a.b", "STARTTLS", "EHLO a.b"], "STARTTLS")]
    {
        let mut session = up_to(t(&[]), before);
        assert!(say(&mut session, &format!("{command}\r\n")).starts_with('5'));
        assert!(!told(&mut session).iter().any(|line| line.starts_with("Q|")));
    }

    let mut session = up_to(t(&[reject(Phase::StartTls, "454 no tls")]), &["EHLO a.b"]);
    assert_eq!(say(&mut session, "STARTTLS\r\n"), "454 no tls\r\n");
    assert_eq!(say(&mut session, "MAIL FROM:<a@b>\r\n"), replies("OK"));
    assert!(!session.session.is_secure() && !session.closed);
    ran("filter", 53);

    let mut session = up_to(t(&[disconnect(Phase::StartTls, "421 no tls")]), &["EHLO a.b"]);
    assert_eq!(say(&mut session, "STARTTLS\r\n"), "421 no tls\r\n");
    assert!(!session.session.is_secure() && session.closed);
}

#[test]
fn what_comes_in_clear_text_behind_starttls_is_not_heard_while_filters_decide() {
    for behind in ["RSET\r\n", "BDAT 2 LAST\r\n\r\n", "\r\n", "x"] {
        for decision in [Decision::Proceed, Decision::Rewrite(b"x".to_vec())] {
            let mut session = up_to(t(&[(Phase::StartTls, decision)]), &["EHLO a.b"]);
            assert_eq!(say(&mut session, &format!("STARTTLS\r\n{behind}")), "", "{behind:?}");
            assert!(session.closed && !session.session.is_secure(), "{behind:?}");
            let heard = told(&mut session);
            let expected = ["R|protocol-client|STARTTLS", "Q|starttls|", "R|link-disconnect"];
            assert_eq!(heard, expected, "{behind:?}");
        }
    }
}

#[test]
fn credentials_go_to_the_filters_of_their_phase_alone() {
    let mut session = encrypted(&[]);
    let refused = "535 Authentication failed\r\n";
    assert_eq!(say(&mut session, "AUTH PLAIN AGFsaWNlAGJhZA==\r\n"), refused);
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|AUTH PLAIN ********",
            "Q|auth|PLAIN AGFsaWNlAGJhZA==",
            "R|link-auth|fail|alice",
            "R|protocol-server|535 Authentication failed",
        ]
    );
    ran("filter", 19);

    // The replies have the questions in them, and no answers.
    assert_eq!(say(&mut session, "AUTH LOGIN\r\n"), "334 VXNlcm5hbWU6\r\n");
    assert_eq!(say(&mut session, "YWxpY2U=\r\n"), "334 UGFzc3dvcmQ6\r\n");
    assert!(say(&mut session, "c2VjcmV0\r\n").starts_with("235 "));
    assert_eq!(
        told(&mut session),
        [
            "R|protocol-client|AUTH LOGIN",
            "Q|auth|LOGIN",
            "R|protocol-server|334 VXNlcm5hbWU6",
            "R|protocol-client|********",
            "R|protocol-server|334 UGFzc3dvcmQ6",
            "R|protocol-client|********",
            "R|link-auth|pass|alice",
            "R|protocol-server|235 2.0.0 Authentication succeeded",
        ]
    );
    ran("filter", 21);

    let mut session = encrypted(&[]);
    assert!(say(&mut session, "AUTH PLAIN AGJyb2tlbgB4\r\n").starts_with("421 "));
    assert!(told(&mut session).contains(&"R|link-auth|error|broken".to_owned()));
}

#[test]
fn a_login_that_filters_refuse_is_not_tried() {
    for decision in [reject(Phase::Auth, "535 5.7.8 no"), rewrite(Phase::Auth, "CRAM-MD5")] {
        let mut session = encrypted(std::slice::from_ref(&decision));
        session.script.authenticate = |_| unreachable!("nobody is asked");
        let refused = say(&mut session, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
        if let (_, Decision::Reject(line)) = &decision {
            assert_eq!(refused, format!("{line}\r\n"));
        } else {
            assert!(refused.starts_with("504 5.7.4 "), "{refused}");
        }
        assert_eq!(say(&mut session, "NOOP\r\n"), replies("OK"));
        let log = session.log();
        assert!(log.iter().all(|line| !line.contains("AGFs")), "{log:?}");
        let failed = " smtp failed-command command=\"AUTH PLAIN (...)\" result=\"";
        assert!(log.iter().any(|line| line.contains(failed)), "{log:?}");
        assert!(!told(&mut session).iter().any(|line| line.contains("link-auth")));
    }
    ran("filter", 54);
}

#[test]
fn a_connection_that_begins_with_a_handshake_is_refused_without_a_word() {
    let immediate = || Settings { tls: Some(offer(TlsMode::Immediate)), ..settings() };
    let no_filters = FilterScript { interests: None, ..FilterScript::default() };
    let decided = |decision| FilterScript { decisions: vec![decision], ..FilterScript::default() };
    let cases = [
        ("550 nope", decided(reject(Phase::Connect, "550 nope"))),
        ("421 nope", decided(reject(Phase::Connect, "421 nope"))),
        ("550 bye", decided(disconnect(Phase::Connect, "550 bye"))),
        ("421 Internal server error", decided(reject(Phase::Connect, "200 ok"))),
        ("421 Internal server error", no_filters),
    ];
    for (line, script) in cases {
        let mut session = on(immediate(), script);
        assert_eq!(say(&mut session, "EHLO a.b\r\n"), "", "{line}");
        assert!(session.closed && !session.session.is_secure(), "{line}");
        let log = session.log();
        let failed = format!("smtp failed-command command=\"\" result=\"{line}\"");
        assert!(log[1].ends_with(&failed), "{log:?}");
        assert!(log[2].ends_with("smtp disconnected reason=quit"), "{log:?}");
        assert_eq!(log.len(), 3, "{log:?}");
        assert!(!told(&mut session).iter().any(|line| line.contains("protocol-server")));
    }

    // A filter that never answers is no reason to say something either.
    let script = FilterScript { silent: Some(Phase::Connect), ..FilterScript::default() };
    let mut session = on(immediate(), script);
    assert_eq!(say(&mut session, ""), "");
    assert_eq!(session.filter_is_late(), b"");
    assert!(session.closed);

    // Who is not refused greets inside, and the marks of a filter stay.
    let script = FilterScript {
        decisions: vec![(Phase::Connect, Decision::Junk)],
        ..FilterScript::default()
    };
    let mut session = up_to(on(immediate(), script), &TO_DATA);
    assert!(session.session.is_secure());
    assert_eq!(say(&mut session, "\r\n.\r\n"), replies("ACC 1"));
    assert!(session.stored[0].body.starts_with(b"X-Spam: Yes\n"));
}
