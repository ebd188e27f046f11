//! The message that a job delivers, and what is put in front of it.
//!
//! A body has LF line ends and no `From ` line; it is never changed. Small ones came inline, large
//! ones are a descriptor of a file that others read at the same time, so its position is not used.
//!
//! Sources: the queue page of the specification, section 5.4.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use crate::model::{Mailbox, ReversePath};

/// Bytes read from a file at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of a header line that are looked at; the rest of a longer one is skipped.
const LOOKED_AT: usize = 1024;

/// The bytes of a message.
#[derive(Debug)]
pub enum Body {
    /// In memory.
    Bytes(Vec<u8>),
    /// A part of a file.
    File {
        /// Open for reading.
        file: File,
        /// Where the message begins.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
}

/// Reads a [`Body`] from its beginning.
#[derive(Debug)]
pub enum BodyReader<'a> {
    /// What is left in memory.
    Bytes(&'a [u8]),
    /// What is left in the file.
    File(BufReader<FilePart<'a>>),
}

/// A part of a file, read without moving the file's position.
#[derive(Debug)]
pub struct FilePart<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Body {
    /// A reader of the whole message.
    #[must_use]
    pub fn reader(&self) -> BodyReader<'_> {
        match self {
            Self::Bytes(bytes) => BodyReader::Bytes(bytes),
            Self::File { file, offset, length } => {
                let part = FilePart { file, offset: *offset, left: *length };
                let capacity = usize::try_from(*length).map_or(CHUNK, |l| l.min(CHUNK));
                BodyReader::File(BufReader::with_capacity(capacity, part))
            }
        }
    }
}

impl Read for FilePart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |l| l.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let Some(room) = buffer.get_mut(..wanted) else { return Ok(0) };
        let read = self.file.read_at(room, self.offset)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "Error reading body"));
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

impl BufRead for BodyReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Bytes(bytes) => bytes.fill_buf(),
            Self::File(file) => file.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Bytes(bytes) => bytes.consume(amount),
            Self::File(file) => file.consume(amount),
        }
    }
}

/// The lines put in front of a delivered message.
///
/// `Return-Path` is left out for the null sender; `Delivered-To` is the address of RCPT, not the
/// one after expansion.
#[must_use]
pub fn prefix(sender: &ReversePath, recipient: &Mailbox) -> String {
    match &sender.0 {
        Some(sender) => format!("Return-Path: <{sender}>\nDelivered-To: {recipient}\n"),
        None => format!("Delivered-To: {recipient}\n"),
    }
}

/// Whether the message was delivered to `destination` before.
///
/// # Errors
/// The message cannot be read.
pub fn loops(body: &Body, destination: &Mailbox) -> io::Result<bool> {
    let mut header = Header::new();
    let mut reader = body.reader();
    let mut found = false;
    while !found && !header.ended() {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        header.feed(chunk, |line| found |= delivered_to(line, destination.as_str()));
        let length = chunk.len();
        reader.consume(length);
    }
    header.finish(|line| found |= delivered_to(line, destination.as_str()));
    Ok(found)
}

fn delivered_to(line: &[u8], destination: &str) -> bool {
    const NAME: &[u8] = b"Delivered-To: ";
    line.split_at_checked(NAME.len()).is_some_and(|(name, value)| {
        name.eq_ignore_ascii_case(NAME) && value.eq_ignore_ascii_case(destination.as_bytes())
    })
}

/// Whether a header line marks the message as spam, as filters of the daemon write it.
#[must_use]
pub fn marks_spam(line: &[u8]) -> bool {
    line.eq_ignore_ascii_case(b"x-spam: yes") || line.eq_ignore_ascii_case(b"x-spam-flag: yes")
}

/// Takes the header of a message apart into lines, fed in pieces of any size.
///
/// The header ends at the first line that has no `:` and does not begin with white space, or is
/// empty. Lines are told without line end, and only their first 1024 bytes.
#[derive(Debug, Default)]
pub struct Header {
    line: Vec<u8>,
    ended: bool,
}

impl Header {
    /// At the beginning of a message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the rest is body.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Tells the lines that end in `bytes`, the next piece of the message.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.ended {
                return;
            }
            let (text, complete) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if complete && self.line.is_empty() && text.len() <= LOOKED_AT {
                self.line(text, &mut each);
                continue;
            }
            let room = LOOKED_AT - self.line.len();
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            if complete {
                self.finish(&mut each);
            }
        }
    }

    /// Tells a last line without line end: the message is over.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        self.line(&line, &mut each);
    }

    fn line(&mut self, line: &[u8], each: &mut impl FnMut(&[u8])) {
        let continuation = matches!(line.first(), Some(b' ' | b'\t'));
        self.ended |= !continuation && !line.contains(&b':');
        if !self.ended {
            each(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn the_prefix_names_the_sender_and_the_original_recipient() {
        // queue cases 126-128
        let sender = ReversePath::from(mailbox("s@x"));
        assert_eq!(prefix(&sender, &mailbox("bob@d")), "Return-Path: <s@x>\nDelivered-To: bob@d\n");
        assert_eq!(prefix(&ReversePath::NULL, &mailbox("bob@d")), "Delivered-To: bob@d\n");
    }

    #[test]
    fn a_message_that_was_here_before_is_found() {
        let cases = [
            ("Subject: x\nDelivered-To: A@B\n\nbody\n", true),
            ("Delivered-To: a@b", true),
            ("Delivered-To:a@b\n\n", false),
            ("Delivered-To: a@b.c\n\n", false),
            ("no header line\nDelivered-To: a@b\n\n", false),
            ("Subject: x\n folded\nDelivered-To: a@b\n\n", true),
            ("Subject: x\n\nDelivered-To: a@b\n", false),
            ("", false),
        ];
        for (text, expected) in cases {
            let body = Body::Bytes(text.as_bytes().to_vec());
            assert_eq!(loops(&body, &mailbox("a@b")).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn header_lines_are_the_same_for_every_cut() {
        let text = b"A: 1\n b\nX-Spam: yes\nC: 3\n\nD: 4\n";
        for cut in 0..=text.len() {
            let (one, two) = text.split_at(cut);
            let (mut header, mut lines) = (Header::new(), Vec::new());
            header.feed(one, |line| lines.push(line.to_vec()));
            header.feed(two, |line| lines.push(line.to_vec()));
            header.finish(|line| lines.push(line.to_vec()));
            assert_eq!(lines, [&b"A: 1"[..], b" b", b"X-Spam: yes", b"C: 3"], "cut at {cut}");
        }
    }

    #[test]
    fn a_long_header_line_is_told_in_part() {
        let (mut header, mut lengths) = (Header::new(), Vec::new());
        header.feed(&[b"X: ", &[b'y'; 100_000][..]].concat(), |line| lengths.push(line.len()));
        header.feed(b"zzz\nB: 2\n", |line| lengths.push(line.len()));
        assert_eq!(lengths, [LOOKED_AT, 4]);
    }

    #[test]
    fn a_part_of_a_file_reads_alone_and_a_short_file_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"xxxSubject: a\n\nbody").unwrap();
        let mut text = String::new();
        let body = Body::File { file: file.try_clone().unwrap(), offset: 3, length: 14 };
        body.reader().read_to_string(&mut text).unwrap();
        assert_eq!(text, "Subject: a\n\nbo");
        let body = Body::File { file, offset: 3, length: 100 };
        assert!(body.reader().read_to_string(&mut text).is_err());
    }
}
