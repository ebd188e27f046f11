//! What the processes of a server that root started may do, as the system sees them, and for whom
//! they deliver.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::maildir::Maildir;
use common::peer::message;
use common::process::{self, Process};
use common::root::{ALICE, BOB, SMTPD, SMTPQ};
use common::server::Server;
use common::wait::{SOON, wait_for, wait_until};

/// Delivers to users of the system, in every way.
const CONFIG: &str = r#"
@LISTEN@
action "maildir" maildir
action "mbox" mbox
action "mda" mda "cat > $HOME/mda; id -un >> $HOME/mda"
match from any for domain "maildir.example" action "maildir"
match from any for domain "mbox.example" action "mbox"
match from any for domain "mda.example" action "mda"
"#;

/// Each role, its account, and its root directory below the state directory.
const ROLES: [(&str, u32, &str); 6] = [
    ("control", SMTPD, "run/empty"),
    ("dispatcher", SMTPD, "run/empty"),
    ("keys", SMTPQ, "run/empty"),
    ("lookup", SMTPD, "run/empty"),
    ("queue", SMTPQ, "spool"),
    ("scheduler", SMTPQ, "run/empty"),
];

fn field(process: &Process, name: &str) -> String {
    process::status(process.pid).unwrap()[name].clone()
}

/// Whether two paths are the same directory.
fn same(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).unwrap();
    of(one) == of(other)
}

/// What the descriptors of a process stand for.
fn descriptors(process: &Process) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.map(|path| path.display().to_string()).collect()
}

#[test]
fn every_role_has_the_rights_of_the_table_and_no_more() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    server.accept(&["alice@maildir.example"], &message("before"));
    for (role, uid, root) in ROLES {
        let process = server.role(role);
        let ids = [uid; 4].map(|id| id.to_string()).join("\t");
        assert_eq!(field(&process, "Uid"), ids, "{role}");
        assert_eq!(field(&process, "Gid"), ids, "{role}");
        assert_eq!(field(&process, "Groups"), uid.to_string(), "{role}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&process, set), "0000000000000000", "{role}: {set}");
        }
        assert_eq!(field(&process, "NoNewPrivs"), "1", "{role}");
        assert_eq!(field(&process, "Seccomp"), "2", "{role}");
        let directory = format!("/proc/{}", process.pid);
        let directory = Path::new(&directory);
        assert!(same(&directory.join("root"), &server.state().join(root)), "{role}: its root");
        assert!(same(&directory.join("cwd"), &server.state().join(root)), "{role}: its directory");
        // The files of a process that is not dumpable belong to root (proc(5)).
        assert_eq!(fs::metadata(directory.join("environ")).unwrap().uid(), 0, "{role}: dumpable");
        let core = fs::read_to_string(directory.join("limits")).unwrap();
        let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let limits: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(limits, ["0", "0"], "{role}: may dump core");
    }
    let spawner = server.role("spawner");
    assert_eq!(field(&spawner, "Uid"), "0\t0\t0\t0");
    assert_eq!(field(&spawner, "Threads"), "1", "it forks: it has no threads");
    assert_eq!(field(&spawner, "Seccomp"), "0", "what it starts may be set-id");
}

#[test]
fn only_the_queue_holds_the_spool_and_only_the_dispatcher_the_listeners() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    server.accept(&["alice@maildir.example"], &message("before"));
    let tables = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X} ", server.address().port());
    // State 0A is LISTEN; the inode is the tenth field.
    let listener = tables
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| {
            fields.get(1).is_some_and(|local| local.ends_with(port.trim())) && fields[3] == "0A"
        })
        .map(|fields| format!("socket:[{}]", fields[9]))
        .expect("the listener is in the table");
    let spool = server.state().join("spool").display().to_string();
    for (role, _, _) in ROLES {
        let open = descriptors(&server.role(role));
        let holds_spool = open.iter().any(|path| path.starts_with(&spool));
        assert_eq!(holds_spool, role == "queue", "{role}: {open:?}");
        let listens = open.contains(&listener);
        assert_eq!(listens, role == "dispatcher", "{role}: {open:?}");
        let log = server.path("log").display().to_string();
        for path in open.iter().filter(|path| path.starts_with('/') && **path != log) {
            // Where the test itself runs in a chroot, paths begin with its root.
            let harmless = path.ends_with("/dev/null")
                || path.starts_with("/dev/")
                || path.starts_with("/proc/");
            assert!(harmless || role == "queue", "{role} holds {path}");
        }
    }
    let open = descriptors(&server.role("spawner"));
    assert!(!open.contains(&listener) && !open.iter().any(|path| path.starts_with(&spool)));
}

#[test]
fn directories_and_sockets_have_safe_owners_and_modes() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    for (path, uid, mode) in [
        ("spool", 0, 0o711),
        ("spool/log", SMTPQ, 0o700),
        ("spool/large", SMTPQ, 0o700),
        ("spool/corrupt", SMTPQ, 0o700),
        ("spool/lock", SMTPQ, 0o600),
        ("spool/offline", 0, 0o770),
        ("run", 0, 0o711),
        ("run/empty", 0, 0o555),
        ("run/smtpd.sock", 0, 0o666),
        ("run/smtpd.pid", 0, 0o644),
    ] {
        let found = fs::metadata(server.state().join(path)).unwrap();
        assert_eq!((found.uid(), found.permissions().mode() & 0o7777), (uid, mode), "{path}");
    }
    for entry in fs::read_dir(server.state().join("spool/log")).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        assert_eq!((found.uid(), found.mode() & 0o077), (SMTPQ, 0), "{:?}", entry.path());
    }
}

#[test]
fn mail_is_delivered_by_its_recipient_alone() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    for user in ["alice", "bob"] {
        for domain in ["maildir.example", "mbox.example", "mda.example"] {
            server.accept(&[&format!("{user}@{domain}")], &message(&format!("{user}-{domain}")));
        }
    }
    for (user, uid) in [("alice", ALICE), ("bob", BOB)] {
        let home = server.path("home").join(user);
        Maildir::new(home.join("Maildir")).wait_for(1, SOON);
        let new = home.join("Maildir/new");
        let mail = fs::read_dir(&new).unwrap().next().unwrap().unwrap();
        for path in [new, mail.path()] {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o077), (uid, uid, 0), "{path:?}");
        }

        let mailbox = server.path("var-mail").join(user);
        let text = wait_for("the system mailbox", SOON, || {
            fs::read_to_string(&mailbox).ok().filter(|text| text.contains("This is"))
        });
        assert!(text.starts_with("From sender@client.example "), "{text}");
        let found = fs::metadata(&mailbox).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (uid, 0o600), "{user}");

        let said = wait_for("the command's output", SOON, || {
            let text = fs::read_to_string(home.join("mda")).ok()?;
            text.ends_with(&format!("{user}\n")).then_some(text)
        });
        assert!(said.contains(&format!("This is {user}-mda.example.")), "{said}");
    }
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    let left: Vec<_> = fs::read_dir(server.path("var-mail")).unwrap().collect();
    assert_eq!(left.len(), 2, "no lock is left: {left:?}");
}

#[test]
fn workers_have_the_ids_of_their_user_and_are_confined_if_they_start_nothing() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    server.accept(&["alice@maildir.example"], &message("one"));
    Maildir::new(server.path("home/alice/Maildir")).wait_for(1, SOON);
    // It waits some seconds for more work.
    let worker = wait_for("the worker of alice", SOON, || {
        let workers = process::children(server.role("spawner").pid);
        workers.into_iter().find(|worker| field(worker, "Uid").starts_with(&ALICE.to_string()))
    });
    let ids = [ALICE; 4].map(|id| id.to_string()).join("\t");
    assert_eq!(field(&worker, "Uid"), ids);
    assert_eq!(field(&worker, "Gid"), ids);
    assert_eq!(field(&worker, "Groups"), ALICE.to_string());
    assert_eq!(field(&worker, "CapEff"), "0000000000000000");
    assert_eq!(field(&worker, "NoNewPrivs"), "1");
    assert_eq!(field(&worker, "Seccomp"), "2");
}

#[test]
fn users_that_must_not_be_delivered_to_are_refused() {
    let Some(server) = Server::start_as_root(CONFIG) else { return };
    let mut peer = server.peer();
    for recipient in ["no-such-user@maildir.example", "carol@mbox.example"] {
        let reply = peer.submit("s@client.example", &[recipient], &message("x")).unwrap();
        assert_eq!(reply.code, 550, "{recipient}: {reply:?}");
        assert_eq!(peer.say("RSET").unwrap().code, 250);
    }
    // Nobody works as root: its Maildir is not written, and its system mailbox by another.
    server.accept(&["root@maildir.example"], &message("root"));
    server.wait_for_log("result=PermFail");
    server.accept(&["root@mbox.example"], &message("root"));
    let mailbox = server.path("var-mail/root");
    wait_until("root's mailbox", SOON, || {
        fs::read_to_string(&mailbox).is_ok_and(|text| text.contains("This is root."))
    });
    assert_eq!(fs::metadata(&mailbox).unwrap().uid(), 0);
}
