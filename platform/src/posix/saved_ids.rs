//! Changing identity where real, effective and saved ids can be set at once.

use std::io;

use nix::unistd::{Gid, Uid, setresgid, setresuid};

pub(crate) fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}
