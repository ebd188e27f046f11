//! Files named relative to an open directory.
//!
//! Every operation takes a name of one component and a directory that is already open, so it works
//! inside Capsicum and Landlock, and a renamed or replaced path cannot redirect it. Links are never
//! followed. Reading and writing at offsets are [`std::os::unix::fs::FileExt`]; syncing is
//! [`crate::durable`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// A new file for reading and writing, mode 0600; fails if the name exists.
    Create,
    /// An existing file for reading.
    Read,
    /// An existing file for reading and writing.
    Write,
}

/// Room on a file system. Where a system does not count inodes, both figures are 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// Bytes that an unprivileged process may still use.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Inodes that an unprivileged process may still use.
    pub free_inodes: u64,
    /// Inodes in all.
    pub total_inodes: u64,
}

/// An exclusive lock on a file, given up when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Locks `file`; `None` if another process (or another opening of the file) holds it.
    ///
    /// # Errors
    /// The system's, such as a file system without locks.
    pub fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

fn one_component(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(name)
}

impl Dir {
    /// Opens the directory at `path`; a link at its end is followed here alone.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { fd: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// The system's; `InvalidInput` unless `name` is one component.
    pub fn open_dir(&self, name: &str) -> io::Result<Self> {
        let name = one_component(name)?;
        Ok(Self { fd: nix::fcntl::openat(&self.fd, name, DIRECTORY, Mode::empty())? })
    }

    /// Opens a directory in this one, made first (with `mode`, before the umask) if it is missing.
    ///
    /// # Errors
    /// The system's; `InvalidInput` unless `name` is one component.
    pub fn ensure_dir(&self, name: &str, mode: u16) -> io::Result<Self> {
        let bits = Mode::from_bits_truncate(libc::mode_t::from(mode));
        match nix::sys::stat::mkdirat(&self.fd, one_component(name)?, bits) {
            Ok(()) => self.sync()?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.open_dir(name)
    }

    /// Opens a file in this directory.
    ///
    /// # Errors
    /// The system's; `InvalidInput` unless `name` is one component.
    pub fn open_file(&self, name: &str, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Create => OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
            Access::Read => OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            Access::Write => OFlag::O_RDWR | OFlag::O_NONBLOCK,
        } | OFlag::O_CLOEXEC
            | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(File::from(nix::fcntl::openat(&self.fd, one_component(name)?, flags, mode)?))
    }

    /// Opens the file `name` for a [`Lock`], made first if it is missing.
    ///
    /// # Errors
    /// The system's; `InvalidInput` unless `name` is one component.
    pub fn open_lock(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(File::from(nix::fcntl::openat(&self.fd, one_component(name)?, flags, mode)?))
    }

    /// Renames `from` here to `to` in `target`, replacing what is there.
    ///
    /// # Errors
    /// The system's; `InvalidInput` unless both names are one component.
    pub fn rename(&self, from: &str, target: &Self, to: &str) -> io::Result<()> {
        let (from, to) = (one_component(from)?, one_component(to)?);
        Ok(nix::fcntl::renameat(&self.fd, from, &target.fd, to)?)
    }

    /// Gives the file `from` here the second name `to` in `target`.
    ///
    /// # Errors
    /// The system's, also if `to` exists; `InvalidInput` unless both names are one component.
    pub fn link(&self, from: &str, target: &Self, to: &str) -> io::Result<()> {
        let (from, to) = (one_component(from)?, one_component(to)?);
        Ok(nix::unistd::linkat(&self.fd, from, &target.fd, to, AtFlags::empty())?)
    }

    /// Removes the name of a file.
    ///
    /// # Errors
    /// The system's; `InvalidInput` unless `name` is one component.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        let flags = nix::unistd::UnlinkatFlags::NoRemoveDir;
        Ok(nix::unistd::unlinkat(&self.fd, one_component(name)?, flags)?)
    }

    /// The names in this directory, without `.` and `..`, in no order. A name that is not UTF-8 is
    /// not ours and is left out.
    ///
    /// # Errors
    /// The system's.
    pub fn names(&self) -> io::Result<Vec<String>> {
        // A descriptor of its own, since reading moves the position of the open directory.
        let mut dir = nix::dir::Dir::openat(&self.fd, ".", DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Room on this directory's file system.
    ///
    /// # Errors
    /// The system's.
    #[allow(clippy::useless_conversion)] // the counters' widths differ between systems
    pub fn space(&self) -> io::Result<Space> {
        let about = nix::sys::statvfs::fstatvfs(&self.fd)?;
        let unit = u64::from(about.fragment_size());
        Ok(Space {
            free_bytes: unit.saturating_mul(u64::from(about.blocks_available())),
            total_bytes: unit.saturating_mul(u64::from(about.blocks())),
            free_inodes: u64::from(about.files_available()),
            total_inodes: u64::from(about.files()),
        })
    }

    /// Makes the names in this directory durable.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        crate::durable::durable_dir(&self.fd)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

/// Asks for the blocks of the first `length` bytes of `file` in one piece, where the system offers
/// that; elsewhere nothing happens. The file may or may not grow.
///
/// # Errors
/// Only that there is no room.
pub fn allocate(file: impl AsFd, length: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let flags = nix::fcntl::FallocateFlags::empty();
        let allocated = nix::fcntl::fallocate(file.as_fd(), flags, 0, length);
        if let Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) = allocated {
            return Err(errno.into());
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dir-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn space_is_less_than_the_whole() {
        let space = Dir::open(Path::new("/")).unwrap().space().unwrap();
        assert!(space.total_bytes > 1 << 20);
        assert!(space.free_bytes <= space.total_bytes);
        assert!(space.free_inodes <= space.total_inodes);
    }

    #[test]
    fn files_are_made_listed_renamed_and_removed() {
        let scratch = Scratch::new("names");
        let root = Dir::open(&scratch.0).unwrap();
        let inner = root.ensure_dir("inner", 0o700).unwrap();
        root.ensure_dir("inner", 0o700).unwrap();
        inner.open_file("a", Access::Create).unwrap().write_all(b"x").unwrap();
        assert!(inner.open_file("a", Access::Create).is_err());
        inner.link("a", &root, "b").unwrap();
        inner.rename("a", &inner, "c").unwrap();
        assert_eq!(inner.names().unwrap(), ["c"]);
        assert_eq!(inner.names().unwrap(), ["c"], "listing twice gives the same");
        assert_eq!(root.open_file("b", Access::Read).unwrap().metadata().unwrap().len(), 1);
        inner.unlink("c").unwrap();
        assert!(inner.names().unwrap().is_empty());
        inner.sync().unwrap();
        assert!(root.space().unwrap().total_bytes > 0);
    }

    #[test]
    fn names_of_several_components_and_links_are_refused() {
        let scratch = Scratch::new("links");
        let root = Dir::open(&scratch.0).unwrap();
        for name in ["", ".", "..", "a/b", "/etc/passwd"] {
            let error = root.open_file(name, Access::Read).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        std::os::unix::fs::symlink("/etc/passwd", scratch.0.join("link")).unwrap();
        assert!(root.open_file("link", Access::Read).is_err());
        std::os::unix::fs::symlink("/etc", scratch.0.join("dirlink")).unwrap();
        assert!(root.open_dir("dirlink").is_err());
    }

    #[test]
    fn a_lock_has_one_holder() {
        let scratch = Scratch::new("lock");
        let root = Dir::open(&scratch.0).unwrap();
        let held = Lock::try_exclusive(root.open_lock("lock").unwrap()).unwrap();
        assert!(held.is_some());
        assert!(Lock::try_exclusive(root.open_lock("lock").unwrap()).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(root.open_lock("lock").unwrap()).unwrap().is_some());
    }
}
