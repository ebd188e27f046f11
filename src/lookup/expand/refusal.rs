//! Why a recipient is refused, and the reply that says so.

use std::fmt;

use super::Address;

/// A recipient is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Refusal {
    reply: String,
    because: &'static str,
}

impl Refusal {
    /// What an `error:` entry says.
    pub(super) fn by_entry(text: &str) -> Self {
        Self { reply: text.to_owned(), because: "an entry refuses it" }
    }

    /// There is no such recipient.
    pub(super) fn invalid(because: &'static str) -> Self {
        Self { reply: "550 Invalid recipient".to_owned(), because }
    }

    /// It is not known what the recipient is.
    pub(super) fn later(because: &'static str) -> Self {
        Self { reply: "451 Temporary failure".to_owned(), because }
    }

    /// What it stands for cannot be delivered to.
    pub(super) fn expansion(because: &'static str) -> Self {
        Self { reply: "524 5.2.4 Mailing list expansion problem".to_owned(), because }
    }

    /// It is not known what it stands for, or somebody has to mend that.
    pub(super) fn expansion_later(because: &'static str) -> Self {
        Self { reply: "424 4.2.4 Mailing list expansion problem".to_owned(), because }
    }

    /// The reply to RCPT, without the address that is added to it.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.reply
    }

    /// The reply to RCPT for `recipient`, as the client gave it.
    #[must_use]
    pub fn reply(&self, recipient: &Address) -> String {
        format!("{}: <{recipient}>", self.reply)
    }

    /// Whether the client may try again.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.reply.starts_with('4')
    }

    /// Why, for the log.
    #[must_use]
    pub fn because(&self) -> &'static str {
        self.because
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reply, self.because)
    }
}
