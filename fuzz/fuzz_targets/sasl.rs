//! What clients send after AUTH: no lines may bring an exchange down, make it go on when it is over,
//! or bring credentials out of it that are longer than it says or would be two lines somewhere.
//!
//! The first byte chooses the mechanism and whether the connection can be bound; lines follow.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::proto::sasl::{Credentials, Exchange, Mechanism, Step};
use pillarbox::proto::scram::Verifier;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, lines)) = bytes.split_first() else { return };
    let mechanism = Mechanism::ALL[usize::from(choice & 3)];
    let binding = (choice & 4 != 0).then_some([7; 32]);
    let mut exchange = Exchange::new(mechanism, binding);
    let mut lines = lines.split(|&byte| byte == b'\n');
    let initial = if choice & 8 != 0 { lines.next() } else { None };
    let mut step = exchange.begin(initial);
    let mut challenges = 0;
    loop {
        step = match step {
            Ok(Step::Challenge(_)) => {
                challenges += 1;
                assert!(challenges <= 4, "{mechanism:?} goes on and on");
                let Some(line) = lines.next() else { return };
                exchange.respond(line)
            }
            Ok(Step::Check(credentials)) => break check(&credentials),
            Ok(Step::Find(user)) => {
                assert!(!user.is_empty() && user.len() <= 255 && user == exchange.user());
                let Ok(verifier) = Verifier::derive(b"secret", b"salt", 1) else { return };
                Ok(exchange.verify(verifier, [0; 18]))
            }
            Ok(Step::Proved(true)) => match exchange.confirm() {
                Some(step) => Ok(step),
                None => panic!("a right proof is not confirmed"),
            },
            Ok(Step::Proved(false) | Step::Success) | Err(_) => break,
        };
    }
    assert!(exchange.confirm().is_none() && exchange.respond(b"").is_err(), "it is not over");
});

fn check(credentials: &Credentials) {
    assert!(credentials.user.len() <= 255 && credentials.password.len() <= 2047);
    let one_line = |bytes: &[u8]| !bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
    assert!(one_line(credentials.user.as_bytes()) && one_line(&credentials.password));
}
