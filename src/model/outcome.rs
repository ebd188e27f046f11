//! What came of one delivery attempt.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An enhanced status code without its class, printed as `C.S.D` (RFC 3463).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EnhancedStatus {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 7: address, mailbox, mail system, network, protocol, content, policy.
    pub subject: u8,
    /// Detail of the subject.
    pub detail: u16,
}

impl EnhancedStatus {
    /// The status `class.subject.detail`.
    #[must_use]
    pub const fn new(class: u8, subject: u8, detail: u16) -> Self {
        Self { class, subject, detail }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What came of one delivery attempt of one envelope.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Outcome {
    /// Delivered: durable in the mailbox, or taken over by the next server.
    Delivered {
        /// Whether the next server was told about report requests and will see to them.
        dsn_relayed: bool,
    },
    /// The message was here before: it would go round for ever.
    Loop,
    /// Given up: the sender is told.
    Permanent(Failure),
    /// Tried again later.
    Temporary(Failure),
}

/// A failure, as stored in the envelope, logged and reported.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// What went wrong, one line: at most [`super::limits::STATUS_TEXT`] bytes.
    pub text: String,
    /// Its enhanced status.
    pub status: EnhancedStatus,
}
