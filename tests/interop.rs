//! Mail with other people's programs: swaks, Python's smtplib and Postfix's smtp-source deliver to
//! us, Dovecot takes mail from us over LMTP, and Postfix and Exim both take it and bring it.
//!
//! Transcripts are in `target/interop`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use common::account::open_directory;
use common::maildir::Maildir;
use common::peer::message;
use common::peers::{PeerServer, Peers};
use common::server::{Server, free_address};
use common::wait::{SOON, wait_until};
use tempfile::TempDir;

const SWAKS: &str = "/usr/bin/swaks";
const PYTHON: &str = "/usr/bin/python3";
const SMTP_SOURCE: &str = "/usr/sbin/smtp-source";
const DOVECOT: &str = "/usr/sbin/dovecot";
const POSTFIX: &str = "/usr/sbin/postfix";
const EXIM: &str = "/opt/exim/usr/sbin/exim4";

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

fn owned(work: &TempDir, names: &[&str], uid: u32) {
    for name in names {
        fs::create_dir(work.path().join(name)).unwrap();
        chown(work.path().join(name), Some(uid), Some(uid)).unwrap();
    }
}

#[test]
fn mail_goes_to_postfix_and_comes_back() {
    let Some(peers) = Peers::with(&[POSTFIX]) else { return };
    round_trip("postfix", |address, back| {
        let work = open_directory();
        owned(&work, &["data"], peers.uid("postfix"));
        fs::create_dir(work.path().join("spool")).unwrap();
        let settings = format!(
            "compatibility_level = 3.6\nqueue_directory = /mnt/spool\ndata_directory = /mnt/data\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
             maillog_file = /var/log/postfix.log\nmaillog_file_prefixes = /var, /mnt, /dev\n\
             myhostname = postfix.example\nmydestination =\nmynetworks = 127.0.0.0/8\n\
             inet_interfaces = {}\ninet_protocols = ipv4\nsmtpd_peername_lookup = no\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n\
             relay_domains = round.example\nrelayhost = [{}]:{}\n",
            address.ip(),
            back.ip(),
            back.port()
        )
        .replace("/var/log/postfix.log", "/mnt/log");
        fs::write(work.path().join("main.cf"), settings).unwrap();
        let services = format!(
            "{} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nflush unix n - n - 0 flush\n\
             proxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\nrelay unix - - n - - smtp\n\
             error unix - - n - - error\nretry unix - - n - - error\nanvil unix - - n - 1 anvil\n\
             scache unix - - n - 1 scache\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
             postlog unix-dgram n - n - 1 postlogd\n",
            address
        );
        fs::write(work.path().join("master.cf"), services).unwrap();
        peers.serve("postfix", work, &[POSTFIX, "-c", "/mnt", "start-fg"], address)
    });
}

#[test]
fn mail_goes_to_exim_and_comes_back() {
    let Some(peers) = Peers::with(&[EXIM]) else { return };
    round_trip("exim", |address, back| {
        let work = open_directory();
        owned(&work, &["logs", "spool"], peers.uid("Debian-exim"));
        let config = format!(
            "primary_hostname = exim.example\nexim_path = {EXIM}\nspool_directory = /mnt/spool\n\
             log_file_path = /mnt/logs/%slog\npid_file_path = /mnt/exim.pid\n\
             local_interfaces = {}\ndaemon_smtp_ports = {}\ntls_advertise_hosts =\nhost_lookup =\n\
             rfc1413_query_timeout = 0s\ncheck_spool_space = 0\ncheck_log_space = 0\n\
             keep_environment =\nacl_smtp_rcpt = accept\nacl_smtp_data = accept\n\n\
             begin routers\nback:\n driver = manualroute\n domains = round.example\n\
             \x20route_list = * {}\n self = send\n transport = smtp\n\n\
             begin transports\nsmtp:\n driver = smtp\n port = {}\n allow_localhost\n\
             \x20hosts_avoid_tls = *\n\nbegin retry\n* * F,4d,15m\n",
            address.ip(),
            address.port(),
            back.ip(),
            back.port()
        );
        fs::create_dir(work.path().join("etc")).unwrap();
        let path = work.path().join("etc/exim4.conf");
        fs::write(&path, config).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Only a configuration in its own place lets it keep root's rights.
        let script =
            format!("mkdir -p /etc/exim4 && mount --bind /mnt/etc /etc/exim4 && exec {EXIM} -bdf");
        peers.serve("exim", work, &["sh", "-c", &script], address)
    });
}
