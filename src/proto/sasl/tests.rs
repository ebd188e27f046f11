use proptest::prelude::*;

use super::*;

const BINDING: ChannelBinding = [9; 32];

fn b64(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

fn checked(user: &str, password: &str) -> Result<Step, SaslError> {
    let password = Zeroizing::new(password.as_bytes().to_vec());
    Ok(Step::Check(Credentials { user: user.to_owned(), password }))
}

fn challenge(text: &str) -> Result<Step, SaslError> {
    Ok(Step::Challenge(text.to_owned()))
}

#[test]
fn mechanisms_have_names_in_any_case() {
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::from_name(mechanism.name().as_bytes()), Some(mechanism));
        let small = mechanism.name().to_ascii_lowercase();
        assert_eq!(Mechanism::from_name(small.as_bytes()), Some(mechanism));
    }
    for unknown in ["", "CRAM-MD5", "PLAI", "PLAIN ", "SCRAM-SHA-1"] {
        assert_eq!(Mechanism::from_name(unknown.as_bytes()), None);
    }
}

#[test]
fn what_may_be_credentials_is_no_name() {
    for name in ["PLAIN", "plain", "SCRAM-SHA-256-PLUS", "X_OWN", "9"] {
        assert!(is_mechanism_name(name.as_bytes()), "{name}");
    }
    let long = "X".repeat(21);
    for other in ["", "AGFsaWNlAHNlY3JldA==", "YWxpY2U", "a+b", "PLAIN\tX", "\u{e9}", &long] {
        assert!(!is_mechanism_name(other.as_bytes()), "{other}");
    }
}

// Proves: the responses of smtp cases 172 to 177.
#[test]
fn plain_is_one_response() {
    let long = |user: usize, password: usize| {
        b64(format!("\0{}\0{}", "u".repeat(user), "p".repeat(password)))
    };
    let cases: [(String, Result<Step, SaslError>); 23] = [
        ("AGFsaWNlAHNlY3JldA==".into(), checked("alice", "secret")),
        ("AGFsaWNl AHNl\tY3JldA = =".into(), checked("alice", "secret")),
        ("AGFsaWNlAHNlY3JldABqdW5r".into(), checked("alice", "secret")),
        ("YXV0aHoAYm9iQGV4YW1wbGUub3JnAHNlY3JldA==".into(), checked("bob@example.org", "secret")),
        (b64("\0\0x"), checked("", "x")),
        (long(255, 766), checked(&"u".repeat(255), &"p".repeat(766))),
        (long(255, 767), Err(SaslError::Syntax)),
        (long(256, 1), Err(SaslError::Syntax)),
        (b64("\0a\0p\u{e9}"), checked("a", "p\u{e9}")),
        (b64([0, 0xe9, 0, b'p']), Err(SaslError::Syntax)),
        (b64("\0a\r\0p"), Err(SaslError::Syntax)),
        (b64("\0a\0p\n"), Err(SaslError::Syntax)),
        (b64("a\0p"), Err(SaslError::Syntax)),
        ("*".into(), Err(SaslError::Syntax)),
        (String::new(), Err(SaslError::Syntax)),
        ("=".into(), Err(SaslError::Syntax)),
        ("AAA=".into(), Err(SaslError::Syntax)),
        ("AHUA".into(), Err(SaslError::Syntax)),
        // Not padded, too much of it, bits that mean nothing, another alphabet, NUL.
        ("AGFsaWNlAHNlY3JldA".into(), Err(SaslError::Syntax)),
        ("AGFsaWNlAHNlY3JldA===".into(), Err(SaslError::Syntax)),
        ("AGFsaWNlAHNlY3JldB==".into(), Err(SaslError::Syntax)),
        ("AGFsaWNlAHNlY3Jl-_==".into(), Err(SaslError::Syntax)),
        ("AGFs\0aWNlAHNlY3JldA==".into(), Err(SaslError::Syntax)),
    ];
    for (line, expected) in cases {
        let mut exchange = Exchange::new(Mechanism::Plain, None);
        assert_eq!(exchange.log_name(), "AUTH PLAIN (...)");
        assert_eq!(exchange.begin(Some(line.as_bytes())), expected, "{line}");
        let mut exchange = Exchange::new(Mechanism::Plain, None);
        assert_eq!(exchange.begin(None), challenge(""));
        assert_eq!(exchange.respond(line.as_bytes()), expected, "{line}");
        if let Ok(Step::Check(credentials)) = expected {
            assert_eq!(exchange.user(), credentials.user);
        }
        assert_eq!(exchange.respond(b"AAA="), Err(SaslError::Syntax), "it is over");
    }
}

// Proves: the responses of smtp cases 178 to 181.
#[test]
fn login_asks_twice() {
    const USER: &str = "VXNlcm5hbWU6";
    const PASSWORD: &str = "UGFzc3dvcmQ6";
    for initial in [None, Some(""), Some(" \t")] {
        let mut exchange = Exchange::new(Mechanism::Login, None);
        assert_eq!(exchange.begin(initial.map(str::as_bytes)), challenge(USER), "{initial:?}");
        assert_eq!(exchange.log_name(), "AUTH LOGIN (username)");
        assert_eq!(exchange.respond(b"YWxpY2U="), challenge(PASSWORD));
        assert_eq!((exchange.log_name(), exchange.user()), ("AUTH LOGIN (password)", "alice"));
        assert_eq!(exchange.respond(b"YmFk"), checked("alice", "bad"));
    }
    let log_in = |user: &str, password: &str| {
        let mut exchange = Exchange::new(Mechanism::Login, None);
        exchange.begin(None).unwrap();
        exchange.respond(user.as_bytes())?;
        exchange.respond(password.as_bytes())
    };
    let (long, longer) = ("u".repeat(255), "u".repeat(256));
    assert_eq!(log_in("", ""), checked("", ""));
    assert_eq!(log_in(&b64(&long), "YQ=="), checked(&long, "a"));
    let most = "p".repeat(2047);
    assert_eq!(log_in("YQ==", &b64(&most)), checked("a", &most));
    for (user, password) in [
        ("*", ""),
        ("YQ==", "*"),
        ("YQ", ""),
        (b64(longer).as_str(), ""),
        ("YQ==", b64("p".repeat(2048)).as_str()),
        (b64("a\n").as_str(), ""),
        (b64("a\0b").as_str(), ""),
        (b64([0xff]).as_str(), ""),
        ("YQ==", b64("a\r").as_str()),
        ("YQ==", b64("a\0b").as_str()),
    ] {
        assert_eq!(log_in(user, password), Err(SaslError::Syntax), "{user} {password}");
    }
    let mut exchange = Exchange::new(Mechanism::Login, None);
    assert_eq!(exchange.begin(Some(b"QUxJQ0U=")), challenge(PASSWORD));
    assert_eq!(exchange.user(), "ALICE");
    let mut exchange = Exchange::new(Mechanism::Login, None);
    assert_eq!(exchange.begin(Some(b"=")), Err(SaslError::Syntax));
}

/// What a client answers to a challenge that is in base64, by the formulas of RFC 5802.
fn proof(password: &str, first: &str, challenge: &str, binding: &[u8]) -> String {
    scram::tests::client_final(first, &decoded(challenge), password, binding)
}

fn decoded(text: &str) -> String {
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

/// Runs SCRAM up to what is to be noted of the proof.
fn scram(mechanism: Mechanism, first: &str, binding: Option<ChannelBinding>) -> (Exchange, String) {
    let mut exchange = Exchange::new(mechanism, binding);
    assert_eq!(exchange.begin(None), challenge(""));
    assert_eq!(exchange.respond(b64(first).as_bytes()), Ok(Step::Find("alice".into())));
    assert_eq!(exchange.user(), "alice");
    let verifier = Verifier::derive(b"secret", b"saltsalt", 4096).unwrap();
    let Step::Challenge(challenge) = exchange.verify(verifier, [7; 18]) else { panic!() };
    (exchange, challenge)
}

#[test]
fn scram_ends_when_both_sides_are_known() {
    let cases: [(Mechanism, &str, Option<ChannelBinding>, &[u8]); 3] = [
        (Mechanism::ScramSha256, "n,,n=alice,r=abc", Some(BINDING), b""),
        (Mechanism::ScramSha256, "y,,n=alice,r=abc", None, b""),
        (Mechanism::ScramSha256Plus, "p=tls-exporter,,n=alice,r=abc", Some(BINDING), &BINDING),
    ];
    for (mechanism, first, binding, bound) in cases {
        let (mut exchange, challenge) = scram(mechanism, first, binding);
        let last = proof("secret", first, &challenge, bound);
        assert_eq!(exchange.respond(b64(last).as_bytes()), Ok(Step::Proved(true)), "{first}");
        let Some(Step::Challenge(last)) = exchange.confirm() else { panic!("{first}") };
        assert!(decoded(&last).starts_with("v="), "{last}");
        assert_eq!(exchange.respond(b""), Ok(Step::Success));
        assert_eq!(exchange.respond(b""), Err(SaslError::Syntax), "it is over");

        let (mut exchange, challenge) = scram(mechanism, first, binding);
        let last = proof("Secret", first, &challenge, bound);
        assert_eq!(exchange.respond(b64(last).as_bytes()), Ok(Step::Proved(false)), "{first}");
        assert_eq!(exchange.confirm(), None);
        assert_eq!(exchange.respond(b""), Err(SaslError::Syntax));

        let (mut exchange, _) = scram(mechanism, first, binding);
        assert_eq!(exchange.respond(b"*"), Err(SaslError::Syntax));
        assert!(exchange.log_name().starts_with("AUTH SCRAM-SHA-256"));
        assert!(exchange.log_name().ends_with(" (...)"));
    }
}

#[test]
fn scram_is_refused_over_another_connection() {
    let begin = |mechanism, first: &str, binding| {
        Exchange::new(mechanism, binding).begin(Some(b64(first).as_bytes()))
    };
    let (plain, plus) = (Mechanism::ScramSha256, Mechanism::ScramSha256Plus);
    // The client was told of no binding, although it was offered.
    assert_eq!(begin(plain, "y,,n=alice,r=abc", Some(BINDING)), Err(SaslError::Binding));
    assert_eq!(begin(plus, "n,,n=alice,r=abc", Some(BINDING)), Err(SaslError::Binding));
    assert_eq!(begin(plain, "alice", None), Err(SaslError::Syntax));
    let first = "p=tls-exporter,,n=alice,r=abc";
    let (mut exchange, challenge) = scram(plus, first, Some(BINDING));
    let last = proof("secret", first, &challenge, &[8; 32]);
    assert_eq!(exchange.respond(b64(last).as_bytes()), Ok(Step::Proved(false)));
}

#[test]
fn passwords_are_not_shown() {
    let mut exchange = Exchange::new(Mechanism::Plain, None);
    let step = exchange.begin(Some(b"AGFsaWNlAHNlY3JldA==")).unwrap();
    assert!(!format!("{step:?} {exchange:?}").contains("115"), "s of secret");
    assert!(!format!("{step:?} {exchange:?}").contains("secret"));
}

proptest! {
    #[test]
    fn plain_brings_what_was_sent(user in "[^\0\r\n]{0,60}", password in "[^\0\r\n]{1,60}") {
        let line = b64(format!("x\0{user}\0{password}"));
        let step = Exchange::new(Mechanism::Plain, None).begin(Some(line.as_bytes()));
        prop_assert_eq!(step, checked(&user, &password));
    }

    #[test]
    fn no_lines_bring_an_exchange_down(
        mechanism in 0..4_usize,
        lines in prop::collection::vec(any::<Vec<u8>>(), 0..6),
        encoded: bool,
    ) {
        let mut exchange = Exchange::new(Mechanism::ALL[mechanism], Some(BINDING));
        let _begun = exchange.begin(None);
        for line in lines {
            let line = if encoded { b64(line).into_bytes() } else { line };
            if exchange.respond(&line).is_ok_and(|step| matches!(step, Step::Find(_))) {
                let verifier = Verifier::derive(b"secret", b"saltsalt", 1).unwrap();
                prop_assert!(matches!(exchange.verify(verifier, [0; 18]), Step::Challenge(_)));
            }
            let _confirmed = exchange.confirm();
        }
    }
}
