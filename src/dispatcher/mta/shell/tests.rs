//! Outgoing mail against servers on loopback.

mod names;
mod server;

use std::collections::HashMap;
use std::future::Future;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::names::{Names, Out};
use self::server::{Manners, Seen, Server, serve};
use super::*;
use crate::dispatcher::mta::RelayJob;
use crate::dispatcher::mta::action::{RelayAction, Target};
use crate::dispatcher::mta::body::Body;
use crate::dispatcher::mta::directory::{Answer, NoEntry, Release};
use crate::dispatcher::mta::fixture::envelope;
use crate::dispatcher::mta::limits::{LimitTable, Limits};
use crate::model::dns::{Confirmed, DnsFailure, Exchange, Reverse};
use crate::model::{EnvelopeId, Mailbox};

fn memory(text: &str) -> Body {
    Body::Memory(Arc::from(text.as_bytes()))
}

/// Runs a test on a runtime like the dispatcher's.
fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

// queue cases 56, 57 and 58
#[test]
fn a_message_to_two_recipients_goes_out_in_one_transaction() {
    run(async {
        let mut server = Server::start(Manners::default()).await;
        let mut out = Out::to(&server);
        out.send(1, &["a@r.test", "b@r.test"], &memory("Subject: x\n\n.dot\nend"));
        let expected = [(1, "delivered false".into()), (2, "delivered false".into())];
        assert_eq!(out.outcomes(2).await, expected);
        let commands = [
            "EHLO mx.test",
            "MAIL FROM:<sender@md.test>",
            "RCPT TO:<a@r.test>",
            "RCPT TO:<b@r.test>",
            "DATA",
            "Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n",
            "QUIT",
        ];
        let expected: Vec<Seen> = commands.iter().map(|c| (0, (*c).to_owned())).collect();
        assert_eq!(server.seen(7).await, expected);
        out.becomes_idle().await;
    });
}

// queue case 59
#[test]
fn recipients_have_their_own_outcomes() {
    run(async {
        let recipients = HashMap::from([("b", "550 no such b"), ("c", "450 try c later")]);
        let server = Server::start(Manners { recipients, ..Manners::default() }).await;
        let mut out = Out::to(&server);
        out.send(1, &["a@r.test", "b@r.test", "c@r.test"], &memory("x\n"));
        let expected = [
            (1, "delivered false".into()),
            (2, "5.0.0 550 no such b".into()),
            (3, "4.0.0 450 try c later".into()),
        ];
        assert_eq!(out.outcomes(3).await, expected);
    });
}

// queue case 103
#[test]
fn lmtp_recipients_have_their_own_replies() {
    run(async {
        let message = vec!["250 got it", "452 full"];
        let mut server = Server::start(Manners { message, ..Manners::default() }).await;
        let url = format!("lmtp://{}", server.address);
        let mut out = Out::new(Target::Host(url), Names::default());
        out.send(1, &["a@r.test", "b@r.test"], &memory("x\n"));
        let expected = [(1, "delivered false".into()), (2, "4.0.0 452 full".into())];
        assert_eq!(out.outcomes(2).await, expected);
        assert_eq!(server.seen(1).await, [(0, "LHLO mx.test".into())]);
    });
}

// queue case 64
#[test]
fn a_connection_that_ends_after_data_defers_the_message() {
    run(async {
        let server = Server::start(Manners { drops_data: true, ..Manners::default() }).await;
        let mut out = Out::to(&server);
        out.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 Connection closed unexpectedly".into())];
        assert_eq!(out.outcomes(1).await, expected);
        out.becomes_idle().await;
        // The session had been ready: the route is as good as before.
        assert!(out.mta.routes().iter().all(|route| route.disabled_until.is_none()));
    });
}

// queue case 65
#[test]
fn a_refused_banner_disables_the_route() {
    run(async {
        let server = Server::start(Manners { banner: "554 go away", ..Manners::default() }).await;
        let mut out = Out::to(&server);
        out.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 Network error on destination MXs".into())];
        assert_eq!(out.outcomes(1).await, expected);
        let routes = out.mta.routes();
        assert!(routes[0].disabled_until.is_some(), "{routes:?}");
        // While it is disabled, later mail fails at once.
        out.send(2, &["a@r.test"], &memory("x\n"));
        assert_eq!(out.outcomes(1).await, expected);
        // queue case 102
        assert!(out.mta.enable_route(routes[0].route));
        assert!(!out.mta.enable_route(routes[0].route));
    });
}

#[test]
fn a_refused_connection_disables_the_route_and_mail_returns_with_the_host() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let target = Target::Host(format!("smtp+notls://{address}"));
        let mut out = Out::new(target, Names::default());
        out.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 Network error on destination MXs".into())];
        assert_eq!(out.outcomes(1).await, expected);

        let listener = TcpListener::bind(address).await.unwrap();
        let (report, _seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, Manners::default(), 0, report).await
        });
        assert!(out.mta.enable_route(out.mta.routes()[0].route));
        out.send(2, &["a@r.test"], &memory("x\n"));
        let deferred = EnvelopeId::new(0x1_0000_0001).unwrap();
        assert_eq!(out.next().await, Event::Retry { envelopes: vec![deferred] });
        assert_eq!(out.outcomes(1).await, [(1, "delivered false".into())]);
    });
}

// queue cases 74 and 75
#[test]
fn source_addresses_are_used_and_judged() {
    run(async {
        let mut server = Server::start(Manners::default()).await;
        let target = || Target::Host(format!("smtp://{}", server.address));
        let mut out = Out::with(target(), Names::default(), |action, _| {
            action.source = Some("127.0.0.1".into());
            action.helo_source = Some("names".into());
        });
        out.send(1, &["a@r.test"], &memory("x\n"));
        assert_eq!(out.outcomes(1).await, [(1, "delivered false".into())]);
        let source = out.mta.routes().first().and_then(|route| route.route.source);
        assert_eq!(source, Some("127.0.0.1".parse().unwrap()));

        let mut foreign = Out::with(target(), Names::default(), |action, _| {
            action.source = Some("192.0.2.99".into());
        });
        foreign.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 No valid route to destination".into())];
        assert_eq!(foreign.outcomes(1).await, expected);

        let mut without = Out::with(target(), Names::default(), |action, _| {
            action.source = Some("empty".into());
        });
        without.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 Could not retrieve source address".into())];
        assert_eq!(without.outcomes(1).await, expected);
        assert_eq!(server.seen(1).await, [(0, "EHLO named.test".into())]);
    });
}

// queue cases 82, 83, 84, 89, and what waits for TLS
#[test]
fn smart_hosts_that_cannot_be_used_defer_the_envelope() {
    run(async {
        let by_domain = || Target::DomainTable("t".into());
        let host = |url: &str| Target::Host(url.to_owned());
        let cases = [
            (host("smtp://lab@host"), "Cannot parse smarthost"),
            (host("lmtp://host"), "Cannot parse smarthost"),
            (host("smtps://lab@host"), "No auth table for relaying"),
            (host("smtp+tls://host"), "TLS is not supported yet"),
            (host("smtp://nowhere.test"), "Host not found"),
            (by_domain(), "Cannot retrieve smarthost"),
        ];
        for (target, text) in cases {
            let mut out = Out::new(target.clone(), Names::default());
            out.send(1, &["a@b.dom.test"], &memory("x\n"));
            assert_eq!(out.outcomes(1).await, [(1, format!("4.0.0 {text}"))], "{target:?}");
        }
        let mut unknown = Out::new(host("x"), Names::default());
        unknown.mta.configure(Settings::default());
        unknown.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 Action out is not configured".into())];
        assert_eq!(unknown.outcomes(1).await, expected);
    });
}

#[test]
fn a_table_gives_the_smart_host_of_a_domain() {
    run(async {
        let server = Server::start(Manners::default()).await;
        let smart_hosts = HashMap::from([("dom.test".to_owned(), server.url())]);
        let names = Names { smart_hosts, ..Names::default() };
        let mut out = Out::new(Target::DomainTable("t".into()), names);
        out.send(1, &["a@Dom.test"], &memory("x\n"));
        assert_eq!(out.outcomes(1).await, [(1, "delivered false".into())]);
    });
}

// queue cases 91, 92, 95 and 96
#[test]
fn failed_look_ups_settle_all_that_waits() {
    run(async {
        let cases = [
            (DnsFailure::DoesNotExist, "5.0.0 Domain does not exist"),
            (DnsFailure::RefusesMail, "5.0.0 Domain does not accept mail"),
            (DnsFailure::NoExchange, "4.0.0 No MX found for domain"),
            (DnsFailure::Temporary, "4.0.0 Temporary failure in MX lookup"),
        ];
        for (failure, text) in cases {
            let exchanges = HashMap::from([("r.test", Err(failure))]);
            let names = Names { exchanges, ..Names::default() };
            let mut out = Out::new(Target::Exchanges, names);
            out.send(1, &["a@r.test", "b@r.test"], &memory("x\n"));
            assert_eq!(out.outcomes(2).await, [(1, text.into()), (2, text.to_owned())]);
            out.becomes_idle().await;
        }
    });
}

#[test]
fn a_backup_that_is_the_best_exchange_sends_nothing() {
    run(async {
        let us = Exchange {
            preference: 10,
            host: "us.test".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
        };
        let exchanges = HashMap::from([("r.test", Ok(vec![us]))]);
        let names = Names { exchanges, ..Names::default() };
        let mut out = Out::new(Target::Backup(Some("us.test".into())), names);
        out.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 No MX found for destination".into())];
        assert_eq!(out.outcomes(1).await, expected);
    });
}

#[test]
fn a_message_in_a_file_arrives_whole() {
    run(async {
        let mut server = Server::start(Manners::default()).await;
        let mut out = Out::to(&server);
        let line = format!(".{}\n", "x".repeat(97));
        let text = line.repeat(3_000);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let file = Arc::new(file);
        let size = text.len() as u64;
        out.send(1, &["a@r.test"], &Body::File { file: Arc::clone(&file), size });
        assert_eq!(out.outcomes(1).await, [(1, "delivered false".into())]);
        let message = server.seen(5).await.pop().unwrap().1;
        assert_eq!(message, text.replace('\n', "\r\n").replace(".x", "..x") + ".\r\n");

        // A file that is shorter than it should be is not sent as if it were whole.
        out.send(2, &["a@r.test"], &Body::File { file, size: size + 1 });
        let expected = [(1, "4.0.0 Error reading content file".into())];
        assert_eq!(out.outcomes(1).await, expected);
        out.becomes_idle().await;
    });
}

#[test]
fn a_hundred_messages_are_shared_by_a_few_connections() {
    run(async {
        let manners = Manners { pace: Duration::from_millis(2), ..Manners::default() };
        let mut server = Server::start(manners).await;
        let mut out = Out::with(Target::Host(server.url()), Names::default(), |_, limits| {
            limits.task_hiwat = 1000;
        });
        for number in 1..=100 {
            out.send(number, &["a@r.test"], &memory("x\n"));
        }
        let outcomes = out.outcomes(100).await;
        assert!(outcomes.iter().all(|(_, text)| text == "delivered false"), "{outcomes:?}");
        out.becomes_idle().await;
        let mut connections = std::collections::HashSet::new();
        let mut messages = 0;
        while let Ok((number, line)) = server.seen.try_recv() {
            connections.insert(number);
            messages += usize::from(line == "x\r\n.\r\n");
        }
        assert_eq!(messages, 100);
        assert!((2..=5).contains(&connections.len()), "{connections:?}");
    });
}

// queue case 105
#[test]
fn a_session_takes_its_share_and_another_follows() {
    run(async {
        let mut server = Server::start(Manners::default()).await;
        let mut out = Out::with(Target::Host(server.url()), Names::default(), |_, limits| {
            limits.session_mail_max = 2;
            limits.max_conn_per_relay = 1;
        });
        for number in 1..=5 {
            out.send(number, &["a@r.test"], &memory("x\n"));
        }
        out.outcomes(5).await;
        out.becomes_idle().await;
        let mut by_connection = [0; 3];
        while let Ok((number, line)) = server.seen.try_recv() {
            by_connection[number] += usize::from(line == "DATA");
        }
        assert_eq!(by_connection, [2, 2, 1]);
    });
}

#[test]
fn an_idle_session_serves_the_next_message() {
    run(async {
        let mut server = Server::start(Manners::default()).await;
        let mut out = Out::to(&server);
        for number in 1..=3 {
            out.send(number, &["a@r.test"], &memory("x\n"));
            out.outcomes(1).await;
        }
        out.becomes_idle().await;
        let seen = server.seen(14).await;
        assert!(seen.iter().all(|(connection, _)| *connection == 0), "{seen:?}");
        assert_eq!(seen.iter().filter(|(_, line)| line == "QUIT").count(), 1);
    });
}

// queue cases 47 and 48
#[test]
fn a_busy_relay_holds_and_releases() {
    run(async {
        let manners = Manners { pace: Duration::from_millis(5), ..Manners::default() };
        let server = Server::start(manners).await;
        let mut out = Out::with(Target::Host(server.url()), Names::default(), |_, limits| {
            limits.task_hiwat = 4;
            limits.task_lowat = 2;
            limits.task_release = 3;
        });
        for number in 1..=6 {
            out.send(number, &["a@r.test"], &memory("x\n"));
        }
        let (mut held, mut delivered, mut released) = (0, 0, Vec::new());
        while delivered < 4 || released.last() != Some(&Release::All) {
            match out.next().await {
                Event::Held { .. } => held += 1,
                Event::Released { release, .. } => released.push(release),
                Event::Settled { .. } => delivered += 1,
                Event::Retry { .. } => panic!("nothing failed"),
            }
        }
        assert_eq!((held, released), (2, vec![Release::Count(3), Release::All]));
    });
}

// queue case 109
#[test]
fn a_server_that_talks_nonsense_is_left_alone() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(&[b'x'; 5_000]).await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        });
        let mut out = Out::new(Target::Host(url), Names::default());
        out.send(1, &["a@r.test"], &memory("x\n"));
        let expected = [(1, "4.0.0 Network error on destination MXs".into())];
        assert_eq!(out.outcomes(1).await, expected);
    });
}

// queue case 110
#[test]
fn a_server_without_a_banner_is_left_after_five_minutes() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let mut out = Out::new(Target::Host(url), Names::default());
        let start = tokio::time::Instant::now();
        out.send(1, &["a@r.test"], &memory("x\n"));
        let Some(Event::Settled { outcome: Outcome::Temporary(failure), .. }) =
            out.events.recv().await
        else {
            panic!("no outcome")
        };
        assert_eq!(failure.text, "Network error on destination MXs");
        assert!(start.elapsed() >= Duration::from_secs(300), "{:?}", start.elapsed());
        drop(listener);
    });
}

#[test]
fn a_panic_defers_the_mail_at_hand_and_nothing_else() {
    run(async {
        let host = || Target::Host("smtp://127.0.0.1:1".into());
        let cases = [
            (host(), "reverse", "Network error on destination MXs"),
            (Target::Exchanges, "mx", "Temporary failure in MX lookup"),
            (Target::HostTable("t".into()), "smart_host", "Cannot retrieve smarthost"),
        ];
        for (target, defect, text) in cases {
            let mut out = Out::new(target, Names::with_defect(defect));
            out.send(1, &["a@r.test"], &memory("x\n"));
            assert_eq!(out.outcomes(1).await, [(1, format!("4.0.0 {text}"))], "{defect}");
            out.becomes_idle().await;
        }
    });
}
