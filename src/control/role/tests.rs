//! The control socket with real clients on one side and roles that the test plays on the other.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::*;
use crate::ctl::command::{self, Form};
use crate::ctl::connection::Connection;
use crate::ctl::exchange::ServerError;
use crate::ctl::sendmail::SessionError;
use crate::ctl::words::Command;
use crate::ipc::blob::Blob;
use crate::ipc::blocking::Channel;
use crate::ipc::message::client::{Change, Selection, Service, VERSION};
use crate::ipc::message::control::{
    ControlToDispatcher, ControlToQueue, DispatcherToControl, QueueToControl,
};
use crate::ipc::message::parent::{Administration, RoleToParent, Status};
use crate::ipc::message::queue::BodyPiece;
use crate::ipc::message::scheduler::{ControlToScheduler, ListedEnvelope, SchedulerToControl};
use crate::ipc::message::statistics::Snapshot;
use crate::model::fixture::relay_envelope;
use crate::model::{Envelope, EnvelopeId, MessageId, ReversePath};

/// Envelopes in the queue that the test plays.
const ENVELOPES: u32 = 1000;
/// Credits of the channels.
const CREDITS: u32 = 64;
/// The message that the test's queue has.
const BODY: &[u8] = b"Subject: x\n\ntext\n";

/// A control role whose neighbours are played by the test.
struct Server {
    socket: PathBuf,
    shared: Arc<Shared>,
    /// What the dispatcher was passed.
    submissions: mpsc::UnboundedReceiver<OwnedFd>,
    _directory: tempfile::TempDir,
}

fn id(number: u32) -> EnvelopeId {
    MessageId::new(7).unwrap().envelope(NonZeroU32::new(number + 1).unwrap())
}

fn envelope(id: EnvelopeId) -> Envelope {
    let mut envelope = relay_envelope(1, "alice@example.org");
    envelope.id = id;
    envelope.origin.sender = ReversePath::NULL;
    envelope.origin.helo = "localhost".into();
    envelope.origin.authenticated = true;
    envelope.route.action = "local".into();
    envelope
}

/// Our end of a channel, what arrives at the other, and the other end.
type Ends<O, I> = (Link<O, I>, mpsc::UnboundedReceiver<Arrived<I, O>>, Link<I, O>);

/// Opens both ends of a channel.
fn pair<O, I>() -> Ends<O, I>
where
    O: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    I: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let (near, far) = platform::fd::socketpair().unwrap();
    let (ours, _) = Link::open(near, CREDITS).unwrap();
    let (theirs, arrivals) = Link::open(far, CREDITS).unwrap();
    (ours, arrivals, theirs)
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("smtpd.sock");
        let (parent, mut asked, keep) = pair::<RoleToParent, ParentToRole>();
        tokio::spawn(async move {
            let _keep = keep;
            while let Some(Arrived { message, responder, .. }) = asked.recv().await {
                let reply = match message {
                    RoleToParent::Administer(order) => ParentToRole::Administered {
                        done: order == Administration::Mda { paused: true },
                    },
                    _ => ParentToRole::Status(Status {
                        switches: Switches { mta_paused: true, ..Switches::default() },
                        uptime: 6,
                        confinement: vec![
                            ("keys".into(), "seccomp, landlock".into()),
                            ("queue".into(), "in part: seccomp; none: no landlock".into()),
                        ],
                        restarts: vec![("keys".into(), 0), ("lookup".into(), 2)],
                        snapshot: Snapshot { counters: Vec::new(), memory: 4096 },
                        troubles: vec!["the spool is full".into()],
                    }),
                };
                responder.reply(&reply, None).unwrap();
            }
        });
        let roles = Roles::new(parent);
        let (submitted, submissions) = mpsc::unbounded_channel();
        play_dispatcher(&roles, submitted);
        play_queue(&roles);
        play_scheduler(&roles);
        let shared = Arc::new(Shared {
            roles,
            owner: platform::privilege::effective_uid(),
            state: Mutex::default(),
            answering: std::sync::atomic::AtomicUsize::new(0),
            memory: Memory::open(),
        });
        let listening = UnixListener::bind(&socket).unwrap();
        tokio::spawn(accept(listening, Arc::clone(&shared)));
        Self { socket, shared, submissions, _directory: directory }
    }

    /// Runs a command of `smtpctl` against the server; its output.
    async fn control(&self, command: Command) -> (bool, String) {
        let socket = self.socket.clone();
        spawn_blocking(move || {
            let mut output = Vec::new();
            let connect = || Connection::open(&socket);
            let done = command::run(&command, Form::Text, 100, &mut output, connect).unwrap();
            (done, String::from_utf8(output).unwrap())
        })
        .await
        .unwrap()
    }
}

fn play_dispatcher(roles: &Roles, submitted: mpsc::UnboundedSender<OwnedFd>) {
    let (link, mut asked, keep) = pair::<ControlToDispatcher, DispatcherToControl>();
    roles.dispatcher.replace(link);
    tokio::spawn(async move {
        let _keep = keep;
        while let Some(Arrived { message, descriptor, responder }) = asked.recv().await {
            match message {
                ControlToDispatcher::Submission => submitted.send(descriptor.unwrap()).unwrap(),
                ControlToDispatcher::Statistics => {
                    let counters = vec![("smtp.session".to_owned(), 3), ("smtp.tls".into(), 0)];
                    let snapshot = Snapshot { counters, memory: 1000 };
                    responder.reply(&DispatcherToControl::Statistics(snapshot), None).unwrap();
                }
            }
        }
    });
}

fn play_queue(roles: &Roles) {
    let (link, mut asked, keep) = pair::<ControlToQueue, QueueToControl>();
    roles.queue.replace(link);
    tokio::spawn(async move {
        let _keep = keep;
        while let Some(Arrived { message, responder, .. }) = asked.recv().await {
            let reply = match message {
                // A queue that now and then has no room for the last one.
                ControlToQueue::Envelopes(ids) => {
                    let some = ids.len().min(31).max(ids.len() % 31);
                    let blobs = ids
                        .iter()
                        .take(some)
                        .filter(|one| **one != id(5))
                        .map(|one| Blob(postcard::to_stdvec(&envelope(*one)).unwrap()));
                    QueueToControl::Envelopes {
                        looked_at: u32::try_from(some).unwrap(),
                        found: blobs.collect(),
                    }
                }
                ControlToQueue::LoadBody { message, offset } if message == id(1).message() => {
                    let from = usize::try_from(offset).unwrap();
                    let to = (from + 5).min(BODY.len());
                    let bytes = Blob(BODY[from..to].to_vec());
                    QueueToControl::Body(BodyPiece::Inline { size: BODY.len() as u64, bytes })
                }
                ControlToQueue::LoadBody { .. } => QueueToControl::Body(BodyPiece::Absent),
                ControlToQueue::Statistics => QueueToControl::Statistics(Snapshot::default()),
            };
            responder.reply(&reply, None).unwrap();
        }
    });
}

fn play_scheduler(roles: &Roles) {
    let (link, mut asked, keep) = pair::<ControlToScheduler, SchedulerToControl>();
    roles.scheduler.replace(link);
    tokio::spawn(async move {
        let _keep = keep;
        while let Some(Arrived { message, responder, .. }) = asked.recv().await {
            let reply = match message {
                ControlToScheduler::List { after, count, .. } => {
                    let ids = (0..ENVELOPES).map(id).filter(|one| Some(*one) > after);
                    let listed = ids.take(count as usize).map(|id| ListedEnvelope {
                        id,
                        in_flight: false,
                        delay: 5,
                        suspended: false,
                        held: true,
                        reason: None,
                        expires: 400,
                    });
                    SchedulerToControl::Listed { envelopes: listed.collect(), complete: true }
                }
                ControlToScheduler::Order(..) => SchedulerToControl::Counted(2),
                ControlToScheduler::Statistics => {
                    SchedulerToControl::Statistics(Snapshot::default())
                }
            };
            responder.reply(&reply, None).unwrap();
        }
    });
}

// queue cases 162, 165 and 166.
#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_roles_that_carry_them_out() {
    let server = Server::start();
    let (done, text) = server.control(Command::Pause(Service::Mda)).await;
    assert_eq!((done, text.as_str()), (true, "command succeeded\n"));
    let (done, text) = server.control(Command::Resume(Service::Mda)).await;
    assert_eq!((done, text.as_str()), (false, "command failed\n"));
    let (_, text) = server.control(Command::Change(Change::Remove, Selection::All)).await;
    assert_eq!(text, "2 envelopes removed\n");
    let (_, text) = server.control(Command::ShowMessage(id(1).message())).await;
    assert_eq!(text.as_bytes(), BODY);
    let (_, text) = server.control(Command::ShowStatus).await;
    let notices = "the spool is full\nlookup: restarted, 2 times since the start\n\
                   queue: confined by in part: seccomp; none: no landlock\n";
    assert_eq!(text, format!("MDA running\nMTA paused\nSMTP running\n{notices}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_listed_in_order_without_what_has_gone() {
    let server = Server::start();
    let (_, text) = server.control(Command::ShowQueue(None)).await;
    let listed: Vec<&str> = text.lines().map(|line| line.split('|').next().unwrap()).collect();
    let expected: Vec<String> =
        (0..ENVELOPES).filter(|number| *number != 5).map(|number| id(number).to_string()).collect();
    assert_eq!(listed, expected);
    let line = text.lines().next().unwrap();
    let fields = "|local|mta|auth,hold|@|alice@example.org|alice@example.org|0|400|0|0|pending|5|";
    assert_eq!(line, format!("{}{fields}", id(0)));
}

// queue cases 211 and 212.
#[tokio::test(flavor = "multi_thread")]
async fn counters_of_all_roles_are_listed_together() {
    let server = Server::start();
    let (_, text) = server.control(Command::ShowStatistics).await;
    for line in [
        "control.session=1",
        "memory.dispatcher=1000",
        "memory.parent=4096",
        "restarts.lookup=2",
        "smtp.session=3",
        "uptime=6",
        "uptime.human=6s",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(!text.contains("smtp.tls") && !text.contains("restarts.keys"), "{text}");
}

// queue case 193; smtp case 220.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_connects_client_and_dispatcher() {
    let mut server = Server::start();
    let open = |socket: PathBuf| spawn_blocking(move || session(&socket));
    let mut client = open(server.socket.clone()).await.unwrap().unwrap();
    let mut far = Socket::from(server.submissions.recv().await.unwrap());
    far.write_all(b"220").unwrap();
    let mut heard = [0; 3];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"220");

    server.shared.state().switches.smtp_paused = true;
    let refused = open(server.socket.clone()).await.unwrap();
    assert!(matches!(refused, Err(SessionError::Disallowed)), "{refused:?}");
}

fn session(socket: &Path) -> Result<Socket, SessionError> {
    Connection::open(socket)?.open_session()
}

// queue case 178; smtp cases 221 and 222.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_client_loses_its_own_connection_only() {
    let server = Server::start();
    let socket = server.socket.clone();
    spawn_blocking(move || {
        let mut stranger = Socket::connect(&socket).unwrap();
        stranger.write_all(&[0xa5; 16]).unwrap();
        assert_eq!(stranger.read(&mut [0; 16]).unwrap(), 0);

        let newer = Socket::connect(&socket).unwrap();
        let mut newer = Channel::<Request, Reply>::new(newer.into()).unwrap();
        newer.request(1, &Request::Hello { version: VERSION + 1 }, None).unwrap();
        let reply = newer.receive().unwrap().message;
        assert_eq!(reply, Some(Reply::Incompatible { version: VERSION }));

        let mut open: Vec<Connection> = Vec::new();
        let refusal = loop {
            match Connection::open(&socket) {
                Ok(connection) => open.push(connection),
                Err(error) => break error,
            }
        };
        assert!(matches!(refusal, ServerError::Lost(_)), "{refusal:?}");
        // Those above may not have been seen to leave when the last of these came.
        assert!((30..=32).contains(&open.len()), "{}", open.len());
        drop(open);
    })
    .await
    .unwrap();
    // The server sees them leave one after the other.
    let left = async {
        while !server.shared.state().connections.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), left).await.unwrap();
    let (done, _) = server.control(Command::Pause(Service::Mda)).await;
    assert!(done);
    crate::spec_case::ran("smtp", 221);
}
