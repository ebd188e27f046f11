//! The SMTP server: sessions that clients open to hand mail in.
//!
//! [`Session`] is the protocol, without sockets, clocks or tasks. Its shell reads and writes the
//! connection, asks the lookup and queue roles, and keeps the time. Of the session, `filters` has
//! where filters decide, and `reports` what they are told.

mod action;
mod answers;
mod auth;
#[cfg(test)]
mod cases;
pub mod ceiling;
mod chunking;
mod commands;
pub mod connection;
mod event;
mod filtered_body;
mod filters;
mod input;
pub mod listener;
mod logins;
mod mechanisms;
mod proxied;
pub mod rehearsal;
mod reports;
mod session;
mod settings;
mod starttls;
mod state;
mod transaction;

pub use action::{
    Action, Answer, Authenticate, Authenticated, CheckSender, Commit, Ending, ExpandRecipient,
    Expansion, FilterLines, FilterQuestion, FilteredLines, FoundVerifier, Lease, NoVerifier,
    Recipient, Refusal, RequestId,
};
pub use event::{LogEvent, Severity};
pub use input::InputBuffer;
pub use session::Session;
pub use settings::{
    AuthSettings, IDLE_TIMEOUT, MAX_MESSAGES, MAX_RECIPIENTS, Peer, SessionId, Settings, TlsOffer,
    UNKNOWN_HOSTNAME,
};
