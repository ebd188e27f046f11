//! What goes into the scheduler and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{EnvelopeId, MessageId};

/// Longest name of a destination that is kept, in bytes; longer ones are cut.
pub const MAX_DESTINATION: usize = 300;

/// How an envelope is delivered: each kind has retries of its own and can be paused alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A delivery report, injected as a new message.
    Bounce,
    /// To a local mailbox or command (`mda`).
    Local,
    /// To another server (`mta`).
    Relay,
}

/// An envelope as the scheduler needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Due<'a> {
    /// Its number.
    pub id: EnvelopeId,
    /// How the current configuration delivers it.
    pub kind: Kind,
    /// What envelopes are released together by: a domain, a user. At most [`MAX_DESTINATION`]
    /// bytes count.
    pub destination: &'a str,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// How long the current configuration tries it; saturates at 136 years.
    pub ttl: Duration,
    /// Temporary failures so far.
    pub retries: u16,
    /// Threshold of the last delay warning, in seconds since 1970, 0 for none.
    pub last_bounce: i64,
    /// Whether the queue has released its first attempt already.
    pub in_flight: bool,
    /// Why it may not run, if it may not.
    pub blocked: Option<Block>,
}

/// What is to be done with the envelopes of a [`Batch`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Work {
    /// Try to deliver.
    Deliver(Kind),
    /// Give up: failure report, status 5.4.7, `Envelope expired`.
    Expire,
    /// End without a report: an administrator removed it.
    Remove,
}

/// Envelopes released together. Each is in flight until its outcome is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// What is to be done.
    pub work: Work,
    /// The destination that all of them have; empty for [`Work::Expire`] and [`Work::Remove`],
    /// which mix destinations.
    pub destination: Arc<str>,
    /// The envelopes, first come first.
    pub envelopes: Vec<EnvelopeId>,
}

/// How an envelope in flight ended for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Delivered, or taken over by the next server.
    Delivered,
    /// Given up at its expiry, and the report is durable.
    Expired,
    /// Given up: it went round in circles.
    Loop,
    /// Given up: permanent failure.
    Permanent,
    /// Removed by an administrator.
    Removed,
}

/// What a temporary failure led to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deferred {
    /// Temporary failures so far, this one included: to be stored.
    pub retries: u16,
    /// A delay report that is to be sent now, naming this delay. `last_bounce` becomes
    /// `created` plus this, also if the report has nowhere to go.
    pub warn: Option<Duration>,
}

/// Why an envelope may not run. Several reasons can hold at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Block {
    /// An administrator paused it.
    Administrator,
    /// The configuration has no action of its name.
    NoAction,
    /// The action of its name is of another kind.
    OtherAction,
    /// It was in flight when roles crashed.
    Suspect,
}

/// A hold queue: of one relay or one user, as the dispatcher numbers them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HoldQueue(pub u64);

/// How many envelopes a hold queue gives back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// All, to run now.
    All,
    /// All, to be tried again later: their relay failed.
    Failed,
    /// At most this many, to run now.
    Some(usize),
}

/// What an administrator asks for (`smtpctl`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Keep from running.
    Pause,
    /// End without a report.
    Remove,
    /// Let run again.
    Resume,
    /// Run now, once.
    Schedule,
}

/// Which envelopes an administrator means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// Every envelope.
    All,
    /// One envelope.
    Envelope(EnvelopeId),
    /// All envelopes of a message.
    Message(MessageId),
}

/// Bounds and intervals that the configuration sets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Envelopes in flight from which on nothing is released (`scheduler limit max-inflight`).
    pub max_inflight: usize,
    /// Envelopes of one kind and destination released in one turn (`max-schedule`), at least 1.
    pub max_schedule: usize,
    /// Envelopes that were tried before, or are overdue, released a second, at least 1.
    pub overdue_per_second: u32,
    /// Delays that the sender is told about, at most four (`bounce warn-interval`).
    pub warn_intervals: Vec<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_inflight: 5000,
            max_schedule: 10,
            overdue_per_second: 1000,
            warn_intervals: vec![Duration::from_secs(4 * 3600)],
        }
    }
}

/// What `smtpctl show queue` tells of one envelope beyond what is stored of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Its number.
    pub id: EnvelopeId,
    /// How it is delivered.
    pub kind: Kind,
    /// Temporary failures so far.
    pub retries: u16,
    /// Whether and since when, or in how many seconds, it runs.
    pub state: State,
    /// Seconds until it expires; negative if that is past.
    pub expires_in: i64,
    /// Whether it waits in a hold queue.
    pub held: bool,
    /// Whether an administrator paused it (`suspend`).
    pub suspended: bool,
    /// Why else it may not run.
    pub blocked: Option<Block>,
}

/// Where an envelope is on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Running for this many seconds.
    InFlight(i64),
    /// Waiting for this many seconds more; zero or less if it only waits for its turn.
    Pending(i64),
}

/// Counters and gauges, with the names that `smtpctl show stats` gives them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// `scheduler.delivery.ok`
    pub delivered: u64,
    /// `scheduler.delivery.loop`
    pub looped: u64,
    /// `scheduler.delivery.permfail`
    pub permanent: u64,
    /// `scheduler.delivery.tempfail`
    pub temporary: u64,
    /// `scheduler.envelope.expired`
    pub expired: u64,
    /// `scheduler.envelope.removed`
    pub removed: u64,
    /// `scheduler.envelope.updated`
    pub updated: u64,
    /// `scheduler.ramqueue.hold-overflow`
    pub hold_overflow: u64,
    /// `scheduler.envelope`, `scheduler.ramqueue.envelope`
    pub envelopes: usize,
    /// `scheduler.envelope.inflight`
    pub in_flight: usize,
    /// `scheduler.ramqueue.hold`
    pub held: usize,
    /// `scheduler.ramqueue.holdq`
    pub hold_queues: usize,
}
