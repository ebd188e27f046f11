//! Command lines as filters are told of them.

use std::borrow::Cow;

use crate::proto::sasl::is_mechanism_name;

/// The text between the first `<` of a line and the next `>`.
#[must_use]
pub fn bracketed(line: &[u8]) -> Option<&[u8]> {
    let start = memchr::memchr(b'<', line)? + 1;
    let rest = line.get(start..)?;
    rest.get(..memchr::memchr(b'>', rest)?)
}

/// A command line without credentials: of AUTH only the mechanism remains.
#[must_use]
pub fn masked(line: &[u8]) -> Cow<'_, [u8]> {
    let start = line.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(line.len());
    let text = line.get(start..).unwrap_or_default();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (verb, argument) = text.split_at_checked(end).unwrap_or((text, b""));
    if !verb.eq_ignore_ascii_case(b"AUTH") {
        return Cow::Borrowed(line);
    }
    match masked_argument(argument) {
        shown if *shown == *argument => Cow::Borrowed(line),
        shown => Cow::Owned([verb, b" ", &shown].concat()),
    }
}

/// The argument of AUTH without credentials: only the mechanism remains.
#[must_use]
pub fn masked_argument(argument: &[u8]) -> Cow<'_, [u8]> {
    let mut words = argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        // The name was left out.
        (Some(word), _) if !is_mechanism_name(word) => Cow::Borrowed(b"********"),
        (Some(mechanism), Some(_)) => Cow::Owned([mechanism, b" ********"].concat()),
        _ => Cow::Borrowed(argument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_credentials_only_the_mechanism_is_told() {
        let cases = [
            ("AUTH PLAIN x", "AUTH PLAIN ********"),
            (" auth \t plain  x y", "auth plain ********"),
            ("AUTH LOGIN", "AUTH LOGIN"),
            ("AUTH AGEAYg==", "AUTH ********"),
            ("AUTH AGEAYg== x", "AUTH ********"),
            ("AUTH", "AUTH"),
            ("AUTHX PLAIN x", "AUTHX PLAIN x"),
            ("NOOP AUTH PLAIN x", "NOOP AUTH PLAIN x"),
            ("  ", "  "),
            ("", ""),
        ];
        for (line, expected) in cases {
            assert_eq!(masked(line.as_bytes()), expected.as_bytes(), "{line:?}");
        }
        assert_eq!(masked_argument(b"PLAIN x"), &b"PLAIN ********"[..]);
        assert_eq!(masked_argument(b"PLAIN"), &b"PLAIN"[..]);
    }
}
