//! Files, addresses and processes in reach of a confined process: Landlock.
//!
//! The version of the kernel decides how much: 1 (5.13) files, 2 (5.19) renaming between
//! directories, 3 (6.2) truncation, 4 (6.7) TCP ports, 6 (6.12) signals and abstract sockets.
//!
//! Source: `Documentation/userspace-api/landlock.rst` of Linux.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::support::Support;

/// The newest version whose rights are handled here.
const NEWEST: ABI = ABI::V6;

/// The version that the kernel offers, by landlock_create_ruleset(2).
fn version() -> io::Result<i64> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`
    const ASK_VERSION: libc::c_uint = 1;
    let no_attributes = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no attributes and only answers a number.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, 0_usize, ASK_VERSION)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

pub(super) fn probe() -> Support {
    match version() {
        Ok(version @ 6..) => Support::full(format!("Landlock {version}")),
        Ok(version @ 2..) => {
            Support::partial(format!("Landlock {version}, which cannot limit signals"))
        }
        Ok(version) => Support::partial(format!(
            "Landlock {version}, too old for processes that rename files between directories"
        )),
        Err(error) => Support::none(format!("Landlock: {error}")),
    }
}

/// Leaves this thread, and those it starts, only the files below `directories`, TCP sockets bound
/// to a port of the system's choice, and signals within the process. Irreversible; sets
/// no_new_privs.
pub(super) fn confine(directories: &[PathBuf]) -> io::Result<Support> {
    let offered = probe();
    let Ok(version) = version() else { return Ok(offered) };
    // Version 1 refuses every rename from one directory to another, and so every delivery.
    if version < 2 && !directories.is_empty() {
        return Ok(Support::none("Landlock 1 cannot let a process rename between directories"));
    }
    let mut created = ruleset().map_err(io::Error::other)?;
    for directory in directories {
        let opened = PathFd::new(directory).map_err(|error| {
            let gone = !directory.exists();
            let kind = if gone { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            io::Error::new(kind, error)
        })?;
        let rule = PathBeneath::new(opened, file_rights());
        created = created.add_rule(rule).map_err(io::Error::other)?;
    }
    let status = created.restrict_self().map_err(io::Error::other)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::other("Landlock was offered and then not enforced"));
    }
    Ok(offered)
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        // Port 0: a source address of an outgoing connection, the port left to the system.
        .add_rule(NetPort::new(0, AccessNet::BindTcp))
}

/// What may be done below a directory: nothing with devices, programs, sockets or links.
fn file_rights() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::Refer
}
