//! Who may log in to accounts of the system, with real accounts and PAM, through the processes that
//! do it in the server: lookup, spawner, auth workers.
//!
//! Needs root, in a mount namespace with accounts of the test; skipped with a printed reason else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::logins::{Logins, PASSWORD};
use common::role::parse;
use common::spec_case;
use pillarbox::ipc::message::lookup::{Credentials, DispatcherToLookup, LookupToDispatcher};

const CONFIG: &str = r#"
table hashes { alice = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA" }
match reject
"#;

/// A right password among many others may take that long, on a machine that does other things too.
/// One after the other, with PAM's own delay of two seconds, they would take two minutes.
const BEARABLE: Duration = Duration::from_secs(20);
/// What needs no password may take that long meanwhile.
const UNDISTURBED: Duration = Duration::from_secs(2);

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[tokio::test(flavor = "multi_thread")]
async fn accounts_log_in_with_their_password_unless_they_are_closed() {
    let Some(logins) = Logins::start(CONFIG).await else { return };
    let cases = [
        ("right", "alice", PASSWORD, Credentials::Accepted),
        ("wrong", "alice", "wrong", Credentials::Rejected),
        ("empty", "alice", "", Credentials::Rejected),
        ("expired", "expired", PASSWORD, Credentials::Rejected),
        ("to be changed first", "stale", PASSWORD, Credentials::Rejected),
        ("locked", "locked", PASSWORD, Credentials::Rejected),
        ("unknown", "no-such-user", PASSWORD, Credentials::Rejected),
        ("no password", "daemon", "", Credentials::Rejected),
        ("right again", "alice", PASSWORD, Credentials::Accepted),
    ];
    for (name, user, password, expected) in cases {
        assert_eq!(logins.log_in(None, user, password, CLIENT).await, expected, "{name}");
    }
    spec_case::ran("smtp", 194);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wrong_passwords_delay_neither_a_right_one_nor_anybody_else() {
    let Some(logins) = Logins::start(CONFIG).await else { return };
    let logins = Arc::new(logins);
    let wrong: Vec<_> = (0..50)
        .map(|number| {
            let logins = Arc::clone(&logins);
            let user = if number % 2 == 0 { "alice" } else { "no-such-user" };
            tokio::spawn(async move { logins.log_in(None, user, "wrong", CLIENT).await })
        })
        .collect();
    let table = parse(CONFIG).table_named("hashes").unwrap();
    let begun = Instant::now();
    let right = {
        let logins = Arc::clone(&logins);
        tokio::spawn(async move { logins.log_in(None, "alice", PASSWORD, CLIENT).await })
    };
    // Others ask lookup meanwhile.
    let mut slowest = Duration::ZERO;
    while !right.is_finished() {
        let asked = Instant::now();
        let question = DispatcherToLookup::Mechanisms { table };
        let answer = logins.ask(&question).await;
        assert!(matches!(answer, LookupToDispatcher::Mechanisms { scram: false }), "{answer:?}");
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(right.await.unwrap(), Credentials::Accepted);
    let took = begun.elapsed();
    assert!(took < BEARABLE, "{took:?}");
    assert!(slowest < UNDISTURBED, "{slowest:?}");
    println!("the right one took {took:?}, the slowest answer to others {slowest:?}");
    for task in wrong {
        assert_eq!(task.await.unwrap(), Credentials::Rejected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_refused_after_a_hundred_wrong_passwords() {
    let Some(logins) = Logins::start(CONFIG).await else { return };
    let logins = Arc::new(logins);
    let table = parse(CONFIG).table_named("hashes");
    let log_in = |password: &'static str, address: &str| {
        let (logins, address) = (Arc::clone(&logins), address.parse().unwrap());
        async move { logins.log_in(table, "alice", password, address).await }
    };
    let wrong: Vec<_> = (0..100).map(|_| tokio::spawn(log_in("wrong", "2001:db8::1"))).collect();
    for task in wrong {
        assert_eq!(task.await.unwrap(), Credentials::Rejected);
    }
    assert_eq!(log_in("secret", "2001:db8::2").await, Credentials::Limited);
    assert_eq!(log_in("secret", "2001:db8:0:1::1").await, Credentials::Accepted);
}
