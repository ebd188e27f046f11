//! Handshakes and streams over a pipe in memory, with a client that does as the test says.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::config::tests::good;
use crate::model::tls::KeyId;
use crate::tls::fixture::{Kind, certificate};
use crate::tls::key::LocalKey;
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

/// TLS with one listener whose certificate is there.
fn tls() -> (Arc<Tls>, Arc<Door>) {
    let config = good(
        "pki x cert \"/cert\" key \"/key\"\nlisten on lo port 2525 smtps pki x\nmatch reject\n",
    );
    let tls = Arc::new(Tls::new(&config));
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

fn client() -> ClientConnection {
    let config = client_config(ClientOptions::new(Trust::Anyone)).unwrap();
    ClientConnection::new(config, ServerName::try_from("mx.example.org").unwrap()).unwrap()
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
    client.read_tls(&mut &bytes[..count]).unwrap();
    client.process_new_packets().unwrap();
}

/// A handshake to its end; the client's last words come together with `behind`, encrypted.
async fn shake(
    early: bool,
    step: usize,
    behind: &[u8],
) -> (TlsStream<DuplexStream>, ClientConnection, DuplexStream) {
    let (tls, door) = tls();
    let (near, mut wire) = duplex(64 * 1024);
    let mut client = client();
    let hello = to_send(&mut client);
    let first = if early { hello.clone() } else { Vec::new() };
    let server = tokio::spawn(async move { tls.accept(&door, near, first).await });
    if !early {
        for piece in hello.chunks(step) {
            wire.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    while client.is_handshaking() {
        receive(&mut client, &mut wire).await;
    }
    client.writer().write_all(behind).unwrap();
    let last = to_send(&mut client);
    wire.write_all(&last).await.unwrap();
    let (stream, secured) = server.await.unwrap().unwrap();
    assert_eq!(secured.version, "TLSv1.3");
    (stream, client, wire)
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_read_from_the_stream() {
    for (early, step) in [(false, usize::MAX), (false, 1), (false, 3)] {
        let (mut stream, _client, _wire) = shake(early, step, b"EHLO a.b\r\n").await;
        let mut received = [0; 10];
        stream.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"EHLO a.b\r\n");
    }
}

// D14: a ClientHello in one packet with the header of a proxy.
#[tokio::test]
async fn what_was_received_before_belongs_to_the_handshake() {
    let (mut stream, mut client, mut wire) = shake(true, 1, b"").await;
    stream.write_all(b"220 mx.example.org ESMTP Pillarbox\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut received = Vec::new();
    while received.is_empty() {
        receive(&mut client, &mut wire).await;
        let mut some = [0; 100];
        match client.reader().read(&mut some) {
            Ok(count) => received.extend_from_slice(&some[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert!(received.starts_with(b"220 "));
}

#[tokio::test]
async fn an_end_that_was_told_is_no_broken_connection() {
    let (mut stream, mut client, mut wire) = shake(false, usize::MAX, b"QUIT\r\n").await;
    client.send_close_notify();
    wire.write_all(&to_send(&mut client)).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"QUIT\r\n");
    let (mut stream, _client, wire) = shake(false, usize::MAX, b"DATA\r\n").await;
    drop(wire);
    let mut received = Vec::new();
    let error = stream.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((error.kind(), &received[..]), (ErrorKind::UnexpectedEof, &b"DATA\r\n"[..]));
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_fill_memory() {
    let (mut stream, _client, _wire) = shake(false, usize::MAX, b"").await;
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
