//! lockspool(8): holds the lock beside a user's mailbox for the program that started it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use platform::mbox::DotLock;
use platform::privilege::{effective_uid, is_root};
use platform::process::{Interest, PollEntry, Signal, SignalPipe, poll};
use platform::users::{user_by_name, user_by_uid};

use super::usage;
use crate::worker::report::Failed;

const PROGRAM: &str = "lockspool";
/// How long another's lock is waited for: the sum of the documented pauses, 1 s to 512 s.
pub const PATIENCE: Duration = Duration::from_secs(1023);

/// Whose mailbox is locked: the operand for root, for others their own.
///
/// # Errors
/// There is an operand and the caller is not root, or no such account.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<String, Failed> {
    let mut words = words.into_iter();
    let account = match (words.next(), words.next()) {
        (None, _) => user_by_uid(effective_uid()),
        (Some(name), None) if is_root() => user_by_name(&name.to_string_lossy()),
        _ => return Err(usage(PROGRAM, "lockspool [user]; only root may name a user")),
    };
    match account {
        Ok(Some(account)) if !account.name.contains('/') => Ok(account.name),
        Ok(_) => Err(usage(PROGRAM, "there is no such user")),
        Err(error) => Err(usage(PROGRAM, error)),
    }
}

/// Locks the mailbox of `user` in `spool`, says `1`, and holds the lock until `input` ends or a
/// signal comes; or says `0` after `patience`. The answer is whether it was locked.
///
/// # Errors
/// Standard output or the wait failed.
pub fn hold(
    spool: &Path,
    user: &str,
    patience: Duration,
    mut input: impl Read + AsFd,
    mut output: impl Write,
) -> io::Result<bool> {
    // Before the lock, so that no signal leaves it behind.
    let signals = SignalPipe::new(&[Signal::HangUp, Signal::Interrupt, Signal::Terminate])?;
    let Ok(lock) = DotLock::acquire(&spool.join(user), Instant::now() + patience) else {
        output.write_all(b"0\n")?;
        output.flush()?;
        return Ok(false);
    };
    output.write_all(b"1\n")?;
    output.flush()?;
    let mut buffer = [0; 64];
    while signals.next()?.is_none() {
        let mut entries = [
            PollEntry::new(input.as_fd(), Interest::Read),
            PollEntry::new(signals.as_fd(), Interest::Read),
        ];
        poll(&mut entries, None)?;
        if entries[0].readable() && input.read(&mut buffer)? == 0 {
            break;
        }
    }
    drop(lock);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    #[test]
    fn the_lock_lasts_as_long_as_the_input_and_has_one_holder() {
        // queue case 155
        let spool = tempfile::tempdir().unwrap();
        let lock = spool.path().join("alice.lock");
        let (input, holder) = UnixStream::pair().unwrap();
        let (output, mut said) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let first =
                scope.spawn(|| hold(spool.path(), "alice", Duration::ZERO, input, output).unwrap());
            let mut answer = [0; 2];
            said.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"1\n");
            assert!(lock.exists());
            let second = DotLock::acquire(&spool.path().join("alice"), Instant::now());
            assert!(second.is_err(), "a second holder");
            drop(holder);
            assert!(first.join().unwrap());
        });
        assert!(!lock.exists());

        DotLock::acquire(&spool.path().join("bob"), Instant::now()).map(std::mem::forget).unwrap();
        let mut answer = Vec::new();
        let locked =
            hold(spool.path(), "bob", Duration::ZERO, UnixStream::pair().unwrap().0, &mut answer);
        assert!(!locked.unwrap());
        assert_eq!(answer, b"0\n");
    }

    #[test]
    fn only_root_may_name_a_user() {
        let named = parse(["root".into()]);
        assert_eq!(named.is_ok(), is_root());
        assert!(parse(["root".into(), "root".into()]).is_err());
        let own = user_by_uid(effective_uid()).unwrap().map(|account| account.name);
        assert_eq!(parse([]).ok(), own);
    }
}
