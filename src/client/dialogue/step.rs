//! What a dialogue is to do, what it has its driver do next, and what it has to tell.

use std::fmt;

use zeroize::Zeroizing;

#[cfg(doc)]
use super::Dialogue;
use crate::client::server::{Credentials, Encryption, Protocol};

/// What is wanted of the server.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The dialogue that it speaks.
    pub protocol: Protocol,
    /// Whether to encrypt. With [`Encryption::Immediate`] the connection is encrypted already.
    pub encryption: Encryption,
    /// Argument of EHLO, HELO and LHLO.
    pub helo: String,
    /// What to log in with.
    pub credentials: Option<Credentials>,
    /// What to send; nothing without it.
    pub transaction: Option<Transaction>,
}

/// A message's envelope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transaction {
    /// The sender; empty for the null sender.
    pub sender: String,
    /// At least one recipient.
    pub recipients: Vec<String>,
}

/// What is to be done next.
#[derive(Debug, Eq, PartialEq)]
pub enum Step {
    /// Send the message as DATA has it, with its final dot; then [`Dialogue::body_sent`].
    Body,
    /// Close the connection; nothing follows.
    Close,
    /// Tell the user what has failed.
    Fail(Failure),
    /// Read, and give what came to [`Dialogue::receive`].
    Read,
    /// Send a command.
    Say(Command),
    /// Do a TLS handshake; then [`Dialogue::encrypted`].
    StartTls,
    /// Tell the user what the server said about a recipient.
    Tell(Status),
}

/// A command line.
#[derive(Eq, PartialEq)]
pub struct Command {
    /// The line with its line end.
    pub line: Zeroizing<String>,
    /// Whether it holds what nobody may see.
    pub secret: bool,
}

/// The last word of the server about a recipient.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// The recipient as given.
    pub recipient: String,
    /// Which command was answered.
    pub stage: Stage,
    /// The reply, as one line.
    pub reply: String,
}

/// A command of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// DATA.
    Data,
    /// The end of the message.
    End,
    /// MAIL.
    Mail,
    /// RCPT.
    Recipient,
}

/// Why a dialogue did not come to its end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// There is no connection, or no more.
    #[error("connection error: {0}")]
    Connection(String),
    /// The trouble is on this side.
    #[error("internal error: {0}")]
    Internal(String),
    /// The server lacks what was asked for.
    #[error("missing feature: {0}")]
    Missing(&'static str),
    /// What the server sent is not SMTP.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The server refused before there was a transaction; its reply.
    #[error("rejected by server: {0}")]
    Rejected(String),
}

impl Command {
    /// The line as it may be shown, without line end.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.secret { "(not shown)" } else { self.line.trim_end() }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.shown()).finish()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.recipient, self.stage, self.reply)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "DATA",
            Self::End => "EOM",
            Self::Mail => "MAIL",
            Self::Recipient => "RCPT",
        })
    }
}
