//! Sessions that are local, encrypted or logged in, as filter programs see and decide them; and that
//! nothing is said in clear text where a handshake comes first.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};

use common::certificates::{Kind, certificate};
use common::encrypted::{anyone, encrypt, start_tls};
use common::filter_program::{EVERYTHING, FilterProgram};
use common::peer::{Peer, message};
use common::server::{Server, free_address};
use common::spec_case;
use common::wait::{SOON, wait_until};

/// A server with listeners of the test's own beside `@LISTEN@`, a certificate, and the program `f1`.
fn prepare(lines: &str) -> (Server, FilterProgram) {
    let lines = format!(
        "filter f1 proc-exec \"@DIR@/filter-test @DIR@/f1\"\n@LISTEN@\n{lines}\n\
         table users {{ \"@\" = \"@USER@\" }}\n\
         action \"local\" maildir \"@DIR@/mail/%{{rcpt.user}}\" virtual <users>\n\
         match from any for domain \"example.org\" action \"local\"\n"
    );
    let server = Server::prepare(&lines, &[]);
    let program = FilterProgram::install(&server, "f1");
    program.registers(EVERYTHING);
    server.write_certificate("mx", &certificate(Kind::P256, "mx.example.org"));
    (server, program)
}

const PKI: &str = "pki srv cert \"@DIR@/mx.crt\"\npki srv key \"@DIR@/mx.key\"\n";

#[test]
fn filters_see_the_addresses_of_both_ends() {
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        println!("skipped: there is no IPv6 here");
        return;
    };
    let v6 = probe.local_addr().unwrap();
    drop(probe);
    let (mut server, program) =
        prepare(&format!("listen on ::1 port {} filter f1\nlisten on socket filter f1", v6.port()));
    server.run();
    let mut peer = Peer::greeted(v6).unwrap();
    let client = peer.stream().local_addr().unwrap();
    assert_eq!(peer.say("RSET").unwrap().code, 250);
    let ends = format!("|{client}|{v6}");
    wait_until("it is told of the connection", SOON, || {
        let told = program.told();
        told.iter().any(|line| line.starts_with("R|link-connect|") && line.ends_with(&ends))
    });
    assert!(client.to_string().starts_with("[::1]:"));
    let asked = |end: &str| {
        let told = program.told();
        let find = |line: &&String| line.starts_with("Q|connect|") && line.ends_with(end);
        told.iter().find(find).cloned()
    };
    assert!(asked("|[::1]").is_some(), "{:?}", program.told());
    spec_case::ran("filter", 15);

    let said = server.sendmail(&["-f", "bob@example.org", "c@example.org"], "Subject: x\n\ny\n");
    assert_eq!((said.status, said.errors.as_str()), (0, ""));
    let asked = asked("|local").unwrap();
    let name = asked.strip_prefix("Q|connect|").unwrap().strip_suffix("|local").unwrap();
    let told = program.told();
    let begin = format!("R|link-connect|{name}|pass|unix:/");
    let connected = told.iter().find(|line| line.starts_with(&begin)).expect("it is told");
    let (source, destination) = connected.rsplit_once('|').unwrap();
    assert!(source.ends_with(&format!("|{destination}")), "{connected}");
    let state = fs::canonicalize(server.state()).unwrap();
    let socket = fs::canonicalize(destination.trim_start_matches("unix:")).unwrap();
    assert!(socket.starts_with(state), "{connected}");
    spec_case::ran("filter", 16);
    server.maildir("c").wait_for(1, SOON);
}

/// `secret`, with SHA-256.
const HASH: &str = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA";

#[test]
fn sessions_that_encrypt_and_log_in_are_decided_and_told() {
    let address = free_address();
    let (mut server, program) = prepare(&format!(
        "{PKI}table creds {{ alice = \"{HASH}\" }}\n\
         listen on {} port {} tls pki srv auth-optional <creds> filter f1",
        address.ip(),
        address.port()
    ));
    server.run();
    program.mode("starttls reject|454 no tls");
    let mut refused = Peer::greeted(address).unwrap();
    assert_eq!(refused.say("STARTTLS").unwrap().line(), "454 no tls");
    assert_eq!(refused.say("NOOP").unwrap().line(), "250 2.0.0 Ok");
    spec_case::ran("filter", 53);
    refused.quit().unwrap();

    program.mode("auth reject|535 5.7.8 no");
    let mut peer = start_tls(address, &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.say("EHLO client.example").unwrap().code, 250);
    let right = "AUTH PLAIN AGFsaWNlAHNlY3JldA==";
    assert_eq!(peer.say(right).unwrap().line(), "535 5.7.8 no");
    let log = server.log();
    assert!(!log.contains("AGFs") && !log.contains(" smtp authentication "), "{log}");
    spec_case::ran("filter", 54);

    program.mode("proceed");
    assert_eq!(peer.say("auth plain AGFsaWNlAGJhZA==").unwrap().code, 535);
    for (said, code) in [("AUTH LOGIN", 334), ("YWxpY2U=", 334), ("c2VjcmV0", 235)] {
        assert_eq!(peer.say(said).unwrap().code, code, "{said}");
    }
    program.mode("rcpt-to report|hello");
    let reply = peer.submit("a@b.example", &["user@example.org"], &message("in")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    peer.quit().unwrap();
    wait_until("it is told of the end", SOON, || {
        let told = program.events();
        told.iter().filter(|event| *event == "link-disconnect").count() == 2
    });
    let told = program.told();
    let follows = |lines: &[&str]| {
        assert!(told.windows(lines.len()).any(|some| some == lines), "{lines:?}: {told:#?}");
    };
    follows(&["R|filter-response|tls|reject|454 no tls", "R|protocol-server|454 no tls"]);
    follows(&[
        "R|protocol-client|STARTTLS",
        "Q|starttls|",
        "R|filter-response|tls|proceed",
        "R|protocol-server|220 2.0.0 Ready to start TLS",
        "R|link-tls|TLSv1.3:TLS_AES_256_GCM_SHA384:256",
    ]);
    spec_case::ran("filter", 18);
    follows(&[
        "R|protocol-client|auth plain ********",
        "Q|auth|plain AGFsaWNlAGJhZA==",
        "R|filter-response|auth|proceed",
        "R|link-auth|fail|alice",
        "R|protocol-server|535 Authentication failed",
    ]);
    spec_case::ran("filter", 19);
    follows(&[
        "R|protocol-client|AUTH LOGIN",
        "Q|auth|LOGIN",
        "R|filter-response|auth|proceed",
        "R|protocol-server|334 VXNlcm5hbWU6",
        "R|protocol-client|********",
        "R|protocol-server|334 UGFzc3dvcmQ6",
        "R|protocol-client|********",
        "R|link-auth|pass|alice",
    ]);
    spec_case::ran("filter", 21);
    follows(&["Q|rcpt-to|user@example.org", "R|filter-response|rcpt-to|report|hello"]);
    assert!(told.iter().any(|line| line.ends_with("|ok|user@example.org")), "{told:#?}");
    server.maildir("user").wait_for(1, SOON);
    spec_case::ran("filter", 58);
}

#[test]
fn nothing_is_said_in_clear_text_where_a_handshake_comes_first() {
    let (good, broken) = (free_address(), free_address());
    let (mut server, program) = prepare(&format!(
        "{PKI}filter none proc-exec \"@DIR@/filter-none\"\n\
         listen on {} port {} smtps pki srv filter f1\n\
         listen on {} port {} smtps pki srv filter none",
        good.ip(),
        good.port(),
        broken.ip(),
        broken.port()
    ));
    server.run();
    let read = |address: SocketAddr, said: &[u8]| {
        let mut peer = Peer::connect(address).unwrap();
        let _closed = peer.send(said);
        let mut answer = Vec::new();
        // It may be closed before what was sent is read.
        let _reset = peer.into_stream().read_to_end(&mut answer);
        answer
    };
    let cases = [
        (good, "connect reject|550 nope", "550 nope"),
        (good, "connect disconnect|421 gone", "421 gone"),
        (broken, "proceed", "421 Internal server error"),
    ];
    for (address, mode, line) in cases {
        program.mode(mode);
        for said in [&b""[..], b"EHLO client.example\r\n"] {
            assert_eq!(read(address, said), b"", "{mode}");
        }
        let failed = format!(" smtp failed-command command=\"\" result=\"{line}\"");
        server.wait_for_log(&failed);
        let handshake =
            encrypt(Peer::connect(address).unwrap().into_stream(), &anyone(), "mx.example.org");
        assert!(handshake.is_err(), "{mode}");
    }
    program.mode("proceed");
    let stream = Peer::connect(good).unwrap().into_stream();
    let mut peer = encrypt(stream, &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
}
