//! A helper program of the administrator in place of ours. In a file of its own, because the
//! directory of programs is shared by the servers of one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::peer::message;
use common::server::{DELIVER, Server};

// The queue page of the specification, 5.1.
#[test]
fn a_helper_in_the_named_directory_is_run_with_the_documented_arguments() {
    let mut server = Server::prepare(DELIVER, &[]);
    let helper = server.program("mail.maildir");
    let script = "#!/bin/sh\n{ echo \"called $0 $*\"; cat; } > \"$1\"\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    server.run();

    server.accept(&["alice@example.org"], &message("overridden"));
    server.wait_for_log("result=Ok stat=Delivered");
    let mailbox = server.path("mail/alice");
    let written = fs::read_to_string(&mailbox).unwrap();
    let called = format!("called {} {}\n", helper.display(), mailbox.display());
    assert!(written.starts_with(&called), "{written}");
    assert!(written.ends_with("\n\nThis is overridden.\n"), "{written}");
}
