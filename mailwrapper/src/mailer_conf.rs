//! The file `mailer.conf`: which program to run for which name.
//!
//! A line is a name, an absolute path, and more arguments, separated by blanks or tabs. An
//! unescaped `#` anywhere ends the line, an unescaped `\` at its end joins it with the next one;
//! there is no quoting, and nothing is unescaped. The first line with the name counts; what follows
//! it is not read.
//!
//! Source: mailer.conf(5) of the BSDs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Longest file that is read, in bytes.
pub const MAX_FILE: u64 = 64 * 1024;

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mapping {
    /// The name that a program is called by.
    pub name: OsString,
    /// The program to run.
    pub program: PathBuf,
    /// Arguments that come before the caller's.
    pub arguments: Vec<OsString>,
    /// Number of its first line, from 1.
    pub line: usize,
}

/// A line that says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineError {
    /// A name and nothing else.
    #[error("line {line}: a name without a program")]
    NoProgram {
        /// Number of its first line, from 1.
        line: usize,
    },
    /// The program is not named from the root.
    #[error("line {line}: the program is not an absolute path")]
    Relative {
        /// Number of its first line, from 1.
        line: usize,
    },
}

/// The lines of `content`, in order.
pub fn mappings(content: &[u8]) -> impl Iterator<Item = Result<Mapping, LineError>> {
    LogicalLines { rest: content, number: 0 }.filter_map(|(line, text)| mapping(line, &text))
}

fn mapping(line: usize, text: &[u8]) -> Option<Result<Mapping, LineError>> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut fields = text.split(is_blank).filter(|field| !field.is_empty());
    let mut field = || fields.next().map(|field| OsString::from_vec(field.to_vec()));
    let name = field()?;
    let Some(program) = field() else { return Some(Err(LineError::NoProgram { line })) };
    let program = PathBuf::from(program);
    if !program.is_absolute() {
        return Some(Err(LineError::Relative { line }));
    }
    let arguments = std::iter::from_fn(field).collect();
    Some(Ok(Mapping { name, program, arguments, line }))
}

/// The mapping for `name`: `None` if no line has it.
///
/// # Errors
/// A line before it says nothing.
pub fn find(content: &[u8], name: &OsString) -> Result<Option<Mapping>, LineError> {
    for mapping in mappings(content) {
        let mapping = mapping?;
        if mapping.name == *name {
            return Ok(Some(mapping));
        }
    }
    Ok(None)
}

/// Lines without comments, joined where they are continued, with the number of the first.
struct LogicalLines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl Iterator for LogicalLines<'_> {
    type Item = (usize, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = Vec::new();
        let mut first = None;
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|byte| *byte == b'\n');
            let end = end.map_or(self.rest.len(), |at| at + 1);
            let (line, rest) = self.rest.split_at(end);
            self.rest = rest;
            self.number += 1;
            first.get_or_insert(self.number);
            let line = without_comment(line);
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            match line.split_last() {
                Some((b'\\', before)) if !ends_escaped(before) => text.extend_from_slice(before),
                _ => {
                    text.extend_from_slice(line);
                    break;
                }
            }
        }
        first.map(|first| (first, text))
    }
}

fn without_comment(line: &[u8]) -> &[u8] {
    let comment = line
        .iter()
        .enumerate()
        .find(|(at, byte)| **byte == b'#' && !ends_escaped(line.get(..*at).unwrap_or_default()));
    comment.map_or(line, |(at, _)| line.get(..at).unwrap_or_default())
}

/// Whether what follows `text` is escaped: an odd number of backslashes comes before it.
fn ends_escaped(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Name, program, arguments and line.
    type Read = Result<(String, String, Vec<String>, usize), LineError>;

    fn read(content: &str) -> Vec<Read> {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        mappings(content.as_bytes())
            .map(|mapping| {
                mapping.map(|one| {
                    let arguments = one.arguments.iter().map(text).collect();
                    let program = one.program.to_string_lossy().into_owned();
                    (text(&one.name), program, arguments, one.line)
                })
            })
            .collect()
    }

    #[test]
    fn lines_are_read_as_the_manual_says() {
        let one = |name: &str, program: &str, arguments: &[&str], line| {
            let arguments = arguments.iter().map(ToString::to_string).collect();
            Ok((name.to_owned(), program.to_owned(), arguments, line))
        };
        let cases = [
            ("sendmail\t/usr/sbin/smtpctl\n", vec![one("sendmail", "/usr/sbin/smtpctl", &[], 1)]),
            ("\n# c\n  a  /b x\ty \n", vec![one("a", "/b", &["x", "y"], 3)]),
            ("a /b # c d\n", vec![one("a", "/b", &[], 1)]),
            ("a /b \\# c", vec![one("a", "/b", &["\\#", "c"], 1)]),
            ("a /b \\\\# c", vec![one("a", "/b", &["\\\\"], 1)]),
            ("a \\\n/b \\\nx\nc /d", vec![one("a", "/b", &["x"], 1), one("c", "/d", &[], 4)]),
            ("a /b \\\n# c\nd /e\n", vec![one("a", "/b", &[], 1), one("d", "/e", &[], 3)]),
            ("a /b\\\\\nc /d\n", vec![one("a", "/b\\\\", &[], 1), one("c", "/d", &[], 2)]),
            ("a /b x\r\n", vec![one("a", "/b", &["x\r"], 1)]),
            ("a /b \\", vec![one("a", "/b", &[], 1)]),
            (
                "a\nb c\n",
                vec![Err(LineError::NoProgram { line: 1 }), Err(LineError::Relative { line: 2 })],
            ),
            ("", vec![]),
        ];
        for (content, expected) in cases {
            assert_eq!(read(content), expected, "{content:?}");
        }
    }

    #[test]
    fn the_first_line_with_the_name_counts_and_nothing_behind_it() {
        let content = b"a /one\na /two\nbroken\n";
        let found = find(content, &"a".into()).unwrap().unwrap();
        assert_eq!(found.program, PathBuf::from("/one"));
        assert_eq!(find(content, &"b".into()), Err(LineError::NoProgram { line: 3 }));
        assert_eq!(find(b"a /one\n", &"b".into()), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(content in any::<Vec<u8>>()) {
            let lines = content.split(|byte| *byte == b'\n').count();
            for mapping in mappings(&content) {
                let line = match mapping {
                    Ok(mapping) => mapping.line,
                    Err(LineError::NoProgram { line } | LineError::Relative { line }) => line,
                };
                prop_assert!((1..=lines).contains(&line));
            }
        }
    }
}
