//! What outgoing mail asks other roles, and what it tells them.
//!
//! The dispatcher implements [`Directory`] over its channel to the lookup role and [`Sink`] over
//! those to queue and scheduler; tests implement both in a few lines.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::config::FilterId;
use crate::dispatcher::filters::link::{Ends, FilterLink};
use crate::model::EnvelopeId;
use crate::model::dns::{DnsFailure, Exchange, Reverse};
use crate::model::outcome::Outcome;

/// An answer that is under way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A table has no such entry, is not there, or failed. All three are tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no entry")]
pub struct NoEntry;

/// What outgoing mail asks the lookup role. Every answer comes in bounded time.
pub trait Directory: Send + Sync + 'static {
    /// The exchanges of `domain`, best first, with their addresses. An address literal in
    /// brackets is its own exchange.
    fn mx<'a>(&'a self, domain: &'a str) -> Answer<'a, Result<Vec<Exchange>, DnsFailure>>;

    /// The addresses of the host `name` or of an address literal in brackets, as one exchange.
    fn host<'a>(&'a self, name: &'a str) -> Answer<'a, Result<Exchange, DnsFailure>>;

    /// The name of `address`.
    fn reverse(&self, address: IpAddr) -> Answer<'_, Reverse>;

    /// The next relay URL of `table` in rotation (`host`), or the one for `domain` (`domain`).
    fn smart_host<'a>(
        &'a self,
        table: &'a str,
        domain: Option<&'a str>,
    ) -> Answer<'a, Result<String, NoEntry>>;

    /// The next source address of `table` in rotation.
    fn source<'a>(&'a self, table: &'a str) -> Answer<'a, Result<IpAddr, NoEntry>>;

    /// The name in `table` for the source address `source`.
    fn helo<'a>(&'a self, table: &'a str, source: IpAddr) -> Answer<'a, Result<String, NoEntry>>;

    /// What `filter` is told of a session with this number; `None` if nobody can be told.
    fn filters(&self, session: u64, filter: FilterId, ends: Ends) -> Option<FilterLink> {
        let _nobody = (session, filter, ends);
        None
    }
}

/// What outgoing mail tells the dispatcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A relay has enough waiting: the envelope was not taken and waits in hold queue `relay`.
    Held {
        /// Which envelope.
        envelope: EnvelopeId,
        /// Number of the hold queue.
        relay: u64,
    },
    /// Envelopes may leave the hold queue `relay`.
    Released {
        /// Number of the hold queue.
        relay: u64,
        /// Which of them.
        release: Release,
    },
    /// A host took mail again: these envelopes, deferred for it, are due now.
    Retry {
        /// Which envelopes.
        envelopes: Vec<EnvelopeId>,
    },
    /// An attempt ended. The log line is written already.
    Settled {
        /// Which envelope.
        envelope: EnvelopeId,
        /// What came of it.
        outcome: Outcome,
    },
}

/// Which envelopes of a hold queue leave it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// All run now.
    All,
    /// At most this many run now.
    Count(usize),
    /// All are scheduled anew: the relay failed.
    Reschedule,
}

/// Who is told. Called from session tasks: must neither block nor panic.
pub trait Sink: Send + Sync + 'static {
    /// Takes one event.
    fn event(&self, event: Event);
}
