//! Identifiers of messages and envelopes.
//!
//! An envelope id holds its message's id in the high half, so the two sort together. Both are
//! printed as lower-case hexadecimal of fixed width, in logs, replies and `smtpctl`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number of a message in the spool: random, never 0, printed with 8 hexadecimal digits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct MessageId(NonZeroU32);

/// Number of an envelope: the message id and a non-zero low half, printed with 16 digits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct EnvelopeId(NonZeroU64);

/// A text is not an identifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an identifier: {expected} hexadecimal digits, not all zero, are needed")]
pub struct BadId {
    expected: usize,
}

impl MessageId {
    /// The id with this number; `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The envelope of this message with the low half `low`.
    #[must_use]
    pub fn envelope(self, low: NonZeroU32) -> EnvelopeId {
        let number = (u64::from(self.0.get()) << 32) | u64::from(low.get());
        // A NonZeroU32 in the high half keeps the whole non-zero.
        EnvelopeId(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

impl EnvelopeId {
    /// The id with this number; `None` unless both halves are non-zero.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        ((number >> 32) != 0 && (number & 0xffff_ffff) != 0)
            .then(|| NonZeroU64::new(number).map(Self))
            .flatten()
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The message it belongs to.
    #[must_use]
    pub fn message(self) -> MessageId {
        let high = (self.0.get() >> 32) as u32;
        MessageId(NonZeroU32::new(high).unwrap_or(NonZeroU32::MIN))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn hexadecimal(text: &str, expected: usize) -> Result<u64, BadId> {
    let plain = text.len() == expected && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain {
        return Err(BadId { expected });
    }
    u64::from_str_radix(text, 16).map_err(|_| BadId { expected })
}

impl FromStr for MessageId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let number = hexadecimal(text, 8)?;
        u32::try_from(number).ok().and_then(Self::new).ok_or(BadId { expected: 8 })
    }
}

impl FromStr for EnvelopeId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        Self::new(hexadecimal(text, 16)?).ok_or(BadId { expected: 16 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let message = MessageId::new(0xabc).unwrap();
        let envelope = message.envelope(NonZeroU32::new(7).unwrap());
        assert_eq!(message.to_string(), "00000abc");
        assert_eq!(envelope.to_string(), "00000abc00000007");
        assert_eq!(envelope.message(), message);
        assert_eq!("00000abc00000007".parse(), Ok(envelope));
        for bad in ["", "0", "00000000", "+0000abc", "00000abcd", "0000000g"] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad:?}");
        }
        for bad in ["0000000000000001", "0000000100000000", "00000abc0000007"] {
            assert!(bad.parse::<EnvelopeId>().is_err(), "{bad:?}");
        }
    }
}
