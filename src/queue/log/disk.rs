//! The file system as the log sees it: a few folders, files written at offsets, and syncs.
//!
//! Everything the log does to a disk goes through [`Disk`] and [`DiskFile`], so that the model test
//! can cut, reorder and refuse each step; [`Folders`] is the real one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use platform::dir::{Access, Dir, Space};

/// A directory of the spool that the log uses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Folder {
    /// What could not be read.
    Corrupt,
    /// Large bodies.
    Large,
    /// Segments.
    Log,
}

/// Names and files.
pub(super) trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, folder: Folder, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// All names in a folder, in no order.
    fn names(&self, folder: Folder) -> io::Result<Vec<String>>;
    /// Renames, replacing what is there.
    fn rename(&self, from: (Folder, &str), to: (Folder, &str)) -> io::Result<()>;
    /// Removes a name.
    fn unlink(&self, folder: Folder, name: &str) -> io::Result<()>;
    /// Makes a folder's names durable.
    fn sync_folder(&self, folder: Folder) -> io::Result<()>;
    /// Room on the file system.
    fn space(&self) -> io::Result<Space>;
}

/// One file.
pub(super) trait DiskFile: Send + Sync {
    /// Reads at `offset` until `buffer` is full or the file ends; how many bytes that were.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Asks for blocks up to `length`; only a lack of room is an error.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Makes the bytes durable.
    fn sync(&self) -> io::Result<()>;
    /// A descriptor of its own for the same open file.
    fn descriptor(&self) -> io::Result<File>;
}

/// Reads exactly `length` bytes.
pub(super) fn read_exactly(file: &dyn DiskFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    match file.read_at(&mut buffer, offset)? {
        n if n == length => Ok(buffer),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// The real file system below the spool's directory.
pub(super) struct Folders {
    log: Dir,
    large: Dir,
    corrupt: Dir,
}

impl Folders {
    /// Opens the folders below `root`, made first where missing.
    pub(super) fn open(root: &Dir) -> io::Result<Self> {
        Ok(Self {
            log: root.ensure_dir("log", 0o700)?,
            large: root.ensure_dir("large", 0o700)?,
            corrupt: root.ensure_dir("corrupt", 0o700)?,
        })
    }

    fn dir(&self, folder: Folder) -> &Dir {
        match folder {
            Folder::Corrupt => &self.corrupt,
            Folder::Large => &self.large,
            Folder::Log => &self.log,
        }
    }
}

impl Disk for Folders {
    fn open(&self, folder: Folder, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.dir(folder).open_file(name, access)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Arc::new(file))
    }

    fn names(&self, folder: Folder) -> io::Result<Vec<String>> {
        self.dir(folder).names()
    }

    fn rename(&self, from: (Folder, &str), to: (Folder, &str)) -> io::Result<()> {
        self.dir(from.0).rename(from.1, self.dir(to.0), to.1)
    }

    fn unlink(&self, folder: Folder, name: &str) -> io::Result<()> {
        self.dir(folder).unlink(name)
    }

    fn sync_folder(&self, folder: Folder) -> io::Result<()> {
        self.dir(folder).sync()
    }

    fn space(&self) -> io::Result<Space> {
        self.log.space()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        platform::dir::allocate(self, length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        platform::durable::durable(self)
    }

    fn descriptor(&self) -> io::Result<File> {
        self.try_clone()
    }
}
