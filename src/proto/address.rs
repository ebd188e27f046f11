//! Paths of MAIL and RCPT, and the domains they and the greeting hold.
//!
//! This is the one validator of envelope addresses: what it refuses never becomes a
//! [`Mailbox`] of a session. Local parts are dot-atoms; quoted ones are refused, and so are the
//! characters ``$ ` { | }``, which shells interpret.
//!
//! Where SMTPUTF8 allows it, letters, digits and marks of all scripts may stand in local parts, and
//! domains may be written in them. Such a domain becomes its form in ASCII (A-labels) here, so that
//! rules, tables, resolvers and servers without SMTPUTF8 know one form of it only.
//!
//! Sources: RFC 5321 sections 4.1.2 and 4.1.3; RFC 6531 section 3.3; RFC 5890 section 2.3.2; the
//! SMTP page of the specification, 1.8.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::mailbox::{MAX_DOMAIN, MAX_LOCAL};
use crate::model::{Mailbox, ReversePath, limits};

/// Longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest host name as text: 255 bytes as encoded, with a length byte in front and a zero behind.
const MAX_HOST_NAME: usize = 253;

/// Non-spacing marks that words of living scripts need and that are no letters: what Unicode calls
/// `Mn` without `Alphabetic`, in these scripts. Sorted.
#[rustfmt::skip] // one range a line would hide the rest of the file
const MARKS: [(char, char); 36] = [
    ('\u{300}', '\u{36f}'), ('\u{483}', '\u{487}'), ('\u{591}', '\u{5c7}'), ('\u{610}', '\u{61a}'),
    ('\u{64b}', '\u{65f}'), ('\u{6d6}', '\u{6ed}'), ('\u{730}', '\u{74a}'), ('\u{93c}', '\u{93c}'),
    ('\u{94d}', '\u{94d}'), ('\u{951}', '\u{954}'), ('\u{9bc}', '\u{9bc}'), ('\u{9cd}', '\u{9cd}'),
    ('\u{a3c}', '\u{a3c}'), ('\u{a4d}', '\u{a4d}'), ('\u{abc}', '\u{abc}'), ('\u{acd}', '\u{acd}'),
    ('\u{b3c}', '\u{b3c}'), ('\u{b4d}', '\u{b4d}'), ('\u{bcd}', '\u{bcd}'), ('\u{c3c}', '\u{c3c}'),
    ('\u{c4d}', '\u{c4d}'), ('\u{cbc}', '\u{cbc}'), ('\u{ccd}', '\u{ccd}'), ('\u{d3b}', '\u{d3c}'),
    ('\u{d4d}', '\u{d4d}'), ('\u{dca}', '\u{dca}'), ('\u{e38}', '\u{e3a}'), ('\u{e47}', '\u{e4e}'),
    ('\u{eb8}', '\u{eba}'), ('\u{ec8}', '\u{ece}'), ('\u{f71}', '\u{f84}'), ('\u{1037}', '\u{103a}'),
    ('\u{17b4}', '\u{17d3}'), ('\u{1a55}', '\u{1a7f}'), ('\u{1b34}', '\u{1b44}'), ('\u{3099}', '\u{309a}'),
];

/// The characters of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Charset {
    /// ASCII alone.
    Ascii,
    /// All that SMTPUTF8 allows.
    Utf8,
}

/// An argument that does not begin with an address in angle brackets, or a wrong address in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an address in angle brackets")]
pub struct BadPath;

/// Reads the reverse-path of MAIL; `default_domain` completes an address without a domain.
///
/// Returns the rest of the argument, which holds the parameters.
///
/// # Errors
/// The argument does not begin with `<`, has no `>`, or what is between them is neither empty nor
/// an address.
pub fn reverse_path<'a>(
    argument: &'a [u8],
    default_domain: &str,
    charset: Charset,
) -> Result<(ReversePath, &'a [u8]), BadPath> {
    let (path, rest) = split(argument)?;
    let (local, domain) = halves(path);
    if local.is_empty() && domain.is_empty() {
        return Ok((ReversePath::NULL, rest));
    }
    Ok((mailbox(local, domain, default_domain, charset)?.into(), rest))
}

/// Reads the forward-path of RCPT; `default_domain` completes an address without a domain.
///
/// Returns the rest of the argument, which holds the parameters.
///
/// # Errors
/// As for [`reverse_path`]; `<>` is refused too.
pub fn forward_path<'a>(
    argument: &'a [u8],
    default_domain: &str,
    charset: Charset,
) -> Result<(Mailbox, &'a [u8]), BadPath> {
    let (path, rest) = split(argument)?;
    let (local, domain) = halves(path);
    Ok((mailbox(local, domain, default_domain, charset)?, rest))
}

/// The text between the brackets, and what follows them.
fn split(argument: &[u8]) -> Result<(&str, &[u8]), BadPath> {
    let inner = argument.strip_prefix(b"<").ok_or(BadPath)?;
    let end = inner.iter().position(|&b| b == b'>').ok_or(BadPath)?;
    let (path, rest) = inner.split_at_checked(end).ok_or(BadPath)?;
    if path.len() > limits::COMMAND_LINE {
        return Err(BadPath);
    }
    let path = std::str::from_utf8(path).map_err(|_| BadPath)?;
    Ok((path, rest.get(1..).unwrap_or_default()))
}

/// Local part and domain of a path: split at the last `@`, a source route dropped.
fn halves(path: &str) -> (&str, &str) {
    let (local, domain) = path.rsplit_once('@').unwrap_or((path, ""));
    let local = local.split_once(':').map_or(local, |(_, behind_route)| behind_route);
    (local, domain)
}

fn mailbox(
    local: &str,
    domain: &str,
    default_domain: &str,
    charset: Charset,
) -> Result<Mailbox, BadPath> {
    let domain = if domain.is_empty() { default_domain } else { domain };
    let (is_local, domain) = match charset {
        Charset::Ascii => (is_local_part(local), Cow::Borrowed(domain)),
        Charset::Utf8 => (is_utf8_local_part(local), to_ascii(domain).ok_or(BadPath)?),
    };
    if !is_local || !is_domain(&domain) {
        return Err(BadPath);
    }
    Mailbox::new(local, &domain).map_err(|_| BadPath)
}

/// A domain in ASCII: one with labels in other scripts in its form for resolvers (A-labels).
/// `None` if it has none. A domain in ASCII is not judged.
#[must_use]
pub fn to_ascii(domain: &str) -> Option<Cow<'_, str>> {
    if domain.is_ascii() {
        return Some(Cow::Borrowed(domain));
    }
    idna::domain_to_ascii_strict(domain).ok().map(Cow::Owned)
}

/// Whether `text` is a local part: 1 to 255 bytes, atoms with single dots between them.
#[must_use]
pub fn is_local_part(text: &str) -> bool {
    let atom = |atom: &str| !atom.is_empty() && atom.bytes().all(is_atom_byte);
    text.len() <= MAX_LOCAL && text.split('.').all(atom)
}

/// As [`is_local_part`], with letters, digits and marks of all scripts in its atoms.
#[must_use]
pub fn is_utf8_local_part(text: &str) -> bool {
    let is_mark = |c: char| {
        let index = MARKS.partition_point(|&(_, last)| last < c);
        MARKS.get(index).is_some_and(|&(first, _)| first <= c)
    };
    let in_atom = |c: char| match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => is_atom_byte(byte),
        _ => c.is_alphanumeric() || is_mark(c),
    };
    // A mark belongs to what is before it.
    let atom = |atom: &str| !atom.starts_with(is_mark) && atom.chars().all(in_atom);
    text.len() <= MAX_LOCAL && text.split('.').all(|a| !a.is_empty() && atom(a))
}

fn is_atom_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#%&'*/?^~+-=_".contains(&byte)
}

/// Whether `text` is a domain: a host name, or an address literal in brackets.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(is_address),
        None => is_host_name(text),
    }
}

/// Whether `text` is a host name as resolvers take it: labels of letters, digits, hyphens and
/// underscores, of which only the very first character may not be a hyphen.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label =
        |label: &str| !label.is_empty() && label.len() <= MAX_LABEL && label.bytes().all(letter);
    text.len() <= MAX_HOST_NAME.min(MAX_DOMAIN)
        && !text.starts_with('-')
        && text.split('.').all(label)
}

/// Whether `text` is what may stand in an address literal: IPv4, IPv6, or either after `IPv6:`.
fn is_address(text: &str) -> bool {
    let address = match text.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPv6:") => rest,
        _ => text,
    };
    address.parse::<Ipv4Addr>().is_ok() || address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const H: &str = "mx.example.org";

    fn sender(argument: &str) -> Option<String> {
        let read = reverse_path(argument.as_bytes(), H, Charset::Ascii);
        // What needs no other characters is the same with them.
        let with_all = reverse_path(argument.as_bytes(), H, Charset::Utf8);
        assert!(!argument.is_ascii() || read == with_all, "{argument}");
        read.ok().map(|(path, _)| path.to_string())
    }

    // RFC 6531, section 3.3; RFC 5890, section 2.3.2.1 for the labels.
    #[test]
    fn with_smtputf8_addresses_may_be_in_all_scripts() {
        let cases = [
            ("<müller@bücher.example>", Some("müller@xn--bcher-kva.example")),
            ("<a@BÜCHER.example>", Some("a@xn--bcher-kva.example")),
            ("<用户@例子.测试>", Some("用户@xn--fsqu00a.xn--0zwm56d")),
            ("<अभिषेक.क्ष@x.test>", Some("अभिषेक.क्ष@x.test")),
            ("<e\u{301}@x.test>", Some("e\u{301}@x.test")),
            ("<ü>", Some("ü@mx.example.org")),
            ("<a@xn--bcher-kva.example>", Some("a@xn--bcher-kva.example")),
            ("<\u{301}e@x.test>", None),
            ("<a\u{a0}b@x.test>", None),
            ("<a\u{200b}@x.test>", None),
            ("<a\u{2028}b@x.test>", None),
            ("<a\u{ff0e}.@x.test>", None),
            ("<\u{ff20}@x.test>", None),
            ("<☃@x.test>", None),
            ("<ü$@x.test>", None),
            ("<ü..x@x.test>", None),
            ("<a@bü cher.example>", None),
            ("<a@ü..example>", None),
            ("<a@ü.>", None),
            ("<a@[ü]>", None),
            ("<a@-ü.example>", None),
            ("<a@ü@x.test>", None),
        ];
        for (argument, expected) in cases {
            let path = reverse_path(argument.as_bytes(), H, Charset::Utf8).ok();
            assert_eq!(path.map(|(path, _)| path.to_string()).as_deref(), expected, "{argument}");
            let ascii = reverse_path(argument.as_bytes(), H, Charset::Ascii);
            assert!(argument.is_ascii() || ascii.is_err(), "{argument}");
        }
        let long = format!("<{}@b>", "ü".repeat(128));
        assert!(reverse_path(long.as_bytes(), H, Charset::Utf8).is_err(), "256 bytes");
        assert!(MARKS.is_sorted_by(|one, other| one.1 < other.0));
    }

    // Proves: smtp cases 51-65 (the address itself) and 224.
    #[test]
    fn senders_are_completed_or_refused() {
        let cases = [
            ("<a@b>", Some("a@b")),
            ("<>", Some("")),
            ("<a>", Some("a@mx.example.org")),
            ("<a@>", Some("a@mx.example.org")),
            ("<@x,@y:u@c>", Some("u@c")),
            ("<p:u@c>", Some("u@c")),
            ("<a@[1.2.3.4]>", Some("a@[1.2.3.4]")),
            ("<a@[IPv6:::1]>", Some("a@[IPv6:::1]")),
            ("<!#%&'*/?^~+-=_@b>", Some("!#%&'*/?^~+-=_@b")),
            ("<A.b@C>", Some("A.b@C")),
            ("a@b", None),
            ("", None),
            ("<a@b", None),
            ("<@b>", None),
            ("<x:@b>", None),
            ("<a.@b>", None),
            ("<.a@b>", None),
            ("<a..b@c>", None),
            ("<\"a b\"@c>", None),
            ("<\"a\"@c>", None),
            ("<a@b@c>", None),
            ("<a@b.>", None),
            ("<é@b>", None),
            ("<a@é>", None),
            ("<a(b)@c>", None),
            ("<a@b c>", None),
            ("<<a@b>>", None),
            ("<a\\b@c>", None),
            ("<;id;@b>", None),
            ("<;id;>", None),
            ("<a$@b>", None),
            ("<a`@b>", None),
            ("<a{@b>", None),
            ("<a|@b>", None),
            ("<a}@b>", None),
        ];
        for (argument, expected) in cases {
            assert_eq!(sender(argument).as_deref(), expected, "{argument}");
        }
    }

    // Proves: smtp case 58.
    #[test]
    fn a_local_part_has_at_most_255_bytes() {
        assert!(sender(&format!("<{}@b>", "a".repeat(255))).is_some());
        assert!(sender(&format!("<{}@b>", "a".repeat(256))).is_none());
    }

    // Proves: smtp cases 83, 84 (the address itself).
    #[test]
    fn recipients_are_never_null() {
        let cases = [
            ("<c@d>", Some("c@d")),
            ("<user>", Some("user@mx.example.org")),
            ("<>", None),
            ("< >", None),
            ("c@d", None),
        ];
        for (argument, expected) in cases {
            let path = forward_path(argument.as_bytes(), H, Charset::Ascii).ok();
            assert_eq!(path.as_ref().map(|(m, _)| m.as_str()), expected, "{argument}");
        }
        assert!(forward_path(b"<c\xff@d>", H, Charset::Utf8).is_err());
        assert_eq!(forward_path(b"<c@d>x", H, Charset::Ascii).unwrap().1, b"x");
    }

    // Proves: the domain rules of smtp cases 15-17.
    #[test]
    fn domains_are_host_names_or_address_literals() {
        let good = [
            "a.b",
            "1.2.3.4",
            "foo_bar.x",
            "foo-",
            "localhost",
            "[1.2.3.4]",
            "[::1]",
            "[IPv6:::1]",
            "[ipv6:::1]",
            "[IPv6:1.2.3.4]",
        ];
        let bad = [
            "",
            "foo.",
            "-foo",
            "a..b",
            ".a",
            "[foo]",
            "é.com",
            "[]",
            "[1.2.3.4",
            "1.2.3.4]",
            "a b",
            "[IPv6:]",
            "a\\098c",
            "[fe80::1%eth0]",
            "[[::1]]",
        ];
        for text in good {
            assert!(is_domain(text), "{text}");
        }
        for text in bad {
            assert!(!is_domain(text), "{text}");
        }
        let long = |count: usize| vec!["a".repeat(63); count].join(".");
        assert!(is_domain(&"a".repeat(63)));
        assert!(!is_domain(&"a".repeat(64)));
        assert!(is_domain(&long(3)));
        assert!(!is_domain(&long(4)), "255 bytes of text need 257 encoded");
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_read_again_as_the_same(argument in "<([ -~]|[a-cüक्例]){0,40}>.{0,5}") {
            if let Ok((path, _)) = reverse_path(argument.as_bytes(), H, Charset::Utf8) {
                let again = format!("<{path}>");
                let (second, rest) = reverse_path(again.as_bytes(), H, Charset::Utf8).unwrap();
                prop_assert_eq!(second, path);
                prop_assert!(rest.is_empty());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise(argument: Vec<u8>) {
            let _ = forward_path(&argument, H, Charset::Utf8);
        }
    }
}
