//! A system for tests: it changes nothing, and tells afterwards what it was asked to change.
//!
//! Descriptors are real, since tests use them; they come from the system compiled for.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, SockType};

use crate::Host;
use crate::auth::{Attempt, Verdict};
use crate::mbox::MboxConvention;
use crate::memory::{Memory, MemoryProbe};
use crate::os::Os;
use crate::paths::{Paths, Places};
use crate::peer::Peer;
use crate::role::Role;
use crate::sandbox::{Confinement, Denied};
use crate::support::Support;
use crate::users::{CommandLine, DaemonAccount};

/// Something that a [`Fake`] was asked to change, and did not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asked {
    /// [`Os::authenticate`]: the account.
    Authenticate(String),
    /// [`Os::close_from`].
    CloseFrom(RawFd),
    /// [`Os::confine`].
    Confine(Role, Confinement),
    /// [`Os::confine_worker`].
    ConfineWorker(Vec<PathBuf>),
    /// [`Os::set_groups`].
    Groups(Vec<u32>),
    /// [`Os::set_ids`]: user, group.
    Ids(u32, u32),
    /// [`Os::notify`].
    Notify(String),
    /// [`Os::set_title`].
    Title(String),
    /// [`Os::make_undumpable`].
    Undumpable,
}

/// A system that changes nothing.
#[derive(Debug, Default)]
pub struct Fake {
    /// What is not on offer; everything else is.
    pub lacks_confinement: bool,
    /// Whether every change fails.
    pub refuses: bool,
    asked: Mutex<Vec<Asked>>,
}

impl Fake {
    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, asked: Asked) -> io::Result<()> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        if self.refuses { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn support(&self) -> Support {
        if self.lacks_confinement {
            return Support::none("this system has none");
        }
        Support::full("a fake")
    }
}

const PLACES: Places = Places {
    config_dir: "/fake/etc",
    aliases: "/fake/etc/aliases",
    spool: "/fake/spool",
    run_dir: "/fake/run",
    libexec: "/fake/libexec",
    mbox_spool: "/fake/mail",
    empty_dir: "/fake/empty",
};

impl Os for Fake {
    const MESSAGE_SEND_FLAGS: libc::c_int = Host::MESSAGE_SEND_FLAGS;
    const MESSAGE_RECEIVE_FLAGS: libc::c_int = Host::MESSAGE_RECEIVE_FLAGS;
    const SHORT_RECEIVE_IS_ALL: bool = Host::SHORT_RECEIVE_IS_ALL;

    fn name(&self) -> &'static str {
        "fake"
    }

    fn paths(&self) -> Paths {
        PLACES.paths()
    }

    fn mbox_convention(&self) -> MboxConvention {
        MboxConvention { dot_lock: true, flock: true, spool: self.paths().mbox_spool }
    }

    fn probe(&self) -> Vec<(&'static str, Support)> {
        vec![("everything", self.support())]
    }

    fn confine(&self, role: Role, extra: &Confinement) -> io::Result<Support> {
        self.note(Asked::Confine(role, extra.clone()))?;
        Ok(self.support())
    }

    fn confine_worker(&self, dirs: &[PathBuf]) -> io::Result<Support> {
        self.note(Asked::ConfineWorker(dirs.to_vec()))?;
        Ok(self.support())
    }

    fn denied(&self) -> Denied {
        Denied::default()
    }

    fn make_undumpable(&self) -> io::Result<Support> {
        self.note(Asked::Undumpable)?;
        Ok(self.support())
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> io::Result<Verdict> {
        self.note(Asked::Authenticate(attempt.user.to_string_lossy().into_owned()))?;
        Ok(Verdict::Rejected)
    }

    fn set_groups(&self, groups: &[u32]) -> io::Result<()> {
        self.note(Asked::Groups(groups.to_vec()))
    }

    fn set_ids(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.note(Asked::Ids(uid, gid))
    }

    fn close_from(&self, first: RawFd) {
        // Closing cannot fail; a fake that refuses has noted it all the same.
        let _ = self.note(Asked::CloseFrom(first));
    }

    fn descriptor_ceiling(&self) -> u64 {
        u64::MAX
    }

    fn counts_threads_as_processes(&self) -> bool {
        true
    }

    fn group_list(&self, _name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
        Ok(vec![gid])
    }

    fn account_commands(&self, account: &DaemonAccount) -> io::Result<Vec<CommandLine>> {
        Ok(vec![CommandLine::new(&["true", account.name])])
    }

    fn stream_pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Host.stream_pair()
    }

    fn socket(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
        Host.socket(family, kind)
    }

    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Host.pipe()
    }

    fn close_received_on_exec(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Host.close_received_on_exec(fd)
    }

    fn peer_of(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        Host.peer_of(fd)
    }

    fn prepare_title(&self) -> Support {
        self.support()
    }

    fn set_title(&self, title: &str) -> Support {
        // A title is never an error; a fake that refuses has noted it all the same.
        let _ = self.note(Asked::Title(title.to_owned()));
        self.support()
    }

    fn open_memory_probe(&self) -> io::Result<MemoryProbe> {
        Ok(MemoryProbe::new(|| Ok(Memory { pss_bytes: 1 << 20, rss_bytes: 2 << 20 })))
    }

    fn notify(&self, state: &str) -> io::Result<Support> {
        self.note(Asked::Notify(state.to_owned()))?;
        Ok(self.support())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_tells_what_it_was_asked_in_order_and_can_refuse() {
        let fake = Fake::default();
        fake.set_groups(&[3]).unwrap();
        fake.set_ids(1, 3).unwrap();
        assert!(fake.confine(Role::Keys, &Confinement::default()).unwrap().is_full());
        let confined = Asked::Confine(Role::Keys, Confinement::default());
        assert_eq!(fake.asked(), [Asked::Groups(vec![3]), Asked::Ids(1, 3), confined]);

        let fake = Fake { refuses: true, lacks_confinement: true, ..Fake::default() };
        assert!(fake.set_ids(1, 3).is_err() && fake.probe()[0].1.is_none());
        assert_eq!(fake.asked(), [Asked::Ids(1, 3)]);
    }
}
