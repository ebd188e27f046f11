//! Reload of the configuration: `smtpctl reload` and SIGHUP.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::filter_program::FilterProgram;
use common::peer::{Peer, message};
use common::process;
use common::server::{Server, free_address};
use common::spec_case;
use common::wait::{SOON, wait_for, wait_until};
use nix::sys::signal::Signal;

/// Mail for this domain is delivered; `more` goes in front.
fn config(more: &str, domain: &str) -> String {
    format!(
        "@LISTEN@\n{more}\ntable users {{ \"@\" = \"@USER@\" }}\n\
         action \"local\" maildir \"@DIR@/mail/{domain}\" virtual <users>\n\
         match from any for domain \"{domain}\" action \"local\"\n"
    )
}

fn listen(address: SocketAddr) -> String {
    format!("listen on {} port {}", address.ip(), address.port())
}

/// Writes another configuration over the one that the server was started with.
fn write(server: &Server, text: &str) {
    let path = server.path("smtpd.conf");
    let before = fs::read_to_string(&path).unwrap();
    let listen = before.lines().next().unwrap();
    let directory = path.parent().unwrap().to_str().unwrap();
    let text = text
        .replace("@LISTEN@", listen)
        .replace("@DIR@", directory)
        .replace("@USER@", &server.account().name);
    fs::write(&path, text).unwrap();
}

/// The first reply to a recipient.
fn recipient(peer: &mut Peer, address: &str) -> u16 {
    assert_eq!(peer.say("MAIL FROM:<a@client.example>").unwrap().code, 250);
    peer.say(&format!("RCPT TO:<{address}>")).unwrap().code
}

#[test]
fn a_hang_up_brings_rules_and_listeners_of_the_file_into_use() {
    let (old, new) = (free_address(), free_address());
    let server = Server::start(&config(&listen(old), "one.example"));
    server.accept(&["x@one.example"], &message("before"));
    assert_eq!(recipient(&mut server.peer(), "x@two.example"), 550);
    assert!(TcpStream::connect(old).is_ok() && TcpStream::connect(new).is_err());
    let parent = server.parent();

    write(&server, &config(&listen(new), "two.example"));
    process::send(parent, Signal::SIGHUP);
    server.wait_for_log("configuration reloaded, generation 2");
    wait_until("the new set serves", SOON, || TcpStream::connect(old).is_err());
    assert!(TcpStream::connect(new).is_ok());
    assert_eq!(recipient(&mut server.peer(), "x@one.example"), 550);
    server.accept(&["x@two.example"], &message("after"));
    server.maildir("one.example").wait_for(1, SOON);
    server.maildir("two.example").wait_for(1, SOON);
    assert_eq!(server.parent(), parent);
    spec_case::ran("config", 267);
}

#[test]
fn a_file_with_errors_leaves_everything_as_it_is() {
    let taken = free_address();
    let _holder = std::net::TcpListener::bind(taken).unwrap();
    let server = Server::start(&config("", "one.example"));
    let dispatcher = server.role("dispatcher").pid;
    let cases = [
        (config("nonsense", "two.example"), "smtpd.conf:2: "),
        (config(&listen(taken), "two.example"), "Address already in use"),
    ];
    for (text, reason) in cases {
        write(&server, &text);
        let said = server.control(&["reload"]);
        assert_eq!((said.status, said.output.trim()), (1, "command failed"), "{said:?}");
        server.wait_for_log(reason);
        server.wait_for_log("configuration not reloaded");
    }
    assert_eq!(server.role("dispatcher").pid, dispatcher);
    server.accept(&["x@one.example"], &message("still"));
    server.maildir("one.example").wait_for(1, SOON);
    assert_eq!(recipient(&mut server.peer(), "x@two.example"), 550);
}

#[test]
fn nobody_is_refused_while_the_configuration_is_reloaded() {
    let server = Server::start(&config("", "one.example"));
    let address = server.address();
    for number in 0..10 {
        server.accept(&["x@one.example"], &message(&format!("before {number}")));
    }
    let until = Instant::now() + Duration::from_secs(4);
    let clients = std::thread::spawn(move || {
        let mut served = 0;
        while Instant::now() < until {
            let mut peer = Peer::connect(address).expect("a connection is accepted");
            // Who is connected while the old set ends may lose the connection.
            if peer.reply().is_ok_and(|banner| banner.code == 220) {
                served += 1;
            }
        }
        served
    });
    for _ in 0..3 {
        // Until the next set is there, who asks is told to try again.
        let said = wait_for("a reload", SOON, || {
            let said = server.control(&["reload"]);
            (said.status == 0).then_some(said)
        });
        assert_eq!(said.output.trim(), "command succeeded");
    }
    server.wait_for_log("configuration reloaded, generation 4");
    assert!(clients.join().unwrap() > 10);
    server.maildir("one.example").wait_for(10, SOON);
}

#[test]
fn a_filter_that_a_reload_brings_has_the_group_it_is_configured_with() {
    let server = Server::start(&config("", "one.example"));
    let own = nix::unistd::Gid::from_raw(server.account().gid);
    let group = nix::unistd::Group::from_gid(own).unwrap().unwrap().name;
    let filter = FilterProgram::install(&server, "f1");
    filter.registers("register|report|smtp-in|link-connect\n");
    let program = server.path("filter-test").display().to_string();
    let file = server.path("f1").display().to_string();
    let more = format!("filter f1 proc-exec \"{program} {file}\" group \"{group}\"");
    let text = config(&more, "one.example");
    let text = text.replacen("@LISTEN@\n", "", 1).replacen(
        "table users",
        "@LISTEN@ filter f1\ntable users",
        1,
    );
    write(&server, &text);
    process::send(server.parent(), Signal::SIGHUP);
    server.wait_for_log("configuration reloaded, generation 2");
    wait_until("the new set serves through the filter", SOON, || {
        Peer::greeted(server.address()).is_ok_and(|mut peer| {
            let sent = peer.submit("a@b.example", &["x@one.example"], &message("filtered"));
            sent.is_ok_and(|reply| reply.code == 250)
        })
    });
}

#[test]
fn a_reload_between_two_sets_begins_one_set_and_not_two() {
    let server = Server::start(&config("", "one.example"));
    // The pauses before the next set: none, 50 ms, 100, 200, 400, 800.
    for _ in 0..6 {
        process::send(server.role("dispatcher").pid, Signal::SIGKILL);
        let queue = server.role("queue");
        process::wait_until_gone(&[queue]);
    }
    wait_until("only the spawner is left", SOON, || {
        process::children(server.parent()).iter().all(|process| process.name == "spawner")
    });
    process::send(server.parent(), Signal::SIGHUP);
    server.wait_for_log("configuration reloaded, generation 2");
    server.accept(&["x@one.example"], &message("after"));
    server.maildir("one.example").wait_for(1, SOON);
    let mut before = process::children(server.parent());
    std::thread::sleep(Duration::from_secs(2));
    let mut after = process::children(server.parent());
    before.sort_by_key(|process| process.pid);
    after.sort_by_key(|process| process.pid);
    assert_eq!(before, after, "a second set was begun");
}
