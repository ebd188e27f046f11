//! Opening the mailbox of a worker's identity, in a bounded child with root's rights.
//!
//! The child makes the lock, opens or creates the mailbox, and sends its descriptor to the worker
//! over a socket of their own. It holds the lock until the worker closes that socket, dies, or has
//! held it for too long.
//!
//! Answer on the socket: a byte 0 with the descriptor, or the exit status that mail.local(8) would
//! have had, followed by what it would have said.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use platform::mbox::{DotLock, convention, open_mailbox};
use platform::process::{Interest, Pid, PollEntry, close_all_except, poll, run_in_child};
use platform::users::Account;

/// How long the child may take to lock and open.
const OPEN: Duration = Duration::from_secs(30);
/// How long a worker may hold the lock.
const HOLD: Duration = Duration::from_secs(330);
/// When the spawner ends a child that hangs in spite of both.
pub(super) const GIVE_UP: Duration = Duration::from_secs(400);
/// Status of a user that cannot have a mailbox: permanent.
const NO_USER: u8 = 67;
/// Status of trouble with the system: temporary.
const OS_ERROR: u8 = 71;

/// Starts the child for `user`, whose mailbox is in `spool`; returns the worker's end.
///
/// Without root's rights (`unprivileged`) a spool that the user may not write has no dot-lock; the
/// lock on the mailbox itself is then the only one.
pub(super) fn start(spool: &str, user: &Account, unprivileged: bool) -> io::Result<(Pid, OwnedFd)> {
    let (ours, theirs) = platform::fd::socketpair()?;
    let pid = run_in_child(|| {
        close_all_except(&[0, 1, 2, ours.as_raw_fd()]);
        serve(ours.as_fd(), Path::new(spool), user, unprivileged);
        0
    })?;
    Ok((pid, theirs))
}

fn serve(socket: BorrowedFd<'_>, spool: &Path, user: &Account, unprivileged: bool) {
    let (lock, mailbox) = match open(spool, user, unprivileged) {
        Ok(opened) => opened,
        Err(error) => {
            let status =
                if error.kind() == io::ErrorKind::InvalidInput { NO_USER } else { OS_ERROR };
            let text = format!("{}: {error}", user.name);
            // A worker that is gone needs no answer.
            let _ = platform::fd::send_vectored(
                socket,
                &[IoSlice::new(&[status]), IoSlice::new(text.as_bytes())],
                None,
            );
            return;
        }
    };
    let sent = platform::fd::send_vectored(socket, &[IoSlice::new(&[0])], Some(mailbox.as_fd()));
    if sent.is_ok() {
        wait_for_end(socket);
    }
    drop(lock);
}

fn open(
    spool: &Path,
    user: &Account,
    unprivileged: bool,
) -> io::Result<(Option<DotLock>, OwnedFd)> {
    let name = user.name.as_str();
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot have a mailbox"));
    }
    let lock = if convention().dot_lock {
        match DotLock::acquire(&spool.join(name), Instant::now() + OPEN) {
            Ok(lock) => Some(lock),
            Err(error) if unprivileged && error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(error),
        }
    } else {
        None
    };
    let mailbox = open_mailbox(spool, user)?;
    Ok((lock, mailbox))
}

/// Waits until the worker closes its end, or has held the lock for too long.
fn wait_for_end(socket: BorrowedFd<'_>) {
    let deadline = Instant::now() + HOLD;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut entries = [PollEntry::new(socket, Interest::Read)];
        let polled = poll(&mut entries, Some(left));
        let ended = entries.iter().any(PollEntry::readable);
        if left.is_zero() || polled.is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use platform::privilege::{effective_gid, effective_uid};

    use super::*;

    fn account(name: &str) -> Account {
        Account {
            name: name.to_owned(),
            uid: effective_uid(),
            gid: effective_gid(),
            gecos: String::new(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        }
    }

    /// Runs the child's work in a thread; what a worker receives, and its end of the socket.
    fn opened(spool: &Path, name: &str) -> (Vec<u8>, Option<OwnedFd>, OwnedFd) {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let (spool, user) = (spool.to_owned(), account(name));
        std::thread::spawn(move || serve(ours.as_fd(), &spool, &user, false));
        let (mut buffer, mut passed) = ([0; 512], Vec::new());
        let count = platform::fd::recv(theirs.as_fd(), &mut buffer, &mut passed).unwrap();
        (buffer[..count].to_vec(), passed.pop(), theirs)
    }

    #[test]
    fn the_mailbox_is_made_and_locked_while_the_worker_has_it() {
        // queue case 147
        let spool = tempfile::tempdir().unwrap();
        let (said, mailbox, socket) = opened(spool.path(), "alice");
        assert_eq!(said, [0]);
        let lock = spool.path().join("alice.lock");
        assert!(lock.exists(), "locked");
        File::from(mailbox.unwrap()).write_all(b"x").unwrap();
        let made = fs::metadata(spool.path().join("alice")).unwrap();
        assert_eq!((made.permissions().mode() & 0o7777, made.uid()), (0o600, effective_uid()));
        drop(socket);
        let deadline = Instant::now() + Duration::from_secs(10);
        while lock.exists() {
            assert!(Instant::now() < deadline, "the lock stays");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_could_be_a_trick_is_refused_with_a_status() {
        // queue case 148
        let spool = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", spool.path().join("alice")).unwrap();
        for (name, status) in [("alice", OS_ERROR), ("../alice", NO_USER), ("", NO_USER)] {
            let (said, mailbox, _socket) = opened(spool.path(), name);
            assert_eq!(said[0], status, "{name:?}");
            assert!(mailbox.is_none());
            assert!(!spool.path().join("alice.lock").exists() || status == OS_ERROR);
        }
    }
}
