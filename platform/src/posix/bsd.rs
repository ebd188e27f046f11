//! What the BSDs and macOS share.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::memory::{Memory, MemoryProbe};
use crate::peer::Peer;
use crate::support::Support;

/// The other end of a local socket, as getpeereid(3) tells: without the process.
pub(crate) fn peer_of(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let (uid, gid) = nix::unistd::getpeereid(fd)?;
    Ok(Peer { uid: uid.as_raw(), gid: gid.as_raw(), pid: None })
}

pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    let count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
    // SAFETY: `groups` holds `count` ids and lives until the call returns.
    Errno::result(unsafe { libc::setgroups(count, groups.as_ptr()) })?;
    Ok(())
}

/// The most memory that the process had so far: what these systems tell a confined process.
///
/// `unit` is what `ru_maxrss` counts in, in bytes.
pub(crate) fn peak_memory(unit: u64) -> MemoryProbe {
    MemoryProbe::new(move || {
        // SAFETY: an all-zero rusage is a valid value, and lives until the call returns.
        let usage = unsafe {
            let mut usage: libc::rusage = mem::zeroed();
            Errno::result(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage))?;
            usage
        };
        let bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(unit);
        Ok(Memory { pss_bytes: bytes, rss_bytes: bytes })
    })
}

/// No supervisor of these systems is told anything.
pub(crate) fn notify() -> Support {
    Support::none("the system's service supervisor is not told")
}
