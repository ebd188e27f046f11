//! The loop of the control role: the control socket and the channels to the other roles.
//!
//! Each client is a task of its own: a panic, a client that does not read or one that sends what is
//! not a request ends that connection and nothing else.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platform::Role;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::connections::Connections;
use super::inquiry::Roles;
use super::session::{Next, Session, Step};
use super::statistics::Registry;
use crate::ipc::frame::{Incoming, Kind, Outgoing};
use crate::ipc::link::{Arrived, Link};
use crate::ipc::message::client::{Reply, Request};
use crate::ipc::message::parent::{ParentToRole, Peer, Switches};
use crate::process::{self, Context, Memory, Threads};

/// Bytes read from a client at once; requests are short.
const READ: usize = 4096;
/// Pause after a connection could not be accepted, as when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long the end of the role waits for replies that are not yet written.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often it looks whether there are any.
const FAREWELL_STEP: Duration = Duration::from_millis(5);

/// What the tasks of this role share.
pub(super) struct Shared {
    /// The other roles.
    pub(super) roles: Roles,
    /// Who started the server.
    owner: u32,
    state: Mutex<State>,
    /// Requests whose replies are not yet written.
    answering: AtomicUsize,
    /// Memory of this process.
    pub(super) memory: Memory,
}

/// What changes while the role serves.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) connections: Connections,
    pub(super) registry: Registry,
    pub(super) switches: Switches,
}

impl Shared {
    /// A panic elsewhere leaves the state whole: it is changed by single calls.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the role.
pub fn run() -> ExitCode {
    // Read before ids are given up: who started the server may administer it.
    let owner = platform::privilege::effective_uid();
    process::run(Role::Control, Threads::One, |_| Ok(owner), serve)
}

async fn serve(context: Context, owner: u32) {
    context.ready().await;
    let Context { setup, parent, mut orders, memory, .. } = context;
    let state = State { switches: setup.switches, ..State::default() };
    let shared = Arc::new(Shared {
        roles: Roles::new(parent),
        owner,
        state: Mutex::new(state),
        answering: AtomicUsize::new(0),
        memory,
    });
    let mut accepting: Option<JoinHandle<()>> = None;
    while let Some(order) = orders.recv().await {
        let Arrived { message, descriptor, responder: _done } = order;
        match (message, descriptor) {
            (ParentToRole::Attach { peer }, Some(descriptor)) => {
                if let Err(error) = attach(&shared.roles, peer, descriptor, setup.credits) {
                    tracing::error!("warn: control: channel: {error}");
                }
            }
            (ParentToRole::Serve { .. }, Some(descriptor)) => match listener(descriptor) {
                Ok(listener) => {
                    let next = tokio::spawn(accept(listener, Arc::clone(&shared)));
                    if let Some(earlier) = accepting.replace(next) {
                        earlier.abort();
                    }
                }
                Err(error) => tracing::error!("warn: control: socket: {error}"),
            },
            (ParentToRole::Switch(switches), _) => {
                shared.state().switches = switches;
                crate::log::set_verbose(switches.verbose);
            }
            (ParentToRole::Shutdown, _) => break,
            _ => {}
        }
    }
    farewell(&shared.answering).await;
}

/// Gives clients a moment to learn what became of their requests: who asked for a reload or for
/// the end of the server is answered by a process that ends for it.
async fn farewell(answering: &AtomicUsize) {
    let written = async {
        while answering.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(FAREWELL_STEP).await;
        }
    };
    // A client that does not read is not waited for.
    let _late = tokio::time::timeout(FAREWELL, written).await;
}

/// A request under way, until it is dropped.
struct Answering<'a>(&'a AtomicUsize);

impl<'a> Answering<'a> {
    fn begin(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn attach(roles: &Roles, peer: Peer, descriptor: OwnedFd, credits: u32) -> io::Result<()> {
    // The others only answer: what they send unasked is refused with the receiver.
    match peer {
        Peer::Dispatcher => roles.dispatcher.replace(Link::open(descriptor, credits)?.0),
        Peer::Keys => roles.keys.replace(Link::open(descriptor, credits)?.0),
        Peer::Lookup => roles.lookup.replace(Link::open(descriptor, credits)?.0),
        Peer::Queue => roles.queue.replace(Link::open(descriptor, credits)?.0),
        Peer::Scheduler => roles.scheduler.replace(Link::open(descriptor, credits)?.0),
        Peer::Control => {}
    }
    Ok(())
}

fn listener(descriptor: OwnedFd) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(descriptor);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("debug: control: accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let uid = match platform::peer_of(stream.as_fd()) {
            Ok(peer) => peer.uid,
            Err(error) => {
                tracing::warn!("warn: control: cannot tell who connects: {error}");
                continue;
            }
        };
        let entered = shared.state().connections.enter(uid);
        if let Err(refusal) = entered {
            tracing::warn!("warn: {refusal}");
            continue;
        }
        let place = Place { uid, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            if let Err(error) = Client::new(stream, &place).converse().await {
                tracing::debug!("debug: control: client with uid {uid}: {error}");
            }
        });
    }
}

/// One of a user's connections, until it is dropped.
struct Place {
    uid: u32,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.state().connections.leave(self.uid);
    }
}

/// One connection.
struct Client<'a> {
    stream: UnixStream,
    shared: &'a Shared,
    session: Session,
    input: Incoming,
    output: Outgoing,
}

impl<'a> Client<'a> {
    fn new(stream: UnixStream, place: &'a Place) -> Self {
        Self {
            stream,
            session: Session::new(place.uid, place.shared.owner),
            shared: &place.shared,
            input: Incoming::default(),
            output: Outgoing::default(),
        }
    }

    /// Answers requests until the client leaves.
    async fn converse(mut self) -> io::Result<()> {
        while let Some((number, request)) = self.request().await? {
            let _answering = Answering::begin(&self.shared.answering);
            let mut step = self.session.request(request);
            let mut descriptor = None;
            loop {
                let Step { replies, next } = step;
                self.send(number, &replies, descriptor.take()).await?;
                match next {
                    Next::Ask(ask) => {
                        let (answer, passed) = self.shared.ask(ask).await;
                        descriptor = passed;
                        step = self.session.answer(answer);
                    }
                    Next::Close => return Ok(()),
                    Next::Read => break,
                }
            }
        }
        Ok(())
    }

    async fn request(&mut self) -> io::Result<Option<(u32, Request)>> {
        let mut buffer = [0; READ];
        loop {
            if let Some(frame) = self.input.next_frame().map_err(io::Error::other)? {
                if frame.kind != Kind::Request {
                    return Err(io::Error::other("a frame that is not a request"));
                }
                return Ok(Some((frame.number, frame.message().map_err(io::Error::other)?)));
            }
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(None);
            }
            self.input.extend(buffer.get(..count).unwrap_or_default());
        }
    }

    /// Sends replies; `descriptor` goes with the one that carries one.
    async fn send(
        &mut self,
        number: u32,
        replies: &[Reply],
        mut descriptor: Option<OwnedFd>,
    ) -> io::Result<()> {
        for reply in replies {
            let passed = match reply {
                Reply::File { .. } | Reply::Session => descriptor.take(),
                _ => None,
            };
            let pushed = self.output.push(Kind::Reply, number, reply, passed);
            pushed.map_err(io::Error::other)?;
        }
        while !self.output.is_empty() {
            let (run, passed) = self.output.next_run();
            let passed = passed.map(AsFd::as_fd);
            let stream = &self.stream;
            let sent = stream
                .async_io(Interest::WRITABLE, || {
                    platform::fd::send_vectored(stream.as_fd(), &[IoSlice::new(run)], passed)
                })
                .await?;
            self.output.advance(sent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
