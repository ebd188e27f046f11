//! A message as it was handed to `sendmail`: read once, normalised, its header looked at.
//!
//! Line ends become LF, a missing last one is added, and what [`HeaderReader`] drops is dropped.
//! The whole message is read before anything is sent, because a long line near its end changes how
//! its body is encoded.
//!
//! Source: the queue page of the specification, 7.3.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use super::address::AddressError;
use super::header::{Findings, HeaderReader};
use super::scratch::Scratch;
use crate::model::limits::MESSAGE_LINE;

/// Bytes from which on a line is long: the body is then encoded.
pub const LONG_LINE: usize = 990;

/// A message that was read.
#[derive(Debug)]
pub struct Draft {
    /// The message, LF line ends: header, the empty line if there was one, body.
    pub content: Scratch,
    /// Bytes of the header, its last line end included.
    pub header: u64,
    /// What the header has.
    pub findings: Findings,
    /// A line before the first empty one is long.
    pub long_in_header: bool,
    /// A line after the first empty one is long.
    pub long_in_body: bool,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// An address list cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A header line that no server would take.
    #[error("a header line is longer than {MESSAGE_LINE} bytes")]
    HeaderLine,
    /// The input, or the place where it is kept.
    #[error("cannot read the message: {0}")]
    Io(#[from] io::Error),
}

impl Draft {
    /// Reads `input` to its end. `collect` asks for the recipients in the header; `directory` is
    /// for a file if the message is long.
    ///
    /// # Errors
    /// The input fails, or its header cannot be read.
    pub fn read(
        input: &mut impl BufRead,
        collect: bool,
        directory: &Path,
    ) -> Result<Self, DraftError> {
        let mut draft = Self {
            content: Scratch::new(directory),
            header: 0,
            findings: Findings::default(),
            long_in_header: false,
            long_in_body: false,
        };
        draft.read_header(input, collect)?;
        draft.read_body(input)?;
        Ok(draft)
    }

    /// Whether the body must be encoded for its long lines to survive.
    ///
    /// A body of several parts cannot be encoded as a whole (RFC 2045, section 6.4), and one with
    /// an encoding has had its choice.
    #[must_use]
    pub fn wants_encoding(&self) -> bool {
        let long = self.long_in_body || (self.long_in_header && !self.findings.recognised);
        long && !self.findings.content_transfer_encoding && !self.findings.composite
    }

    fn read_header(&mut self, input: &mut impl BufRead, collect: bool) -> Result<(), DraftError> {
        let mut reader = HeaderReader::new(collect);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = MESSAGE_LINE as u64 + 2;
            input.by_ref().take(limit).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            let ended = line.last() == Some(&b'\n');
            if !ended && line.len() as u64 == limit {
                if reader.recognised() {
                    return Err(DraftError::HeaderLine);
                }
                // No header has such a line: this is the body already.
                self.header = self.content.len();
                self.findings = reader.finish()?;
                self.long_in_body = true;
                self.content.write_all(&line)?;
                return Ok(());
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.is_empty() && ended {
                self.header = self.content.len();
                self.findings = reader.finish()?;
                self.content.write_all(b"\n")?;
                return Ok(());
            }
            if reader.line(text)? {
                self.long_in_header |= text.len() >= LONG_LINE;
                self.content.write_all(text)?;
                self.content.write_all(b"\n")?;
            }
        }
        self.header = self.content.len();
        self.findings = reader.finish()?;
        Ok(())
    }

    fn read_body(&mut self, input: &mut impl BufRead) -> Result<(), DraftError> {
        let mut line_length = 0;
        let mut carriage_return = false;
        let mut unfinished = false;
        loop {
            let chunk = input.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                if carriage_return && piece != b"\n" {
                    self.content.write_all(b"\r")?;
                    line_length += 1;
                }
                carriage_return = false;
                let (mut text, ended) = match piece.strip_suffix(b"\n") {
                    Some(text) => (text, true),
                    None => (piece, false),
                };
                if let Some(before) = text.strip_suffix(b"\r") {
                    text = before;
                    // Whether it is half of a line end shows in the next chunk.
                    carriage_return = !ended;
                }
                self.content.write_all(text)?;
                line_length += text.len();
                self.long_in_body |= line_length >= LONG_LINE;
                unfinished = !ended;
                if ended {
                    self.content.write_all(b"\n")?;
                    line_length = 0;
                }
            }
            let consumed = chunk.len();
            input.consume(consumed);
        }
        if unfinished {
            self.content.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    fn read(input: &[u8]) -> Result<(Draft, Vec<u8>), DraftError> {
        let mut draft = Draft::read(&mut &*input, true, Path::new("/nonexistent"))?;
        let mut content = Vec::new();
        draft.content.range(0, u64::MAX)?.read_to_end(&mut content)?;
        Ok((draft, content))
    }

    #[test]
    fn line_ends_are_normalised() {
        let cases = [
            ("Subject: a\r\n\r\nb\r\nc", "Subject: a\n\nb\nc\n", 11),
            ("Subject: a", "Subject: a\n", 11),
            ("Subject: a\n\n", "Subject: a\n\n", 11),
            ("\nbody\n", "\nbody\n", 0),
            ("", "", 0),
            ("Bcc: x\n\na\rb\r\r\n", "\na\rb\r\n", 0),
            ("hello", "hello\n", 6),
            ("\nends in\r", "\nends in\n", 0),
        ];
        for (input, expected, header) in cases {
            let (draft, content) = read(input.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(content).unwrap(), expected, "{input:?}");
            assert_eq!(draft.header, header, "{input:?}");
        }
    }

    // queue case 190: which messages are encoded.
    #[test]
    fn long_lines_ask_for_an_encoding_where_one_is_possible() {
        let (short, long) = ("x".repeat(989), "x".repeat(990));
        let cases = [
            (format!("Subject: a\n\n{short}\n"), false),
            (format!("Subject: a\n\n{long}\n"), true),
            (format!("Subject: a\n\n{long}"), true),
            (format!("Subject: {long}\n\nbody\n"), false),
            (format!("X-Foo: {long}\n\nbody\n"), true),
            (format!("Content-Transfer-Encoding: 8bit\n\n{long}\n"), false),
            (format!("Content-Type: multipart/mixed; boundary=x\n\n{long}\n"), false),
            (format!("Content-Type: text/plain\n\n{long}\n"), true),
            ("x".repeat(200_000), true),
        ];
        for (input, expected) in cases {
            let (draft, _) = read(input.as_bytes()).unwrap();
            assert_eq!(draft.wants_encoding(), expected, "{:.40}", input);
        }
        let hidden = format!("To: a@b\nX: {}\nBcc: c@d\n\n", "x".repeat(MESSAGE_LINE));
        assert!(matches!(read(hidden.as_bytes()), Err(DraftError::HeaderLine)));
    }

    proptest! {
        #[test]
        fn how_the_input_arrives_makes_no_difference(
            input in prop::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), Just(b':'), any::<u8>()], 0..200),
            capacity in 1_usize..40,
        ) {
            let mut slow = BufReader::with_capacity(capacity, &*input);
            let slow = Draft::read(&mut slow, true, Path::new("/nonexistent"));
            let whole = read(&input);
            match (slow, whole) {
                (Ok(mut slow), Ok((draft, content))) => {
                    let mut bytes = Vec::new();
                    slow.content.range(0, u64::MAX).unwrap().read_to_end(&mut bytes).unwrap();
                    prop_assert_eq!(&bytes, &content);
                    prop_assert_eq!(slow.header, draft.header);
                    prop_assert_eq!(slow.findings, draft.findings);
                    prop_assert!(content.is_empty() || content.ends_with(b"\n"));
                }
                (slow, whole) => prop_assert_eq!(slow.is_err(), whole.is_err()),
            }
        }

        #[test]
        fn no_bcc_recipient_is_left_in_the_header(
            before in "[A-Za-z: \\t\n-]{0,40}", name in "[bB][cC][cC]", blank in "[ \\t]{0,2}",
            after in "[A-Za-z: \n-]{0,40}",
        ) {
            let input = format!("Subject: x\n{before}\n{name}{blank}: secret@d,\n secret@e\n{after}");
            prop_assume!(!format!("Subject: x\n{before}\n").contains("\n\n"));
            if let Ok((_, content)) = read(input.as_bytes()) {
                prop_assert!(!String::from_utf8(content).unwrap().contains("secret"));
            }
        }
    }
}
