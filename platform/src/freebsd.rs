//! FreeBSD.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockType};

use crate::auth::{Attempt, Verdict, pam};
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

/// FreeBSD.
#[derive(Clone, Copy, Debug)]
pub struct Host;

const PLACES: Places = Places {
    config_dir: "/usr/local/etc/mail",
    aliases: "/etc/mail/aliases",
    spool: "/var/spool/smtpd",
    run_dir: "/var/run",
    libexec: "/usr/local/libexec/opensmtpd",
    mbox_spool: "/var/mail",
    empty_dir: "/var/empty",
};

impl Os for Host {
    const MESSAGE_SEND_FLAGS: libc::c_int = atomic::SEND_FLAGS;
    const MESSAGE_RECEIVE_FLAGS: libc::c_int = atomic::RECEIVE_FLAGS;
    const SHORT_RECEIVE_IS_ALL: bool = false;

    fn name(&self) -> &'static str {
        "FreeBSD"
    }

    fn paths(&self) -> Paths {
        PLACES.paths()
    }

    fn mbox_convention(&self) -> MboxConvention {
        MboxConvention { dot_lock: true, flock: true, spool: self.paths().mbox_spool }
    }

    fn probe(&self) -> Vec<(&'static str, Support)> {
        vec![("privileges", probe_no_new_privileges()), ("global names", probe_capsicum())]
    }

    fn confine(&self, role: Role, _extra: &Confinement) -> io::Result<Support> {
        let capsicum = match role {
            Role::Parent | Role::Spawner | Role::Worker | Role::Auth => {
                return Ok(Support::none(format!("{role} starts programs that need every right")));
            }
            // Capability mode refuses connections to addresses.
            Role::Dispatcher | Role::Lookup => {
                Support::none("Capsicum does not let a process connect")
            }
            // The queue names files relative to directories that it has open.
            Role::Control | Role::Keys | Role::Queue | Role::Scheduler => enter_capability_mode()?,
        };
        Ok(set_no_new_privileges()?.and(capsicum))
    }

    fn confine_worker(&self, _dirs: &[PathBuf]) -> io::Result<Support> {
        // Deliveries name files by their whole paths, and LMTP connects.
        set_no_new_privileges()
    }

    fn denied(&self) -> Denied {
        Denied::default()
    }

    fn make_undumpable(&self) -> io::Result<Support> {
        let disable = libc::PROC_TRACE_CTL_DISABLE;
        control_process(libc::PROC_TRACE_CTL, disable)?;
        Ok(Support::full("PROC_TRACE_CTL"))
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> io::Result<Verdict> {
        let verdict = pam::authenticate(pam::OPEN_PAM, attempt)?;
        verdict.ok_or_else(|| io::Error::other("this system has no PAM"))
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
        let (home, shell) = (PLACES.empty_dir, "/usr/sbin/nologin");
        Ok(vec![
            CommandLine::new(&["pw", "groupadd", name]),
            CommandLine::new(&[
                "pw", "useradd", name, "-g", name, "-c", comment, "-d", home, "-s", shell,
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

/// procctl(2) of this process.
fn control_process(command: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let mut value = value;
    // SAFETY: both commands used here take a pointer to an int, which lives until the call returns.
    let answer = unsafe {
        libc::procctl(libc::P_PID, libc::getpid().into(), command, (&raw mut value).cast())
    };
    Errno::result(answer)?;
    Ok(())
}

/// `PROC_NO_NEW_PRIVS_ENABLE` (`sys/procctl.h`).
const NO_NEW_PRIVS_ENABLE: libc::c_int = 1;

fn set_no_new_privileges() -> io::Result<Support> {
    match control_process(libc::PROC_NO_NEW_PRIVS_CTL, NO_NEW_PRIVS_ENABLE) {
        Ok(()) => Ok(Support::full("PROC_NO_NEW_PRIVS_CTL")),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(no_such_control()),
        Err(error) => Err(error),
    }
}

fn probe_no_new_privileges() -> Support {
    /// `PROC_NO_NEW_PRIVS_STATUS` (`sys/procctl.h`).
    const STATUS: libc::c_int = 20;
    match control_process(STATUS, 0) {
        Ok(()) => Support::full("PROC_NO_NEW_PRIVS_CTL"),
        Err(_) => no_such_control(),
    }
}

fn no_such_control() -> Support {
    Support::none("no_new_privs came with FreeBSD 14")
}

fn probe_capsicum() -> Support {
    let mut mode = 0;
    // SAFETY: `mode` lives until the call returns.
    match Errno::result(unsafe { libc::cap_getmode(&raw mut mode) }) {
        Ok(_) => Support::partial("Capsicum, for roles that connect to nobody"),
        Err(error) => Support::none(format!("Capsicum: {error}")),
    }
}

fn enter_capability_mode() -> io::Result<Support> {
    if let none @ Support::None(_) = probe_capsicum() {
        return Ok(none);
    }
    // SAFETY: takes nothing; it only gives up rights.
    Errno::result(unsafe { libc::cap_enter() })?;
    Ok(Support::partial("Capsicum, with the rights of descriptors as they were opened"))
}
