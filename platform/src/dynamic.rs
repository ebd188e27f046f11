//! Libraries that are loaded when they are needed, and may be missing.
//!
//! Nothing of them is needed to build, and only the process that uses one has it in its memory.
//!
//! Source: dlopen(3).

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

/// A library that stays loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library(NonNull<c_void>);

// SAFETY: a handle is only passed to dlsym, which any thread may call.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// What is part of this program already.
    #[cfg_attr(target_env = "musl", allow(dead_code))] // what it is wanted for is linked there
    pub(crate) fn own() -> Option<Self> {
        // SAFETY: a null name means the program itself.
        NonNull::new(unsafe { libc::dlopen(ptr::null(), libc::RTLD_NOW) }).map(Self)
    }

    /// The first of these that is there, found where the system keeps libraries.
    pub(crate) fn open(names: &[&CStr]) -> Option<Self> {
        names.iter().find_map(|name| {
            // SAFETY: the name ends with NUL. What runs when it is loaded is the system's own code.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            NonNull::new(handle).map(Self)
        })
    }

    /// Where a function of it is.
    pub(crate) fn function(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open, since none is ever closed, and the name ends with NUL.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_none() {
        assert!(Library::open(&[c"libno-such-library.so.0"]).is_none());
        // A program that is linked statically loads nothing.
        if let Some(own) = Library::own() {
            assert!(own.function(c"no_such_function").is_none());
        }
    }
}
