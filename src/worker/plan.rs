//! From the record of a job to what is done: a delivery of the worker's own, or a command line.
//!
//! Command lines are the documented ones, so that an administrator finds in the process list what
//! the manual says.
//!
//! Sources: the queue page of the specification, section 5.1.

use std::path::{Path, PathBuf};

use super::format::{FormatError, Target, Values, expand, wrap};
use crate::ipc::message::worker::{JobRecord, Method};

/// Longest command line before its specifiers are replaced, in bytes.
const MAX_LINE: usize = 2047;
/// Where a sub-address begins if nothing else is said.
const DELIMITER: char = '+';

/// What is done for a job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Append to a file.
    Append {
        /// The file.
        path: PathBuf,
    },
    /// Speak LMTP.
    Lmtp {
        /// Host and port, or the path of a socket.
        destination: String,
        /// Argument of RCPT TO.
        recipient: String,
    },
    /// Deliver into a Maildir.
    Maildir {
        /// The Maildir.
        path: PathBuf,
        /// Whether spam goes to its junk folder.
        junk: bool,
    },
    /// Append to the system mailbox of the identity.
    Mailbox,
    /// Run a command line with the shell.
    Shell {
        /// The line.
        line: String,
        /// Whether the command is told the sub-address.
        extension: bool,
    },
}

/// Decides what is done for `record`.
///
/// `home` is the home of the delivery identity, `directory` the recipient's; `libexec` is the
/// directory of helper programs.
///
/// # Errors
/// A specifier of the configuration or an alias has no value: a permanent failure.
pub fn plan(
    record: &JobRecord,
    home: &Path,
    directory: &str,
    libexec: &str,
) -> Result<Plan, FormatError> {
    let values = Values {
        sender: &record.sender,
        recipient: &record.recipient,
        destination: &record.destination,
        username: &record.user,
        directory,
        delimiter: record.delimiter.chars().next().unwrap_or(DELIMITER),
    };
    if !record.starts_programs()
        && let Some(plan) = direct(record, home, &values)?
    {
        return Ok(plan);
    }
    let template = command_line(&record.method, libexec);
    if template.len() > MAX_LINE {
        return Err(FormatError::TooLong);
    }
    let mut line = expand(&template, &values, Target::Shell)?;
    if let Some(wrapper) = &record.wrapper {
        line = wrap(wrapper, &values, &line)?;
    }
    Ok(Plan::Shell { line, extension: !is_from_alias(&record.method) })
}

/// Whether a plan needs to know the recipient's own home.
#[must_use]
pub fn needs_directory(record: &JobRecord) -> bool {
    let named =
        |text: &str| text.starts_with("~/") || text.to_ascii_lowercase().contains("user.directory");
    let method = match &record.method {
        Method::Command { line } | Method::Pipe { line } => named(line),
        Method::File { path } => named(path),
        Method::Lmtp { destination, .. } => named(destination),
        Method::Maildir { path, .. } => path.as_deref().is_some_and(named),
        Method::Mbox => false,
    };
    method || record.wrapper.as_deref().is_some_and(named)
}

/// What the worker does itself; `None` for what only a shell can do.
fn direct(
    record: &JobRecord,
    home: &Path,
    values: &Values<'_>,
) -> Result<Option<Plan>, FormatError> {
    let path = |template: &str| expand(template, values, Target::Path).map(PathBuf::from);
    Ok(Some(match &record.method {
        Method::File { path: file } => Plan::Append { path: path(file)? },
        Method::Lmtp { destination, recipient_address } => Plan::Lmtp {
            destination: expand(destination, values, Target::Path)?,
            recipient: if *recipient_address {
                record.destination.as_str().to_owned()
            } else {
                record.user.clone()
            },
        },
        Method::Maildir { path: None, junk } => {
            Plan::Maildir { path: home.join("Maildir"), junk: *junk }
        }
        Method::Maildir { path: Some(template), junk } => {
            Plan::Maildir { path: path(template)?, junk: *junk }
        }
        Method::Mbox => Plan::Mailbox,
        Method::Command { .. } | Method::Pipe { .. } => return Ok(None),
    }))
}

fn is_from_alias(method: &Method) -> bool {
    matches!(method, Method::File { .. } | Method::Pipe { .. })
}

fn command_line(method: &Method, libexec: &str) -> String {
    match method {
        Method::Command { line } => format!("{libexec}/mail.mda \"{line}\""),
        Method::File { path } => {
            format!("{libexec}/mail.mboxfile -f %{{mbox.from}} '{}'", path.replace('\'', "'\\''"))
        }
        Method::Lmtp { destination, recipient_address } => {
            let recipient = if *recipient_address { "-r" } else { "-u" };
            format!("{libexec}/mail.lmtp -d {destination} {recipient}")
        }
        Method::Maildir { path, junk } => {
            let junk = if *junk { " -j" } else { "" };
            match path {
                None => format!("{libexec}/mail.maildir{junk}"),
                Some(path) => match path.strip_prefix("~/") {
                    Some(below) => {
                        format!("{libexec}/mail.maildir{junk} \"%{{user.directory}}/{below}\"")
                    }
                    None => format!("{libexec}/mail.maildir{junk} \"{path}\""),
                },
            }
        }
        Method::Mbox => format!("{libexec}/mail.local -f %{{mbox.from}} %{{user.username}}"),
        Method::Pipe { line } => line.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ipc::message::worker::Identity;
    use crate::model::{Mailbox, MessageId, ReversePath};

    /// A job from `s@x` for `alice+Ext@d`, expanded to `alice@d`.
    pub fn record(method: Method) -> JobRecord {
        let programs = method.starts_programs();
        let mailbox = |text| Mailbox::parse(text).unwrap();
        JobRecord {
            job: 1,
            envelope: MessageId::new(1).unwrap().envelope(std::num::NonZeroU32::MIN),
            identity: Identity {
                account: "vmail".to_owned(),
                userbase: None,
                root_mailbox: false,
                programs,
            },
            user: "alice".to_owned(),
            userbase: None,
            method,
            overridden: false,
            wrapper: None,
            sender: ReversePath::from(mailbox("s@x")),
            recipient: mailbox("alice+Ext@d"),
            destination: mailbox("alice@d"),
            subaddress: "ext".to_owned(),
            delimiter: "+".to_owned(),
        }
    }

    fn planned(method: Method, wrapper: Option<&str>) -> Result<Plan, FormatError> {
        let wrapper = wrapper.map(str::to_owned);
        let record = JobRecord { wrapper, ..record(method) };
        plan(&record, Path::new("/home/vmail"), "/home/alice", "/lib")
    }

    fn shell(line: &str, extension: bool) -> Result<Plan, FormatError> {
        Ok(Plan::Shell { line: line.to_owned(), extension })
    }

    fn maildir(path: Option<&str>, junk: bool) -> Method {
        Method::Maildir { path: path.map(str::to_owned), junk }
    }

    #[test]
    fn what_needs_no_shell_is_done_by_the_worker() {
        // queue case 142: the identity's home without a path, the recipient's with `~/`
        let cases = [
            (None, false, "/home/vmail/Maildir"),
            (Some("~/Mail"), true, "/home/alice/Mail"),
            (Some("/m/%{rcpt.domain}/%{user.username}"), false, "/m/d/alice"),
        ];
        for (path, junk, expected) in cases {
            let expected = Plan::Maildir { path: expected.into(), junk };
            assert_eq!(planned(maildir(path, junk), None), Ok(expected));
        }
        let lmtp = |recipient_address| Method::Lmtp {
            destination: "/run/%{dest.domain}".to_owned(),
            recipient_address,
        };
        for (address, recipient) in [(true, "alice@d"), (false, "alice")] {
            let (destination, recipient) = ("/run/d".to_owned(), recipient.to_owned());
            assert_eq!(planned(lmtp(address), None), Ok(Plan::Lmtp { destination, recipient }));
        }
        let file = Method::File { path: "/a b".to_owned() };
        assert_eq!(planned(file, None), Ok(Plan::Append { path: "/a b".into() }));
        assert_eq!(planned(Method::Mbox, None), Ok(Plan::Mailbox));
    }

    #[test]
    fn the_others_are_the_documented_command_lines() {
        let line = |text: &str| text.to_owned();
        let lmtp = || Method::Lmtp { destination: line("h:24"), recipient_address: false };
        let cases = [
            (
                Method::Command { line: line("a '%{sender}'") },
                None,
                "/lib/mail.mda \"a 's@x'\"",
                true,
            ),
            (
                Method::Pipe { line: line("~/bin/x %{rcpt.user}") },
                None,
                "/home/alice/bin/x alice+Ext",
                false,
            ),
            (maildir(Some("~/$X"), true), None, "/lib/mail.maildir -j \"/home/alice/$X\"", true),
            (maildir(None, false), Some("nice %{mda}"), "nice /lib/mail.maildir", true),
            (lmtp(), Some("%{mda} -x"), "/lib/mail.lmtp -d h:24 -u -x", true),
            (
                Method::File { path: line("/it's") },
                Some("w %{mda}"),
                "w /lib/mail.mboxfile -f s@x '/it'\\''s'",
                false,
            ),
            (Method::Mbox, Some("w %{mda}"), "w /lib/mail.local -f s@x alice", true),
        ];
        for (method, wrapper, expected, extension) in cases {
            assert_eq!(planned(method, wrapper), shell(expected, extension));
        }
    }

    #[test]
    fn an_overridden_helper_is_run_as_documented() {
        // the queue page of the specification, 5.1
        let lmtp = |recipient_address| Method::Lmtp {
            destination: "/run/%{dest.domain}".to_owned(),
            recipient_address,
        };
        let cases = [
            (maildir(None, true), "/lib/mail.maildir -j", true),
            (maildir(Some("/m/%{rcpt.user}"), false), "/lib/mail.maildir \"/m/alice+Ext\"", true),
            (lmtp(false), "/lib/mail.lmtp -d /run/d -u", true),
            (lmtp(true), "/lib/mail.lmtp -d /run/d -r", true),
            (Method::Mbox, "/lib/mail.local -f s@x alice", true),
            (Method::File { path: "/f".to_owned() }, "/lib/mail.mboxfile -f s@x '/f'", false),
        ];
        for (method, line, extension) in cases {
            let record = JobRecord { overridden: true, ..record(method) };
            let planned = plan(&record, Path::new("/home/vmail"), "/home/alice", "/lib");
            assert_eq!(planned, shell(line, extension));
        }
    }

    #[test]
    fn lines_that_cannot_be_are_refused() {
        let command = |line: String| planned(Method::Command { line }, None);
        assert_eq!(command("%{nope}".to_owned()), Err(FormatError::Expansion));
        assert_eq!(command("x".repeat(2048)), Err(FormatError::TooLong));
    }
}
