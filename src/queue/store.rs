//! What the queue asks of a message store, whatever keeps the bytes.
//!
//! A store keeps messages (a body and the envelopes that share it) from the moment their sender is
//! told `250` until every envelope has ended. It does not interpret envelopes: an envelope is an id
//! and an opaque payload. It knows no clock but the deadlines that it is handed, schedules nothing
//! and writes no log lines: what an administrator must know comes as an [`Event`].
//!
//! No call blocks. A [`Completion`] runs once, on a thread of the store: it should do no more than
//! hand its value over and wake the owner.
//!
//! Limits: a payload of at most [`MAX_PAYLOAD`] bytes, an inline body of at most [`MAX_INLINE`]
//! bytes (longer ones go through [`Store::open_large`]), a message with all its envelopes of at most
//! [`MAX_COMMIT`] bytes without a large body.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use crate::model::id::{EnvelopeId, MessageId};

/// Longest envelope payload, bytes.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// Longest body that travels inside a [`Commit`], bytes; above it a body is a file of its own.
pub const MAX_INLINE: usize = 128 * 1024;

/// Most bytes of one [`Commit`]: body and payloads together, with 64 bytes an envelope added.
pub const MAX_COMMIT: usize = 48 * 1024 * 1024;

/// Receives the outcome of one request, once, on a thread of the store.
pub type Completion<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Why a request failed; a variant names what its sender can do about it.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is closing; nothing was done.
    #[error("the spool is closing")]
    Closed,
    /// What is stored cannot be read; a copy was put aside. Trying again does not help.
    #[error("{id} is damaged: {reason}")]
    Corrupt {
        /// The envelope or message, as printed.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The id is in use already; nothing was done.
    #[error("the id is in use")]
    Duplicate,
    /// The commit was not durable at its deadline: the peer sees 451, and the log cancels it.
    #[error("not durable in time")]
    Expired,
    /// The log cannot be written: the peer sees 452 4.3.0, the session stays open.
    #[error("the spool cannot be written")]
    Failing,
    /// Too little space or too few inodes: the peer sees 452 4.3.1, the session stays open.
    #[error("the spool is full")]
    Full,
    /// A request to the system failed; this request alone.
    #[error("spool: {0}")]
    Io(Arc<std::io::Error>),
    /// Another process holds the spool's lock.
    #[error("another process uses this spool")]
    Locked,
    /// No such envelope or message, or it has ended.
    #[error("no such envelope or message")]
    NotFound,
    /// Above a limit of this module.
    #[error("larger than the spool takes")]
    TooLarge,
    /// The spool was written by a newer or foreign version; nothing was touched.
    #[error("{0}")]
    Unsupported(String),
}

impl StoreError {
    /// Whether the same request may succeed later (a peer sees 4xx, not 5xx).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Closed
            | Self::Expired
            | Self::Failing
            | Self::Full
            | Self::Io(_)
            | Self::Locked => true,
            Self::Corrupt { .. }
            | Self::Duplicate
            | Self::NotFound
            | Self::TooLarge
            | Self::Unsupported(_) => false,
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// An envelope to be stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewEnvelope {
    /// Its id; the high half is the message's.
    pub id: EnvelopeId,
    /// What the queue knows about it, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// An envelope as it is stored now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEnvelope {
    /// Its id.
    pub id: EnvelopeId,
    /// Its newest payload.
    pub payload: Vec<u8>,
    /// Whether it was put on hold with [`Store::hold`].
    pub held: bool,
}

/// A large body being written: made by [`Store::open_large`], given back in a [`Commit`] or to
/// [`Store::discard_large`].
#[derive(Debug, Eq, PartialEq)]
pub struct LargeTicket {
    /// The message it was opened for.
    pub(crate) message: MessageId,
    /// The second half of its name.
    pub(crate) sequence: u64,
}

impl LargeTicket {
    /// The message that this body was opened for.
    #[must_use]
    pub fn message(&self) -> MessageId {
        self.message
    }
}

/// A message's bytes on their way in, LF line ends.
#[derive(Debug)]
pub enum Body {
    /// At most [`MAX_INLINE`] bytes.
    Inline(Vec<u8>),
    /// Written to the file that [`Store::open_large`] gave.
    Large {
        /// Which file.
        ticket: LargeTicket,
        /// How many bytes its writer wrote; the commit is refused if the file has another length.
        size: u64,
    },
}

/// A message's bytes on their way out.
#[derive(Debug)]
pub enum StoredBody {
    /// The whole body.
    Inline(Vec<u8>),
    /// A file of its own, open for reading only, at offset 0.
    Large {
        /// The file.
        file: File,
        /// Its length, bytes.
        size: u64,
    },
}

/// A message to be made durable with all its envelopes, or not at all.
#[derive(Debug)]
pub struct Commit {
    /// Its id, one of those leased.
    pub message: MessageId,
    /// Its bytes.
    pub body: Body,
    /// Its envelopes: at least one, each with the message's id in its high half.
    pub envelopes: Vec<NewEnvelope>,
    /// When its sender stops waiting (30 s after the end of its data): from then on the answer is
    /// [`StoreError::Expired`] and the message is gone.
    pub deadline: Instant,
}

impl Commit {
    /// Checks the limits of this module.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for sizes, [`StoreError::NotFound`] for no envelope or one of
    /// another message, [`StoreError::Duplicate`] for two envelopes with one id.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let body = match &self.body {
            Body::Inline(bytes) if bytes.len() > MAX_INLINE => return Err(StoreError::TooLarge),
            Body::Inline(bytes) => bytes.len(),
            Body::Large { ticket, .. } if ticket.message != self.message => {
                return Err(StoreError::NotFound);
            }
            Body::Large { .. } => 0,
        };
        check_envelopes(self.message, &self.envelopes)?;
        let all: usize = self.envelopes.iter().map(|new| new.payload.len() + 64).sum();
        if body + all > MAX_COMMIT {
            return Err(StoreError::TooLarge);
        }
        if self.envelopes.is_empty() { Err(StoreError::NotFound) } else { Ok(()) }
    }
}

/// Checks that envelopes are of one message, differ, and are not too large.
pub(crate) fn check_envelopes(
    message: MessageId,
    envelopes: &[NewEnvelope],
) -> Result<(), StoreError> {
    if envelopes.iter().any(|new| new.payload.len() > MAX_PAYLOAD) {
        return Err(StoreError::TooLarge);
    }
    if envelopes.iter().any(|new| new.id.message() != message) {
        return Err(StoreError::NotFound);
    }
    let mut ids: Vec<_> = envelopes.iter().map(|new| new.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(StoreError::Duplicate);
    }
    Ok(())
}

/// Checks an envelope's new payload, and envelopes that begin with it.
pub(crate) fn check_extension(update: &NewEnvelope, new: &[NewEnvelope]) -> Result<(), StoreError> {
    if update.payload.len() > MAX_PAYLOAD {
        return Err(StoreError::TooLarge);
    }
    if new.iter().any(|new| new.id == update.id) {
        return Err(StoreError::Duplicate);
    }
    check_envelopes(update.id.message(), new)
}

/// A large body that may be written now.
#[derive(Debug)]
pub struct LargeWriter {
    /// Empty, open for writing.
    pub file: File,
    /// To be given back.
    pub ticket: LargeTicket,
}

/// Where an iteration stands; it lists what was stored when it began and is still there.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// Ids not yet listed, in the order of their place on the disk; `None` before the first page.
    pub(crate) rest: Option<Arc<[EnvelopeId]>>,
    /// How many of them are done.
    pub(crate) position: usize,
}

impl Cursor {
    /// The beginning.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }
}

/// Some stored envelopes.
#[derive(Debug)]
pub struct Page {
    /// At most as many as asked for; an unreadable one is left out and reported as an [`Event`].
    pub envelopes: Vec<StoredEnvelope>,
    /// Where to go on; `None` after the last page.
    pub next: Option<Cursor>,
}

/// What the store can do at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// Everything.
    #[default]
    Accepting,
    /// The log cannot be written: no commits; delivery goes on, outcomes are kept in memory.
    Failing,
    /// No commits for want of space; outcomes are still written.
    Full,
    /// Not even outcomes can be written for want of space: delivery must stop.
    Stopped,
}

/// What the owner should tell the administrator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The store's health changed.
    Health(Health),
    /// Damage below what was known to be durable: said as `warn: quarantined ID: REASON`.
    Quarantined {
        /// An envelope, a message, or a segment with an offset.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Recovery is complete: leases are granted, iteration lists everything.
    Recovered {
        /// Live envelopes.
        envelopes: u64,
        /// Live messages.
        messages: u64,
    },
    /// The spool cannot be used at all: nothing was touched, every request is answered
    /// [`StoreError::Closed`], the process should say why and leave.
    Unusable(String),
    /// A batch that was being written when the process or the system ended; said at info.
    Torn {
        /// The segment.
        segment: u64,
        /// Offset of the first byte that is not a record.
        offset: u64,
    },
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Live envelopes.
    pub envelopes: u64,
    /// Live messages.
    pub messages: u64,
    /// Live bytes in the log: newest payloads and inline bodies.
    pub live_bytes: u64,
    /// Bytes that the log takes on the disk, without the reserve.
    pub log_bytes: u64,
    /// Segments on the disk.
    pub segments: u64,
    /// Batches written since the start.
    pub batches: u64,
    /// Records written since the start.
    pub records: u64,
    /// Bytes written to segments since the start, compaction included.
    pub written_bytes: u64,
    /// Bytes of those that compaction wrote.
    pub compacted_bytes: u64,
    /// Failed writes and syncs since the start.
    pub failures: u64,
    /// Memory of the index, bytes.
    pub index_bytes: u64,
    /// What the store can do.
    pub health: Health,
}

/// Keeps messages until all their envelopes have ended.
///
/// Requests on one envelope are carried out in the order in which they were made. An envelope made
/// by [`commit`](Store::commit), [`extend`](Store::extend) or [`replace`](Store::replace) may be
/// named once its completion ran.
pub trait Store: Send {
    /// Asks for `count` ids unlike every id stored or leased since the start; answered when
    /// recovery knows them all.
    fn lease_ids(&mut self, count: usize, done: Completion<Vec<MessageId>>);

    /// Makes a message durable; `done` runs after the sync that covers it.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Failing`], [`StoreError::Expired`],
    /// [`StoreError::Duplicate`], [`StoreError::TooLarge`], [`StoreError::Io`] (a large body that
    /// is not as said).
    fn commit(&mut self, commit: Commit, done: Completion<()>);

    /// Replaces an envelope's payload; `done` runs when that is durable.
    fn update(&mut self, envelope: EnvelopeId, payload: Vec<u8>, done: Completion<()>);

    /// Replaces an envelope's payload and begins others of the same message (a report of its delay)
    /// in one step; `done` runs when that is durable.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if one of `new` is there already, [`StoreError::NotFound`] if the
    /// updated one is not, and those of [`commit`](Store::commit) but [`StoreError::Expired`].
    fn extend(&mut self, update: NewEnvelope, new: Vec<NewEnvelope>, done: Completion<()>);

    /// Ends an envelope. It is written with the next batch, at most 200 ms later; losing it
    /// repeats a delivery. The message goes with its last envelope.
    fn done(&mut self, envelope: EnvelopeId);

    /// Ends an envelope and begins others of the same message (a bounce, forwarded ones) in one
    /// step; `done` runs when that is durable.
    fn replace(&mut self, end: EnvelopeId, new: Vec<NewEnvelope>, done: Completion<()>);

    /// Sets or lifts an envelope's hold; `done` runs when that is durable.
    fn hold(&mut self, envelope: EnvelopeId, held: bool, done: Completion<()>);

    /// Ends an envelope as [`done`](Store::done) does, but durably before `done` runs.
    fn remove(&mut self, envelope: EnvelopeId, done: Completion<()>);

    /// Reads an envelope.
    fn load_envelope(&mut self, envelope: EnvelopeId, done: Completion<StoredEnvelope>);

    /// Reads a message's body and checks its CRC.
    fn load_body(&mut self, message: MessageId, done: Completion<StoredBody>);

    /// Opens a file for a body above [`MAX_INLINE`].
    fn open_large(&mut self, message: MessageId, done: Completion<LargeWriter>);

    /// Gives up a large body that will not be committed.
    fn discard_large(&mut self, ticket: LargeTicket);

    /// Reads at most `limit` envelopes from `cursor` on; answered when recovery is complete.
    fn iterate(&mut self, cursor: Cursor, limit: usize, done: Completion<Page>);

    /// Whether the envelope is stored and has not ended.
    fn known(&self, envelope: EnvelopeId) -> bool;

    /// The figures now.
    fn statistics(&self) -> Statistics;

    /// To be called about once a second: answers commits past their deadline, looks at free space,
    /// tries a failing log again.
    fn tick(&mut self, now: Instant);

    /// Writes what is still in memory, syncs, and leaves. Requests not yet answered are answered.
    /// The only call that waits for the disk.
    fn shutdown(self: Box<Self>);
}
