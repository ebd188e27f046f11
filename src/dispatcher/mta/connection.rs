//! One connection to another server: its socket, its log lines, its place in the relay's counts.
//!
//! The dialogue is [`Session`]'s; here its actions are carried out. A [`Running`] puts everything
//! back in order when the session ends, in whatever way: by the dialogue, a lost connection, or a
//! panic, which defers the task at hand and ends this session alone.

mod running;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::running::Running;
use super::body::{BLOCK, Body};
use super::log::system_error;
use super::network::AddressText;
use super::relay::Plan;
use super::session::{Action, Protocol, Session, SessionOptions};
use super::shell::{Mta, Post, now};
use super::task::Task;
use super::witness::Witness;
use crate::dispatcher::filters::link::{Ends, FilterLink};
use crate::model::dns::Confirmed;
use crate::model::envelope::Source;
use crate::proto::stuffing::DotStuffer;
use crate::table::relay_url::Scheme;

/// Longest wait for a connection, a reply, or room to write.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for the reply to QUIT, on which nothing depends.
const FAREWELL: Duration = Duration::from_secs(5);
/// Longest wait for filters to say what they want to know.
const FILTERS_PATIENCE: Duration = Duration::from_secs(2);
/// How often an idle session looks whether it is still needed.
const IDLE_LOOK: Duration = Duration::from_secs(1);
const CLOSED: &str = "Connection closed unexpectedly";
const TIMED_OUT: &str = "Connection timeout";

/// Runs the session of `plan` to its end.
pub(super) async fn run(mta: Mta, post: Arc<Post>, plan: Plan) {
    let (scheme, keepalive, pause, options) = {
        let relay = post.lock();
        let protocol =
            if relay.key.scheme == Scheme::Lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let options = SessionOptions {
            protocol,
            helo: plan.helo.clone(),
            mail_max: relay.limits.session_mail_max,
            max_failures: relay.limits.max_failures_per_session,
        };
        let limits = &relay.limits;
        let (keepalive, pause) = (limits.session_keepalive, limits.session_transaction_delay);
        (relay.key.scheme, keepalive, pause, options)
    };
    let (domain, filter) = {
        let relay = post.lock();
        (relay.key.domain.clone(), relay.key.action.filter)
    };
    let remote = plan.route.remote;
    let mut running = Running::new(mta, post, plan, domain);
    let name = running.server_name(remote.ip()).await;
    let address = AddressText(remote.ip());
    running.relay_text = format!("{address} ({name})");
    let id = running.id;
    let (scheme, port) = (scheme.name(), remote.port());
    tracing::info!("{id:016x} mta connecting address={scheme}://{address}:{port} host={name}");

    let stream = match running.connect(remote).await {
        Ok(stream) => stream,
        Err(reason) => return tracing::info!("{id:016x} mta error reason={reason}"),
    };
    tracing::info!("{id:016x} mta connected");
    let local = stream.local_addr().ok();
    running.source = local.map(|local| local.ip());
    let ends = || Ends {
        source: local.map(|local| local.to_string()).unwrap_or_default(),
        destination: remote.to_string(),
    };
    let told = filter
        .and_then(|filter| running.mta.directory().filters(id, filter, ends()))
        .map(|link| Told::new(link, &name, remote.ip()));
    let told = match told {
        Some(told) => told.await,
        None => None,
    };
    let connection = Connection {
        stream,
        session: Session::new(options),
        input: vec![0; 4096],
        keepalive,
        pause,
        is_fresh: true,
        failed: false,
        told,
    };
    connection.talk(&mut running).await;
}

/// What the filters of the action are told.
struct Told {
    witness: Witness,
    link: FilterLink,
}

impl Told {
    /// Has the filters begin; `None` if nobody wants to know.
    async fn new(mut link: FilterLink, name: &str, server: IpAddr) -> Option<Box<Self>> {
        let source = Source::Ip(server);
        let interests = link.begin(name.to_owned(), Confirmed::Pass, source);
        // Filters that are not ready soon are told when they are: mail does not wait for them.
        match timeout(FILTERS_PATIENCE, interests).await {
            Ok(Some(interests)) if interests.events => link.begun(interests),
            Ok(_) => return None,
            Err(_) => {}
        }
        Some(Box::new(Self { witness: Witness::new(), link }))
    }

    /// Sends what there is to tell.
    fn tell(&mut self) {
        for event in self.witness.take_events() {
            self.link.report(event);
        }
        self.link.flush();
    }
}

/// A connected socket and the dialogue on it.
struct Connection {
    stream: TcpStream,
    session: Session,
    input: Vec<u8>,
    keepalive: Duration,
    pause: Duration,
    /// No task was begun yet.
    is_fresh: bool,
    /// The session's failure was logged.
    failed: bool,
    /// What is told of it.
    told: Option<Box<Told>>,
}

impl Connection {
    /// Carries out what the dialogue wants until it is over.
    async fn talk(mut self, running: &mut Running) {
        loop {
            while let Some(action) = self.session.next_action() {
                match action {
                    Action::Close => return self.close(running).await,
                    Action::Error(reason) => self.log_failure(running, &reason),
                    Action::HostRejectsAll => {
                        tracing::info!("{:016x} mta host-rejects-all-mails", running.id);
                    }
                    Action::Ready => {
                        self.next_task(running).await;
                    }
                    Action::SendBody => self.send_body(running).await,
                    Action::Settled { index, verdict } => running.settle(index, &verdict),
                }
            }
            running.tell_outcomes();
            if self.write_commands().await {
                if let Some(told) = &mut self.told {
                    told.tell();
                }
                self.read().await;
            }
        }
    }

    /// Begins the next task of the relay, waits for one, or says goodbye.
    async fn next_task(&mut self, running: &mut Running) {
        if let Some(told) = &mut self.told {
            told.tell();
        }
        let is_first = running.ready();
        let task = running.take();
        if is_first {
            // The route is proven: it may have more sessions, if there is more to send.
            running.mta.advance(&running.post);
        }
        if let Some(task) = task {
            return self.begin(task).await;
        }
        self.session.output().shrink_to(self.input.len());
        let idle_since = now();
        let post = Arc::clone(&running.post);
        loop {
            let mut work = std::pin::pin!(post.work.notified());
            // From here on no notice is missed.
            work.as_mut().enable();
            if let Some(task) = running.take_or_wait() {
                return self.begin(task).await;
            }
            tokio::select! {
                () = &mut work => {}
                _ = self.stream.readable() => {}
                () = tokio::time::sleep(IDLE_LOOK.min(self.keepalive)) => {
                    if running.leaves(now().duration_since(idle_since), self.keepalive) {
                        return self.session.quit();
                    }
                }
            }
            running.wake();
            // A server that left meanwhile must not get a task.
            self.hear();
            if self.session.is_over() {
                return;
            }
        }
    }

    async fn begin(&mut self, task: Arc<Task>) {
        if !self.is_fresh && !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        self.is_fresh = false;
        if let Some(told) = &mut self.told {
            told.witness.begin(&task);
        }
        self.session.begin(task);
    }

    /// Takes what can be read without waiting, the end of the connection included.
    fn hear(&mut self) {
        let read = self.stream.try_read(&mut self.input);
        if !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.take(read);
        }
    }

    /// Reads once. Whatever comes of it reaches the session.
    async fn read(&mut self) {
        let patience = if self.session.said_quit() { FAREWELL } else { PATIENCE };
        match timeout(patience, self.stream.read(&mut self.input)).await {
            Err(_) => {
                if let Some(told) = &mut self.told {
                    told.witness.timed_out();
                }
                self.session.fail(TIMED_OUT);
            }
            Ok(read) => self.take(read),
        }
    }

    fn take(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.session.fail(CLOSED),
            Ok(count) => self.receive(count),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.session.fail(CLOSED);
            }
            Err(error) => self.session.fail(&format!("IO Error: {}", system_error(&error))),
        }
    }

    /// Takes the first `count` bytes of the input.
    fn receive(&mut self, count: usize) {
        let bytes = self.input.get(..count).unwrap_or_default();
        if let Some(told) = &mut self.told {
            told.witness.received(bytes);
        }
        self.session.receive(bytes);
    }

    /// Writes the session's commands, and has them told.
    async fn write_commands(&mut self) -> bool {
        if let Some(told) = &mut self.told {
            told.witness.sent(self.session.output());
        }
        self.write().await
    }

    /// Writes the session's output; false if the session has to be asked what next.
    async fn write(&mut self) -> bool {
        let mut output = std::mem::take(self.session.output());
        let written = self.write_all(&output).await;
        output.clear();
        *self.session.output() = output;
        match written {
            Ok(()) => true,
            Err(reason) => {
                self.hear_last_words();
                self.session.fail(&reason);
                false
            }
        }
    }

    /// Writes all of `bytes`; each write may take its time.
    async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            match timeout(PATIENCE, self.stream.write(bytes)).await {
                Err(_) => return Err(TIMED_OUT.to_owned()),
                Ok(Ok(0)) => return Err(CLOSED.to_owned()),
                Ok(Ok(count)) => bytes = bytes.get(count..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(CLOSED.to_owned());
                }
                Ok(Err(error)) => return Err(format!("IO Error: {}", system_error(&error))),
            }
        }
        Ok(())
    }

    /// A server that closes in the middle may have said why.
    fn hear_last_words(&mut self) {
        while let Ok(count @ 1..) = self.stream.try_read(&mut self.input) {
            self.receive(count);
        }
    }

    /// Writes the message of the task at hand.
    async fn send_body(&mut self, running: &Running) {
        let Some(task) = running.task.clone() else { return };
        if let Some(told) = &mut self.told {
            told.witness.sent(self.session.output());
        }
        let mut stuffer = DotStuffer::default();
        let mut offset = 0;
        let size = task.body.size();
        while offset < size {
            let output = self.session.output();
            let taken = match &task.body {
                Body::Memory(bytes) => {
                    let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..);
                    let rest = rest.unwrap_or_default();
                    let block = rest.get(..BLOCK).unwrap_or(rest);
                    stuffer.push(block, output);
                    block.len()
                }
                Body::File { file, .. } => {
                    let Some(block) = read_block(Arc::clone(file), offset, size).await else {
                        return self.session.fail("Error reading content file");
                    };
                    stuffer.push(&block, output);
                    block.len()
                }
            };
            offset += taken as u64;
            if offset < size && !self.write().await {
                return;
            }
        }
        stuffer.finish(self.session.output());
        if self.write().await {
            if let Some(told) = &mut self.told {
                told.witness.body_sent();
            }
            self.session.body_sent();
        }
    }

    fn log_failure(&mut self, running: &Running, reason: &str) {
        self.failed = true;
        match self.session.accepted() {
            0 => tracing::info!("{:016x} mta error reason={reason}", running.id),
            count => {
                let plural = if count == 1 { "" } else { "s" };
                tracing::info!(
                    "smtp-out: Error on session {:016x} after {count} message{plural} sent: {reason}",
                    running.id
                );
            }
        }
    }

    async fn close(mut self, running: &Running) {
        if !self.failed {
            let messages = self.session.accepted();
            tracing::info!("{:016x} mta disconnected reason=quit messages={messages}", running.id);
        }
        if let Some(told) = &mut self.told {
            told.witness.closed();
            told.tell();
        }
        // Nothing depends on whether the other side sees the end.
        let _ = timeout(FAREWELL, self.stream.shutdown()).await;
    }
}

/// The block at `offset` of a message of `size` bytes; `None` if the file is shorter or fails.
async fn read_block(file: Arc<std::fs::File>, offset: u64, size: u64) -> Option<Vec<u8>> {
    let length = usize::try_from(size - offset).unwrap_or(BLOCK).min(BLOCK);
    let read = tokio::task::spawn_blocking(move || {
        let mut block = vec![0; length];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut block, offset).map(|()| block)
    });
    read.await.ok()?.ok()
}
