//! Under whose account, in which environment, and with which values local deliveries are made.
//!
//! Needs root, in a mount namespace with accounts of the test; skipped with a printed reason else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::peer::message;
use common::root::{BOB, SMTPD};
use common::server::Server;
use common::spec_case;
use common::wait::{SOON, wait_for};

const CONFIG: &str = r#"
@LISTEN@
table commands { run = "|(id -u; echo %{rcpt}; env) > $HOME/alias" }
table files { keep = "@DIR@/mail/with blank" }
action "commands" mbox alias <commands>
action "files" mbox alias <files>
action "shared" mda "(id -u; echo %{user.directory}; env) > $HOME/shared" user bob
action "own" mda "env > $HOME/own"
match from any for domain "commands.example" action "commands"
match from any for domain "files.example" action "files"
match from any for domain "shared.example" action "shared"
match from any for domain "own.example" action "own"
"#;

/// The lines of a file that a command writes, once the delivery is done.
fn lines(server: &Server, recipient: &str, file: &Path) -> Vec<String> {
    server.wait_for_log(&format!("to=<{recipient}> rcpt=<{recipient}>"));
    let text = wait_for("the command's file", SOON, || fs::read_to_string(file).ok());
    text.lines().map(str::to_owned).collect()
}

#[test]
fn commands_run_as_the_right_account_with_the_recipients_values() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    let home = |name: &str| -> PathBuf { server.path("home").join(name) };
    let recipients = [
        "run@commands.example",
        "keep@files.example",
        "alice@shared.example",
        "Alice+Ext@own.example",
    ];
    server.accept(&recipients, &message("identity"));

    // A command of an alias runs as the daemon's account, in its home.
    let said = lines(&server, recipients[0], &home("_smtpd").join("alias"));
    assert_eq!(said[..2], [SMTPD.to_string(), recipients[0].to_owned()]);
    assert!(said.contains(&format!("HOME={}", home("_smtpd").display())), "{said:?}");
    spec_case::ran("config", 258);

    // A file is one path, blanks and all.
    server.wait_for_log("to=<keep@files.example>");
    let kept = server.path("mail/with blank");
    let text = wait_for("the file", SOON, || fs::read_to_string(&kept).ok());
    assert!(text.contains("This is identity."), "{text}");
    assert_eq!(fs::metadata(&kept).unwrap().uid(), SMTPD);
    spec_case::ran("config", 257);

    // With `user`, the account is that one's, and everything else the recipient's.
    let said = lines(&server, recipients[2], &home("bob").join("shared"));
    assert_eq!(said[..2], [BOB.to_string(), home("alice").display().to_string()]);
    for line in ["USER=alice", "LOGNAME=alice", &format!("HOME={}", home("bob").display())] {
        assert!(said.iter().any(|one| one == line), "{line}: {said:?}");
    }
    spec_case::ran("config", 259);

    let said = lines(&server, recipients[3], &home("alice").join("own"));
    for line in ["EXTENSION=ext", "LOCAL=Alice+Ext", "USER=alice"] {
        assert!(said.iter().any(|one| one == line), "{line}: {said:?}");
    }
    spec_case::ran("config", 260);
}
