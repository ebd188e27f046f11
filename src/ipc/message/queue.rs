//! Between dispatcher and queue: taking mail in, giving it out, outcomes.

use serde::{Deserialize, Serialize};

use super::scheduler::HoldRelease;
use super::worker::Identity;
use crate::ipc::blob::Blob;
use crate::ipc::seal::Sealed;
use crate::model::envelope::{Origin, RecipientDsn};
use crate::model::outcome::Outcome;
use crate::model::{Envelope, EnvelopeId, Mailbox, MessageId};

/// What the dispatcher says to the queue.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum DispatcherToQueue {
    /// Envelopes of a commit that do not fit into its own frame, sent before it (notice).
    AddEnvelopes {
        /// The message.
        message: MessageId,
        /// Some of its envelopes.
        envelopes: Vec<NewEnvelope>,
    },
    /// Make a message durable (request; answered by [`QueueToDispatcher::Committed`] after the
    /// sync that covers it).
    Commit {
        /// The message.
        message: MessageId,
        /// The transaction that the routes are bound to.
        transaction: u64,
        /// Facts of the session, and the sender.
        origin: Box<Origin>,
        /// How many envelopes it has in all, those sent before it included.
        total: u32,
        /// Its envelopes, or the last of them.
        envelopes: Vec<NewEnvelope>,
        /// The message itself.
        body: CommitBody,
    },
    /// Give back what was announced for a message that will not be committed (notice).
    Forget {
        /// The message.
        message: MessageId,
    },
    /// More unused message ids (request; answered by [`QueueToDispatcher::Leased`]).
    LeaseIds {
        /// How many, at most [`crate::model::limits::LEASED_IDS`].
        count: u32,
    },
    /// The body of a message in the dispatcher's hands (request; answered by
    /// [`QueueToDispatcher::Body`]).
    LoadBody {
        /// The message; one of its envelopes must be in flight.
        message: MessageId,
        /// Where to begin, in bytes.
        offset: u64,
    },
    /// A piece of a report in the dispatcher's hands (request; answered by
    /// [`QueueToDispatcher::Body`]).
    LoadReport {
        /// Number of the report.
        report: u64,
        /// Where to begin, in bytes.
        offset: u64,
    },
    /// A file for a large body (request; answered by [`QueueToDispatcher::Opened`]).
    OpenMessage {
        /// The message.
        message: MessageId,
    },
    /// An envelope was not taken: its relay or user is busy (reply to
    /// [`QueueToDispatcher::Deliver`]).
    Held {
        /// Number of the hold queue in which it waits.
        hold_queue: u64,
    },
    /// What came of a delivery (reply to [`QueueToDispatcher::Deliver`] and
    /// [`QueueToDispatcher::Report`]).
    Outcome(Outcome),
    /// Envelopes may leave a hold queue (notice).
    Released {
        /// Number of the hold queue.
        hold_queue: u64,
        /// Which of them.
        release: HoldRelease,
    },
    /// A host took mail again: these envelopes, deferred for it, are due now (notice).
    Retry(Vec<EnvelopeId>),
}

/// An envelope to commit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NewEnvelope {
    /// Low half of its id, non-zero.
    pub low: u32,
    /// A [`super::lookup::SealedRoute`].
    pub route: Sealed,
    /// What the client asked to be told.
    pub dsn: RecipientDsn,
}

/// The body of a message to commit.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum CommitBody {
    /// In the file that was opened for it.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// Here.
    Inline(Blob),
}

/// What the queue says to the dispatcher.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum QueueToDispatcher {
    /// A body, or a piece of it (reply).
    Body(BodyPiece),
    /// What came of a commit (reply).
    Committed(Result<(), Refusal>),
    /// Deliver an envelope (request; answered by [`DispatcherToQueue::Outcome`]).
    Deliver(Box<Delivery>),
    /// Unused message ids (reply).
    Leased(Vec<MessageId>),
    /// A file, open for writing (reply, carries a descriptor if it went well).
    Opened(Result<(), Refusal>),
    /// Submit a report of ours (request; answered by [`DispatcherToQueue::Outcome`]).
    Report(Report),
}

/// A body as the queue has it.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum BodyPiece {
    /// The message is gone, or may not be read now.
    Absent,
    /// What is stored cannot be read, now or later.
    Damaged,
    /// In a file; the reply carries its descriptor, open for reading.
    Descriptor {
        /// Its length in bytes.
        size: u64,
    },
    /// A piece.
    Inline {
        /// Length of the whole in bytes.
        size: u64,
        /// From the offset that was asked for; empty only at the end.
        bytes: Blob,
    },
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Refusal {
    /// The disk failed, or the queue is not taking mail.
    Failed,
    /// A seal was forged, or the request is not allowed now.
    Forbidden,
    /// The disk is full: 452 4.3.1.
    Full,
    /// Not durable within the deadline: 451.
    Late,
}

/// An envelope to deliver.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Delivery {
    /// The envelope.
    pub envelope: Envelope,
    /// Length of its message in bytes.
    pub size: u64,
    /// For a local delivery: who delivers, and the sealed [`super::worker::JobRecord`].
    pub ticket: Option<(Identity, Sealed)>,
}

/// A report of ours to submit: a message from `<>`.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Its number.
    pub report: u64,
    /// Name to say in EHLO.
    pub smtp_name: String,
    /// Whom it is for: the sender of what it is about.
    pub recipient: Mailbox,
    /// Its length in bytes.
    pub size: u64,
}
