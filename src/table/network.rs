//! Addresses and networks in lists.
//!
//! Entries with fewer than four octets follow the old classes of addresses, as inet_net_pton(3)
//! does: `10` is 10.0.0.0/8 and `192.168` is 192.168.0.0/24.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks, found by hashing once for each prefix length in use.
#[derive(Debug, Default)]
pub(super) struct Networks {
    networks: HashSet<IpNet>,
    prefixes_4: Vec<u8>,
    prefixes_6: Vec<u8>,
}

impl Networks {
    /// The entries that are networks or addresses; others match nothing here.
    pub fn new<'a>(entries: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for network in entries.filter_map(parse) {
            let prefixes = match network {
                IpNet::V4(_) => &mut all.prefixes_4,
                IpNet::V6(_) => &mut all.prefixes_6,
            };
            if !prefixes.contains(&network.prefix_len()) {
                prefixes.push(network.prefix_len());
            }
            all.networks.insert(network.trunc());
        }
        all
    }

    /// Whether one of them holds `address`, an address as rules write it.
    pub fn contains(&self, address: &str) -> bool {
        let Some(address) = parse(address).map(|network| network.addr()) else { return false };
        let prefixes = match address {
            IpAddr::V4(_) => &self.prefixes_4,
            IpAddr::V6(_) => &self.prefixes_6,
        };
        prefixes.iter().any(|&prefix| {
            IpNet::new(address, prefix)
                .is_ok_and(|network| self.networks.contains(&network.trunc()))
        })
    }
}

/// Whether `text` is an address or a network, as an entry.
#[must_use]
pub fn is_network(text: &str) -> bool {
    parse(text).is_some()
}

/// A network or an address.
fn parse(text: &str) -> Option<IpNet> {
    parse_4(text).map(IpNet::V4).or_else(|| parse_6(text).map(IpNet::V6))
}

fn parse_4(text: &str) -> Option<Ipv4Net> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(parse_prefix(prefix, 32)?)),
        None => (text, None),
    };
    let given = match address.strip_prefix("0x") {
        Some(digits) => hexadecimal_octets(digits)?,
        None => address.split('.').map(decimal_octet).collect::<Option<Vec<_>>>()?,
    };
    if given.is_empty() || given.len() > 4 {
        return None;
    }
    let mut octets = [0; 4];
    for (octet, &value) in octets.iter_mut().zip(&given) {
        *octet = value;
    }
    let widened = u8::try_from(given.len() * 8).ok()?;
    let prefix = prefix.unwrap_or_else(|| class_prefix(octets[0]).max(widened));
    Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()
}

fn decimal_octet(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Two digits an octet; of a lone last digit the low half is 0.
fn hexadecimal_octets(digits: &str) -> Option<Vec<u8>> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let half = |byte: u8| char::from(byte).to_digit(16);
            let high = half(*pair.first()?)?;
            let low = pair.get(1).map_or(Some(0), |&byte| half(byte))?;
            u8::try_from(high * 16 + low).ok()
        })
        .collect()
}

/// The prefix length of an address whose network is not written.
fn class_prefix(first: u8) -> u8 {
    match first {
        240.. => 32,
        224.. => 8,
        192.. => 24,
        128.. => 16,
        _ => 8,
    }
}

/// `addr`, `addr/n`, each also in brackets, and after `IPv6:` inside or outside of them.
fn parse_6(text: &str) -> Option<Ipv6Net> {
    let text = without_tag(text);
    let text = match text.strip_prefix('[') {
        Some(rest) => without_tag(rest.strip_suffix(']')?),
        None => text,
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, parse_prefix(prefix, 128)?),
        None => (text, 128),
    };
    Ipv6Net::new(address.parse::<Ipv6Addr>().ok()?, prefix).ok()
}

fn without_tag(text: &str) -> &str {
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => &text[tag.len()..],
        _ => text,
    }
}

fn parse_prefix(text: &str, most: u8) -> Option<u8> {
    decimal_octet(text).filter(|&prefix| prefix <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_as_networks() {
        let cases = [
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("192.0.2.1/24", Some("192.0.2.1/24")),
            ("10", Some("10.0.0.0/8")),
            ("172", Some("172.0.0.0/16")),
            ("192.168", Some("192.168.0.0/24")),
            ("1.2.3", Some("1.2.3.0/24")),
            ("127.1", Some("127.1.0.0/16")),
            ("224", Some("224.0.0.0/8")),
            ("10/8", Some("10.0.0.0/8")),
            ("10/12", Some("10.0.0.0/12")),
            ("0x7f000001", Some("127.0.0.1/32")),
            ("0x7f", Some("127.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("[2001:db8::1]", Some("2001:db8::1/128")),
            ("[2001:db8::/32]", Some("2001:db8::/32")),
            ("ipv6:[::1]", Some("::1/128")),
            ("[IPv6:::1/64]", Some("::1/64")),
            ("[::1]/64", None),
            ("fe80::1%eth0", None),
            ("1.2.3.4.5", None),
            ("1.2.3.", None),
            ("1.2.3.256", None),
            ("1.2.3.4/33", None),
            ("1.2.3.4/", None),
            ("::1/129", None),
            ("example.org", None),
            ("0x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected.map(|network| network.parse().unwrap()), "{text:?}");
        }
    }

    #[test]
    fn addresses_in_networks() {
        let cases = [
            // config case 192
            ("192.168", "192.168.9.9", false),
            ("10", "10.0.0.1", true),
            ("10.1.2.3/8", "10.200.0.1", true),
            ("127.0.0.1", "127.0.0.5", false),
            ("2001:db8::/32", "[2001:db8::5]", true),
            ("2001:db8::/32", "[2001:db9::5]", false),
            ("::/0", "127.0.0.1", false),
            ("0.0.0.0/0", "[::1]", false),
            ("::/0", "[fe80::1%eth0]", false),
            ("::/0", "local", false),
        ];
        for (entry, address, expected) in cases {
            let found = Networks::new([entry, "203.0.113.0/25"].into_iter()).contains(address);
            assert_eq!(found, expected, "{entry} {address}");
        }
    }
}
