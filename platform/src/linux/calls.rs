//! Which system calls each role makes.
//!
//! The base is what the C library, the allocator, threads and an asynchronous runtime need; glibc
//! and musl differ, and both are here. A role's own calls come on top.
//!
//! Sources: the duties of the roles, tried by the tests of this crate under glibc; the roles' duties in the table of
//! `docs/sandbox.md`.

use crate::role::Role;

/// A call allowed with certain arguments alone: any of `values` fits.
pub(super) struct Allowed {
    pub(super) call: i64,
    pub(super) argument: Argument,
    pub(super) values: &'static [u64],
}

/// What an argument, by its position, has to be.
#[derive(Clone, Copy)]
pub(super) enum Argument {
    /// The value.
    Is(u8),
    /// Any without these bits.
    Lacks(u8),
    /// Any with these bits.
    Has(u8),
}

/// Everything a role may call.
pub(super) struct Profile {
    /// Whatever their arguments.
    pub(super) calls: &'static [&'static [i64]],
    /// With certain arguments.
    pub(super) limited: &'static [&'static [Allowed]],
    /// Families of sockets it may open. Opening one of any other but `AF_UNIX` ends it.
    pub(super) families: &'static [libc::c_int],
}

/// The profile of `role` (of a worker: one that executes nothing); `None` if it starts other
/// programs and so cannot have one.
pub(super) fn profile(role: Role) -> Option<&'static Profile> {
    match role {
        Role::Parent | Role::Spawner | Role::Auth => None,
        Role::Control => Some(&CONTROL),
        Role::Lookup => Some(&LOOKUP),
        Role::Dispatcher => Some(&DISPATCHER),
        Role::Queue => Some(&QUEUE),
        Role::Scheduler | Role::Keys => Some(&NOTHING_MORE),
        Role::Worker => Some(&WORKER),
    }
}

const NOTHING_MORE: Profile = Profile { calls: &[BASE], limited: &[BASE_LIMITED], families: &[] };

const CONTROL: Profile =
    Profile { calls: &[BASE, ACCEPTING], limited: &[BASE_LIMITED], families: &[] };

const LOOKUP: Profile = Profile {
    calls: &[BASE, CONNECTING],
    limited: &[BASE_LIMITED],
    families: &[libc::AF_INET, libc::AF_INET6],
};

const DISPATCHER: Profile = Profile {
    calls: &[BASE, ACCEPTING, CONNECTING, PASSED_FILES],
    limited: &[BASE_LIMITED],
    families: &[libc::AF_INET, libc::AF_INET6, libc::AF_UNIX],
};

const QUEUE: Profile =
    Profile { calls: &[BASE, PASSED_FILES, FILES], limited: &[BASE_LIMITED, LOCKS], families: &[] };

const WORKER: Profile = Profile {
    calls: &[BASE, PASSED_FILES, FILES, CONNECTING, ALARM],
    limited: &[BASE_LIMITED, LOCKS],
    families: &[libc::AF_INET, libc::AF_INET6, libc::AF_UNIX],
};

/// Calls that end a confined process: no role makes them, an intruder would.
pub(super) const FATAL: &[i64] = &[
    libc::SYS_bpf,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_umount2,
];

const BASE: &[i64] = &[
    // Descriptors.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Readiness.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Sockets that are open.
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads; clone itself is limited, and another filter makes clone3 fail with ENOSYS.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Who and where one is.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

#[allow(clippy::unnecessary_cast)] // the widths of these numbers differ by C library
const BASE_LIMITED: &[Allowed] = &[
    Allowed {
        call: libc::SYS_clone,
        argument: Argument::Has(0),
        values: &[libc::CLONE_THREAD as u64],
    },
    Allowed {
        call: libc::SYS_fcntl,
        argument: Argument::Is(1),
        values: &[
            libc::F_DUPFD as u64,
            libc::F_DUPFD_CLOEXEC as u64,
            libc::F_GETFD as u64,
            libc::F_SETFD as u64,
            libc::F_GETFL as u64,
            libc::F_SETFL as u64,
            libc::F_GETPIPE_SZ as u64,
            libc::F_SETPIPE_SZ as u64,
        ],
    },
    Allowed {
        call: libc::SYS_ioctl,
        argument: Argument::Is(1),
        values: &[libc::FIONBIO as u64, libc::FIONREAD as u64, libc::TCGETS as u64],
    },
    Allowed {
        call: libc::SYS_mmap,
        argument: Argument::Lacks(2),
        values: &[libc::PROT_EXEC as u64],
    },
    Allowed {
        call: libc::SYS_mprotect,
        argument: Argument::Lacks(2),
        values: &[libc::PROT_EXEC as u64],
    },
    // Of an open descriptor, which these calls take with an empty path.
    Allowed {
        call: libc::SYS_newfstatat,
        argument: Argument::Has(3),
        values: &[libc::AT_EMPTY_PATH as u64],
    },
    Allowed {
        call: libc::SYS_statx,
        argument: Argument::Has(2),
        values: &[libc::AT_EMPTY_PATH as u64],
    },
    Allowed {
        call: libc::SYS_prctl,
        argument: Argument::Is(0),
        values: &[libc::PR_GET_NAME as u64, libc::PR_SET_NAME as u64],
    },
    // What a runtime wakes itself with.
    Allowed {
        call: libc::SYS_socketpair,
        argument: Argument::Is(0),
        values: &[libc::AF_UNIX as u64],
    },
];

const ACCEPTING: &[i64] = &[
    libc::SYS_accept4,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_accept,
];

/// With the families of the profile.
const CONNECTING: &[i64] =
    &[libc::SYS_bind, libc::SYS_connect, libc::SYS_recvmmsg, libc::SYS_sendmmsg];

/// Files that somebody else has opened and passed.
const PASSED_FILES: &[i64] = &[
    libc::SYS_fadvise64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
];

/// Files by name. Which ones is for the root directory and Landlock to say.
const FILES: &[i64] = &[
    libc::SYS_copy_file_range,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    // The older forms, which C libraries use where the processor has them.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// An end of the process that it sets itself.
const ALARM: &[i64] = &[
    libc::SYS_setitimer,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_alarm,
];

/// Locks of files, of the process and of the open file.
const LOCKS: &[Allowed] = &[Allowed {
    call: libc::SYS_fcntl,
    argument: Argument::Is(1),
    values: &[
        libc::F_GETLK as u64,
        libc::F_SETLK as u64,
        libc::F_SETLKW as u64,
        libc::F_OFD_GETLK as u64,
        libc::F_OFD_SETLK as u64,
        libc::F_OFD_SETLKW as u64,
    ],
}];
