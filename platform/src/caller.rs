//! Rights that a program got from its file, beyond those of who calls it.
//!
//! Sources: setregid(2), credentials(7).

use std::io;

use nix::unistd::{getegid, geteuid, getgid, setegid};

/// Gives up a set-group-ID right for good: real, effective and saved group become the caller's.
///
/// # Errors
/// The right could not be given up, or could be taken back. The caller must exit.
pub fn drop_set_group_id() -> io::Result<()> {
    let (real, privileged) = (getgid(), getegid());
    if real == privileged {
        return Ok(());
    }
    // SAFETY: takes numbers only. Naming both ids also sets the saved one (POSIX, setregid).
    if unsafe { libc::setregid(real.as_raw(), real.as_raw()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Root may take any group at any time.
    let kept = !geteuid().is_root() && setegid(privileged).is_ok();
    if kept || getegid() != real {
        let reason = "the group of the program could not be given up";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_rights_of_its_own_has_nothing_to_give_up() {
        let before = (getgid(), getegid());
        drop_set_group_id().unwrap();
        assert_eq!((getgid(), getegid()), before);
    }
}
