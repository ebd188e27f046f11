//! Filters that other people wrote, as Debian has them, with what they ask.
//!
//! Each is killed in the middle of a session, too: that session fails temporarily, nothing passes
//! unfiltered, and soon the filter serves again by itself.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::account::{give, open_directory};
use common::maildir::header;
use common::peer::Peer;
use common::peers::Peers;
use common::process::{self, Process};
use common::server::{Server, free_address};
use common::wait::{SOON, wait_for, wait_until};
use nix::sys::signal::Signal;

/// How long a program may take to be there, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the programs are in their root.
const LIBEXEC: &str = "/usr/libexec/opensmtpd";

/// The test pattern of rspamd that stands for mail to be rejected; with another first letter it
/// stands for less.
const PATTERN: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

/// A server with one filter of Debian.
struct Scene {
    server: Server,
    filter: &'static str,
}

impl Scene {
    /// Starts it in the root of `peers`; the filter has these arguments, and `fill` puts what it
    /// needs into the directory of the test.
    fn start(
        peers: &Peers,
        filter: &'static str,
        arguments: &str,
        fill: impl FnOnce(&Server),
    ) -> Self {
        let config = format!(
            "filter f proc-exec \"{LIBEXEC}/{filter} {arguments}\"\n@LISTEN@ filter f\n\
             table users {{ \"@\" = \"@USER@\" }}\n\
             action \"local\" maildir \"@DIR@/mail/%{{rcpt.user}}\" virtual <users>\n\
             match from any for domain \"example.org\" action \"local\"\n"
        );
        let mut server = Server::prepare(&config, &[]);
        fs::create_dir(server.path("libexec")).unwrap();
        fill(&server);
        peers.host(&mut server);
        Self { server, filter }
    }

    /// Sends a message to `user`; the last reply.
    fn send(&self, user: &str, content: &str) -> std::io::Result<String> {
        let mut peer = Peer::greeted(self.server.address())?;
        let to = format!("{user}@example.org");
        let reply = peer.submit("sender@client.example", &[&to], content)?;
        Ok(reply.line())
    }

    /// The message that came to `user`.
    fn received(&self, user: &str) -> String {
        self.server.maildir(user).wait_for(1, SOON).remove(0)
    }

    /// The filter that runs, once there is one.
    fn process(&self) -> Process {
        // The kernel keeps 15 bytes of a name.
        let name = self.filter.get(..15).unwrap_or(self.filter);
        wait_for("the filter runs", PATIENCE, || {
            self.server.processes().into_iter().find(|process| process.name == name)
        })
    }

    /// Kills the filter while it has a message: that one is not taken, later ones are.
    fn survives_the_end_of_the_filter(&self) {
        let mut peer = self.server.peer();
        peer.say("MAIL FROM:<sender@client.example>").unwrap();
        assert_eq!(peer.say("RCPT TO:<killed@example.org>").unwrap().code, 250);
        assert_eq!(peer.say("DATA").unwrap().code, 354);
        peer.send(b"Subject: x\r\n\r\nunfiltered\r\n").unwrap();
        let victim = self.process();
        process::send(victim.pid, Signal::SIGKILL);
        wait_until("it is gone", PATIENCE, || !process::is_alive(victim.pid));
        // The connection may be closed by now.
        let _ = peer.send(b".\r\n");
        let reply = peer.reply();
        assert!(reply.as_ref().map_or(true, |reply| reply.code / 100 == 4), "{reply:?}");
        wait_until("its successor serves", PATIENCE, || {
            self.send("again", HAM).is_ok_and(|reply| reply.starts_with("250 "))
        });
        assert_ne!(self.process().pid, victim.pid);
        assert_eq!(self.server.maildir("killed").count(), 0);
    }
}

const HAM: &str = "From: Alice <alice@example.net>\r\nTo: user@example.org\r\n\
    Subject: Minutes of the meeting\r\nDate: Fri, 21 Nov 2025 10:00:00 +0000\r\n\
    Message-ID: <one@example.net>\r\n\r\nDear all,\r\n\r\n.. and this is what was said:\r\n\
    nothing much.\r\n\r\nAlice\r\n";

#[test]
fn rspamd() {
    let programs = ["/usr/bin/rspamd", "/usr/libexec/opensmtpd/filter-rspamd"];
    let Some(peers) = Peers::of_filters(&programs) else { return };
    let address: SocketAddr = free_address();
    let work = open_directory();
    let config = format!(
        "options {{\n pidfile = \"/mnt/pid\";\n enable_test_patterns = true;\n\
         \x20dns {{ nameserver = [\"127.0.0.1:1\"]; timeout = 100ms; retransmits = 1; }}\n}}\n\
         logging {{ type = \"console\"; level = \"info\"; }}\n\
         actions {{ reject = 15; add_header = 6; greylist = 4; }}\n\
         worker \"normal\" {{ bind_socket = \"{address}\"; count = 1; mime = true; }}\n"
    );
    fs::write(work.path().join("rspamd.conf"), config).unwrap();
    let words = ["rspamd", "-f", "-i", "-c", "/mnt/rspamd.conf"];
    let _rspamd = peers.start("rspamd", work.path(), &words);
    wait_until("rspamd listens", PATIENCE, || TcpStream::connect(address).is_ok());
    let scene = Scene::start(&peers, "filter-rspamd", &format!("-url http://{address}"), |_| {});

    let reply = scene.send("ham", HAM).unwrap();
    assert!(reply.starts_with("250 "), "{reply}");
    let text = scene.received("ham");
    assert!(
        text.ends_with("\n\n.. and this is what was said:\nnothing much.\n\nAlice\n"),
        "{text}"
    );
    assert_eq!(header(&text, "X-Spam"), None, "{text}");

    let spam = HAM.replace("nothing much", &PATTERN.replacen('X', "Y", 1));
    let reply = scene.send("spam", &spam).unwrap();
    assert!(reply.starts_with("250 "), "{reply}");
    let text = scene.received("spam");
    assert_eq!(header(&text, "X-Spam").as_deref(), Some("yes"), "{text}");

    let reply = scene.send("rejected", &HAM.replace("nothing much", PATTERN)).unwrap();
    assert!(reply.starts_with("550 "), "{reply}");
    assert_eq!(scene.server.maildir("rejected").count(), 0);

    scene.survives_the_end_of_the_filter();
}

/// Looks at the signature of `/mnt/message` with the key in `/mnt/record`.
const VERIFY: &str = r#"
import dkim, sys
message = open("/mnt/message", "rb").read().replace(b"\n", b"\r\n")
record = open("/mnt/record", "rb").read()
names = []
def look_up(name, timeout=5):
    names.append(name)
    return record
good = dkim.verify(message, dnsfunc=look_up)
print(good, names)
changed = dkim.verify(message.replace(b"nothing", b"something"), dnsfunc=look_up)
sys.exit(0 if good and not changed else 1)
"#;

#[test]
fn dkimsign() {
    let programs = ["/usr/bin/openssl", "/usr/libexec/opensmtpd/filter-dkimsign"];
    let Some(peers) = Peers::of_filters(&programs) else { return };
    let work = open_directory();
    let make = "openssl genrsa -out /mnt/key 2048 && chmod 644 /mnt/key\n\
                printf 'v=DKIM1; k=rsa; p=%s' \
                \"$(openssl rsa -in /mnt/key -pubout -outform DER | openssl base64 -A)\" >/mnt/record";
    peers.run_in("dkim-make", work.path(), &["sh", "-ec", make]);
    let arguments = "-d example.net -s s1 -k @DIR@/key";
    let scene = Scene::start(&peers, "filter-dkimsign", arguments, |server| {
        fs::copy(work.path().join("key"), server.path("key")).unwrap();
        fs::set_permissions(server.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&server.path("key"), server.account());
    });
    let reply = scene.send("signed", HAM).unwrap();
    assert!(reply.starts_with("250 "), "{reply}");
    let text = scene.received("signed");
    assert!(text.contains("DKIM-Signature: "), "{text}");
    // What deliveries put before the message is not part of it.
    fs::write(work.path().join("message"), &text).unwrap();
    fs::write(work.path().join("verify.py"), VERIFY).unwrap();
    peers.run_in("dkim-verify", work.path(), &["python3", "/mnt/verify.py"]);

    scene.survives_the_end_of_the_filter();
}

#[test]
fn senderscore() {
    let Some(peers) = Peers::of_filters(&["/usr/libexec/opensmtpd/filter-senderscore"]) else {
        return;
    };
    // Nobody has a score here, since nobody answers: mail passes, as the filter says it does then.
    let arguments = "-blockBelow 10 -junkBelow 50 -scoreHeader";
    let scene = Scene::start(&peers, "filter-senderscore", arguments, |_| {});
    let reply = scene.send("user", HAM).unwrap();
    assert!(reply.starts_with("250 "), "{reply}");
    let text = scene.received("user");
    assert!(text.ends_with("nothing much.\n\nAlice\n"), "{text}");

    scene.survives_the_end_of_the_filter();
}
