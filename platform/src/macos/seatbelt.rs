//! Confinement by the system's sandbox: sandbox_init(3).
//!
//! The call is marked deprecated and has no successor for daemons, so it is looked up at run time:
//! where it is gone, roles are not confined and say so. A profile that the system refuses is an
//! error.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::ptr;

use crate::role::Role;
use crate::sandbox::Confinement;
use crate::support::Support;

/// `sandbox_init` of `sandbox.h`: profile, flags (0: the text of a profile), error text.
type SandboxInit =
    unsafe extern "C" fn(*const libc::c_char, u64, *mut *mut libc::c_char) -> libc::c_int;

fn sandbox_init() -> Option<SandboxInit> {
    // SAFETY: the name is NUL-terminated.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"sandbox_init".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: the library's function of this name has had this type since it came.
    Some(unsafe { mem::transmute::<*mut libc::c_void, SandboxInit>(symbol) })
}

pub(super) fn probe() -> Support {
    match sandbox_init() {
        Some(_) => Support::full("sandbox_init"),
        None => Support::none("this macOS has no sandbox_init"),
    }
}

pub(super) fn confine_role(role: Role, extra: &Confinement) -> io::Result<Support> {
    let rules = match role {
        Role::Parent | Role::Spawner | Role::Worker | Role::Auth => {
            return Ok(Support::none(format!("{role} starts programs that need every right")));
        }
        Role::Control | Role::Keys | Role::Scheduler => {
            "(deny network-outbound)(deny network-bind)"
        }
        Role::Dispatcher | Role::Lookup => "",
        Role::Queue => "(deny network*)",
    };
    let directories: Vec<_> = extra.spool.iter().cloned().collect();
    apply(rules, &directories)
}

pub(super) fn confine_worker(dirs: &[PathBuf]) -> io::Result<Support> {
    apply("", dirs)
}

fn apply(rules: &str, directories: &[PathBuf]) -> io::Result<Support> {
    let Some(sandbox_init) = sandbox_init() else { return Ok(probe()) };
    let profile = CString::new(profile(rules, directories)?)?;
    let mut reason = ptr::null_mut();
    // SAFETY: `profile` is NUL-terminated; both outlive the call.
    if unsafe { sandbox_init(profile.as_ptr(), 0, &raw mut reason) } == 0 {
        return Ok(Support::full("sandbox_init"));
    }
    if reason.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call left a NUL-terminated text, which is leaked: the process is about to end.
    let reason = unsafe { CStr::from_ptr(reason) };
    Err(io::Error::other(reason.to_string_lossy().into_owned()))
}

/// No program, no new process, no file but those below `directories`; later rules win.
fn profile(rules: &str, directories: &[PathBuf]) -> io::Result<String> {
    let mut text = String::from(
        "(version 1)(allow default)(deny process-exec)(deny process-fork)\
         (deny file-read* file-write*)",
    );
    for directory in directories {
        let path = quoted(directory)?;
        text.push_str(&format!("(allow file-read* file-write* (subpath {path}))"));
    }
    text.push_str(rules);
    Ok(text)
}

fn quoted(path: &Path) -> io::Result<String> {
    let path = path.to_str().filter(|path| !path.contains(['"', '\\']));
    let path = path.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(format!("\"{path}\""))
}
