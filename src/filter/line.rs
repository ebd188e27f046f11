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
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(verb), Some(mechanism), rest) if verb.eq_ignore_ascii_case(b"AUTH") => {
            match (is_mechanism_name(mechanism), rest) {
                (true, Some(_)) => Cow::Owned([verb, b" ", mechanism, b" ********"].concat()),
                (true, None) => Cow::Borrowed(line),
                // The name was left out.
                (false, _) => Cow::Owned([verb, b" ********"].concat()),
            }
        }
        _ => Cow::Borrowed(line),
    }
}
