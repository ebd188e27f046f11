use super::*;
use crate::ipc::link::Link;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};

/// The hash of `secret`.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// Logins without a parent.
fn logins() -> Logins {
    let (ours, _) = platform::fd::socketpair().unwrap();
    let (parent, _) = Link::<RoleToParent, ParentToRole>::open(ours, 8).unwrap();
    Logins::new(&parent, Prepared { crypt: None, threads: 2 }, &Key::new([1; 32]))
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

/// What a table is like with these hashes.
fn survey(hashes: &[&str]) -> Survey {
    let mut survey = Survey::default();
    for text in hashes {
        survey.note(&Zeroizing::new((*text).to_owned()));
    }
    survey
}

#[tokio::test]
async fn hashes_decide_and_users_without_one_are_wrong() {
    let logins = logins();
    let cases = [
        (hash(BCRYPT), "secret", Ok(Verdict::Accepted)),
        (hash(BCRYPT), "Secret", Ok(Verdict::Rejected)),
        // The hash of another is computed, and fits.
        (None, "secret", Ok(Verdict::Rejected)),
        (hash("secret"), "secret", Err(HashError::Unknown)),
        (hash("$2b$31$abcdefghijklmnopqrstuu"), "secret", Err(HashError::Cost)),
    ];
    for known in [survey(&[BCRYPT]), survey(&["$1$saltsalt$9xy1btjgzLYfb7hivXtC//"])] {
        for (hash, sent, expected) in cases.clone() {
            let checked = logins.check_hash(&known, "alice", hash.clone(), password(sent)).await;
            assert_eq!(checked, expected, "{hash:?}");
        }
    }
}

/// The shortest of some checks of a wrong password.
async fn shortest(
    logins: &Logins,
    survey: &Survey,
    user: &str,
    hash: Option<Zeroizing<String>>,
) -> f64 {
    let mut shortest = Duration::MAX;
    for _ in 0..7 {
        let begun = std::time::Instant::now();
        let checked = logins.check_hash(survey, user, hash.clone(), password("x")).await;
        assert!(matches!(checked, Ok(Verdict::Rejected) | Err(HashError::Unknown)), "{checked:?}");
        shortest = shortest.min(begun.elapsed());
    }
    shortest.as_secs_f64()
}

#[tokio::test]
async fn a_user_who_is_not_there_takes_as_long_as_a_wrong_password() {
    let logins = logins();
    let known = bcrypt::hash("secret", 7).unwrap();
    let survey = survey(&[&known]);
    let right = shortest(&logins, &survey, "alice", hash(&known)).await;
    for (user, hash) in [("eve", None), ("locked", hash("*LK*"))] {
        let ratio = right / shortest(&logins, &survey, user, hash).await;
        assert!((0.5..2.0).contains(&ratio), "{user} {ratio}");
    }
}

#[tokio::test]
async fn in_a_table_of_several_kinds_users_who_are_not_there_are_of_each_of_them() {
    let logins = logins();
    let (quick, slow) = (bcrypt::hash("secret", 4).unwrap(), bcrypt::hash("secret", 9).unwrap());
    let survey = survey(&[&quick, &slow]);
    let quick = shortest(&logins, &survey, "alice", hash(&quick)).await;
    let slow = shortest(&logins, &survey, "bob", hash(&slow)).await;
    let mut slow_ones = 0;
    for number in 0..16 {
        let user = format!("nobody{number}");
        let took = shortest(&logins, &survey, &user, None).await;
        // Of two that differ by a factor of 32, the nearer one.
        let is_slow = took > (quick * slow).sqrt();
        slow_ones += u32::from(is_slow);
        let again = shortest(&logins, &survey, &user, None).await;
        assert_eq!(again > (quick * slow).sqrt(), is_slow, "{user}");
    }
    assert!((2..15).contains(&slow_ones), "{slow_ones}");
}

#[test]
fn verifiers_are_given_out_and_invented() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (logins, other) = (logins(), logins());
    let real = Verifier::derive(b"secret", b"saltsalt", 4096).unwrap();
    let text = hash(&real.to_string());
    let known = survey(&[&real.to_string()]);
    assert_eq!(logins.verifier(&known, "alice", text.as_ref()), Some(real.clone()));
    let invented = logins.verifier(&known, "eve", None).unwrap();
    assert_eq!(invented.cost(), real.cost());
    assert_ne!(logins.verifier(&known, "mallory", None).unwrap(), invented);
    // A role that takes the place of another invents the same.
    assert_eq!(other.verifier(&known, "eve", None).unwrap(), invented);
    // What nobody can log in with is as nothing.
    assert_eq!(logins.verifier(&known, "eve", hash("*LK*").as_ref()).unwrap(), invented);
    assert_eq!(logins.verifier(&Survey::default(), "eve", None).unwrap().cost(), Cost::default());
}

#[test]
fn who_has_another_hash_has_no_verifier_and_neither_have_as_many_who_are_not_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let logins = logins();
    let real = Verifier::derive(b"secret", b"saltsalt", 4096).unwrap();
    let mixed = survey(&[&real.to_string(), BCRYPT, "$6$salt1$x", "$6$salt2$x"]);
    assert_eq!(logins.verifier(&mixed, "alice", hash(BCRYPT).as_ref()), None);
    let found = hash(&real.to_string());
    assert_eq!(logins.verifier(&mixed, "bob", found.as_ref()), Some(real));
    let names: Vec<String> = (0..400).map(|number| format!("nobody{number}")).collect();
    let invented = |user: &String| logins.verifier(&mixed, user, None);
    let with = names.iter().filter(|user| invented(user).is_some()).count();
    assert!((60..140).contains(&with), "{with}");
    assert!(names.iter().all(|user| invented(user) == invented(user)));
}
