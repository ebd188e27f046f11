//! A dispatcher that was taken over: the test speaks its channel to a real queue, and can neither
//! name a user, path or command, nor read what is not in its hands, nor end the queue.
//!
//! That workers refuse tickets which the queue did not seal is in `workers.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;

use common::role::{CREDITS, LoneRole, ToQueue, key, next};
use common::wait::{SOON, wait_until};
use pillarbox::ipc::blob::Blob;
use pillarbox::ipc::blocking::ChannelError;
use pillarbox::ipc::frame::Kind;
use pillarbox::ipc::message::lookup::SealedRoute;
use pillarbox::ipc::message::parent::RoleKeys;
use pillarbox::ipc::message::queue::{
    BodyPiece, CommitBody, DispatcherToQueue, NewEnvelope, QueueToDispatcher, Refusal,
};
use pillarbox::ipc::message::worker::{JobRecord, Method, identity_key};
use pillarbox::ipc::seal::Sealed;
use pillarbox::model::envelope::{
    DeliveryKind, Exec, LocalDelivery, Origin, RecipientDsn, Route, Smtputf8, Source,
};
use pillarbox::model::outcome::Outcome;
use pillarbox::model::{Mailbox, MessageId, ReversePath};

const CONFIG: &str = r#"
action "local" maildir "/nowhere"
match from any for any action "local"
"#;
/// Numbers of the keys that the parent gave to the queue.
const ROUTE: u8 = 1;
const JOB: u8 = 2;
/// The transaction of honest routes.
const TRANSACTION: u64 = 77;

/// A dispatcher that may do whatever it likes, and what lookup has sealed for it.
struct Scene {
    queue: LoneRole,
    dispatcher: ToQueue,
    number: u32,
    ids: Vec<MessageId>,
}

fn sender() -> ReversePath {
    ReversePath(Some(Mailbox::new("sender", "client.example").unwrap()))
}

fn origin() -> Origin {
    Origin {
        sender: sender(),
        smtp_name: "host.example".to_owned(),
        helo: "client.example".to_owned(),
        hostname: "client.example".to_owned(),
        username: String::new(),
        source: Source::Ip([127, 0, 0, 1].into()),
        tag: String::new(),
        authenticated: false,
        ret: None,
        envid: None,
        smtputf8: Smtputf8::default(),
    }
}

/// What lookup decided for a recipient.
fn route(user: &str) -> SealedRoute {
    let local = LocalDelivery { user: user.to_owned(), exec: None, subaddress: String::new() };
    SealedRoute {
        transaction: TRANSACTION,
        sender: sender(),
        route: Route {
            recipient: Mailbox::new(user, "example.org").unwrap(),
            destination: Mailbox::new(user, "example.org").unwrap(),
            action: "local".to_owned(),
            kind: DeliveryKind::Local(local),
            internal: false,
        },
    }
}

fn honest() -> Sealed {
    key(ROUTE).seal(&route("alice")).unwrap()
}

impl Scene {
    fn new() -> Self {
        let keys = RoleKeys { route: Some(key(ROUTE)), job: Some(key(JOB)), srs: None };
        let mut queue = LoneRole::queue(CONFIG, keys);
        let dispatcher = queue.attach();
        let mut scene = Self { queue, dispatcher, number: 0, ids: Vec::new() };
        scene.lease();
        scene
    }

    fn lease(&mut self) {
        let answer = self.ask(&DispatcherToQueue::LeaseIds { count: 100 });
        let Some(QueueToDispatcher::Leased(ids)) = answer else { panic!("{answer:?}") };
        self.ids = ids;
    }

    /// Asks, and waits for the reply; deliveries meanwhile are left alone.
    fn ask(&mut self, request: &DispatcherToQueue) -> Option<QueueToDispatcher> {
        self.number += 1;
        self.dispatcher.request(self.number, request, None).unwrap();
        loop {
            let received = next(&mut self.dispatcher).unwrap();
            if received.kind == Kind::Reply && received.number == self.number {
                return received.message;
            }
        }
    }

    fn commit(&mut self, message: MessageId, route: Sealed, body: CommitBody) -> Refused {
        let dsn = RecipientDsn::default();
        let envelopes = vec![NewEnvelope { low: 1, route, dsn }];
        let transaction = TRANSACTION;
        let request = DispatcherToQueue::Commit {
            message,
            transaction,
            origin: Box::new(origin()),
            total: 1,
            envelopes,
            body,
        };
        match self.ask(&request) {
            Some(QueueToDispatcher::Committed(result)) => result.err(),
            other => panic!("{other:?}"),
        }
    }

    fn commit_inline(&mut self, route: Sealed) -> Refused {
        let message = self.ids.pop().unwrap();
        self.commit(message, route, CommitBody::Inline(Blob(b"x\n".to_vec())))
    }

    /// Proves that the queue lives and serves an honest dispatcher, which may be a new one.
    fn goes_on(&mut self) {
        assert!(self.queue.is_alive(), "the queue ended");
        self.dispatcher = self.queue.attach();
        self.lease();
        assert_eq!(self.commit_inline(honest()), None);
        assert!(!self.queue.log().contains("panicked"), "{}", self.queue.log());
    }
}

/// Why a commit was refused, if it was.
type Refused = Option<Refusal>;

#[test]
fn a_route_that_lookup_did_not_seal_is_refused() {
    let mut scene = Scene::new();
    assert_eq!(scene.commit_inline(honest()), None);

    let with = |change: &dyn Fn(&mut SealedRoute)| {
        let mut route = route("alice");
        change(&mut route);
        key(ROUTE).seal(&route).unwrap()
    };
    let bytes = postcard::to_stdvec(&honest()).unwrap();
    let altered = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        postcard::from_bytes::<Sealed>(&bytes)
    };
    let mut forgeries = vec![
        ("a key of its own", key(9).seal(&route("root")).unwrap()),
        ("the key of another use", key(JOB).seal(&route("alice")).unwrap()),
        ("another transaction", with(&|route| route.transaction += 1)),
        ("another sender", with(&|route| route.sender = ReversePath(None))),
        ("another kind of record", key(ROUTE).seal(&"alice").unwrap()),
    ];
    forgeries.extend((0..bytes.len()).filter_map(|at| Some(("a changed byte", altered(at).ok()?))));
    assert!(forgeries.len() > 50);
    for (name, forged) in forgeries {
        assert_eq!(scene.commit_inline(forged), Some(Refusal::Forbidden), "{name}");
        if scene.ids.is_empty() {
            scene.lease();
        }
    }
    scene.goes_on();
}

#[test]
fn only_what_is_in_flight_can_be_read() {
    let mut scene = Scene::new();
    let message = *scene.ids.last().unwrap();
    let load = |scene: &mut Scene| {
        let answer = scene.ask(&DispatcherToQueue::LoadBody { message, offset: 0 });
        let Some(QueueToDispatcher::Body(piece)) = answer else { panic!("{answer:?}") };
        piece
    };
    assert_eq!(load(&mut scene), BodyPiece::Absent, "not there yet");

    assert_eq!(scene.commit_inline(honest()), None);
    let delivery = loop {
        let received = next(&mut scene.dispatcher).unwrap();
        if received.kind == Kind::Request {
            break received;
        }
    };
    assert!(matches!(load(&mut scene), BodyPiece::Inline { size: 2, .. }), "in flight");

    let outcome = DispatcherToQueue::Outcome(Outcome::Delivered { dsn_relayed: false });
    scene.dispatcher.reply(delivery.number, &outcome, None).unwrap();
    wait_until("the delivery ends", SOON, || load(&mut scene) == BodyPiece::Absent);

    // Any other id, stored or not.
    for id in [1, u32::MAX, message.get() ^ 1] {
        let message = MessageId::new(id).unwrap();
        let answer = scene.ask(&DispatcherToQueue::LoadBody { message, offset: 0 });
        assert_eq!(answer, Some(QueueToDispatcher::Body(BodyPiece::Absent)));
    }
    let answer = scene.ask(&DispatcherToQueue::LoadReport { report: 1, offset: 0 });
    assert_eq!(answer, Some(QueueToDispatcher::Body(BodyPiece::Absent)));
    scene.goes_on();
}

#[test]
fn a_job_is_for_the_user_of_its_route_whatever_the_dispatcher_wants() {
    let mut scene = Scene::new();
    assert_eq!(scene.commit_inline(honest()), None);
    let received = loop {
        let received = next(&mut scene.dispatcher).unwrap();
        if received.kind == Kind::Request {
            break received.message.unwrap();
        }
    };
    let QueueToDispatcher::Deliver(delivery) = received else { panic!("{received:?}") };
    let (identity, ticket) = delivery.ticket.unwrap();
    assert_eq!(identity.account, "alice");
    let own = identity_key(&key(JOB), &identity);
    let record = own.open::<JobRecord>(&ticket).unwrap();
    assert_eq!((record.user.as_str(), &record.identity), ("alice", &identity));
    assert_eq!(record.method, Method::Maildir { path: Some("/nowhere".to_owned()), junk: false });

    // The ticket opens for no other identity.
    for (account, programs) in [("root", false), ("bob", false), ("alice", true)] {
        let mut other = identity.clone();
        other.account = account.to_owned();
        other.programs = programs;
        let key = identity_key(&key(JOB), &other);
        assert!(key.open::<JobRecord>(&ticket).is_err(), "{account} {programs}");
    }

    // A command of its own is only a route with a broken seal.
    let mut command = route("alice");
    if let DeliveryKind::Local(local) = &mut command.route.kind {
        local.exec = Some(Exec::Command("touch /tmp/taken".to_owned()));
    }
    let forged = key(9).seal(&command).unwrap();
    assert_eq!(scene.commit_inline(forged), Some(Refusal::Forbidden));
    scene.goes_on();
}

#[test]
fn messages_and_files_of_others_cannot_be_replaced() {
    let mut scene = Scene::new();
    let message = *scene.ids.last().unwrap();
    assert_eq!(scene.commit_inline(honest()), None);
    let inline = || CommitBody::Inline(Blob(b"other\n".to_vec()));
    assert_eq!(scene.commit(message, honest(), inline()), Some(Refusal::Forbidden), "again");

    let fresh = scene.ids.pop().unwrap();
    let absent = CommitBody::File { size: 10 };
    assert_eq!(scene.commit(fresh, honest(), absent), Some(Refusal::Forbidden), "no file opened");

    let fresh = scene.ids.pop().unwrap();
    let open = DispatcherToQueue::OpenMessage { message: fresh };
    assert_eq!(scene.ask(&open), Some(QueueToDispatcher::Opened(Ok(()))));
    assert_eq!(scene.ask(&open), Some(QueueToDispatcher::Opened(Err(Refusal::Forbidden))));
    let wrong = CommitBody::File { size: 10 };
    assert!(scene.commit(fresh, honest(), wrong).is_some(), "the file has another length");

    let large = CommitBody::Inline(Blob(vec![b'x'; 60 * 1024]));
    assert_eq!(scene.commit(scene.ids[0], honest(), large), None);
    scene.goes_on();
}

#[test]
fn nonsense_ends_the_channel_and_nothing_else() {
    let mut scene = Scene::new();
    // Header: length and kind, number (see `ipc::frame`).
    let frame = |kind: u32, length: u32, payload: &[u8]| {
        let mut bytes = (length | kind << 24).to_le_bytes().to_vec();
        bytes.extend_from_slice(&7_u32.to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    };
    let credits = frame(2, 1, &[200]).repeat(CREDITS as usize * 2);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown kind", frame(99, 0, &[])),
        ("a frame that is too long", frame(4, 0x00ff_ffff, &[])),
        ("a message that is none", frame(4, 4, &[0xff; 4])),
        ("nothing where a message belongs", frame(4, 0, &[])),
        ("bytes behind a message", frame(4, 4, &[3, 1, 9, 9])),
        ("credits that nobody lent", frame(1, 0, &[])),
        ("more than there are credits for", credits),
        ("text", b"EHLO dispatcher.example\r\n".repeat(100)),
    ];
    for (name, bytes) in cases {
        let channel: ToQueue = scene.queue.attach();
        let mut stream = UnixStream::from(channel.descriptor().try_clone_to_owned().unwrap());
        // It may be closed before the last byte.
        let _ = stream.write_all(&bytes);
        let mut channel = channel;
        let end = loop {
            match next(&mut channel) {
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        let gone = matches!(end, ChannelError::Closed | ChannelError::System(_));
        assert!(gone, "{name}: {end:?}");
        scene.goes_on();
    }
}

#[test]
fn replies_nobody_asked_for_are_of_no_effect() {
    let mut scene = Scene::new();
    for number in [0, 1, 77, u32::MAX] {
        let mut channel: ToQueue = scene.queue.attach();
        let outcome = DispatcherToQueue::Outcome(Outcome::Delivered { dsn_relayed: false });
        channel.reply(number, &outcome, None).unwrap();
        channel.notice(&DispatcherToQueue::Held { hold_queue: 1 }, None).unwrap();
        channel.notice(&DispatcherToQueue::Retry(Vec::new()), None).unwrap();
        // A channel that was ended for it is fine too.
        let _ = channel.drain();
        scene.goes_on();
    }
}
