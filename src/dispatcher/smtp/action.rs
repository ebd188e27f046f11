//! What a session asks of its shell, and what it is answered.

use std::sync::Arc;

use super::event::LogEvent;
use crate::filter::engine::{Flow, Wants};
use crate::filter::{Decision, Event, Phase};
use crate::ipc::seal::Sealed;
use crate::model::envelope::{Origin, RecipientDsn};
use crate::model::tls::Secured;
use crate::model::{EnvelopeId, Mailbox, MessageId, ReversePath};

/// What the shell does next. See [`Session::poll`](super::Session::poll).
#[derive(Debug)]
pub enum Action {
    /// Check credentials; answer with [`Answer::Authenticated`].
    Authenticate(Box<Authenticate>),
    /// Tell the listener's filters that a session begins, whose client has this name; answer with
    /// [`Answer::Filters`].
    BeginFilters {
        /// Goes back with the answer.
        request: RequestId,
        /// The name by reverse look-up, checked; `<unknown>` without one.
        hostname: String,
    },
    /// Ask whether the user may send from this address; answer with [`Answer::Sender`].
    CheckSender(Box<CheckSender>),
    /// Write all output, then close the connection and drop the session.
    Close,
    /// Make the message durable; answer with [`Answer::Commit`].
    Commit(Box<Commit>),
    /// Tell what came of a proof of SCRAM, before the client is told; answer with
    /// [`Answer::Authenticated`], which is what the client is told: wrong proofs count and are
    /// delayed as wrong passwords are.
    CountProof {
        /// Goes back with the answer.
        request: RequestId,
        /// Whether the proof is right.
        accepted: bool,
    },
    /// Drop the pieces of a body that were taken: their message will not be committed.
    DiscardBody,
    /// Ask for the routes of a recipient; answer with [`Answer::Recipient`].
    ExpandRecipient(Box<ExpandRecipient>),
    /// Ask the listener's filters about a command; answer with [`Answer::Filtered`].
    Filter(Box<FilterQuestion>),
    /// Pass lines of a message through the filters; answer with [`Answer::FilteredLines`].
    FilterLines(Box<FilterLines>),
    /// Get what the server keeps of a user's password for SCRAM; answer with [`Answer::Verifier`].
    FindVerifier {
        /// Goes back with the answer.
        request: RequestId,
        /// The user, as sent, prepared for comparison.
        user: String,
    },
    /// Write all output before the next poll: the client sends without reading.
    Flush,
    /// Write this to the log.
    Log(LogEvent),
    /// Lease a message id; answer with [`Answer::MessageId`].
    NewMessageId(RequestId),
    /// Tell the listener's filters. In the order of the events, also with [`Action::Filter`].
    Report(Event),
    /// Write all output, then do the TLS handshake as server on what follows in the stream (never
    /// on input that is in the buffer: there is none); answer with [`Answer::Secured`], or
    /// [`Session::end`](super::Session::end) it. The first action of a session with
    /// [`TlsMode::Immediate`](crate::config::TlsMode::Immediate), before its banner.
    StartTls,
    /// Everything received was handled: write all output, then wait for input. Input and output
    /// buffers that are empty may be given away meanwhile.
    Receive,
    /// More of a body is in memory than [`crate::model::limits::BODY_IN_MEMORY`]: call
    /// [`Session::take_body`](super::Session::take_body) and store the piece before the next poll.
    TakeBody,
    /// An answer is outstanding: poll again when it was given.
    Wait {
        /// Whether the output must be written before that: it holds replies that a server may not
        /// keep back (RFC 2920, section 3.2).
        flush: bool,
    },
}

/// Credentials to be checked.
#[derive(Debug)]
pub struct Authenticate {
    /// Goes back with the answer.
    pub request: RequestId,
    /// The user name, up to 255 bytes.
    pub user: Vec<u8>,
    /// The password, never logged.
    pub password: zeroize::Zeroizing<Vec<u8>>,
}

/// A sender to be allowed or not.
#[derive(Clone, Debug)]
pub struct CheckSender {
    /// Goes back with the answer.
    pub request: RequestId,
    /// Who has logged in.
    pub user: String,
    /// The address of MAIL.
    pub sender: ReversePath,
}

/// A phase that filters decide.
#[derive(Clone)]
pub struct FilterQuestion {
    /// Goes back with the answer.
    pub request: RequestId,
    /// The moment.
    pub phase: Phase,
    /// Its parameter (5.5 of the SMTP page); of `connect` there is none: the shell knows it.
    pub parameter: Vec<u8>,
}

impl std::fmt::Debug for FilterQuestion {
    /// Without the parameter, which may be credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { request, phase, .. } = self;
        f.debug_struct("FilterQuestion")
            .field("request", request)
            .field("phase", phase)
            .finish_non_exhaustive()
    }
}

/// Lines of a message for the filters.
#[derive(Clone, Debug)]
pub struct FilterLines {
    /// Goes back with the answer.
    pub request: RequestId,
    /// Lines, dot-stuffed, each with a line feed, the final dot too; a long one may be cut between
    /// two requests. Without any, the filters have all of the message, and what comes out of them
    /// is awaited.
    pub lines: Vec<u8>,
}

/// Matches an answer to its request within a session.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct RequestId(pub u32);

/// A recipient to be matched with the rules and expanded.
#[derive(Clone, Debug)]
pub struct ExpandRecipient {
    /// Goes back with the answer.
    pub request: RequestId,
    /// The message that it will be a recipient of.
    pub message: MessageId,
    /// What rules match on, and what the seals cover.
    pub origin: Arc<Origin>,
    /// The address, as the client gave it, with its domain completed.
    pub recipient: Mailbox,
    /// Which reports the client asked for.
    pub dsn: RecipientDsn,
}

/// A complete message that was received without fault.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Goes back with the answer.
    pub request: RequestId,
    /// Its number.
    pub message: MessageId,
    /// What the session knew.
    pub origin: Arc<Origin>,
    /// Its accepted recipients, in the order of their RCPT commands.
    pub recipients: Vec<Recipient>,
    /// The part of the body that was not yet taken, trace headers first.
    pub body: Vec<u8>,
    /// Bytes taken before, by [`Session::take_body`](super::Session::take_body).
    pub spilled: u64,
}

impl Commit {
    /// Size of the whole body, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.spilled + self.body.len() as u64
    }
}

/// An accepted recipient.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The address, as the client gave it, with its domain completed.
    pub address: Mailbox,
    /// Which reports the client asked for.
    pub dsn: RecipientDsn,
    /// Its envelopes, at least one: a number each, and the route as the lookup role sealed it.
    pub envelopes: Vec<(EnvelopeId, Sealed)>,
}

/// What a session is told. An answer that no request waits for is dropped.
#[derive(Debug)]
pub enum Answer {
    /// The verdict on credentials.
    Authenticated(RequestId, Authenticated),
    /// What became of a commit.
    Commit(RequestId, Result<(), Refusal>),
    /// What filters decided; a filter that is broken or late decides `421 …` by itself.
    Filtered(RequestId, Decision),
    /// What came out of the filters.
    FilteredLines(RequestId, FilteredLines),
    /// What the filters want to know of the session; `None` if they cannot be asked now.
    Filters(RequestId, Option<Wants>),
    /// The client's name by reverse look-up; `None` without one.
    Hostname(Option<String>),
    /// A message id, or why there is none.
    MessageId(RequestId, Result<Lease, Refusal>),
    /// The routes of a recipient.
    Recipient(RequestId, Expansion),
    /// The TLS handshake is done.
    Secured(Box<Secured>),
    /// Whether the sender is allowed; `None` if that cannot be found out now.
    Sender(RequestId, Option<bool>),
    /// The verifier of a user for SCRAM-SHA-256.
    Verifier(RequestId, Result<FoundVerifier, NoVerifier>),
}

/// Why an exchange of SCRAM does not go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoVerifier {
    /// It could not be found out: 421, the session goes on.
    Failed,
    /// Too many failures from this address: 421, and the session ends.
    Limited,
    /// This user, who may not be there, has none: 432, other mechanisms may work.
    Missing,
}

/// What the server keeps of a password, to be used once.
#[derive(Clone)]
pub struct FoundVerifier {
    /// The verifier in the text form of RFC 5803
    /// (`SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`). For a user who has none an invented
    /// one that no password fits.
    pub text: zeroize::Zeroizing<String>,
    /// Random, never used before.
    pub nonce: [u8; 18],
}

impl std::fmt::Debug for FoundVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FoundVerifier(…)")
    }
}

/// Lines that came out of the filters.
#[derive(Debug)]
pub struct FilteredLines {
    /// Bytes of the lines sent that the filters took. The rest is sent again.
    pub taken: usize,
    /// Lines, dot-stuffed, each with a line feed, without the final dot; a long one may be cut
    /// between two answers.
    pub output: Vec<u8>,
    /// What comes next.
    pub flow: Flow,
}

/// The verdict on credentials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authenticated {
    /// They are right.
    Accepted,
    /// They could not be checked: 421, the session goes on.
    Failed,
    /// They are wrong: 535. The delay of the reply has passed already.
    Rejected,
    /// Too many failures from this address: 421, and the session ends.
    Limited,
}

/// A message id for one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// The id, never used before.
    pub id: MessageId,
    /// Random: the low halves of the envelope ids start from it, and an added Message-ID has it.
    pub nonce: u64,
}

/// Why the queue does not take a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It cannot be reached, or failed: 421.
    Failure,
    /// The spool is full: 452, the session goes on.
    Full,
    /// It did not answer in time: 451, the session goes on.
    Timeout,
}

/// What the rules say about a recipient.
#[derive(Clone, Debug)]
pub enum Expansion {
    /// Accepted, with one sealed route an envelope.
    Accepted(Vec<Sealed>),
    /// The lookup role did not answer: 451.
    Failed,
    /// Refused with this reply, `4yz` or `5yz` and a text; the address is appended to it. The
    /// usual ones are [`INVALID_RECIPIENT`](crate::proto::reply::INVALID_RECIPIENT) and its
    /// neighbours.
    Refused(String),
}

/// Why a session ends that its client did not end with QUIT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The client closed the connection.
    Disconnect,
    /// Reading or writing failed.
    IoError(String),
    /// Nothing was received for the idle timeout, or the client does not read.
    Timeout,
    /// A handshake was due, and cannot be done now: there is no key.
    TlsUnavailable,
}
