//! What a chain of filters decides about a phase.

use serde::{Deserialize, Serialize};

/// The verdict of a whole chain, as the session carries it out. Replies were checked: `4yz` or
/// `5yz`, a blank, a text of one printable line. A refusal with 421 arrives as `Disconnect`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Decision {
    /// The command goes on.
    Proceed,
    /// The message, or without one the session, is marked as spam; the command goes on.
    Junk,
    /// The command is refused with this reply.
    Reject(String),
    /// The session ends with this reply.
    Disconnect(String),
    /// The whole argument of the command becomes this.
    Rewrite(Vec<u8>),
}
