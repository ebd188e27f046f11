//! Sessions with TLS: STARTTLS and smtps, certificates that are chosen, checked and renewed, and what
//! becomes of clients that do not behave.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use pillarbox::config::Protocols;
use pillarbox::tls::{ClientOptions, Trust, client_config};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{HandshakeKind, NamedGroup};

use common::certificates::{Authority, Kind, Made, certificate};
use common::encrypted::{anyone, der, encrypt, shown, start_tls};
use common::maildir::header;
use common::peer::message;
use common::process::send;
use common::server::{Server, free_address};
use common::spec_case::ran;
use common::wait::{SOON, wait_for, wait_until};

/// A listener with STARTTLS and one with smtps, both with the certificate `srv`.
const CONFIG: &str = r#"
pki srv cert "@DIR@/mx.crt"
pki srv key "@DIR@/mx.key"
@LISTEN@ tls pki SRV
listen on 127.0.0.1 port @SMTPS@ smtps pki srv
table users { "@" = "@USER@" }
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "example.org" action "local"
"#;

/// A server with this configuration, and where its smtps listener is.
fn prepare(config: &str) -> (Server, std::net::SocketAddr) {
    let smtps = free_address();
    let config = config.replace("@SMTPS@", &smtps.port().to_string());
    (Server::prepare(&config, &[]), smtps)
}

fn start(made: &Made) -> (Server, std::net::SocketAddr) {
    let (mut server, smtps) = prepare(CONFIG);
    server.write_certificate("mx", made);
    server.run();
    (server, smtps)
}

fn made() -> Made {
    certificate(Kind::P256, "mx.example.org")
}

fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn a_session_goes_on_encrypted_after_starttls() {
    let (server, _) = start(&made());
    let mut peer = start_tls(server.address(), &anyone(), "mx.example.org").unwrap();
    let sequence = "503 5.5.1 Invalid command: Command not allowed at this point.";
    assert_eq!(peer.say("MAIL FROM:<a@b>").unwrap().line(), sequence);
    assert_eq!(peer.say("STARTTLS").unwrap().line(), sequence);
    ran("smtp", 157);
    let greeting = peer.say("EHLO client.example").unwrap();
    assert!(!greeting.lines.iter().any(|line| line == "STARTTLS"), "{greeting:?}");
    let secured = "503 5.5.1 Invalid command: Channel already secured";
    assert_eq!(peer.say("STARTTLS").unwrap().line(), secured);
    assert_eq!(server.statistic("smtp.tls"), 1);
    // Several records each way.
    let long = message("long") + &"A line of some length, many times.\n".repeat(8000);
    for content in [message("short"), long.clone()] {
        let reply = peer.submit("sender@client.example", &["user@example.org"], &content).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    assert_eq!(peer.quit().unwrap().code, 221);
    let messages = server.maildir("user").wait_for(2, SOON);
    assert!(messages.iter().any(|text| text.ends_with("many times.\n") && text.len() > long.len()));
    let received = header(&messages[0], "Received").unwrap();
    let received = received.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(received.contains(" with ESMTPS id "), "{received}");
    assert!(received.contains(" (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO) "), "{received}");
    ran("smtp", 161);
    server.wait_for_log(" smtp tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256");
    server.wait_for_log(" smtp disconnected reason=quit");
    wait_until("the session is not counted any more", SOON, || server.statistic("smtp.tls") == 0);
}

#[test]
fn smtps_begins_with_the_handshake() {
    let (server, smtps) = start(&made());
    let mut peer = encrypt(connect(smtps), &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    assert_eq!(server.statistic("smtp.smtps"), 1);
    assert_eq!(peer.say("EHLO client.example").unwrap().code, 250);
    let unsupported = "503 5.5.1 Invalid command: Command not supported";
    assert_eq!(peer.say("STARTTLS").unwrap().line(), unsupported);
    ran("smtp", 163);
    let group = peer.stream().conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let reply = peer.submit("a@client.example", &["user@example.org"], &message("s")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    server.maildir("user").wait_for(1, SOON);
}

#[test]
fn every_kind_of_key_is_chosen_by_the_name_that_a_client_asks_for() {
    let kinds = [Kind::P256, Kind::Ed25519, Kind::Rsa, Kind::P384];
    let names = ["a.example", "b.example", "c.example", "d.example"];
    let mut config = String::new();
    let mut options = String::new();
    for name in names {
        config += &format!("pki {name} cert \"@DIR@/{name}.crt\" key \"@DIR@/{name}.key\"\n");
        options += &format!(" pki {name}");
    }
    config += &format!("@LISTEN@ tls{options}\nmatch from any for any reject\n");
    let mut server = Server::prepare(&config, &[]);
    let authority = Authority::new("authority").below("below");
    let made: Vec<Made> = kinds
        .into_iter()
        .zip(names)
        .map(|(kind, name)| {
            let mut made = authority.issue(kind, name);
            made.certificate += &authority.certificate;
            server.write_certificate(name, &made);
            made
        })
        .collect();
    server.run();
    for (name, expected) in [
        ("a.example", 0),
        ("b.example", 1),
        ("C.example", 2),
        ("d.example", 3),
        ("other.example", 0),
        ("127.0.0.1", 0),
    ] {
        let mut peer = start_tls(server.address(), &anyone(), name).unwrap();
        assert!(shown(&peer) == der(&made[expected]), "{name}");
        let chain = peer.stream().conn.peer_certificates().unwrap().len();
        assert_eq!(chain, 2, "{name}");
        assert_eq!(peer.say("EHLO client.example").unwrap().code, 250);
    }
    ran("smtp", 166);
}

#[test]
fn certificates_of_clients_are_required_where_the_listener_says_so() {
    let (mut server, smtps) = prepare(
        &CONFIG
            .replace("@SMTPS@ smtps", "@SMTPS@ smtps verify ca clients")
            .replace("@LISTEN@", "ca clients cert \"@DIR@/ca.crt\"\n@LISTEN@"),
    );
    let authority = Authority::new("clients");
    server.write_certificate("mx", &made());
    server.write_key_file("ca.crt", &authority.certificate);
    server.run();
    // A client learns of it when it reads: its side of the handshake is done before.
    let refused = encrypt(connect(smtps), &anyone(), "mx.example.org");
    assert!(refused.is_err() || refused.unwrap().reply().is_err());
    server.wait_for_log("reason=\"io-error: handshake failed: peer sent no certificates\"");
    let own = authority.issue(Kind::Ed25519, "client.example");
    let mut options = ClientOptions::new(Trust::Anyone);
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    options.certificate = Some((vec![der(&own)], key));
    let mut peer =
        encrypt(connect(smtps), &client_config(options).unwrap(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    assert_eq!(peer.say("EHLO client.example").unwrap().code, 250);
    let reply = peer.submit("a@client.example", &["user@example.org"], &message("v")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    let line = server.wait_for_log(" smtp cert-check ");
    assert!(line.contains(" result=\"verified\" fingerprint=\"SHA256:"), "{line}");
    let text = server.maildir("user").wait_for(1, SOON).remove(0);
    assert!(text.contains(":256:YES)"), "{text}");
    ran("smtp", 164);
}

/// A ClientHello of TLS 1.1 without extensions: ECDHE-RSA-AES128-SHA and AES128-SHA.
fn old_hello() -> Vec<u8> {
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[test]
fn a_client_that_only_has_an_old_version_is_refused() {
    let (server, smtps) = start(&made());
    let mut stream = connect(smtps);
    stream.write_all(&old_hello()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    // A fatal alert.
    assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "{answer:?}");
    server.wait_for_log("reason=\"io-error: handshake failed: ");
    ran("smtp", 165);
}

#[test]
fn what_is_no_tls_ends_the_session() {
    let (server, smtps) = start(&made());
    let mut peer = server.peer();
    assert_eq!(peer.say("STARTTLS").unwrap().code, 220);
    peer.send("EHLO again.example\r\n").unwrap();
    assert!(peer.reply().is_err());
    server.wait_for_log("reason=\"io-error: handshake failed: what was received is not TLS\"");
    ran("smtp", 167);
    // On the other listener not a word is said in clear text.
    let mut stream = connect(smtps);
    stream.write_all(b"EHLO client.example\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn what_is_sent_behind_starttls_in_clear_text_is_never_heard() {
    let (server, _) = start(&made());
    let mut peer = server.peer();
    peer.send("STARTTLS\r\nRSET\r\n").unwrap();
    let error = peer.reply().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset));
    server.wait_for_log(" smtp bad-input ");
    ran("smtp", 160);
    // A command in the same packet as the ClientHello, in front of it, is no TLS either.
    let mut peer = server.peer();
    assert_eq!(peer.say("STARTTLS").unwrap().code, 220);
    peer.send([b"NOOP\r\n", &old_hello()[..]].concat()).unwrap();
    assert!(peer.reply().is_err());
    assert_eq!(server.statistic("smtp.tls"), 0);
}

#[test]
fn a_connection_that_breaks_off_is_a_disconnect_and_its_message_is_not_accepted() {
    let (server, _) = start(&made());
    let mut peer = start_tls(server.address(), &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.say("EHLO client.example").unwrap().code, 250);
    for (command, code) in
        [("MAIL FROM:<a@client.example>", 250), ("RCPT TO:<user@example.org>", 250), ("DATA", 354)]
    {
        assert_eq!(peer.say(command).unwrap().code, code, "{command}");
    }
    peer.send("Subject: half\r\n\r\nNobody ends this.\r\n").unwrap();
    // Without close_notify, as somebody between the two could do it.
    peer.stream().sock.shutdown(std::net::Shutdown::Both).unwrap();
    server.wait_for_log(" smtp disconnected reason=disconnect");
    assert_eq!(server.maildir("user").count(), 0);
    assert!(!server.log().contains(" smtp message "));
}

#[test]
fn a_client_resumes_its_session() {
    let (server, smtps) = start(&made());
    let old = Some(Protocols { tls_1_2: true, tls_1_3: false });
    for (signed, protocols) in [(1, None), (2, old)] {
        let options = ClientOptions { protocols, ..ClientOptions::new(Trust::Anyone) };
        let client = client_config(options).unwrap();
        for (index, expected) in [false, true, true].into_iter().enumerate() {
            let mut peer = encrypt(connect(smtps), &client, "mx.example.org").unwrap();
            // The tickets come with the greeting.
            assert_eq!(peer.reply().unwrap().code, 220);
            let kind = peer.stream().conn.handshake_kind();
            assert_eq!(kind == Some(HandshakeKind::Resumed), expected, "{index}: {kind:?}");
            assert_eq!(peer.quit().unwrap().code, 221);
        }
        assert_eq!(server.statistic("keys.signed"), signed);
    }
}

#[test]
fn slow_and_silent_clients_hold_up_nobody() {
    let (server, smtps) = start(&made());
    let hello = old_hello();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| connect(smtps)).collect();
    for stream in &mut slow {
        stream.write_all(&hello[..20]).unwrap();
    }
    let mut peer = encrypt(connect(smtps), &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    // After ten seconds their time is up.
    server.wait_for_log("reason=\"io-error: handshake failed: timed out\"");
    assert_eq!(peer.say("NOOP").unwrap().code, 250);
}

#[test]
fn a_renewed_certificate_is_taken_up_with_its_key_and_not_before() {
    let first = made();
    let (server, _) = start(&first);
    let certificate_now =
        || start_tls(server.address(), &anyone(), "mx.example.org").map(|peer| shown(&peer));
    assert!(certificate_now().unwrap() == der(&first));
    let second = certificate(Kind::Ed25519, "mx.example.org");
    server.write_key_file("mx.crt", &second.certificate);
    server.wait_for_log(
        "warn: pki srv: the key does not belong to the certificate: the certificate before stays in use",
    );
    assert!(certificate_now().unwrap() == der(&first));
    server.write_key_file("mx.key", &second.key);
    wait_until("the new certificate is shown", SOON, || {
        certificate_now().is_ok_and(|now| now == der(&second))
    });
    server.wait_for_log("info: pki srv: certificate renewed");
    server.write_key_file("mx.crt", "junk\n");
    server.wait_for_log("warn: pki srv: there is no certificate in the file");
    assert!(certificate_now().unwrap() == der(&second));
}

#[test]
fn handshakes_go_on_after_the_end_of_the_process_that_holds_the_keys() {
    let (server, smtps) = start(&made());
    let keys = server.role("keys");
    send(keys.pid, Signal::SIGKILL);
    let mut peer =
        wait_for("a handshake", SOON, || encrypt(connect(smtps), &anyone(), "mx.example.org").ok());
    assert_eq!(peer.reply().unwrap().code, 220);
    assert_ne!(server.role("keys").pid, keys.pid);
}

#[test]
fn starttls_is_refused_while_keys_does_not_answer_and_works_when_it_does() {
    let (server, _) = start(&made());
    let keys = server.role("keys");
    send(keys.pid, Signal::SIGSTOP);
    let refused = "454 4.7.0 TLS not available";
    wait_until("STARTTLS is refused", SOON, || {
        match start_tls(server.address(), &anyone(), "mx.example.org") {
            Ok(_) => panic!("a handshake without the key"),
            Err(error) => error.to_string().starts_with(refused),
        }
    });
    // Without TLS mail goes on.
    server.accept(&["user@example.org"], &message("plain"));
    send(keys.pid, Signal::SIGCONT);
    wait_until("STARTTLS works", SOON, || {
        start_tls(server.address(), &anyone(), "mx.example.org").is_ok()
    });
}

#[test]
fn a_listener_whose_key_is_gone_goes_on_without_tls_and_the_others_with_it() {
    let config = CONFIG.replace(
        "@LISTEN@ tls pki SRV",
        "pki b cert \"@DIR@/b.crt\" key \"@DIR@/b.key\"\n@LISTEN@ tls pki b",
    );
    let (mut server, smtps) = prepare(&config);
    server.write_certificate("mx", &made());
    let other = certificate(Kind::P256, "b.example");
    server.write_certificate("b", &other);
    server.run();
    fs::remove_file(server.path("b.key")).unwrap();
    send(server.role("keys").pid, Signal::SIGKILL);
    server.wait_for_log("warn: pki b: ");
    wait_until("STARTTLS is refused", SOON, || {
        start_tls(server.address(), &anyone(), "b.example")
            .is_err_and(|error| error.to_string().starts_with("454 4.7.0 "))
    });
    let mut peer = encrypt(connect(smtps), &anyone(), "mx.example.org").unwrap();
    assert_eq!(peer.reply().unwrap().code, 220);
    server.write_key_file("b.key", &other.key);
    wait_until("STARTTLS works again", SOON, || {
        start_tls(server.address(), &anyone(), "b.example").is_ok()
    });
}

#[test]
fn a_key_of_another_certificate_is_an_error_before_the_start() {
    let (mut server, _) = prepare(CONFIG);
    let (one, other) = (made(), made());
    server.write_key_file("mx.crt", &one.certificate);
    server.write_key_file("mx.key", &other.key);
    server.spawn();
    assert!(!server.wait_for_end().success());
    let complaint = "pki srv: the key does not belong to the certificate";
    assert!(server.log().contains(complaint), "{}", server.log());
}

#[test]
fn a_server_that_root_starts_uses_keys_that_only_root_can_read() {
    let made = made();
    let config = CONFIG.replace("@SMTPS@", &free_address().port().to_string());
    let config = config.replace("virtual <users>", "");
    let fill = |path: &std::path::Path| {
        for (name, text, mode) in
            [("mx.crt", &made.certificate, 0o644), ("mx.key", &made.key, 0o600)]
        {
            let path = path.join(name);
            fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, mode).unwrap();
        }
    };
    let Some(server) = Server::start_as_root_with(&config, fill) else { return };
    let peer = start_tls(server.address(), &anyone(), "mx.example.org").unwrap();
    assert!(shown(&peer) == der(&made));
    // No process but the parent could open it again, and none keeps it open.
    let key = server.path("mx.key").display().to_string();
    for process in server.processes() {
        let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap();
        for entry in entries.flatten() {
            let open = fs::read_link(entry.path()).unwrap_or_default();
            assert_ne!(open.display().to_string(), key, "{}", process.name);
        }
    }
}
