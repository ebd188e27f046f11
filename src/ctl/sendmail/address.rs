//! Address lists of a message header, read as a stream of bytes.
//!
//! The reader takes the value of one header field, continuation lines included, and never holds
//! more than one address. It understands comments, quoted strings, `name <address>`, groups and
//! obsolete routes; it does not judge whether an address is valid (that is the server).
//!
//! Sources: RFC 5322 sections 3.4 and 4.4; the queue page of the specification, 7.3.

use std::mem;

/// Longest address, in bytes.
pub const MAX_ADDRESS: usize = 1000;

/// Why an address list cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// A bracket, parenthesis or quote without its other half, or bytes that are not UTF-8.
    #[error("syntax error in address")]
    Syntax,
    /// An address of more than [`MAX_ADDRESS`] bytes.
    #[error("address exceeds buffer size")]
    TooLong,
}

/// Reads the addresses of one header field.
#[derive(Debug, Default)]
pub struct AddressReader {
    /// Text of the present address outside of brackets: the address itself, or a display name.
    plain: Vec<u8>,
    /// Text between `<` and `>`, once there was a `<`.
    angle: Option<Vec<u8>>,
    in_angle: bool,
    in_literal: bool,
    in_quotes: bool,
    escaped: bool,
    comments: u32,
    addresses: Vec<String>,
}

impl AddressReader {
    /// Takes some bytes of the field's value, without its line ends.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), AddressError> {
        bytes.iter().try_for_each(|byte| self.take(*byte))
    }

    /// The addresses, in order, when the field has ended. `<>` and empty places are left out.
    ///
    /// # Errors
    /// Something was not closed.
    pub fn finish(mut self) -> Result<Vec<String>, AddressError> {
        let open = self.in_angle || self.in_literal || self.in_quotes || self.escaped;
        if open || self.comments > 0 {
            return Err(AddressError::Syntax);
        }
        self.end_address()?;
        Ok(self.addresses)
    }

    fn take(&mut self, byte: u8) -> Result<(), AddressError> {
        if self.escaped {
            self.escaped = false;
            return if self.comments > 0 { Ok(()) } else { self.keep(byte) };
        }
        if self.comments > 0 {
            match byte {
                b'\\' => self.escaped = true,
                b'(' => self.comments += 1,
                b')' => self.comments -= 1,
                _ => {}
            }
            return Ok(());
        }
        if byte == b'\\' {
            self.escaped = true;
            return self.keep(byte);
        }
        if self.in_quotes {
            self.in_quotes = byte != b'"';
            return self.keep(byte);
        }
        if self.in_literal {
            self.in_literal = byte != b']';
            return self.keep(byte);
        }
        match byte {
            b'"' => {
                self.in_quotes = true;
                self.keep(byte)
            }
            b'[' => {
                self.in_literal = true;
                self.keep(byte)
            }
            b'(' => {
                self.comments = 1;
                Ok(())
            }
            b'<' if self.angle.is_none() => {
                self.plain.clear();
                self.angle = Some(Vec::new());
                self.in_angle = true;
                Ok(())
            }
            b'>' if self.in_angle => {
                self.in_angle = false;
                Ok(())
            }
            b')' | b'<' | b'>' | b']' => Err(AddressError::Syntax),
            b',' | b';' if !self.in_angle => self.end_address(),
            b':' if !self.in_angle => {
                // What came before is the name of a group.
                self.plain.clear();
                Ok(())
            }
            b' ' | b'\t' => Ok(()),
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), AddressError> {
        let text = match &mut self.angle {
            Some(angle) if self.in_angle => angle,
            // Words after the `>` belong to nothing.
            Some(_) => return Ok(()),
            None => &mut self.plain,
        };
        if text.len() == MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        text.push(byte);
        Ok(())
    }

    fn end_address(&mut self) -> Result<(), AddressError> {
        let plain = mem::take(&mut self.plain);
        let text = match self.angle.take() {
            Some(angle) => angle,
            None => plain,
        };
        let text = String::from_utf8(text).map_err(|_| AddressError::Syntax)?;
        let address = without_route(&text);
        if !address.is_empty() {
            self.addresses.push(address.to_owned());
        }
        Ok(())
    }
}

/// `@a,@b:user@c`, an obsolete route, is `user@c` (RFC 5322, section 4.4).
fn without_route(address: &str) -> &str {
    match address.split_once(':') {
        Some((route, rest)) if route.starts_with('@') => rest,
        _ => address,
    }
}

/// `name` as an address of this server, if it has no domain of its own.
///
/// An empty text stays empty; an `@` inside quotes is part of the name.
#[must_use]
pub fn qualify(name: &str, server_name: &str) -> String {
    if name.is_empty() || has_domain(name) {
        return name.to_owned();
    }
    format!("{name}@{server_name}")
}

fn has_domain(address: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for byte in address.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'@' if !quoted => return true,
            _ => {}
        }
    }
    false
}

/// The recipients of one operand: its parts between commas.
///
/// Blanks around a part and a pair of brackets are not part of it; an empty part stays, for the
/// server to refuse.
pub fn split_operand(operand: &str) -> impl Iterator<Item = &str> {
    operand.split(',').map(|part| {
        let part = part.trim();
        part.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(part)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(value: &str) -> Result<Vec<String>, AddressError> {
        let mut reader = AddressReader::default();
        reader.read(value.as_bytes())?;
        reader.finish()
    }

    // Part of queue case 187.
    #[test]
    fn address_lists() {
        let cases: [(&str, &[&str]); 17] = [
            ("", &[]),
            ("alice@d", &["alice@d"]),
            (" alice@d , bob@d ", &["alice@d", "bob@d"]),
            ("alice@d; bob@d", &["alice@d", "bob@d"]),
            ("Alice B <alice@d>", &["alice@d"]),
            ("\"B, Alice\" <alice@d>, bob", &["alice@d", "bob"]),
            ("\"a \\\" <x@y>\" <alice@d>", &["alice@d"]),
            ("alice@d (Alice, with (nested) \\) comment)", &["alice@d"]),
            ("friends: a@d, Bee <b@d>;, c@d", &["a@d", "b@d", "c@d"]),
            ("undisclosed-recipients:;", &[]),
            ("undisclosed-recipients:", &[]),
            ("\"a,b\"@d", &["\"a,b\"@d"]),
            ("a@[IPv6:2001:db8::1], b@d", &["a@[IPv6:2001:db8::1]", "b@d"]),
            ("<@x,@y:alice@d>", &["alice@d"]),
            ("a\\,b@d", &["a\\,b@d"]),
            ("<>", &[]),
            ("bücher@d", &["bücher@d"]),
        ];
        for (value, expected) in cases {
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            assert_eq!(addresses(value), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for value in ["<a@d", "a@d>", "\"a@d", "a@d (x", "a) b", "<a <b>>", "a@[1", "a\\"] {
            assert_eq!(addresses(value), Err(AddressError::Syntax), "{value:?}");
        }
        let longest = "x".repeat(MAX_ADDRESS);
        assert_eq!(addresses(&longest), Ok(vec![longest.clone()]));
        assert_eq!(addresses(&format!("{longest}x")), Err(AddressError::TooLong));
    }

    #[test]
    fn names_without_a_domain_are_this_servers() {
        let cases = [
            ("bob", "bob@mx.test"),
            ("bob@d", "bob@d"),
            ("", ""),
            ("\"a@b\"", "\"a@b\"@mx.test"),
            ("\"a\\\"@b\"@d", "\"a\\\"@b\"@d"),
        ];
        for (name, expected) in cases {
            assert_eq!(qualify(name, "mx.test"), expected);
        }
    }

    // queue case 185: the empty part is sent, and refused by the server.
    #[test]
    fn operands_are_split_at_commas() {
        let parts: Vec<&str> = split_operand("alice@d, <bob@d>,").collect();
        assert_eq!(parts, ["alice@d", "bob@d", ""]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(value in any::<Vec<u8>>(), at in 0_usize..64) {
            let at = at.min(value.len());
            let mut whole = AddressReader::default();
            let mut cut = AddressReader::default();
            let whole = whole.read(&value).and_then(|()| whole.finish());
            let cut = cut.read(&value[..at])
                .and_then(|()| cut.read(&value[at..]))
                .and_then(|()| cut.finish());
            prop_assert_eq!(whole, cut);
        }

        #[test]
        fn every_listed_address_is_found(
            list in prop::collection::vec("[a-z]{1,8}@[a-z]{1,8}\\.test", 0..8),
            form in 0_usize..4,
        ) {
            let written: Vec<String> = list
                .iter()
                .map(|address| match form {
                    0 => address.clone(),
                    1 => format!("\"Doe, J\" <{address}>"),
                    2 => format!("(a, b) {address} (c)"),
                    _ => format!("g: {address};"),
                })
                .collect();
            prop_assert_eq!(addresses(&written.join(", ")), Ok(list));
        }
    }
}
