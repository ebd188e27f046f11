//! The text of table files: one entry a line.
//!
//! A line with nothing after its key makes a file a list, any other line a mapping; the first entry
//! decides. A comment `# @list` before it decides too. There are no comments at the end of a line
//! and no continued lines.
//!
//! A [`Reader`] takes the lines one by one and copies nothing: an entry is where it stands.
//!
//! Source: table(5).

use std::fmt;

use memchr::memchr;

use crate::config::TableKind;

/// Keys and values of this many bytes or more are left out.
const MAX_ENTRY: usize = 1024;

/// One entry of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry<'a> {
    /// Its line, from 1.
    pub line: usize,
    /// Where it begins: [`at`] finds it there again.
    pub offset: usize,
    /// The key, as written. In a list the whole line.
    pub key: &'a [u8],
    /// The value, in mappings.
    pub value: Option<&'a [u8]>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Survey {
    /// List or mapping; a file without entries is a mapping.
    pub kind: TableKind,
    /// How many entries, equal ones counted each.
    pub entries: usize,
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

/// Reads a text line by line; an error is the last item.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    offset: usize,
    line: usize,
    kind: TableKind,
    marked: bool,
}

impl<'a> Reader<'a> {
    /// Reads `text`. `known` is the kind that an earlier reading found, which stays.
    #[must_use]
    pub fn new(text: &'a [u8], known: TableKind) -> Self {
        Self { text, offset: 0, line: 0, kind: known, marked: false }
    }

    /// What the text holds, as far as it was read.
    #[must_use]
    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// Whether a comment has said that it is a list.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// The next line without the blanks around it, and where it begins.
    fn next_line(&mut self) -> Option<(usize, &'a [u8])> {
        let rest = self.text.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let length = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..length)?;
        let trimmed = without_leading_blanks(line);
        let offset = self.offset + (line.len() - trimmed.len());
        self.offset += length + 1;
        self.line += 1;
        Some((offset, without_trailing_blanks(trimmed)))
    }

    fn entry(&mut self, offset: usize, line: &'a [u8]) -> Result<Entry<'a>, InvalidEntry> {
        let invalid = InvalidEntry { line: self.line };
        let (key, value) = split(line).ok_or(invalid)?;
        if self.kind == TableKind::Undecided {
            self.kind = if value.is_none() { TableKind::List } else { TableKind::Mapping };
        }
        match (self.kind, value) {
            (TableKind::List, _) => Ok(Entry { line: self.line, offset, key: line, value: None }),
            (_, Some(value)) if !value.is_empty() => {
                Ok(Entry { line: self.line, offset, key, value: Some(value) })
            }
            _ => Err(invalid),
        }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Entry<'a>, InvalidEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (offset, line) = self.next_line()?;
            if line.is_empty() {
                continue;
            }
            if let Some(comment) = line.strip_prefix(b"#") {
                let undecided = self.kind == TableKind::Undecided;
                if undecided && without_leading_blanks(comment) == b"@list" {
                    self.kind = TableKind::List;
                    self.marked = true;
                }
                continue;
            }
            match self.entry(offset, line) {
                Ok(entry) if is_too_long(&entry) => {}
                Ok(entry) => return Some(Ok(entry)),
                Err(error) => {
                    self.offset = self.text.len();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Looks through a file's text. `known` is the kind that an earlier reading found, which stays.
///
/// # Errors
/// The first line that does not fit: a mapping without a value, a list where a mapping was, a
/// bracket that is not closed.
pub fn survey(text: &[u8], known: TableKind) -> Result<Survey, InvalidEntry> {
    let mut reader = Reader::new(text, known);
    let mut entries = 0;
    for entry in &mut reader {
        entry?;
        entries += 1;
    }
    let kind = match reader.kind() {
        TableKind::Undecided => TableKind::Mapping,
        known => known,
    };
    Ok(Survey { kind, entries })
}

/// The key and the value of the entry that begins at `offset` of a text of this kind; nothing where
/// none does.
#[must_use]
pub fn at(text: &[u8], offset: usize, kind: TableKind) -> (&[u8], Option<&[u8]>) {
    let rest = text.get(offset..).unwrap_or_default();
    let length = memchr(b'\n', rest).unwrap_or(rest.len());
    let line = without_trailing_blanks(rest.get(..length).unwrap_or_default());
    if kind == TableKind::List { (line, None) } else { split(line).unwrap_or_default() }
}

fn is_too_long(entry: &Entry<'_>) -> bool {
    entry.key.len() >= MAX_ENTRY || entry.value.is_some_and(|value| value.len() >= MAX_ENTRY)
}

/// The key of a line, and what stands after it and its separator; `None` for an open bracket.
fn split(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = if line.starts_with(b"[") {
        memchr(b']', line)? + 1
    } else {
        line.iter().position(|byte| matches!(byte, b' ' | b'\t' | b':')).unwrap_or(line.len())
    };
    let (key, rest) = line.split_at_checked(end)?;
    let Some((_, rest)) = rest.split_first() else { return Some((key, None)) };
    let begin = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(rest.len());
    Some((key, rest.get(begin..)))
}

/// White space around a line, as isspace(3) sees it.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c')
}

fn without_leading_blanks(line: &[u8]) -> &[u8] {
    let begin = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
    line.get(begin..).unwrap_or_default()
}

fn without_trailing_blanks(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    /// The kind that a reading finds, and each entry as text.
    type Contents = (TableKind, Vec<(String, Option<String>)>);

    fn read(text: &[u8], known: TableKind) -> Result<Contents, InvalidEntry> {
        let survey = survey(text, known)?;
        let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries: Vec<_> = Reader::new(text, known)
            .map(|entry| {
                let entry = entry.unwrap();
                let again = at(text, entry.offset, survey.kind);
                assert_eq!(again, (entry.key, entry.value), "found again");
                (utf8(entry.key), entry.value.map(utf8))
            })
            .collect();
        assert_eq!(entries.len(), survey.entries);
        Ok((survey.kind, entries))
    }

    fn list(keys: &[&str]) -> Result<Contents, InvalidEntry> {
        Ok((TableKind::List, keys.iter().map(|key| ((*key).to_owned(), None)).collect()))
    }

    fn mapping(pairs: &[(&str, &str)]) -> Result<Contents, InvalidEntry> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Some((*value).to_owned()));
        Ok((TableKind::Mapping, pairs.iter().map(pair).collect()))
    }

    #[test]
    fn files_of_undecided_kind() {
        let long = format!("ok: x\nkey: {}\n", "v".repeat(1024));
        let cases = [
            (0, "a.org\n  b.org\t\n\n# c\n", list(&["a.org", "b.org"])),
            (178, "# @list\n2001:db8::/32\nfoo bar # x\n", list(&["2001:db8::/32", "foo bar # x"])),
            (0, "#@list", list(&[])),
            (179, "2001:db8::/32\n", mapping(&[("2001", "db8::/32")])),
            (180, "# @LIST\nfoo bar\n", mapping(&[("foo", "bar")])),
            (0, "root: bob\n", mapping(&[("root", "bob")])),
            (0, "root : bob\n", mapping(&[("root", ": bob")])),
            (0, "root:\t  bob # note", mapping(&[("root", "bob # note")])),
            (
                0,
                "[::1]\tlocalhost\n[2001:db8::1]:x",
                mapping(&[("[::1]", "localhost"), ("[2001:db8::1]", "x")]),
            ),
            (0, "smtp://x", mapping(&[("smtp", "//x")])),
            (0, "a b\r\n", mapping(&[("a", "b")])),
            (0, "", mapping(&[])),
            (0, "\n\n", mapping(&[])),
            (0, &long, mapping(&[("ok", "x")])),
            (0, "a: b\nroot:\n", Err(InvalidEntry { line: 2 })),
            (0, "root:", Err(InvalidEntry { line: 1 })),
            (0, "root: \t", Err(InvalidEntry { line: 1 })),
            (0, "a: b\nroot\n", Err(InvalidEntry { line: 2 })),
            (0, "[::1 x", Err(InvalidEntry { line: 1 })),
        ];
        for (number, text, expected) in cases {
            let found = read(text.as_bytes(), TableKind::Undecided);
            assert_eq!(found, expected, "config case {number}: {text:.60?}");
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn a_kind_once_known_stays() {
        assert_eq!(read(b"a: b", TableKind::List), list(&["a: b"]));
        assert_eq!(read(b"a", TableKind::Mapping), Err(InvalidEntry { line: 1 }));
        assert_eq!(read(b"# @list\na b", TableKind::Mapping), mapping(&[("a", "b")]));
        assert_eq!(InvalidEntry { line: 1 }.to_string(), "1 invalid map entry");
    }

    #[test]
    fn after_an_error_nothing_is_read() {
        let mut reader = Reader::new(b"a: b\nc\nd: e\n", TableKind::Undecided);
        assert!(reader.next().is_some_and(|entry| entry.is_ok()));
        assert_eq!(reader.next(), Some(Err(InvalidEntry { line: 2 })));
        assert_eq!(reader.next(), None);
    }
}
