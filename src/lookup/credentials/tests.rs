use super::*;
use crate::ipc::link::Link;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};

const TABLE: TableId = TableId(1);

/// Logins without a parent.
fn logins() -> Logins {
    let (ours, _) = platform::fd::socketpair().unwrap();
    let (parent, _) = Link::<RoleToParent, ParentToRole>::open(ours, 8).unwrap();
    Logins::new(&parent, Prepared { crypt: None, threads: 2 }).unwrap()
}

fn client(text: &str) -> Source {
    Source::Ip(text.parse().unwrap())
}

fn password(text: &str) -> Password {
    Password(Zeroizing::new(text.as_bytes().to_vec()))
}

fn hash(text: &str) -> Option<Zeroizing<String>> {
    Some(Zeroizing::new(text.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn rejections_are_delayed_by_less_than_a_second_and_nothing_else_is() {
    let logins = logins();
    let mut delays = Vec::new();
    for verdict in [Verdict::Accepted, Verdict::Failed, Verdict::Rejected, Verdict::Rejected] {
        let begun = Instant::now();
        let told = logins.judge(client("192.0.2.1"), std::future::ready(verdict)).await;
        assert_eq!(told, verdict);
        delays.push(begun.elapsed());
    }
    assert_eq!(delays[..2], [Duration::ZERO; 2]);
    assert!(delays[2..].iter().all(|delay| *delay < Duration::from_millis(1001)), "{delays:?}");
    assert_ne!(delays[2], delays[3]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_too_often_is_refused_and_local_sessions_never_are() {
    let logins = logins();
    let (guesser, other) = (client("192.0.2.1"), client("192.0.2.2"));
    for _ in 0..99 {
        assert_eq!(logins.judged(guesser, false).await, Verdict::Rejected);
        assert_eq!(logins.judged(Source::Local, false).await, Verdict::Rejected);
    }
    assert_eq!(logins.judged(guesser, true).await, Verdict::Accepted);
    assert!(!logins.refuses(guesser));
    assert_eq!(logins.judged(guesser, false).await, Verdict::Rejected);
    let begun = Instant::now();
    assert_eq!(logins.judged(guesser, true).await, Verdict::Limited);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(logins.refuses(guesser) && !logins.refuses(other));
    assert_eq!(logins.judged(other, true).await, Verdict::Accepted);
    for _ in 0..10 {
        assert_eq!(logins.judged(Source::Local, false).await, Verdict::Rejected);
    }
    assert!(!logins.refuses(Source::Local));
    sleep(Duration::from_secs(601)).await;
    assert_eq!(logins.judged(guesser, true).await, Verdict::Accepted);
}

#[tokio::test]
async fn hashes_decide_and_users_without_one_are_wrong() {
    let logins = logins();
    let bcrypt = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let cases = [
        (hash(bcrypt), "secret", Ok(Verdict::Accepted)),
        (hash(bcrypt), "Secret", Ok(Verdict::Rejected)),
        // The hash of another is computed, and fits.
        (None, "secret", Ok(Verdict::Rejected)),
        (hash("secret"), "secret", Err(HashError::Unknown)),
        (hash("$2b$31$abcdefghijklmnopqrstuu"), "secret", Err(HashError::Cost)),
    ];
    for (hash, sent, expected) in cases {
        let checked = logins.check_hash(TABLE, "alice", hash.clone(), password(sent)).await;
        assert_eq!(checked, expected, "{hash:?}");
    }
}

#[tokio::test]
async fn a_user_who_is_not_there_takes_as_long_as_a_wrong_password() {
    let logins = logins();
    let known = bcrypt::hash("secret", 7).unwrap();
    logins.remember(TABLE, Zeroizing::new(known.clone()));
    let shortest = async |hash: Option<Zeroizing<String>>| {
        let mut shortest = Duration::MAX;
        for _ in 0..7 {
            let begun = std::time::Instant::now();
            let checked = logins.check_hash(TABLE, "eve", hash.clone(), password("x")).await;
            assert_eq!(checked, Ok(Verdict::Rejected));
            shortest = shortest.min(begun.elapsed());
        }
        shortest.as_secs_f64()
    };
    let ratio = shortest(hash(&known)).await / shortest(None).await;
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
}

#[tokio::test]
async fn verifiers_are_given_out_and_invented() {
    let logins = logins();
    let real = Verifier::derive(b"secret", b"saltsalt", 4096).unwrap();
    assert_eq!(logins.verifier(TABLE, "alice", hash(&real.to_string())), real);
    let invented = logins.verifier(TABLE, "eve", None);
    assert_eq!(invented.cost(), real.cost());
    // A password of another form has none either.
    assert_eq!(logins.verifier(TABLE, "eve", hash("$6$a$b")), invented);
    let plain = logins.check_hash(TABLE, "alice", hash(&real.to_string()), password("secret"));
    assert_eq!(plain.await, Ok(Verdict::Accepted));
}
