//! Values that roles share: identifiers, addresses, envelopes, outcomes, limits.
//!
//! Nothing here does I/O or knows a role. Every value is valid once made: text from outside is
//! parsed into it at the edge.

pub mod address;
pub mod dns;
pub mod envelope;
#[cfg(test)]
pub mod fixture;
pub mod id;
pub mod limits;
pub mod mailbox;
pub mod outcome;
pub mod tls;

pub use address::Address;
pub use envelope::{DeliveryKind, Envelope};
pub use id::{EnvelopeId, MessageId};
pub use mailbox::{Mailbox, ReversePath};
