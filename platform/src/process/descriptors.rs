//! Which descriptors a new process has: exactly those meant for it.
//!
//! Everything here is async-signal-safe: it runs between `fork` and `exec` of a process that may
//! have had threads, so it allocates nothing and takes no lock.

use std::os::fd::RawFd;

use crate::{Host, Os};

/// A descriptor and the number it is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) source: RawFd,
    pub(super) target: RawFd,
}

/// Gives every mapping's source its target number and closes everything else but `report`.
///
/// `mappings` is sorted by target, without repeats; its sources are overwritten. Answers the new
/// number of `report`, which is closed on exec, or `None` with the reason in `errno`.
pub(super) fn arrange(mappings: &mut [Mapping], report: RawFd) -> Option<RawFd> {
    let beyond = mappings.last().map_or(0, |last| last.target + 1);
    // First out of the way, so that no target overwrites a source still needed.
    let lifted_report = lift(report, beyond + 1)?;
    for mapping in &mut *mappings {
        mapping.source = lift(mapping.source, beyond + 1)?;
    }
    let mut next = 0;
    for mapping in &*mappings {
        close_between(next, mapping.target);
        // SAFETY: takes numbers only. The copy is not closed on exec.
        if unsafe { libc::dup2(mapping.source, mapping.target) } < 0 {
            return None;
        }
        next = mapping.target + 1;
    }
    // SAFETY: both take numbers only.
    let moved = unsafe {
        libc::dup2(lifted_report, beyond) >= 0
            && libc::fcntl(beyond, libc::F_SETFD, libc::FD_CLOEXEC) >= 0
    };
    if !moved {
        return None;
    }
    Host.close_from(beyond + 1);
    Some(beyond)
}

fn lift(fd: RawFd, lowest: RawFd) -> Option<RawFd> {
    // SAFETY: takes numbers only.
    let lifted = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) };
    (lifted >= 0).then_some(lifted)
}

fn close_between(first: RawFd, end: RawFd) {
    for fd in first..end {
        // SAFETY: the child's own table; whatever has this number is not meant for it.
        unsafe { libc::close(fd) };
    }
}

/// Closes every descriptor but those in `keep`: what a child of [`super::run_in_child`] calls
/// first.
///
/// Values in the process that own other descriptors must not be dropped afterwards; a forked child
/// leaves with `_exit`, which drops nothing.
pub fn close_all_except(keep: &[RawFd]) {
    let mut next = 0;
    // Without a sorted copy, since this allocates nothing: each round finds the next one to keep.
    while let Some(kept) = keep.iter().copied().filter(|fd| *fd >= next).min() {
        close_between(next, kept);
        next = kept + 1;
    }
    Host.close_from(next);
}
