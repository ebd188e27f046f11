//! macOS.

mod seatbelt;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::slice;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, sockopt};
use nix::unistd::{Gid, Group};

use crate::auth::{Attempt, Verdict, pam};
use crate::mbox::MboxConvention;
use crate::memory::MemoryProbe;
use crate::os::Os;
use crate::paths::{Paths, Places};
use crate::peer::Peer;
use crate::posix::{bsd, two_ids};
use crate::role::Role;
use crate::sandbox::{Confinement, Denied};
use crate::support::Support;
use crate::users::{self, CommandLine, DaemonAccount};

/// macOS, with what MacPorts adds.
#[derive(Clone, Copy, Debug)]
pub struct Host;

const PLACES: Places = Places {
    config_dir: "/opt/local/etc/opensmtpd",
    aliases: "/opt/local/etc/opensmtpd/aliases",
    spool: "/opt/local/var/spool/smtpd",
    run_dir: "/var/run",
    libexec: "/opt/local/libexec/opensmtpd",
    mbox_spool: "/var/mail",
    empty_dir: "/var/empty",
};

impl Os for Host {
    // Every socket is made with SO_NOSIGPIPE instead.
    const MESSAGE_SEND_FLAGS: libc::c_int = 0;
    const MESSAGE_RECEIVE_FLAGS: libc::c_int = 0;
    const SHORT_RECEIVE_IS_ALL: bool = false;

    fn name(&self) -> &'static str {
        "macOS"
    }

    fn paths(&self) -> Paths {
        PLACES.paths()
    }

    fn mbox_convention(&self) -> MboxConvention {
        MboxConvention { dot_lock: true, flock: true, spool: self.paths().mbox_spool }
    }

    fn probe(&self) -> Vec<(&'static str, Support)> {
        vec![("sandbox", seatbelt::probe())]
    }

    fn confine(&self, role: Role, extra: &Confinement) -> io::Result<Support> {
        seatbelt::confine_role(role, extra)
    }

    fn confine_worker(&self, dirs: &[PathBuf]) -> io::Result<Support> {
        seatbelt::confine_worker(dirs)
    }

    fn denied(&self) -> Denied {
        Denied::default()
    }

    fn make_undumpable(&self) -> io::Result<Support> {
        // SAFETY: this request takes no address.
        let answer = unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) };
        Errno::result(answer)?;
        Ok(Support::full("PT_DENY_ATTACH"))
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
        // SAFETY: both take numbers only and are async-signal-safe.
        unsafe {
            for fd in first..libc::getdtablesize() {
                libc::close(fd);
            }
        }
    }

    fn descriptor_ceiling(&self) -> u64 {
        /// `OPEN_MAX` of `sys/syslimits.h`: what setrlimit(2) takes for a hard limit of infinity.
        const OPEN_MAX: u64 = 10_240;
        OPEN_MAX
    }

    fn counts_threads_as_processes(&self) -> bool {
        false
    }

    fn group_list(&self, name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
        let base = gid.cast_signed();
        let mut groups: Vec<libc::c_int> = vec![0; 32];
        while groups.len() <= 65_536 {
            let mut count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
            // SAFETY: `name` is NUL-terminated; `groups` has room for `count` ids.
            let answer = unsafe {
                libc::getgrouplist(name.as_ptr(), base, groups.as_mut_ptr(), &raw mut count)
            };
            if answer >= 0 {
                groups.truncate(usize::try_from(count).unwrap_or(0));
                return Ok(groups.into_iter().map(i32::cast_unsigned).collect());
            }
            groups.resize(groups.len() * 2, 0);
        }
        Err(io::Error::other("the account is in too many groups"))
    }

    fn account_commands(&self, account: &DaemonAccount) -> io::Result<Vec<CommandLine>> {
        let DaemonAccount { name, comment } = *account;
        let id = free_id(account)?.to_string();
        let (group, user) = (format!("/Groups/{name}"), format!("/Users/{name}"));
        let create = |record: &str, key: &str, value: &str| {
            CommandLine::new(&["dscl", ".", "-create", record, key, value])
        };
        let delete = |key: &str| CommandLine::new(&["dscl", ".", "-delete", &user, key]);
        Ok(vec![
            create(&group, "PrimaryGroupID", &id),
            create(&group, "Password", "*"),
            create(&user, "UniqueID", &id),
            create(&user, "PrimaryGroupID", &id),
            create(&user, "RealName", comment),
            create(&user, "NFSHomeDirectory", PLACES.empty_dir),
            create(&user, "UserShell", "/usr/bin/false"),
            create(&user, "Password", "*"),
            create(&user, "IsHidden", "1"),
            delete("AuthenticationAuthority"),
            delete("PasswordPolicyOptions"),
        ])
    }

    fn stream_pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (one, two) = nix::sys::socket::socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::empty(),
        )?;
        Ok((prepared_socket(one)?, prepared_socket(two)?))
    }

    fn socket(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
        prepared_socket(nix::sys::socket::socket(family, kind, SockFlag::empty(), None)?)
    }

    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = nix::unistd::pipe()?;
        crate::fd::set_cloexec(read.as_fd(), true)?;
        crate::fd::set_cloexec(write.as_fd(), true)?;
        Ok((read, write))
    }

    fn close_received_on_exec(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        crate::fd::set_cloexec(fd, true)
    }

    fn peer_of(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        let pid = nix::sys::socket::getsockopt(&fd, sockopt::LocalPeerPid).ok();
        Ok(Peer { pid, ..bsd::peer_of(fd)? })
    }

    fn prepare_title(&self) -> Support {
        Support::partial(TITLE)
    }

    fn set_title(&self, title: &str) -> Support {
        // SAFETY: the C library's own argument list: `argc` strings, NUL-terminated and writable as
        // long as the process lives.
        let Some(room) = (unsafe { argument_area() }) else {
            return Support::none("there are no arguments to overwrite");
        };
        let shown = title.len().min(room.len() - 1);
        room.fill(0);
        room[..shown].copy_from_slice(&title.as_bytes()[..shown]);
        Support::partial(TITLE)
    }

    fn open_memory_probe(&self) -> io::Result<MemoryProbe> {
        Ok(bsd::peak_memory(1))
    }

    fn notify(&self, _state: &str) -> io::Result<Support> {
        Ok(bsd::notify())
    }
}

const TITLE: &str = "arguments overwritten, as far as their room goes";

/// A socket of this server. Between its making and this call another thread may fork: what such a
/// child executes has all other descriptors closed by [`crate::process::spawn`].
fn prepared_socket(socket: OwnedFd) -> io::Result<OwnedFd> {
    crate::fd::set_cloexec(socket.as_fd(), true)?;
    let on: libc::c_int = 1;
    // SAFETY: `on` lives until the call returns and has the length given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NOSIGPIPE,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(answer)?;
    Ok(socket)
}

/// The stretch of memory that holds the arguments, if they lie one behind the other.
///
/// # Safety
/// Nobody else may use the arguments meanwhile.
unsafe fn argument_area() -> Option<&'static mut [u8]> {
    // SAFETY: by contract; the list has `argc` entries, each a NUL-terminated string.
    unsafe {
        let count = usize::try_from(*libc::_NSGetArgc()).ok()?;
        let arguments = slice::from_raw_parts(*libc::_NSGetArgv(), count);
        let first = *arguments.first()?;
        let mut end = first;
        for argument in arguments {
            if *argument != end {
                break;
            }
            end = end.add(libc::strlen(end) + 1);
        }
        let length = usize::try_from(end.offset_from(first)).ok().filter(|length| *length > 0)?;
        Some(slice::from_raw_parts_mut(first.cast(), length))
    }
}

/// An id below 500 that no user and no group has. The two accounts look at different ones, so that
/// both can be made in one go.
fn free_id(account: &DaemonAccount) -> io::Result<u32> {
    let highest = if account.name == users::QUEUE_USER { 399 } else { 398 };
    for id in (250..=highest).rev().step_by(2) {
        let group = Group::from_gid(Gid::from_raw(id))?;
        if users::user_by_uid(id)?.is_none() && group.is_none() {
            return Ok(id);
        }
    }
    Err(io::Error::other("no id between 250 and 399 is free"))
}
