//! Changing identity where the saved id cannot be named: for root, `setgid` and `setuid` set all
//! three (setuid(2) of NetBSD and macOS). The caller verifies that it cannot be undone.

use std::io;

use nix::unistd::{Gid, Uid, setgid, setuid};

pub(crate) fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    setgid(Gid::from_raw(gid))?;
    setuid(Uid::from_raw(uid))?;
    Ok(())
}
