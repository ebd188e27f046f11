//! Mail to other servers: to a smart host and to mail exchangers found by DNS, with every kind of
//! answer a server can give.
//!
//! Exchanges listen on port 25 of a loopback address, which needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::dns::{NameServer, Zone};
use common::peer::message;
use common::server::{Server, free_address, own_address};
use common::sink::{END_OF_DATA, Sink};
use common::wait::{SOON, wait_until};
use platform::privilege::is_root;

/// Everything goes to a smart host, reports come back to a Maildir. No pauses between connections.
const RELAY: &str = r#"
@LISTEN@
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
mta limit reconn-delay-route 0
table users { "@" = "@USER@" }
action "out" relay host "smtp+notls://@SINK@"
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "client.example" action "local"
match from any for any action "out"
"#;

fn relay_to(address: SocketAddr) -> Server {
    Server::start(&RELAY.replace("@SINK@", &address.to_string()))
}

#[test]
fn a_smart_host_gets_the_message_once() {
    let sink = Sink::start();
    let server = relay_to(sink.address());
    let content = format!("{}.dot\n..dots\n", message("out"));
    server.accept(&["a@far.example", "b@far.example", "c@other.example"], &content);
    wait_until("all recipients are served", SOON, || {
        sink.received().iter().map(|one| one.recipients.len()).sum::<usize>() == 3
    });
    let mut recipients = Vec::new();
    for received in sink.received() {
        assert_eq!(received.sender, "sender@client.example");
        assert!(received.content.starts_with("Received: from client.example "));
        assert!(received.content.ends_with("This is out.\n.dot\n..dots\n"), "{}", received.content);
        recipients.extend(received.recipients);
    }
    recipients.sort();
    assert_eq!(recipients, ["a@far.example", "b@far.example", "c@other.example"]);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn smart_hosts_take_turns_in_the_order_of_their_names() {
    let (one, other) = (Sink::start(), Sink::start());
    let mut sinks = [one, other];
    sinks.sort_by_key(|sink| sink.address().to_string());
    let [first, second] = &sinks;
    // Written the other way round.
    let hosts = format!(
        "{{ \"smtp+notls://{}\", \"smtp+notls://{}\" }}",
        second.address(),
        first.address()
    );
    let server = Server::start(&RELAY.replace("\"smtp+notls://@SINK@\"", &hosts));
    for (name, sink) in [("one", first), ("two", second), ("three", first)] {
        let before = sink.received().len();
        server.accept(&["a@far.example"], &message(name));
        let received = sink.wait_for(before + 1, Duration::from_secs(30));
        assert!(received.last().unwrap().content.ends_with(&format!("This is {name}.\n")));
    }
    assert_eq!((first.received().len(), second.received().len()), (2, 1));
    common::spec_case::ran("config", 280);
}

#[test]
fn many_messages_share_connections() {
    let sink = Sink::start();
    let server = relay_to(sink.address());
    let mut peer = server.peer();
    for n in 0..100 {
        let name = format!("m{n}");
        let reply = peer.submit("s@client.example", &["a@far.example"], &message(&name)).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let received = sink.wait_for(100, Duration::from_secs(30));
    for n in 0..100 {
        let wanted = format!("This is m{n}.\n");
        let count = received.iter().filter(|one| one.content.ends_with(&wanted)).count();
        assert_eq!(count, 1, "message {n}");
    }
    let connections = sink.connections();
    assert!(connections <= 30, "{connections} connections for 100 messages");
}

#[test]
fn a_large_body_arrives_complete() {
    let sink = Sink::start();
    let server = relay_to(sink.address());
    let content = message("large") + &".a line of a large body\n".repeat(10 * 1024 * 1024 / 24);
    server.accept(&["a@far.example"], &content);
    let received = sink.wait_for(1, Duration::from_secs(60));
    let (_, body) = content.split_once("\n\n").unwrap();
    let arrived = received[0].content.split_once("\n\n").unwrap().1;
    assert!(arrived == body, "{} of {} bytes", arrived.len(), body.len());
}

#[test]
fn each_recipient_has_its_own_end() {
    let tries = AtomicUsize::new(0);
    let sink = Sink::scripted(move |command| match command.split_once("<")?.1 {
        rest if rest.starts_with("gone@") => Some("550 5.1.1 gone for good".into()),
        rest if rest.starts_with("busy@") && tries.fetch_add(1, Ordering::AcqRel) == 0 => {
            Some("450 4.2.1 busy for now".into())
        }
        _ => None,
    });
    let server = relay_to(sink.address());
    server.accept(&["good@far.example", "gone@far.example", "busy@far.example"], &message("three"));

    let reports = server.maildir("sender").wait_for(1, SOON);
    assert!(reports[0].contains("gone@far.example"), "{}", reports[0]);
    assert!(reports[0].contains("gone for good"), "{}", reports[0]);
    wait_until("one envelope waits with the reply", SOON, || {
        let queue = server.queue();
        queue.len() == 1
            && queue[0].contains("busy@far.example")
            && queue[0].contains("busy for now")
    });
    assert_eq!(sink.received().len(), 1);
    assert_eq!(server.control(&["schedule", "all"]).status, 0);
    let received = sink.wait_for(2, SOON);
    let mut recipients: Vec<_> = received.into_iter().flat_map(|one| one.recipients).collect();
    recipients.sort();
    assert_eq!(recipients, ["busy@far.example", "good@far.example"]);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(server.maildir("sender").count(), 1, "one report only");
}

#[test]
fn replies_to_content_and_sender_count_for_all_recipients() {
    for (name, command, reply, waits) in [
        ("refused content", END_OF_DATA, "554 5.7.1 not like this", false),
        ("content later", END_OF_DATA, "451 4.3.0 not like this", true),
        ("refused sender", "MAIL", "550 5.7.1 not like this", false),
        ("sender later", "MAIL", "421 4.3.0 not like this", true),
    ] {
        let sink = Sink::scripted(move |said| said.starts_with(command).then(|| reply.to_owned()));
        let server = relay_to(sink.address());
        server.accept(&["a@far.example", "b@far.example"], &message("all"));
        if waits {
            wait_until(&format!("{name}: both wait"), SOON, || {
                let queue = server.queue();
                queue.len() == 2 && queue.iter().all(|line| line.contains("not like this"))
            });
            assert_eq!(server.maildir("sender").count(), 0, "{name}");
        } else {
            let reports = server.maildir("sender").wait_for(1, SOON);
            let all = reports.join("\n");
            for expected in ["a@far.example", "b@far.example", "not like this"] {
                assert!(all.contains(expected), "{name}: {expected:?} is missing:\n{all}");
            }
            wait_until(name, SOON, || server.queue().is_empty());
        }
        assert_eq!(sink.received().len(), 0, "{name}");
    }
}

#[test]
fn a_host_that_hangs_up_or_is_not_there_is_tried_later() {
    let nobody = free_address();
    // Every attempt moves the next one away, so that a warning would soon be due.
    let config = format!("bounce warn-interval 30d\n{RELAY}");
    let server = Server::start(&config.replace("@SINK@", &nobody.to_string()));
    server.accept(&["a@far.example"], &message("later"));
    wait_until("the envelope waits", SOON, || {
        server.queue().first().is_some_and(|line| line.contains("Network error"))
    });

    // It comes back, and hangs up in the middle of its first transaction.
    let turns = AtomicUsize::new(0);
    let sink = Sink::at(nobody, move |command| {
        let first = command == "DATA" && turns.fetch_add(1, Ordering::AcqRel) == 0;
        first.then(String::new)
    });
    let sink = sink.unwrap();
    wait_until("the message arrives after all", Duration::from_secs(60), || {
        // Each attempt counts, and the sixth failure would bring the next one past the four hours
        // after which the sender is told: so few attempts while the route is disabled for 15 s.
        assert_eq!(server.control(&["schedule", "all"]).status, 0);
        std::thread::sleep(Duration::from_secs(5));
        !sink.received().is_empty()
    });
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(sink.received().len(), 1);
    assert_eq!(server.maildir("sender").count(), 0, "nobody is told of delays that end");
}

#[test]
fn a_message_that_expires_is_returned() {
    let server = Server::start(
        &RELAY
            .replace("@SINK@", &free_address().to_string())
            .replace("match from any for any", "queue ttl 2s\nmatch from any for any"),
    );
    server.accept(&["a@far.example"], &message("old"));
    let reports = server.maildir("sender").wait_for(1, Duration::from_secs(40));
    for expected in ["a@far.example", "<old@client.example>"] {
        assert!(reports[0].contains(expected), "{expected:?} is missing:\n{}", reports[0]);
    }
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn exchanges_are_found_by_dns_and_the_next_one_helps_out() {
    if !is_root() {
        println!("skipped: port 25 of a loopback address needs root");
        return;
    }
    // Addresses that no other test of this machine is likely to use.
    let host = |last| Ipv4Addr::new(127, 77, 25, last);
    let zone = Zone::default()
        .mx("far.example", 10, "down.far.example")
        .mx("far.example", 20, "up.far.example")
        .address("down.far.example", IpAddr::V4(host(1)))
        .address("up.far.example", IpAddr::V4(host(2)))
        .address("plain.example", IpAddr::V4(host(2)))
        .mx("null.example", 0, "")
        .pointer(Ipv4Addr::LOCALHOST, "localhost");
    let names = NameServer::start(zone);
    let sink = Sink::at(SocketAddr::from((host(2), 25)), |_| None).unwrap();
    let config = RELAY.replace(r#"relay host "smtp+notls://@SINK@""#, "relay");
    let server = Server::start_with(&config, &["--resolver", &names.address()]);

    server.accept(&["a@far.example"], &message("second"));
    server.accept(&["a@plain.example"], &message("address"));
    let received = sink.wait_for(2, SOON);
    assert!(received.iter().any(|one| one.recipients == ["a@far.example"]));
    assert!(received.iter().any(|one| one.recipients == ["a@plain.example"]));

    server.accept(&["a@null.example", "a@no.such.example"], &message("nowhere"));
    wait_until("both are returned", SOON, || {
        let reports = server.maildir("sender").texts().join("\n");
        reports.contains("a@null.example") && reports.contains("a@no.such.example")
    });
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn a_backup_is_known_by_the_name_it_greets_with() {
    if !is_root() {
        println!("skipped: port 25 of a loopback address needs root");
        return;
    }
    let better = own_address(1);
    let zone = Zone::default()
        .mx("far.example", 10, "better.example")
        .mx("far.example", 20, "Backup.Example")
        .mx("ours.example", 10, "backup.example")
        .mx("ours.example", 20, "better.example")
        .mx("stranger.example", 10, "better.example")
        .address("better.example", better.into())
        .pointer(Ipv4Addr::LOCALHOST, "localhost");
    let names = NameServer::start(zone);
    let sink = Sink::at((better, 25).into(), |_| None).unwrap();
    let config = RELAY
        .replace("@LISTEN@", "@LISTEN@ hostname backup.example")
        .replace(r#"relay host "smtp+notls://@SINK@""#, "relay backup");
    let server = Server::start_with(&config, &["--resolver", &names.address()]);

    // Its own name need not lead anywhere.
    server.accept(&["a@far.example"], &message("better"));
    server.accept(&["a@ours.example"], &message("ours"));
    sink.wait_for(1, SOON);
    wait_until("mail waits where it is the best exchanger", SOON, || {
        let queue = server.queue();
        queue.len() == 1 && queue[0].contains("No MX found for destination")
    });
    assert!(!server.log().contains("backup preference"), "it has found itself");

    server.accept(&["a@stranger.example"], &message("stranger"));
    let received = sink.wait_for(2, SOON);
    assert_eq!(received[1].recipients, ["a@stranger.example"]);
    server.wait_for_log(
        "warn: Couldn't find backup preference for \
         [relay:stranger.example,smtp,backup=backup.example]: error 4",
    );
}

#[test]
fn a_domain_has_its_own_smart_host() {
    let sink = Sink::start();
    let table = format!("domain {{ \"far.example\" = \"smtp+notls://{}\" }}", sink.address());
    let server = Server::start(&RELAY.replace(r#"host "smtp+notls://@SINK@""#, &table));
    server.accept(&["a@Far.Example", "a@sub.far.example"], &message("domain"));
    let received = sink.wait_for(1, SOON);
    assert_eq!(received[0].recipients, ["a@Far.Example"]);
    wait_until("the other waits", SOON, || {
        let queue = server.queue();
        queue.len() == 1
            && queue[0].contains("a@sub.far.example")
            && queue[0].contains("Cannot retrieve smarthost")
    });
    server.wait_for_log("warn: Failed to retrieve smarthost for envelope ");
}

#[test]
fn the_name_of_an_own_address_goes_before_helo() {
    let sink = Sink::start();
    let options = r#"src { "127.0.0.5", "127.0.0.6" } helo other.example \
        helo-src { "127.0.0.6" = "six.example", "[::1]" = "one.example" } host"#;
    let config = RELAY.replace("relay host", &format!("relay {options}"));
    let server = Server::start(&config.replace("@SINK@", &sink.address().to_string()));
    for name in ["one", "two", "three"] {
        server.accept(&["a@far.example"], &message(name));
    }
    sink.wait_for(3, Duration::from_secs(30));
    let greetings: Vec<_> =
        sink.commands().into_iter().filter(|line| line.starts_with("EHLO")).collect();
    assert!(greetings.iter().all(|line| line == "EHLO six.example"), "{greetings:?}");
    server.wait_for_log("warn: Failed to retrieve helo string for 127.0.0.5");
}
