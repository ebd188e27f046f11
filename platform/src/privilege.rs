//! Giving up rights: identity, root directory, descriptors, limits.
//!
//! The order that a role follows is: descriptors, root directory, groups, ids, verification, then
//! [`crate::sandbox`], then threads. Nothing here can be taken back.
//!
//! Sources: setresuid(2), chroot(2), setrlimit(2); credentials(7).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgid, getuid};

use crate::role::Role;
use crate::support::Support;
use crate::{Host, Os};

/// Who a process is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups; [`Identity::gid`] need not be among them.
    pub groups: Vec<u32>,
}

/// Becomes `identity` for good: groups, then real, effective and saved ids, then
/// [`verify_dropped`].
///
/// Without root's rights it succeeds only if the process has those ids already (groups are then
/// left as they are).
///
/// # Errors
/// The caller must exit: the process may be half of each.
pub fn drop_to(identity: &Identity) -> io::Result<()> {
    if is_root() {
        let mut groups = vec![identity.gid];
        groups.extend(identity.groups.iter().filter(|group| **group != identity.gid));
        Host.set_groups(&groups)?;
    }
    Host.set_ids(identity.uid, identity.gid)?;
    verify_dropped(identity)
}

/// Checks that the process is `identity` and cannot become root again.
///
/// # Errors
/// `PermissionDenied` when it is or could be somebody else. The caller must exit.
pub fn verify_dropped(identity: &Identity) -> io::Result<()> {
    let refused = |what| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    if getuid() != uid || geteuid() != uid {
        return refused("the user id is not the one asked for");
    }
    if getgid() != gid || getegid() != gid {
        return refused("the group id is not the one asked for");
    }
    if uid.is_root() {
        return Ok(());
    }
    // A saved id, or a right that outlived the change, would let one of these succeed.
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok()
        || nix::unistd::seteuid(Uid::from_raw(0)).is_ok()
    {
        return refused("the process could become root again");
    }
    if identity.gid != 0
        && (nix::unistd::setgid(Gid::from_raw(0)).is_ok()
            || nix::unistd::setegid(Gid::from_raw(0)).is_ok())
    {
        return refused("the process could take root's group again");
    }
    Ok(())
}

/// Makes `path` the root directory, and the working directory too.
///
/// # Errors
/// When `path` is not a directory, or without root's rights.
pub fn chroot_to(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is NUL-terminated and lives until the call returns.
    if unsafe { libc::chroot(path.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    std::env::set_current_dir("/")
}

/// Keeps other processes of the same user from tracing this one, and memory out of core files.
///
/// # Errors
/// A mechanism that the system has did not work.
pub fn make_undumpable() -> io::Result<Support> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Host.make_undumpable()
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: RawFd) {
    Host.close_from(first);
}

/// Raises the soft limit of open descriptors as far as the hard limit (and the system) allows.
///
/// Answers the limit that holds now.
///
/// # Errors
/// When limits cannot be read or set.
#[allow(clippy::unnecessary_cast)] // FreeBSD's limits are signed
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = (hard as u64).min(Host.descriptor_ceiling());
    if soft as u64 >= wanted {
        return Ok(soft as u64);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted as libc::rlim_t, hard)?;
    Ok(wanted)
}

/// Lowers the soft limit of open descriptors to what programs are used to, and no daemon of ours
/// has: there are some that go through all numbers up to the limit.
///
/// # Errors
/// When limits cannot be read or set.
pub(crate) fn set_usual_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(1024), hard)?;
    Ok(())
}

/// Sets the limits that `role` never has a reason to reach: no core file; no process of its own
/// where that does not count threads; no growing file for those that write none.
///
/// # Errors
/// When limits cannot be set.
pub fn set_limits_for(role: Role) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if starts_processes(role) {
        return Ok(());
    }
    if !Host.counts_threads_as_processes() {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` lives until the call returns. (nix does not offer this one everywhere.)
        if unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Standard error in a file is a log in the foreground mode: that file must be able to grow.
    if writes_no_file(role) && !standard_error_is_a_file() {
        setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    }
    Ok(())
}

const fn starts_processes(role: Role) -> bool {
    matches!(role, Role::Parent | Role::Spawner | Role::Worker | Role::Auth)
}

const fn writes_no_file(role: Role) -> bool {
    matches!(role, Role::Control | Role::Keys | Role::Lookup | Role::Scheduler)
}

fn standard_error_is_a_file() -> bool {
    let file_type = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(io::stderr().as_fd()).is_ok_and(|found| file_type(found.st_mode) == SFlag::S_IFREG)
}

/// Keeps the rights in `mask` from every file that the process makes from now on.
pub fn set_umask(mask: u16) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask.into()));
}

/// The effective user id.
pub fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// The effective group id.
pub fn effective_gid() -> u32 {
    getegid().as_raw()
}

/// Whether the process runs with root's rights.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether real and effective ids are the same: a program for which they differ trusts no
/// environment.
pub fn ids_agree() -> bool {
    getuid() == geteuid() && getgid() == getegid()
}

/// The identity that the process has now.
///
/// # Errors
/// When the groups cannot be read.
pub fn current_identity() -> io::Result<Identity> {
    Ok(Identity { uid: effective_uid(), gid: effective_gid(), groups: current_groups()? })
}

fn current_groups() -> io::Result<Vec<u32>> {
    // SAFETY: with length 0 the call only counts.
    let count = unsafe { libc::getgroups(0, ptr::null_mut()) };
    let mut groups = vec![0; usize::try_from(count).map_err(|_| io::Error::last_os_error())?];
    // SAFETY: `groups` has room for `count` ids.
    let count = unsafe { libc::getgroups(count, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{ExitStatus, run_in_child, wait_for};

    /// Whether `test` held in a child, which alone changes.
    fn holds_in_child(test: impl FnOnce() -> io::Result<bool>) -> bool {
        let child = run_in_child(|| i32::from(!test().unwrap_or(false))).unwrap();
        wait_for(child).unwrap() == ExitStatus::Exited(0)
    }

    fn skipped_without_root(test: &str) -> bool {
        if !is_root() {
            eprintln!("skipped: {test} needs root's rights");
        }
        !is_root()
    }

    const SOMEBODY: u32 = 64_243;

    #[test]
    fn a_dropped_process_is_somebody_else_for_good() {
        if skipped_without_root("changing identity") {
            return;
        }
        assert!(holds_in_child(|| {
            let groups = vec![SOMEBODY + 1];
            drop_to(&Identity { uid: SOMEBODY, gid: SOMEBODY, groups })?;
            let now = current_identity()?;
            let mut groups = now.groups;
            groups.sort_unstable();
            let kept = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let saved = kept.lines().find(|line| line.starts_with("Uid:"));
            let same = format!("Uid:\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}");
            Ok(now.uid == SOMEBODY
                && now.gid == SOMEBODY
                && groups == [SOMEBODY, SOMEBODY + 1]
                && saved.is_none_or(|saved| saved == same)
                && drop_to(&Identity { uid: 0, gid: 0, groups: Vec::new() }).is_err())
        }));
    }

    #[test]
    fn a_saved_id_that_is_still_root_is_found_out() {
        if skipped_without_root("changing identity") {
            return;
        }
        assert!(holds_in_child(|| {
            nix::unistd::setegid(Gid::from_raw(SOMEBODY))?;
            nix::unistd::seteuid(Uid::from_raw(SOMEBODY))?;
            let identity = Identity { uid: SOMEBODY, gid: SOMEBODY, groups: Vec::new() };
            Ok(verify_dropped(&identity).is_err())
        }));
    }

    #[test]
    fn an_ordinary_user_may_become_what_it_is_and_nothing_else() {
        assert!(holds_in_child(|| {
            let own = Identity { uid: SOMEBODY, gid: SOMEBODY, groups: Vec::new() };
            if is_root() {
                drop_to(&own)?;
            }
            let own = current_identity()?;
            let other = Identity { uid: own.uid + 1, ..own.clone() };
            Ok(drop_to(&own).is_ok() && drop_to(&other).is_err())
        }));
    }

    #[test]
    fn a_changed_root_directory_is_also_the_working_directory() {
        if skipped_without_root("changing the root directory") {
            return;
        }
        let directory = std::env::temp_dir().join(format!("platform-root-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert!(holds_in_child(|| {
            chroot_to(&directory)?;
            Ok(std::env::current_dir()?.as_os_str() == "/" && std::fs::read_dir(".")?.count() == 0)
        }));
        assert!(holds_in_child(|| Ok(chroot_to(Path::new("/dev/null")).is_err())));
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn descriptors_are_closed_and_their_limit_raised() {
        assert!(holds_in_child(|| {
            // Not dropped: that would close them again.
            let pipe = std::mem::ManuallyDrop::new(crate::fd::pipe()?);
            crate::process::close_all_except(&[2, 0]);
            Ok(fstat(&pipe.0).is_err() && fstat(&pipe.1).is_err() && fstat(io::stdin()).is_ok())
        }));
        assert!(holds_in_child(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, 16, hard)?;
            let raised = raise_descriptor_limit()?;
            Ok(raised > 16 && getrlimit(Resource::RLIMIT_NOFILE)?.0 == raised)
        }));
    }

    #[test]
    fn a_role_leaves_no_core_and_is_not_dumpable() {
        assert!(holds_in_child(|| {
            set_limits_for(Role::Keys)?;
            let undumpable = make_undumpable()?;
            Ok(!undumpable.is_none() && getrlimit(Resource::RLIMIT_CORE)? == (0, 0))
        }));
    }
}
