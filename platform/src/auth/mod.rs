//! Whether a password is that of an account of the system.
//!
//! How a system knows is its own affair: PAM (Linux, FreeBSD, NetBSD, DragonFly, macOS), BSD
//! authentication (OpenBSD), or the shadow file where a Linux has no PAM. A check may take seconds
//! and runs code of others, so it belongs into a process of its own that ends with it. It needs
//! root's rights, except for the account of the process itself.
//!
//! Libraries are loaded when the first check is made: see [`pam`](self) for why.

#[cfg(target_os = "openbsd")]
pub(crate) mod bsd;
#[cfg(not(target_os = "openbsd"))]
pub(crate) mod pam;
#[cfg(target_os = "linux")]
pub(crate) mod shadow;

use std::ffi::CStr;
use std::io;

use crate::{Host, Os};

/// One check of a password.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// Name of the account.
    pub user: &'a CStr,
    /// The password.
    pub password: &'a CStr,
    /// Address of the client, where there is one.
    pub remote: Option<&'a CStr>,
}

/// Without the password.
impl std::fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, remote, .. } = self;
        f.debug_struct("Attempt")
            .field("user", user)
            .field("remote", remote)
            .finish_non_exhaustive()
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The password is right and the account may log in.
    Accepted,
    /// It is not, or may not, or there is no such account.
    Rejected,
}

/// Checks a password. It takes as long for an account that is not there as for a wrong password, as
/// far as that is ours to say.
///
/// # Errors
/// It could not be found out: the peer must be asked to try again later.
pub fn authenticate(attempt: &Attempt<'_>) -> io::Result<Verdict> {
    Host.authenticate(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_shown_without_its_password() {
        let attempt = Attempt { user: c"alice", password: c"secret", remote: Some(c"192.0.2.1") };
        let shown = format!("{attempt:?}");
        assert!(shown.contains("alice") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn nobody_logs_in_to_an_account_that_does_not_exist() {
        let user = c"no-such-account-here";
        let attempt = Attempt { user, password: c"secret", remote: Some(c"127.0.0.1") };
        // Without root's rights the system may not say.
        assert!(!matches!(authenticate(&attempt), Ok(Verdict::Accepted)));
    }
}
