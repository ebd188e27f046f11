//! What recipients come to in a running server: aliases, included lists, `.forward` files of real
//! users with every kind of owner and mode, userbases.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::account::give;
use common::maildir::Maildir;
use common::peer::{Peer, Reply, message};
use common::process;
use common::root::{ALICE, BOB, SMTPD};
use common::server::Server;
use common::spec_case;
use common::wait::{SOON, wait_for, wait_until};

const LOST: &str = "524 5.2.4 Mailing list expansion problem";
const LATER: &str = "424 4.2.4 Mailing list expansion problem";
const INVALID: &str = "550 Invalid recipient";

/// The reply to one recipient, in a transaction that is given up.
fn ask(peer: &mut Peer, recipient: &str) -> Reply {
    assert_eq!(peer.say("MAIL FROM:<s@client.example>").unwrap().code, 250);
    let reply = peer.say(&format!("RCPT TO:<{recipient}>")).unwrap();
    assert_eq!(peer.say("RSET").unwrap().code, 250);
    reply
}

/// Checks that a recipient is refused with this reply.
fn refused(peer: &mut Peer, recipient: &str, line: &str) {
    assert_eq!(ask(peer, recipient).line(), format!("{line}: <{recipient}>"));
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A server of root, and its users' homes.
struct Users(Server);

impl Users {
    fn start(config: &str) -> Option<Self> {
        let server = Server::start_as_root(config)?;
        for name in ["alice", "bob"] {
            mode(&server.path("home").join(name), 0o755);
        }
        Some(Self(server))
    }

    fn home(&self, user: &str) -> PathBuf {
        self.0.path("home").join(user)
    }

    /// Puts a `.forward` in place of what there was.
    fn forward(&self, user: &str, uid: u32, text: &str) -> PathBuf {
        let path = self.home(user).join(".forward");
        self.without_forward(user);
        fs::write(&path, text).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        mode(&path, 0o644);
        path
    }

    fn without_forward(&self, user: &str) {
        let path = self.home(user).join(".forward");
        let Ok(found) = fs::symlink_metadata(&path) else { return };
        if found.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
    }

    /// The processes that have the ids of a user and read for lookup.
    fn readers(&self, uid: u32) -> Vec<process::Process> {
        let spawner = self.0.role("spawner");
        let of_user = |child: &process::Process| {
            process::status(child.pid)
                .is_some_and(|status| status["Uid"].split('\t').next() == Some(&uid.to_string()))
        };
        process::children(spawner.pid).into_iter().filter(of_user).collect()
    }
}

/// Local mail for users of the system, everything else elsewhere.
const HOMES: &str = r#"
@LISTEN@
table aliases {
    team = ":include:@DIR@/team"
    nothing = ":include:@DIR@/nothing"
    missing = ":include:@DIR@/missing"
    secret = ":include:@DIR@/secret"
    alice-too = "alice"
}
action "local" maildir alias <aliases>
action "one" maildir "~/One" user bob
action "only" forward-only
action "expand" expand-only alias <aliases>
action "out" relay host "smtp+notls://127.0.0.1:9"
match from any for domain "home.example" action "local"
match from any for domain "one.example" action "one"
match from any for domain "only.example" action "only"
match from any for domain "expand.example" action "expand"
match from local for any action "out"
"#;

/// What a case does to a `.forward` and what it is in.
type Change = fn(&Path);

#[test]
fn a_forward_file_counts_only_if_nobody_else_can_have_written_it() {
    let Some(users) = Users::start(HOMES) else { return };
    let mut peer = users.0.peer();
    let alice = "alice@home.example";
    let trouble: [(u32, &str, Change); 11] = [
        (230, LOST, |path| mode(path, 0o664)),
        (230, LOST, |path| mode(path, 0o646)),
        (230, LOST, |path| chown(path, Some(0), Some(0)).unwrap()),
        (230, LOST, |path| chown(path, Some(BOB), None).unwrap()),
        (230, LOST, |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        (230, LOST, |path| {
            fs::remove_file(path).unwrap();
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
            nix::unistd::mkfifo(path, mode).unwrap();
            chown(path, Some(ALICE), Some(ALICE)).unwrap();
        }),
        (230, LOST, |path| mode(path.parent().unwrap(), 0o775)),
        (231, LOST, |path| {
            let real = path.with_file_name("real");
            fs::rename(path, &real).unwrap();
            symlink(&real, path).unwrap();
        }),
        (232, LATER, |path| mode(path.parent().unwrap(), 0o1755)),
        (233, LATER, |path| fs::write(path, "#".repeat(4096)).unwrap()),
        (233, LATER, |path| fs::write(path, "bad line here\n").unwrap()),
    ];
    for (number, line, change) in trouble {
        let path = users.forward("alice", ALICE, "bob\n");
        change(&path);
        refused(&mut peer, alice, line);
        mode(&users.home("alice"), 0o755);
        spec_case::ran("config", number);
        if number == 232 {
            // The home is sticky.
            spec_case::ran("smtp", 99);
        }
    }
    let many = |count: usize| (0..count).map(|n| format!("x{n}@far.example\n")).collect::<String>();
    users.forward("alice", ALICE, &many(101));
    refused(&mut peer, alice, LATER);
    users.forward("alice", ALICE, &many(98));
    assert_eq!(ask(&mut peer, alice).code, 250);
    spec_case::ran("config", 234);
    let log = users.0.log();
    for said in [
        "/alice/.forward: insecure file",
        "forward file exceeds max size (user alice)",
        "parse error in forward file: line 1 (user alice)",
        "forward file expanded too many nodes (user alice)",
    ] {
        assert!(log.contains(said), "{said}");
    }
}

#[test]
fn a_forward_file_leads_elsewhere_at_once() {
    let Some(users) = Users::start(HOMES) else { return };
    let inbox = |user: &str| Maildir::new(users.home(user).join("Maildir"));
    for (text, id) in [("", "empty"), ("# nobody\n", "remarks")] {
        users.forward("alice", ALICE, text);
        users.0.accept(&["alice@home.example"], &message(id));
        spec_case::ran("config", 235);
    }
    users.without_forward("alice");
    users.0.accept(&["alice-too@home.example"], &message("none"));
    inbox("alice").wait_for(3, SOON);
    assert_eq!(inbox("bob").count(), 0);
    // The reader has been asked before: what it reads is not remembered.
    users.forward("alice", ALICE, "bob, | id -un > $HOME/ran\n");
    users.0.accept(&["alice@home.example"], &message("moved"));
    inbox("bob").wait_for(1, SOON);
    let ran = wait_for("the command has run", SOON, || {
        fs::read_to_string(users.home("alice").join("ran")).ok().filter(|text| !text.is_empty())
    });
    assert_eq!(ran, "alice\n");
    assert_eq!(inbox("alice").count(), 3);
    // A copy for oneself beside one that goes elsewhere, into a file with blanks in its name too.
    let copy = users.home("alice").join("a copy");
    users.forward("alice", ALICE, &format!("alice\nx@far.example\n{}\n", copy.display()));
    users.0.accept(&["alice+tag@home.example"], &message("both"));
    inbox("alice").wait_for(4, SOON);
    wait_until("the file is written", SOON, || {
        fs::read_to_string(&copy).is_ok_and(|text| text.contains("This is both."))
    });
    assert_eq!(fs::metadata(&copy).unwrap().uid(), ALICE);
    wait_until("the other copy waits", SOON, || {
        users.0.queue().iter().any(|line| line.contains("|x@far.example|"))
    });
    spec_case::ran("config", 236);
    spec_case::ran("config", 257);
}

#[test]
fn whose_forward_file_counts_is_a_matter_of_the_action() {
    let Some(users) = Users::start(HOMES) else { return };
    let mut peer = users.0.peer();
    // `user` delivers for others: theirs are not looked at, its own is.
    users.forward("alice", ALICE, "bad line here\n");
    users.forward("bob", BOB, "bad line here\n");
    assert_eq!(ask(&mut peer, "alice@one.example").code, 250);
    refused(&mut peer, "bob@one.example", LATER);
    spec_case::ran("config", 239);

    users.without_forward("alice");
    refused(&mut peer, "alice@only.example", LATER);
    refused(&mut peer, "nobody-here@only.example", INVALID);
    users.forward("alice", ALICE, "x@far.example");
    assert_eq!(ask(&mut peer, "alice@only.example").code, 250);
    users.forward("alice", ALICE, "|cat");
    refused(&mut peer, "alice@only.example", "451 Temporary failure");
    spec_case::ran("config", 237);

    users.without_forward("alice");
    refused(&mut peer, "alice@expand.example", LOST);
    users.forward("alice", ALICE, "|cat > $HOME/piped");
    users.0.accept(&["alice@expand.example"], &message("piped"));
    wait_until("the command has run", SOON, || {
        let piped = fs::read_to_string(users.home("alice").join("piped"));
        piped.is_ok_and(|text| text.contains("This is piped."))
    });
    spec_case::ran("config", 238);
}

#[test]
fn readers_have_the_ids_of_their_user_and_stay_for_the_next_recipient() {
    let Some(users) = Users::start(HOMES) else { return };
    let mut peer = users.0.peer();
    for _ in 0..20 {
        assert_eq!(ask(&mut peer, "alice@home.example").code, 250);
    }
    let readers = users.readers(ALICE);
    assert_eq!(readers.len(), 1, "{readers:?}");
    let status = process::status(readers[0].pid).unwrap();
    assert_eq!(status["Uid"], [ALICE; 4].map(|id| id.to_string()).join("\t"));
    assert_eq!(status["Groups"], ALICE.to_string());
    assert_eq!((status["CapEff"].as_str(), status["Seccomp"].as_str()), ("0000000000000000", "2"));
    assert_eq!(status["NoNewPrivs"], "1");

    // One that has ended is replaced when it is needed.
    process::send(readers[0].pid, nix::sys::signal::Signal::SIGKILL);
    process::wait_until_gone(&readers);
    wait_until("the next one reads", SOON, || ask(&mut peer, "alice@home.example").code == 250);
    assert_ne!(users.readers(ALICE), readers);
}

#[test]
fn a_reader_that_hangs_fails_for_its_user_alone() {
    let Some(users) = Users::start(HOMES) else { return };
    let mut peer = users.0.peer();
    assert_eq!(ask(&mut peer, "alice@home.example").code, 250);
    let readers = users.readers(ALICE);
    process::send(readers[0].pid, nix::sys::signal::Signal::SIGSTOP);
    let mut waiting = users.0.peer();
    waiting.send("MAIL FROM:<s@client.example>\r\nRCPT TO:<alice@home.example>\r\n").unwrap();
    assert_eq!(waiting.reply().unwrap().code, 250);
    // Others are not held up.
    let began = Instant::now();
    assert_eq!(ask(&mut peer, "bob@home.example").code, 250);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(waiting.reply().unwrap().line(), format!("{LATER}: <alice@home.example>"));
    // Nor does anybody wait once more for what did not answer.
    let began = Instant::now();
    refused(&mut peer, "alice@home.example", LATER);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    process::send(readers[0].pid, nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn lists_are_read_as_the_daemon_and_no_more() {
    let Some(users) = Users::start(HOMES) else { return };
    let list = |name: &str, text: &str, owner: u32, bits: u32| {
        let path = users.0.path(name);
        fs::write(&path, text).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        mode(&path, bits);
    };
    list("team", "# us\nalice, \\\n bob # both\nno good\n", 0, 0o644);
    list("nothing", "# nobody\n", SMTPD, 0o600);
    list("secret", "alice\n", 0, 0o600);
    users.0.accept(&["team@home.example"], &message("team"));
    for user in ["alice", "bob"] {
        Maildir::new(users.home(user).join("Maildir")).wait_for(1, SOON);
    }
    users.0.wait_for_log("/team: line 4 is no list of recipients");
    let mut peer = users.0.peer();
    refused(&mut peer, "nothing@home.example", LOST);
    refused(&mut peer, "missing@home.example", INVALID);
    users.0.wait_for_log("warn: failed to open include file \"");
    // What the daemon's user may not read is as good as not there.
    refused(&mut peer, "secret@home.example", INVALID);
    // A longer list comes in pieces, and has its limit.
    let remarks = "# a remark that takes its room\n".repeat(4000);
    list("team", &format!("{remarks}bob\n"), 0, 0o644);
    assert_eq!(ask(&mut peer, "team@home.example").code, 250);
    list("team", &remarks.repeat(10), 0, 0o644);
    refused(&mut peer, "team@home.example", LATER);
    users.0.wait_for_log("/team is too large");
    spec_case::ran("config", 212);
    spec_case::ran("config", 213);
}

/// Users of a table, in homes of their own, under ids that no account has.
const USERBASE: &str = r#"
@LISTEN@
table users {
    carol = "64020:64021:@DIR@/home/carol"
    dave = "64020:64021:@DIR@/home/dave"
    erin = "64020:64021:@DIR@/home/closed/erin"
    root = "0:0:@DIR@/home/root"
}
table aliases { command = "|true" }
action "virtual" maildir userbase <users> alias <aliases>
action "shared" maildir "~/Shared" userbase <users> user bob
match from any for domain "virtual.example" action "virtual"
match from any for domain "shared.example" action "shared"
"#;

#[test]
fn entries_of_a_userbase_have_homes_mail_and_forward_files() {
    const UID: u32 = 64_020;
    const GID: u32 = 64_021;
    let Some(users) = Users::start(USERBASE) else { return };
    for name in ["carol", "dave"] {
        fs::create_dir(users.home(name)).unwrap();
        chown(users.home(name), Some(UID), Some(GID)).unwrap();
    }
    users.0.accept(&["carol@virtual.example"], &message("carol"));
    let inbox = Maildir::new(users.home("carol").join("Maildir"));
    inbox.wait_for(1, SOON);
    let found = fs::metadata(users.home("carol").join("Maildir/new")).unwrap();
    assert_eq!((found.uid(), found.gid()), (UID, GID));
    // Both have the same ids, and so the same reader; whose home it is makes the difference.
    users.forward("dave", UID, "carol\n");
    users.0.accept(&["dave@virtual.example"], &message("dave"));
    inbox.wait_for(2, SOON);
    assert_eq!(users.readers(UID).len(), 2, "one to read, one to deliver");

    // With `user`, ids are those of an account of the system and the home is the recipient's.
    chown(users.home("carol"), Some(BOB), Some(BOB)).unwrap();
    users.0.accept(&["carol@shared.example"], &message("shared"));
    Maildir::new(users.home("carol").join("Shared")).wait_for(1, SOON);
    let found = fs::metadata(users.home("carol").join("Shared/new")).unwrap();
    assert_eq!(found.uid(), BOB);

    let mut peer = users.0.peer();
    refused(&mut peer, "nobody@virtual.example", INVALID);
    // The account of commands is looked for in the same table.
    users.0.accept(&["command@virtual.example"], &message("command"));
    users.0.wait_for_log("result=PermFail stat=Permanent failure in user lookup");
    spec_case::ran("config", 243);
    users.0.accept(&["root@virtual.example"], &message("root"));
    users.0.wait_for_log("MDA not allowed to deliver to: root");

    // What a home holds that its user may not enter is not known.
    fs::create_dir(users.home("closed")).unwrap();
    mode(&users.home("closed"), 0o700);
    refused(&mut peer, "erin@virtual.example", LATER);
}

#[test]
fn root_forwards_to_others_and_runs_nothing() {
    let Some(users) = Users::start(USERBASE) else { return };
    let home = users.home("root");
    fs::create_dir(&home).unwrap();
    mode(&home, 0o700);
    let mut peer = users.0.peer();
    users.forward("root", 0, "carol\n");
    assert_eq!(ask(&mut peer, "root@virtual.example").code, 250);
    let readers = users.readers(0);
    let seccomp: Vec<_> = readers
        .iter()
        .map(|reader| process::status(reader.pid).unwrap()["Seccomp"].clone())
        .collect();
    assert_eq!(seccomp, ["2"], "what keeps root's ids is confined");
    for text in ["|cat\n", "/var/mail/other\n"] {
        users.forward("root", 0, text);
        refused(&mut peer, "root@virtual.example", "451 Temporary failure");
    }
}

/// What an ordinary user can start.
const ROOTLESS: &str = r#"
@LISTEN@ hostname "mx.elsewhere.example"
table users { me = "@UID@:@GID@:@DIR@/home" }
table aliases {
    team = ":include:@DIR@/team"
    file = "@DIR@/mail/a file"
}
action "local" maildir "@DIR@/mail/%{user.username}" userbase <users> alias <aliases>
action "listener" maildir "@DIR@/mail/listener" userbase <users> virtual { "bob" = "me" }
match from any for domain "example.org" action "local"
match from any for domain "mx.elsewhere.example" action "listener"
match from any for local reject
"#;

#[test]
fn an_ordinary_user_has_lists_and_a_forward_file_too() {
    let account = common::account::ordinary_account();
    let config = ROOTLESS
        .replace("@UID@", &account.uid.to_string())
        .replace("@GID@", &account.gid.to_string());
    let mut server = Server::prepare(&config, &[]);
    let home = server.path("home");
    fs::create_dir(&home).unwrap();
    mode(&home, 0o755);
    give(&home, &account);
    fs::write(server.path("team"), "me # alone\n").unwrap();
    server.run();
    server.accept(&["me@example.org", "team@example.org"], &message("plain"));
    server.maildir("me").wait_for(1, SOON);

    let forward = home.join(".forward");
    fs::write(&forward, format!("\"|cat > {}/piped\"\n", server.path("mail").display())).unwrap();
    give(&forward, &account);
    mode(&forward, 0o600);
    let before = server.maildir("me").count();
    server.accept(&["me@example.org"], &message("piped"));
    // The command is the user's own, and the userbase knows the user.
    wait_until("the command has run", SOON, || {
        let piped = fs::read_to_string(server.path("mail/piped"));
        piped.is_ok_and(|text| text.contains("This is piped."))
    });
    assert_eq!(server.maildir("me").count(), before);

    // A recipient without a domain belongs to the listener, whose name is not local by itself.
    server.accept(&["bob"], &message("bare"));
    server.wait_for_log("to=<bob@mx.elsewhere.example>");
    spec_case::ran("config", 176);
}

#[test]
fn editing_a_forward_file_under_load_never_loses_a_recipient() {
    let Some(users) = Users::start(HOMES) else { return };
    let inbox = |user: &str| Maildir::new(users.home(user).join("Maildir"));
    let mut peer = users.0.peer();
    for round in 0..10 {
        if round % 2 == 0 {
            users.forward("alice", ALICE, "bob\n");
        } else {
            users.without_forward("alice");
        }
        let reply =
            peer.submit("s@client.example", &["alice@home.example"], &message("x")).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    inbox("bob").wait_for(5, SOON);
    inbox("alice").wait_for(5, SOON);
    wait_until("the queue is empty", SOON, || users.0.queue().is_empty());
    assert_eq!((inbox("alice").count(), inbox("bob").count()), (5, 5));
}
