//! Between lookup and auth worker: one password of an account of the system.
//!
//! The password goes straight from one to the other: parent and spawner, who start the worker, see
//! nothing of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::lookup::Password;
use crate::ipc::blob::Blob;

/// What lookup asks an auth worker, which then leaves.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum LookupToAuth {
    /// Check a password (answered by [`AuthToLookup::Checked`]).
    Check {
        /// Name of the account, as the client sent it.
        user: Blob,
        /// The password.
        password: Password,
        /// Address of the client; a local one has none.
        remote: Option<IpAddr>,
    },
}

/// What an auth worker answers.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum AuthToLookup {
    /// Whether the password is that of an account that may log in.
    ///
    /// # Errors
    /// Why it is not known, in words: temporary.
    Checked(Result<bool, String>),
}
