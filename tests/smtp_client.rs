//! The program `smtp`: what it sends, what it says about each recipient, how it ends, and whom it
//! trusts.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use common::account::open_directory;
use common::certificates::{Authority, Kind, Made};
use common::peer::message;
use common::peers::{PeerServer, Peers};
use common::server::{DELIVER, Server, free_address};
use common::sink::{END_OF_DATA, Sink};
use common::spec_case;

const POSTFIX: &str = "/usr/sbin/postfix";
const GREETING: &str = "220 mx.example\r\n";

/// What the program said, and its exit status.
fn run(arguments: &[&str], message: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smtp"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without a look at the message.
    let _ = child.stdin.take().unwrap().write_all(message.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "all is said on standard error");
    (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

/// Runs the program with a server of this protocol at an address.
fn client(protocol: &str, address: SocketAddr, arguments: &[&str]) -> (String, i32) {
    let server = format!("{protocol}://{address}");
    run(&[&["-s", &server, "-F", "me@client.example"], arguments].concat(), &message("from us"))
}

#[test]
fn good_recipients_get_the_message_and_bad_ones_are_named() {
    let server = Server::start(DELIVER);
    let recipients = ["one@example.org", "who@nowhere.example", "two@example.org"];
    let (said, status) = client("smtp", server.address(), &recipients);
    let lines: Vec<&str> = said.lines().collect();
    let [refused, one, two] = lines[..] else { panic!("{said}") };
    assert_eq!(refused, "who@nowhere.example: RCPT: 550 Invalid recipient: <who@nowhere.example>");
    assert!(one.starts_with("one@example.org: EOM: 250 2.0.0 "), "{one}");
    assert!(two.starts_with("two@example.org: EOM: 250 2.0.0 "), "{two}");
    assert_eq!(status, 0);
    for name in ["one", "two"] {
        let messages = server.maildir(name).wait_for(1, common::wait::SOON);
        assert!(messages[0].contains("This is from us.\n"), "{}", messages[0]);
        assert!(messages[0].contains("Return-Path: <me@client.example>"), "{}", messages[0]);
    }
    spec_case::ran("queue", 204);
    spec_case::ran("queue", 209);
}

#[test]
fn the_message_arrives_as_it_was_read() {
    let sink = Sink::start();
    let server = format!("smtp+notls://{}", sink.address());
    let content = "Subject: x\r\n\r\n.dot\n..\nlong ".to_owned() + &"é".repeat(300_000);
    let (said, status) = run(&["-s", &server, "-F", "", "-H", "name.example", "a@b"], &content);
    assert_eq!((said.as_str(), status), ("a@b: EOM: 250 taken\n", 0));
    let received = sink.received();
    assert_eq!(received[0].sender, "");
    assert!(received[0].content == content.replace("\r\n", "\n") + "\n", "it is another");
    assert_eq!(sink.commands()[0], "EHLO name.example");
    assert_eq!(sink.commands().last().map(String::as_str), Some("QUIT"));
}

#[test]
fn refused_content_is_told_for_each_recipient() {
    let sink = Sink::scripted(|said| (said == END_OF_DATA).then(|| "554 5.7.1 not this".into()));
    let found = client("smtp", sink.address(), &["a@b", "c@d"]);
    let said = "a@b: EOM: 554 5.7.1 not this\nc@d: EOM: 554 5.7.1 not this\n";
    assert_eq!(found, (said.to_owned(), 0));
    spec_case::ran("queue", 205);
}

#[test]
fn lmtp_says_something_about_each_recipient() {
    let sink = Sink::lmtp(|said| said.starts_with("RCPT TO:<who").then(|| "550 who".into()));
    let found = client("lmtp", sink.address(), &["a@b", "who@b", "c@d"]);
    let said = "who@b: RCPT: 550 who\na@b: EOM: 250 taken\nc@d: EOM: 250 taken\n";
    assert_eq!(found, (said.to_owned(), 0));
    assert_eq!(sink.received()[0].recipients, ["a@b", "c@d"]);
}

#[test]
fn where_nobody_listens_there_is_nothing_left_to_try() {
    let refused = "connection error: Connection refused\n";
    let (said, status) = client("smtp", free_address(), &["a@b"]);
    assert_eq!((said, status), (format!("{refused}smtp: no more host\n"), 1));
    let (said, status) = client("smtp", free_address(), &["-n"]);
    assert_eq!((said.as_str(), status), (refused, 0));
    spec_case::ran("queue", 206);
}

#[test]
fn command_lines_and_files_that_are_of_no_use() {
    let directory = open_directory();
    let path = directory.path().join("login");
    fs::write(&path, "only a user\n").unwrap();
    let login = path.to_str().unwrap();
    let (said, status) = run(&["-h"], "");
    assert!(said.starts_with("usage: smtp [-Chnv] ") && status == 1, "{said}");
    let cases: [(&[&str], &str); 5] = [
        (&["-s", "foo://h"], "invalid url scheme foo"),
        (&["-a", "/nonexistent/login"], "/nonexistent/login: No such file or directory"),
        (&["-a", login], "the first line is the user, the second the password"),
        (&["-T", "cafile=/nonexistent/ca"], "/nonexistent/ca: No such file or directory"),
        (&["-T", &format!("cafile={login}")], "there is no certificate in the file"),
    ];
    for (words, expected) in cases {
        let (said, status) = run(&[words, &["a@b"]].concat(), "");
        assert!(said.starts_with("smtp: ") && said.contains(expected), "{words:?}: {said}");
        assert_eq!((said.lines().count(), status), (1, 1), "{words:?}: {said}");
    }
    spec_case::ran("queue", 207);
}

#[test]
fn without_tls_nothing_is_sent_that_needs_it() {
    let sink = Sink::start();
    let (said, status) = client("smtp+tls", sink.address(), &["-n"]);
    let missing = "missing feature: TLS not supported by remote host\n";
    assert_eq!((said.as_str(), status), (missing, 0));
    let (said, status) = client("smtp+tls", sink.address(), &["a@b"]);
    assert_eq!((said, status), (format!("{missing}smtp: no more host\n"), 1));
    let server = format!("smtp://alice:secret@{}", sink.address());
    let (said, status) = run(&["-nvvv", "-s", &server], "");
    let missing = "missing feature: Authentication requires TLS\n";
    assert!(said.contains(missing) && !said.contains("secret"), "{said}");
    assert_eq!(status, 0);
    let commands = sink.commands();
    assert!(
        commands.iter().all(|line| line.starts_with("EHLO ") || line == "QUIT"),
        "{commands:?}"
    );
    assert_eq!(commands.iter().filter(|line| *line == "QUIT").count(), 3);
    spec_case::ran("queue", 208);
}

#[test]
fn a_message_that_may_have_been_taken_is_not_sent_again() {
    let sink = Sink::scripted(|said| (said == END_OF_DATA).then(String::new));
    let (said, status) = client("smtp", sink.address(), &["a@b"]);
    assert_eq!(
        (said.as_str(), status),
        ("connection error: Connection closed by remote host\n", 1)
    );
    assert_eq!(sink.connections(), 1);
}

/// A server with a certificate for `mx.example`, who takes one session after the other and gives the
/// usual replies; AUTH takes `alice` with `secret`.
struct TlsServer {
    address: SocketAddr,
    authority: Authority,
}

impl TlsServer {
    /// With STARTTLS, or TLS from the first byte.
    fn start(immediate: bool) -> Self {
        let authority = Authority::new("authority of the test");
        let Made { certificate, key } = authority.issue(Kind::P256, "mx.example");
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(platform::tls::crypto_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut socket, config) = (socket.unwrap(), Arc::clone(&config));
                // The client may break off at any place.
                thread::spawn(move || {
                    if !immediate && converse(&mut socket, GREETING, "STARTTLS").is_none() {
                        return;
                    }
                    let tls = ServerConnection::new(config).unwrap();
                    let greeting = if immediate { GREETING } else { "" };
                    converse(&mut StreamOwned::new(tls, socket), greeting, "AUTH PLAIN");
                });
            }
        });
        Self { address, authority }
    }

    /// A file with the certificate of its authority, as a parameter of `-T`.
    fn cafile(&self, directory: &Path) -> String {
        let path = directory.join("authority.pem");
        fs::write(&path, &self.authority.certificate).unwrap();
        format!("cafile={}", path.display())
    }
}

/// Speaks until STARTTLS, which is `Some`, or the end.
fn converse(stream: &mut (impl Read + Write), greeting: &str, offer: &str) -> Option<()> {
    let in_clear = offer == "STARTTLS";
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(greeting.as_bytes()).ok()?;
    stream.get_mut().flush().ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let reply = match line.trim_end() {
            "STARTTLS" if in_clear => "220 go on",
            "AUTH PLAIN AGFsaWNlAHNlY3JldA==" => "235 welcome",
            "DATA" => "354 go on",
            "." => "250 taken",
            "QUIT" => "221 bye",
            line if line.starts_with("AUTH") => "535 wrong",
            line if line.starts_with("EHLO") => &format!("250-mx.example\r\n250 {offer}"),
            line if line.starts_with("MAIL") || line.starts_with("RCPT") => "250 ok",
            _ => continue,
        };
        stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).ok()?;
        stream.get_mut().flush().ok()?;
        if reply == "220 go on" {
            return Some(());
        }
    }
}

#[test]
fn a_certificate_must_hold_unless_any_is_good() {
    let server = TlsServer::start(false);
    let directory = open_directory();
    let cafile = server.cafile(directory.path());
    let named = format!("{cafile},servername=mx.example");
    let taken = "a@b: EOM: 250 taken\n";
    let refused = "connection error: TLS handshake failed: invalid peer certificate: ";
    let cases: [(&[&str], Result<&str, &str>); 8] = [
        (&["-T", &named], Ok(taken)),
        (&["-T", &cafile, "-S", "mx.example"], Ok(taken)),
        (&["-T", &format!("{named} nosni")], Ok(taken)),
        (&["-C"], Ok(taken)),
        (&["-T", "noverify"], Ok(taken)),
        // The authority is none of the system's.
        (&["-T", "servername=mx.example"], Err(refused)),
        // The name is another.
        (&["-T", &cafile], Err(refused)),
        (&["-T", &cafile, "-S", "other.example"], Err(refused)),
    ];
    for protocol in ["smtp", "smtp+tls"] {
        for (words, expected) in &cases {
            let (said, status) = client(protocol, server.address, &[words, &["a@b"][..]].concat());
            match expected {
                Ok(expected) => assert_eq!((said.as_str(), status), (*expected, 0), "{words:?}"),
                Err(expected) => {
                    assert!(said.starts_with(expected), "{words:?}: {said}");
                    assert!(said.ends_with("\nsmtp: no more host\n"), "{words:?}: {said}");
                    assert_eq!((said.lines().count(), status), (2, 1), "{words:?}: {said}");
                }
            }
        }
    }
}

#[test]
fn a_login_goes_through_tls_and_is_not_shown() {
    let server = TlsServer::start(true);
    let directory = open_directory();
    let trust = format!("{},servername=mx.example", server.cafile(directory.path()));
    let login = directory.path().join("login");
    for (password, expected) in [("secret", ""), ("wrong", "rejected by server: 535 wrong\n")] {
        fs::write(&login, format!("alice\n{password}\n")).unwrap();
        let words = ["-n", "-a", login.to_str().unwrap(), "-T", &trust];
        assert_eq!(client("smtps", server.address, &words), (expected.to_owned(), 0));
        let (said, _) = client("smtps", server.address, &[&words[..], &["-vvv"]].concat());
        assert!(said.contains("debug: tls TLSv1.3:"), "{said}");
        assert!(said.contains(">>> EHLO ") && said.contains("<<< 250 AUTH PLAIN\n"), "{said}");
        assert!(!said.contains("AGFsaWNl") && !said.contains("secret"), "{said}");
    }
    let old = format!("{trust},protocols=tlsv1.2,ciphers=ECDHE-ECDSA-AES128-GCM-SHA256");
    let (said, status) = client("smtps", server.address, &["-nv", "-T", &old]);
    let expected = "debug: tls TLSv1.2:ECDHE-ECDSA-AES128-GCM-SHA256:128, the certificate holds\n";
    assert!(said.contains(expected) && status == 0, "{said}");
}

/// Postfix with STARTTLS, which throws away what it takes for `postfix.example`.
fn postfix(peers: &Peers, made: &Made) -> (PeerServer, SocketAddr) {
    let address = free_address();
    let work = open_directory();
    fs::create_dir(work.path().join("spool")).unwrap();
    fs::create_dir(work.path().join("data")).unwrap();
    let uid = Some(peers.uid("postfix"));
    chown(work.path().join("data"), uid, uid).unwrap();
    fs::write(work.path().join("chain.pem"), format!("{}{}", made.key, made.certificate)).unwrap();
    let settings = "compatibility_level = 3.6\nqueue_directory = /mnt/spool\n\
         data_directory = /mnt/data\ncommand_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\nmaillog_file = /mnt/log\n\
         maillog_file_prefixes = /mnt, /dev\nmyhostname = postfix.example\nmydestination =\n\
         mynetworks = 127.0.0.0/8\ninet_interfaces = @HOST@\ninet_protocols = ipv4\n\
         smtpd_peername_lookup = no\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
         smtpd_recipient_restrictions = check_recipient_access inline:{who@postfix.example=REJECT}\n\
         relay_domains = postfix.example\ntransport_maps = inline:{postfix.example=discard}\n\
         smtpd_tls_chain_files = /mnt/chain.pem\nsmtpd_tls_security_level = may\n";
    let settings = settings.replace("@HOST@", &address.ip().to_string());
    fs::write(work.path().join("main.cf"), settings).unwrap();
    let services = format!(
        "{address} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\n\
         discard unix - - n - - discard\nanvil unix - - n - 1 anvil\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\npostlog unix-dgram n - n - 1 postlogd\n"
    );
    fs::write(work.path().join("master.cf"), services).unwrap();
    (peers.serve("postfix-client", work, &[POSTFIX, "-c", "/mnt", "start-fg"], address), address)
}

#[test]
fn postfix_takes_mail_inside_tls() {
    let Some(peers) = Peers::with(&[POSTFIX]) else { return };
    let authority = Authority::new("authority of the test");
    let made = authority.issue(Kind::Rsa, "postfix.example");
    let (postfix, address) = postfix(&peers, &made);
    let path = postfix.work().join("authority.pem");
    fs::write(&path, &authority.certificate).unwrap();
    let trust = format!("cafile={},servername=postfix.example", path.display());
    let recipients = ["-v", "-T", &trust, "who@postfix.example", "a@postfix.example"];
    let (said, status) = client("smtp+tls", address, &recipients);
    let lines: Vec<&str> = said.lines().collect();
    let [_, tls, refused, taken] = lines[..] else { panic!("{said}") };
    assert!(tls.starts_with("debug: tls TLSv1.3:") && tls.ends_with("certificate holds"), "{said}");
    assert!(refused.starts_with("who@postfix.example: RCPT: 554 5.7.1 "), "{said}");
    assert!(taken.starts_with("a@postfix.example: EOM: 250 2.0.0 Ok: queued as "), "{said}");
    assert_eq!(status, 0);
}
