//! The SMTP server: sessions that clients open to hand mail in.
//!
//! [`Session`] is the protocol, without sockets, clocks or tasks. Its shell reads and writes the
//! connection, asks the lookup and queue roles, and keeps the time.

mod action;
mod answers;
#[cfg(test)]
mod cases;
mod commands;
pub mod connection;
mod event;
mod input;
pub mod listener;
pub mod rehearsal;
mod session;
mod settings;
mod state;
mod transaction;

pub use action::{
    Action, Answer, Commit, Ending, ExpandRecipient, Expansion, Lease, Recipient, Refusal,
    RequestId,
};
pub use event::{LogEvent, Severity};
pub use input::InputBuffer;
pub use session::Session;
pub use settings::{
    IDLE_TIMEOUT, MAX_MESSAGES, MAX_RECIPIENTS, Peer, SessionId, Settings, TlsOffer,
    UNKNOWN_HOSTNAME,
};
