//! OpenBSD.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockType};

use crate::auth::{Attempt, Verdict, bsd as bsd_auth};
use crate::mbox::MboxConvention;
use crate::memory::MemoryProbe;
use crate::os::Os;
use crate::paths::{Paths, Places};
use crate::peer::Peer;
use crate::posix::{atomic, bsd, closefrom, saved_ids, setproctitle};
use crate::role::Role;
use crate::sandbox::{Confinement, Denied};
use crate::support::Support;
use crate::users::{CommandLine, DaemonAccount};

/// OpenBSD.
#[derive(Clone, Copy, Debug)]
pub struct Host;

const PLACES: Places = Places {
    config_dir: "/etc/mail",
    aliases: "/etc/mail/aliases",
    spool: "/var/spool/smtpd",
    run_dir: "/var/run",
    libexec: "/usr/local/libexec/smtpd",
    mbox_spool: "/var/mail",
    empty_dir: "/var/empty",
};

impl Os for Host {
    const MESSAGE_SEND_FLAGS: libc::c_int = atomic::SEND_FLAGS;
    const MESSAGE_RECEIVE_FLAGS: libc::c_int = atomic::RECEIVE_FLAGS;
    const SHORT_RECEIVE_IS_ALL: bool = false;

    fn name(&self) -> &'static str {
        "OpenBSD"
    }

    fn paths(&self) -> Paths {
        PLACES.paths()
    }

    fn mbox_convention(&self) -> MboxConvention {
        MboxConvention { dot_lock: true, flock: true, spool: self.paths().mbox_spool }
    }

    fn probe(&self) -> Vec<(&'static str, Support)> {
        vec![("system calls", Support::full("pledge")), ("files", Support::full("unveil"))]
    }

    fn confine(&self, role: Role, extra: &Confinement) -> io::Result<Support> {
        if let Some(spool) = &extra.spool {
            unveil_only(std::slice::from_ref(spool))?;
        }
        pledge(promises(role))?;
        Ok(Support::full("pledge"))
    }

    fn confine_worker(&self, dirs: &[PathBuf]) -> io::Result<Support> {
        unveil_only(dirs)?;
        pledge(c"stdio rpath wpath cpath fattr flock inet unix recvfd sendfd")?;
        Ok(Support::full("pledge, unveil"))
    }

    fn denied(&self) -> Denied {
        Denied::default()
    }

    fn make_undumpable(&self) -> io::Result<Support> {
        Ok(Support::partial(
            "a process that has changed its ids leaves no core; tracing needs root",
        ))
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> io::Result<Verdict> {
        Ok(bsd_auth::authenticate(attempt))
    }

    fn set_groups(&self, groups: &[u32]) -> io::Result<()> {
        bsd::set_groups(groups)
    }

    fn set_ids(&self, uid: u32, gid: u32) -> io::Result<()> {
        saved_ids::set_ids(uid, gid)
    }

    fn close_from(&self, first: RawFd) {
        closefrom::close_from(first);
    }

    fn descriptor_ceiling(&self) -> u64 {
        u64::MAX
    }

    fn counts_threads_as_processes(&self) -> bool {
        false
    }

    fn group_list(&self, name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
        closefrom::group_list(name, gid)
    }

    fn account_commands(&self, account: &DaemonAccount) -> io::Result<Vec<CommandLine>> {
        let DaemonAccount { name, comment } = *account;
        let (home, shell) = (PLACES.empty_dir, "/sbin/nologin");
        Ok(vec![
            CommandLine::new(&["groupadd", name]),
            CommandLine::new(&[
                "useradd", "-g", name, "-L", "daemon", "-c", comment, "-d", home, "-s", shell, name,
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
        bsd::peer_of(fd)
    }

    fn prepare_title(&self) -> Support {
        setproctitle::prepare()
    }

    fn set_title(&self, title: &str) -> Support {
        setproctitle::set(title)
    }

    fn open_memory_probe(&self) -> io::Result<MemoryProbe> {
        Ok(bsd::peak_memory(1024))
    }

    fn notify(&self, _state: &str) -> io::Result<Support> {
        Ok(bsd::notify())
    }
}

/// What each role may still do. Resolvers in this server use ordinary sockets: `inet`, not `dns`.
/// What these start has no promises but its own.
const fn promises(role: Role) -> &'static CStr {
    match role {
        Role::Parent => {
            c"stdio rpath wpath cpath fattr tmppath getpw sendfd recvfd proc exec id inet dns chown unix"
        }
        Role::Spawner | Role::Worker => {
            c"stdio rpath wpath cpath fattr tmppath getpw sendfd recvfd proc exec id inet chown unix flock"
        }
        Role::Auth => c"stdio rpath getpw proc exec id",
        Role::Control => c"stdio unix recvfd sendfd",
        Role::Lookup => c"stdio inet recvfd sendfd",
        Role::Dispatcher => c"stdio inet unix recvfd sendfd",
        Role::Queue => c"stdio rpath wpath cpath fattr flock recvfd sendfd",
        Role::Scheduler => c"stdio",
        Role::Keys => c"stdio recvfd",
    }
}

/// pledge(2); a failure means that the system does not know a promise.
fn pledge(promises: &CStr) -> io::Result<()> {
    // SAFETY: `promises` is NUL-terminated and outlives the call; null leaves those of executed
    // programs as they are.
    Errno::result(unsafe { libc::pledge(promises.as_ptr(), std::ptr::null()) })?;
    Ok(())
}

/// unveil(2): files below `directories` stay in sight, all others go.
fn unveil_only(directories: &[PathBuf]) -> io::Result<()> {
    for directory in directories {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: both strings are NUL-terminated and live until the call returns.
        Errno::result(unsafe { libc::unveil(path.as_ptr(), c"rwc".as_ptr()) })?;
    }
    // SAFETY: two nulls end the unveiling.
    Errno::result(unsafe { libc::unveil(std::ptr::null(), std::ptr::null()) })?;
    Ok(())
}
