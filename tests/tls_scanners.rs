//! What programs that look for weaknesses of TLS say of a running server: sslscan and testssl.sh of
//! Debian, against STARTTLS and smtps, with an ECDSA and an RSA certificate.
//!
//! Every finding is a failure unless [`DOCUMENTED`] has it. The grades are printed, and everything else
//! is in `target/interop`. The two programs live in a root directory of their own, as other peers do
//! (`PILLARBOX_TLS_PEERS`).

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use common::account::{give, open_directory};
use common::peer::Peer;
use common::peers::Peers;
use common::server::{Server, free_address};
use serde_json::Value;

const SSLSCAN: &str = "/usr/bin/sslscan";
const TESTSSL: &str = "/usr/bin/testssl";
const OPENSSL: &str = "/usr/bin/openssl";

/// Findings of testssl.sh that are known, and why they are no weakness. Also in `docs/tls.md`.
const DOCUMENTED: [(&str, &str); 3] = [
    ("engine_problem", "is about the scanner's own library"),
    ("FS_KEMs", "key exchange that withstands quantum computers depends on the system's provider"),
    ("sessionresumption_ticket", "it may hang up before tickets come"),
];

/// Why a server with STARTTLS gets the grade T whatever it does.
const STARTTLS_ITSELF: &str = "Grade capped to T. STARTTLS is prone to MITM downgrade attacks.";

/// Makes an authority and two certificates in the directory that it is run in. They name where revoked
/// ones would be listed, since a certificate that does not is itself a finding.
const CERTIFICATES: &str = r#"
cd /mnt
printf '%s\n' 'subjectAltName=DNS:mx.example.org,IP:127.0.0.1' 'keyUsage=digitalSignature' \
    'extendedKeyUsage=serverAuth' 'crlDistributionPoints=URI:http://mx.example.org/none' >extensions
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
    -subj '/CN=authority' -keyout authority.key -out authority.pem
request() {
    name=$1
    shift
    openssl req -newkey "$@" -nodes -subj '/CN=mx.example.org' -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA authority.pem -CAkey authority.key -CAcreateserial \
        -days 90 -extfile extensions -out "$name.pem"
}
request ecdsa ec -pkeyopt ec_paramgen_curve:P-256
request rsa rsa:2048
"#;

/// How a listener is secured, and with what certificate.
#[derive(Clone, Copy, Debug)]
struct Listener {
    name: &'static str,
    address: SocketAddr,
    starttls: bool,
}

/// A server that listens in all four ways, and its listeners.
fn start(certificates: &Path) -> (Server, [Listener; 4]) {
    let listener = |name, starttls| Listener { name, address: free_address(), starttls };
    let listeners = [
        listener("starttls-ecdsa", true),
        listener("starttls-rsa", true),
        listener("smtps-ecdsa", false),
        listener("smtps-rsa", false),
    ];
    let mut config = "@LISTEN@\nmatch from any for any reject\n".to_owned();
    for key in ["ecdsa", "rsa"] {
        config +=
            &format!("pki {key} cert \"@DIR@/{key}.pem\"\npki {key} key \"@DIR@/{key}.key\"\n");
    }
    for Listener { name, address, starttls } in listeners {
        let (_, key) = name.split_once('-').unwrap();
        let way = if starttls { "tls" } else { "smtps" };
        let (host, port) = (address.ip(), address.port());
        config +=
            &format!("listen on {host} port {port} {way} pki {key} hostname mx.example.org\n");
    }
    let mut server = Server::prepare(&config, &[]);
    for key in ["ecdsa", "rsa"] {
        for kind in ["pem", "key"] {
            let name = format!("{key}.{kind}");
            fs::copy(certificates.join(&name), server.path(&name)).unwrap();
            give(&server.path(&name), server.account());
        }
    }
    server.run();
    (server, listeners)
}

/// What is wrong with what sslscan said; its lines about protocols and ciphers are printed.
fn judge_sslscan(listener: Listener, said: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut offered = 0;
    for line in said.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_wrong = match words.as_slice() {
            [version, "enabled"] => !["TLSv1.2", "TLSv1.3"].contains(version),
            ["Preferred" | "Accepted", version, bits, "bits", cipher, ..] => {
                offered += 1;
                let sealed = cipher.contains("GCM") || cipher.contains("CHACHA20");
                !sealed
                    || !["TLSv1.2", "TLSv1.3"].contains(version)
                    || bits.parse().map_or(true, |bits: u32| bits < 128)
            }
            [_, bits, "bits", ..] => bits.parse().map_or(true, |bits: u32| bits < 112),
            _ => {
                ["vulnerable to", "Insecure", "Compression enabled", "weak"]
                    .iter()
                    .any(|words| line.contains(words))
                    && !line.contains("not vulnerable")
            }
        };
        if words.first().is_some_and(|word| ["Preferred", "Accepted"].contains(word)) {
            println!("sslscan, {}: {line}", listener.name);
        }
        if is_wrong {
            wrong.push(format!("sslscan, {}: {line}", listener.name));
        }
    }
    if offered < 4 {
        wrong.push(format!("sslscan, {}: only {offered} ciphers", listener.name));
    }
    wrong
}

/// What is wrong with what testssl.sh found; the lines of its grade are printed.
fn judge_testssl(listener: Listener, found: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut grade = None;
    let mut looked_at = 0;
    for finding in found.as_array().expect("a list of findings") {
        let field = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let (id, severity, text) = (field("id"), field("severity"), field("finding"));
        looked_at += 1;
        if id.contains("score") || id.contains("grade") {
            println!("testssl.sh, {}: {id}: {text}", listener.name);
        }
        if id == "overall_grade" {
            grade = Some(text);
            continue;
        }
        if id.starts_with("grade_cap_reason") && !text.starts_with(STARTTLS_ITSELF) {
            wrong.push(format!("testssl.sh, {}: {text}", listener.name));
        }
        let harmless = ["OK", "INFO", "DEBUG"].contains(&severity.as_str());
        if harmless || DOCUMENTED.iter().any(|(known, _)| *known == id) {
            continue;
        }
        wrong.push(format!("testssl.sh, {}: {severity}: {id}: {text}", listener.name));
    }
    let wanted = if listener.starttls { 'T' } else { 'A' };
    if !grade.as_deref().is_some_and(|grade| grade.starts_with(wanted)) {
        wrong.push(format!("testssl.sh, {}: grade {grade:?}", listener.name));
    }
    if looked_at < 60 {
        wrong.push(format!("testssl.sh, {}: only {looked_at} findings", listener.name));
    }
    wrong
}

fn sslscan(peers: &Peers, listener: Listener) -> Vec<String> {
    let target = listener.address.to_string();
    let mut words = vec![SSLSCAN, "--no-colour", "--sni-name=mx.example.org"];
    if listener.starttls {
        words.push("--starttls-smtp");
    }
    words.push(&target);
    let name = format!("sslscan-{}", listener.name);
    judge_sslscan(listener, &peers.run(&name, &words))
}

fn testssl(peers: &Peers, certificates: &Path, listener: Listener) -> Vec<String> {
    let work = open_directory();
    fs::copy(certificates.join("authority.pem"), work.path().join("authority.pem")).unwrap();
    // Its status is the number of its findings. What it does not do is to play old clients.
    let script = r#""$@" || [ -s /mnt/found.json ]"#;
    let target = listener.address.to_string();
    let mut words = vec!["sh", "-c", script, "sh", TESTSSL, "--quiet", "--color", "0"];
    words.extend(["--warnings", "batch", "--nodns", "none", "--add-ca", "/mnt/authority.pem"]);
    words.extend(["--jsonfile", "/mnt/found.json", "-p", "-s", "-f", "-P", "-S", "-h", "-U"]);
    if listener.starttls {
        words.extend(["--starttls", "smtp"]);
    }
    words.push(&target);
    peers.run_in(&format!("testssl-{}", listener.name), work.path(), &words);
    let found = fs::read_to_string(work.path().join("found.json")).unwrap();
    judge_testssl(listener, &serde_json::from_str(&found).unwrap())
}

/// How many sessions OpenSSL resumes of the five that it opens after a first one of TLS 1.2.
fn resumed_by_openssl(peers: &Peers, listener: Listener) -> usize {
    let target = listener.address.to_string();
    let words = [OPENSSL, "s_client", "-connect", target.as_str(), "-tls1_2", "-reconnect"];
    let said = peers.run(&format!("openssl-{}", listener.name), &words);
    said.lines().filter(|line| line.starts_with("Reused, TLSv1.2,")).count()
}

#[test]
fn scanners_find_no_weakness_in_starttls_and_smtps() {
    let Some(peers) = Peers::of_scanners(&[SSLSCAN, TESTSSL, OPENSSL]) else { return };
    let certificates = open_directory();
    peers.run_in("scanners-certificates", certificates.path(), &["sh", "-ec", CERTIFICATES]);
    let (server, listeners) = start(certificates.path());
    // With one ticket: there is no other one for who resumes.
    for smtps in &listeners[2..] {
        assert_eq!(resumed_by_openssl(&peers, *smtps), 5);
    }
    let mut wrong: Vec<String> = listeners.iter().flat_map(|one| sslscan(&peers, *one)).collect();
    // Each takes more than a minute, most of which is waiting: one of each kind, side by side.
    wrong.extend(thread::scope(|scope| {
        let scan = |listener| testssl(&peers, certificates.path(), listener);
        let threads = [listeners[0], listeners[3]].map(|one| scope.spawn(move || scan(one)));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    }));
    assert_eq!(wrong, Vec::<String>::new());
    // All that left the server as it was.
    assert!(Peer::greeted(server.address()).is_ok(), "{}", server.log());
    assert!(!server.log().contains("panic"), "{}", server.log());
}
