//! Handshakes in memory: both sides of rustls, the server's key behind a [`Signatory`].

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConfig, ServerConnection,
};

use super::client::authorities;
use super::fixture::{Authority, Kind, Made, certificate};
use super::key::LocalKey;
use super::*;
use crate::config::{Ciphers, Protocols};
use crate::model::tls::{KeyId, Secured};

/// Keys in this process in the place of another.
#[derive(Debug, Default)]
struct Keys(Vec<LocalKey>, AtomicUsize);

impl Signatory for Keys {
    fn sign(&self, key: KeyId, scheme: u16, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let key = self.0.iter().find(|known| known.id() == key).ok_or(SignError::Refused)?;
        key.sign_handshake(scheme, message).map_err(|_| SignError::Refused)
    }
}

fn resolver(made: &[&Made]) -> Arc<Resolver> {
    let keys = made.iter().map(|made| LocalKey::from_pem(made.key.as_bytes()).unwrap());
    let keys = Arc::new(Keys(keys.collect(), AtomicUsize::new(0)));
    let certified = made.iter().map(|made| {
        let certified = Certified::default();
        let chain = Chain::from_pem(made.certificate.as_bytes()).unwrap();
        certified.replace(Arc::new(chain), Arc::clone(&keys) as Arc<dyn Signatory>);
        Arc::new(certified)
    });
    Arc::new(Resolver::new(certified.collect()))
}

fn plain() -> ServerOptions<'static> {
    ServerOptions { ciphers: None, protocols: None, verify: None }
}

fn server(made: &[&Made], options: &ServerOptions<'_>) -> Arc<ServerConfig> {
    server_config(options, resolver(made)).unwrap()
}

fn anyone() -> Arc<ClientConfig> {
    client_config(ClientOptions::new(Trust::Anyone)).unwrap()
}

/// Both ends after the handshake, or what went wrong at one of them.
fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok((server, client))
}

fn described(server: &ServerConnection, verified: bool) -> Secured {
    secured(server, verified).unwrap()
}

fn shown(client: &ClientConnection) -> CertificateDer<'static> {
    client.peer_certificates().unwrap()[0].clone()
}

fn der(made: &Made) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap()
}

const OLD: Option<Protocols> = Some(Protocols { tls_1_2: true, tls_1_3: false });

#[test]
fn every_kind_of_key_serves_both_versions() {
    for (kind, cipher) in [
        (Kind::P256, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (Kind::P384, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (Kind::Ed25519, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (Kind::Rsa, "ECDHE-RSA-AES256-GCM-SHA384"),
    ] {
        let made = certificate(kind, "mx.example.org");
        let config = server(&[&made], &plain());
        let (server_end, client_end) = shake(&config, &anyone(), "mx.example.org").unwrap();
        let found = described(&server_end, false);
        assert_eq!(found.description(), "TLSv1.3:TLS_AES_256_GCM_SHA384:256", "{kind:?}");
        let of_client = secured(&client_end, true).unwrap();
        assert!(found.exporter.is_some() && found.exporter == of_client.exporter);
        assert!(of_client.fingerprint.is_some() && found.fingerprint.is_none());
        let config = server(&[&made], &ServerOptions { protocols: OLD, ..plain() });
        let (server_end, _) = shake(&config, &anyone(), "mx.example.org").unwrap();
        let found = described(&server_end, false);
        assert_eq!(found.description(), format!("TLSv1.2:{cipher}:256"), "{kind:?}");
        assert_eq!(found.exporter, None);
    }
}

#[test]
fn the_first_group_withstands_quantum_computers_where_the_system_has_it() {
    let first = platform::tls::crypto_provider().kx_groups[0].name();
    let made = certificate(Kind::P256, "mx.example.org");
    let (server_end, _) = shake(&server(&[&made], &plain()), &anyone(), "a.example").unwrap();
    assert_eq!(server_end.negotiated_key_exchange_group().unwrap().name(), first);
    if platform::tls::crypto_provider().kx_groups.len() > 3 {
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}

// Case 166, and 3.1 of the SMTP page.
#[test]
fn the_names_in_certificates_choose_among_them() {
    let first = certificate(Kind::P256, "first.example");
    let second = certificate(Kind::Ed25519, "*.second.example");
    let config = server(&[&first, &second], &plain());
    for (name, expected) in [
        ("first.example", &first),
        ("mx.second.example", &second),
        ("MX.Second.EXAMPLE", &second),
        ("a.b.second.example", &first),
        ("unknown.example", &first),
        ("192.0.2.1", &first),
    ] {
        let (_, client_end) = shake(&config, &anyone(), name).unwrap();
        assert!(shown(&client_end) == der(expected), "{name}");
    }
    crate::spec_case::ran("smtp", 166);
}

#[test]
fn of_two_certificates_for_one_name_a_client_sees_the_one_it_understands() {
    let modern = certificate(Kind::Ed25519, "mx.example.org");
    let old = certificate(Kind::Rsa, "mx.example.org");
    let config = server(&[&modern, &old], &ServerOptions { protocols: OLD, ..plain() });
    let (_, client_end) = shake(&config, &anyone(), "mx.example.org").unwrap();
    assert!(shown(&client_end) == der(&modern));
    let resolver = resolver(&[&modern, &old]);
    let understood = |kind| move |shown: &server::Shown| shown.chain.kind() == kind;
    let chosen = resolver.choose(Some("mx.example.org"), understood(KeyKind::Rsa)).unwrap();
    assert!(chosen.chain.certificates()[0] == der(&old));
    let chosen = resolver.choose(Some("mx.example.org"), understood(KeyKind::P384)).unwrap();
    assert!(chosen.chain.certificates()[0] == der(&modern));
}

#[test]
fn a_replaced_certificate_is_shown_from_then_on() {
    let (before, after) =
        (certificate(Kind::P256, "a.example"), certificate(Kind::P256, "a.example"));
    let keys = [&before, &after].map(|made| LocalKey::from_pem(made.key.as_bytes()).unwrap());
    let keys: Arc<dyn Signatory> = Arc::new(Keys(keys.to_vec(), AtomicUsize::new(0)));
    let certified = Arc::new(Certified::default());
    let resolver = Arc::new(Resolver::new(vec![Arc::clone(&certified)]));
    assert!(!resolver.is_ready());
    let config = server_config(&plain(), Arc::clone(&resolver)).unwrap();
    assert!(shake(&config, &anyone(), "a.example").is_err());
    for made in [&before, &after] {
        let chain = Chain::from_pem(made.certificate.as_bytes()).unwrap();
        certified.replace(Arc::new(chain), Arc::clone(&keys));
        let (_, client_end) = shake(&config, &anyone(), "a.example").unwrap();
        assert!(shown(&client_end) == der(made) && resolver.is_ready());
    }
    assert!(certified.withdraw().is_some_and(|chain| chain.key() == keys_of(&after)));
    assert!(!resolver.is_ready());
}

fn keys_of(made: &Made) -> KeyId {
    LocalKey::from_pem(made.key.as_bytes()).unwrap().id()
}

#[test]
fn a_client_resumes_its_session_without_another_signature() {
    let made = certificate(Kind::P256, "mx.example.org");
    for protocols in [None, OLD] {
        let keys = Arc::new(Keys(
            vec![LocalKey::from_pem(made.key.as_bytes()).unwrap()],
            AtomicUsize::new(0),
        ));
        let certified = Certified::default();
        let chain = Chain::from_pem(made.certificate.as_bytes()).unwrap();
        certified.replace(Arc::new(chain), Arc::clone(&keys) as Arc<dyn Signatory>);
        let resolver = Arc::new(Resolver::new(vec![Arc::new(certified)]));
        let config = server_config(&ServerOptions { protocols, ..plain() }, resolver).unwrap();
        let client = anyone();
        let (first, _) = shake(&config, &client, "mx.example.org").unwrap();
        assert_ne!(first.handshake_kind(), Some(HandshakeKind::Resumed));
        let (second, _) = shake(&config, &client, "mx.example.org").unwrap();
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(keys.1.load(Ordering::Relaxed), 1);
        // Another listener has other keys for its tickets.
        let other = server(&[&made], &ServerOptions { protocols, ..plain() });
        let (third, _) = shake(&other, &client, "mx.example.org").unwrap();
        assert_ne!(third.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

/// Remembers sessions whatever server they were made with, as an intruder's client would.
#[derive(Debug)]
struct Forgetful(ClientSessionMemoryCache);

impl Forgetful {
    fn name() -> ServerName<'static> {
        ServerName::try_from("any.example").unwrap()
    }
}

impl ClientSessionStore for Forgetful {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

/// A client that offers its session to every server.
pub fn forgetful() -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(anyone());
    let memory = Arc::new(Forgetful(ClientSessionMemoryCache::new(8)));
    config.resumption = Resumption::store(memory);
    Arc::new(config)
}

#[test]
fn a_session_is_resumed_only_under_the_name_that_it_was_made_with() {
    let first = certificate(Kind::P256, "first.example");
    let second = certificate(Kind::P256, "second.example");
    for protocols in [None, OLD] {
        let options = ServerOptions { protocols, ..plain() };
        let config = server(&[&first, &second], &options);
        let client = forgetful();
        for (name, resumed) in [
            ("first.example", false),
            ("first.example", true),
            ("second.example", false),
            ("second.example", true),
        ] {
            let (server_end, client_end) = shake(&config, &client, name).unwrap();
            let found = server_end.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(found, resumed, "{name}");
            let expected = if name == "first.example" { &first } else { &second };
            assert!(shown(&client_end) == der(expected), "{name}");
        }
    }
}

// A ticket would carry the certificate past the day on which it ends, and on from ticket to ticket.
#[test]
fn a_certificate_that_is_asked_for_is_checked_in_every_session() {
    let made = certificate(Kind::P256, "mx.example.org");
    let authority = Authority::new("clients");
    let own = authority.issue(Kind::P256, "client.example");
    for protocols in [None, OLD] {
        let roots = Arc::new(authorities(authority.certificate.as_bytes()).unwrap());
        let options = ServerOptions { protocols, verify: Some(roots), ..plain() };
        let config = server(&[&made], &options);
        let mut options = ClientOptions::new(Trust::Anyone);
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        options.certificate = Some((vec![der(&own)], key));
        let client = client_config(options).unwrap();
        for _ in 0..2 {
            let (server_end, _) = shake(&config, &client, "mx.example.org").unwrap();
            assert_eq!(server_end.handshake_kind(), Some(HandshakeKind::Full));
            assert!(described(&server_end, true).verified);
        }
    }
}

#[test]
fn certificates_of_clients_are_required_and_checked_where_the_listener_says_so() {
    let made = certificate(Kind::P256, "mx.example.org");
    let authority = Authority::new("clients");
    let roots = Arc::new(authorities(authority.certificate.as_bytes()).unwrap());
    let config = server(&[&made], &ServerOptions { verify: Some(roots), ..plain() });
    assert!(shake(&config, &anyone(), "mx.example.org").is_err());
    let below = authority.below("below");
    let good = below.issue(Kind::P384, "client.example");
    let stranger = Authority::new("strangers").issue(Kind::P256, "client.example");
    for (client, chain, expected) in [
        (&good, format!("{}{}", good.certificate, below.certificate), true),
        (&good, good.certificate.clone(), false),
        (&stranger, stranger.certificate.clone(), false),
    ] {
        let chain = certificate::certificates(chain.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
        let mut options = ClientOptions::new(Trust::Anyone);
        options.certificate = Some((chain, key));
        let shaken = shake(&config, &client_config(options).unwrap(), "mx.example.org");
        assert_eq!(shaken.is_ok(), expected);
        if let Ok((server_end, _)) = shaken {
            let found = described(&server_end, true);
            assert!(found.verified && found.fingerprint.is_some_and(|text| text.len() == 64));
        }
    }
    let none = ServerOptions { verify: Some(Arc::new(rustls::RootCertStore::empty())), ..plain() };
    assert!(matches!(server_config(&none, resolver(&[&made])), Err(TlsError::NoAuthorities)));
}

#[test]
fn a_client_that_verifies_wants_the_name_and_an_authority_that_it_knows() {
    let authority = Authority::new("servers");
    let made = authority.issue(Kind::P256, "mx.example.org");
    let config = server(&[&made], &plain());
    let roots = Arc::new(authorities(authority.certificate.as_bytes()).unwrap());
    let client = client_config(ClientOptions::new(Trust::Authorities(roots))).unwrap();
    assert!(shake(&config, &client, "mx.example.org").is_ok());
    assert!(shake(&config, &client, "mx.example.net").is_err());
    let others = Authority::new("others");
    let roots = Arc::new(authorities(others.certificate.as_bytes()).unwrap());
    let client = client_config(ClientOptions::new(Trust::Authorities(roots))).unwrap();
    assert!(shake(&config, &client, "mx.example.org").is_err());
}

#[test]
fn suites_are_those_of_the_listener_in_its_order() {
    let made = certificate(Kind::P256, "mx.example.org");
    let (ciphers, _) = Ciphers::parse("AES128:CHACHA20").unwrap();
    let options = ServerOptions { ciphers: Some(&ciphers), protocols: OLD, ..plain() };
    let (server_end, _) = shake(&server(&[&made], &options), &anyone(), "a.example").unwrap();
    let found = described(&server_end, false);
    assert_eq!((found.cipher.as_str(), found.bits), ("ECDHE-ECDSA-AES128-GCM-SHA256", 128));
    // Suites for RSA are of no use to this key.
    let (ciphers, _) = Ciphers::parse("aRSA").unwrap();
    let options = ServerOptions { ciphers: Some(&ciphers), protocols: OLD, ..plain() };
    assert!(shake(&server(&[&made], &options), &anyone(), "a.example").is_err());
}

#[test]
fn what_is_written_arrives_and_an_idle_connection_is_small() {
    let made = certificate(Kind::P256, "mx.example.org");
    let (mut server_end, mut client_end) =
        shake(&server(&[&made], &plain()), &anyone(), "mx.example.org").unwrap();
    client_end.writer().write_all(b"NOOP\r\n").unwrap();
    let mut wire = Vec::new();
    client_end.write_tls(&mut wire).unwrap();
    server_end.read_tls(&mut &wire[..]).unwrap();
    server_end.process_new_packets().unwrap();
    let mut received = [0; 16];
    let count = server_end.reader().read(&mut received).unwrap();
    assert_eq!(&received[..count], b"NOOP\r\n");
    assert!(size_of::<ServerConnection>() < 4096, "{}", size_of::<ServerConnection>());
}
