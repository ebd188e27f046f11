//! What the BSDs and macOS share.

use std::io;
use std::os::fd::BorrowedFd;

use crate::peer::Peer;

/// The other end of a local socket, as getpeereid(3) tells: without the process.
pub(crate) fn peer_of(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let (uid, gid) = nix::unistd::getpeereid(fd)?;
    Ok(Peer { uid: uid.as_raw(), gid: gid.as_raw(), pid: None })
}
