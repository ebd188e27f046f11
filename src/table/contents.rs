//! The entries of one table, indexed for what is asked of them.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Service;
use super::domain::Domains;
use super::expression::Expressions;
use super::mailaddr::MailAddresses;
use super::network::Networks;
use crate::config::{TableEntry, TableKind};

/// Entries in memory. An index for a comparison is made when it is first needed; then a look-up
/// takes the same time however many entries there are, but for domain patterns with a `*` elsewhere
/// than in a first label of its own, and for regular expressions.
#[derive(Debug)]
pub struct Table {
    kind: TableKind,
    entries: Vec<TableEntry>,
    /// Lower-cased keys; of equal ones the last counts.
    by_key: HashMap<Box<str>, usize>,
    sorted: OnceLock<Vec<Box<str>>>,
    domains: OnceLock<Domains>,
    mail_addresses: OnceLock<MailAddresses>,
    networks: OnceLock<Networks>,
    expressions: OnceLock<Expressions>,
}

impl Table {
    /// A table of these entries.
    #[must_use]
    pub fn new(kind: TableKind, entries: Vec<TableEntry>) -> Self {
        let by_key = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.key.to_ascii_lowercase().into_boxed_str(), index))
            .collect();
        Self {
            kind,
            entries,
            by_key,
            sorted: OnceLock::new(),
            domains: OnceLock::new(),
            mail_addresses: OnceLock::new(),
            networks: OnceLock::new(),
            expressions: OnceLock::new(),
        }
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// How many different keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether `key` is there under the comparison of `service`. `delimiter` separates user and tag
    /// of a local part.
    #[must_use]
    pub fn contains(&self, service: Service, key: &str, delimiter: char) -> bool {
        let lower = key.to_ascii_lowercase();
        match service {
            Service::Addrname
            | Service::Alias
            | Service::Auth
            | Service::Credentials
            | Service::Mailaddrmap
            | Service::Relayhost
            | Service::Source
            | Service::String
            | Service::Userinfo => self.by_key.contains_key(lower.as_str()),
            Service::Domain => {
                self.domains.get_or_init(|| Domains::new(self.keys())).contains(&lower)
            }
            Service::Mailaddr => self
                .mail_addresses
                .get_or_init(|| MailAddresses::new(self.keys()))
                .contains(&lower, delimiter),
            Service::Netaddr => {
                self.by_key.contains_key(lower.as_str())
                    || self.networks.get_or_init(|| Networks::new(self.keys())).contains(&lower)
            }
            Service::Regex => self.expressions().matches(key),
        }
    }

    /// The value of the key equal to `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let index = *self.by_key.get(key.to_ascii_lowercase().as_str())?;
        self.entries.get(index)?.value.as_deref()
    }

    /// The key for the `turn`th use of a list whose keys are used in turn, in byte order; `None` when
    /// there is none.
    #[must_use]
    pub fn in_turn(&self, turn: usize) -> Option<&str> {
        let sorted = self.sorted.get_or_init(|| {
            let mut keys: Vec<_> = self.by_key.keys().cloned().collect();
            keys.sort_unstable();
            keys
        });
        let index = turn.checked_rem(sorted.len())?;
        sorted.get(index).map(AsRef::as_ref)
    }

    /// The entries that are no valid regular expressions and so match nothing.
    #[must_use]
    pub fn invalid_expressions(&self) -> &[String] {
        self.expressions().invalid()
    }

    fn expressions(&self) -> &Expressions {
        let written = || self.entries.iter().map(|entry| entry.key.as_str());
        self.expressions.get_or_init(|| Expressions::new(written()))
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.by_key.keys().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    fn list(keys: &[&str]) -> Table {
        let entries =
            keys.iter().map(|key| TableEntry { key: (*key).to_owned(), value: None }).collect();
        Table::new(TableKind::List, entries)
    }

    #[test]
    fn keys_are_found_under_the_comparison_of_the_service() {
        let cases = [
            (177, Service::Domain, "a.org", "A.ORG", true),
            (178, Service::Netaddr, "2001:db8::/32", "[2001:db8::5]", true),
            (0, Service::Netaddr, "local", "local", true),
            (0, Service::Netaddr, "[fe80::1%eth0]", "[fe80::1%ETH0]", true),
            (157, Service::String, "tag*", "TAGGED", false),
            (156, Service::String, "tagged", "TAGGED", true),
            (191, Service::Regex, "^[A-Z]+$", "ABC", true),
            (191, Service::Regex, "^[A-Z]+$", "123", false),
            (193, Service::Mailaddr, "bob@example.org", "Bob+tag@Example.org", true),
        ];
        for (number, service, entry, key, expected) in cases {
            let found = list(&[entry]).contains(service, key, '+');
            assert_eq!(found, expected, "config case {number}: {entry} {key}");
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        // config case 184
        let entry = |key: &str, value: &str| TableEntry {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        };
        let table = Table::new(TableKind::Mapping, vec![entry("Dup", "A"), entry("dup", "B")]);
        assert_eq!(table.value("DUP"), Some("B"));
        assert_eq!(table.len(), 1);
        assert_eq!(table.value("other"), None);
        spec_case::ran("config", 184);
    }

    #[test]
    fn keys_are_used_in_turn_in_byte_order() {
        // config case 190
        let table = list(&["10.0.0.2", "10.0.0.1", "[::2]", "[::1]"]);
        let turns: Vec<_> = (0..5).filter_map(|turn| table.in_turn(turn)).collect();
        assert_eq!(turns, ["10.0.0.1", "10.0.0.2", "[::1]", "[::2]", "10.0.0.1"]);
        assert_eq!(list(&[]).in_turn(0), None);
        spec_case::ran("config", 190);
    }
}
