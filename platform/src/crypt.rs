//! crypt(3): hashes of passwords in the forms that this system knows.
//!
//! The library is loaded where there is one, before the process is confined. glibc's neighbour knows
//! a dozen forms, a BSD fewer, macOS only the oldest: which, is seen by trying.
//!
//! Sources: crypt(3) and crypt(5) of libxcrypt, FreeBSD, NetBSD and OpenBSD.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem;
use std::sync::{Mutex, PoisonError};

use crate::dynamic::Library;

/// Names of the library: libxcrypt in its two ABIs, FreeBSD, and whichever a link says.
#[cfg_attr(target_env = "musl", allow(dead_code))] // it is linked there
const LIBRARIES: [&CStr; 4] =
    [c"libcrypt.so.1", c"libcrypt.so.2", c"libcrypt.so.5", c"libcrypt.so"];

/// 16-byte pieces of the memory that a computation gets: above what any system's `struct crypt_data`
/// has (glibc's old one had 128 KiB).
const SCRATCH: usize = 256 * 1024 / 16;

type Reentrant = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void) -> *mut c_char;
type Shared = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_char;

/// crypt(3) of this system.
#[derive(Debug)]
pub struct Crypt(Function);

#[derive(Debug)]
enum Function {
    /// `crypt_r`, which any number of threads may call at once.
    Reentrant(Reentrant),
    /// `crypt`, whose answer is in memory of its own: one at a time.
    Shared(Mutex<Shared>),
}

#[cfg(target_env = "musl")]
unsafe extern "C" {
    /// Part of this C library, which may be linked so that nothing can be loaded.
    fn crypt_r(password: *const c_char, setting: *const c_char, data: *mut c_void) -> *mut c_char;
}

impl Crypt {
    /// The system's, if it has one. To be called before the process gives up reading libraries.
    pub fn load() -> Option<Self> {
        #[cfg(target_env = "musl")]
        return Some(Self(Function::Reentrant(crypt_r)));
        #[cfg(not(target_env = "musl"))]
        [Library::own(), Library::open(&LIBRARIES)].into_iter().flatten().find_map(Self::of)
    }

    #[cfg_attr(target_env = "musl", allow(dead_code))] // it is linked there
    fn of(library: Library) -> Option<Self> {
        if let Some(function) = library.function(c"crypt_r") {
            // SAFETY: this is the signature of crypt_r on every system that has it; its third
            // argument points to a `struct crypt_data`.
            let function = unsafe { mem::transmute::<*mut c_void, Reentrant>(function.as_ptr()) };
            return Some(Self(Function::Reentrant(function)));
        }
        let function = library.function(c"crypt")?;
        // SAFETY: the signature of crypt is POSIX's.
        let function = unsafe { mem::transmute::<*mut c_void, Shared>(function.as_ptr()) };
        Some(Self(Function::Shared(Mutex::new(function))))
    }

    /// The hash of a password in the form, with the salt and at the cost of `setting`, which may be a
    /// whole hash. `None` if this system does not know the form, or finds the setting wrong.
    pub fn hash(&self, password: &CStr, setting: &CStr) -> Option<CString> {
        let hash = match &self.0 {
            Function::Reentrant(function) => {
                let mut scratch = vec![0_u128; SCRATCH];
                // SAFETY: both strings end with NUL; the memory is zeroed, as the first call wants
                // it, aligned, larger than the structure, and lives until the answer is copied.
                let hash = unsafe {
                    let data = scratch.as_mut_ptr().cast();
                    copied(function(password.as_ptr(), setting.as_ptr(), data))
                };
                wipe(&mut scratch);
                hash
            }
            Function::Shared(function) => {
                let function = function.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: both strings end with NUL; under the lock nobody else writes the answer.
                unsafe { copied(function(password.as_ptr(), setting.as_ptr())) }
            }
        };
        // A failure may be null, or a text that is no hash.
        hash.filter(|hash| !hash.is_empty() && !hash.to_bytes().starts_with(b"*"))
    }
}

/// # Safety
/// `text` is null or ends with NUL.
unsafe fn copied(text: *const c_char) -> Option<CString> {
    // SAFETY: as the caller says.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
}

/// Overwrites what a computation left behind.
fn wipe(scratch: &mut [u128]) {
    for piece in scratch {
        // SAFETY: a plain place in a slice that is ours.
        unsafe { std::ptr::write_volatile(piece, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_hashes_are_those_that_its_programs_make() {
        let Some(crypt) = Crypt::load() else {
            println!("skipped: this system has no crypt(3)");
            return;
        };
        // DES, which every crypt(3) but OpenBSD's knows: it is POSIX's only one.
        let des = crypt.hash(c"secret", c"ab");
        assert!(des.is_none() || des.as_deref() == Some(c"abNANd1rDfiNc"), "{des:?}");
        for (password, setting) in [(c"secret", c"$no$such$form$"), (c"secret", c"*"), (c"", c"")] {
            assert_eq!(crypt.hash(password, setting), None, "{setting:?}");
        }
    }

    #[test]
    fn a_hash_made_with_a_hash_is_the_same() {
        let Some(crypt) = Crypt::load() else {
            println!("skipped: this system has no crypt(3)");
            return;
        };
        for setting in [c"ab", c"$1$saltsalt$", c"$5$saltsalt$", c"$2b$04$abcdefghijklmnopqrstuu"] {
            let Some(hash) = crypt.hash(c"secret", setting) else { continue };
            assert_eq!(crypt.hash(c"secret", &hash), Some(hash.clone()), "{setting:?}");
            assert_ne!(crypt.hash(c"other", &hash), Some(hash), "{setting:?}");
        }
    }
}
