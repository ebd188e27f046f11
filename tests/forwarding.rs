//! What comes by way of others: connections that a proxy passes on, and reports to senders that
//! were rewritten because their mail was forwarded.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::certificates::{Kind, certificate};
use common::encrypted::{anyone, encrypt, encrypt_behind};
use common::peer::{Peer, Reply, message};
use common::server::{Server, free_address};
use common::sink::Sink;
use common::spec_case::ran;
use common::wait::{SOON, wait_until};
use pillarbox::model::Mailbox;
use pillarbox::proto::srs;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The source 192.0.2.1, port 12345.
const TCP4: &[u8] = &[192, 0, 2, 1, 127, 0, 0, 1, 0x30, 0x39, 0, 25];

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// A server with a listener of its own for a proxy.
struct Behind {
    server: Server,
    address: SocketAddr,
}

impl Behind {
    fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    fn start_with(config: &str, options: &[&str]) -> Self {
        let address = free_address();
        let config =
            format!("listen on {} port {} proxy-v2\n{config}", address.ip(), address.port());
        Self { server: Server::start_with(&config, options), address }
    }

    fn connect(&self, bytes: &[u8]) -> Peer {
        let mut peer = Peer::connect(self.address).unwrap();
        peer.send(bytes).unwrap();
        peer
    }

    /// A greeted session of a client in the network, far away.
    fn outside(&self) -> Peer {
        let mut peer = self.connect(&header(0x21, 0x11, TCP4));
        assert_eq!(peer.reply().unwrap().code, 220);
        assert_eq!(peer.say("EHLO client.example").unwrap().code, 250);
        peer
    }

    fn greeting(&self, bytes: &[u8]) -> (Reply, Reply) {
        let mut peer = self.connect(bytes);
        let banner = peer.reply().unwrap();
        (banner, peer.say("HELO x").unwrap())
    }
}

const REJECT: &str = "@LISTEN@\nmatch auth from socket for any reject\n\
    action \"out\" relay host \"smtp+notls://127.0.0.1:9\"\nmatch from socket for any action \"out\"\n";

#[test]
fn a_proxy_says_whom_it_passes_on() {
    let behind = Behind::start(REJECT);
    let tlv = [TCP4, &[3, 0, 4, 1, 2, 3, 4]].concat();
    let source: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let tcp6 = [&source.octets()[..], &[0; 16], &[1, 2, 0, 25]].concat();
    let cases = [
        (195, header(0x21, 0x11, TCP4), "192.0.2.1", "[192.0.2.1]"),
        (196, header(0x21, 0x11, &tlv), "192.0.2.1", "[192.0.2.1]"),
        (197, header(0x21, 0x21, &tcp6), "[2001:db8::1]", "[2001:db8::1]"),
        (198, header(0x20, 0, b""), "127.0.0.1", "[127.0.0.1]"),
        (206, header(0x21, 0x31, &[b'x'; 216][..]), "", ""),
        (
            206,
            header(0x21, 0x31, &[[b'x'; 100].as_slice(), &[0; 116]].concat()),
            "local",
            "[local]",
        ),
    ];
    for (number, bytes, logged, shown) in cases {
        if shown.is_empty() {
            let mut nothing = Vec::new();
            behind.connect(&bytes).stream().read_to_end(&mut nothing).unwrap();
            assert!(nothing.is_empty(), "smtp case {number}");
            continue;
        }
        let (banner, hello) = behind.greeting(&bytes);
        assert_eq!(banner.code, 220, "smtp case {number}");
        let expected = format!(" Hello x {shown}, pleased to meet you");
        assert!(hello.line().ends_with(&expected), "smtp case {number}: {hello:?}");
        behind.server.wait_for_log(&format!("smtp connected address={logged} "));
        ran("smtp", number);
    }
    behind.server.wait_for_log("smtp event=proxy address=127.0.0.1");

    let bytes = header(0x21, 0x11, TCP4);
    let mut peer = behind.connect(&bytes[..5]);
    for piece in [&bytes[5..20], &bytes[20..]] {
        std::thread::sleep(Duration::from_millis(20));
        peer.send(piece).unwrap();
    }
    assert_eq!(peer.reply().unwrap().code, 220);
    ran("smtp", 196);

    let mut peer = behind.connect(&[&bytes[..], b"EHLO early\r\n"].concat());
    assert_eq!(peer.reply().unwrap().code, 220);
    let hello = peer.reply().unwrap();
    assert!(hello.lines[0].contains(" Hello early [192.0.2.1]"), "{hello:?}");
    ran("smtp", 204);

    // Of a socket, for rules, but nobody who is authenticated.
    let mut peer = behind.connect(&header(0x21, 0x31, &[0; 216]));
    assert_eq!(peer.reply().unwrap().code, 220);
    assert_eq!(peer.say("EHLO x").unwrap().code, 250);
    assert_eq!(peer.say("MAIL FROM:<a@b>").unwrap().code, 250);
    assert_eq!(peer.say("RCPT TO:<c@d>").unwrap().code, 250);
    ran("smtp", 206);
}

/// A server with listeners for a proxy, one with STARTTLS and one with smtps.
fn behind_with_tls() -> (Server, SocketAddr, SocketAddr) {
    let (starttls, smtps) = (free_address(), free_address());
    let config = format!(
        "pki srv cert \"@DIR@/mx.crt\"\npki srv key \"@DIR@/mx.key\"\n\
         listen on {} port {} tls-require pki srv proxy-v2\n\
         listen on {} port {} smtps pki srv proxy-v2\n{REJECT}",
        starttls.ip(),
        starttls.port(),
        smtps.ip(),
        smtps.port()
    );
    let mut server = Server::prepare(&config, &[]);
    server.write_certificate("mx", &certificate(Kind::P256, "mx.example.org"));
    server.run();
    (server, starttls, smtps)
}

#[test]
fn a_proxy_passes_on_encrypted_sessions() {
    let (server, starttls, smtps) = behind_with_tls();
    let bytes = header(0x21, 0x11, TCP4);
    let hello = " Hello x [192.0.2.1], pleased to meet you";

    // Header and ClientHello in one segment, and one after the other.
    let stream = Peer::connect(smtps).unwrap().into_stream();
    let mut peer = encrypt_behind(&bytes, stream, &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    assert!(peer.say("HELO x").unwrap().line().ends_with(hello));
    ran("smtp", 205);
    let mut peer = Peer::connect(smtps).unwrap();
    peer.send(&bytes).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let mut peer = encrypt(peer.into_stream(), &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    // The header comes first, and in clear text.
    let mut stream = Peer::connect(smtps).unwrap().into_stream();
    assert!(encrypt(stream.try_clone().unwrap(), &anyone(), "mx.example.org").is_err());
    let _closed = stream.read_to_end(&mut Vec::new());
    server.wait_for_log("reason=\"protocol error (invalid signature)\"");
    // One that is not followed by TLS gets nothing in clear text.
    let mut peer = Peer::connect(smtps).unwrap();
    peer.send([&bytes[..], b"EHLO x\r\n"].concat()).unwrap();
    let mut answer = Vec::new();
    let _reset = peer.into_stream().read_to_end(&mut answer);
    assert_eq!(answer, b"");

    let mut peer = Peer::connect(starttls).unwrap();
    peer.send([&bytes[..], b"EHLO x\r\nSTARTTLS\r\n"].concat()).unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    assert!(peer.reply().unwrap().lines[0].ends_with(hello));
    assert_eq!(peer.reply().unwrap().line(), "220 2.0.0 Ready to start TLS");
    let mut peer = encrypt(peer.into_stream(), &anyone(), "mx.example.org").unwrap();
    assert!(peer.say("EHLO x").unwrap().lines[0].ends_with(hello));
    assert_eq!(peer.say("MAIL FROM:<a@b>").unwrap().code, 250);
    // What the proxy sends together with its header is clear text all the same.
    let mut peer = Peer::connect(starttls).unwrap();
    peer.send([&bytes[..], b"EHLO x\r\nSTARTTLS\r\nEHLO y\r\nMAIL FROM:<a@b>\r\n"].concat())
        .unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    assert_eq!(peer.reply().unwrap().code, 250);
    let nothing = peer.reply();
    assert!(nothing.is_err(), "{nothing:?}");
    server.wait_for_log(" smtp bad-input ");
}

#[test]
fn a_wrong_header_closes_without_a_word() {
    let behind = Behind::start(REJECT);
    let cases: [(u32, Vec<u8>, &str); 8] = [
        (
            199,
            header(0x21, 0, b""),
            "address translation (UNSPEC family not supported for PROXYing)",
        ),
        (200, header(0x21, 0x12, TCP4), "protocol error (unsupported address family)"),
        (201, header(0x22, 0x11, TCP4), "protocol error (unknown command)"),
        (201, header(0x11, 0x11, TCP4), "protocol error (invalid version)"),
        (202, header(0x21, 0x11, &[0; 8]), "protocol error (address info too short)"),
        (202, [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(), "protocol error (header too long)"),
        (
            203,
            b"PROXY TCP4 192.0.2.1 127.0.0.1 1 25\r\n".to_vec(),
            "protocol error (invalid signature)",
        ),
        (203, b"EHLO x\r\n".to_vec(), "protocol error (invalid signature)"),
    ];
    for (number, bytes, reason) in cases {
        let mut answer = Vec::new();
        // The server may close before everything sent was read.
        let _reset = behind.connect(&bytes).stream().read_to_end(&mut answer);
        assert!(answer.is_empty(), "smtp case {number}: {answer:?}");
        let line = behind.server.wait_for_log(&format!("reason=\"{reason}\""));
        assert!(line.contains(" event=closed address=127.0.0.1 "), "smtp case {number}: {line}");
        ran("smtp", number);
    }
    behind.server.wait_for_log("the text header of version 1 is not supported");
    // Counted once for each connection, and not below nothing (D22).
    let sessions = || behind.server.statistic("smtp.session");
    wait_until("all sessions are over", SOON, || sessions() == 0);
    let open = behind.outside();
    wait_until("a session is counted", SOON, || sessions() == 1);
    drop(open);
    wait_until("all sessions are over", SOON, || sessions() == 0);
}

#[test]
fn a_name_server_that_cannot_be_asked_is_named_in_the_log() {
    // Nobody answers there.
    let nobody = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
    let behind = Behind::start_with(REJECT, &["--resolver", &nobody.to_string()]);
    let _open = behind.connect(&header(0x21, 0x11, TCP4));
    let line = behind.server.wait_for_log("getnameinfo: ");
    assert!(line.contains("getnameinfo: 192.0.2.1: "), "{line}");
    behind.server.wait_for_log("smtp connected address=192.0.2.1 host=<unknown>");
}

/// Mail for `list@example.org` goes to another server, from whomever; from outside nothing else
/// does.
const FORWARD: &str = r#"
@LISTEN@
srs key "secretkey"
srs key backup "older"
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
table lists { "list@example.org" = "member@far.example", "both@example.org" = "one@far.example, two@far.example" }
action "lists" maildir "@DIR@/mail/%{rcpt.user}" virtual <lists>
action "out" relay host "smtp+notls://@SINK@" srs
match from any for domain "example.org" action "lists"
match from any for domain "direct.example" action "out"
match from local for any action "out"
"#;

fn today() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs() / 86_400).unwrap()
}

fn signed(sender: &str, key: &str, day: i64) -> String {
    let sender = Mailbox::parse(sender).unwrap();
    srs::rewrite(&sender, "example.org", key, day).unwrap().to_string()
}

#[test]
fn forwarded_mail_has_a_sender_that_leads_back() {
    let sink = Sink::start();
    let behind = Behind::start(&FORWARD.replace("@SINK@", &sink.address().to_string()));
    let before = today();
    let send = |from: &str, to: &[&str]| {
        let count = sink.received().len();
        let reply = behind.outside().submit(from, to, &message("forwarded")).unwrap();
        assert_eq!(reply.code, 250, "{from} {to:?}: {reply:?}");
        sink.wait_for(count + 1, Duration::from_secs(30)).split_off(count)
    };
    let received = send("a@b.test", &["list@example.org"]);
    let either =
        [signed("a@b.test", "secretkey", before), signed("a@b.test", "secretkey", today())];
    assert!(either.contains(&received[0].sender), "{received:?}");
    assert_eq!(received[0].recipients, ["member@far.example"]);
    ran("smtp", 207);

    assert_eq!(send("a@b.test", &["x@direct.example"])[0].sender, "a@b.test");
    assert_eq!(send("", &["list@example.org"])[0].sender, "");
    ran("smtp", 208);

    let again = "SRS1=abcd=first.test==HHHH=TT=b=a@second.test";
    let expected = "SRS1=Cdfn=first.test==HHHH=TT=b=a@example.org";
    assert_eq!(send(again, &["list@example.org"])[0].sender, expected);
    ran("smtp", 209);
    let again = "SRS0=Ksxc=JK=b=a@first.test";
    let expected = "SRS1=bxpC=first.test==Ksxc=JK=b=a@example.org";
    let both = send(again, &["both@example.org"]);
    assert_eq!((both[0].sender.as_str(), both[0].recipients.len()), (expected, 2));
    ran("smtp", 210);

    // Two senders of one message: two transactions.
    let count = sink.received().len();
    let to = ["list@example.org", "x@direct.example"];
    behind.outside().submit("c@d.test", &to, &message("two")).unwrap();
    let mut senders: Vec<String> = sink
        .wait_for(count + 2, Duration::from_secs(30))
        .split_off(count)
        .into_iter()
        .map(|one| one.sender)
        .collect();
    senders.sort();
    assert!(senders[0].starts_with("SRS0=") && senders[1] == "c@d.test", "{senders:?}");
}

#[test]
fn reports_to_rewritten_senders_find_their_way() {
    let sink = Sink::start();
    let behind = Behind::start(&FORWARD.replace("@SINK@", &sink.address().to_string()));
    let say = |from: &str, to: &str| {
        let mut peer = behind.outside();
        assert_eq!(peer.say(&format!("MAIL FROM:<{from}>")).unwrap().code, 250);
        peer.say(&format!("RCPT TO:<{to}>")).unwrap().code
    };
    let good = signed("orig@src.test", "secretkey", today());
    let lower = format!("srs0={}", &good[5..]);
    // 213: one day of tolerance here, for a test that runs at midnight.
    let cases = [
        (211, "", good.clone(), true),
        (212, "", signed("orig@src.test", "older", today()), true),
        (0, "", signed("orig@src.test", "neither", today()), false),
        (213, "", signed("orig@src.test", "secretkey", today() - 3), true),
        (213, "", signed("orig@src.test", "secretkey", today() - 6), false),
        (213, "", signed("orig@src.test", "secretkey", today() + 1), true),
        (213, "", signed("orig@src.test", "secretkey", today() + 3), false),
        (214, "", good.to_lowercase(), false),
        (214, "", lower, true),
        (215, "x@y.test", good.clone(), false),
    ];
    for (number, from, to, decoded) in cases {
        assert_eq!(say(from, &to), if decoded { 250 } else { 524 }, "smtp case {number}: {to}");
        ran("smtp", number);
    }
    assert_eq!(say("", "orig@src.test"), 550, "no rule lets that go from outside");
    behind.server.wait_for_log("SRS failed to decode: srs0=");

    let reply = behind.outside().submit("", &[&good], &message("report")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    let received = sink.wait_for(1, Duration::from_secs(30));
    assert_eq!(
        (received[0].sender.as_str(), received[0].recipients[0].as_str()),
        ("", "orig@src.test")
    );
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    assert!(received[0].content.contains(&format!("[{source}])")), "{}", received[0].content);
    ran("smtp", 211);
}
