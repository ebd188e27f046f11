//! One connection to another server: its socket, its log lines, its place in the relay's counts.
//!
//! The dialogue is [`Session`]'s; here its actions are carried out. A [`Running`] puts everything
//! back in order when the session ends, in whatever way: by the dialogue, a lost connection, or a
//! panic, which defers the task at hand and ends this session alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::body::{BLOCK, Body, DotStuffer};
use super::directory::{Event, Release};
use super::log::{DeliveryLine, system_error};
use super::network::AddressText;
use super::relay::Plan;
use super::session::{Action, Class, Protocol, Session, SessionOptions, Verdict};
use super::shell::{Mta, Post, age, now, outcome};
use super::task::Task;
use super::url::Scheme;

/// Longest wait for a connection, a reply, or room to write.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for the reply to QUIT, on which nothing depends.
const FAREWELL: Duration = Duration::from_secs(5);
/// Longest wait for the server's name, which only logs show.
const NAME_PATIENCE: Duration = Duration::from_secs(2);
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
    let domain = post.lock().key.domain.clone();
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
    running.source = stream.local_addr().ok().map(|local| local.ip());
    let connection = Connection {
        stream,
        session: Session::new(options),
        input: vec![0; 4096],
        keepalive,
        pause,
        is_fresh: true,
        failed: false,
    };
    connection.talk(&mut running).await;
}

/// A session's place in the counts, and the task it has in hand.
struct Running {
    mta: Mta,
    post: Arc<Post>,
    plan: Plan,
    /// Destination domain or smart host.
    domain: String,
    /// Number of the session in logs.
    id: u64,
    /// Our own address of the connection.
    source: Option<IpAddr>,
    /// `IP (name)` of the server.
    relay_text: String,
    task: Option<Arc<Task>>,
    /// By envelope of the task.
    settled: Vec<bool>,
    /// Outcomes not told yet: they are told when the session has its next task or is known to be
    /// idle, so that whoever sends more mail on hearing them finds it ready.
    outcomes: Vec<Event>,
    was_ready: bool,
    source_failed: bool,
    is_idle: bool,
    leaves_early: bool,
}

impl Running {
    fn new(mta: Mta, post: Arc<Post>, plan: Plan, domain: String) -> Self {
        Self {
            mta,
            post,
            plan,
            domain,
            // A number for log lines alone: one that is not random is no harm.
            id: getrandom::u64().unwrap_or(1),
            source: None,
            relay_text: String::new(),
            task: None,
            settled: Vec::new(),
            outcomes: Vec::new(),
            was_ready: false,
            source_failed: false,
            is_idle: false,
            leaves_early: false,
        }
    }

    /// The server's name, or its address when it is not known soon.
    async fn server_name(&self, address: IpAddr) -> Arc<str> {
        if let Some(name) = self.mta.known_name(address) {
            return name;
        }
        let answer = timeout(NAME_PATIENCE, self.mta.directory().reverse(address)).await;
        let name = answer.ok().and_then(|reverse| reverse.name);
        let name: Arc<str> = match name {
            Some(name) => name.into(),
            None => AddressText(address).to_string().into(),
        };
        self.mta.keep_name(address, &name);
        name
    }

    async fn connect(&mut self, remote: SocketAddr) -> Result<TcpStream, String> {
        let io_error = |error: &io::Error| format!("IO Error: {}", system_error(error));
        let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| io_error(&error))?;
        if let Some(source) = self.plan.route.source
            && let Err(error) = socket.bind(SocketAddr::new(source, 0))
        {
            return Err(self.source_error(&error));
        }
        match timeout(PATIENCE, socket.connect(remote)).await {
            Err(_) => Err(TIMED_OUT.to_owned()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(self.source_error(&error))
            }
            Ok(Err(error)) => Err(io_error(&error)),
            Ok(Ok(stream)) => {
                // Without it every message may wait 40 ms for a delayed acknowledgement.
                stream.set_nodelay(true).map_err(|error| io_error(&error))?;
                Ok(stream)
            }
        }
    }

    fn source_error(&mut self, error: &io::Error) -> String {
        self.source_failed = true;
        let name = self.mta.known_name(self.plan.route.remote.ip());
        let (route, reason) = (self.plan.route.named(name.as_deref()), system_error(error));
        tracing::info!("smtp-out: Error on {route}: {reason}");
        format!("IO Error: {reason}")
    }

    /// The session is ready for mail; true for the first time.
    fn ready(&mut self) -> bool {
        // Settled by now: an idle session holds no message.
        self.task = None;
        self.settled.clear();
        let is_first = !std::mem::replace(&mut self.was_ready, true);
        if is_first {
            self.mta.state().network.prove(self.plan.route);
        }
        is_first
    }

    fn tell_outcomes(&mut self) {
        for event in self.outcomes.drain(..) {
            self.mta.tell(event);
        }
    }

    /// The next task of the relay, if one waits.
    fn take(&mut self) -> Option<Arc<Task>> {
        let taken = self.post.lock().take();
        self.hold(taken)
    }

    /// The next task of the relay; if none waits, the session counts as idle.
    fn take_or_wait(&mut self) -> Option<Arc<Task>> {
        let taken = {
            let mut relay = self.post.lock();
            let taken = relay.take();
            if taken.is_none() {
                relay.session_waits();
                self.is_idle = true;
            }
            taken
        };
        self.tell_outcomes();
        self.hold(taken)
    }

    /// Takes a task in hand, and passes on what its leaving the relay brought about.
    fn hold(&mut self, taken: Option<(Task, Option<Event>)>) -> Option<Arc<Task>> {
        let (task, event) = taken?;
        if let Some(event) = event {
            if matches!(event, Event::Released { release: Release::Count(_), .. }) {
                let relay = self.post.lock().key.to_string();
                tracing::info!("smtp-out: back to lowat on {relay}: releasing");
            }
            self.mta.tell(event);
        }
        self.settled = vec![false; task.envelopes.len()];
        let task = Arc::new(task);
        self.task = Some(Arc::clone(&task));
        Some(task)
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.is_idle) {
            self.post.lock().session_wakes();
        }
    }

    /// Whether an idle session is no longer needed; if so nobody counts on it from now on.
    fn leaves(&mut self, idle_for: Duration, keepalive: Duration) -> bool {
        let mut relay = self.post.lock();
        if relay.waiting() > 0 {
            return false;
        }
        self.leaves_early = relay.may_leave_early();
        if !self.leaves_early && idle_for < keepalive {
            return false;
        }
        relay.session_wakes();
        self.is_idle = false;
        true
    }

    fn settle(&mut self, index: usize, verdict: &Verdict) {
        let Some(task) = self.task.clone() else { return };
        let Some(envelope) = task.envelopes.get(index) else { return };
        match self.settled.get_mut(index) {
            Some(settled) if !*settled => *settled = true,
            _ => return,
        }
        let line = DeliveryLine {
            session: self.id,
            envelope,
            source: self.source,
            relay: &self.relay_text,
            delay: age(envelope),
            verdict,
        };
        tracing::info!("{line}");
        match verdict.class {
            Class::Ok { .. } => self.mta.accepted(&self.domain),
            Class::TempFail { not_tried: true } => self.mta.remember(&self.domain, envelope),
            Class::PermFail | Class::TempFail { not_tried: false } => {}
        }
        let event = Event::Settled { envelope: envelope.id, outcome: outcome(verdict) };
        self.outcomes.push(event);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.wake();
        let aborted = Verdict::temporary("Session ended unexpectedly");
        for index in 0..self.settled.len() {
            self.settle(index, &aborted);
        }
        self.tell_outcomes();
        {
            let mut relay = self.post.lock();
            if self.source_failed {
                relay.source_failed(&self.plan);
            }
            if self.leaves_early {
                relay.has_left();
            }
            let mut state = self.mta.state();
            relay.session_ended(&self.plan, &mut state.network, now());
        }
        // When the runtime itself ends, nothing can follow.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if !self.was_ready && !self.source_failed {
            self.mta.disable(self.plan.route);
        }
        self.mta.session_ended();
        self.mta.advance(&self.post);
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
            if self.write().await {
                self.read().await;
            }
        }
    }

    /// Begins the next task of the relay, waits for one, or says goodbye.
    async fn next_task(&mut self, running: &mut Running) {
        let is_first = running.ready();
        let task = running.take();
        if is_first {
            // The route is proven: it may have more sessions, if there is more to send.
            running.mta.advance(&running.post);
        }
        if let Some(task) = task {
            return self.begin(task).await;
        }
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
            Err(_) => self.session.fail(TIMED_OUT),
            Ok(read) => self.take(read),
        }
    }

    fn take(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.session.fail(CLOSED),
            Ok(count) => self.session.receive(self.input.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.session.fail(CLOSED);
            }
            Err(error) => self.session.fail(&format!("IO Error: {}", system_error(&error))),
        }
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
            let bytes = self.input.get(..count).unwrap_or_default();
            self.session.receive(bytes);
        }
    }

    /// Writes the message of the task at hand.
    async fn send_body(&mut self, running: &Running) {
        let Some(task) = running.task.clone() else { return };
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
