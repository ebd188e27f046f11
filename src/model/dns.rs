//! Answers of the resolver that roles share: where mail for a domain goes, and names of addresses.
//!
//! The lookup role makes them ([`crate::lookup::dns`]); the dispatcher uses them. Rules: the queue
//! page of the specification, 3.4, and the SMTP page, 1.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// One mail exchange of a domain with its addresses.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Exchange {
    /// Preference; the lowest is tried first. 0 for an address of the domain itself.
    pub preference: u16,
    /// Its name, without a final dot; the literal as written for address literals.
    pub host: String,
    /// Its addresses, in the order in which they are tried; none if they are not known.
    pub addresses: Vec<IpAddr>,
}

/// Why mail for a domain or host cannot be routed now, or ever. The text is the envelope's status.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum DnsFailure {
    /// NXDOMAIN.
    #[error("Domain does not exist")]
    DoesNotExist,
    /// A smart host has no address.
    #[error("Host not found")]
    HostNotFound,
    /// Neither the domain nor any of its exchanges has an address.
    #[error("No MX found for domain")]
    NoExchange,
    /// Only the null MX of RFC 7505, or exchanges named `localhost`.
    #[error("Domain does not accept mail")]
    RefusesMail,
    /// No answer, or an answer that says nothing about the domain (SERVFAIL, REFUSED).
    #[error("Temporary failure in MX lookup")]
    Temporary,
}

impl DnsFailure {
    /// Whether trying again is pointless: the sender is told at once.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::DoesNotExist | Self::RefusesMail)
    }
}

/// What the reverse look-up of a client's or server's address found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reverse {
    /// The name; `None` when there is none, or the answer is unknown.
    pub name: Option<String>,
    /// Whether the name leads back to the address.
    pub confirmed: Confirmed,
}

/// Whether a reverse name leads back to its address (`fcrdns`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Confirmed {
    /// The resolver failed: nothing is known.
    Error,
    /// There is no name, or it has no such address.
    Fail,
    /// One address of the name is the client's.
    Pass,
}

/// The address that a domain literal names: `[192.0.2.1]`, `[IPv6:2001:db8::1]` or `[2001:db8::1]`.
#[must_use]
pub fn address_literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    if let Ok(address) = inside.parse::<Ipv4Addr>() {
        return Some(address.into());
    }
    let tagged = inside.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    let digits = if tagged { inside.get(5..)? } else { inside };
    digits.parse::<Ipv6Addr>().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_literals() {
        let cases = [
            ("[127.0.0.9]", Some("127.0.0.9")),
            ("[IPv6:2001:db8::1]", Some("2001:db8::1")),
            ("[ipv6:::1]", Some("::1")),
            ("[::1]", Some("::1")),
            ("127.0.0.9", None),
            ("[127.0.0.9", None),
            ("[IPv6:127.0.0.9]", None),
            ("[example.org]", None),
            ("[]", None),
        ];
        for (domain, expected) in cases {
            let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(address_literal(domain), expected, "{domain:?}");
        }
    }
}
