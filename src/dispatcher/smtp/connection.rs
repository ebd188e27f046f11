//! One SMTP connection: drives a [`Session`] over a stream, and asks other roles on its behalf.
//!
//! An idle connection holds no buffers: bytes are read into the stack and kept only while the
//! session has use for them.

mod requests;

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use self::requests::{ReadyCommit, commit_message, expand, forget, open_file, unwritten};
use super::logins::Logins;
use super::{Action, Answer, Commit, Ending, InputBuffer, Refusal, Session, Severity};
use crate::config::TlsMode;
use crate::dispatcher::filters::link::{FilterLink, Pending, begun};
use crate::dispatcher::shared::{BodyShare, Counted, Leaving, Shared};
use crate::dispatcher::tls::{Door, HandshakeError, Transport};
use crate::model::MessageId;
use crate::model::dns::{Confirmed, Reverse};

/// Bytes read at once.
const READ: usize = 32 * 1024;
/// Lines of a message that a session may hold even where all together hold too much, in bytes.
const LINES_KEPT: usize = 4 * 1024;
/// How long a write may take before the client is given up: it does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

/// Silence of filters that the lookup role has not ended itself: it has failed.
const FILTER_TIMEOUT: Duration = Duration::from_secs(330);
/// How long a client that has closed its side waits for what filters say about its last command.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// The name of a client, on its way.
type Naming<'a> = Pin<Box<dyn Future<Output = Reverse> + Send + 'a>>;

/// A connection and what belongs to it.
pub struct Connection<S> {
    stream: Transport<S>,
    door: Option<Arc<Door>>,
    session: Session,
    shared: Arc<Shared>,
    input: InputBuffer,
    output: Vec<u8>,
    idle_timeout: Duration,
    /// Binds routes to the transaction that asked for them.
    transaction: u64,
    share: BodyShare,
    leaving: Leaving,
    /// The filters of the listener.
    filters: Option<Box<FilterLink>>,
    /// Whether the client's name leads back to its address.
    confirmed: Confirmed,
    /// File of a body that does not stay in memory.
    spill: Option<Spill>,
}

struct Spill {
    message: MessageId,
    file: File,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// A connection that was just accepted.
    pub fn new(stream: S, session: Session, shared: Arc<Shared>, idle_timeout: Duration) -> Self {
        let share = BodyShare::new(&shared);
        Self {
            share,
            leaving: shared.leaving(),
            stream: Transport::Plain(stream),
            door: None,
            session,
            shared,
            input: InputBuffer::default(),
            output: Vec::new(),
            idle_timeout,
            transaction: 0,
            filters: None,
            confirmed: Confirmed::Pass,
            spill: None,
        }
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(self, door: Option<Arc<Door>>) -> Self {
        Self { door, ..self }
    }

    /// The same with filters.
    #[must_use]
    pub fn with_filters(self, filters: Option<FilterLink>) -> Self {
        Self { filters: filters.map(Box::new), ..self }
    }

    /// Serves the connection to its end. `name` is the client's, still being looked up; `None`
    /// where the session knows it already.
    pub async fn serve(mut self, name: Option<impl Future<Output = Reverse> + Send>) {
        let shared = Arc::clone(&self.shared);
        let mut naming: Option<Naming<'_>> = name.map(|name| -> Naming<'_> { Box::pin(name) });
        let mut pending: Option<Pending<'_>> = None;
        let mut filtering: Option<Pending<'_>> = None;
        let mut message = None;
        let mut encrypted = None;
        loop {
            match self.session.poll(Timestamp::now(), &mut self.input, &mut self.output) {
                Action::Close => break,
                Action::Authenticate(asked) => {
                    pending = Some(Box::pin(self.logins().authenticate(asked)));
                }
                Action::BeginFilters { request, hostname } => {
                    let Some(filters) = &mut self.filters else { break };
                    let source = self.session.source();
                    let interests = filters.begin(hostname, self.confirmed, source);
                    filtering = Some(begun(request, interests));
                }
                Action::CheckSender(asked) => {
                    pending = Some(Box::pin(self.logins().check_sender(asked)));
                }
                Action::CountProof { request, accepted } => {
                    pending = Some(Box::pin(self.logins().count_proof(request, accepted)));
                }
                Action::Commit(commit) => {
                    let ready = self.finish_body(*commit);
                    let shared = Arc::clone(&shared);
                    let transaction = self.transaction;
                    pending = Some(Box::pin(commit_message(shared, transaction, ready)));
                    message = None;
                }
                Action::DiscardBody => {
                    if let Some(spill) = self.spill.take() {
                        forget(&shared, spill.message).await;
                    }
                }
                Action::ExpandRecipient(recipient) => {
                    let shared = Arc::clone(&shared);
                    let secure = self.session.is_secure();
                    pending = Some(Box::pin(expand(shared, self.transaction, secure, recipient)));
                }
                Action::FindVerifier { request, user } => {
                    pending = Some(Box::pin(self.logins().find_verifier(request, user)));
                }
                Action::Filter(question) => {
                    let Some(filters) = &mut self.filters else { break };
                    filtering = Some(filters.ask(*question));
                }
                Action::FilterLines(lines) => {
                    let Some(filters) = &mut self.filters else { break };
                    filtering = Some(filters.pass(*lines));
                }
                Action::Flush => self.flush().await,
                Action::Log(event) => {
                    let line = event.to_line(self.session.id());
                    match event.severity() {
                        Severity::Info => tracing::info!("{line}"),
                        Severity::Warning => tracing::warn!("{line}"),
                    }
                }
                Action::NewMessageId(request) => {
                    // Most often there is one at hand: nothing to wait for.
                    let lease = shared.lease().await;
                    if let Ok(lease) = &lease {
                        self.transaction = lease.nonce;
                        message = Some(lease.id);
                    }
                    self.session.answer(Answer::MessageId(request, lease));
                }
                Action::Receive => {
                    self.share_memory(message).await;
                    self.flush().await;
                    if let Some(filters) = &mut self.filters {
                        filters.flush();
                    }
                    // Nothing is awaited of a client that does not read.
                    if !self.session.has_ended() {
                        self.receive(&mut naming).await;
                    }
                }
                Action::StartTls => {
                    self.flush().await;
                    if !self.session.has_ended() {
                        encrypted = self.start_tls(&shared).await;
                    }
                }
                Action::Report(event) => {
                    if let Some(filters) = &mut self.filters {
                        filters.report(event);
                    }
                }
                Action::TakeBody => {
                    let piece = self.session.take_body();
                    self.store_piece(message, &piece).await;
                }
                Action::Wait { flush } => {
                    if flush {
                        self.flush().await;
                    }
                    if let Some(answer) = filtering.take() {
                        self.await_filters(answer).await;
                    } else if let Some(answer) = pending.take() {
                        let answer = answer.await;
                        self.session.answer(answer);
                    } else if let Some(name) = naming.take() {
                        let name = name.await;
                        self.named(name);
                    } else {
                        // A session waits only for what it asked.
                        break;
                    }
                }
            }
        }
        let ending = async {
            self.stream.write_all(&self.output).await?;
            self.stream.shutdown().await
        };
        // The client may be gone already.
        let _gone = timeout(WRITE_TIMEOUT, ending).await;
        if let Some(spill) = self.spill.take() {
            forget(&shared, spill.message).await;
        }
        drop(encrypted);
    }

    fn logins(&self) -> Logins {
        Logins::new(&self.shared, &self.session)
    }

    /// Writes what there is to say.
    async fn flush(&mut self) {
        if self.output.is_empty() {
            return;
        }
        let writing = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_TIMEOUT, writing).await;
        self.output = Vec::new();
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.session.end(ending(&error)),
            Err(_) => self.session.end(Ending::Timeout),
        }
    }

    /// Waits for filters, but not for longer than the client does.
    async fn await_filters(&mut self, answer: Pending<'_>) {
        let late = tokio::time::sleep(FILTER_TIMEOUT);
        tokio::pin!(late);
        let gone = client_gone(&mut self.stream, &mut self.input);
        tokio::select! {
            biased;
            answer = answer => {
                if let (Answer::Filters(_, Some(interests)), Some(filters)) =
                    (&answer, &mut self.filters)
                {
                    filters.begun(*interests);
                }
                self.session.answer(answer);
            }
            ending = gone => self.session.end(ending),
            () = &mut late => self.session.filters_late(),
        }
    }

    /// The client's name has come.
    fn named(&mut self, name: Reverse) {
        self.confirmed = name.confirmed;
        self.session.answer(Answer::Hostname(name.name));
    }

    /// Does the handshake, and tells the session how it went. What comes back counts the session as
    /// an encrypted one.
    async fn start_tls<'s>(&mut self, shared: &'s Shared) -> Option<Counted<'s>> {
        let (Some(door), Some(stream)) = (&self.door, self.stream.take_plain()) else {
            self.session.end(Ending::TlsUnavailable);
            return None;
        };
        // Before a handshake that comes first, filters may have been waited for, and the client too.
        let early = self.input.as_slice().to_vec();
        self.input = InputBuffer::default();
        match shared.tls.accept(door, stream, early).await {
            Ok((stream, secured)) => {
                self.stream = Transport::Tls(stream);
                self.session.answer(Answer::Secured(Box::new(secured)));
                let counters = &shared.counters;
                let immediate = door.settings().mode == TlsMode::Immediate;
                Some(Counted::new(if immediate { &counters.smtps } else { &counters.starttls }))
            }
            Err(HandshakeError::Unavailable) => {
                self.session.end(Ending::TlsUnavailable);
                None
            }
            Err(error) => {
                self.session.end(Ending::IoError(format!("handshake failed: {error}")));
                None
            }
        }
    }

    /// Waits for bytes; meanwhile the client's name may come, or the role leave.
    async fn receive(&mut self, naming: &mut Option<Naming<'_>>) {
        if self.input.is_empty() {
            self.input = InputBuffer::default();
        }
        let idle = tokio::time::sleep(self.idle_timeout);
        tokio::pin!(idle);
        let read = read_some(&mut self.stream, self.input.room());
        let name = async {
            match naming.as_mut() {
                Some(name) => name.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.leaving.begun() => self.session.shut_down(&mut self.output),
            read = read => match read {
                Ok(0) => self.session.end(Ending::Disconnect),
                Ok(_) => {}
                Err(error) => self.session.end(ending(&error)),
            },
            name = name => {
                // Its log lines were waiting for the name.
                self.named(name);
                *naming = None;
            }
            () = &mut idle => self.session.end(Ending::Timeout),
        }
    }

    /// Counts what the session holds of a message. Where all sessions together hold too much, the
    /// body is stored; a message whose lines cannot be is refused if they are long.
    async fn share_memory(&mut self, message: Option<MessageId>) {
        let (body, lines) = (self.session.body_in_memory(), self.session.lines_in_memory());
        if self.share.set(body + lines) {
            return;
        }
        if body > 0 {
            let piece = self.session.take_body();
            self.store_piece(message, &piece).await;
        }
        if !self.share.set(lines) && lines > LINES_KEPT {
            self.session.body_failed(Refusal::Full);
            self.share.set(self.session.lines_in_memory());
        }
    }

    /// Stores a piece of a body that does not stay in memory.
    async fn store_piece(&mut self, message: Option<MessageId>, piece: &[u8]) {
        let Some(message) = message else {
            self.session.body_failed(Refusal::Failure);
            return;
        };
        if self.spill.is_none() {
            match open_file(&self.shared, message).await {
                Ok(file) => self.spill = Some(Spill { message, file }),
                Err(refusal) => {
                    self.session.body_failed(refusal);
                    return;
                }
            }
        }
        let Some(spill) = &mut self.spill else { return };
        // Into the page cache: the queue syncs at commit.
        if let Err(error) = spill.file.write_all(piece) {
            self.session.body_failed(unwritten(&error));
        }
    }

    /// Brings the last piece of the body where the others are.
    fn finish_body(&mut self, mut commit: Commit) -> ReadyCommit {
        let Some(mut spill) = self.spill.take_if(|spill| spill.message == commit.message) else {
            return ReadyCommit { commit, file: None, failed: None };
        };
        let failed = spill.file.write_all(&commit.body).err().map(|error| unwritten(&error));
        let size = commit.size();
        commit.body = Vec::new();
        ReadyCommit { commit, file: Some(size), failed }
    }
}

fn ending(error: &io::Error) -> Ending {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::WriteZero => Ending::Disconnect,
        _ => Ending::IoError(error.to_string()),
    }
}

/// Reads once, by way of the stack, so that who waits holds no buffer.
async fn read_some<S: AsyncRead + Unpin>(stream: &mut S, into: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|context| {
        let mut buffer = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        Pin::new(&mut *stream).poll_read(context, &mut buffer).map_ok(|()| {
            into.extend_from_slice(buffer.filled());
            buffer.filled().len()
        })
    })
    .await
}

/// Waits for the client to leave. Some of what it sends meanwhile is taken in, as that is how its
/// end shows, but no more than is read at once otherwise.
async fn client_gone<S: AsyncRead + Unpin>(stream: &mut S, input: &mut InputBuffer) -> Ending {
    while input.as_slice().len() < READ {
        match read_some(stream, input.room()).await {
            Ok(0) => {
                tokio::time::sleep(HALF_CLOSED).await;
                return Ending::Disconnect;
            }
            Ok(_) => {}
            Err(error) => return ending(&error),
        }
    }
    std::future::pending().await
}
