//! Table programs: programs of others that answer questions about a table (text protocol 0.1).
//!
//! A program is told about its table, registers what it can be asked, and then answers line by
//! line. [`wire`] makes and reads the lines. A [`Conversation`] is all that is said with one program
//! and its successors: what waits, what is asked, when a program that dies, stalls or talks nonsense
//! is given up, and when the next one is started. Neither starts a program or reads a clock: whoever
//! drives a conversation brings it events with the time, and does the [`Action`]s that come of them.
//!
//! Whatever a program does, its requests get an answer in bounded time, and a failure is temporary.
//!
//! Source: smtpd-tables(7).

mod conversation;
pub mod wire;

pub use conversation::{Action, Conversation, Moment, Notice};

use std::time::Duration;

use super::Service;

/// Bounds on what a program may take, in one place.
pub mod limits {
    use std::time::Duration;

    /// From the start of a program to the end of its registration.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);
    /// From a request to its answer. A data base may need a moment; a client waits for minutes.
    pub const REQUEST: Duration = Duration::from_secs(10);
    /// From the moment a request is made to the moment it is the program's turn to answer it.
    pub const TURN: Duration = Duration::from_secs(20);
    /// Requests that wait for their turn at once.
    pub const WAITING: usize = 1000;
    /// Bytes of one line of a program, its end not counted.
    pub const LINE: usize = 1024 * 1024;
    /// Bytes of a key; longer ones are not asked for.
    pub const KEY: usize = 1023;
    /// Pause before a program is started again; it doubles with each failure in a row …
    pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
    /// … up to this, and there it stays.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);
    /// A program that was ready this long and then ends, not over a question, has not failed in a row
    /// with its predecessors.
    pub const SETTLED: Duration = Duration::from_secs(10);
    /// The same trouble is said aloud once in this time.
    pub const SAY_AGAIN: Duration = Duration::from_secs(60);
}

/// What is asked of a program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Whether a key is there.
    Check {
        /// How keys are compared.
        service: Service,
        /// The key.
        key: String,
    },
    /// The next entry of a list that is used in turn.
    Fetch {
        /// What the entry is for.
        service: Service,
    },
    /// The value of a key.
    Lookup {
        /// What the value is for.
        service: Service,
        /// The key.
        key: String,
    },
    /// Read anew where the contents come from.
    Update,
}

impl Request {
    /// The word of the protocol for it.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Check { .. } => "check",
            Self::Fetch { .. } => "fetch",
            Self::Lookup { .. } => "lookup",
            Self::Update => "update",
        }
    }

    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Check { key, .. } | Self::Lookup { key, .. } => Some(key),
            Self::Fetch { .. } | Self::Update => None,
        }
    }
}

/// What a program answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// To [`Request::Check`]: whether the key is there.
    Contains(bool),
    /// To [`Request::Update`]: it is done.
    Updated,
    /// To [`Request::Fetch`] and [`Request::Lookup`]: the value, if there is one; not empty.
    Value(Option<String>),
}

/// Why a request was not answered. All of it is temporary.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// More than [`limits::WAITING`] requests wait, or this one has waited for too long.
    #[error("too many requests wait for the table program")]
    Busy,
    /// The key cannot be part of a line, or is too long.
    #[error("the key cannot be asked for")]
    Key,
    /// The program does not check passwords: it has not registered that.
    #[error("the table program does not check passwords")]
    NotOffered,
    /// The program says that it could not do it.
    #[error("the table program answered with an error")]
    Refused,
    /// There is no program now, or it has ended in the middle of it.
    #[error("the table program does not answer")]
    Unavailable,
}

/// Why a program is given up. What it said is in there as it came: to be escaped where it is shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// An answer without a result.
    #[error("empty response")]
    Empty,
    /// It has ended, or has closed its output.
    #[error("unexpected EOF")]
    Ended,
    /// It has ended before it was ready.
    #[error("unexpected EOF during handshake")]
    EndedEarly,
    /// It registered nothing.
    #[error("no services registered")]
    NothingRegistered,
    /// Something else than a registration.
    #[error("invalid handshake reply")]
    NotRegistered,
    /// It could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// No end of a registration, or no answer, in this time.
    #[error("no reply within {} s", .0.as_secs())]
    Silent(Duration),
    /// A line above [`limits::LINE`].
    #[error("line too long")]
    TooLong,
    /// It registered what is not known.
    #[error("unknown service {0}")]
    UnknownService(String),
    /// An answer that is none, or to another question, or to none at all.
    #[error("failed to parse reply")]
    Unparseable,
}
