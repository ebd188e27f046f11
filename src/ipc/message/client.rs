//! What `smtpctl` and the control role say to each other over the control socket.
//!
//! The client says [`Request::Hello`], gets [`Reply::Welcome`] or [`Reply::Incompatible`], and then
//! sends one request at a time. A request ends with exactly one reply whose
//! [`Reply::is_final`] is true; listings and bodies come in pieces before it. Every piece fits a
//! frame ([`limits::FRAME`]). Formatting for people is the client's: the wire has values.
//!
//! Anybody may connect. What a client may ask depends on its user id, as the kernel tells it
//! ([`crate::control::permission::may`]).
//!
//! Sources: the queue page of the specification, 6.2 to 6.5 and 8. The protocol is our own.

use serde::{Deserialize, Serialize};

pub use super::scheduler::{HoldReason, Unfit};
use crate::model::envelope::Source;
use crate::model::{DeliveryKind, Envelope, EnvelopeId, MessageId, limits};

/// Version of this protocol. A client of another version is told so and sent away.
pub const VERSION: u32 = 2;

/// Bytes of a listing or body gathered before they are sent as one piece; leaves room in a frame
/// for the largest single entry.
pub const PIECE: usize = limits::FRAME / 2;

/// What a client may ask.
///
/// The first variant and its field stay as they are for ever, so that any two versions can tell
/// each other apart.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Request {
    /// The first request of a connection.
    Hello {
        /// [`VERSION`] of the client.
        version: u32,
    },
    /// A local SMTP session. Answered by [`Reply::Session`], [`Reply::SubmissionRefused`] or
    /// [`Reply::Busy`]. The only request that anybody may make.
    OpenSession,
    /// Changes envelopes that wait in the queue. Answered by [`Reply::Count`].
    Change {
        /// What is to happen to them.
        change: Change,
        /// Which ones.
        selection: Selection,
    },
    /// The envelopes in the queue, in the order of their ids. Answered by any number of
    /// [`Reply::Listing`], then [`Reply::Done`], or [`Reply::Incomplete`] while the queue still reads
    /// its spool.
    List {
        /// Those of this message only.
        message: Option<MessageId>,
    },
    /// One envelope. Answered by [`Reply::Envelope`] or [`Reply::NotFound`].
    ShowEnvelope(EnvelopeId),
    /// A message as stored. Answered by any number of [`Reply::Bytes`], then [`Reply::Done`]; by
    /// [`Reply::File`]; or by [`Reply::NotFound`].
    ShowMessage(MessageId),
    /// Counters. Answered by any number of [`Reply::Statistics`], then [`Reply::Done`].
    ShowStatistics,
    /// What is paused. Answered by [`Reply::Status`].
    ShowStatus,
    /// Stops a service from taking up work. [`Reply::Failed`] if it is paused already.
    Pause(Service),
    /// Reads the configuration again. [`Reply::Failed`] leaves the present one in use.
    Reload,
    /// Lets a paused service go on. [`Reply::Failed`] if it is not paused.
    Resume(Service),
    /// Sets how much is logged.
    SetVerbosity(Verbosity),
    /// Ends the server in order. [`Reply::Done`] means that it has begun to end.
    Stop,
    /// Reads a table again. [`Reply::Failed`] leaves it as it is.
    UpdateTable {
        /// Its name.
        name: String,
    },
}

/// What may happen to envelopes that wait in the queue.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Change {
    /// Not tried until resumed.
    Pause,
    /// Removed without a report.
    Remove,
    /// Tried again as before.
    Resume,
    /// Tried now.
    Schedule,
}

/// Some envelopes of the queue.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Selection {
    /// All of them.
    All,
    /// One.
    Envelope(EnvelopeId),
    /// Those of one message.
    Message(MessageId),
}

/// A service that can be paused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Service {
    /// Local deliveries.
    Mda,
    /// Deliveries to other servers.
    Mta,
    /// Accepting mail.
    Smtp,
}

impl Service {
    /// Its name in commands and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mda => "mda",
            Self::Mta => "mta",
            Self::Smtp => "smtp",
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Verbosity {
    /// What an administrator reads.
    Brief,
    /// Also what a developer reads.
    Verbose,
}

/// What the control role answers.
///
/// The first two variants and their fields stay as they are for ever.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Reply {
    /// The versions agree.
    Welcome,
    /// They do not; the connection ends.
    Incompatible {
        /// [`VERSION`] of the server.
        version: u32,
    },
    /// The request needs another user. The connection goes on.
    Denied,
    /// The request was done, or a listing is complete.
    Done,
    /// It was understood and could not be done.
    Failed,
    /// What was asked for is not there.
    NotFound,
    /// The part of the server that has to do it is being restarted.
    Unavailable,
    /// A local SMTP session; *carries a descriptor*, a connected stream socket.
    Session,
    /// Mail is not accepted at the moment: `smtpctl pause smtp`.
    SubmissionRefused,
    /// No room for another session.
    Busy,
    /// Number of envelopes that were changed.
    Count(u64),
    /// A piece of the queue.
    Listing(Vec<ListedEnvelope>),
    /// A listing ends here, and more is in the spool than was listed.
    Incomplete,
    /// One envelope.
    Envelope {
        /// What is stored.
        envelope: Box<Envelope>,
        /// Where the scheduler has it; `None` if it does not know of it, or cannot say now.
        place: Option<Place>,
    },
    /// A piece of a message, in order.
    Bytes(Vec<u8>),
    /// A message; *carries a descriptor*, open for reading.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// Some counters.
    Statistics(Vec<Statistic>),
    /// What is paused.
    Status(Status),
}

impl Reply {
    /// Whether it ends its request.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Listing(_) | Self::Bytes(_) | Self::Statistics(_))
    }
}

/// One line of the queue's listing: what the queue stores, and what the scheduler does with it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedEnvelope {
    /// What is stored.
    pub summary: Summary,
    /// Where the scheduler has it.
    pub place: Place,
}

/// What a listing tells of an envelope as stored.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// Its number.
    pub id: EnvelopeId,
    /// Where the message came from.
    pub family: Family,
    /// How it is delivered.
    pub kind: ListedKind,
    /// The session was authenticated or local.
    pub authenticated: bool,
    /// Result of an expansion that rules treat as local.
    pub internal: bool,
    /// Sender; empty for the null sender.
    pub sender: String,
    /// The address given in RCPT.
    pub recipient: String,
    /// The address after aliases.
    pub destination: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When the last attempt ended, in seconds since 1970; 0 for never.
    pub last_try: i64,
    /// Number of failed attempts.
    pub retries: u16,
    /// Text of the last failure.
    pub error: String,
    /// Name of its action.
    pub action: String,
}

/// Where the scheduler has an envelope.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// Whether it waits or is being delivered.
    pub state: ListedState,
    /// When it is given up, in seconds since 1970.
    pub expires: i64,
    /// It waits for its destination to have room, or for the reason below to end.
    pub held: bool,
    /// Why it is held, if not for its destination.
    pub reason: Option<HoldReason>,
    /// An administrator paused it.
    pub suspended: bool,
}

/// Where a listed message came from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Family {
    /// IPv4.
    Inet4,
    /// IPv6.
    Inet6,
    /// The control socket.
    Local,
}

impl From<Source> for Family {
    fn from(source: Source) -> Self {
        match source {
            Source::Ip(address) if address.is_ipv4() => Self::Inet4,
            Source::Ip(_) => Self::Inet6,
            Source::Local => Self::Local,
        }
    }
}

/// How a listed envelope is delivered.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ListedKind {
    /// It is a report to the sender.
    Bounce,
    /// Locally.
    Mda,
    /// To another server.
    Mta,
}

impl From<&DeliveryKind> for ListedKind {
    fn from(kind: &DeliveryKind) -> Self {
        match kind {
            DeliveryKind::Bounce(_) => Self::Bounce,
            DeliveryKind::Local(_) => Self::Mda,
            DeliveryKind::Relay => Self::Mta,
        }
    }
}

/// What the scheduler is doing with a listed envelope.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ListedState {
    /// Being delivered, for this many seconds.
    InFlight(i64),
    /// Waiting for this many more seconds; negative when it is overdue.
    Pending(i64),
}

impl From<&Envelope> for Summary {
    fn from(envelope: &Envelope) -> Self {
        Self {
            id: envelope.id,
            family: envelope.origin.source.into(),
            kind: (&envelope.route.kind).into(),
            authenticated: envelope.origin.authenticated,
            internal: envelope.route.internal,
            sender: envelope.origin.sender.as_str().to_owned(),
            recipient: envelope.route.recipient.as_str().to_owned(),
            destination: envelope.route.destination.as_str().to_owned(),
            created: envelope.progress.created,
            last_try: envelope.progress.last_try,
            retries: envelope.progress.retries,
            error: envelope.progress.error.clone(),
            action: envelope.route.action.clone(),
        }
    }
}

impl Summary {
    /// About how many bytes its line takes in a frame, never less than it does.
    #[must_use]
    pub fn weight(&self) -> usize {
        // Numbers of at most ten bytes each, flags, the lengths of the texts, and a place.
        let fixed = 96;
        let texts = [&self.sender, &self.recipient, &self.destination, &self.error, &self.action];
        fixed + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// A counter or gauge.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Statistic {
    /// Its name, dotted lower-case words.
    pub name: String,
    /// Its value.
    pub value: i64,
}

/// What is paused, and what the server lacks on this system.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// Local deliveries are paused.
    pub mda_paused: bool,
    /// Deliveries to other servers are paused.
    pub mta_paused: bool,
    /// Accepting is paused.
    pub smtp_paused: bool,
    /// What confinement the system does not offer, and envelopes that wait for an administrator;
    /// a sentence each.
    pub notices: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_the_same_bytes_in_every_version() {
        let hello = postcard::to_stdvec(&Request::Hello { version: 1 }).unwrap();
        assert_eq!(hello, [0, 1]);
        let replies = [(Reply::Welcome, &[0][..]), (Reply::Incompatible { version: 2 }, &[1, 2])];
        for (reply, bytes) in replies {
            assert_eq!(postcard::to_stdvec(&reply).unwrap(), bytes, "{reply:?}");
        }
    }

    #[test]
    fn a_listed_envelope_never_weighs_less_than_its_bytes() {
        let texts = ["", "a@b.example", &"x".repeat(2047)];
        for text in texts {
            for number in [0, i64::MIN, i64::MAX] {
                let summary = Summary {
                    id: EnvelopeId::new(u64::MAX).unwrap(),
                    family: Family::Inet6,
                    kind: ListedKind::Mta,
                    authenticated: true,
                    internal: true,
                    sender: text.to_owned(),
                    recipient: text.to_owned(),
                    destination: text.to_owned(),
                    created: number,
                    last_try: number,
                    retries: u16::MAX,
                    error: text.to_owned(),
                    action: text.to_owned(),
                };
                let weight = summary.weight();
                let place = Place {
                    state: ListedState::Pending(number),
                    expires: number,
                    held: true,
                    reason: Some(HoldReason::Unfit(Unfit::ActionChanged)),
                    suspended: true,
                };
                let listed = ListedEnvelope { summary, place };
                let bytes = postcard::to_stdvec(&listed).unwrap();
                assert!(bytes.len() <= weight, "{} {number}", text.len());
                assert!(bytes.len() < limits::FRAME - PIECE);
            }
        }
    }
}
