//! What the portable core asks of an operating system.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, SockType};

use crate::auth::{Attempt, Verdict};
use crate::mbox::MboxConvention;
use crate::memory::MemoryProbe;
use crate::paths::Paths;
use crate::peer::Peer;
use crate::role::Role;
use crate::sandbox::{Confinement, Denied};
use crate::support::Support;
use crate::users::{CommandLine, DaemonAccount};

/// One operating system: [`crate::Host`] is the one compiled for, [`crate::fake::Fake`]
/// the tests'.
///
/// The modules of this crate hold what all systems share and call this trait for the rest; a new
/// system is a new file, checked by the compiler for completeness.
pub trait Os {
    /// Flags of `sendmsg`: no `SIGPIPE`, where that can be said.
    const MESSAGE_SEND_FLAGS: libc::c_int;

    /// Flags of `recvmsg`: received descriptors closed on exec, where that can be said.
    const MESSAGE_RECEIVE_FLAGS: libc::c_int;

    /// Whether a receive on a local stream socket that brings less than it has room for, and no
    /// descriptor, has taken all there was. Where bytes are not joined with a later message that
    /// carries a descriptor, it has not.
    const SHORT_RECEIVE_IS_ALL: bool;

    /// The system's name.
    fn name(&self) -> &'static str;

    /// Where things are on this system.
    fn paths(&self) -> Paths;

    /// How mailboxes of the system's mail spool are locked.
    fn mbox_convention(&self) -> MboxConvention;

    /// What of the system's confinement is on offer, by mechanism.
    fn probe(&self) -> Vec<(&'static str, Support)>;

    /// Gives up every right that `role` does not need. Irreversible.
    ///
    /// # Errors
    /// A mechanism that the probe found did not work. The caller must exit: a process that could
    /// not confine itself never serves.
    fn confine(&self, role: Role, extra: &Confinement) -> io::Result<Support>;

    /// Gives up what a worker that executes nothing does not need, keeping files below `dirs`.
    ///
    /// # Errors
    /// As [`Os::confine`].
    fn confine_worker(&self, dirs: &[PathBuf]) -> io::Result<Support>;

    /// How many calls the confinement has refused so far, as far as the system tells.
    fn denied(&self) -> Denied;

    /// Keeps other processes of the same user from tracing this one or reading its memory.
    ///
    /// # Errors
    /// A mechanism that the system has did not work.
    fn make_undumpable(&self) -> io::Result<Support>;

    /// Checks a password of an account: see [`crate::auth`].
    ///
    /// # Errors
    /// The answer is unknown; a wrong password is no error.
    fn authenticate(&self, attempt: &Attempt<'_>) -> io::Result<Verdict>;

    /// Replaces the supplementary groups of the process.
    ///
    /// # Errors
    /// Without the right to do so.
    fn set_groups(&self, groups: &[u32]) -> io::Result<()>;

    /// Sets real, effective and saved user and group, the group first.
    ///
    /// # Errors
    /// Without the right to do so.
    fn set_ids(&self, uid: u32, gid: u32) -> io::Result<()>;

    /// Closes every descriptor from `first` on. Async-signal-safe.
    fn close_from(&self, first: RawFd);

    /// The most descriptors that a process may be given, if less than its hard limit says.
    fn descriptor_ceiling(&self) -> u64;

    /// Whether a limit on processes counts threads too.
    fn counts_threads_as_processes(&self) -> bool;

    /// The groups of the account `name`, `gid` among them.
    ///
    /// # Errors
    /// When there are unreasonably many.
    fn group_list(&self, name: &CStr, gid: u32) -> io::Result<Vec<u32>>;

    /// The commands that make `account` and its group the system's own way.
    ///
    /// # Errors
    /// When the system's account database cannot be read.
    fn account_commands(&self, account: &DaemonAccount) -> io::Result<Vec<CommandLine>>;

    /// Two connected local stream sockets, closed on exec.
    ///
    /// # Errors
    /// When descriptors are used up.
    fn stream_pair(&self) -> io::Result<(OwnedFd, OwnedFd)>;

    /// A socket, closed on exec.
    ///
    /// # Errors
    /// When descriptors are used up or the family is not there.
    fn socket(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd>;

    /// A pipe (read end, write end), closed on exec.
    ///
    /// # Errors
    /// When descriptors are used up.
    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)>;

    /// Sets close-on-exec on a received descriptor, if [`Os::MESSAGE_RECEIVE_FLAGS`] could not.
    ///
    /// # Errors
    /// When `fd` is not open.
    fn close_received_on_exec(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Credentials of the other end of a local stream socket.
    ///
    /// # Errors
    /// When `fd` is not a connected one.
    fn peer_of(&self, fd: BorrowedFd<'_>) -> io::Result<Peer>;

    /// Makes room for [`Os::set_title`]; to be called first in `main`, before threads start.
    fn prepare_title(&self) -> Support;

    /// Shows `title` in the process list instead of the command line.
    fn set_title(&self, title: &str) -> Support;

    /// Opens what [`MemoryProbe::read`] reads; to be called before the process is confined.
    ///
    /// # Errors
    /// When the system's figures cannot be opened.
    fn open_memory_probe(&self) -> io::Result<MemoryProbe>;

    /// Tells the service supervisor of this process `state`, in the words of sd_notify(3).
    ///
    /// # Errors
    /// A supervisor asked to be told and could not be reached.
    fn notify(&self, state: &str) -> io::Result<Support>;
}
