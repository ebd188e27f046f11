//! Handshakes and streams over a pipe in memory, with a client that does as the test says.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::config::Protocols;
use crate::config::tests::good;
use crate::model::tls::KeyId;
use crate::tls::fixture::{Kind, certificate};
use crate::tls::key::LocalKey;
use crate::tls::record;
use crate::tls::{
    Chain, ClientOptions, ServerOptions, SignError, Signatory, Trust, client_config, server_config,
};

#[derive(Debug)]
struct Key(LocalKey);

impl Signatory for Key {
    fn sign(&self, _: KeyId, scheme: u16, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign_handshake(scheme, message).map_err(|_| SignError::Refused)
    }
}

const CONFIG: &str =
    "pki x cert \"/cert\" key \"/key\"\nlisten on lo port 2525 smtps pki x\nmatch reject\n";

/// TLS with one listener whose certificate is there.
fn tls() -> (Arc<Tls>, Arc<Door>) {
    let tls = Arc::new(Tls::new(&good(CONFIG)));
    tls.threads.start(1).unwrap();
    let made = certificate(Kind::P256, "mx.example.org");
    let chain = Arc::new(Chain::from_pem(made.certificate.as_bytes()).unwrap());
    let key = Arc::new(Key(LocalKey::from_pem(made.key.as_bytes()).unwrap()));
    tls.certified[0].replace(chain, key);
    let door = tls.door(1).unwrap();
    let options = ServerOptions { ciphers: None, protocols: None, verify: None };
    door.replace(Some(server_config(&options, door.resolver.clone()).unwrap()));
    (tls, door)
}

const OLD: Option<Protocols> = Some(Protocols { tls_1_2: true, tls_1_3: false });

/// A client that takes any certificate and remembers its sessions.
fn client(protocols: Option<Protocols>) -> Arc<ClientConfig> {
    client_config(ClientOptions { protocols, ..ClientOptions::new(Trust::Anyone) }).unwrap()
}

fn to_send(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

async fn receive(client: &mut ClientConnection, wire: &mut DuplexStream) {
    let mut bytes = vec![0; 4096];
    let count = wire.read(&mut bytes).await.unwrap();
    assert_ne!(count, 0, "the server has given up");
    client.read_tls(&mut &bytes[..count]).unwrap();
    client.process_new_packets().unwrap();
}

/// Both ends after a handshake.
struct Shaken {
    stream: TlsStream<DuplexStream>,
    client: ClientConnection,
    wire: DuplexStream,
}

/// A handshake to its end. The client's bytes come in pieces of `step`, the first one before the
/// handshake is begun, and its last ones together with `behind`, encrypted.
async fn shake(
    (tls, door): &(Arc<Tls>, Arc<Door>),
    config: &Arc<ClientConfig>,
    step: usize,
    behind: &[u8],
) -> Shaken {
    let (near, mut wire) = duplex(64 * 1024);
    let (tls, door) = (Arc::clone(tls), Arc::clone(door));
    let name = ServerName::try_from("mx.example.org").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let hello = to_send(&mut client);
    let (early, rest) = hello.split_at(step.min(hello.len()));
    let early = early.to_vec();
    let server = tokio::spawn(async move { tls.accept(&door, near, early).await });
    for piece in rest.chunks(step) {
        wire.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    while client.is_handshaking() {
        if client.wants_write() {
            for piece in to_send(&mut client).chunks(step) {
                wire.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        receive(&mut client, &mut wire).await;
    }
    client.writer().write_all(behind).unwrap();
    for piece in to_send(&mut client).chunks(step) {
        wire.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let (stream, _) = server.await.unwrap().unwrap();
    Shaken { stream, client, wire }
}

/// A handshake with a client that does nothing remarkable.
async fn shaken(behind: &[u8]) -> Shaken {
    shake(&tls(), &client(None), usize::MAX, behind).await
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_read_from_the_stream() {
    let long = "A line of some length.\r\n".repeat(1500);
    let server = tls();
    for (protocols, version) in [(None, ProtocolVersion::TLSv1_3), (OLD, ProtocolVersion::TLSv1_2)]
    {
        for step in [usize::MAX, 1, 3, 700] {
            let client = client(protocols);
            for (behind, kind) in [
                ("EHLO a.b\r\n", HandshakeKind::Full),
                (&long, HandshakeKind::Resumed),
                ("EHLO a.b\r\n", HandshakeKind::Resumed),
            ] {
                let mut shaken = shake(&server, &client, step, behind.as_bytes()).await;
                assert_eq!(shaken.client.handshake_kind(), Some(kind), "{version:?} {step}");
                assert_eq!(shaken.client.protocol_version(), Some(version));
                let mut received = vec![0; behind.len()];
                shaken.stream.read_exact(&mut received).await.unwrap();
                assert!(received == behind.as_bytes(), "{version:?} {step}");
                // Tickets have to come before the next session.
                shaken.stream.write_all(b"250 Ok\r\n").await.unwrap();
                shaken.stream.flush().await.unwrap();
                let mut answer = [0; 8];
                while shaken.client.reader().read(&mut answer).is_err() {
                    receive(&mut shaken.client, &mut shaken.wire).await;
                }
                assert_eq!(&answer, b"250 Ok\r\n");
            }
        }
    }
}

#[tokio::test]
async fn clear_text_behind_the_handshake_is_no_part_of_the_session() {
    let (tls, door) = tls();
    let (near, mut wire) = duplex(64 * 1024);
    let server = tokio::spawn(async move { tls.accept(&door, near, Vec::new()).await });
    let name = ServerName::try_from("mx.example.org").unwrap();
    let mut client = ClientConnection::new(client(None), name).unwrap();
    wire.write_all(&to_send(&mut client)).await.unwrap();
    while client.is_handshaking() {
        receive(&mut client, &mut wire).await;
    }
    let last = [&to_send(&mut client)[..], b"EHLO evil.example\r\n"].concat();
    wire.write_all(&last).await.unwrap();
    let error = server.await.unwrap().unwrap_err();
    assert!(matches!(error, HandshakeError::Tls(_)), "{error}");
}

#[tokio::test]
async fn a_session_of_tls_1_2_is_resumed_without_a_thread_and_without_a_key() {
    let (tls, door) = tls();
    let client = client(OLD);
    let server = (tls, Arc::clone(&door));
    let first = shake(&server, &client, usize::MAX, b"").await;
    assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
    // Here nobody computes.
    let idle = (Arc::new(Tls::new(&good(CONFIG))), Arc::clone(&door));
    for _ in 0..2 {
        let resumed = shake(&idle, &client, usize::MAX, b"").await;
        assert_eq!(resumed.client.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    // There is no other ticket: ServerHello, ChangeCipherSpec, and what is encrypted.
    let (near, mut wire) = duplex(64 * 1024);
    let server = tokio::spawn(async move { idle.0.accept(&door, near, Vec::new()).await });
    let name = ServerName::try_from("mx.example.org").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    wire.write_all(&to_send(&mut client)).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = wire.read(&mut answer).await.unwrap();
    let records = record::all(&answer[..count]).map(|record| (record[0], record[5]));
    let records: Vec<(u8, u8)> = records.collect();
    assert_eq!((records.len(), &records[..2]), (3, &[(22, 2), (20, 1)][..]));
    drop(wire);
    assert!(matches!(server.await.unwrap(), Err(HandshakeError::Closed)));
}

#[tokio::test]
async fn who_cannot_be_resumed_begins_anew() {
    let server = tls();
    let first = client(OLD);
    shake(&server, &first, usize::MAX, b"").await;
    // The ticket is good, but not for who asks for no name.
    let mut nameless = ClientConfig::clone(&first);
    nameless.enable_sni = false;
    let shaken = shake(&server, &Arc::new(nameless), usize::MAX, b"").await;
    assert_eq!(shaken.client.handshake_kind(), Some(HandshakeKind::Full));
    // The ticket is another listener's.
    let client = client(OLD);
    shake(&server, &client, usize::MAX, b"").await;
    let shaken = shake(&tls(), &client, usize::MAX, b"").await;
    assert_eq!(shaken.client.handshake_kind(), Some(HandshakeKind::Full));
}

#[tokio::test]
async fn an_end_that_was_told_is_no_broken_connection() {
    let Shaken { mut stream, mut client, mut wire } = shaken(b"QUIT\r\n").await;
    client.send_close_notify();
    wire.write_all(&to_send(&mut client)).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"QUIT\r\n");
    let Shaken { mut stream, wire, .. } = shaken(b"DATA\r\n").await;
    drop(wire);
    let mut received = Vec::new();
    let error = stream.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((error.kind(), &received[..]), (ErrorKind::UnexpectedEof, &b"DATA\r\n"[..]));
}

#[tokio::test]
async fn last_words_go_out_together_with_the_end() {
    let Shaken { mut stream, mut client, mut wire } = shaken(b"").await;
    stream.flush().await.unwrap();
    // The tickets.
    receive(&mut client, &mut wire).await;
    stream.write_all(b"221 2.0.0 Bye\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(20), receive(&mut client, &mut wire));
    assert!(early.await.is_err());
    stream.shutdown().await.unwrap();
    receive(&mut client, &mut wire).await;
    let mut said = String::new();
    client.reader().read_to_string(&mut said).unwrap();
    assert_eq!(said, "221 2.0.0 Bye\r\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_fill_memory() {
    let Shaken { mut stream, client: _client, wire: _wire } = shaken(b"").await;
    let much = vec![b'x'; 1024 * 1024];
    let soon = Duration::from_millis(200);
    let mut written = 0;
    while let Ok(count) = tokio::time::timeout(soon, stream.write(&much)).await {
        written += count.unwrap();
    }
    // What fits into the pipe, and a record.
    assert!(written < 64 * 1024 + 2 * 16 * 1024, "{written}");
}

#[tokio::test]
async fn a_handshake_that_cannot_be_says_why() {
    let (tls, door) = tls();
    for (sent, expected) in [
        (&b"EHLO a.b\r\n"[..], "what was received is not TLS"),
        (&b""[..], "connection closed"),
        (&b"\x16\x03\x01\x00\x05hell"[..], "connection closed"),
    ] {
        let (near, mut wire) = duplex(1024);
        wire.write_all(sent).await.unwrap();
        drop(wire);
        let error = tls.accept(&door, near, Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    door.replace(None);
    let (near, _wire) = duplex(1024);
    let error = tls.accept(&door, near, Vec::new()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_has_ten_seconds() {
    let (tls, door) = tls();
    let (near, _wire) = duplex(1024);
    let begin = tokio::time::Instant::now();
    let error = tls.accept(&door, near, Vec::new()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout));
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[test]
fn sessions_see_whether_a_handshake_can_be_done() {
    let (tls, door) = tls();
    let available = || {
        tls.refresh();
        door.available().load(Ordering::Relaxed)
    };
    assert!(available());
    door.replace(None);
    assert!(!available());
    let options = ServerOptions {
        ciphers: None,
        protocols: None,
        verify: Some(Arc::new(RootCertStore::empty())),
    };
    assert!(server_config(&options, door.resolver.clone()).is_err());
    let options = ServerOptions { verify: None, ..options };
    door.replace(Some(server_config(&options, door.resolver.clone()).unwrap()));
    assert!(available());
    tls.certified[0].withdraw();
    assert!(!available());
}
