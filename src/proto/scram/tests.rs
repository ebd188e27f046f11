use super::*;

const NONCE: [u8; 18] = [7; 18];
const BINDING: ChannelBinding = [9; 32];

/// What a client sends last, by the formulas of RFC 5802, section 3.
pub(crate) fn client_final(first: &str, challenge: &str, password: &str, binding: &[u8]) -> String {
    let field = |letter: &str| {
        let found = challenge.split(',').find_map(|part| part.strip_prefix(letter));
        found.unwrap().to_owned()
    };
    let salt = STANDARD.decode(field("s=")).unwrap();
    let mut salted = [0; 32];
    let iterations = field("i=").parse().unwrap();
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, iterations, &mut salted);
    let client_key = mac(&salted, &[b"Client Key"]);
    let stored_key: [u8; 32] = Sha256::digest(client_key).into();
    let (header, bare) = first.split_at(first.rfind("n=").unwrap());
    let mut bound = header.as_bytes().to_vec();
    bound.extend(binding);
    let unproved = format!("c={},r={}", STANDARD.encode(bound), field("r="));
    let signature = mac(&stored_key, &[format!("{bare},{challenge},{unproved}").as_bytes()]);
    let mut proof = client_key;
    for (byte, mask) in proof.iter_mut().zip(signature) {
        *byte ^= mask;
    }
    format!("{unproved},p={}", STANDARD.encode(proof))
}

fn verifier(password: &str) -> Verifier {
    Verifier::derive(password.as_bytes(), b"saltsalt", 4096).unwrap()
}

/// The end of an exchange without channel binding.
fn log_in(sent: &str, known: &Verifier) -> Result<String, ScramError> {
    let first = "n,,n=alice,r=abc";
    let read = ClientFirst::read(first.as_bytes(), Mechanism::Plain, false).unwrap();
    let (exchange, challenge) = read.challenge(known.clone(), NONCE);
    exchange.finish(client_final(first, &challenge, sent, b"").as_bytes(), None)
}

#[test]
fn the_example_of_the_standard_comes_out() {
    // RFC 7677, section 3.
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let known = Verifier::derive(b"pencil", &salt, 4096).unwrap();
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let first = ClientFirst::read(first, Mechanism::Plain, false).unwrap();
    assert_eq!(first.user(), "user");
    let (exchange, challenge) = first.challenge_with(known, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert_eq!(challenge, expected);
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert_eq!(exchange.finish(last.as_bytes(), None), Ok(signature.to_owned()));
    // One letter of the nonce, or one bit of the proof.
    for (place, other) in [(15, "Q"), (last.len() - 3, "U")] {
        let mut changed = last.to_owned();
        changed.replace_range(place..=place, other);
        assert!(exchange.finish(changed.as_bytes(), None).is_err(), "{changed}");
    }
}

#[test]
fn only_the_password_of_the_verifier_logs_in() {
    let known = verifier("secret");
    assert!(log_in("secret", &known).is_ok());
    for wrong in ["Secret", "", "secret "] {
        assert_eq!(log_in(wrong, &known), Err(ScramError::Proof), "{wrong}");
    }
    let invented = Verifier::invented(&[1; 32], "alice", known.cost());
    assert_eq!(log_in("secret", &invented), Err(ScramError::Proof));
}

#[test]
fn a_password_is_checked_with_a_verifier_in_its_prepared_form() {
    let known = verifier("I\u{ad}X \u{aa}");
    for (password, fits) in [("IX a", true), ("I\u{ad}X \u{aa}", true), ("IX", false), ("", false)]
    {
        assert_eq!(known.fits(password.as_bytes()), fits, "{password:?}");
    }
    assert!(Verifier::derive(b"\xff\x00", b"saltsalt", 1).unwrap().fits(b"\xff\x00"));
}

#[test]
fn a_bound_exchange_works_only_over_its_own_connection() {
    let first = "p=tls-exporter,,n=alice,r=abc";
    let read = ClientFirst::read(first.as_bytes(), Mechanism::Plus, true).unwrap();
    let (exchange, challenge) = read.challenge(verifier("secret"), NONCE);
    let last = client_final(first, &challenge, "secret", &BINDING);
    assert!(exchange.finish(last.as_bytes(), Some(&BINDING)).is_ok());
    let elsewhere = exchange.finish(last.as_bytes(), Some(&[8; 32]));
    assert_eq!(elsewhere, Err(ScramError::Binding));
    assert_eq!(exchange.finish(last.as_bytes(), None), Err(ScramError::Binding));
}

#[test]
fn first_messages() {
    use Mechanism::{Plain, Plus};
    use ScramError::{Binding, Syntax};
    let cases: [(&str, Mechanism, bool, Result<&str, ScramError>); 27] = [
        ("n,,n=alice,r=abc", Plain, false, Ok("alice")),
        ("n,,n=alice,r=abc", Plain, true, Ok("alice")),
        ("y,,n=alice,r=abc", Plain, false, Ok("alice")),
        ("n,a=boss,n=alice,r=abc", Plain, false, Ok("alice")),
        ("n,,n=alice,r=abc,x=1,Y=2", Plain, false, Ok("alice")),
        ("n,,n=a=2Cb=3Dc,r=abc", Plain, false, Ok("a,b=c")),
        ("n,,n=I\u{ad}X,r=abc", Plain, false, Ok("IX")),
        ("p=tls-exporter,,n=alice,r=abc", Plus, true, Ok("alice")),
        // Somebody in between took the better mechanism out of the greeting.
        ("y,,n=alice,r=abc", Plain, true, Err(Binding)),
        ("n,,n=alice,r=abc", Plus, true, Err(Binding)),
        ("p=tls-exporter,,n=alice,r=abc", Plain, true, Err(Binding)),
        ("p=tls-unique,,n=alice,r=abc", Plus, true, Err(Binding)),
        ("", Plain, false, Err(Syntax)),
        ("x,,n=alice,r=abc", Plain, false, Err(Syntax)),
        ("n,boss,n=alice,r=abc", Plain, false, Err(Syntax)),
        ("n,a=,n=alice,r=abc", Plain, false, Err(Syntax)),
        ("n,,n=,r=abc", Plain, false, Err(Syntax)),
        ("n,,n=a=2cb,r=abc", Plain, false, Err(Syntax)),
        ("n,,n=a=,r=abc", Plain, false, Err(Syntax)),
        ("n,,n=a\0b,r=abc", Plain, false, Err(Syntax)),
        ("n,,n=a\u{7}b,r=abc", Plain, false, Err(Syntax)),
        ("n,,m=x,n=alice,r=abc", Plain, false, Err(Syntax)),
        ("n,,n=alice,r=abc,m=x", Plain, false, Err(Syntax)),
        ("n,,n=alice,r=", Plain, false, Err(Syntax)),
        ("n,,n=alice,r=a b", Plain, false, Err(Syntax)),
        ("n,,n=alice", Plain, false, Err(Syntax)),
        ("n,,r=abc,n=alice", Plain, false, Err(Syntax)),
    ];
    for (message, mechanism, plus_offered, expected) in cases {
        let read = ClientFirst::read(message.as_bytes(), mechanism, plus_offered);
        let user = read.as_ref().map(ClientFirst::user).map_err(|error| *error);
        assert_eq!(user, expected, "{message:?} {mechanism:?}");
    }
    let long = |name, nonce| format!("n,,n={},r={}", "a".repeat(name), "b".repeat(nonce));
    for (name, nonce, is_read) in [(255, 256, true), (256, 1, false), (1, 257, false)] {
        let read = ClientFirst::read(long(name, nonce).as_bytes(), Plain, false);
        assert_eq!(read.is_ok(), is_read, "{name} {nonce}");
    }
    assert_eq!(ClientFirst::read(b"n,,n=\xff,r=a", Plain, false), Err(Syntax));
}

#[test]
fn last_messages_that_prove_nothing() {
    let first = ClientFirst::read(b"n,,n=alice,r=abc", Mechanism::Plain, false).unwrap();
    let (exchange, challenge) = first.challenge(verifier("secret"), NONCE);
    let last = client_final("n,,n=alice,r=abc", &challenge, "secret", b"");
    assert!(exchange.finish(last.as_bytes(), None).is_ok());
    let (unproved, proof) = last.rsplit_once(",p=").unwrap();
    let (_, nonce) = unproved.split_once(",r=").unwrap();
    let cases = [
        (String::new(), ScramError::Syntax),
        ("*".to_owned(), ScramError::Syntax),
        (unproved.to_owned(), ScramError::Syntax),
        (format!("{unproved},p="), ScramError::Syntax),
        (format!("{unproved},p=AAAA"), ScramError::Syntax),
        (format!("{unproved},p=!{proof}"), ScramError::Syntax),
        (format!("{unproved},m=x,p={proof}"), ScramError::Syntax),
        (format!("r={nonce},c=biws,p={proof}"), ScramError::Syntax),
        (format!("c=biw!,r={nonce},p={proof}"), ScramError::Syntax),
        // `y,,` in the place of `n,,`.
        (format!("c=eSws,r={nonce},p={proof}"), ScramError::Binding),
        (format!("c=biws,r=abc,p={proof}"), ScramError::Proof),
        (format!("{unproved},x=1,p={proof}"), ScramError::Proof),
        (format!("{unproved},p={}", STANDARD.encode([0; 32])), ScramError::Proof),
        ("a".repeat(MAX_MESSAGE + 1), ScramError::Syntax),
    ];
    for (message, expected) in cases {
        assert_eq!(exchange.finish(message.as_bytes(), None), Err(expected), "{message}");
    }
}

#[test]
fn verifiers_in_text_form() {
    let text = verifier("secret").to_string();
    assert_eq!(text.parse(), Ok(verifier("secret")));
    let key = STANDARD.encode([1; 32]);
    let with = |iterations: &str, salt: &[u8], stored: &str, server: &str| {
        format!("SCRAM-SHA-256${iterations}:{}${stored}:{server}", STANDARD.encode(salt))
    };
    let cases = [
        (with("4096", b"salt", &key, &key), true),
        (with("1", b"salt", &key, &key), true),
        (with("1000000", &[0; 64], &key, &key), true),
        (with("1000001", b"salt", &key, &key), false),
        (with("0", b"salt", &key, &key), false),
        (with("+4096", b"salt", &key, &key), false),
        (with("04096", b"salt", &key, &key), false),
        (with("99999999999", b"salt", &key, &key), false),
        (with("4096", b"sal", &key, &key), false),
        (with("4096", &[0; 65], &key, &key), false),
        (with("4096", b"salt", "", &key), false),
        (with("4096", b"salt", &key, "AAAA"), false),
        (text.replace("SHA-256", "SHA-1"), false),
        (text.replace("SCRAM", "scram"), false),
        ("SCRAM-SHA-256".to_owned(), false),
        (String::new(), false),
    ];
    for (text, is_one) in cases {
        assert_eq!(text.parse::<Verifier>().is_ok(), is_one, "{text}");
    }
    assert!(
        !format!("{:?}", verifier("secret"))
            .contains(&STANDARD.encode(*verifier("secret").server_key))
    );
}

#[test]
fn invented_verifiers_look_like_others_and_stay_the_same() {
    let cost = Cost { iterations: 4096, salt: 20 };
    let one = Verifier::invented(&[1; 32], "alice", cost);
    assert_eq!(one, Verifier::invented(&[1; 32], "alice", cost));
    assert_eq!(one.cost(), cost);
    assert_eq!(one.to_string().parse(), Ok(one.clone()));
    for other in
        [Verifier::invented(&[1; 32], "bob", cost), Verifier::invented(&[2; 32], "alice", cost)]
    {
        assert!(one.salt != other.salt && one.stored_key != other.stored_key);
    }
}
