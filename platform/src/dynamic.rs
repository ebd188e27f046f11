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

    /// The same; `None` only if none of them is there.
    ///
    /// # Errors
    /// One may be there, and cannot be loaded: why, in the system's words.
    #[cfg_attr(target_os = "openbsd", allow(dead_code))] // it has no PAM
    pub(crate) fn find(names: &[&CStr]) -> Result<Option<Self>, String> {
        let mut reason = None;
        for name in names {
            if let Some(library) = Self::open(&[name]) {
                return Ok(Some(library));
            }
            // SAFETY: the text of the error that was just made is copied before the next call.
            let text = unsafe {
                let text = libc::dlerror();
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            let text = text.unwrap_or_default();
            if !says_absent(&text, &name.to_string_lossy()) {
                reason.get_or_insert(text);
            }
        }
        reason.map_or(Ok(None), Err)
    }

    /// Where a function of it is.
    pub(crate) fn function(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open, since none is ever closed, and the name ends with NUL.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

/// Whether this text says that there is no library of this name, or that this program loads none. A
/// library that another one needs may be missing in the same words.
fn says_absent(text: &str, name: &str) -> bool {
    let missing = text.contains("No such file") && !text.contains("needed by");
    let glibc = missing && text.starts_with(&format!("{name}: "));
    let musl = missing && text.contains(&format!(" {name}: "));
    glibc || musl || text == "Dynamic loading not supported"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_there_and_cannot_be_loaded_is_not_absent() {
        let cases = [
            ("libx.so.0: cannot open shared object file: No such file or directory", true),
            ("Error loading shared library libx.so.0: No such file or directory", true),
            ("Dynamic loading not supported", true),
            ("liby.so.1: cannot open shared object file: No such file or directory", false),
            (
                "Error loading shared library liby.so.1: No such file or directory (needed by /lib/libx.so.0)",
                false,
            ),
            ("libx.so.0: cannot open shared object file: Too many open files", false),
            ("libx.so.0: file too short", false),
            ("", false),
        ];
        for (text, absent) in cases {
            assert_eq!(says_absent(text, "libx.so.0"), absent, "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_none() {
        assert!(Library::open(&[c"libno-such-library.so.0"]).is_none());
        #[cfg(target_os = "linux")] // the others say it in other words
        assert!(matches!(Library::find(&[c"libno-such-library.so.0"]), Ok(None)));
        // A program that is linked statically loads nothing.
        if let Some(own) = Library::own() {
            assert!(own.function(c"no_such_function").is_none());
        }
    }
}
