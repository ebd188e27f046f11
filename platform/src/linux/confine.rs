//! Confinement of the roles on Linux: no_new_privs, Landlock, seccomp, in this order.

use std::io;
use std::path::PathBuf;

use super::{landlock, seccomp};
use crate::role::Role;
use crate::sandbox::Confinement;
use crate::support::Support;

pub(super) fn probe() -> Vec<(&'static str, Support)> {
    vec![
        ("privileges", Support::full("no_new_privs")),
        ("files", landlock::probe()),
        ("system calls", seccomp::probe()),
    ]
}

pub(super) fn confine_role(role: Role, extra: &Confinement) -> io::Result<Support> {
    if matches!(role, Role::Parent | Role::Spawner | Role::Worker | Role::Auth) {
        return Ok(Support::none(format!("{role} starts programs that need every right")));
    }
    let directories: Vec<_> = extra.spool.iter().cloned().collect();
    confine_to(role, &directories, extra.rootless)
}

pub(super) fn confine_worker(dirs: &[PathBuf]) -> io::Result<Support> {
    // A worker never has a root directory of its own.
    confine_to(Role::Worker, dirs, true)
}

fn confine_to(role: Role, directories: &[PathBuf], sees_all: bool) -> io::Result<Support> {
    nix::sys::prctl::set_no_new_privs()?;
    let mut files = landlock::confine(directories)?;
    if files.is_none() && sees_all && !directories.is_empty() {
        files = Support::none(format!("{files}; all files of the user stay in reach"));
    }
    Ok(Support::full("no_new_privs").and(files).and(seccomp::confine(role)?))
}
