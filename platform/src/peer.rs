//! Who is at the other end of a local socket, as the kernel says.

use std::io;
use std::os::fd::BorrowedFd;

use crate::{Host, Os};

/// The process at the other end, at the time it connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id, where the system tells; it may have ended since.
    pub pid: Option<i32>,
}

/// Credentials of the process connected to the local stream socket `fd`.
///
/// # Errors
/// When `fd` is not such a socket.
pub fn peer_of(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    Host.peer_of(fd)
}
