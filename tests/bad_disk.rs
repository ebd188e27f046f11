//! A disk that is full, slow or damaged: senders are told, nobody loses what was acknowledged, and
//! the service goes on when the disk does.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::account::give;
use common::peer::{Peer, message};
use common::process;
use common::server::{DELIVER, Server};
use common::wait::{SOON, wait_until};
use nix::sys::signal::Signal;
use platform::privilege::is_root;

/// A small file system in memory; it goes with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, or says why it cannot.
    fn mount(path: &Path, options: &str) -> Option<Self> {
        if !is_root() {
            println!("skipped: mounting a small disk needs root");
            return None;
        }
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path);
        if !mount.status().is_ok_and(|status| status.success()) {
            println!("skipped: this root may not mount");
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may be leaving still.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A server whose state is on a small disk.
fn on_small_disk(options: &str) -> Option<(Server, SmallDisk)> {
    let mut server = Server::prepare(&format!("smtp limit max-mails 10000\n{DELIVER}"), &[]);
    let disk = SmallDisk::mount(&server.state(), options)?;
    give(&server.state(), server.account());
    server.run();
    Some((server, disk))
}

/// Sends messages until one gets this reply.
fn wait_for_reply(peer: &mut Peer, expected: &str, content: &str) {
    wait_until(&format!("reply {expected}"), SOON, || {
        let reply = peer.submit("a@b.example", &["alice@example.org"], content).unwrap();
        assert_eq!(peer.say("RSET").unwrap().code, 250, "the session goes on");
        // Not so fast that a mailbox fills.
        std::thread::sleep(Duration::from_millis(20));
        reply.line().starts_with(expected)
    });
}

#[test]
fn a_full_disk_refuses_mail_for_now_and_is_forgotten_when_there_is_room() {
    let Some((server, _disk)) = on_small_disk("size=64m,mode=711") else { return };
    let mut peer = server.peer();
    wait_for_reply(&mut peer, "250 ", &message("before"));

    let filler = server.state().join("filler");
    let fill = |keep: u64| {
        let space = nix::sys::statvfs::statvfs(&server.state()).unwrap();
        let free = space.blocks_available() * space.fragment_size();
        fs::write(&filler, vec![0; usize::try_from(free.saturating_sub(keep)).unwrap()]).unwrap();
    };
    // Under the floor that keeps room for ends and moves.
    fill(1 << 20);
    wait_for_reply(&mut peer, "452 4.3.1 ", &message("until-full"));
    let reply = peer.submit("a@b.example", &["alice@example.org"], &message("refused")).unwrap();
    assert!(reply.line().starts_with("452 4.3.1 "), "{reply:?}");
    let status = server.control(&["show", "status"]);
    assert!(status.output.contains("full"), "{status:?}");

    // Nothing left at all: still the same reply, and what was accepted is delivered.
    fs::remove_file(&filler).unwrap();
    wait_for_reply(&mut peer, "250 ", &message("between"));
    fill(0);
    wait_for_reply(&mut peer, "452 4.3.1 ", &message("until-nothing"));
    wait_until("what was accepted is delivered", SOON, || server.queue().is_empty());

    fs::remove_file(&filler).unwrap();
    wait_for_reply(&mut peer, "250 ", &message("after"));
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    let ids = server.maildir("alice").ids();
    for (name, arrives) in
        [("before", true), ("refused", false), ("between", true), ("after", true)]
    {
        assert_eq!(ids.contains(&format!("<{name}@client.example>")), arrives, "{name}");
    }
}

#[test]
fn a_body_that_does_not_fit_is_refused_and_leaves_no_trace() {
    let Some((server, _disk)) = on_small_disk("size=32m,mode=711") else { return };
    let content = message("large")
        + &"seventy bytes of a body that is larger than the disk..........\n"
            .repeat(34 * 1024 * 1024 / 64);
    let mut peer = server.peer();
    let reply = peer.submit("a@b.example", &["alice@example.org"], &content).unwrap();
    assert!(reply.line().starts_with("452 4.3.1 "), "{reply:?}");
    wait_until("the unfinished body is removed", SOON, || {
        fs::read_dir(server.state().join("spool/large")).unwrap().count() == 0
    });
    wait_for_reply(&mut peer, "250 ", &message("small"));
    server.maildir("alice").wait_for(1, SOON);
}

#[test]
fn a_spool_that_stands_still_delays_only_what_needs_it() {
    let server = Server::start(DELIVER);
    let mut waiting = server.peer();
    for command in ["MAIL FROM:<a@b.example>", "RCPT TO:<alice@example.org>"] {
        assert_eq!(waiting.say(command).unwrap().code, 250);
    }
    let queue = server.role("queue");
    process::send(queue.pid, Signal::SIGSTOP);
    assert_eq!(waiting.say("DATA").unwrap().code, 354);
    waiting.send("Message-ID: <slow@client.example>\r\n\r\nslow\r\n.\r\n").unwrap();

    // Others are greeted and answered meanwhile.
    let mut other = server.peer();
    for command in ["MAIL FROM:<a@b.example>", "RCPT TO:<alice@example.org>", "RSET"] {
        assert_eq!(other.say(command).unwrap().code, 250, "{command}");
    }
    process::send(queue.pid, Signal::SIGCONT);
    assert_eq!(waiting.reply().unwrap().code, 250);
    server.maildir("alice").wait_for(1, SOON);
    assert_eq!(server.role("queue").pid, queue.pid);
}

#[test]
fn a_commit_that_takes_too_long_is_refused_for_now() {
    let server = Server::start(DELIVER);
    let mut peer = server.peer();
    peer.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let queue = server.role("queue");
    process::send(queue.pid, Signal::SIGSTOP);
    let reply = peer.submit("a@b.example", &["alice@example.org"], &message("late")).unwrap();
    process::send(queue.pid, Signal::SIGCONT);
    assert_eq!(reply.code, 451, "{reply:?}");

    // The session and the queue go on; what was refused is not delivered.
    let reply = peer.submit("a@b.example", &["alice@example.org"], &message("next")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    server.maildir("alice").wait_for(1, SOON);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(server.maildir("alice").ids(), ["<next@client.example>"]);
}

/// A server that holds twenty messages and was stopped.
fn stopped_with_mail() -> Server {
    let mut server = Server::prepare(DELIVER, &["-P", "mda"]);
    server.run();
    for n in 0..20 {
        server.accept(&["alice@example.org"], &message(&format!("kept{n:02}")));
    }
    assert!(server.stop().success());
    server
}

fn segments(server: &Server) -> Vec<PathBuf> {
    let log = server.state().join("spool/log");
    let mut segments: Vec<_> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    segments
}

/// Flips one byte where `text` stands in a segment.
fn damage(server: &Server, text: &str) {
    for segment in segments(server) {
        let bytes = fs::read(&segment).unwrap();
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = found {
            let file = fs::File::options().write(true).open(&segment).unwrap();
            file.write_at(&[bytes[at] ^ 0x20], at as u64).unwrap();
            return;
        }
    }
    panic!("{text:?} is in no segment");
}

/// Lets the mail go that was held; the Message-IDs of what arrives, `count` or more.
fn release(server: &Server, count: usize) -> Vec<String> {
    assert_eq!(server.control(&["resume", "mda"]).status, 0);
    server.maildir("alice").wait_for(count, SOON);
    wait_until("every delivery was tried", SOON, || {
        server.queue().iter().all(|line| !line.ends_with("||") && !line.contains("inflight"))
    });
    server.maildir("alice").ids()
}

/// Proves that one message could not be read and was given up for it, and nothing waits.
fn gave_one_up(server: &Server) {
    server.wait_for_log("result=PermFail stat=Error (The message is damaged in the queue)");
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn a_damaged_body_is_put_aside_and_the_others_are_delivered() {
    let mut server = stopped_with_mail();
    damage(&server, "This is kept07.");
    server.run();
    let ids = release(&server, 19);
    assert_eq!(ids.len(), 19);
    assert!(!ids.contains(&"<kept07@client.example>".to_owned()));
    gave_one_up(&server);
    wait_until("the damaged message is put aside", SOON, || {
        fs::read_dir(server.state().join("spool/corrupt")).unwrap().count() > 0
    });
    server.wait_for_log("quarantined");
    server.accept(&["bob@example.org"], &message("new"));
    server.maildir("bob").wait_for(1, SOON);
}

#[test]
fn damaged_records_are_put_aside_and_the_others_are_delivered() {
    let mut server = stopped_with_mail();
    let mut flipped = 0;
    for segment in segments(&server) {
        let bytes = fs::read(&segment).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let file = fs::File::options().write(true).open(&segment).unwrap();
        for at in (5000..written).step_by(3000) {
            file.write_at(&[bytes[at] ^ 0xff], at as u64).unwrap();
            flipped += 1;
        }
    }
    assert!((3..10).contains(&flipped), "{flipped} bytes were changed");
    server.run();
    // One byte costs one message at most.
    let left = release(&server, 20 - flipped).len();
    assert!(left + flipped >= 20, "{left} of 20 messages after {flipped} damaged bytes");
    server.accept(&["bob@example.org"], &message("new"));
    server.maildir("bob").wait_for(1, SOON);
}

#[test]
fn a_spool_of_rubbish_starts_and_serves() {
    let mut server = stopped_with_mail();
    let log = server.state().join("spool/log");
    fs::write(log.join("00000000000000ff.seg"), b"not a segment").unwrap();
    fs::write(log.join("0000000000000100.seg"), vec![0xff; 1 << 20]).unwrap();
    fs::write(log.join("stranger"), b"?").unwrap();
    fs::write(server.state().join("spool/large/stranger"), b"?").unwrap();
    for path in
        ["log/00000000000000ff.seg", "log/0000000000000100.seg", "log/stranger", "large/stranger"]
    {
        give(&server.state().join("spool").join(path), server.account());
    }
    server.run();
    assert_eq!(release(&server, 20).len(), 20);
    server.accept(&["bob@example.org"], &message("new"));
    server.maildir("bob").wait_for(1, SOON);
}

#[test]
fn a_large_body_that_is_gone_costs_one_message() {
    let mut server = Server::prepare(DELIVER, &["-P", "mda"]);
    server.run();
    let large = message("large") + &"a line\n".repeat(100_000);
    let mut peer = server.peer();
    let reply = peer.submit("bob@example.org", &["alice@example.org"], &large).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    server.accept(&["alice@example.org"], &message("small"));
    assert!(server.stop().success());
    for entry in fs::read_dir(server.state().join("spool/large")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    server.run();
    assert_eq!(release(&server, 1), ["<small@client.example>"]);
    server.wait_for_log("quarantined");
    // Its sender is told, without what nobody has any more.
    let reports = server.maildir("bob").wait_for(1, SOON);
    let report = &reports[0];
    for line in [
        "alice@example.org: The message is damaged in the queue",
        "Status: 5.3.0",
        "Comments: the message is damaged, its headers are not available",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
    gave_one_up(&server);
}
