//! Files of items: `.forward`, and lists that aliases include. Text in, items out.
//!
//! Each line is a value as in a table of aliases ([`aliases::parse`]). A `#` begins a comment and a
//! backslash at the end of a line joins the next one to it, unless a backslash is before either.
//! Comments may hold any bytes. Lists are not included from here: such items count as nothing.
//!
//! Source: forward(5), aliases(5).

use super::aliases::{self, Item};

/// A line that holds something that is no item.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}")]
pub struct BadLine {
    /// Its number, from 1; of a joined line that of the first.
    pub line: u32,
}

/// The items of a `.forward`, in its order.
///
/// # Errors
/// [`BadLine`]: the first line that is wrong. None of the file then counts.
pub fn forward(text: &[u8]) -> Result<Vec<Item>, BadLine> {
    let mut items = Vec::new();
    for (line, value) in Lines::new(text) {
        items.extend(read(line, &value)?);
    }
    Ok(items)
}

/// The items of an included list, in its order, and the lines that are wrong. The others count.
#[must_use]
pub fn included(text: &[u8]) -> (Vec<Item>, Vec<BadLine>) {
    let (mut items, mut wrong) = (Vec::new(), Vec::new());
    for (line, value) in Lines::new(text) {
        match read(line, &value) {
            Ok(read) => items.extend(read),
            Err(bad) => wrong.push(bad),
        }
    }
    (items, wrong)
}

fn read(line: u32, value: &[u8]) -> Result<impl Iterator<Item = Item>, BadLine> {
    let value = std::str::from_utf8(value).map_err(|_| BadLine { line })?;
    let items = aliases::parse(value).map_err(|_| BadLine { line })?;
    Ok(items.into_iter().filter(|item| !matches!(item, Item::Include(_))))
}

/// The logical lines of a text, without comments, with their numbers.
struct Lines<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text, number: 0 }
    }

    /// The next line as it stands.
    fn physical(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.number = self.number.saturating_add(1);
        let (line, rest) = match self.rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (self.rest.get(..end)?, self.rest.get(end + 1..)?),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(line)
    }
}

impl Iterator for Lines<'_> {
    type Item = (u32, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = without_comment(self.physical()?);
        let first = self.number;
        let mut joined = Vec::new();
        while let Some(head) = continued(line) {
            joined.extend_from_slice(head);
            match self.physical() {
                Some(next) => line = without_comment(next),
                None => return Some((first, joined)),
            }
        }
        joined.extend_from_slice(line);
        Some((first, joined))
    }
}

/// What is before the first `#` that has no backslash before it.
fn without_comment(line: &[u8]) -> &[u8] {
    let is_comment = |at: &usize| line.get(*at) == Some(&b'#') && !is_escaped(line, *at);
    let end = (0..line.len()).find(is_comment).unwrap_or(line.len());
    line.get(..end).unwrap_or(line)
}

/// What is before a backslash at the end that joins the next line.
fn continued(line: &[u8]) -> Option<&[u8]> {
    let (last, head) = line.split_last()?;
    (*last == b'\\' && !is_escaped(line, head.len())).then_some(head)
}

/// Whether an odd number of backslashes is before this place.
fn is_escaped(line: &[u8], at: usize) -> bool {
    let before = line.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    fn texts(items: &[Item]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    /// A numbered case: the text, and its items or the number of the line that is wrong.
    type Case = (u32, &'static [u8], Result<&'static [&'static str], u32>);

    #[test]
    fn lines_of_a_forward_file() {
        let cases: [Case; 16] = [
            (235, b"", Ok(&[])),
            (235, b"# nobody\n\n  # at all\n", Ok(&[])),
            (236, b"kim\nx@rdr.org\n", Ok(&["kim", "x@rdr.org"])),
            (0, b"kim, x@rdr.org", Ok(&["kim", "x@rdr.org"])),
            (0, b"kim # me\r\n", Ok(&["kim"])),
            (0, b"|echo \\# x\n", Ok(&["|echo \\# x"])),
            (0, b"kim\\\\#x\n", Err(1)),
            (0, b"kim,\\\nlee\n# c \\\nmax", Ok(&["kim", "lee", "max"])),
            (0, b"kim\\", Ok(&["kim"])),
            (0, b"# caf\xe9\nkim\n", Ok(&["kim"])),
            (0, b"caf\xe9\n", Err(1)),
            (0, b":include:/list\nkim\n", Ok(&["kim"])),
            (233, b"kim\nbad line here\nlee\n", Err(2)),
            (0, b"kim,\\\nlee\nbad line\n", Err(3)),
            (0, b"|echo \0\n", Err(1)),
            (0, b"\"|vacation kim\"\n/home/kim/mail\n", Ok(&["|vacation kim", "/home/kim/mail"])),
        ];
        for (number, text, expected) in cases {
            let read = forward(text).map(|items| texts(&items));
            let expected = expected
                .map(|items| items.iter().map(ToString::to_string).collect())
                .map_err(|line| BadLine { line });
            assert_eq!(read, expected, "{:?}", text.escape_ascii().to_string());
            // The others of the three are a matter of the whole expansion.
            if number == 236 {
                spec_case::ran("config", number);
            }
        }
    }

    #[test]
    fn wrong_lines_of_a_list_are_named_and_the_others_count() {
        let text = b"carol@example.net # c\n:include:/more\nno good\ndave, erin\n\xff\n";
        let (items, wrong) = included(text);
        assert_eq!(texts(&items), ["carol@example.net", "dave", "erin"]);
        assert_eq!(wrong, [BadLine { line: 3 }, BadLine { line: 5 }]);
        // As decided: a comment, not a part of the address.
        spec_case::ran("config", 220);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(text in proptest::collection::vec(0_u8..=255, 0..200)) {
            let lines = 1 + text.iter().filter(|byte| **byte == b'\n').count();
            let (items, wrong) = included(&text);
            proptest::prop_assert!(wrong.iter().all(|bad| (bad.line as usize) <= lines));
            proptest::prop_assert_eq!(forward(&text).is_ok(), wrong.is_empty());
            if wrong.is_empty() {
                proptest::prop_assert_eq!(forward(&text), Ok(items));
            }
        }
    }
}
