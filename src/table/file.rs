//! The text of table files: one entry a line.
//!
//! A line with nothing after its key makes a file a list, any other line a mapping; the first entry
//! decides. A comment `# @list` before it decides too. There are no comments at the end of a line
//! and no continued lines.
//!
//! Source: table(5).

use std::fmt;

use crate::config::{TableEntry, TableKind};

/// Entries of this many bytes or more are left out.
const MAX_ENTRY: usize = 1024;

/// What a file holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contents {
    /// List or mapping; a file without entries is a mapping.
    pub kind: TableKind,
    /// The entries in the order of the file, as written.
    pub entries: Vec<TableEntry>,
}

/// A line that is no entry. The whole file is then refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub struct InvalidEntry {
    /// The line, from 1.
    pub line: usize,
}

/// Printed after the path and a colon.
impl fmt::Display for InvalidEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} invalid map entry", self.line)
    }
}

/// Reads a file's text. `known` is the kind that an earlier reading found, which stays.
///
/// Bytes that are not UTF-8 are replaced, so that such an entry matches nothing.
///
/// # Errors
/// The first line that does not fit: a mapping without a value, a list where a mapping was, a
/// bracket that is not closed.
pub fn parse(text: &[u8], known: TableKind) -> Result<Contents, InvalidEntry> {
    let mut kind = known;
    let mut entries = Vec::new();
    let text = String::from_utf8_lossy(text);
    for (index, line) in text.split('\n').enumerate() {
        let line = line.trim_matches(is_blank);
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            if kind == TableKind::Undecided && comment.trim_matches(is_blank) == "@list" {
                kind = TableKind::List;
            }
            continue;
        }
        let invalid = InvalidEntry { line: index + 1 };
        let (key, value) = split(line).ok_or(invalid)?;
        if kind == TableKind::Undecided {
            kind = if value.is_none() { TableKind::List } else { TableKind::Mapping };
        }
        let entry = match (kind, value) {
            (TableKind::List, _) => TableEntry { key: line.to_owned(), value: None },
            (_, Some(value)) if !value.is_empty() => {
                TableEntry { key: key.to_owned(), value: Some(value.to_owned()) }
            }
            _ => return Err(invalid),
        };
        let value_length = entry.value.as_ref().map_or(0, String::len);
        if entry.key.len() < MAX_ENTRY && value_length < MAX_ENTRY {
            entries.push(entry);
        }
    }
    if kind == TableKind::Undecided {
        kind = TableKind::Mapping;
    }
    Ok(Contents { kind, entries })
}

/// The key of a line, and what stands after it and its separator; `None` for an open bracket.
fn split(line: &str) -> Option<(&str, Option<&str>)> {
    let end = if line.starts_with('[') {
        line.find(']')? + 1
    } else {
        line.find([' ', '\t', ':']).unwrap_or(line.len())
    };
    let (key, rest) = line.split_at(end);
    let mut rest = rest.chars();
    if rest.next().is_none() {
        return Some((key, None));
    }
    Some((key, Some(rest.as_str().trim_start_matches([' ', '\t']))))
}

/// White space around a line, as isspace(3) sees it.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(keys: &[&str]) -> Result<Contents, InvalidEntry> {
        let entries =
            keys.iter().map(|key| TableEntry { key: (*key).to_owned(), value: None }).collect();
        Ok(Contents { kind: TableKind::List, entries })
    }

    fn mapping(pairs: &[(&str, &str)]) -> Result<Contents, InvalidEntry> {
        let entries = pairs
            .iter()
            .map(|(key, value)| TableEntry {
                key: (*key).to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect();
        Ok(Contents { kind: TableKind::Mapping, entries })
    }

    #[test]
    fn files_of_undecided_kind() {
        let long = format!("ok: x\nkey: {}\n", "v".repeat(1024));
        let cases = [
            ("a.org\n  b.org\t\n\n# c\n", list(&["a.org", "b.org"])),
            ("# @list\n2001:db8::/32\nfoo bar # x\n", list(&["2001:db8::/32", "foo bar # x"])),
            ("#@list", list(&[])),
            // config case 179
            ("2001:db8::/32\n", mapping(&[("2001", "db8::/32")])),
            // config case 180
            ("# @LIST\nfoo bar\n", mapping(&[("foo", "bar")])),
            ("root: bob\n", mapping(&[("root", "bob")])),
            // config case 182
            ("root : bob\n", mapping(&[("root", ": bob")])),
            ("root:\t  bob # note", mapping(&[("root", "bob # note")])),
            (
                "[::1]\tlocalhost\n[2001:db8::1]:x",
                mapping(&[("[::1]", "localhost"), ("[2001:db8::1]", "x")]),
            ),
            ("smtp://x", mapping(&[("smtp", "//x")])),
            ("a b\r\n", mapping(&[("a", "b")])),
            ("", mapping(&[])),
            (&long, mapping(&[("ok", "x")])),
            // config case 69
            ("a: b\nroot:\n", Err(InvalidEntry { line: 2 })),
            ("root:", Err(InvalidEntry { line: 1 })),
            ("a: b\nroot\n", Err(InvalidEntry { line: 2 })),
            ("[::1 x", Err(InvalidEntry { line: 1 })),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes(), TableKind::Undecided), expected, "{text:.60?}");
        }
    }

    #[test]
    fn a_kind_once_known_stays() {
        assert_eq!(parse(b"a: b", TableKind::List), list(&["a: b"]));
        assert_eq!(parse(b"a", TableKind::Mapping), Err(InvalidEntry { line: 1 }));
        assert_eq!(parse(b"# @list\na b", TableKind::Mapping), mapping(&[("a", "b")]));
        assert_eq!(InvalidEntry { line: 1 }.to_string(), "1 invalid map entry");
    }
}
