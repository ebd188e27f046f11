//! Space, locks and memory: what the roles watch while they run.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use crate::{Host, Os};

/// Room in a file system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// Bytes that an ordinary user may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Files that an ordinary user may still make.
    pub free_inodes: u64,
    /// Files in all; 0 where the file system does not count them.
    pub total_inodes: u64,
}

/// Room in the file system that holds `fd`.
///
/// # Errors
/// When the file system does not answer.
#[allow(clippy::unnecessary_cast)] // the widths of these fields differ by system
pub fn file_space(fd: BorrowedFd<'_>) -> io::Result<Space> {
    let found = fstatvfs(fd)?;
    let unit = found.fragment_size() as u64;
    Ok(Space {
        free_bytes: (found.blocks_available() as u64).saturating_mul(unit),
        total_bytes: (found.blocks() as u64).saturating_mul(unit),
        free_inodes: found.files_available() as u64,
        total_inodes: found.files() as u64,
    })
}

/// Takes the exclusive lock of the open file `fd`, without waiting; `false` if another has it.
///
/// It is held until every descriptor of that open file is closed, also over fork and exec.
///
/// # Errors
/// When the file system has no locks.
pub fn lock_exclusive(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: takes numbers only.
    match Errno::result(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Memory of this process; on systems other than Linux the most that it had so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Bytes, those shared with other processes divided among them; equal to `rss_bytes` where the
    /// system does not tell.
    pub pss_bytes: u64,
    /// Bytes present in memory, shared ones in full.
    pub rss_bytes: u64,
}

/// Reads this process's memory figures, also once it is confined.
pub struct MemoryProbe {
    read: Box<dyn Fn() -> io::Result<Memory> + Send + Sync>,
}

impl MemoryProbe {
    /// Opens what [`MemoryProbe::read`] needs: before the process is confined or undumpable.
    ///
    /// # Errors
    /// When the system's figures cannot be opened.
    pub fn open() -> io::Result<Self> {
        Host.open_memory_probe()
    }

    /// A probe that calls `read`.
    pub(crate) fn new(read: impl Fn() -> io::Result<Memory> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read) }
    }

    /// The figures of this moment.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn read(&self) -> io::Result<Memory> {
        (self.read)()
    }
}

impl fmt::Debug for MemoryProbe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MemoryProbe")
    }
}

/// The memory of this process, for one that is not confined; see [`MemoryProbe`] for the others.
///
/// # Errors
/// When the system does not tell.
pub fn own_memory() -> io::Result<Memory> {
    MemoryProbe::open()?.read()
}

/// The local time zone, as the system's file describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Zone {
    /// Its name in the time-zone database, if the system tells; else empty.
    pub name: String,
    /// The file: RFC 9636 (TZif).
    pub data: Vec<u8>,
}

/// Where time-zone files are, in the order of looking.
const ZONE_DIRECTORIES: [&str; 2] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo"];

/// No honest zone file is longer.
const ZONE_BYTES_AT_MOST: u64 = 1 << 20;

/// Reads the local time zone: what `TZ` names, else `/etc/localtime`. To be called before the root
/// directory changes.
///
/// # Errors
/// `NotFound` when the system has none, which means UTC.
pub fn read_zone() -> io::Result<Zone> {
    let named = std::env::var("TZ").unwrap_or_default();
    // The environment names a zone, never a file: it may be a stranger's.
    let name = named.trim_start_matches(':');
    let is_plain = |name: &str| {
        let part = |part: &str| !part.is_empty() && !part.starts_with('.');
        name.split('/').all(part)
    };
    if is_plain(name) {
        for directory in ZONE_DIRECTORIES {
            if let Ok(data) = read_small(&Path::new(directory).join(name)) {
                return Ok(Zone { name: name.to_owned(), data });
            }
        }
    }
    let local = Path::new("/etc/localtime");
    let target = std::fs::read_link(local).unwrap_or_default();
    let name = target.to_str().and_then(|target| target.split_once("zoneinfo/")).map(|(_, it)| it);
    Ok(Zone { name: name.unwrap_or_default().to_owned(), data: read_small(local)? })
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path)?.take(ZONE_BYTES_AT_MOST).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn space_is_less_than_the_whole() {
        let space = file_space(File::open("/").unwrap().as_fd()).unwrap();
        assert!(space.total_bytes > 1 << 20);
        assert!(space.free_bytes <= space.total_bytes);
        assert!(space.free_inodes <= space.total_inodes);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let path = std::env::temp_dir().join(format!("platform-lock-{}", std::process::id()));
        let (one, two) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(lock_exclusive(one.as_fd()).unwrap());
        assert!(!lock_exclusive(two.as_fd()).unwrap());
        drop(one);
        assert!(lock_exclusive(two.as_fd()).unwrap());
    }

    #[test]
    fn memory_grows_with_what_is_touched() {
        let probe = MemoryProbe::open().unwrap();
        // Tests beside this one may give some of theirs back meanwhile: once it is seen alone.
        let grew = (0..20).any(|_| {
            let before = probe.read().unwrap();
            assert!(before.pss_bytes > 0 && before.pss_bytes <= before.rss_bytes);
            let touched = vec![1_u8; 32 << 20];
            let after = probe.read().unwrap();
            assert_eq!(touched[touched.len() / 2], 1);
            after.rss_bytes >= before.rss_bytes + (30 << 20)
        });
        assert!(grew);
    }
}
