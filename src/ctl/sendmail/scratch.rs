//! Where a message stays while it is read: in memory, beyond a bound in a file without a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes kept in memory; what is longer goes to a file.
const IN_MEMORY: usize = 1 << 20;
/// Names tried before giving up.
const NAMES: usize = 16;

/// Bytes that are written once, then read any number of times.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
}

impl Scratch {
    /// Nothing yet; a file, if it comes to that, is made in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), memory: Vec::new(), file: None, length: 0 }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads the bytes from `start` on, and at most `length` of them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn range(&mut self, start: u64, length: u64) -> io::Result<impl Read> {
        let Some(file) = &mut self.file else {
            let mut memory = Cursor::new(self.memory.as_slice());
            memory.set_position(start);
            return Ok(Source::Memory(memory).take(length));
        };
        file.flush()?;
        let mut file = &*file;
        file.seek(SeekFrom::Start(start))?;
        Ok(Source::File(file).take(length))
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            let mut file = nameless_file(&self.directory)?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Source<'a> {
    File(&'a File),
    Memory(Cursor<&'a [u8]>),
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Memory(memory) => memory.read(buffer),
        }
    }
}

/// A new file that only this process can reach: its name is gone before it has content.
fn nameless_file(directory: &Path) -> io::Result<File> {
    for _ in 0..NAMES {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let path = directory.join(format!("sendmail.{:016x}", u64::from_ne_bytes(random)));
        let opened =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match opened {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_content_reads_back_in_any_range() {
        for length in [0, 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY] {
            let directory = tempfile::tempdir().unwrap();
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut scratch = Scratch::new(directory.path());
            for piece in content.chunks(100_000) {
                scratch.write_all(piece).unwrap();
            }
            assert_eq!(scratch.len(), length as u64);
            for (start, count) in [(0, length), (length / 2, 10), (length, 5)] {
                let mut read = Vec::new();
                let mut range = scratch.range(start as u64, count as u64).unwrap();
                range.read_to_end(&mut read).unwrap();
                let end = (start + count).min(length);
                assert_eq!(read, content[start..end]);
            }
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
