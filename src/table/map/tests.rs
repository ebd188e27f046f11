//! Map files: written, read, damaged.

use std::sync::{Arc, RwLock};

use super::*;

/// A storage that outlives who writes to it.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<RwLock<Vec<u8>>>);

impl StorageBackend for Memory {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.read().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.0.read().unwrap();
        let end = offset as usize + out.len();
        let found = bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.0.write().unwrap().resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut bytes = self.0.write().unwrap();
        bytes[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn bytes_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let memory = Memory::default();
    write(memory.clone(), entries.iter().copied()).unwrap();
    memory.0.read().unwrap().clone()
}

fn open(bytes: Vec<u8>) -> Result<Map, MapError> {
    Map::open(Memory(Arc::new(RwLock::new(bytes))))
}

fn set(keys: &[&str]) -> Map {
    let entries: Vec<_> = keys.iter().map(|key| (*key, SET_VALUE)).collect();
    open(bytes_of(&entries)).unwrap()
}

#[test]
fn keys_are_found_under_the_comparison_of_the_service() {
    let map = set(&[
        "*.wild.org",
        "10",
        "192.0.2.7",
        "2001:db8::/32",
        "@own.org",
        "^[a-z]+$",
        "a.org",
        "bob@ex*.org",
        "eve",
        "local",
        "st*r.org",
    ]);
    let cases = [
        (Service::Domain, "A.org", true),
        (Service::Domain, "x.Wild.org", true),
        (Service::Domain, "x.y.wild.org", false),
        (Service::Domain, "stXr.org", true),
        (Service::Domain, "b.org", false),
        (Service::Mailaddr, "x@own.org", true),
        (Service::Mailaddr, "Eve+tag@any.org", true),
        (Service::Mailaddr, "bob@example.org", true),
        (Service::Mailaddr, "rob@example.org", false),
        (Service::Netaddr, "10.1.2.3", true),
        (Service::Netaddr, "192.0.2.7", true),
        (Service::Netaddr, "192.0.2.8", false),
        (Service::Netaddr, "[2001:db8::1]", true),
        (Service::Netaddr, "[2001:db9::1]", false),
        (Service::Netaddr, "LOCAL", true),
        (Service::Regex, "ABC", true),
        (Service::Regex, "#", false),
        (Service::String, "EVE", true),
        (Service::String, "eva", false),
    ];
    for (service, key, expected) in cases {
        assert_eq!(map.contains(service, key, '+').unwrap(), expected, "{service:?} {key}");
    }
    assert_eq!(map.invalid_expressions().unwrap(), ["*.wild.org"]);
}

#[test]
fn values_are_found_and_keys_come_in_order() {
    let map = open(bytes_of(&[("bob", "eve, mallory"), ("root", "bob")])).unwrap();
    assert_eq!(map.value("ROOT").unwrap().as_deref(), Some("bob"));
    assert_eq!(map.value("zed").unwrap(), None);
    let mut all = Vec::new();
    map.each(|key, value| {
        all.push(format!("{key}={value}"));
        true
    })
    .unwrap();
    assert_eq!(all, ["bob=eve, mallory", "root=bob"]);
}

#[test]
fn an_empty_map_holds_nothing() {
    let map = open(bytes_of(&[])).unwrap();
    assert_eq!(map.value("a").unwrap(), None);
    assert!(!map.contains(Service::Netaddr, "127.0.0.1", '+').unwrap());
}

#[test]
fn other_files_are_refused_by_name() {
    let mut hash = [0; 64];
    hash[12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
    let mut old_tree = [0; 64];
    old_tree[..4].copy_from_slice(&0x0005_3162_u32.to_be_bytes());
    for head in [hash, old_tree] {
        assert!(matches!(open(head.to_vec()), Err(MapError::Berkeley)));
    }
    for other in [&b""[..], b"root: bob\n", &[0; 4096]] {
        assert!(matches!(open(other.to_vec()), Err(MapError::NotAMap)), "{other:.20?}");
    }
    assert_eq!(
        conversion("/etc/mail/map.db"),
        "makemap /etc/mail/map, or for aliases makemap -t aliases /etc/mail/map"
    );
    assert!(conversion("/map").starts_with("makemap -o /map SOURCE"));
}

#[test]
fn damage_is_an_error_or_goes_unnoticed_and_never_more() {
    let names: Vec<String> = (0..2000).map(|number| format!("user{number:05}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let whole = bytes_of(&entries);
    for step in 0..100 {
        let mut bytes = whole.clone();
        let at = step * bytes.len() / 100;
        let end = (at + 8).min(bytes.len());
        bytes[at..end].fill(0xa5);
        let Ok(map) = open(bytes) else { continue };
        let _ = map.value("user01000");
        let _ = map.each(|_, _| true);
    }
    for length in [16, 4095, 4096, whole.len() / 2, whole.len() - 1] {
        let Ok(map) = open(whole[..length].to_vec()) else { continue };
        let _ = map.each(|_, _| true);
    }
}

#[test]
fn networks_go_into_keys_and_back() {
    for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::/32"] {
        let network: IpNet = text.parse().unwrap();
        assert_eq!(read_network(&network_key(network)), Some(network));
    }
    assert_eq!(read_network(b""), None);
    assert_eq!(read_network(&[4, 33, 1, 2, 3, 4]), None);
}
