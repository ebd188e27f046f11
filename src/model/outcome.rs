//! What came of one delivery attempt, and how the log tells it.
//!
//! Sources: sysexits(3); the queue page of the specification, section 5.5.

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

/// The account of one local delivery.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// What came of it.
    pub outcome: Outcome,
    /// Exit status for the log, one of sysexits(3); 0 when there is none to tell.
    pub exit: u8,
}

impl Report {
    /// The `stat=` text of the log line.
    #[must_use]
    pub fn stat(&self) -> String {
        match &self.outcome {
            Outcome::Delivered { .. } => "Delivered".to_owned(),
            Outcome::Loop => "Loop detected".to_owned(),
            Outcome::Permanent(failure) | Outcome::Temporary(failure) => match meaning(self.exit) {
                Some(meaning) => format!("Error ({meaning}: {})", failure.text),
                // Nothing was run: the recipient's account could not be had.
                None if failure.status.subject == ADDRESS => failure.text.clone(),
                None => format!("Error ({})", failure.text),
            },
        }
    }
}

impl From<Outcome> for Report {
    /// Without a status to tell.
    fn from(outcome: Outcome) -> Self {
        Self { outcome, exit: 0 }
    }
}

/// Subject of statuses about addresses (RFC 3463, section 3.2).
const ADDRESS: u8 = 1;

/// What a status of sysexits(3) means; `None` for others.
fn meaning(status: u8) -> Option<&'static str> {
    Some(match status {
        64 => "command line usage error",
        65 => "data format error",
        66 => "cannot open input",
        67 => "user unknown",
        68 => "host name unknown",
        69 => "service unavailable",
        70 => "internal software error",
        71 => "system resource problem",
        72 => "critical OS file missing",
        73 => "can't create user output file",
        74 => "input/output error",
        75 => "temporary failure",
        76 => "remote error in protocol",
        77 => "permission denied",
        78 => "local configuration error",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // queue case 123 and section 5.5.
    #[test]
    fn the_log_tells_what_came_of_a_delivery_in_words() {
        let failure = |text: &str, subject| Failure {
            text: text.to_owned(),
            status: EnhancedStatus::new(4, subject, 0),
        };
        let temporary = |text: &str| Outcome::Temporary(failure(text, 3));
        let cases = [
            (Outcome::Delivered { dsn_relayed: false }, 0, "Delivered"),
            (Outcome::Loop, 0, "Loop detected"),
            (temporary("\"later\""), 75, "Error (temporary failure: \"later\")"),
            (Outcome::Permanent(failure("\"no\"", 3)), 77, "Error (permission denied: \"no\")"),
            (temporary("exited abnormally"), 1, "Error (exited abnormally)"),
            (temporary("worker ended"), 0, "Error (worker ended)"),
            (
                Outcome::Temporary(failure("Temporary failure in user lookup", 1)),
                0,
                "Temporary failure in user lookup",
            ),
        ];
        for (outcome, exit, expected) in cases {
            assert_eq!(Report { outcome, exit }.stat(), expected);
        }
    }
}
