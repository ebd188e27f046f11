//! BSD authentication, of OpenBSD.
//!
//! Which login style is used, and whether an account may be used for mail, is said by its class in
//! login.conf(5) under the type `auth-smtp`. An account that is not there takes the same way.
//!
//! Source: auth_userokay(3), login.conf(5).

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use super::{Attempt, Verdict};

/// The type that login.conf(5) knows: `auth-smtp`.
const TYPE: &CStr = c"auth-smtp";

unsafe extern "C" {
    fn auth_userokay(
        name: *mut c_char,
        style: *mut c_char,
        kind: *mut c_char,
        password: *mut c_char,
    ) -> c_int;
}

/// Checks a password. The interface does not tell a failure from a wrong password.
pub(crate) fn authenticate(attempt: &Attempt<'_>) -> Verdict {
    let mut user = attempt.user.to_bytes_with_nul().to_vec();
    let mut kind = TYPE.to_bytes_with_nul().to_vec();
    let mut password = attempt.password.to_bytes_with_nul().to_vec();
    // SAFETY: the strings end with NUL and are ours to be written to (the password is overwritten);
    // without a style the one of the class is taken.
    let accepted = unsafe {
        auth_userokay(
            user.as_mut_ptr().cast(),
            ptr::null_mut(),
            kind.as_mut_ptr().cast(),
            password.as_mut_ptr().cast(),
        )
    };
    if accepted == 0 { Verdict::Rejected } else { Verdict::Accepted }
}
