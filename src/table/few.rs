//! Tables of a few entries that are written in the configuration: looking through them is faster than
//! asking for them.
//!
//! Rules with an argument of their own have such a table each, and a search looks through all of them
//! for the same few keys. So entries are taken apart once for a configuration ([`FewTables`]), and a
//! key once for a search ([`Key`]).

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use super::{Service, domain, mailaddr, network};
use crate::config::{Config, TableEntry, TableId, TableSource};

/// How many entries are looked through.
const FEW: usize = 4;

/// The tables of a configuration that have a few entries, prepared for any key.
#[derive(Debug)]
pub struct FewTables {
    /// By [`TableId`]: where its entries are; `None` for a table that has to be asked.
    tables: Vec<Option<Range<usize>>>,
    /// Those of all tables in one row, for a search goes through them in this order.
    entries: Vec<Entry>,
    delimiter: char,
}

/// An entry as each service compares it.
#[derive(Debug)]
struct Entry {
    pattern: domain::Pattern,
    mail: Option<mailaddr::Entry>,
    /// The first and the last address of the network.
    network: Option<RangeInclusive<IpAddr>>,
}

/// A key as a service compares it.
#[derive(Clone, Debug)]
pub struct Key {
    /// The whole of it.
    name: domain::Name,
    form: Form,
}

/// What else a service wants to know of a key.
#[derive(Clone, Debug)]
enum Form {
    Domain,
    /// `None`: it is no mail address.
    Mailaddr(Option<mailaddr::Address>),
    /// `None`: it is no address of a host.
    Netaddr(Option<IpAddr>),
    Text,
}

impl FewTables {
    /// The tables of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut entries = Vec::new();
        let mut add = |source: &TableSource| {
            let TableSource::Inline(written) = source else { return None };
            if written.len() > FEW {
                return None;
            }
            let first = entries.len();
            entries.extend(written.iter().map(Entry::new));
            Some(first..entries.len())
        };
        let tables = config.tables.iter().map(|table| add(&table.source)).collect();
        Self { tables, entries, delimiter: config.smtp.sub_address_delimiter }
    }

    /// What [`Self::hold`] looks for to find `key` under the comparison of `service`; `None` where that
    /// takes a question: tables are prepared for this service, or refuse this key.
    #[must_use]
    pub fn key(&self, service: Service, key: &str) -> Option<Key> {
        if key.len() >= super::set::MAX_KEY {
            return None;
        }
        let form = match service {
            Service::Domain => Form::Domain,
            Service::Mailaddr => Form::Mailaddr(mailaddr::Address::new(key, self.delimiter)),
            Service::Netaddr => Form::Netaddr(network::address(key)),
            Service::String => Form::Text,
            _ => return None,
        };
        Some(Key { name: domain::Name::new(key), form })
    }

    /// Whether `key` is in a table; `None` where that takes a question: the table has many entries, or
    /// is elsewhere.
    #[inline]
    #[must_use]
    pub fn hold(&self, table: TableId, key: &Key) -> Option<bool> {
        let place = self.tables.get(table.0 as usize)?.clone()?;
        let mut entries = self.entries.get(place)?.iter();
        Some(match &key.form {
            Form::Domain => entries.any(|entry| entry.pattern.matches(&key.name)),
            Form::Mailaddr(None) => false,
            Form::Mailaddr(Some(address)) => {
                entries.any(|entry| entry.mail.as_ref().is_some_and(|mail| mail.matches(address)))
            }
            Form::Netaddr(address) => {
                entries.any(|entry| entry.holds(*address) || entry.pattern.is(&key.name))
            }
            Form::Text => entries.any(|entry| entry.pattern.is(&key.name)),
        })
    }
}

impl Entry {
    fn new(entry: &TableEntry) -> Self {
        Self {
            pattern: domain::Pattern::new(&entry.key),
            mail: mailaddr::Entry::new(&entry.key),
            network: network::entry(entry.key.as_bytes())
                .map(|network| network.network()..=network.broadcast()),
        }
    }

    fn holds(&self, address: Option<IpAddr>) -> bool {
        match (&self.network, address) {
            (Some(network), Some(address)) => network.contains(&address),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::good;
    use crate::table::{Answer, Question, Tables};

    const SERVICES: [Service; 4] =
        [Service::Domain, Service::Mailaddr, Service::String, Service::Netaddr];

    /// What both have to say of a key.
    fn both(
        config: &Config,
        table: TableId,
        service: Service,
        key: &str,
    ) -> (Option<bool>, Option<Answer>) {
        let few = FewTables::new(config);
        let held = few.key(service, key).and_then(|key| few.hold(table, &key));
        let question = Question::Contains { table, service, key: key.to_owned() };
        (held, Tables::new(config).answer(&question))
    }

    #[test]
    fn the_answer_is_that_of_the_table_or_none() {
        let config = good(
            "table few { a.org, \"*.b.org\", \"bob@c.org\", \"10.0.0.0/8\" }\n\
             table many { a.org, b.org, c.org, d.org, e.org }\ntable file file:/list\n\
             match reject",
        );
        let named = |name| config.table_named(name).unwrap();
        let long = "x".repeat(1024);
        for service in SERVICES {
            let mut found = 0;
            for key in ["A.org", "x.b.org", "Bob+x@C.org", "10.0.0.1", ""] {
                let (held, answer) = both(&config, named("few"), service, key);
                assert_eq!(held.map(Answer::Contains), answer, "{service:?} {key}");
                found += usize::from(held == Some(true));
            }
            assert!(found > 0, "{service:?}");
            for table in ["many", "file", "<getpwnam>", "<localnames>"] {
                assert_eq!(both(&config, named(table), service, "a.org").0, None, "{table}");
            }
            assert_eq!(both(&config, named("few"), service, &long).0, None);
            assert_eq!(both(&config, TableId(1000), service, "a.org").0, None);
        }
        assert_eq!(both(&config, named("few"), Service::Regex, "a").0, None);
    }

    /// An entry or a key; now and then one of each other's parts.
    fn word() -> impl Strategy<Value = String> {
        let name = "(\\*|\\*\\.)?[aAb*.]{0,4}";
        let mail = "[aAb+]{0,3}@?(\\*\\.)?[aAb*.@]{0,4}";
        let address = "(10|127)(\\.[0-2]){0,3}(/[0-9]{1,2})?";
        let long = "\\[?(ipv6:|IPv6:)?(fe80|::|2001:db8):?:?[0-2]?(%A)?(/[0-9]{1,3})?\\]?";
        prop_oneof![name, mail, address, long, "[ -~]{0,8}", "\\PC{0,4}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_table_says_what_is_said_for_it(
            entries in prop::collection::vec(word(), 0..=FEW),
            keys in prop::collection::vec(word(), 1..8),
            delimiter in "[+aA-]",
        ) {
            let mut config = good("table t { x }\nmatch reject");
            let table = config.table_named("t").unwrap();
            let entry = |key: &String| TableEntry { key: key.clone(), value: None };
            config.tables[table.0 as usize].source =
                TableSource::Inline(entries.iter().map(entry).collect());
            config.smtp.sub_address_delimiter = delimiter.chars().next().unwrap();
            for key in keys.iter().chain(&entries) {
                for service in SERVICES {
                    let (held, answer) = both(&config, table, service, key);
                    prop_assert_eq!(
                        held.map(Answer::Contains), answer, "{:?} {:?}", service, key
                    );
                    prop_assert!(held.is_some());
                }
            }
        }
    }
}
