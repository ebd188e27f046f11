//! Confinement of the roles: what each may still do once it serves.
//!
//! [`confine`] comes after identity and root directory and before threads. Parent, spawner and auth
//! worker are not confined: they, or what they start, need every right. A worker that executes
//! nothing is confined by [`confine_worker`].

use std::io;
use std::path::PathBuf;

use crate::role::Role;
use crate::support::Support;
use crate::{Host, Os};

/// What a role needs besides what its name says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Confinement {
    /// Queue alone: the spool, as the process sees it after the change of root directory. Files
    /// below it stay reachable, all others do not.
    pub spool: Option<PathBuf>,
    /// Started by an ordinary user: the root directory was not changed.
    pub rootless: bool,
}

/// Calls that the confinement has refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Denied {
    /// How many since the process was confined.
    pub count: u64,
    /// The system's number of the latest.
    pub latest_call: Option<i64>,
}

/// What of the system's confinement is on offer, by mechanism.
pub fn probe() -> Vec<(&'static str, Support)> {
    Host.probe()
}

/// Gives up every right that `role` does not need. Irreversible.
///
/// # Errors
/// A mechanism that [`probe`] found did not work. The caller must exit.
pub fn confine(role: Role, extra: &Confinement) -> io::Result<Support> {
    Host.confine(role, extra)
}

/// Gives up what a worker that executes nothing does not need: it keeps the files below `dirs`,
/// and connections to LMTP servers.
///
/// # Errors
/// As [`confine`]; `NotFound` if one of `dirs` is not there.
pub fn confine_worker(dirs: &[PathBuf]) -> io::Result<Support> {
    Host.confine_worker(dirs)
}

/// Calls that this process's confinement has refused so far. Each is a mistake, or an attack.
pub fn denied() -> Denied {
    Host.denied()
}
