//! Logging in to the server over TLS: to accounts of the system and with tables, by every mechanism.
//!
//! What needs accounts of the test needs root; skipped with a printed reason else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pillarbox::proto::scram::Verifier;
use sha2::{Digest as _, Sha256};

use common::certificates::{Kind, Made, certificate};
use common::encrypted::{Encrypted, anyone, start_tls};
use common::peer::{Peer, message};
use common::server::Server;
use common::spec_case::ran;
use common::table_program::TableProgram;

const BAD_PASSWORD: &str = "535 Authentication failed";
const ACCEPTED: &str = "235 2.0.0 Authentication succeeded";

/// `secret`, with SHA-256.
const HASH: &str = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA";

const RULES: &str = r#"
pki p cert "@DIR@/mx.crt"
pki p key "@DIR@/mx.key"
table users { "@" = "@USER@" }
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any auth for domain "example.org" action "local"
"#;

fn made() -> Made {
    certificate(Kind::P256, "mx.example.org")
}

/// A rootless server with these lines before its rules.
fn server(lines: &str) -> Server {
    let mut server = Server::prepare(&format!("{RULES}{lines}"), &[]);
    server.write_certificate("mx", &made());
    server.run();
    server
}

/// An encrypted session after EHLO, and the mechanisms that it offers.
fn session(server: &Server) -> (Peer<Encrypted>, Vec<String>) {
    let mut peer = start_tls(server.address(), &anyone(), "mx.example.org").unwrap();
    let greeting = peer.say("EHLO client.example").unwrap();
    let offered = greeting.lines.iter().find_map(|line| line.strip_prefix("AUTH "));
    let offered = offered.unwrap_or_default().split(' ').map(str::to_owned).collect();
    (peer, offered)
}

/// The reply to AUTH PLAIN.
fn plain(peer: &mut Peer<Encrypted>, user: &str, password: &str) -> String {
    let response = STANDARD.encode(format!("\0{user}\0{password}"));
    peer.say(&format!("AUTH PLAIN {response}")).unwrap().line()
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The reply to the end of a SCRAM exchange, as a client does it by RFC 5802, or to its beginning if
/// that is refused. A server that does not know the password either fails the test.
fn scram(peer: &mut Peer<Encrypted>, user: &str, password: &str, bound: bool) -> String {
    let mut binding = [0; 32];
    let (mechanism, header) = if bound {
        let label = b"EXPORTER-Channel-Binding";
        let connection = &peer.stream().conn;
        binding = connection.export_keying_material(binding, label, Some(&[])).unwrap();
        ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,")
    } else {
        ("SCRAM-SHA-256", "n,,")
    };
    let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
    let first = STANDARD.encode(format!("{header}{bare}"));
    let challenge = peer.say(&format!("AUTH {mechanism} {first}")).unwrap();
    if challenge.code != 334 {
        return challenge.line();
    }
    let challenge = String::from_utf8(STANDARD.decode(&challenge.lines[0]).unwrap()).unwrap();
    let field = |letter: &str| {
        challenge.split(',').find_map(|part| part.strip_prefix(letter)).unwrap().to_owned()
    };
    let salt = STANDARD.decode(field("s=")).unwrap();
    let mut salted = [0; 32];
    let iterations = field("i=").parse().unwrap();
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, iterations, &mut salted);
    let mut bound_to = header.as_bytes().to_vec();
    if bound {
        bound_to.extend(binding);
    }
    let unproved = format!("c={},r={}", STANDARD.encode(bound_to), field("r="));
    let signed = format!("{bare},{challenge},{unproved}");
    let client_key = mac(&salted, "Client Key");
    let signature = mac(&Sha256::digest(client_key), &signed);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
    let last = STANDARD.encode(format!("{unproved},p={}", STANDARD.encode(proof)));
    let reply = peer.say(&last).unwrap();
    if reply.code != 334 {
        return reply.line();
    }
    let server_signature = mac(&mac(&salted, "Server Key"), &signed);
    let expected = format!("v={}", STANDARD.encode(server_signature));
    assert_eq!(STANDARD.decode(&reply.lines[0]).unwrap(), expected.as_bytes());
    peer.say("").unwrap().line()
}

#[test]
fn users_of_a_table_log_in_and_send() {
    let lines = format!("table creds {{ alice = \"{HASH}\" }}\n@LISTEN@ tls pki p auth <creds>\n");
    let server = server(&lines);
    let (mut peer, offered) = session(&server);
    assert_eq!(offered, ["PLAIN", "LOGIN"]);
    let first = "530 5.5.1 Invalid command: Must issue an AUTH command first";
    assert_eq!(peer.say("MAIL FROM:<a@client.example>").unwrap().line(), first);
    let begun = Instant::now();
    assert_eq!(plain(&mut peer, "alice", "x"), BAD_PASSWORD);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(plain(&mut peer, "nobody", "secret"), BAD_PASSWORD);
    assert_eq!(plain(&mut peer, "ALICE", "secret"), ACCEPTED);
    ran("smtp", 174);
    let reply = peer.submit("alice@example.org", &["user@example.org"], &message("in")).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    let log = server.log();
    assert!(!log.contains("c2VjcmV0") && !log.contains("secret"), "{log}");
}

#[test]
fn in_a_table_of_hashes_and_verifiers_each_user_logs_in_with_what_there_is() {
    const OTHER: &str = "432 4.7.12 A password transition is needed: use PLAIN or LOGIN";
    let verifier = Verifier::derive(b"secret", b"saltsaltsaltsalt", 4096).unwrap();
    let lines = format!(
        "table creds {{ alice = \"{verifier}\", bob = \"{HASH}\" }}\n\
         @LISTEN@ tls pki p auth <creds>\n"
    );
    let server = server(&lines);
    let (mut peer, offered) = session(&server);
    assert_eq!(offered, ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]);
    assert_eq!(scram(&mut peer, "bob", "secret", true), OTHER);
    assert_eq!(plain(&mut peer, "bob", "secret"), ACCEPTED);
    for bound in [false, true] {
        let (mut peer, _) = session(&server);
        assert_eq!(scram(&mut peer, "alice", "x", bound), BAD_PASSWORD);
        assert_eq!(scram(&mut peer, "alice", "secret", bound), ACCEPTED);
    }
    // Who is not there is told what some user is told, and always the same.
    let (mut peer, _) = session(&server);
    let mut told = Vec::new();
    for number in 0..32 {
        let user = format!("nobody{number}");
        let reply = peer.say(&format!("AUTH SCRAM-SHA-256 {}", first(&user))).unwrap();
        if reply.code == 334 {
            assert_eq!(peer.say("*").unwrap().code, 501);
        } else {
            assert_eq!(reply.line(), OTHER);
        }
        told.push(reply.code);
    }
    assert!(told.contains(&334) && told.contains(&432), "{told:?}");
}

/// The first message of a client without channel binding.
fn first(user: &str) -> String {
    STANDARD.encode(format!("n,,n={user},r=fyko+d2lbbFgONRv9qkxdawL"))
}

#[test]
fn scram_is_offered_where_everybody_has_a_verifier() {
    let verifier = Verifier::derive(b"secret", b"saltsaltsaltsalt", 4096).unwrap();
    let lines = "table creds file:@DIR@/creds\n@LISTEN@ tls pki p auth <creds>\n";
    let mut server = Server::prepare(&format!("{RULES}{lines}"), &[]);
    server.write_certificate("mx", &made());
    let creds = server.path("creds");
    fs::write(&creds, format!("alice {verifier}\nbob bob:{verifier}\n")).unwrap();
    fs::set_permissions(&creds, fs::Permissions::from_mode(0o644)).unwrap();
    server.run();
    for bound in [false, true] {
        for (user, password, expected) in [
            ("alice", "secret", ACCEPTED),
            ("Bob", "secret", ACCEPTED),
            ("alice", "x", BAD_PASSWORD),
            ("eve", "secret", BAD_PASSWORD),
        ] {
            let (mut peer, offered) = session(&server);
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN", "LOGIN"] {
                assert!(offered.iter().any(|one| one == mechanism), "{offered:?}");
            }
            assert_eq!(scram(&mut peer, user, password, bound), expected, "{user} {bound}");
        }
    }
    let (mut peer, _) = session(&server);
    assert_eq!(plain(&mut peer, "alice", "x"), BAD_PASSWORD);
    assert_eq!(plain(&mut peer, "alice", "secret"), ACCEPTED);
}

#[test]
fn an_external_table_gets_the_password_as_it_was_sent() {
    let lines = "table creds own:@DIR@/mail/own\n@LISTEN@ tls pki p auth <creds>\n";
    let mut server = Server::prepare(&format!("{RULES}{lines}"), &[]);
    server.write_certificate("mx", &made());
    let program = TableProgram::install(&server, "own", "auth|User:Secret|\n");
    program.handshake("register|auth\nregister|ready\n");
    server.run();
    let (mut peer, _) = session(&server);
    assert_eq!(plain(&mut peer, "User", "secret"), BAD_PASSWORD);
    assert_eq!(plain(&mut peer, "User", "Secret"), ACCEPTED);
    let asked = program.lines("asked");
    assert!(asked.iter().any(|line| line.ends_with("|User:Secret")), "{asked:?}");
    ran("smtp", 193);
    ran("config", 272);
}

#[test]
fn a_guesser_is_refused_after_a_hundred_wrong_passwords() {
    let lines = format!("table creds {{ alice = \"{HASH}\" }}\n@LISTEN@ tls pki p auth <creds>\n");
    let server = server(&lines);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let (mut peer, _) = session(&server);
                for _ in 0..5 {
                    assert_eq!(plain(&mut peer, "alice", "x"), BAD_PASSWORD);
                }
            });
        }
    });
    let (mut peer, _) = session(&server);
    let refused = plain(&mut peer, "alice", "secret");
    assert!(refused.starts_with("421 4.7.0 "), "{refused}");
    assert!(peer.reply().is_err());
}

/// Puts an account with a password, one that is locked, and the PAM service there.
fn accounts(directory: &Path) {
    let etc = directory.join("etc");
    let shadow = fs::read_to_string("/etc/shadow").unwrap();
    let mut shadow: String = shadow
        .lines()
        .filter(|line| !line.starts_with("alice:") && !line.starts_with("bob:"))
        .map(|line| format!("{line}\n"))
        .collect();
    shadow.push_str(&format!("alice:{HASH}:20000:0:99999:7:::\nbob:!{HASH}:20000:0:99999:7:::\n"));
    fs::write(etc.join("shadow"), shadow).unwrap();
    fs::set_permissions(etc.join("shadow"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(etc.join("pam.d")).unwrap();
    let service = "auth required pam_unix.so\naccount required pam_unix.so\n";
    fs::write(etc.join("pam.d/smtpd"), service).unwrap();
    let made = made();
    for (name, text) in [("mx.crt", &made.certificate), ("mx.key", &made.key)] {
        fs::write(directory.join(name), text).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn wrong_passwords_of_accounts_hold_up_nobody() {
    let config = format!("{RULES}@LISTEN@ tls pki p auth\n").replace("@USER@", "alice");
    let Some(server) = Server::start_as_root_with(&config, accounts) else { return };
    let (mut peer, _) = session(&server);
    for (user, password, expected) in [
        ("bob", "secret", BAD_PASSWORD),
        ("no-such-user", "secret", BAD_PASSWORD),
        ("alice", "x", BAD_PASSWORD),
        ("alice", "secret", ACCEPTED),
    ] {
        assert_eq!(plain(&mut peer, user, password), expected, "{user} {password}");
    }
    ran("smtp", 194);

    std::thread::scope(|scope| {
        let wrong: Vec<_> = (0..50)
            .map(|_| {
                let (mut peer, _) = session(&server);
                scope.spawn(move || assert_eq!(plain(&mut peer, "alice", "x"), BAD_PASSWORD))
            })
            .collect();
        let (mut right, _) = session(&server);
        let begun = Instant::now();
        let right = scope.spawn(move || {
            assert_eq!(plain(&mut right, "alice", "secret"), ACCEPTED);
            begun.elapsed()
        });
        let mut other = server.peer();
        let mut slowest = Duration::ZERO;
        while !right.is_finished() || wrong.iter().any(|one| !one.is_finished()) {
            let asked = Instant::now();
            assert_eq!(other.say("NOOP").unwrap().code, 250);
            slowest = slowest.max(asked.elapsed());
        }
        let took = right.join().unwrap();
        println!("the right one took {took:?}, the slowest NOOP of another session {slowest:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    });
}
