//! NetBSD.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, SockType};

use crate::auth::{Attempt, Verdict, pam};
use crate::mbox::MboxConvention;
use crate::memory::MemoryProbe;
use crate::os::Os;
use crate::paths::{Paths, Places};
use crate::peer::Peer;
use crate::posix::{atomic, bsd, closefrom, setproctitle, two_ids};
use crate::role::Role;
use crate::sandbox::{Confinement, Denied};
use crate::support::Support;
use crate::users::{CommandLine, DaemonAccount};

/// NetBSD.
#[derive(Clone, Copy, Debug)]
pub struct Host;

const PLACES: Places = Places {
    config_dir: "/usr/pkg/etc/smtpd",
    aliases: "/usr/pkg/etc/smtpd/aliases",
    spool: "/var/spool/smtpd",
    run_dir: "/var/run",
    libexec: "/usr/pkg/libexec/opensmtpd",
    mbox_spool: "/var/mail",
    empty_dir: "/var/empty",
};

/// Root directory, user and limits are what keeps a role in here.
const NO_CONFINEMENT: &str = "NetBSD cannot limit the system calls of a process";

impl Os for Host {
    const MESSAGE_SEND_FLAGS: libc::c_int = atomic::SEND_FLAGS;
    const MESSAGE_RECEIVE_FLAGS: libc::c_int = atomic::RECEIVE_FLAGS;
    const SHORT_RECEIVE_IS_ALL: bool = false;

    fn name(&self) -> &'static str {
        "NetBSD"
    }

    fn paths(&self) -> Paths {
        PLACES.paths()
    }

    fn mbox_convention(&self) -> MboxConvention {
        MboxConvention { dot_lock: true, flock: true, spool: self.paths().mbox_spool }
    }

    fn probe(&self) -> Vec<(&'static str, Support)> {
        vec![("system calls", Support::none(NO_CONFINEMENT))]
    }

    fn confine(&self, _role: Role, _extra: &Confinement) -> io::Result<Support> {
        Ok(Support::none(NO_CONFINEMENT))
    }

    fn confine_worker(&self, _dirs: &[PathBuf]) -> io::Result<Support> {
        Ok(Support::none(NO_CONFINEMENT))
    }

    fn denied(&self) -> Denied {
        Denied::default()
    }

    fn make_undumpable(&self) -> io::Result<Support> {
        Ok(Support::none("NetBSD lets a user trace all processes of their own"))
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> io::Result<Verdict> {
        let verdict = pam::authenticate(pam::OPEN_PAM, attempt)?;
        verdict.ok_or_else(|| io::Error::other("this system has no PAM"))
    }

    fn set_groups(&self, groups: &[u32]) -> io::Result<()> {
        bsd::set_groups(groups)
    }

    fn set_ids(&self, uid: u32, gid: u32) -> io::Result<()> {
        two_ids::set_ids(uid, gid)
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
                "useradd", "-g", name, "-c", comment, "-d", home, "-s", shell, name,
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
