//! The entries of one table in memory, indexed for what is asked of them.
//!
//! A table that is read from a file keeps the file's text and, for each entry, where in it the entry
//! begins, in six bytes and a quarter. Nothing is copied out of the text, so a million entries take little
//! more than their file.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::expression::Expressions;
use super::file::{self, InvalidEntry, Reader};
use super::index::Index;
use super::network::{self, Networks};
use super::{Service, domain, mailaddr};
use crate::config::{TableEntry, TableKind};

/// Entries in memory. A look-up takes the same time however many entries there are, but for domain
/// patterns with a `*` elsewhere than in a first label of its own, and for regular expressions.
#[derive(Debug)]
pub struct Table {
    kind: TableKind,
    entries: Entries,
    keys: Keys,
    in_order: OnceLock<Box<[u32]>>,
    networks: OnceLock<Networks>,
    expressions: OnceLock<Expressions>,
}

/// What is known of the keys as soon as they are there.
#[derive(Debug)]
struct Keys {
    /// By key, in any case; of equal ones the last.
    by_key: Index,
    /// The domain patterns that are tried one by one.
    patterns: Vec<u32>,
    /// The mail addresses with such patterns.
    mail_patterns: Vec<u32>,
}

/// Where the entries are. A *place* is an entry's number there, or where it begins.
#[derive(Debug)]
enum Entries {
    /// Written in the configuration.
    Given(Vec<TableEntry>),
    /// In the text of a file.
    Text(Vec<u8>),
}

impl Table {
    /// A table of these entries.
    #[must_use]
    pub fn new(kind: TableKind, entries: Vec<TableEntry>) -> Self {
        let room = entries.len();
        let entries = Entries::Given(entries);
        let mut keys = Keys::with_room(room);
        for place in 0..u32::try_from(room).unwrap_or(u32::MAX) {
            keys.add(&entries, kind, place);
        }
        Self::of(kind, entries, keys)
    }

    /// The table that the text of a file is. `known` is the kind that an earlier reading found,
    /// which stays.
    ///
    /// # Errors
    /// A line is no entry, or is more than four gigabytes from the beginning.
    pub fn read(text: Vec<u8>, known: TableKind) -> Result<Self, InvalidEntry> {
        let survey = file::survey(&text, known)?;
        let entries = Entries::Text(text);
        let mut keys = Keys::with_room(survey.entries);
        for entry in entries.lines(survey.kind) {
            let entry = entry?;
            let too_far = InvalidEntry { line: entry.line };
            let place = u32::try_from(entry.offset).map_err(|_| too_far)?;
            keys.add(&entries, survey.kind, place);
        }
        Ok(Self::of(survey.kind, entries, keys))
    }

    fn of(kind: TableKind, entries: Entries, keys: Keys) -> Self {
        Self {
            kind,
            entries,
            keys,
            in_order: OnceLock::new(),
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
        self.keys.by_key.len()
    }

    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes now what questions of this service would make when the first comes.
    pub fn prepare(&self, service: Service) {
        match service {
            Service::Netaddr => {
                self.networks();
            }
            Service::Regex => {
                self.expressions();
            }
            Service::Source | Service::Relayhost => {
                self.in_order();
            }
            _ => {}
        }
    }

    /// Whether `key` is there under the comparison of `service`. `delimiter` separates user and tag
    /// of a local part.
    #[must_use]
    pub fn contains(&self, service: Service, key: &str, delimiter: char) -> bool {
        match service {
            Service::Domain => {
                domain::plain_patterns(key).any(|pattern| self.has(&pattern))
                    || (self.keys.patterns.iter())
                        .any(|place| domain::matches(self.key(*place), key.as_bytes()))
            }
            Service::Mailaddr => {
                let plain = mailaddr::plain_entries(key, delimiter);
                plain.iter().any(|entry| self.has(entry))
                    || (self.keys.mail_patterns.iter())
                        .any(|place| mailaddr::matches(self.key(*place), key, delimiter))
            }
            Service::Netaddr => {
                self.has(key) || self.networks().contains(key, |place| self.network(place))
            }
            Service::Regex => self.expressions().matches(key),
            Service::Addrname
            | Service::Alias
            | Service::Auth
            | Service::Credentials
            | Service::Mailaddrmap
            | Service::Relayhost
            | Service::Source
            | Service::String
            | Service::Userinfo => self.has(key),
        }
    }

    /// The value of the key equal to `key`. What is not UTF-8 in it is replaced.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Cow<'_, str>> {
        let place = self.place(key)?;
        self.entries.value(self.kind, place).map(String::from_utf8_lossy)
    }

    /// The key for the `turn`th use of a list whose keys are used in turn, in byte order; `None` when
    /// there is none.
    #[must_use]
    pub fn in_turn(&self, turn: usize) -> Option<String> {
        let order = self.in_order();
        let place = order.get(turn.checked_rem(order.len())?)?;
        Some(String::from_utf8_lossy(&self.key(*place).to_ascii_lowercase()).into_owned())
    }

    /// The keys, in no order, lower-cased. What is not UTF-8 in them is replaced.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        let places = self.keys.by_key.places();
        places.map(|place| {
            String::from_utf8_lossy(&self.key(place).to_ascii_lowercase()).into_owned()
        })
    }

    /// The entries that are no valid regular expressions and so match nothing.
    #[must_use]
    pub fn invalid_expressions(&self) -> &[String] {
        self.expressions().invalid()
    }

    fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    fn place(&self, key: &str) -> Option<u32> {
        let hash = self.keys.by_key.hash_folded(key.as_bytes());
        let same = |place| self.key(place).eq_ignore_ascii_case(key.as_bytes());
        self.keys.by_key.find(hash, same)
    }

    fn key(&self, place: u32) -> &[u8] {
        self.entries.key(self.kind, place)
    }

    fn network(&self, place: u32) -> Option<ipnet::IpNet> {
        network::entry(self.key(place))
    }

    fn networks(&self) -> &Networks {
        let places = self.keys.by_key.places();
        self.networks.get_or_init(|| Networks::new(self.len(), places, |place| self.network(place)))
    }

    fn expressions(&self) -> &Expressions {
        // As written: what differs in case alone may mean something else.
        self.expressions.get_or_init(|| match &self.entries {
            Entries::Given(entries) => {
                Expressions::new(entries.iter().map(|entry| entry.key.as_bytes()))
            }
            Entries::Text(text) => {
                let entries = Reader::new(text, self.kind).filter_map(Result::ok);
                Expressions::new(entries.map(|entry| entry.key))
            }
        })
    }

    fn in_order(&self) -> &[u32] {
        self.in_order.get_or_init(|| {
            let mut places: Box<[u32]> = self.keys.by_key.places().collect();
            let folded = |place: u32| self.key(place).iter().map(u8::to_ascii_lowercase);
            places.sort_unstable_by(|a, b| folded(*a).cmp(folded(*b)));
            places
        })
    }
}

impl Keys {
    fn with_room(entries: usize) -> Self {
        let by_key = Index::with_room(entries);
        Self { by_key, patterns: Vec::new(), mail_patterns: Vec::new() }
    }

    fn add(&mut self, entries: &Entries, kind: TableKind, place: u32) {
        let key = entries.key(kind, place);
        let hash = self.by_key.hash_folded(key);
        let same = |other| entries.key(kind, other).eq_ignore_ascii_case(key);
        self.by_key.insert(hash, place, same);
        if !domain::is_plain(key) {
            self.patterns.push(place);
        }
        if !mailaddr::is_plain(key) {
            self.mail_patterns.push(place);
        }
    }
}

impl Entries {
    /// The lines of a text.
    fn lines(&self, kind: TableKind) -> Reader<'_> {
        match self {
            Self::Given(_) => Reader::new(&[], kind),
            Self::Text(text) => Reader::new(text, kind),
        }
    }

    fn key(&self, kind: TableKind, place: u32) -> &[u8] {
        match self {
            Self::Given(entries) => {
                entries.get(place as usize).map_or(&[], |entry| entry.key.as_bytes())
            }
            Self::Text(text) => file::at(text, place as usize, kind).0,
        }
    }

    fn value(&self, kind: TableKind, place: u32) -> Option<&[u8]> {
        match self {
            Self::Given(entries) => {
                entries.get(place as usize)?.value.as_deref().map(str::as_bytes)
            }
            Self::Text(text) => file::at(text, place as usize, kind).1,
        }
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

    /// The same list as a file.
    fn list_file(keys: &[&str]) -> Table {
        Table::read(keys.join("\n").into_bytes(), TableKind::List).unwrap()
    }

    #[test]
    fn keys_are_found_under_the_comparison_of_the_service() {
        let cases = [
            (177, Service::Domain, "a.org", "A.ORG", true),
            (0, Service::Domain, "*.A.org", "b.a.org", true),
            (0, Service::Domain, "*.a.org", "c.b.a.org", false),
            (0, Service::Domain, "B*.Org", "b1.org", true),
            (0, Service::Domain, "*", "x", true),
            (0, Service::Domain, "*", "", false),
            (178, Service::Netaddr, "2001:db8::/32", "[2001:db8::5]", true),
            (192, Service::Netaddr, "192.168", "192.168.9.9", false),
            (192, Service::Netaddr, "10", "10.0.0.1", true),
            (0, Service::Netaddr, "local", "local", true),
            (0, Service::Netaddr, "[fe80::1%eth0]", "[fe80::1%ETH0]", true),
            (157, Service::String, "tag*", "TAGGED", false),
            (156, Service::String, "tagged", "TAGGED", true),
            (191, Service::Regex, "^[A-Z]+$", "ABC", true),
            (191, Service::Regex, "^[A-Z]+$", "123", false),
            (193, Service::Mailaddr, "bob@example.org", "Bob+tag@Example.org", true),
            (0, Service::Mailaddr, "bob@ex*.org", "Bob+tag@Example.org", true),
            (0, Service::Mailaddr, "eve@ex*.org", "Bob+tag@Example.org", false),
        ];
        for (number, service, entry, key, expected) in cases {
            for table in [list(&[entry]), list_file(&["# c", " other ", entry, "", "last"])] {
                table.prepare(service);
                let found = table.contains(service, key, '+');
                assert_eq!(found, expected, "config case {number}: {entry} {key}");
            }
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn a_list_that_looks_like_a_mapping_has_no_networks() {
        // config case 179
        let table = Table::read(b"2001:db8::/32\n".to_vec(), TableKind::Undecided).unwrap();
        assert_eq!(table.kind(), TableKind::Mapping);
        assert!(!table.contains(Service::Netaddr, "[2001:db8::5]", '+'));
        assert!(table.contains(Service::String, "2001", '+'));
        spec_case::ran("config", 179);
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        // config case 184
        let entry = |key: &str, value: &str| TableEntry {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        };
        let given = Table::new(TableKind::Mapping, vec![entry("Dup", "A"), entry("dup", "B")]);
        let file = Table::read(b"Dup: A\n\ndup:\tB \n".to_vec(), TableKind::Undecided).unwrap();
        for table in [given, file] {
            assert_eq!(table.value("DUP").as_deref(), Some("B"));
            assert_eq!((table.len(), table.is_empty()), (1, false));
            assert_eq!(table.value("other"), None);
        }
        spec_case::ran("config", 184);
    }

    #[test]
    fn keys_are_used_in_turn_in_byte_order() {
        // config case 190
        let keys = ["10.0.0.2", "10.0.0.1", "[::2]", "[::1]"];
        for table in [list(&keys), list_file(&keys)] {
            let turns: Vec<_> = (0..5).filter_map(|turn| table.in_turn(turn)).collect();
            assert_eq!(turns, ["10.0.0.1", "10.0.0.2", "[::1]", "[::2]", "10.0.0.1"]);
        }
        assert_eq!(list(&[]).in_turn(0), None);
        assert_eq!(list(&["B", "a"]).in_turn(1).as_deref(), Some("b"));
        spec_case::ran("config", 190);
    }

    #[test]
    fn expressions_are_taken_as_written() {
        for table in [list(&[r"^\S$", r"^\s$", "("]), list_file(&[r"^\S$", r"^\s$", "("])] {
            assert!(table.contains(Service::Regex, "x", '+'));
            assert!(table.contains(Service::Regex, " ", '+'));
            assert_eq!(table.invalid_expressions(), ["("]);
        }
    }

    #[test]
    fn bytes_that_are_no_text_match_nothing_and_harm_nothing() {
        let table = Table::read(b"\xff: x\na: \xff\n".to_vec(), TableKind::Undecided).unwrap();
        assert_eq!(table.value("\u{fffd}"), None);
        assert_eq!(table.value("a").as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn a_file_is_read_as_a_whole_or_not_at_all() {
        let wrong = Table::read(b"a: b\nc\n".to_vec(), TableKind::Undecided).unwrap_err();
        assert_eq!(wrong, InvalidEntry { line: 2 });
    }
}
