//! Between control and the roles that it asks on an administrator's behalf, but for the scheduler.

use serde::{Deserialize, Serialize};

use super::queue::BodyPiece;
use super::statistics::Snapshot;
use crate::ipc::blob::Blob;
use crate::model::{EnvelopeId, MessageId};

/// What control asks the queue.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum ControlToQueue {
    /// Serialised envelopes (answered by [`QueueToControl::Envelopes`]).
    Envelopes(Vec<EnvelopeId>),
    /// The body of a message (answered by [`QueueToControl::Body`]).
    LoadBody {
        /// The message.
        message: MessageId,
        /// Where to begin, in bytes.
        offset: u64,
    },
    /// Counters (answered by [`QueueToControl::Statistics`]).
    Statistics,
}

/// What the queue answers control.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum QueueToControl {
    /// A body, or a piece of it.
    Body(BodyPiece),
    /// The envelopes that are there, in the order asked for, as many as fit a frame: the rest is
    /// asked for again. Each is a serialised [`crate::model::Envelope`].
    Envelopes {
        /// How many of those asked for were looked at.
        looked_at: u32,
        /// Those that are there.
        found: Vec<Blob>,
    },
    /// Counters.
    Statistics(Snapshot),
}

/// What control asks the dispatcher.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum ControlToDispatcher {
    /// A session over the descriptor that it carries: local submission (notice).
    Submission,
    /// Counters (answered by [`DispatcherToControl::Statistics`]).
    Statistics,
}

/// What the dispatcher answers control.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum DispatcherToControl {
    /// Counters.
    Statistics(Snapshot),
}

/// What control asks lookup.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum ControlToLookup {
    /// Counters (answered by [`LookupToControl::Statistics`]).
    Statistics,
    /// Read a table again (answered by [`LookupToControl::Updated`]).
    UpdateTable {
        /// Its name.
        name: String,
    },
}

/// What lookup answers control.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum LookupToControl {
    /// Counters.
    Statistics(Snapshot),
    /// Whether the table is what its source says now.
    Updated {
        /// It is.
        done: bool,
    },
}

/// What control asks the keys role.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum ControlToKeys {
    /// Counters (answered by [`KeysToControl::Statistics`]).
    Statistics,
}

/// What the keys role answers control.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum KeysToControl {
    /// Counters.
    Statistics(Snapshot),
}
