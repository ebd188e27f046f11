//! Queued mail whose action has gone from the configuration, or does something else now.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;

use common::peer::message;
use common::process;
use common::server::Server;
use common::spec_case;
use common::wait::{SOON, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The configuration with action "a" as told, or without it.
fn config(action: Option<&str>) -> String {
    let action = action.map(|what| format!("action \"a\" {what}\n")).unwrap_or_default();
    format!(
        "@LISTEN@\ntable users {{ \"@\" = \"@USER@\" }}\n{action}\
         action \"b\" maildir \"@DIR@/mail/b\" virtual <users>\n\
         match from any for domain \"b.example\" action \"b\"\n"
    )
}

/// Ends the server and starts it with another configuration.
fn restart(server: &mut Server, action: Option<&str>) {
    let path = server.path("smtpd.conf");
    let before = fs::read_to_string(&path).unwrap();
    let listen = before.lines().next().unwrap();
    let text = config(action)
        .replace("@LISTEN@", listen)
        .replace("@DIR@", path.parent().unwrap().to_str().unwrap())
        .replace("@USER@", &server.account().name);
    assert!(server.stop().success());
    fs::write(&path, text).unwrap();
    server.run();
}

/// The one line of the queue, its first and its last field apart.
fn only_line(server: &Server) -> (String, String, String) {
    let queue = server.queue();
    assert_eq!(queue.len(), 1, "{queue:?}");
    let (id, rest) = queue[0].split_once('|').unwrap();
    let (fields, error) = rest.rsplit_once('|').unwrap();
    (id.to_owned(), fields.to_owned(), error.to_owned())
}

fn json(server: &Server, words: &[&str]) -> Value {
    let said = server.control(&[&["--json"], words].concat());
    assert_eq!(said.status, 0, "{said:?}");
    serde_json::from_str(&said.output).unwrap()
}

#[test]
fn mail_waits_for_its_action_and_follows_what_it_has_become() {
    // Not a file that is written: the first delivery is to fail for now.
    let first = config(Some("mda \"echo later; exit 75\" virtual <users>"))
        + "match from any for domain \"a.example\" action \"a\"\n";
    let mut server = Server::start(&first);
    server.accept(&["x@a.example"], &message("held"));
    server.wait_for_log("result=TempFail");
    wait_until("the failure is written down", SOON, || only_line(&server).2.contains("later"));

    restart(&mut server, None);
    let (id, fields, error) = only_line(&server);
    let gone = "held: action \"a\" is not in the configuration";
    assert_eq!(error, format!("{gone}; last error: \"later\""));
    assert!(fields.starts_with("inet4|mda|hold|"), "{fields}");
    let listed = json(&server, &["show", "queue"]);
    assert_eq!(listed["held_because"], gone);
    assert_eq!((&listed["action"], &listed["error"]), (&"a".into(), &"\"later\"".into()));
    let shown = server.control(&["show", "envelope", &id]);
    assert!(shown.output.ends_with(&format!("held-because: {gone}\n")), "{shown:?}");
    assert_eq!(json(&server, &["show", "envelope", &id])["held-because"], gone);
    let said = format!("invalid envelope {id}: unknown dispatcher: action \"a\"");
    server.wait_for_log(&said);
    // An administrator cannot force what nobody knows how to do; others are not held up.
    let scheduled = server.control(&["schedule", &id]).output;
    assert_eq!(scheduled, "0 envelope scheduled\n");
    server.accept(&["y@b.example"], &message("other"));
    server.maildir("b").wait_for(1, SOON);
    assert_eq!(server.log().matches(&said).count(), 1);

    restart(&mut server, Some("relay"));
    let (_, _, error) = only_line(&server);
    assert!(error.starts_with("held: action \"a\" is of another kind now; "), "{error}");

    restart(&mut server, Some("maildir \"@DIR@/mail/a\" virtual <users>"));
    assert_eq!(only_line(&server).2, "\"later\"");
    assert_eq!(server.control(&["schedule", &id]).output, "1 envelope scheduled\n");
    assert_eq!(server.maildir("a").wait_for(1, SOON).len(), 1);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    spec_case::ran("queue", 21);
}

#[test]
fn mail_for_other_servers_is_not_delivered_by_an_action_that_became_local() {
    let relay = "relay host \"smtp://127.0.0.1:9\"";
    let first = config(Some(relay)) + "match from any for domain \"a.example\" action \"a\"\n";
    let mut server = Server::start(&first);
    server.accept(&["x@a.example"], &message("held"));
    wait_until("the attempt has failed", SOON, || !only_line(&server).2.is_empty());
    restart(&mut server, Some("maildir \"@DIR@/mail/a\" virtual <users>"));
    let (id, fields, error) = only_line(&server);
    assert!(fields.starts_with("inet4|mta|hold|"), "{fields}");
    assert!(error.starts_with("held: action \"a\" is of another kind now"), "{error}");
    assert_eq!(server.control(&["remove", &id]).status, 0);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert!(!server.path("mail/a").exists());
}

#[test]
fn without_a_server_show_queue_says_what_to_do() {
    let mut server = Server::start(&config(None));
    assert!(server.stop().success());
    let said = server.control(&["show", "queue"]);
    let expected =
        "smtpctl: smtpd doesn't seem to be running: start it, and it lists what its spool holds\n";
    assert_eq!((said.status, said.errors.as_str()), (1, expected));
}

#[test]
fn a_listing_before_the_spool_was_read_says_that_it_is_incomplete() {
    let action = "maildir \"@DIR@/mail/a\" virtual <users>";
    let rules = config(Some(action)) + "match from any for domain \"a.example\" action \"a\"\n";
    let server = Server::start_with(&rules, &["-P", "mda"]);
    server.accept(&["x@a.example"], &message("kept"));
    assert_eq!(server.queue().len(), 1);
    // A scheduler that knows nothing yet, of a queue that tells nothing yet.
    let queue = server.role("queue");
    process::send(queue.pid, Signal::SIGSTOP);
    let before = server.role("scheduler");
    process::send(before.pid, Signal::SIGKILL);
    let said = wait_for("an answer of the next scheduler", SOON, || {
        let said = server.control(&["show", "queue"]);
        (!said.errors.contains("restarted")).then_some(said)
    });
    let expected = "smtpctl: the server is still reading its spool: this listing is incomplete\n";
    assert_eq!((said.status, said.output.as_str(), said.errors.as_str()), (1, "", expected));
    process::send(queue.pid, Signal::SIGCONT);
    assert_eq!(server.queue().len(), 1);
}
