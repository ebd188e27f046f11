//! Keys as a single process, with the test in the place of the parent and of a dispatcher that an
//! intruder has taken over.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

use pillarbox::ipc::blob::Blob;
use pillarbox::ipc::blocking::{Channel, ChannelError};
use pillarbox::ipc::frame::Kind;
use pillarbox::ipc::message::keys::{DispatcherToKeys, KeysToDispatcher, Sign, Signed};
use pillarbox::ipc::message::parent::{
    FileVersion, MapAnswer, ParentToRole, PkiFile, RoleToParent,
};
use pillarbox::model::tls::KeyId;
use pillarbox::tls::Chain;

use common::certificates::{Kind as KeyKind, Made, certificate};
use common::role::{LoneRole, next};
use common::wait::SOON;

/// ECDSA on P-256 with SHA-256.
const ECDSA: u16 = 0x0403;

/// The dispatcher's end of its channel to keys.
type ToKeys = Channel<DispatcherToKeys, KeysToDispatcher>;

/// Answers the question for a file of a key, which must be the next one.
fn hand_over(keys: &mut LoneRole, pki: u32, text: &str) {
    let asked = next(&mut keys.parent).unwrap();
    let expected = RoleToParent::OpenPki { file: PkiFile::Key(pki), known: None };
    assert_eq!(asked.message, Some(expected));
    let path = keys.path("key");
    std::fs::write(&path, text).unwrap();
    let file = File::open(path).unwrap();
    let version = FileVersion { device: 1, inode: 1, length: 1, modified: (1, 1) };
    let answer = ParentToRole::Pki(MapAnswer::Opened(version));
    keys.parent.reply(asked.number, &answer, Some(file.into())).unwrap();
    keys.parent.drain().unwrap();
}

/// Has keys hold the key of a certificate, and answers its question for the file with this text.
fn hold(keys: &mut LoneRole, dispatcher: &mut ToKeys, key: KeyId, text: &str) -> Option<String> {
    dispatcher.request(1, &DispatcherToKeys::Hold { pki: 0, key }, None).unwrap();
    dispatcher.drain().unwrap();
    hand_over(keys, 0, text);
    match next(dispatcher).unwrap().message {
        Some(KeysToDispatcher::Held { error }) => error,
        None => panic!("no answer"),
    }
}

fn key_of(made: &Made) -> KeyId {
    Chain::from_pem(made.certificate.as_bytes()).unwrap().key()
}

fn ask(channel: &mut Channel<Sign, Signed>, question: &Sign) -> Option<Vec<u8>> {
    channel.request(7, question, None).unwrap();
    let answer = channel.receive_before(Some(Instant::now() + SOON)).unwrap();
    assert_eq!((answer.kind, answer.number), (Kind::Reply, 7));
    answer.message.unwrap().0.map(|blob| blob.0)
}

fn signing_channel(dispatcher: &mut ToKeys) -> Channel<Sign, Signed> {
    let (ours, theirs) = platform::fd::socketpair().unwrap();
    dispatcher.notice(&DispatcherToKeys::Serve, Some(theirs)).unwrap();
    dispatcher.drain().unwrap();
    Channel::new(ours).unwrap()
}

// Design, section 1, Trust: keys signs only what has the form of a handshake of its side.
#[test]
fn only_the_form_of_a_servers_handshake_is_signed() {
    let mut keys = LoneRole::keys();
    let mut dispatcher: ToKeys = keys.attach();
    let made = certificate(KeyKind::P256, "mx.example.org");
    let key = key_of(&made);
    assert_eq!(hold(&mut keys, &mut dispatcher, key, &made.key), None);
    let mut channel = signing_channel(&mut dispatcher);
    let form = |context: &str, hash: usize| {
        [&[b' '; 64][..], context.as_bytes(), b"\0", &vec![1; hash]].concat()
    };
    let server = "TLS 1.3, server CertificateVerify";
    let exchange = [&[2; 64][..], &[3, 0, 29, 32], &[5; 32]].concat();
    let question = |message: Vec<u8>| Sign { key, scheme: ECDSA, message: Blob(message) };
    for message in [form(server, 32), form(server, 48), exchange.clone()] {
        assert!(ask(&mut channel, &question(message)).is_some());
    }
    let certificate_to_sign = [&[0x30, 0x82, 1, 0][..], &[6; 256]].concat();
    let hostile = [
        Vec::new(),
        vec![1; 32],
        b"From: <ceo@example.org>\r\n".to_vec(),
        certificate_to_sign,
        form("TLS 1.3, client CertificateVerify", 32),
        form("TLS, server delegated credentials", 32),
        form(server, 0),
        form(server, 33),
        form(server, 64),
        form(server, 20_000),
        form(server, 32)[1..].to_vec(),
        [&exchange[..], b"x"].concat(),
        exchange[..99].to_vec(),
    ];
    for message in hostile {
        assert_eq!(ask(&mut channel, &question(message.clone())), None, "{message:?}");
    }
    // Which is said, but not as often as it is tried.
    let log = keys.log();
    assert_eq!(log.matches("refused to sign for the dispatcher").count(), 4, "{log}");
    assert!(log.contains("not the form of a handshake (8 times so far)"), "{log}");
    // Another key, or a way in which this one does not sign.
    let good = || Blob(form(server, 32));
    let other = Sign { key: KeyId([0; 32]), scheme: ECDSA, message: good() };
    let ways = [0x0804, 0x0807, 0, 0xffff].map(|scheme| Sign { key, scheme, message: good() });
    for question in ways.iter().chain([&other]) {
        assert_eq!(ask(&mut channel, question), None, "{question:?}");
    }
    assert!(ask(&mut channel, &question(form(server, 32))).is_some());
}

#[test]
fn a_key_is_held_only_with_the_certificate_that_it_belongs_to() {
    let mut keys = LoneRole::keys();
    let mut dispatcher: ToKeys = keys.attach();
    let (made, other) = (
        certificate(KeyKind::P256, "mx.example.org"),
        certificate(KeyKind::P256, "mx.example.org"),
    );
    let key = key_of(&made);
    for (text, expected) in [
        (other.key.as_str(), "the key does not belong to the certificate"),
        ("junk", "there is no private key in the file"),
        (&"-".repeat(300 * 1024), "the file is too long for a key"),
    ] {
        let error = hold(&mut keys, &mut dispatcher, key, text);
        assert_eq!(error.as_deref(), Some(expected));
    }
    assert_eq!(hold(&mut keys, &mut dispatcher, key, &made.key), None);
    // It is held now: nobody has to be asked.
    dispatcher.request(2, &DispatcherToKeys::Hold { pki: 0, key }, None).unwrap();
    dispatcher.drain().unwrap();
    let answer = next(&mut dispatcher).unwrap();
    assert_eq!(answer.message, Some(KeysToDispatcher::Held { error: None }));
}

#[test]
fn what_is_no_question_ends_its_channel_and_nothing_else() {
    let mut keys = LoneRole::keys();
    let mut dispatcher: ToKeys = keys.attach();
    let made = certificate(KeyKind::P256, "mx.example.org");
    let key = key_of(&made);
    assert_eq!(hold(&mut keys, &mut dispatcher, key, &made.key), None);
    let mut good = signing_channel(&mut dispatcher);
    for junk in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\0\0\0\x04\x01\0\0\0",
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        dispatcher.notice(&DispatcherToKeys::Serve, Some(theirs)).unwrap();
        dispatcher.drain().unwrap();
        let slices = [std::io::IoSlice::new(junk)];
        platform::fd::send_vectored(ours.as_fd(), &slices, None).unwrap();
        let mut channel = Channel::<Sign, Signed>::new(ours).unwrap();
        let end = channel.receive_before(Some(Instant::now() + SOON)).unwrap_err();
        assert!(matches!(end, ChannelError::Closed | ChannelError::System(_)), "{junk:?}: {end}");
    }
    // A notice without its descriptor is nothing; many channels are served beside one another.
    dispatcher.notice(&DispatcherToKeys::Serve, None).unwrap();
    let many: Vec<_> = (0..20).map(|_| signing_channel(&mut dispatcher)).collect();
    let message = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[1; 32]].concat();
    let question = Sign { key, scheme: ECDSA, message: Blob(message) };
    assert!(ask(&mut good, &question).is_some());
    for mut channel in many {
        assert!(ask(&mut channel, &question).is_some());
    }
    assert!(keys.is_alive());
}
