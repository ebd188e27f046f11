//! What a session asks of its shell, and what it is answered.

use std::sync::Arc;

use super::event::LogEvent;
use crate::ipc::seal::Sealed;
use crate::model::envelope::{Origin, RecipientDsn};
use crate::model::{EnvelopeId, Mailbox, MessageId};

/// What the shell does next. See [`Session::poll`](super::Session::poll).
#[derive(Debug)]
pub enum Action {
    /// Write all output, then close the connection and drop the session.
    Close,
    /// Make the message durable; answer with [`Answer::Commit`].
    Commit(Box<Commit>),
    /// Drop the pieces of a body that were taken: their message will not be committed.
    DiscardBody,
    /// Ask for the routes of a recipient; answer with [`Answer::Recipient`].
    ExpandRecipient(Box<ExpandRecipient>),
    /// Write all output before the next poll: the client sends without reading.
    Flush,
    /// Write this to the log.
    Log(LogEvent),
    /// Lease a message id; answer with [`Answer::MessageId`].
    NewMessageId(RequestId),
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
    /// What became of a commit.
    Commit(RequestId, Result<(), Refusal>),
    /// The client's name by reverse look-up; `None` without one.
    Hostname(Option<String>),
    /// A message id, or why there is none.
    MessageId(RequestId, Result<Lease, Refusal>),
    /// The routes of a recipient.
    Recipient(RequestId, Expansion),
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
}
