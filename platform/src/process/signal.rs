//! Signals: sending them, and receiving them as bytes of a pipe.
//!
//! A handler only writes one byte; what the signal means is decided in the loop that reads it. So
//! it works with `poll` and with a runtime's readiness alike, and no lock is ever taken in a
//! handler.
//!
//! Sources: signal-safety(7), sigaction(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use std::{mem, ptr};

use nix::errno::Errno;

use super::child::Pid;
use crate::fd;

/// A signal that the server sends or receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// `SIGCHLD`: a child ended.
    Child,
    /// `SIGHUP`: reload.
    HangUp,
    /// `SIGINT`: stop, typed.
    Interrupt,
    /// `SIGKILL`: cannot be received.
    Kill,
    /// `SIGTERM`: stop.
    Terminate,
    /// `SIGUSR1`.
    User1,
}

impl Signal {
    const ALL: [Self; 6] =
        [Self::Child, Self::HangUp, Self::Interrupt, Self::Kill, Self::Terminate, Self::User1];

    /// The system's number.
    pub const fn number(self) -> i32 {
        match self {
            Self::Child => libc::SIGCHLD,
            Self::HangUp => libc::SIGHUP,
            Self::Interrupt => libc::SIGINT,
            Self::Kill => libc::SIGKILL,
            Self::Terminate => libc::SIGTERM,
            Self::User1 => libc::SIGUSR1,
        }
    }

    fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.number() == number)
    }
}

/// Sends `signal` to one process.
///
/// # Errors
/// When there is no such process or it belongs to somebody else.
pub fn signal(pid: Pid, signal: Signal) -> io::Result<()> {
    if pid.0 <= 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::kill(pid.0, signal.number()) })?;
    Ok(())
}

/// Sends `signal` to every process of the group that `leader` leads.
///
/// # Errors
/// When there is no such group or nobody in it may be signalled.
pub fn kill_group(leader: Pid, signal: Signal) -> io::Result<()> {
    // Group 1 and below would be every process there is.
    if leader.0 <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::kill(-leader.0, signal.number()) })?;
    Ok(())
}

/// Has the system end this process (`SIGALRM`) after `limit`, in whole seconds and at least one;
/// `None` takes that back.
///
/// For what may hang in a call that only a signal interrupts. The signal must have its default
/// effect, as it has in a process that [`spawn`](fn@super::spawn) started.
pub fn end_in(limit: Option<Duration>) {
    match limit {
        Some(limit) => {
            let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
            nix::unistd::alarm::set(seconds.max(1));
        }
        None => {
            nix::unistd::alarm::cancel();
        }
    }
}

/// Makes writing to a closed socket an error instead of the end of the process.
///
/// # Errors
/// Never in practice.
pub fn ignore_sigpipe() -> io::Result<()> {
    set_action(libc::SIGPIPE, libc::SIG_IGN)
}

/// Has `signals` do nothing to this process.
///
/// # Errors
/// Never in practice.
pub fn ignore_signals(signals: &[Signal]) -> io::Result<()> {
    signals.iter().try_for_each(|signal| set_action(signal.number(), libc::SIG_IGN))
}

/// Where the handler writes; -1 until there is a [`SignalPipe`].
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

/// The process's signals as bytes to read: readable when one came.
///
/// There is one in a process at a time; when it is dropped, its signals have their default
/// effect again.
#[derive(Debug)]
pub struct SignalPipe {
    read: OwnedFd,
    _write: OwnedFd,
    signals: Vec<Signal>,
}

impl SignalPipe {
    /// Receives `signals` from now on.
    ///
    /// # Errors
    /// `AlreadyExists` if the process has a pipe; when descriptors are used up.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let (read, write) = fd::pipe()?;
        fd::set_nonblocking(read.as_fd(), true)?;
        fd::set_nonblocking(write.as_fd(), true)?;
        WRITE_END
            .compare_exchange(-1, write.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
        let pipe = Self { read, _write: write, signals: signals.to_vec() };
        for signal in signals {
            set_action(signal.number(), handler as extern "C" fn(libc::c_int) as usize)?;
        }
        Ok(pipe)
    }

    /// The next signal that came, or `None` if none did. Never blocks.
    ///
    /// Several of one kind may be one.
    ///
    /// # Errors
    /// Never in practice.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            let mut byte = [0];
            match nix::unistd::read(&self.read, &mut byte) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(None),
                Ok(_) => {
                    if let Some(signal) = Signal::from_number(byte[0].into()) {
                        return Ok(Some(signal));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        for signal in &self.signals {
            let _ = set_action(signal.number(), libc::SIG_DFL);
        }
        WRITE_END.store(-1, Ordering::SeqCst);
    }
}

extern "C" fn handler(number: libc::c_int) {
    let before = Errno::last_raw();
    let byte = number as u8;
    // SAFETY: write(2) is async-signal-safe and `byte` lives until it returns. A full pipe loses
    // the byte, but then there are others to wake the reader.
    unsafe {
        libc::write(WRITE_END.load(Ordering::SeqCst), (&raw const byte).cast(), 1);
    }
    Errno::set_raw(before);
}

fn set_action(number: i32, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe (above) or one of the system's constants.
    Errno::result(unsafe { libc::sigaction(number, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

/// Every signal blocked in the calling thread until dropped, so that no handler of this process
/// runs in a child between `fork` and [`reset_in_child`].
pub(super) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(super) fn new() -> Self {
        // SAFETY: both sets are plain values that the calls fill in.
        unsafe {
            let mut all = mem::zeroed();
            let mut before = mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is what the thread had.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
        }
    }
}

/// In a child just forked: every signal has its default effect and none is blocked.
///
/// Async-signal-safe.
pub(super) fn reset_in_child() {
    /// The highest signal number of any of the six systems.
    const HIGHEST: libc::c_int = 128;
    // SAFETY: sigaction and pthread_sigmask are async-signal-safe; a number that does not exist
    // or cannot be caught is an error without effect.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        for number in 1..=HIGHEST {
            libc::sigaction(number, &raw const action, ptr::null_mut());
        }
        let mut none = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_becomes_a_byte_and_there_is_one_pipe_at_a_time() {
        let pipe = SignalPipe::new(&[Signal::User1]).unwrap();
        assert_eq!(pipe.next().unwrap(), None);
        assert_eq!(
            SignalPipe::new(&[Signal::HangUp]).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let own = Pid(std::process::id() as i32);
        signal(own, Signal::User1).unwrap();
        let waited = super::super::poll(
            &mut [super::super::PollEntry::new(pipe.as_fd(), super::super::Interest::Read)],
            Some(std::time::Duration::from_secs(10)),
        );
        // The signal itself may end the wait.
        assert!(waited.is_ok());
        let mut seen = pipe.next().unwrap();
        while seen.is_none() {
            seen = pipe.next().unwrap();
        }
        assert_eq!(seen, Some(Signal::User1));
        drop(pipe);
        drop(SignalPipe::new(&[Signal::User1]).unwrap());
    }

    #[test]
    fn no_signal_goes_to_every_process() {
        for number in [0, -1] {
            assert!(signal(Pid(number), Signal::User1).is_err());
            assert!(kill_group(Pid(number), Signal::User1).is_err());
        }
        assert!(kill_group(Pid(1), Signal::User1).is_err());
    }
}
