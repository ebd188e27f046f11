//! Mailboxes of the system's mail spool: opening them as root, and locking them.
//!
//! A user may own the mailbox, and on some systems may write the directory that holds it; so no
//! name is trusted: links are not followed, and what was opened is looked at afterwards.
//!
//! Sources: mail.local(8), lockspool(1), dotlockfile(1); fchown(2), open(2).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown};

use crate::users::Account;
use crate::{Host, Os};

/// How programs of this system keep out of each other's way in a mailbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MboxConvention {
    /// A file called `MAILBOX.lock` beside it: [`DotLock`].
    pub dot_lock: bool,
    /// flock(2) of the mailbox.
    pub flock: bool,
    /// Directory of the mailboxes.
    pub spool: PathBuf,
}

/// How programs of this system keep out of each other's way in a mailbox.
pub fn convention() -> MboxConvention {
    Host.mbox_convention()
}

/// Opens the mailbox of `user` in the directory `spool` to read and append, making it if need be
/// (empty, mode 0600, the user's).
///
/// Needs root's rights, or those of `user`.
///
/// # Errors
/// `InvalidInput` for a name that is no file name; `PermissionDenied` when the mailbox is a link,
/// has several names, is no regular file or is not the user's, or when anyone may remove files of
/// `spool`; `NotFound` without `spool`.
pub fn open_mailbox(spool: &Path, user: &Account) -> io::Result<OwnedFd> {
    let name = user.name.as_str();
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} cannot be the name of a mailbox"),
        ));
    }
    let directory_flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(spool, directory_flags, Mode::empty())?;
    check_spool(directory.as_fd(), spool)?;
    // Without waiting: the name could be a pipe.
    let flags = OFlag::O_RDWR
        | OFlag::O_APPEND
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    // Another delivery may make or remove it between two looks.
    for _ in 0..3 {
        match openat(&directory, name, flags, Mode::empty()) {
            Ok(mailbox) => return check_mailbox(mailbox, user),
            Err(Errno::ENOENT) => {}
            // What O_NOFOLLOW answers for a link, by system.
            Err(Errno::ELOOP | Errno::EMLINK) => return Err(not_trusted("it is a link")),
            Err(error) => return Err(error.into()),
        }
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match openat(&directory, name, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode) {
            Ok(mailbox) => {
                fchown(&mailbox, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
                return check_mailbox(mailbox, user);
            }
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(not_trusted("it comes and goes"))
}

/// Whether anyone may write the directory `spool`: legitimate with the sticky bit alone, and worth
/// one warning at start.
///
/// # Errors
/// When there is no such directory.
pub fn spool_is_world_writable(spool: &Path) -> io::Result<bool> {
    Ok(fs::metadata(spool)?.mode() & 0o002 != 0)
}

#[allow(clippy::unnecessary_cast)] // the width of a mode differs by system
fn check_spool(directory: BorrowedFd<'_>, spool: &Path) -> io::Result<()> {
    let mode = fstat(directory)?.st_mode as u32;
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("anyone may remove files of {}: it needs the sticky bit", spool.display()),
        ));
    }
    Ok(())
}

#[allow(clippy::unnecessary_cast)] // the width of a mode differs by system
fn check_mailbox(mailbox: OwnedFd, user: &Account) -> io::Result<OwnedFd> {
    let found = fstat(&mailbox)?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(not_trusted("it is no regular file"));
    }
    if found.st_nlink != 1 {
        return Err(not_trusted("it has several names"));
    }
    if found.st_uid != user.uid {
        return Err(not_trusted("it belongs to somebody else"));
    }
    Ok(mailbox)
}

fn not_trusted(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("mailbox refused: {reason}"))
}

/// Time after which a lock whose holder does not run any more is taken for left behind.
const STALE_AFTER: Duration = Duration::from_secs(300);

/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The lock of a mailbox by a file beside it, gone when dropped.
#[derive(Debug)]
pub struct DotLock {
    path: PathBuf,
    file: File,
}

impl DotLock {
    /// Takes the lock of the mailbox at `path` by making `path.lock`, trying until `deadline`.
    ///
    /// A lock is broken only if it is older than five minutes *and* names a process of this
    /// machine that does not run any more. Locks without a process id are never broken: who made
    /// them is not known.
    ///
    /// # Errors
    /// `TimedOut` when somebody else kept it; `PermissionDenied` and others when the directory
    /// refuses the file.
    pub fn acquire(path: &Path, deadline: Instant) -> io::Result<Self> {
        let mut name = OsString::from(path);
        name.push(".lock");
        let path = PathBuf::from(name);
        let (mut pause, longest) = PAUSES;
        loop {
            match Self::create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other,
            }
            if remove_if_stale(&path)? {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} is held by another program", path.display()),
                ));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(longest);
        }
    }

    fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut lock = Self { path: path.to_owned(), file };
        // The form that other programs of this convention read.
        writeln!(lock.file, "{}", std::process::id())?;
        Ok(lock)
    }
}

impl Drop for DotLock {
    fn drop(&mut self) {
        // Only the file that is ours: somebody may have broken the lock and made their own.
        if let Ok(ours) = self.file.metadata()
            && let Ok(named) = fs::symlink_metadata(&self.path)
            && same_file(&ours, &named)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn same_file(one: &fs::Metadata, two: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (two.dev(), two.ino())
}

/// Removes a lock that was left behind; `false` if it is to be respected.
fn remove_if_stale(path: &Path) -> io::Result<bool> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(_) => return Ok(false),
    };
    let found = file.metadata()?;
    let age = SystemTime::now().duration_since(found.modified()?).unwrap_or_default();
    if !found.is_file() || age < STALE_AFTER {
        return Ok(false);
    }
    let mut holder = String::new();
    if file.take(32).read_to_string(&mut holder).is_err() {
        return Ok(false);
    }
    let Ok(holder) = holder.trim().parse::<u32>() else { return Ok(false) };
    if holder == 0 || process_runs(holder) {
        return Ok(false);
    }
    match fs::symlink_metadata(path) {
        Ok(now) if same_file(&found, &now) => fs::remove_file(path).map(|()| true),
        _ => Ok(true),
    }
}

fn process_runs(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // SAFETY: takes numbers only; signal 0 only asks.
    !matches!(Errno::result(unsafe { libc::kill(pid, 0) }), Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::privilege::{effective_gid, effective_uid};

    /// A directory of the test's own, removed when dropped.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mbox-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn user(name: &str) -> Account {
        Account {
            name: name.to_owned(),
            uid: effective_uid(),
            gid: effective_gid(),
            gecos: String::new(),
            home: PathBuf::from("/"),
            shell: PathBuf::from("/bin/sh"),
        }
    }

    fn refusal(spool: &Path, user: &Account) -> io::ErrorKind {
        open_mailbox(spool, user).unwrap_err().kind()
    }

    // Queue case 147: made with mode 0600, the user's.
    #[test]
    fn a_mailbox_is_made_once_and_appended_to() {
        let spool = Directory::new("made");
        let mut mailbox = File::from(open_mailbox(&spool.0, &user("ann")).unwrap());
        mailbox.write_all(b"one").unwrap();
        let mut again = File::from(open_mailbox(&spool.0, &user("ann")).unwrap());
        again.write_all(b"two").unwrap();
        assert_eq!(fs::read(spool.0.join("ann")).unwrap(), b"onetwo");
        assert_eq!(mailbox.metadata().unwrap().mode() & 0o7777, 0o600);
    }

    // Queue case 148: a link is not followed.
    #[test]
    fn a_mailbox_that_could_be_a_trick_is_refused() {
        let spool = Directory::new("tricks");
        fs::write(spool.0.join("target"), "").unwrap();
        symlink("target", spool.0.join("linked")).unwrap();
        fs::hard_link(spool.0.join("target"), spool.0.join("second")).unwrap();
        fs::create_dir(spool.0.join("directory")).unwrap();
        nix::unistd::mkfifo(&spool.0.join("pipe"), Mode::S_IRWXU).unwrap();
        for name in ["linked", "second", "pipe"] {
            assert_eq!(refusal(&spool.0, &user(name)), io::ErrorKind::PermissionDenied, "{name}");
        }
        assert_eq!(refusal(&spool.0, &user("directory")), io::ErrorKind::IsADirectory);
        let mut other = user("target");
        fs::remove_file(spool.0.join("second")).unwrap();
        other.uid += 1;
        assert_eq!(refusal(&spool.0, &other), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn only_a_file_name_names_a_mailbox() {
        let spool = Directory::new("names");
        for name in ["", ".", "..", "a/b", "/etc/passwd", "nul\0"] {
            assert_eq!(refusal(&spool.0, &user(name)), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn a_spool_that_anyone_may_write_needs_the_sticky_bit() {
        let spool = Directory::new("sticky");
        let set = |mode| fs::set_permissions(&spool.0, fs::Permissions::from_mode(mode)).unwrap();
        set(0o777);
        assert_eq!(refusal(&spool.0, &user("ann")), io::ErrorKind::PermissionDenied);
        set(0o1777);
        open_mailbox(&spool.0, &user("ann")).unwrap();
        assert!(spool_is_world_writable(&spool.0).unwrap());
        set(0o755);
        assert!(!spool_is_world_writable(&spool.0).unwrap());
    }

    #[test]
    fn a_dot_lock_has_one_holder_and_goes_with_it() {
        let spool = Directory::new("lock");
        let mailbox = spool.0.join("ann");
        let held = DotLock::acquire(&mailbox, Instant::now()).unwrap();
        assert_eq!(fs::metadata(spool.0.join("ann.lock")).unwrap().mode() & 0o7777, 0o600);
        let error = DotLock::acquire(&mailbox, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert!(!spool.0.join("ann.lock").exists());
        drop(DotLock::acquire(&mailbox, Instant::now()).unwrap());
    }

    #[test]
    fn a_dot_lock_is_broken_only_if_old_and_its_process_gone() {
        let spool = Directory::new("stale");
        let (mailbox, lock) = (spool.0.join("ann"), spool.0.join("ann.lock"));
        let gone = crate::process::run_in_child(|| 0).unwrap();
        crate::process::wait_for(gone).unwrap();
        let own = std::process::id().to_string();
        let old = SystemTime::now() - STALE_AFTER - Duration::from_secs(5);
        let cases = [
            ("old, its process gone", gone.to_string(), old, true),
            ("young, its process gone", gone.to_string(), SystemTime::now(), false),
            ("old, its process runs", own, old, false),
            ("old, nobody named", String::new(), old, false),
            ("old, everybody named", "0".to_owned(), old, false),
            ("old, not a number", "x".to_owned(), old, false),
        ];
        for (name, holder, time, broken) in cases {
            fs::write(&lock, holder).unwrap();
            File::options().write(true).open(&lock).unwrap().set_modified(time).unwrap();
            let taken = DotLock::acquire(&mailbox, Instant::now());
            assert_eq!(taken.is_ok(), broken, "{name}");
            drop(taken);
            let _ = fs::remove_file(&lock);
        }
    }

    #[test]
    fn a_dot_lock_that_was_replaced_is_left_to_its_new_holder() {
        let spool = Directory::new("replaced");
        let lock = spool.0.join("ann.lock");
        let held = DotLock::acquire(&spool.0.join("ann"), Instant::now()).unwrap();
        fs::rename(&lock, spool.0.join("kept")).unwrap();
        fs::write(&lock, "").unwrap();
        drop(held);
        assert!(lock.exists());
    }
}
