//! Linux.

mod confine;
mod landlock;
mod notify;
mod title;

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86_64"))]
mod calls;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86_64"))]
mod refusal;
#[cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86_64")),
    path = "linux/no_seccomp.rs"
)]
mod seccomp;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockType, getsockopt, sockopt};
use nix::unistd::Gid;

use crate::auth::{Attempt, Verdict, pam, shadow};
use crate::mbox::MboxConvention;
use crate::memory::{Memory, MemoryProbe};
use crate::os::Os;
use crate::paths::{Paths, Places};
use crate::peer::Peer;
use crate::posix::{atomic, saved_ids};
use crate::role::Role;
use crate::sandbox::{Confinement, Denied};
use crate::support::Support;
use crate::users::{CommandLine, DaemonAccount};

/// Linux, with whatever C library.
#[derive(Clone, Copy, Debug)]
pub struct Host;

const PLACES: Places = Places {
    config_dir: "/etc",
    aliases: "/etc/aliases",
    spool: "/var/spool/smtpd",
    run_dir: "/var/run",
    libexec: "/usr/libexec/opensmtpd",
    mbox_spool: "/var/mail",
    empty_dir: "/var/empty",
};

impl Os for Host {
    const MESSAGE_SEND_FLAGS: libc::c_int = atomic::SEND_FLAGS;
    const MESSAGE_RECEIVE_FLAGS: libc::c_int = atomic::RECEIVE_FLAGS;
    const SHORT_RECEIVE_IS_ALL: bool = true;

    fn name(&self) -> &'static str {
        "Linux"
    }

    fn paths(&self) -> Paths {
        PLACES.paths()
    }

    fn mbox_convention(&self) -> MboxConvention {
        MboxConvention { dot_lock: true, flock: true, spool: self.paths().mbox_spool }
    }

    fn probe(&self) -> Vec<(&'static str, Support)> {
        confine::probe()
    }

    fn confine(&self, role: Role, extra: &Confinement) -> io::Result<Support> {
        confine::confine_role(role, extra)
    }

    fn confine_worker(&self, dirs: &[PathBuf]) -> io::Result<Support> {
        confine::confine_worker(dirs)
    }

    fn denied(&self) -> Denied {
        seccomp::denied()
    }

    fn make_undumpable(&self) -> io::Result<Support> {
        nix::sys::prctl::set_dumpable(false)?;
        Ok(Support::full("PR_SET_DUMPABLE"))
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> io::Result<Verdict> {
        let Some(verdict) = pam::authenticate(pam::LINUX_PAM, attempt)? else {
            return shadow::authenticate(attempt);
        };
        if verdict == Verdict::Rejected {
            shadow::even_out(attempt);
        }
        Ok(verdict)
    }

    fn set_groups(&self, groups: &[u32]) -> io::Result<()> {
        let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        Ok(nix::unistd::setgroups(&groups)?)
    }

    fn set_ids(&self, uid: u32, gid: u32) -> io::Result<()> {
        saved_ids::set_ids(uid, gid)
    }

    fn close_from(&self, first: RawFd) {
        // SAFETY: takes numbers only; async-signal-safe.
        if unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } == 0 {
            return;
        }
        // Kernels before 5.9.
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` lives until the call returns; close takes a number.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            for fd in first..RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX) {
                libc::close(fd);
            }
        }
    }

    fn descriptor_ceiling(&self) -> u64 {
        u64::MAX
    }

    fn counts_threads_as_processes(&self) -> bool {
        true
    }

    fn group_list(&self, name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
        let groups = nix::unistd::getgrouplist(name, Gid::from_raw(gid))?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }

    fn account_commands(&self, account: &DaemonAccount) -> io::Result<Vec<CommandLine>> {
        let DaemonAccount { name, comment } = *account;
        let home = PLACES.empty_dir;
        // BusyBox, as Alpine has it, knows only its own commands.
        let busybox = !["/usr/sbin/useradd", "/sbin/useradd", "/usr/bin/useradd"]
            .iter()
            .any(|program| Path::new(program).exists())
            && Path::new("/bin/busybox").exists();
        if busybox {
            let shell = "/sbin/nologin";
            return Ok(vec![
                CommandLine::new(&["addgroup", "-S", name]),
                CommandLine::new(&[
                    "adduser", "-S", "-D", "-H", "-h", home, "-s", shell, "-G", name, "-g",
                    comment, name,
                ]),
            ]);
        }
        let shell = "/usr/sbin/nologin";
        Ok(vec![
            CommandLine::new(&["groupadd", "-r", name]),
            CommandLine::new(&[
                "useradd", "-r", "-M", "-g", name, "-d", home, "-s", shell, "-c", comment, name,
            ]),
        ])
    }

    fn stream_pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        atomic::stream_pair()
    }

    fn socket(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
        atomic::open_socket(family, kind)
    }

    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        atomic::open_pipe()
    }

    fn close_received_on_exec(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(()) // MSG_CMSG_CLOEXEC did it.
    }

    fn peer_of(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        let found = getsockopt(&fd, sockopt::PeerCredentials)?;
        Ok(Peer { uid: found.uid(), gid: found.gid(), pid: Some(found.pid()) })
    }

    fn prepare_title(&self) -> Support {
        title::prepare()
    }

    fn set_title(&self, title: &str) -> Support {
        title::set(title)
    }

    fn open_memory_probe(&self) -> io::Result<MemoryProbe> {
        let figures = File::open("/proc/self/smaps_rollup")?;
        Ok(MemoryProbe::new(move || read_memory(&figures)))
    }

    fn notify(&self, state: &str) -> io::Result<Support> {
        notify::send(state)
    }
}

/// The figures of `smaps_rollup` (proc(5)): lines such as `Rss:  1234 kB`.
fn read_memory(figures: &File) -> io::Result<Memory> {
    let mut text = [0; 4096];
    let length = figures.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    let field = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    match (field("Pss:"), field("Rss:")) {
        (Some(pss_bytes), Some(rss_bytes)) => Ok(Memory { pss_bytes, rss_bytes }),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}
