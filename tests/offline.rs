//! Messages that `sendmail` keeps while the server is down, and what its next start does with them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use common::account::give;
use common::maildir::{Maildir, header};
use common::root::{ALICE, SMTPQ};
use common::server::{DELIVER, Server};
use common::wait::{SOON, wait_until};
use platform::privilege::is_root;

/// A server that has made its directories and is down.
fn stopped() -> Server {
    let mut server = Server::start(&DELIVER.replace("from any", "from local"));
    assert!(server.stop().success());
    server
}

fn offline(server: &Server) -> PathBuf {
    server.state().join("spool/offline")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

// queue case 194
#[test]
fn a_message_that_was_kept_is_submitted_after_the_next_start() {
    let mut server = stopped();
    let text = "To: alice@example.org\nBcc: bob@example.org\nSubject: kept\n\nwhile down\n";
    let said = server.sendmail(&["-t", "-f", "me@client.example"], text);
    assert_eq!((said.status, said.errors.as_str()), (75, ""));
    let [name] = &names(&offline(&server))[..] else { panic!("one file") };
    let kept = fs::metadata(offline(&server).join(name)).unwrap();
    assert_eq!((kept.mode() & 0o777, kept.uid()), (0o600, server.account().uid));

    server.run();
    // The recipient that its header no longer names gets it, too.
    for user in ["alice", "bob"] {
        let messages = server.maildir(user).wait_for(1, SOON);
        assert_eq!(header(&messages[0], "Return-Path").as_deref(), Some("<me@client.example>"));
        assert!(messages[0].contains("Subject: kept\n"), "{}", messages[0]);
        assert!(!messages[0].contains("Bcc"), "{}", messages[0]);
        assert!(messages[0].ends_with("\n\nwhile down\n"), "{}", messages[0]);
    }
    wait_until("the file is removed", SOON, || names(&offline(&server)).is_empty());
}

#[test]
fn many_messages_are_submitted_each_once() {
    const MESSAGES: usize = 50;
    let mut server = stopped();
    for number in 0..MESSAGES {
        let text = format!("Message-ID: <m{number}@client.example>\n\nx\n");
        assert_eq!(server.sendmail(&["alice@example.org"], &text).status, 75);
    }
    server.run();
    server.maildir("alice").wait_for(MESSAGES, SOON);
    wait_until("all files are removed", SOON, || names(&offline(&server)).is_empty());
    let mut expected: Vec<_> =
        (0..MESSAGES).map(|number| format!("<m{number}@client.example>")).collect();
    expected.sort();
    assert_eq!(server.maildir("alice").ids(), expected);
}

// queue case 196
#[test]
fn what_is_no_kept_message_is_left_alone_and_what_is_empty_removed() {
    let mut server = stopped();
    let directory = offline(&server);
    let put = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        give(&path, server.account());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    put("1.empty", "");
    put("2.refused", "nobody@elsewhere.example\nSubject: x\n\ny\n");
    put(".3.unfinished", "alice@example.org\nSubject: x\n\ny\n");
    symlink("2.refused", directory.join("4.link")).unwrap();
    let mut left = vec![".3.unfinished", "2.refused", "4.link"];
    if is_root() {
        put("5.foreign", "alice@example.org\nSubject: x\n\ny\n");
        // Whoever it is: not the account of the server.
        chown(directory.join("5.foreign"), Some(server.account().uid + 1), None).unwrap();
        left.push("5.foreign");
    } else {
        eprintln!("skipped: a file of another user needs root's rights");
    }
    put("6.last", "alice@example.org\nSubject: last\n\ny\n");

    server.run();
    let messages = server.maildir("alice").wait_for(1, SOON);
    assert!(messages[0].contains("Subject: last\n"), "{}", messages[0]);
    let refused = directory.join("2.refused");
    server.wait_for_log(&format!(
        "warn: smtpd: couldn't enqueue offline message {}; smtpctl exited abnormally",
        refused.display()
    ));
    server.wait_for_log(&format!("offline message {}", directory.join("4.link").display()));
    wait_until("only these are left", SOON, || names(&directory) == left);
    assert_eq!(server.maildir("alice").count(), 1);
}

#[test]
fn a_server_of_root_submits_each_message_as_its_owner() {
    let config = r#"
@LISTEN@
action "local" maildir
match from local for domain "example.org" action "local"
"#;
    let Some(mut server) = Server::start_as_root(config) else { return };
    assert!(server.stop().success());
    let directory = offline(&server);
    let found = fs::metadata(&directory).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o770, 0, SMTPQ));
    let text = |subject: &str| format!("bob@example.org\nSubject: {subject}\n\nx\n");
    // As the set-group-ID program leaves them.
    for (name, owner, group) in
        [("1.a", ALICE, SMTPQ), ("2.b", ALICE, ALICE), ("3.c", 4_321, SMTPQ)]
    {
        fs::write(directory.join(name), text(name)).unwrap();
        chown(directory.join(name), Some(owner), Some(group)).unwrap();
    }
    // The group of root's own is put right.
    let said = server.sendmail(&["bob@example.org"], "Subject: root\n\nx\n");
    assert_eq!((said.status, said.errors.as_str()), (75, ""));

    server.run();
    let mailbox = Maildir::new(server.path("home/bob/Maildir"));
    let mut senders: Vec<_> = mailbox
        .wait_for(2, SOON)
        .iter()
        .map(|text| (header(text, "Subject").unwrap(), header(text, "Return-Path").unwrap()))
        .collect();
    senders.sort();
    let [(first, alice), (second, root)] = &senders[..] else { panic!("{senders:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("1.a", "root"));
    assert!(alice.starts_with("<alice@"), "{alice}");
    assert!(root.starts_with("<root@"), "{root}");
    server.wait_for_log("2.b: its group is not that of the directory");
    server.wait_for_log("user 4321: there is no such account");
    wait_until("only these are left", SOON, || names(&directory) == ["2.b", "3.c"]);
}
