//! Between queue and scheduler, and between control and scheduler.

use serde::{Deserialize, Serialize};

use crate::model::{EnvelopeId, MessageId};

/// What the scheduler keeps of an envelope.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Due {
    /// The envelope.
    pub id: EnvelopeId,
    /// Which kind of delivery.
    pub kind: DueKind,
    /// What deliveries are batched by: domain, smarthost or user.
    pub destination: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// How long it may stay, in seconds.
    pub ttl: u64,
    /// Number of temporary failures.
    pub retries: u16,
    /// Threshold of the last delay warning, in seconds since 1970.
    pub last_bounce: i64,
    /// Released by the queue itself: in flight already.
    pub in_flight: bool,
    /// The configuration cannot deliver it: not to be tried until it can.
    pub unfit: Option<Unfit>,
    /// Was alone in flight when roles crashed again: not to be tried until an administrator says so.
    pub suspect: bool,
}

/// Why the configuration cannot deliver an envelope that was accepted under an earlier one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Unfit {
    /// The action of its name is of another kind: local where the envelope goes elsewhere, or the
    /// other way round.
    ActionChanged,
    /// There is no action of its name.
    ActionGone,
}

/// Why an envelope is held, beside a busy relay or user.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HoldReason {
    /// It crashed roles, as it seems; an administrator decides.
    Suspect,
    /// The configuration cannot deliver it.
    Unfit(Unfit),
}

/// Which kind of delivery, each with its own base of retries.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum DueKind {
    /// A report of ours.
    Bounce,
    /// To a local user.
    Local,
    /// To another server.
    Relay,
}

/// What the queue tells the scheduler. All are notices.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum QueueToScheduler {
    /// New envelopes, or those found at start.
    Added(Vec<Due>),
    /// These are no suspects any more.
    Cleared(Vec<EnvelopeId>),
    /// These are settled and gone.
    Ended(Vec<(EnvelopeId, End)>),
    /// Everything that was found at start was told.
    Filled,
    /// An envelope waits in a hold queue.
    Held {
        /// The envelope.
        id: EnvelopeId,
        /// Number of the hold queue.
        hold_queue: u64,
    },
    /// Envelopes may leave a hold queue.
    Released {
        /// Number of the hold queue.
        hold_queue: u64,
        /// Which of them.
        release: HoldRelease,
    },
    /// These, if they wait, are due now.
    Retry(Vec<EnvelopeId>),
    /// These were not tried: they are due again after a short pause, and no failure is counted.
    Returned(Vec<EnvelopeId>),
    /// These failed for now.
    TemporaryFailures(Vec<EnvelopeId>),
}

/// How an envelope ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum End {
    /// Delivered.
    Delivered,
    /// Outlived its time.
    Expired,
    /// Went round in circles.
    Loop,
    /// Given up.
    Permanent,
    /// Removed by an administrator.
    Removed,
}

/// Which envelopes of a hold queue leave it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HoldRelease {
    /// All, to run now.
    All,
    /// All, to be tried again later.
    Failed,
    /// At most this many, to run now.
    Some(u32),
}

/// What the scheduler tells the queue. All are notices.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum SchedulerToQueue {
    /// These have outlived their time.
    Expire(Vec<EnvelopeId>),
    /// An administrator removed these.
    Remove(Vec<EnvelopeId>),
    /// These are due, in this order.
    Release(Vec<EnvelopeId>),
    /// Report a delay.
    Warn {
        /// The envelope.
        id: EnvelopeId,
        /// The interval that passed, in seconds.
        delay: u64,
    },
}

/// Which envelopes an administrator means.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Selection {
    /// All.
    All,
    /// One.
    Envelope(EnvelopeId),
    /// All of one message.
    Message(MessageId),
}

/// What an administrator does with envelopes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum EnvelopeOrder {
    /// Leave them alone until resumed.
    Pause,
    /// Take them out of the queue.
    Remove,
    /// Treat them as before the pause.
    Resume,
    /// Try them now.
    Schedule,
}

/// What control asks the scheduler.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum ControlToScheduler {
    /// States of envelopes in the order of their ids (answered by [`SchedulerToControl::Listed`]).
    List {
        /// Only this message.
        message: Option<MessageId>,
        /// After this one.
        after: Option<EnvelopeId>,
        /// How many at most.
        count: u32,
    },
    /// Do something with envelopes (answered by [`SchedulerToControl::Counted`]).
    Order(EnvelopeOrder, Selection),
    /// Counters (answered by [`SchedulerToControl::Statistics`]).
    Statistics,
}

/// What the scheduler answers control.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum SchedulerToControl {
    /// How many it was.
    Counted(u32),
    /// Some envelopes.
    Listed {
        /// Fewer than asked for at the end.
        envelopes: Vec<ListedEnvelope>,
        /// Whether the queue has told everything that it holds; false while it reads its spool.
        complete: bool,
    },
    /// Counters.
    Statistics(super::statistics::Snapshot),
}

/// State of one envelope.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedEnvelope {
    /// The envelope.
    pub id: EnvelopeId,
    /// Whether an attempt runs.
    pub in_flight: bool,
    /// Seconds until the next attempt, or since the running one began.
    pub delay: i64,
    /// Paused by an administrator.
    pub suspended: bool,
    /// Waits for room at a busy relay or user, or for [`Self::reason`] to end.
    pub held: bool,
    /// What else it waits for.
    pub reason: Option<HoldReason>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
}
