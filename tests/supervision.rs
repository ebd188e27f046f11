//! Processes that die: the service answers again at once, nothing that was acknowledged is lost,
//! and only what was being delivered at that moment may arrive twice.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::load::Load;
use common::peer::{Peer, message};
use common::process;
use common::server::{DELIVER, Server};
use common::sink::Sink;
use common::wait::{SOON, wait_until};
use nix::sys::signal::Signal;

/// How soon the service must answer again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long what is left in the queue may take: failed attempts are repeated after 10 s.
const DRAIN: Duration = Duration::from_secs(90);
/// After this time an outcome is on the disk (at most 200 ms and a sync, plus a busy machine).
const SETTLED: Duration = Duration::from_secs(1);

/// Time until a message is taken from a new session.
fn time_to_answer(server: &Server) -> Duration {
    let start = Instant::now();
    let attempt = || -> io::Result<u16> {
        let mut peer = Peer::connect(server.address())?;
        peer.stream().set_read_timeout(Some(Duration::from_secs(5)))?;
        peer.reply()?;
        peer.say("EHLO client.example")?;
        let to = ["probe@example.org"];
        Ok(peer.submit("probe@client.example", &to, &message("probe"))?.code)
    };
    wait_until("the service answers again", SOON, || attempt().is_ok_and(|code| code == 250));
    start.elapsed()
}

/// Envelopes and how often the log says that each was delivered.
fn delivered_envelopes(server: &Server) -> BTreeMap<String, usize> {
    let mut envelopes = BTreeMap::new();
    for line in server.log().lines().filter(|line| line.contains(" result=Ok ")) {
        let id = line.split_once("evpid=").and_then(|(_, rest)| rest.split(' ').next());
        *envelopes.entry(id.unwrap().to_owned()).or_default() += 1;
    }
    envelopes
}

/// The envelopes that were delivered long enough ago for that to be on the disk.
fn settled(server: &Server) -> BTreeSet<String> {
    let delivered = delivered_envelopes(server).into_keys().collect();
    sleep(SETTLED);
    delivered
}

/// Compares what was acknowledged with what arrived. What was `settled` before any process died
/// must not have been delivered twice.
fn compare(server: &Server, acknowledged: &BTreeSet<String>, settled: &BTreeSet<String>) {
    wait_until("the queue is empty", DRAIN, || server.queue().is_empty());
    let arrived = server.maildir("load").ids();
    let all: BTreeSet<&String> = arrived.iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !all.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    let twice: Vec<_> =
        delivered_envelopes(server).into_iter().filter(|(_, count)| *count > 1).collect();
    let again: Vec<_> = twice.iter().filter(|(id, _)| settled.contains(id)).collect();
    assert!(again.is_empty(), "delivered again although settled: {again:?}");
    let duplicates = arrived.len() - all.len();
    println!("{} messages, {duplicates} were in flight and came twice", acknowledged.len());
}

/// Kills the process of a role under load and proves what the head of this file says.
fn kill_under_load(role: &str) {
    let server = Server::start(DELIVER);
    let load = Load::start(server.address(), 4, "load@example.org");
    wait_until("the load runs", SOON, || server.maildir("load").count() > 50);

    let settled = settled(&server);
    for _ in 0..2 {
        let victim = server.role(role);
        let before = load.count();
        process::send(victim.pid, Signal::SIGKILL);
        let took = time_to_answer(&server);
        println!("{role}: answered again after {} ms", took.as_millis());
        assert!(took < AGAIN, "{role}: answered again after {took:?}");
        wait_until("the load goes on", SOON, || load.count() > before + 50);
        wait_until("the role is played again", SOON, || server.role(role).pid != victim.pid);
    }

    compare(&server, &load.finish(), &settled);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn the_end_of_control_is_not_noticed_by_mail() {
    kill_under_load("control");
}

#[test]
fn the_end_of_the_dispatcher_loses_nothing() {
    kill_under_load("dispatcher");
}

#[test]
fn the_end_of_keys_is_not_noticed_by_mail() {
    kill_under_load("keys");
}

#[test]
fn the_end_of_lookup_loses_nothing() {
    kill_under_load("lookup");
}

#[test]
fn the_end_of_the_queue_loses_nothing() {
    kill_under_load("queue");
}

#[test]
fn the_end_of_the_scheduler_loses_nothing() {
    kill_under_load("scheduler");
}

#[test]
fn the_end_of_the_spawner_loses_nothing() {
    kill_under_load("spawner");
}

#[test]
fn the_end_of_workers_loses_nothing() {
    let server = Server::start(DELIVER);
    let load = Load::start(server.address(), 4, "load@example.org");
    wait_until("the load runs", SOON, || server.maildir("load").count() > 50);
    let settled = settled(&server);
    let mut killed = 0;
    let end = Instant::now() + SOON;
    while killed < 5 && Instant::now() < end {
        let spawner = server.role("spawner");
        for worker in process::children(spawner.pid) {
            process::send(worker.pid, Signal::SIGKILL);
            killed += 1;
        }
        sleep(Duration::from_millis(100));
    }
    assert!(killed >= 5, "there were no workers to kill");
    let acknowledged = load.finish();
    assert_eq!(server.control(&["schedule", "all"]).status, 0);
    compare(&server, &acknowledged, &settled);
}

#[test]
fn a_daemon_that_was_killed_goes_on_where_it_was() {
    let mut server = Server::start(DELIVER);
    let load = Load::start(server.address(), 4, "load@example.org");
    wait_until("the load runs", SOON, || load.count() > 50);
    let settled = settled(&server);
    for _ in 0..2 {
        let before = load.count();
        wait_until("the load runs", SOON, || load.count() > before + 50);
        // Every role leaves when its parent is gone.
        server.kill();
        let start = Instant::now();
        server.run();
        println!("serves again after {} ms", start.elapsed().as_millis());
        assert!(start.elapsed() < AGAIN, "serves again after {:?}", start.elapsed());
    }
    let before = load.count();
    wait_until("the load goes on", SOON, || load.count() > before + 50);
    compare(&server, &load.finish(), &settled);
}

#[test]
fn relaying_goes_on_after_every_kind_of_death() {
    let sink = Sink::start();
    let server = Server::start(&format!(
        "@LISTEN@\nmta limit conn-delay-route 0\nmta limit conn-delay-relay 0\n\
         mta limit reconn-delay-route 0\n\
         action \"out\" relay host \"smtp+notls://{}\"\nmatch from any for any action \"out\"\n",
        sink.address()
    ));
    let load = Load::start(server.address(), 2, "load@far.example");
    for role in ["lookup", "dispatcher", "scheduler", "queue"] {
        let before = load.count();
        wait_until("the load runs", SOON, || load.count() > before + 20);
        process::send(server.role(role).pid, Signal::SIGKILL);
    }
    let acknowledged = load.finish();
    time_to_answer(&server);
    // What failed for now would be tried again after 400 s.
    wait_until("the queue is empty", DRAIN, || {
        assert_eq!(server.control(&["schedule", "all"]).status, 0);
        sleep(Duration::from_millis(200));
        server.queue().is_empty()
    });
    let received = sink.received();
    for id in &acknowledged {
        let wanted = format!("Message-ID: {id}\n");
        assert!(received.iter().any(|one| one.content.contains(&wanted)), "{id} is lost");
    }
}

#[test]
fn two_daemons_cannot_use_one_spool() {
    let first = Server::start(DELIVER);
    // The same state: its control socket answers.
    let state = first.state();
    let mut second = Server::prepare(DELIVER, &["--state", state.to_str().unwrap()]);
    second.spawn();
    assert!(!second.wait_for_end().success());
    assert!(second.log().contains("already listening"), "{}", second.log());

    // Even without a socket to ask, the lock on the spool holds.
    fs::remove_file(first.state().join("run/smtpd.sock")).unwrap();
    second.spawn();
    let end = Instant::now() + SOON;
    while !second.log().contains("another process uses this spool") {
        assert!(Instant::now() < end, "{}", second.log());
        sleep(Duration::from_millis(10));
    }
    drop(second);
    first.accept(&["alice@example.org"], &message("first"));
    first.maildir("alice").wait_for(1, SOON);
}

#[test]
fn a_daemon_that_is_told_to_leave_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(DELIVER);
        let socket = server.state().join("run/smtpd.sock");
        let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o666, "everybody may submit");
        let pid = fs::read_to_string(server.state().join("run/smtpd.pid")).unwrap();
        assert_eq!(pid.trim(), server.parent().to_string());
        server.accept(&["alice@example.org"], &message("last"));
        let processes = server.processes();
        process::send(server.parent(), signal);
        assert!(server.wait_for_end().success());
        for leftover in ["run/smtpd.sock", "run/smtpd.pid"] {
            assert!(!server.state().join(leftover).exists(), "{signal}: {leftover} was left");
        }
        process::wait_until_gone(&processes);
        // What was acknowledged is delivered, or still there.
        server.run();
        server.maildir("alice").wait_for(1, SOON);
    }
}

/// As a terminal does at Ctrl-C or when it is closed, and a service manager that stops a group.
#[test]
fn signals_that_everyone_gets_are_for_the_parent_alone() {
    let mut server = Server::start(DELIVER);
    let roles = process::children(server.parent());
    assert_eq!(roles.len(), 7, "{roles:?}");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        for role in &roles {
            process::send(role.pid, signal);
        }
    }
    server.accept(&["alice@example.org"], &message("still"));
    server.maildir("alice").wait_for(1, SOON);
    assert!(roles.iter().all(|role| process::is_alive(role.pid)), "{}", server.log());
    assert!(server.stop().success());
    process::wait_until_gone(&roles);
}

#[test]
fn all_roles_with_one_credit_and_small_buffers_make_progress() {
    let server = Server::start_with(DELIVER, &["--channel-credits", "1"]);
    let load = Load::start(server.address(), 8, "load@example.org");
    let large = message("large") + &"a line of a large body\n".repeat(100_000);
    for _ in 0..3 {
        server.accept(&["big@example.org"], &large);
    }
    let many: Vec<String> = (0..500).map(|n| format!("many{n}@example.org")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    server.accept(&many, &message("many"));
    for word in ["queue", "stats", "status"] {
        let said = server.control(&["show", word]);
        assert_eq!(said.status, 0, "show {word}: {said:?}");
    }
    wait_until("the load gets on", SOON, || load.count() > 200);
    let acknowledged = load.finish();
    compare(&server, &acknowledged, &BTreeSet::new());
    // Nothing died: nothing came twice.
    let arrived = server.maildir("load").ids();
    assert_eq!(arrived.len(), arrived.iter().collect::<BTreeSet<_>>().len());
    assert_eq!(server.maildir("big").count(), 3);
    assert!((0..500).all(|n| server.maildir(&format!("many{n}")).count() == 1));
}
