//! Paths of MAIL and RCPT, and the domains they and the greeting hold.
//!
//! This is the one validator of envelope addresses: what it refuses never becomes a
//! [`Mailbox`] of a session. Local parts are dot-atoms; quoted ones are refused, and so are the
//! characters ``$ ` { | }``, which shells interpret. Sources: RFC 5321 sections 4.1.2 and 4.1.3;
//! the SMTP page of the specification, 1.8.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::mailbox::{MAX_DOMAIN, MAX_LOCAL};
use crate::model::{Mailbox, ReversePath, limits};

/// Longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest host name as text: 255 bytes as encoded, with a length byte in front and a zero behind.
const MAX_HOST_NAME: usize = 253;

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
) -> Result<(ReversePath, &'a [u8]), BadPath> {
    let (path, rest) = split(argument)?;
    let (local, domain) = halves(path);
    if local.is_empty() && domain.is_empty() {
        return Ok((ReversePath::NULL, rest));
    }
    Ok((mailbox(local, domain, default_domain)?.into(), rest))
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
) -> Result<(Mailbox, &'a [u8]), BadPath> {
    let (path, rest) = split(argument)?;
    let (local, domain) = halves(path);
    Ok((mailbox(local, domain, default_domain)?, rest))
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

fn mailbox(local: &str, domain: &str, default_domain: &str) -> Result<Mailbox, BadPath> {
    let domain = if domain.is_empty() { default_domain } else { domain };
    if !is_local_part(local) || !is_domain(domain) {
        return Err(BadPath);
    }
    Mailbox::new(local, domain).map_err(|_| BadPath)
}

/// Whether `text` is a local part: 1 to 255 bytes, atoms with single dots between them.
#[must_use]
pub fn is_local_part(text: &str) -> bool {
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#%&'*/?^~+-=_".contains(&byte);
    text.len() <= MAX_LOCAL && text.split('.').all(|a| !a.is_empty() && a.bytes().all(atom))
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
        reverse_path(argument.as_bytes(), H).ok().map(|(path, _)| path.to_string())
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
            let path = forward_path(argument.as_bytes(), H).ok();
            assert_eq!(path.as_ref().map(|(m, _)| m.as_str()), expected, "{argument}");
        }
        assert!(forward_path(b"<c\xff@d>", H).is_err());
        assert_eq!(forward_path(b"<c@d>x", H).unwrap().1, b"x");
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
        fn what_is_accepted_is_read_again_as_the_same(argument in "<[ -~]{0,40}>.{0,5}") {
            if let Ok((path, _)) = reverse_path(argument.as_bytes(), H) {
                let again = format!("<{path}>");
                let (second, rest) = reverse_path(again.as_bytes(), H).unwrap();
                prop_assert_eq!(second, path);
                prop_assert!(rest.is_empty());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise(argument: Vec<u8>) {
            let _ = forward_path(&argument, H);
        }
    }
}
