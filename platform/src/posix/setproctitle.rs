//! The title of a process where the C library sets it: all systems but Linux and macOS.

use std::ffi::CString;

use crate::support::Support;

pub(crate) fn set(title: &str) -> Support {
    let title = CString::new(title.replace('\0', "")).unwrap_or_default();
    // SAFETY: the format takes one string, NUL-terminated. Its dash keeps the program's name from
    // being put in front (setproctitle(3)).
    unsafe { libc::setproctitle(c"-%s".as_ptr(), title.as_ptr()) };
    Support::full("setproctitle")
}

pub(crate) fn prepare() -> Support {
    Support::full("setproctitle")
}
