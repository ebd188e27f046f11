//! The two ways of saying "this must survive a power cut".
//!
//! [`durable`] covers a file's bytes and whatever of its metadata is needed to read them back (its
//! length, its blocks); [`durable_dir`] covers the names in a directory. Nothing else in the project
//! syncs. What each system's call promises is tabled in `docs/spool.md`.
//!
//! Sources: fdatasync(2) of Linux, FreeBSD, OpenBSD; fcntl(2) `F_FULLFSYNC` of macOS;
//! fsync_range(2) of NetBSD; hammer2(5) of DragonFly.

use std::io;
use std::os::fd::AsFd;

/// Returns when the file's bytes are on stable storage.
///
/// # Errors
/// The system's. After an error nothing is known about what earlier writes left on the disk, and a
/// later success does not cover them: do not sync the file again.
pub fn durable(file: impl AsFd) -> io::Result<()> {
    system::sync_file(file.as_fd())
}

/// Returns when the directory's names are on stable storage.
///
/// # Errors
/// The system's.
pub fn durable_dir(dir: impl AsFd) -> io::Result<()> {
    system::sync_dir(dir.as_fd())
}

#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd"))]
mod system {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(super) fn sync_file(file: BorrowedFd<'_>) -> io::Result<()> {
        Ok(nix::unistd::fdatasync(file)?)
    }

    pub(super) fn sync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
        Ok(nix::unistd::fsync(dir)?)
    }
}

#[cfg(target_os = "netbsd")]
mod system {
    use std::ffi::c_int;
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    // <unistd.h>: data with the metadata needed to read it, and the disk's write cache.
    const FDATASYNC: c_int = 0x0010;
    const FFILESYNC: c_int = 0x0020;
    const FDISKSYNC: c_int = 0x0040;

    unsafe extern "C" {
        fn fsync_range(fd: c_int, how: c_int, start: libc::off_t, length: libc::off_t) -> c_int;
    }

    fn sync(fd: BorrowedFd<'_>, how: c_int) -> io::Result<()> {
        // SAFETY: takes integers only; `fd` is open for as long as it is borrowed. A length of 0
        // means to the end of the file.
        match unsafe { fsync_range(fd.as_raw_fd(), how, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn sync_file(file: BorrowedFd<'_>) -> io::Result<()> {
        sync(file, FDATASYNC | FDISKSYNC)
    }

    pub(super) fn sync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
        sync(dir, FFILESYNC | FDISKSYNC)
    }
}

#[cfg(target_os = "macos")]
mod system {
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    // fsync(2) of macOS leaves the bytes in the drive's cache; F_FULLFSYNC empties that too. File
    // systems without it (network ones) get the best they offer.
    fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: F_FULLFSYNC takes no argument; `fd` is open for as long as it is borrowed.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_FULLFSYNC) } != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOTSUP | libc::EINVAL | libc::ENOTTY) => Ok(nix::unistd::fsync(fd)?),
            _ => Err(error),
        }
    }

    pub(super) fn sync_file(file: BorrowedFd<'_>) -> io::Result<()> {
        sync(file)
    }

    pub(super) fn sync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
        sync(dir)
    }
}

#[cfg(target_os = "dragonfly")]
mod system {
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    // HAMMER2 recovers to its last file-system sync: an fsync alone is not found again after a
    // power cut.
    fn on_hammer2(fd: BorrowedFd<'_>) -> io::Result<bool> {
        let mut about = std::mem::MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the buffer has the size of the structure that the call fills.
        if unsafe { libc::fstatfs(fd.as_raw_fd(), about.as_mut_ptr()) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed at first, filled by the successful call.
        let about = unsafe { about.assume_init() };
        let name = about.f_fstypename.iter().map(|&c| c as u8).take_while(|&c| c != 0);
        Ok(name.eq(*b"hammer2"))
    }

    fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
        nix::unistd::fsync(fd)?;
        if on_hammer2(fd)? {
            nix::unistd::sync();
        }
        Ok(())
    }

    pub(super) fn sync_file(file: BorrowedFd<'_>) -> io::Result<()> {
        sync(file)
    }

    pub(super) fn sync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
        sync(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_directory_can_be_synced() {
        let path = std::env::temp_dir().join(format!("durable-{}", std::process::id()));
        std::fs::write(&path, b"bytes").unwrap();
        durable(std::fs::File::open(&path).unwrap()).unwrap();
        durable_dir(std::fs::File::open(std::env::temp_dir()).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_synced_is_an_error() {
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(durable(&end).is_err());
    }
}
