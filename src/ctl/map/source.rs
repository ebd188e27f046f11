//! The text of a map: which entries it has.
//!
//! The lines are those of table files; unlike there, a key may stand only once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::options::Kind;
use crate::config::TableKind;
use crate::table::alias;
use crate::table::file::Reader;
use crate::table::map::SET_VALUE;

/// A line that cannot be made part of a map. Printed after the path and a colon.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceError {
    /// The key was there before.
    #[error("{line}: duplicate entry for {key}")]
    Duplicate {
        /// The line, from 1.
        line: usize,
        /// The key, lower-cased.
        key: String,
    },
    /// A value is missing, or is none of this kind.
    #[error("{line}: invalid entry")]
    Invalid {
        /// The line, from 1.
        line: usize,
    },
}

/// The entries of a text, by their keys, lower-cased. Bytes that are not UTF-8 are replaced.
///
/// # Errors
/// The first line that is wrong.
pub fn entries(text: &[u8], kind: Kind) -> Result<BTreeMap<String, String>, SourceError> {
    let known = match kind {
        Kind::Aliases => TableKind::Mapping,
        Kind::Plain => TableKind::Undecided,
        Kind::Set => TableKind::List,
    };
    let mut reader = Reader::new(text, known);
    let mut entries = BTreeMap::new();
    while let Some(entry) = reader.next() {
        let entry = entry.map_err(|error| SourceError::Invalid { line: error.line })?;
        let line = entry.line;
        let key = String::from_utf8_lossy(entry.key).to_ascii_lowercase();
        let value = match entry.value {
            Some(value) => String::from_utf8_lossy(value).into_owned(),
            None if kind == Kind::Set || reader.is_marked() => SET_VALUE.to_owned(),
            None => return Err(SourceError::Invalid { line }),
        };
        if kind == Kind::Aliases && alias::parse(&value).is_err() {
            return Err(SourceError::Invalid { line });
        }
        match entries.entry(key) {
            Entry::Occupied(known) => {
                return Err(SourceError::Duplicate { line, key: known.key().clone() });
            }
            Entry::Vacant(free) => {
                free.insert(value);
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    type Expected = Result<&'static [(&'static str, &'static str)], SourceError>;

    #[test]
    fn texts_and_their_entries() {
        let invalid = |line| Err(SourceError::Invalid { line });
        let cases: [(u32, &str, Kind, Expected); 15] = [
            (197, "Foo: bar baz\n", Kind::Plain, Ok(&[("foo", "bar baz")])),
            (
                198,
                "foo: a\nFOO: b\n",
                Kind::Plain,
                Err(SourceError::Duplicate { line: 2, key: "foo".to_owned() }),
            ),
            (199, "one\nTwo\n", Kind::Set, Ok(&[("one", "<set>"), ("two", "<set>")])),
            (0, "one two\n", Kind::Set, Ok(&[("one two", "<set>")])),
            (200, "key\n", Kind::Plain, invalid(1)),
            (200, "abc def # x\n", Kind::Plain, Ok(&[("abc", "def # x")])),
            (200, "a\\\nb: c\n", Kind::Plain, invalid(1)),
            (0, "a: b\nkey\n", Kind::Plain, invalid(2)),
            (0, "# @list\n2001:db8::/32\n", Kind::Plain, Ok(&[("2001:db8::/32", "<set>")])),
            (0, "# nothing\n", Kind::Plain, Ok(&[])),
            (
                0,
                "root: bob, |\"/bin/cat -n\"\nabuse:/dev/null\n",
                Kind::Aliases,
                Ok(&[("abuse", "/dev/null"), ("root", "bob, |\"/bin/cat -n\"")]),
            ),
            (0, "root: bob smith\n", Kind::Aliases, invalid(1)),
            (0, "root\n", Kind::Aliases, invalid(1)),
            (0, "# @list\nroot\n", Kind::Aliases, invalid(2)),
            (0, "[::1\n", Kind::Plain, invalid(1)),
        ];
        for (number, text, kind, expected) in cases {
            let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            let expected = expected.map(|pairs| pairs.iter().map(pair).collect());
            assert_eq!(entries(text.as_bytes(), kind), expected, "queue case {number}: {text:?}");
            spec_case::ran("queue", number);
        }
        let error = entries(b"foo: a\nFOO: b\n", Kind::Plain).unwrap_err();
        assert_eq!(error.to_string(), "2: duplicate entry for foo");
        assert_eq!(SourceError::Invalid { line: 1 }.to_string(), "1: invalid entry");
    }
}
