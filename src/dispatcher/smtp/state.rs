//! The states of a session, and what leads from one to the next.

use std::borrow::Cow;

use super::action::{Action, FilterQuestion, RequestId};
use super::chunking::Incoming;
use super::filtered_body::FilteredBody;
use crate::filter::Phase;
use crate::message::{Fault, Pipeline};
use crate::model::envelope::RecipientDsn;
use crate::model::{EnvelopeId, Mailbox, MessageId, ReversePath};
use crate::proto::parameter::MailParameters;
use crate::proto::sasl::Exchange;

/// An accepted HELO or EHLO.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) name: Box<str>,
    pub(super) extended: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum State {
    /// The verdict on credentials.
    Authenticating { request: RequestId, exchange: Box<Exchange> },
    /// The banner.
    Banner,
    /// Message content.
    Body(Box<Pipeline>),
    /// Whether the user may send from an address.
    CheckingSender { request: RequestId, mail: Box<Mail> },
    /// Message content of a known length.
    Chunk(Incoming),
    /// Nothing.
    Closed,
    /// A command line.
    Command,
    /// The answer to a commit.
    Committing { request: RequestId, message: Box<Committing> },
    /// A line of an exchange that AUTH has begun.
    Exchanging(Box<Exchange>),
    /// The answer about a recipient.
    Expanding { request: RequestId, recipient: Box<(Mailbox, RecipientDsn)> },
    /// Message content that goes through filters.
    FilteredBody(Box<FilteredBody>),
    /// What the filters decide.
    Filtering {
        request: RequestId,
        phase: Phase,
        /// The question, until it is asked: behind the events before it.
        question: Option<Box<FilterQuestion>>,
        then: AfterFilters,
    },
    /// The number of a new message.
    Leasing { request: RequestId, mail: Box<Mail> },
    /// The client's name, before a message can begin.
    Naming { mail: Box<Mail> },
    /// The outcome of the TLS handshake.
    Handshaking,
    /// The filters of the listener, before anything is said.
    Opening { request: Option<RequestId> },
    /// The end of a command line that is too long, of which this many bytes were dropped.
    Overlong { dropped: usize },
    /// The reply to STARTTLS, then the handshake.
    Securing,
    /// The verifier of a user.
    Verifying { request: RequestId, exchange: Box<Exchange> },
}

impl State {
    /// Whether an answer must come first.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(
            self,
            Self::Authenticating { .. }
                | Self::CheckingSender { .. }
                | Self::Committing { .. }
                | Self::Expanding { .. }
                | Self::Handshaking
                | Self::Filtering { .. }
                | Self::Leasing { .. }
                | Self::Naming { .. }
                | Self::Opening { .. }
                | Self::Verifying { .. }
        )
    }
}

/// What goes on when the filters let it.
#[derive(Clone, Copy, Debug)]
pub(super) enum AfterFilters {
    /// The banner.
    Banner,
    /// The command whose line is kept.
    Command,
    /// The end of a message, with what was wrong with it.
    Commit(Option<Fault>),
}

/// An accepted MAIL command.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) sender: ReversePath,
    pub(super) parameters: MailParameters,
}

/// What is logged once a commit is answered.
#[derive(Debug)]
pub(super) struct Committing {
    pub(super) id: MessageId,
    pub(super) size: u64,
    pub(super) sender: ReversePath,
    pub(super) recipients: Vec<(EnvelopeId, Mailbox)>,
}

/// What a command leads to.
pub(super) enum Outcome {
    /// This action; the state waits for its answer.
    Ask(Action),
    /// This reply, and the end of the session.
    Close(Cow<'static, str>),
    /// Nothing more: the replies are written, or the state waits.
    Done,
    /// This reply.
    Reply(Cow<'static, str>),
}

impl From<&'static str> for Outcome {
    fn from(line: &'static str) -> Self {
        Self::Reply(Cow::Borrowed(line))
    }
}
