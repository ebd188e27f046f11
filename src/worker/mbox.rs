//! Appending a message to an mbox file.
//!
//! The file comes open, for reading and appending; who opens it, checks it and makes the dot-lock
//! is not decided here. A message is appended whole or not at all: under an exclusive lock, synced,
//! and cut off again after a failure if nobody else wrote meanwhile.
//!
//! Sources: mbox(5), mail.local(8); the queue page of the specification, sections 5.8 and 5.9.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use platform::durable::durable;

use super::report::{Failed, OS_ERROR, TEMPORARY};

/// How long another's lock on the file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Bytes gathered before they are written.
const CHUNK: usize = 64 * 1024;
/// What separates messages, and so may not begin a line where it would.
const SEPARATOR: &[u8] = b"From ";

/// The conventions that a message is appended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Convention {
    /// As mail.local(8): `>` before a `From ` that follows an empty line; failures are 71.
    Local,
    /// As mail.mboxfile(8): `>` before every `From ` at the beginning of a line; failures are 75.
    File,
}

/// One message for a mailbox.
pub struct Entry<'a> {
    /// Address of the separator line, `MAILER-DAEMON` for the null sender.
    pub from: &'a str,
    /// Date of the separator line, as [`date`] writes it.
    pub date: &'a str,
    /// Lines put in front of the message.
    pub prefix: &'a str,
    /// The message.
    pub message: &'a mut dyn BufRead,
}

/// The date of a separator line, as ctime(3) writes it: `Sat Nov  7 09:05:03 2026`.
#[must_use]
pub fn date(now: &jiff::Zoned) -> String {
    now.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// Appends `entry` to the file at `path` as mail.mboxfile(8) does, made with mode 0600 if it is
/// missing.
///
/// # Errors
/// As [`append`], or the file cannot be opened.
pub fn append_to_path(path: &Path, entry: &mut Entry<'_>) -> Result<(), Failed> {
    let convention = Convention::File;
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let file = file.map_err(|error| {
        Failed::system(convention.status(), convention.program(), path.display(), &error)
    })?;
    append(&file, entry, convention)
}

/// Appends `entry` to `mailbox`, durably.
///
/// # Errors
/// The lock is not to be had within 30 s, the message cannot be read, or not be written; the
/// mailbox then ends where it ended before, unless someone ignored the lock.
pub fn append(mailbox: &File, entry: &mut Entry<'_>, convention: Convention) -> Result<(), Failed> {
    let failed = |what: &str, error: &io::Error| {
        Failed::system(convention.status(), convention.program(), what, error)
    };
    let kind = mailbox.metadata().map_err(|error| failed("stat", &error))?.file_type();
    let mut output = Output { mailbox, buffer: Vec::new(), written: 0 };
    if kind.is_char_device() {
        // What an alias for mail nobody reads names: /dev/null keeps nothing.
        return write(&mut output, 0, entry, convention)
            .and_then(|()| output.flush().map_err(|error| ("write", error)))
            .map_err(|(what, error)| failed(what, &error));
    }
    if !kind.is_file() {
        return Err(Failed::new(convention.status(), convention.program(), "not a regular file"));
    }
    lock(mailbox).map_err(|error| failed("lock", &error))?;
    let length = mailbox.metadata().map_err(|error| failed("stat", &error))?.len();
    let result = write(&mut output, length, entry, convention)
        .and_then(|()| output.flush().map_err(|error| ("write", error)))
        .and_then(|()| durable(mailbox).map_err(|error| ("fsync", error)));
    if result.is_err() {
        output.take_back(length);
    }
    // A lock that cannot be given up ends with the descriptor.
    let _ = mailbox.unlock();
    result.map_err(|(what, error)| failed(what, &error))
}

impl Convention {
    fn program(self) -> &'static str {
        match self {
            Self::File => "mail.mboxfile",
            Self::Local => "mail.local",
        }
    }

    fn status(self) -> u8 {
        match self {
            Self::File => TEMPORARY,
            Self::Local => OS_ERROR,
        }
    }
}

fn lock(mailbox: &File) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_WAIT;
    let mut pause = Duration::from_millis(1);
    loop {
        match mailbox.try_lock() {
            Ok(()) => return Ok(()),
            // Not every file system has these locks; the dot-lock stands in for them.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(());
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the mailbox is locked"));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

type Step = (&'static str, io::Error);

fn write(
    output: &mut Output<'_>,
    length: u64,
    entry: &mut Entry<'_>,
    convention: Convention,
) -> Result<(), Step> {
    let written = |error| ("write", error);
    let missing = missing_line_ends(output.mailbox, length).map_err(|error| ("read", error))?;
    output.put(missing).map_err(written)?;
    let from: String =
        entry.from.chars().map(|c| if c.is_control() || c == ' ' { '?' } else { c }).collect();
    output.put(format!("From {from} {}\n", entry.date).as_bytes()).map_err(written)?;
    let mut quoter = Quoter::new(convention);
    quoter.feed(entry.prefix.as_bytes(), output).map_err(written)?;
    loop {
        let chunk = match entry.message.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(("read", error)),
        };
        if chunk.is_empty() {
            break;
        }
        quoter.feed(chunk, output).map_err(written)?;
        let length = chunk.len();
        entry.message.consume(length);
    }
    quoter.finish(output).map_err(written)
}

/// What a last message that was cut off lacks before the next one can begin.
fn missing_line_ends(mailbox: &File, length: u64) -> io::Result<&'static [u8]> {
    if length == 0 {
        return Ok(b"");
    }
    let mut end = [b'\n'; 2];
    if length == 1 {
        mailbox.read_exact_at(&mut end[1..], 0)?;
    } else {
        mailbox.read_exact_at(&mut end, length - 2)?;
    }
    Ok(match end {
        [b'\n', b'\n'] => b"",
        [_, b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

/// The end of the mailbox, with a count of what went there.
struct Output<'a> {
    mailbox: &'a File,
    buffer: Vec<u8>,
    written: u64,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < CHUNK {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut left = self.buffer.as_slice();
        while !left.is_empty() {
            match self.mailbox.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    left = left.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.clear();
        Ok(())
    }

    fn take_back(&self, length: u64) {
        let ours = self.mailbox.metadata().is_ok_and(|now| now.len() == length + self.written);
        if ours {
            // What cannot be cut off stays as a partial message; the next append ends it.
            let _ = self.mailbox.set_len(length).and_then(|()| durable(self.mailbox));
        }
    }
}

/// Puts `>` before lines that would look like the beginning of a message.
struct Quoter {
    convention: Convention,
    /// The beginning of a line that may yet become a separator.
    held: Vec<u8>,
    /// Bytes of the present line so far, held ones not counted.
    length: usize,
    after_empty: bool,
}

impl Quoter {
    fn new(convention: Convention) -> Self {
        Self { convention, held: Vec::new(), length: 0, after_empty: true }
    }

    fn feed(&mut self, bytes: &[u8], output: &mut Output<'_>) -> io::Result<()> {
        for mut piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.length == 0 {
                let wanted = (SEPARATOR.len() - self.held.len()).min(piece.len());
                let (head, rest) = piece.split_at(wanted);
                self.held.extend_from_slice(head);
                piece = rest;
                if self.held.len() < SEPARATOR.len() && SEPARATOR.starts_with(&self.held) {
                    continue;
                }
                self.release(output)?;
            }
            output.put(piece)?;
            self.length += piece.len();
            if piece.last().or(self.last()) == Some(&b'\n') {
                self.after_empty = self.length == 1;
                self.length = 0;
            }
            self.held.clear();
        }
        Ok(())
    }

    /// Writes what was held, quoted if it is a separator; it stays readable in `held`.
    fn release(&mut self, output: &mut Output<'_>) -> io::Result<()> {
        if self.held == SEPARATOR && (self.after_empty || self.convention == Convention::File) {
            output.put(b">")?;
        }
        output.put(&self.held)?;
        self.length = self.held.len();
        Ok(())
    }

    fn last(&self) -> Option<&u8> {
        self.held.last()
    }

    fn finish(mut self, output: &mut Output<'_>) -> io::Result<()> {
        if self.length == 0 {
            self.release(output)?;
        }
        if self.length > 0 {
            output.put(b"\n")?;
        }
        output.put(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(path: &Path) -> File {
        OpenOptions::new().read(true).append(true).create(true).open(path).unwrap()
    }

    fn appended(before: &str, text: &str, convention: Convention, piece: usize) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mbox");
        fs::write(&path, before).unwrap();
        let mut message = io::BufReader::with_capacity(piece, text.as_bytes());
        let mut entry = Entry { from: "me@x", date: "D", prefix: "P: 1\n", message: &mut message };
        append(&open(&path), &mut entry, convention).unwrap();
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn separators_in_a_message_are_quoted() {
        // queue cases 146 and 150
        let text = "S: 1\n\nFrom here\ntext\nFrom there\nFro\n\nFrom";
        for piece in 1..text.len() {
            assert_eq!(
                appended("", text, Convention::Local, piece),
                "From me@x D\nP: 1\nS: 1\n\n>From here\ntext\nFrom there\nFro\n\nFrom\n\n",
                "read {piece} bytes at a time"
            );
            assert_eq!(
                appended("", text, Convention::File, piece),
                "From me@x D\nP: 1\nS: 1\n\n>From here\ntext\n>From there\nFro\n\nFrom\n\n",
                "read {piece} bytes at a time"
            );
        }
    }

    #[test]
    fn a_partial_last_message_is_ended_first() {
        let cases = [("", ""), ("a", "a\n\n"), ("\n", "\n"), ("a\n", "a\n\n"), ("a\n\n", "a\n\n")];
        for (before, expected) in cases {
            let text = appended(before, "x\n", Convention::Local, 64);
            assert_eq!(text, format!("{expected}From me@x D\nP: 1\nx\n\n"), "{before:?}");
        }
    }

    #[test]
    fn a_failed_append_leaves_the_mailbox_as_it_was() {
        struct Breaks(usize);
        impl io::Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Err(io::Error::other("broken"));
                }
                self.0 -= 1;
                buffer.fill(b'x');
                Ok(buffer.len())
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mbox");
        fs::write(&path, "before\n\n").unwrap();
        for chunks in [0, 100] {
            let mut message = io::BufReader::new(Breaks(chunks));
            let mut entry = Entry { from: "a", date: "D", prefix: "", message: &mut message };
            let error = append(&open(&path), &mut entry, Convention::Local).unwrap_err();
            assert_eq!(error, Failed::new(OS_ERROR, "mail.local", "read: broken"));
            assert_eq!(fs::read_to_string(&path).unwrap(), "before\n\n");
        }
    }

    #[test]
    fn the_separator_line_has_a_sender_without_blanks_and_a_ctime_date() {
        // queue case 147
        let when = jiff::civil::date(2026, 11, 7)
            .at(9, 5, 3, 0)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .unwrap();
        assert_eq!(date(&when), "Sat Nov  7 09:05:03 2026");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mbox");
        let mut message = &b"x"[..];
        let mut entry = Entry { from: "a b\nc", date: "D", prefix: "", message: &mut message };
        append(&open(&path), &mut entry, Convention::File).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "From a?b?c D\nx\n\n");
    }

    #[test]
    fn an_append_waits_for_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mbox");
        let holder = open(&path);
        holder.lock().unwrap();
        thread::scope(|scope| {
            let append = scope.spawn(|| {
                let mut message = &b"x"[..];
                let mut entry = Entry { from: "a", date: "D", prefix: "", message: &mut message };
                append(&open(&path), &mut entry, Convention::Local)
            });
            thread::sleep(Duration::from_millis(50));
            assert_eq!(holder.metadata().unwrap().len(), 0, "nothing written under the lock");
            holder.unlock().unwrap();
            assert_eq!(append.join().unwrap(), Ok(()));
        });
    }
}
