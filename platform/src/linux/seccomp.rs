//! System calls of a confined process: seccomp(2) filters.
//!
//! Several filters lie over one another, and the strictest answer counts:
//! - calls that only an intruder makes end the process;
//! - `clone3`, whose flags a filter cannot see, does not exist (the C library falls back to
//!   `clone`, where only threads are allowed);
//! - local sockets fail with EPERM for roles that make none, uncounted: the C library's log
//!   functions try one whenever the log daemon is gone;
//! - everything not in the role's list of [`super::calls`] fails with EPERM and is counted, see
//!   [`super::refusal`].
//!
//! What it does not do: judge paths and addresses. That is Landlock's part, and the root
//! directory's.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::calls::{self, Allowed, Argument, Profile};
use super::refusal;
use crate::role::Role;
use crate::sandbox::Denied;
use crate::support::Support;

#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: TargetArch = TargetArch::riscv64;
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;

/// Whether the kernel has every answer that the filters give.
pub(super) fn probe() -> Support {
    let actions = [
        libc::SECCOMP_RET_KILL_PROCESS,
        libc::SECCOMP_RET_TRAP,
        libc::SECCOMP_RET_ERRNO,
        libc::SECCOMP_RET_ALLOW,
    ];
    let available = actions.iter().all(|action| {
        // SAFETY: `action` lives until the call returns, which only reads it.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_ACTION_AVAIL,
                0,
                std::ptr::from_ref(action),
            )
        };
        answer == 0
    });
    if available {
        return Support::full("seccomp");
    }
    Support::none(format!("seccomp: {}", io::Error::last_os_error()))
}

/// Calls that the filters have refused.
pub(super) fn denied() -> Denied {
    refusal::denied()
}

/// Puts all threads of the process under the filters of `role`. Irreversible; sets no_new_privs.
pub(super) fn confine(role: Role) -> io::Result<Support> {
    let offered = probe();
    let Some(profile) = calls::profile(role).filter(|_| !offered.is_none()) else {
        return Ok(offered);
    };
    let mut filters = vec![killing(profile)?, without_clone3()?];
    if !profile.families.contains(&libc::AF_UNIX) {
        filters.push(without_local_sockets()?);
    }
    // The last one: it refuses to have more.
    filters.push(allowing(profile)?);
    refusal::install()?;
    for filter in &filters {
        apply_filter_all_threads(filter).map_err(io::Error::other)?;
    }
    Ok(offered)
}

/// Ends the process at a call that no role makes, and at a socket of a family foreign to it.
fn killing(profile: &Profile) -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls::FATAL.iter().map(|call| (*call, Vec::new())).collect();
    let foreign = profile
        .families
        .iter()
        // Refused below where it is not wanted, but no attack.
        .chain([&libc::AF_UNIX])
        .map(|family| condition(0, SeccompCmpOp::Ne, family.unsigned_abs().into()))
        .collect::<io::Result<Vec<_>>>()?;
    rules.insert(libc::SYS_socket, vec![rule(foreign)?]);
    compile(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

fn without_clone3() -> io::Result<BpfProgram> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let errno = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    compile(rules, SeccompAction::Allow, errno)
}

fn without_local_sockets() -> io::Result<BpfProgram> {
    let local = family_is(libc::AF_UNIX)?;
    let rules = BTreeMap::from([(libc::SYS_socket, vec![local])]);
    let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    compile(rules, SeccompAction::Allow, errno)
}

/// Lets the calls of `profile` through and traps all others.
fn allowing(profile: &Profile) -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in profile.calls.iter().copied().flatten() {
        rules.insert(*call, Vec::new());
    }
    for allowed in profile.limited.iter().copied().flatten() {
        let Allowed { call, argument, values } = allowed;
        // Without conditions a call is allowed whatever its arguments, and stays so.
        if rules.get(call).is_some_and(Vec::is_empty) {
            continue;
        }
        for value in *values {
            rules.entry(*call).or_default().push(rule(vec![matching(*argument, *value)?])?);
        }
    }
    // Local sockets are for the filter above to judge.
    let families = profile.families.iter().copied().chain([libc::AF_UNIX]);
    rules.insert(libc::SYS_socket, families.map(family_is).collect::<io::Result<_>>()?);
    // Signals only to the process itself, limits only its own and only read.
    let own = condition(0, SeccompCmpOp::Eq, std::process::id().into())?;
    rules.insert(libc::SYS_tgkill, vec![rule(vec![own])?]);
    let own = condition(0, SeccompCmpOp::Eq, 0)?;
    let read = wide_condition(2, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![rule(vec![own, read])?]);
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

/// The first argument of `socket` is `family`.
fn family_is(family: libc::c_int) -> io::Result<SeccompRule> {
    rule(vec![condition(0, SeccompCmpOp::Eq, family.unsigned_abs().into())?])
}

fn matching(argument: Argument, value: u64) -> io::Result<SeccompCondition> {
    match argument {
        Argument::Is(index) => condition(index, SeccompCmpOp::Eq, value),
        Argument::Lacks(index) => condition(index, SeccompCmpOp::MaskedEq(value), 0),
        Argument::Has(index) => condition(index, SeccompCmpOp::MaskedEq(value), value),
    }
}

/// About the low 32 bits of an argument: all that the kernel looks at where it takes an `int`.
fn condition(index: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).map_err(io::Error::other)
}

fn wide_condition(index: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    let filter =
        SeccompFilter::new(rules, otherwise, matched, ARCHITECTURE).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}
