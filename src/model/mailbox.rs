//! Addresses of an envelope: mailbox, reverse-path, domain.
//!
//! Case is kept as received; comparisons that ignore it say so. The grammar (which characters,
//! which lengths) is checked where text becomes a [`Mailbox`]: RFC 5321 section 4.1.2, with UTF-8
//! in both halves as RFC 6531 allows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest local part, in bytes.
pub const MAX_LOCAL: usize = 255;
/// Longest domain, in bytes.
pub const MAX_DOMAIN: usize = 255;

/// A mailbox: local part and domain, both non-empty.
///
/// Held as one text and the position of its `@`, so that printing and hashing cost nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Mailbox {
    text: Box<str>,
    at: u16,
}

/// The sender of an envelope: a mailbox, or null (`<>`), as delivery reports have it.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ReversePath(pub Option<Mailbox>);

/// Why a text is not a mailbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MailboxError {
    /// The part before the `@` is missing, too long, or has characters it may not have.
    #[error("the local part is not valid")]
    Local,
    /// The part after the `@` is neither a host name nor an address literal.
    #[error("the domain is not valid")]
    Domain,
}

impl Mailbox {
    /// The mailbox `local@domain`.
    ///
    /// Only what every consumer relies on is checked here: both parts present, at most 255 bytes
    /// each, no white space, controls or `<>` in either, and no `@` in the domain.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn new(local: &str, domain: &str) -> Result<Self, MailboxError> {
        let clean = |part: &str| {
            !part.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>'))
        };
        if local.is_empty() || local.len() > MAX_LOCAL || !clean(local) {
            return Err(MailboxError::Local);
        }
        if domain.is_empty() || domain.len() > MAX_DOMAIN || !clean(domain) || domain.contains('@')
        {
            return Err(MailboxError::Domain);
        }
        let at = u16::try_from(local.len()).map_err(|_| MailboxError::Local)?;
        Ok(Self { text: format!("{local}@{domain}").into_boxed_str(), at })
    }

    /// The mailbox that `text` spells, split at its last `@`.
    ///
    /// # Errors
    /// As for [`Mailbox::new`]; without `@`, the domain is what is missing.
    pub fn parse(text: &str) -> Result<Self, MailboxError> {
        let (local, domain) = text.rsplit_once('@').ok_or(MailboxError::Domain)?;
        Self::new(local, domain)
    }

    /// The part before the last `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        self.text.get(..usize::from(self.at)).unwrap_or_default()
    }

    /// The part after the last `@`: a host name, or an address literal in brackets.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(usize::from(self.at) + 1..).unwrap_or_default()
    }

    /// The whole address, `local@domain`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

// Checked on the way in, so that a hostile peer cannot make an invalid value.
impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            text: Box<str>,
            at: u16,
        }
        let wire = Wire::deserialize(deserializer)?;
        let mailbox = Self::parse(&wire.text).map_err(serde::de::Error::custom)?;
        if mailbox.at == wire.at {
            Ok(mailbox)
        } else {
            Err(serde::de::Error::custom("the local part is not valid"))
        }
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ReversePath {
    /// The null reverse-path, `<>`.
    pub const NULL: Self = Self(None);

    /// The address, or an empty text for the null reverse-path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Mailbox::as_str)
    }

    /// Whether this is `<>`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        Self(Some(mailbox))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_splits_at_its_last_at() {
        let cases = [
            ("a@b", Ok(("a", "b"))),
            ("a@b@c", Ok(("a@b", "c"))),
            ("ü@bücher.example", Ok(("ü", "bücher.example"))),
            ("a", Err(MailboxError::Domain)),
            ("@b", Err(MailboxError::Local)),
            ("a@", Err(MailboxError::Domain)),
            ("a b@c", Err(MailboxError::Local)),
            ("a@c\r", Err(MailboxError::Domain)),
        ];
        for (text, expected) in cases {
            let mailbox = Mailbox::parse(text);
            let parts = mailbox.as_ref().map(|m| (m.local(), m.domain())).map_err(|e| *e);
            assert_eq!(parts, expected, "{text:?}");
        }
    }

    #[test]
    fn a_forged_mailbox_does_not_deserialise() {
        let good = Mailbox::parse("a@b").unwrap();
        let bytes = postcard::to_stdvec(&good).unwrap();
        assert_eq!(postcard::from_bytes::<Mailbox>(&bytes).unwrap(), good);
        for forged in [("a@b\n", 1_u16), ("a@b", 0), ("ab", 1), ("a@b", 9)] {
            let bytes = postcard::to_stdvec(&forged).unwrap();
            assert!(postcard::from_bytes::<Mailbox>(&bytes).is_err(), "{forged:?}");
        }
    }
}
