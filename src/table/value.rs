//! What values of tables mean.
//!
//! Source: table(5).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use zeroize::Zeroizing;

use super::relay_url::RelayUrl;
use super::{Account, alias, mailaddr};

/// The longest host name, in bytes.
const MAX_HOST_NAME: usize = 255;
/// Values of this many bytes or more are refused (LINE_MAX of most systems).
pub const MAX_LINE: usize = 2048;
/// The shortest credentials, in bytes.
const MIN_CREDENTIALS: usize = 3;

/// A value is not what its service needs. The look-up then fails, which is temporary.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a valid value")]
pub struct BadValue;

/// Who logs in, and with what.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password, or for clients that log in here, its hash.
    pub password: Zeroizing<String>,
}

/// Without the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Reads credentials: `user:password`, where the password may hold colons, or a password alone, whose
/// user is `key`, lower-cased.
///
/// # Errors
/// [`BadValue`]: fewer than 3 bytes, 2048 or more, or the first colon is at the beginning or the end.
pub fn credentials(key: &str, text: &str) -> Result<Credentials, BadValue> {
    if !(MIN_CREDENTIALS..MAX_LINE).contains(&text.len()) {
        return Err(BadValue);
    }
    let (user, password) = match text.split_once(':') {
        Some(("", _) | (_, "")) => return Err(BadValue),
        Some((user, password)) => (user.to_owned(), password),
        None => (key.to_ascii_lowercase(), text),
    };
    Ok(Credentials { user, password: Zeroizing::new(password.to_owned()) })
}

/// Mail addresses and parts of them: those that a user may send from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MailAddresses(Vec<String>);

impl MailAddresses {
    /// Whether one of them matches `address`, by the rules of lists of mail addresses. The null sender
    /// is `@` or nothing. `delimiter` separates user and tag.
    #[must_use]
    pub fn contain(&self, address: &str, delimiter: char) -> bool {
        self.0.iter().any(|entry| mailaddr::matches(entry.as_bytes(), address, delimiter))
    }
}

/// Reads the mail addresses that a user may send from, separated by commas.
///
/// # Errors
/// [`BadValue`]: a quote is open, the last character is a backslash, or the value has 2048 bytes or
/// more.
pub fn mail_addresses(text: &str) -> Result<MailAddresses, BadValue> {
    if text.len() >= MAX_LINE {
        return Err(BadValue);
    }
    let items = alias::split(text).map_err(|_| BadValue)?;
    let items = items.iter().map(|item| item.trim_ascii().to_owned());
    Ok(MailAddresses(items.filter(|item| !item.is_empty()).collect()))
}

/// Reads a relay URL.
///
/// # Errors
/// [`BadValue`]: it is none, or has 2048 bytes or more.
pub fn relay_host(text: &str) -> Result<RelayUrl, BadValue> {
    if text.len() >= MAX_LINE {
        return Err(BadValue);
    }
    RelayUrl::parse(text).map_err(|_| BadValue)
}

/// Reads an account: `uid:gid:home`. The home may be empty and may hold colons.
///
/// # Errors
/// [`BadValue`]: a part is missing or a number is none.
pub fn account(text: &str) -> Result<Account, BadValue> {
    let mut parts = text.splitn(3, ':');
    let mut number = || parts.next().and_then(decimal).ok_or(BadValue);
    let (uid, gid) = (number()?, number()?);
    let home = parts.next().ok_or(BadValue)?.to_owned();
    Ok(Account { uid, gid, home })
}

/// Reads an address to connect from: IPv4, or IPv6 with or without brackets and `IPv6:`, and the
/// interface of a link-local one.
///
/// # Errors
/// [`BadValue`]: no address.
pub fn source(text: &str) -> Result<(IpAddr, Option<&str>), BadValue> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let text = match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => &text[tag.len()..],
        _ => text,
    };
    match text.split_once('%') {
        Some((address, scope)) if !scope.is_empty() => {
            let address: Ipv6Addr = address.parse().map_err(|_| BadValue)?;
            Ok((address.into(), Some(scope)))
        }
        _ => text.parse().map(|address| (address, None)).map_err(|_| BadValue),
    }
}

/// Reads the name of an address. `key` is the address.
///
/// # Errors
/// [`BadValue`]: the key is no address, the name is empty or too long.
pub fn address_name<'a>(key: &str, text: &'a str) -> Result<(IpAddr, &'a str), BadValue> {
    let (address, _) = source(key)?;
    Ok((address, host_name(text)?))
}

/// Reads a host name.
///
/// # Errors
/// [`BadValue`]: empty or too long.
pub fn host_name(text: &str) -> Result<&str, BadValue> {
    if text.is_empty() || text.len() > MAX_HOST_NAME { Err(BadValue) } else { Ok(text) }
}

fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TableKind;
    use crate::spec_case;
    use crate::table::Table;

    /// The value of `key` in a file with this text.
    fn value_of(text: &str, key: &str) -> Option<String> {
        let table = Table::read(text.into(), TableKind::Undecided).unwrap();
        table.value(key).map(std::borrow::Cow::into_owned)
    }

    #[test]
    fn credentials_are_a_user_and_a_password_or_a_password_alone() {
        let cases = [
            (185, "label user:pa:ss\n", "label", Ok(("user", "pa:ss"))),
            (186, "lab3 justpass\n", "LAB3", Ok(("lab3", "justpass"))),
            (187, "x :p\n", "x", Err(BadValue)),
            (187, "x u:\n", "x", Err(BadValue)),
            (187, "x ab\n", "x", Err(BadValue)),
            (0, "x :pass\n", "x", Err(BadValue)),
            (0, "x user:\n", "x", Err(BadValue)),
            (0, "x abc\n", "x", Ok(("x", "abc"))),
        ];
        for (number, file, key, expected) in cases {
            let found = credentials(key, &value_of(file, key).unwrap());
            let expected = expected.map(|(user, password): (&str, &str)| Credentials {
                user: user.to_owned(),
                password: Zeroizing::new(password.to_owned()),
            });
            assert_eq!(found, expected, "config case {number}: {file}");
            spec_case::ran("config", number);
        }
        assert!(credentials("k", &"x".repeat(2048)).is_err());
        let shown = format!("{:?}", credentials("k", "user:secret"));
        assert!(shown.contains("user") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn values_of_aliases_are_what_their_lines_say() {
        let bob = Ok(vec![alias::Item::User("bob".to_owned())]);
        let cases = [
            (181, "root: bob\n", "ROOT", bob),
            (182, "root : bob\n", "root", Err(alias::BadValue)),
            (183, "key: value # note\n", "key", Err(alias::BadValue)),
        ];
        for (number, file, key, expected) in cases {
            let found = alias::parse(&value_of(file, key).unwrap());
            assert_eq!(found, expected, "config case {number}: {file}");
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn the_addresses_of_a_user_match_as_lists_of_addresses_do() {
        // config case 196
        let file = "alice: alice@x.org, @own.org, al*@z.org, shared\n";
        let senders = mail_addresses(&value_of(file, "alice").unwrap()).unwrap();
        for good in ["alice+t@x.org", "zz@own.org", "shared@any.org"] {
            assert!(senders.contain(good, '+'), "{good}");
        }
        for bad in ["alan@z.org", "@", "", "bob@x.org"] {
            assert!(!senders.contain(bad, '+'), "{bad:?}");
        }
        assert!(mail_addresses("@").unwrap().contain("@", '+'));
        assert_eq!(mail_addresses("\"alice"), Err(BadValue));
        spec_case::ran("config", 196);
    }

    #[test]
    fn names_of_addresses() {
        // config case 189
        let name = value_of("[::1]\tlocalhost\n", "[::1]").unwrap();
        assert_eq!(address_name("[::1]", &name), Ok(("::1".parse().unwrap(), "localhost")));
        assert_eq!(address_name("mx", "localhost"), Err(BadValue));
        spec_case::ran("config", 189);
    }

    #[test]
    fn relay_hosts() {
        assert_eq!(relay_host("smtps://mx").unwrap().to_string(), "smtps://mx:465");
        assert_eq!(relay_host("smtp://l@mx"), Err(BadValue));
        assert_eq!(relay_host(&format!("mx/{}", "x".repeat(2048))), Err(BadValue));
    }

    #[test]
    fn accounts() {
        // config case 188
        let account_of = |uid, gid, home: &str| Ok(Account { uid, gid, home: home.to_owned() });
        let cases = [
            ("1000:100:/home/a", account_of(1000, 100, "/home/a")),
            ("1000:100", Err(BadValue)),
            ("x:100:/h", Err(BadValue)),
            ("1:2:", account_of(1, 2, "")),
            ("1:2:/a:b", account_of(1, 2, "/a:b")),
            ("-1:2:/a", Err(BadValue)),
            ("4294967296:2:/a", Err(BadValue)),
            ("", Err(BadValue)),
        ];
        for (text, expected) in cases {
            assert_eq!(account(text), expected, "{text:?}");
        }
        spec_case::ran("config", 188);
    }

    #[test]
    fn sources() {
        let cases = [
            ("10.0.0.1", Ok(("10.0.0.1", None))),
            ("::1", Ok(("::1", None))),
            ("[::1]", Ok(("::1", None))),
            ("[IPv6:::1]", Ok(("::1", None))),
            ("fe80::1%eth0", Ok(("fe80::1", Some("eth0")))),
            ("10.0.0.1%eth0", Err(BadValue)),
            ("fe80::1%", Err(BadValue)),
            ("mx", Err(BadValue)),
            ("", Err(BadValue)),
        ];
        for (text, expected) in cases {
            let expected =
                expected.map(|(address, scope): (&str, _)| (address.parse().unwrap(), scope));
            assert_eq!(source(text), expected, "{text:?}");
        }
    }

    #[test]
    fn host_names() {
        assert_eq!(host_name("localhost"), Ok("localhost"));
        assert_eq!(host_name(""), Err(BadValue));
        assert_eq!(host_name(&"x".repeat(256)), Err(BadValue));
    }
}
