//! Waiting for descriptors without a runtime: what the spawner and other threadless processes use.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What to wait for on a descriptor. Its end and its errors are always waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// The end and errors alone.
    Nothing,
    /// Bytes, connections or the end of the stream.
    Read,
    /// Room to write.
    Write,
    /// Both.
    ReadWrite,
}

/// A descriptor to wait for, and what came of it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct PollEntry<'fd> {
    entry: libc::pollfd,
    descriptor: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> PollEntry<'fd> {
    /// Waits for `interest` on `fd`.
    pub fn new(fd: BorrowedFd<'fd>, interest: Interest) -> Self {
        let events = match interest {
            Interest::Nothing => 0,
            Interest::Read => libc::POLLIN,
            Interest::Write => libc::POLLOUT,
            Interest::ReadWrite => libc::POLLIN | libc::POLLOUT,
        };
        Self {
            entry: libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 },
            descriptor: PhantomData,
        }
    }

    /// Whether a read would not block: there are bytes, or the end, or an error to be seen.
    pub const fn readable(&self) -> bool {
        self.entry.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Whether a write would not block: there is room, or an error to be seen.
    pub const fn writable(&self) -> bool {
        self.entry.revents & (libc::POLLOUT | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Whether the other end is gone.
    pub const fn closed(&self) -> bool {
        self.entry.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Waits until one of `entries` is ready, a signal came or `timeout` passed (`None`: for ever).
///
/// Answers how many are ready. A signal ends the wait with 0, so a loop looks at its deadlines
/// and waits again.
///
/// # Errors
/// When there are more entries than descriptors may be open.
pub fn poll(entries: &mut [PollEntry<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let milliseconds = match timeout {
        None => -1,
        // Rounded up, or a deadline less than a millisecond away would spin.
        Some(timeout) => i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
    };
    for entry in &mut *entries {
        entry.entry.revents = 0;
    }
    // SAFETY: PollEntry is transparent over pollfd; the slice lives until the call returns.
    let ready = unsafe {
        libc::poll(entries.as_mut_ptr().cast(), entries.len() as libc::nfds_t, milliseconds)
    };
    if let Ok(ready) = usize::try_from(ready) {
        return Ok(ready);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    #[test]
    fn poll_tells_bytes_room_and_the_end_apart() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut entries = [
            PollEntry::new(far.as_fd(), Interest::Read),
            PollEntry::new(near.as_fd(), Interest::Write),
        ];
        assert_eq!(poll(&mut entries, Some(Duration::ZERO)).unwrap(), 1);
        assert!(!entries[0].readable() && entries[1].writable());

        (&near).write_all(b"x").unwrap();
        assert_eq!(poll(&mut entries[..1], None).unwrap(), 1);
        assert!(entries[0].readable() && !entries[0].closed());

        drop(near);
        let mut entries = [PollEntry::new(far.as_fd(), Interest::Nothing)];
        assert_eq!(poll(&mut entries, None).unwrap(), 1);
        assert!(entries[0].closed());
    }

    #[test]
    fn poll_waits_at_least_its_timeout() {
        let begin = Instant::now();
        let timeout = Duration::from_micros(2_500);
        assert_eq!(poll(&mut [], Some(timeout)).unwrap(), 0);
        assert!(begin.elapsed() >= timeout);
    }
}
