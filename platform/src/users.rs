//! Accounts of the system: looking them up, and making the daemon's own.
//!
//! A look-up has three answers: found, not found, failed. Whatever the C library reports as an
//! error is *failed*, also where manuals list it among the ways to say "not found": with a
//! directory service that is down, `ENOENT` is what glibc answers for an account that exists.
//!
//! Sources: getpwnam(3), getgrouplist(3); `nss/getXXbyYY_r.c` of glibc 2.36 for the above.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::{fmt, io, mem, ptr};

use crate::{Host, Os};

/// Bytes for the strings of one entry at first; doubled as long as they do not fit.
const ENTRY_BYTES: usize = 2048;

/// Bytes that no honest entry needs (a group may list every user of a site).
const ENTRY_BYTES_AT_MOST: usize = 16 << 20;

/// One entry of the password database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// The comment: full name and more.
    pub gecos: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// The account called `name`, or `None` if there is none.
///
/// # Errors
/// The look-up failed: whether there is one is not known, and the caller must try again later.
pub fn user_by_name(name: &str) -> io::Result<Option<Account>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    look_up(
        // SAFETY: `name` is NUL-terminated, the rest are the buffers of `look_up`.
        |entry, buffer, length, found| unsafe {
            libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found)
        },
        account,
    )
}

/// The account with this user id (the first one, if several share it), or `None`.
///
/// # Errors
/// As [`user_by_name`].
pub fn user_by_uid(uid: u32) -> io::Result<Option<Account>> {
    look_up(
        // SAFETY: the pointers are the buffers of `look_up`.
        |entry, buffer, length, found| unsafe {
            libc::getpwuid_r(uid, entry, buffer, length, found)
        },
        account,
    )
}

/// The id of the group called `name`, or `None` if there is none.
///
/// # Errors
/// As [`user_by_name`].
pub fn group_by_name(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    look_up(
        // SAFETY: `name` is NUL-terminated, the rest are the buffers of `look_up`.
        |entry, buffer, length, found| unsafe {
            libc::getgrnam_r(name.as_ptr(), entry, buffer, length, found)
        },
        |entry: &libc::group| entry.gr_gid,
    )
}

/// The groups of the account `name`, among them `gid`, its primary one.
///
/// # Errors
/// When the list does not end, or `name` holds a NUL byte. A group database that cannot be read
/// gives fewer groups and no error: the interface does not tell.
pub fn supplementary_groups(name: &str, gid: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(name)?;
    Host.group_list(&name, gid)
}

/// Calls one of the `get…_r` functions with buffers that grow until the entry fits.
fn look_up<Entry, Value>(
    call: impl Fn(*mut Entry, *mut libc::c_char, usize, *mut *mut Entry) -> libc::c_int,
    read: impl Fn(&Entry) -> Value,
) -> io::Result<Option<Value>> {
    let mut strings: Vec<libc::c_char> = vec![0; ENTRY_BYTES];
    let mut entry = mem::MaybeUninit::<Entry>::uninit();
    loop {
        let mut found: *mut Entry = ptr::null_mut();
        let error = call(entry.as_mut_ptr(), strings.as_mut_ptr(), strings.len(), &raw mut found);
        match error {
            // SAFETY: a found entry is `entry`, filled in, its strings in `strings`.
            0 => return Ok(unsafe { found.as_ref() }.map(read)),
            libc::ERANGE if strings.len() < ENTRY_BYTES_AT_MOST => {
                strings.resize(strings.len() * 2, 0);
            }
            libc::EINTR => {}
            // Some C libraries answer -1 and leave the reason in errno.
            -1 => return Err(io::Error::last_os_error()),
            other => return Err(io::Error::from_raw_os_error(other)),
        }
    }
}

fn account(entry: &libc::passwd) -> Account {
    Account {
        name: text(entry.pw_name).to_string_lossy().into_owned(),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        gecos: text(entry.pw_gecos).to_string_lossy().into_owned(),
        home: PathBuf::from(OsStr::from_bytes(text(entry.pw_dir).to_bytes())),
        shell: PathBuf::from(OsStr::from_bytes(text(entry.pw_shell).to_bytes())),
    }
}

/// A string of an entry that `look_up` is reading; missing ones (Android, bad entries) are empty.
fn text<'entry>(string: *const libc::c_char) -> &'entry CStr {
    if string.is_null() {
        return c"";
    }
    // SAFETY: the C library's own NUL-terminated string, in the buffer that outlives the reading.
    unsafe { CStr::from_ptr(string) }
}

/// An account that the daemon runs under.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DaemonAccount {
    /// Name of the user and of its group.
    pub name: &'static str,
    /// What it is for.
    pub comment: &'static str,
}

/// The user of control, lookup and dispatcher.
pub const DAEMON_USER: &str = "_smtpd";

/// The user of queue, scheduler and keys; its group may put mail into the offline directory.
pub const QUEUE_USER: &str = "_smtpq";

/// The accounts that the daemon runs under.
pub const DAEMON_ACCOUNTS: [DaemonAccount; 2] = [
    DaemonAccount { name: DAEMON_USER, comment: "SMTP daemon" },
    DaemonAccount { name: QUEUE_USER, comment: "SMTP queue" },
];

/// A command as data, so that an installer can show it before it runs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// The program, then its arguments.
    pub(crate) fn new(words: &[&str]) -> Self {
        Self(words.iter().map(ToString::to_string).collect())
    }

    fn run(&self) -> io::Result<()> {
        let Some((program, arguments)) = self.0.split_first() else { return Ok(()) };
        let status = Command::new(program)
            .args(arguments)
            .status()
            .map_err(|error| io::Error::new(error.kind(), format!("{self}: {error}")))?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{self}: {status}")))
    }
}

impl fmt::Display for CommandLine {
    /// As a person would type it: words with other than plain characters in single quotes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                write!(formatter, "{space}{word}")?;
            } else {
                write!(formatter, "{space}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// The commands that would make the daemon's accounts, for those that are not there.
///
/// # Errors
/// When the account database cannot be read.
pub fn daemon_account_commands() -> io::Result<Vec<CommandLine>> {
    let mut commands = Vec::new();
    for account in &DAEMON_ACCOUNTS {
        if user_by_name(account.name)?.is_none() {
            commands.extend(Host.account_commands(account)?);
        }
    }
    Ok(commands)
}

/// Makes the daemon's accounts that are not there, and answers with the commands that did it.
///
/// An account that is there is never changed.
///
/// # Errors
/// When the account database cannot be read, or a command fails; those before it have taken effect.
pub fn create_daemon_users() -> io::Result<Vec<CommandLine>> {
    let commands = daemon_account_commands()?;
    for command in &commands {
        command.run()?;
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_id() {
        let root = user_by_name("root").unwrap().expect("every system has root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.home.is_absolute());
        assert_eq!(user_by_uid(0).unwrap().map(|account| account.uid), Some(0));
        assert!(supplementary_groups("root", root.gid).unwrap().contains(&root.gid));
    }

    #[test]
    fn what_does_not_exist_is_not_found_and_not_an_error() {
        assert_eq!(user_by_name("no-such-account").unwrap(), None);
        assert_eq!(user_by_name("").unwrap(), None);
        assert_eq!(user_by_name("ro\0ot").unwrap(), None);
        assert_eq!(group_by_name("no-such-group").unwrap(), None);
        assert_eq!(user_by_uid(3_999_999_999).unwrap(), None);
    }

    #[test]
    fn an_entry_longer_than_the_buffer_is_read_with_a_longer_one() {
        let calls = std::cell::Cell::new(0);
        let answer = look_up(
            |entry: *mut u32, _, length, found| {
                calls.set(calls.get() + 1);
                if length < ENTRY_BYTES * 4 {
                    return libc::ERANGE;
                }
                // SAFETY: the pointers of `look_up`.
                unsafe {
                    *entry = 7;
                    *found = entry;
                }
                0
            },
            |value| *value,
        );
        assert_eq!(answer.unwrap(), Some(7));
        assert_eq!(calls.get(), 3);
    }

    #[test]
    fn a_failed_look_up_is_an_error_also_where_manuals_call_it_not_found() {
        for errno in [libc::ENOENT, libc::ESRCH, libc::EIO, libc::EPERM, libc::ERANGE] {
            let answer = look_up(|_: *mut u32, _, _, _| errno, |value| *value);
            assert_eq!(answer.unwrap_err().raw_os_error(), Some(errno));
        }
    }

    #[test]
    fn commands_are_shown_as_they_would_be_typed() {
        let command = CommandLine::new(&["useradd", "-c", "it's mail", ""]);
        assert_eq!(command.to_string(), r"useradd -c 'it'\''s mail' ''");
        for account in &DAEMON_ACCOUNTS {
            let commands = Host.account_commands(account).unwrap();
            assert!(commands.iter().all(|command| command.to_string().contains(account.name)));
        }
    }
}
