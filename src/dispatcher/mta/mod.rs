//! Outgoing mail: grouping envelopes into relays, connections, sessions.
//!
//! [`Mta::submit`] takes envelopes with their message and answers each through a [`Sink`], once.
//! What is decided is decided without I/O: [`action`] and [`limits`] read
//! and write texts, [`session`] holds one dialogue, [`relay`] and [`network`] say
//! when and where to connect. Around them, `shell` owns relays and timers, `connection` one
//! connection, `prepare` the look-ups. A session is one task of the runtime and takes message
//! after message from its relay; no message has a task of its own.
//!
//! Unlike the reference: actions never share a relay; routes are told apart by port; a relay all of
//! whose routes are disabled defers its mail at once; towards a smart host there are no pauses
//! between connections unless they are configured; PIPELINING is used; addresses are looked up
//! again every five minutes.
//!
//! Sources: the queue page of the specification, section 3; RFC 5321, 2033, 2920, 3461.

pub mod action;
pub mod body;
mod connection;
mod deferred;
pub mod directory;
#[cfg(test)]
mod fixture;
pub mod limits;
mod log;
pub mod network;
mod prepare;
pub mod relay;
mod rotation;
pub mod session;
mod shell;
pub mod task;
mod witness;

use std::collections::HashMap;
use std::sync::Arc;

pub use action::{RelayAction, SenderRewrite, Target};
pub use body::Body;
pub use directory::{Answer, Directory, Event, NoEntry, Release, Sink};
pub use limits::{Family, LimitTable, Limits};
pub use network::{RouteId, RouteStatus};
pub use shell::{Mta, RelayStatus};

use crate::model::{Envelope, ReversePath};

/// What the configuration says about outgoing mail.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The server's name: what EHLO gives unless the action has a name of its own.
    pub server_name: String,
    /// The `relay` actions by name.
    pub actions: HashMap<String, Arc<RelayAction>>,
    /// `mta limit`
    pub limits: LimitTable,
    /// `mta max-deferred`: envelopes remembered for each destination that does not answer.
    pub max_deferred: usize,
}

/// An envelope to be relayed, and its message.
#[derive(Clone, Debug)]
pub struct RelayJob {
    /// The envelope; its kind is [`crate::model::DeliveryKind::Relay`].
    pub envelope: Envelope,
    /// The sender to announce; `None` is that of the envelope, as `mail-from` leaves it.
    pub sender: Option<ReversePath>,
    /// The message; jobs of one message share it.
    pub body: Body,
}
