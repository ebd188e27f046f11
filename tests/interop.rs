//! Mail with other people's programs: swaks, Python's smtplib and Postfix's smtp-source deliver to
//! us, Dovecot takes mail from us over LMTP, and Postfix and Exim both take it and bring it.
//!
//! Transcripts are in `target/interop`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use common::account::open_directory;
use common::hops::{EXIM, Hop, POSTFIX};
use common::maildir::Maildir;
use common::peer::message;
use common::peers::{PeerServer, Peers};
use common::server::{Server, free_address};
use common::wait::{SOON, wait_until};

const SWAKS: &str = "/usr/bin/swaks";
const PYTHON: &str = "/usr/bin/python3";
const SMTP_SOURCE: &str = "/usr/sbin/smtp-source";
const DOVECOT: &str = "/usr/sbin/dovecot";

/// Sends one message and prints the dialogue.
const PYTHON_CLIENT: &str = r#"
import smtplib, sys
host, port, recipient = sys.argv[1:]
with smtplib.SMTP(host, int(port), timeout=30) as client:
    client.set_debuglevel(1)
    refused = client.sendmail("python@client.example", [recipient],
        "Subject: from Python\r\nMessage-ID: <python@client.example>\r\n\r\n.dot\r\nbody\r\n")
    assert refused == {}, refused
"#;

/// Dovecot as an LMTP server for any user; its mailboxes are below `/mnt/mail`.
fn dovecot(peers: &Peers) -> (PeerServer, SocketAddr) {
    let address = free_address();
    let work = open_directory();
    let uid = peers.uid("mail");
    fs::create_dir(work.path().join("mail")).unwrap();
    chown(work.path().join("mail"), Some(uid), Some(uid)).unwrap();
    let config = format!(
        "protocols = lmtp\nbase_dir = /mnt/run\nstate_dir = /mnt/state\nlog_path = /mnt/log\n\
         ssl = no\nfirst_valid_uid = 1\nauth_debug = yes\nmail_location = maildir:/mnt/mail/%n\n\
         protocol lmtp {{\n postmaster_address = postmaster@dovecot.example\n}}\n\
         passdb {{\n driver = static\n args = nopassword=y\n}}\n\
         userdb {{\n driver = static\n args = uid={uid} gid={uid} home=/mnt/mail/%n\n}}\n\
         service lmtp {{\n inet_listener lmtp {{\n  address = {}\n  port = {}\n }}\n}}\n",
        address.ip(),
        address.port()
    );
    fs::write(work.path().join("dovecot.conf"), config).unwrap();
    let words = [DOVECOT, "-F", "-c", "/mnt/dovecot.conf"];
    (peers.serve("dovecot", work, &words, address), address)
}

#[test]
fn well_known_clients_deliver_to_maildir_mbox_command_and_dovecot() {
    let Some(peers) = Peers::with(&[SWAKS, PYTHON, SMTP_SOURCE, DOVECOT]) else { return };
    let (dovecot, lmtp) = dovecot(&peers);
    let config = r#"
@LISTEN@
smtp limit max-mails 1000
action "maildir" maildir
action "mbox" mbox
action "mda" mda "cat >> $HOME/mda"
action "lmtp" lmtp "@LMTP@" rcpt-to
match from any for domain "maildir.example" action "maildir"
match from any for domain "mbox.example" action "mbox"
match from any for domain "mda.example" action "mda"
match from any for domain "lmtp.example" action "lmtp"
"#;
    let Some(server) = Server::start_as_root(&config.replace("@LMTP@", &lmtp.to_string())) else {
        return;
    };
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let source = format!("inet:{host}:{port}");
    for kind in ["maildir", "mbox", "mda", "lmtp"] {
        let to = format!("alice@{kind}.example");
        let words = [SWAKS, "--server", &host, "--port", &port, "--from", "s@client.example"];
        peers.run(&format!("swaks-{kind}"), &[&words[..], &["--to", &to]].concat());
        peers.run(&format!("python-{kind}"), &[PYTHON, "-c", PYTHON_CLIENT, &host, &port, &to]);
        // A session for each message, then several sessions of many messages.
        let single = [SMTP_SOURCE, "-m", "5", "-f", "s@client.example", "-t", &to, &source];
        peers.run(&format!("smtp-source-{kind}"), &single);
        let many = ["-d", "-s", "4", "-m", "40", "-l", "4096", "-f", "s@client.example", "-t", &to];
        let many = [&[SMTP_SOURCE][..], &many, &[&source]].concat();
        peers.run(&format!("smtp-source-sessions-{kind}"), &many);
    }
    let count = 1 + 1 + 5 + 40;
    let home = server.path("home/alice");
    Maildir::new(home.join("Maildir")).wait_for(count, Duration::from_secs(60));
    Maildir::new(dovecot.work().join("mail/alice")).wait_for(count, Duration::from_secs(60));
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(Maildir::new(home.join("Maildir")).count(), count);
    assert_eq!(Maildir::new(dovecot.work().join("mail/alice")).count(), count);
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let mbox = read(&server.path("var-mail/alice"));
    assert_eq!(mbox.lines().filter(|line| line.starts_with("From ")).count(), count);
    assert!(mbox.contains("\n.dot\nbody\n"), "dots are undone");
    let mda = read(&home.join("mda"));
    assert_eq!(mda.matches("\nReturn-Path: <").count() + 1, count, "one after the other");
}

/// We relay everything for `round.example` to a peer, and what it brings back is delivered.
fn round_trip(peer: &str, start: impl FnOnce(SocketAddr, SocketAddr) -> PeerServer) {
    let (theirs, back) = (free_address(), free_address());
    let config = r#"
@LISTEN@
listen on @BACK_HOST@ port @BACK_PORT@ tag "back"
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
table users { "@" = "@USER@" }
action "out" relay host "smtp://@PEER@"
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match tag "back" from any for domain "round.example" action "local"
match from any for domain "round.example" action "out"
match from any for domain "client.example" action "local"
"#
    .replace("@BACK_HOST@", &back.ip().to_string())
    .replace("@BACK_PORT@", &back.port().to_string())
    .replace("@PEER@", &theirs.to_string());
    let server = Server::start(&config);
    let _peer = start(theirs, back);
    let body = ".dot\n..\nFrom the start\né ".to_owned() + &"x".repeat(200) + "\n";
    let mut client = server.peer();
    for n in 0..20 {
        let content = message(&format!("{peer}{n}")) + &body;
        let to = ["alice@round.example", "bob@round.example"];
        let reply = client.submit("sender@client.example", &to, &content).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    for user in ["alice", "bob"] {
        let messages = server.maildir(user).wait_for(20, Duration::from_secs(60));
        assert_eq!(messages.len(), 20);
        for text in &messages {
            let start = text.find("This is ").unwrap();
            assert!(text[start..].ends_with(&body), "{text}");
            assert_eq!(text.matches("\nReceived: ").count(), 3, "{text}");
        }
    }
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(server.maildir("sender").count(), 0, "nothing came back as undeliverable");
}

#[test]
fn mail_goes_to_postfix_and_comes_back() {
    let Some(peers) = Peers::with(&[POSTFIX]) else { return };
    round_trip("postfix", |address, back| hop("postfix", address, back).postfix(&peers));
}

#[test]
fn mail_goes_to_exim_and_comes_back() {
    let Some(peers) = Peers::with(&[EXIM]) else { return };
    round_trip("exim", |address, back| hop("exim", address, back).exim(&peers));
}

fn hop(name: &str, address: SocketAddr, back: SocketAddr) -> Hop<'_> {
    Hop { name, address, back, returns: "round.example", keeps: None, settings: "" }
}
