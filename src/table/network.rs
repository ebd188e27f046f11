//! Addresses and networks in lists.
//!
//! Entries with fewer than four octets follow the old classes of addresses, as inet_net_pton(3)
//! does: `10` is 10.0.0.0/8 and `192.168` is 192.168.0.0/24.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::index::Index;

/// Networks among entries, found by hashing once for each prefix length in use. The entries stay
/// where they are.
#[derive(Debug)]
pub(super) struct Networks {
    index: Index,
    prefixes: Prefixes,
}

/// The prefix lengths in use, for each family.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    version_4: Vec<u8>,
    version_6: Vec<u8>,
}

impl Networks {
    /// The networks among at most `room` entries. `network` tells which network an entry is.
    pub fn new(
        room: usize,
        places: impl Iterator<Item = u32>,
        network: impl Fn(u32) -> Option<IpNet>,
    ) -> Self {
        let mut index = Index::with_room(room);
        let mut prefixes = Prefixes::default();
        for place in places {
            let Some(found) = network(place) else { continue };
            prefixes.add(found);
            index.insert(index.hash(found), place, |other| network(other) == Some(found));
        }
        Self { index, prefixes }
    }

    /// Whether one of them holds `address`, an address as rules write it.
    pub fn contains(&self, address: &str, network: impl Fn(u32) -> Option<IpNet>) -> bool {
        self.prefixes.networks_of(address).any(|wanted| {
            let hash = self.index.hash(wanted);
            self.index.find(hash, |place| network(place) == Some(wanted)).is_some()
        })
    }
}

impl Prefixes {
    /// Notes the prefix length of a network.
    pub fn add(&mut self, network: IpNet) {
        let prefixes = match network {
            IpNet::V4(_) => &mut self.version_4,
            IpNet::V6(_) => &mut self.version_6,
        };
        if !prefixes.contains(&network.prefix_len()) {
            prefixes.push(network.prefix_len());
        }
    }

    /// The networks with these prefix lengths that hold `address`; none if it is no address.
    pub fn networks_of(&self, address: &str) -> impl Iterator<Item = IpNet> {
        let address = self::address(address);
        let prefixes = match address {
            Some(IpAddr::V4(_)) => self.version_4.as_slice(),
            Some(IpAddr::V6(_)) => self.version_6.as_slice(),
            None => &[],
        };
        let with = move |prefix: &u8| Some(IpNet::new(address?, *prefix).ok()?.trunc());
        prefixes.iter().filter_map(with)
    }
}

/// The address that `text` is, as rules write it.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    parse(text).map(|network| network.addr())
}

/// The network that an entry is, without the bits of the host.
pub(super) fn entry(text: &[u8]) -> Option<IpNet> {
    parse(std::str::from_utf8(text).ok()?).map(|network| network.trunc())
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
    let mut octets = [0; 4];
    let mut given = 0;
    let mut add = |octet: u8| {
        *octets.get_mut(given)? = octet;
        given += 1;
        Some(())
    };
    match address.strip_prefix("0x").or_else(|| address.strip_prefix("0X")) {
        Some(digits) => {
            for pair in digits.as_bytes().chunks(2) {
                add(hexadecimal_octet(pair)?)?;
            }
        }
        None => {
            for octet in address.split('.') {
                add(decimal_octet(octet)?)?;
            }
        }
    }
    if given == 0 {
        return None;
    }
    let widened = u8::try_from(given * 8).ok()?;
    let prefix = prefix.unwrap_or_else(|| class_prefix(octets[0]).max(widened));
    Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()
}

fn decimal_octet(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Two digits; of a lone one the low half is 0.
fn hexadecimal_octet(digits: &[u8]) -> Option<u8> {
    let half = |byte: u8| char::from(byte).to_digit(16);
    let high = half(*digits.first()?)?;
    let low = digits.get(1).map_or(Some(0), |&byte| half(byte))?;
    u8::try_from(high * 16 + low).ok()
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
            ("0X7F", Some("127.0.0.0/8")),
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
            let entries = [entry, "203.0.113.0/25"];
            let network = |place: u32| super::entry(entries[place as usize].as_bytes());
            let found = Networks::new(2, 0..2, network).contains(address, network);
            assert_eq!(found, expected, "{entry} {address}");
            let alone = super::entry(entry.as_bytes())
                .zip(super::address(address))
                .is_some_and(|(network, address)| network.contains(&address));
            assert_eq!(alone, expected, "alone: {entry} {address}");
        }
    }
}
