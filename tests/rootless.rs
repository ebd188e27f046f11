//! Local deliveries of a server that an ordinary user started: everything runs as that user.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;

use common::peer::message;
use common::server::Server;
use common::wait::{SOON, wait_for};

const ALIASES: &str = r#"
@LISTEN@
table aliases {
    command = "|id -un > @DIR@/mail/ran; env >> @DIR@/mail/ran"
    file = "@DIR@/mail/file"
    later = "|echo temporary trouble >&2; exit 75"
    never = "|exit 77"
}
action "local" maildir "@DIR@/mail/box" alias <aliases>
match from any for domain "example.org" action "local"
"#;

#[test]
fn commands_and_files_of_aliases_belong_to_who_started_the_server() {
    let server = Server::start(ALIASES);
    server.accept(&["command@example.org", "file@example.org"], &message("alias"));
    let name = &server.account().name;
    let text = wait_for("the file is written", SOON, || {
        fs::read_to_string(server.path("mail/file")).ok().filter(|text| text.contains("alias"))
    });
    assert!(text.starts_with("From sender@client.example "), "{text}");
    let ran = wait_for("the command has run", SOON, || {
        fs::read_to_string(server.path("mail/ran")).ok().filter(|text| text.contains("PATH="))
    });
    assert_eq!(ran.lines().next(), Some(name.as_str()));
    assert!(ran.contains(&format!("\nUSER={name}\n")), "{ran}");
    server.wait_for_log(&format!(" user={name} delay="));
}

// The queue page of the specification, 5.5.
#[test]
fn the_log_tells_exit_statuses_in_words() {
    let server = Server::start(ALIASES);
    server.accept(&["later@example.org", "never@example.org"], &message("stat"));
    server.wait_for_log("result=TempFail stat=Error (temporary failure: \"temporary trouble\")");
    server.wait_for_log("result=PermFail stat=Error (permission denied: exited abnormally)");
}
