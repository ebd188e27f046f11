//! What values of tables mean.
//!
//! Source: table(5).

use std::net::{IpAddr, Ipv6Addr};

use super::Account;

/// The longest host name, in bytes.
const MAX_HOST_NAME: usize = 255;

/// A value is not what its service needs. The look-up then fails, which is temporary.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a valid value")]
pub struct BadValue;

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
