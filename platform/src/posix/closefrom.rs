//! closefrom(3), where the C library has it, and the group list as these systems declare it.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

use nix::unistd::Gid;

pub(crate) fn close_from(first: RawFd) {
    // SAFETY: takes a number only; async-signal-safe, a system call on all of these systems.
    unsafe { libc::closefrom(first) };
}

pub(crate) fn group_list(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let groups = nix::unistd::getgrouplist(name, Gid::from_raw(gid))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}
