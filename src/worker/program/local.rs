//! mail.local(8): appends standard input to users' mailboxes in the mail spool.
//!
//! With root's rights the mailbox is made for its user and locked by a file beside it; without
//! them, the caller's own mailbox is locked the same way where the spool allows it, and by flock(2)
//! alone where not.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lexopt::Arg;
use platform::mbox::{DotLock, open_mailbox};
use platform::privilege::{effective_uid, is_root};
use platform::users::{Account, user_by_name, user_by_uid};

use crate::worker::mbox::{Convention, Entry, append, date};
use crate::worker::report::{Failed, NO_USER, OS_ERROR, USAGE};
use crate::worker::unique::unique;

const PROGRAM: &str = "mail.local";
/// How long the lock beside the mailbox is waited for.
const LOCK: Duration = Duration::from_secs(30);
/// Where new mail is announced, if anyone listens: service `biff` (RFC 6335 registry: 512/udp).
const BIFF: (&str, u16) = ("127.0.0.1", 512);

/// What the program was asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    from: Option<String>,
    lock: bool,
    users: Vec<String>,
}

/// Reads the words of the command line.
///
/// # Errors
/// Status 64: no user, a second sender, an unknown flag.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Failed> {
    let usage = || Failed::new(USAGE, "usage", "mail.local [-lL] [-f from] user ...");
    let mut parser = lexopt::Parser::from_args(words);
    let mut request = Request { from: None, lock: true, users: Vec::new() };
    while let Some(argument) = parser.next().map_err(|_| usage())? {
        match argument {
            Arg::Short('d') => {}
            Arg::Short('f' | 'r') => {
                let value = parser.value().map_err(|_| usage())?;
                let value = value.into_string().map_err(|_| usage())?;
                if request.from.replace(value).is_some() {
                    return Err(Failed::new(USAGE, PROGRAM, "multiple -f options"));
                }
            }
            Arg::Short('l') => request.lock = true,
            Arg::Short('L') => request.lock = false,
            Arg::Value(user) => request.users.push(user.into_string().map_err(|_| usage())?),
            Arg::Long(_) | Arg::Short(_) => return Err(usage()),
        }
    }
    if request.users.is_empty() { Err(usage()) } else { Ok(request) }
}

/// Delivers `message` to every user, telling `failed` of each failure.
///
/// # Errors
/// The last failure; the other users have their mail.
pub fn run(
    request: &Request,
    spool: &Path,
    message: &mut dyn Read,
    mut failed: impl FnMut(&Failed),
) -> Result<(), Failed> {
    let copy = copy(message)
        .map_err(|error| Failed::system(OS_ERROR, PROGRAM, "temporary file", &error))
        .inspect_err(&mut failed)?;
    let from = request.from.clone().unwrap_or_else(own_name);
    let mut result = Ok(());
    for user in &request.users {
        let delivered = deliver(request, spool, user, &from, &copy);
        if let Err(error) = delivered {
            failed(&error);
            result = Err(error);
        }
    }
    result
}

fn own_name() -> String {
    let account = user_by_uid(effective_uid()).ok().flatten();
    account.map_or_else(|| "???".to_owned(), |account| account.name)
}

/// The whole message in a file without a name, so that no lock is held while it comes in.
fn copy(message: &mut dyn Read) -> io::Result<File> {
    let name = format!("local.{:032x}", u128::from_be_bytes(unique()));
    let path = std::env::temp_dir().join(name);
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(message, &mut file)?;
    Ok(file)
}

fn deliver(
    request: &Request,
    spool: &Path,
    user: &str,
    from: &str,
    mut message: &File,
) -> Result<(), Failed> {
    let system = |what: &str, error: &io::Error| Failed::system(OS_ERROR, PROGRAM, what, error);
    let account = match user_by_name(user) {
        Ok(Some(account)) if !user.contains('/') => account,
        Ok(_) => {
            return Err(Failed::new(NO_USER, PROGRAM, format_args!("unknown name: {user}")));
        }
        Err(error) => return Err(system(user, &error)),
    };
    message.rewind().map_err(|error| system("temporary file", &error))?;
    let _lock = if request.lock { lock(spool, &account)? } else { None };
    let mailbox = open_mailbox(spool, &account).map_err(|error| system(user, &error))?;
    let mailbox = File::from(mailbox);
    let offset = mailbox.metadata().map_err(|error| system(user, &error))?.len();
    let mut reader = BufReader::new(message);
    append_to(&mailbox, from, &mut reader)?;
    announce(user, offset);
    Ok(())
}

fn append_to(mailbox: &File, from: &str, message: &mut dyn BufRead) -> Result<(), Failed> {
    let now = date(&crate::time::local_now());
    append(mailbox, &mut Entry { from, date: &now, prefix: "", message }, Convention::Local)
}

fn lock(spool: &Path, account: &Account) -> Result<Option<DotLock>, Failed> {
    match DotLock::acquire(&spool.join(&account.name), Instant::now() + LOCK) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_root() => Ok(None),
        Err(error) => Err(Failed::system(OS_ERROR, PROGRAM, "lock", &error)),
    }
}

/// Tells whoever waits for new mail of `user` where in the mailbox it begins.
fn announce(user: &str, offset: u64) {
    // Hardly anyone listens; mail does not depend on it.
    let _ = UdpSocket::bind(("127.0.0.1", 0))
        .and_then(|socket| socket.send_to(format!("{user}@{offset}\n\0").as_bytes(), BIFF));
}

/// Says a failure on standard error and in the system's log.
pub fn say(failed: &Failed) {
    let mut errors = io::stderr();
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(errors, "{failed}");
    let text: String = failed.text.chars().filter(|c| !c.is_control()).collect();
    let _ = platform::syslog::SysLog::open(c"mail.local")
        .and_then(|log| log.write(platform::syslog::Priority::Error, &text));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parsed(words: &[&str]) -> Result<Request, u8> {
        parse(words.iter().map(OsString::from)).map_err(|failed| failed.status)
    }

    #[test]
    fn words() {
        // queue case 149
        let request = |from: Option<&str>, lock, users: &[&str]| {
            let users = users.iter().map(|user| (*user).to_owned()).collect();
            Ok(Request { from: from.map(str::to_owned), lock, users })
        };
        let cases = [
            (&["a"][..], request(None, true, &["a"])),
            (&["-L", "-d", "-f", "x@y", "a", "b"], request(Some("x@y"), false, &["a", "b"])),
            (&["-L", "-l", "-r", "x", "a"], request(Some("x"), true, &["a"])),
            (&[], Err(USAGE)),
            (&["-f", "x", "-r", "y", "a"], Err(USAGE)),
            (&["-z", "a"], Err(USAGE)),
            (&["-f"], Err(USAGE)),
        ];
        for (words, expected) in cases {
            assert_eq!(parsed(words), expected, "{words:?}");
        }
    }

    #[test]
    fn one_unknown_user_does_not_keep_mail_from_the_others() {
        // queue cases 146, 147 and 149
        let spool = tempfile::tempdir().unwrap();
        let own = own_name();
        let request = parsed(&["-f", "x@y", "nosuch", &own]).unwrap();
        let mut said = Vec::new();
        let message = b"S: 1\n\nFrom here\nFrom there\n";
        let result = run(&request, spool.path(), &mut &message[..], |failed| {
            said.push(failed.to_string());
        });
        assert_eq!(said, ["mail.local: unknown name: nosuch"]);
        assert_eq!(result.map_err(|failed| failed.status), Err(NO_USER));
        let text = fs::read_to_string(spool.path().join(&own)).unwrap();
        assert!(text.starts_with("From x@y "), "{text}");
        assert!(text.ends_with("\nS: 1\n\n>From here\nFrom there\n\n"), "{text}");
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 1, "no lock is left");
    }
}
