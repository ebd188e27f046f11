//! Calls that a filter refused: they fail with EPERM and are counted.
//!
//! The kernel can give EPERM by itself, but then nobody learns of it. So a refused call raises
//! SIGSYS in the thread that made it, and the handler writes the call's result where the kernel
//! would have put it. A thread that has blocked SIGSYS is killed instead: only the C library does
//! that, around thread start and end, with calls that every list has.
//!
//! Source: seccomp(2), SECCOMP_RET_TRAP; `ucontext.h` of each processor.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::{io, mem, ptr};

use nix::errno::Errno;

use crate::sandbox::Denied;

static COUNT: AtomicU64 = AtomicU64::new(0);
static LATEST: AtomicI64 = AtomicI64::new(NO_CALL);

const NO_CALL: i64 = -1;

/// The value of `si_code` for a filter's signal (`asm-generic/siginfo.h`).
const SYS_SECCOMP: libc::c_int = 1;

/// What a `siginfo_t` holds for SIGSYS (`asm-generic/siginfo.h`, 64 bits).
#[repr(C)]
struct CallInfo {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    padding: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    architecture: libc::c_uint,
}

pub(super) fn denied() -> Denied {
    let latest = LATEST.load(Ordering::Relaxed);
    Denied {
        count: COUNT.load(Ordering::Relaxed),
        latest_call: (latest != NO_CALL).then_some(latest),
    }
}

/// Installs the handler.
pub(super) fn install() -> io::Result<()> {
    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    // SAFETY: an all-zero sigaction is valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = refuse as Handler as usize;
    // The call may come from any other handler, or from this signal's own context never.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler only touches atomics and the context it is given.
    Errno::result(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

extern "C" fn refuse(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes both, and for SIGSYS the fields of CallInfo.
    let (info, context) =
        unsafe { (&*info.cast::<CallInfo>(), &mut *context.cast::<libc::ucontext_t>()) };
    // Somebody else's SIGSYS means nothing here.
    if info.code != SYS_SECCOMP {
        return;
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    LATEST.store(info.call.into(), Ordering::Relaxed);
    set_result(context, -libc::EPERM);
}

#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t, result: libc::c_int) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result.into();
}

#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t, result: libc::c_int) {
    context.uc_mcontext.regs[0] = i64::from(result).cast_unsigned();
}

#[cfg(target_arch = "riscv64")]
fn set_result(context: &mut libc::ucontext_t, result: libc::c_int) {
    /// Register a0.
    const RESULT: usize = 10;
    context.uc_mcontext.__gregs[RESULT] = i64::from(result).cast_unsigned();
}
