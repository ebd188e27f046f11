//! Between dispatcher and worker, and the job that a worker does.
//!
//! The record of a job is sealed by the queue with the key of the worker's identity: the dispatcher
//! carries it and can neither make nor change one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{LocalAction, Method as ConfigMethod};
use crate::ipc::blob::Blob;
use crate::ipc::seal::{Key, Sealed};
use crate::model::envelope::Exec;
use crate::model::outcome::Report;
use crate::model::{EnvelopeId, Mailbox, ReversePath};

/// Purpose under which the job key is derived from the master key, by parent and queue.
pub const JOB_KEY: &str = "pillarbox job 1";

/// The key that seals jobs for workers of `identity`.
#[must_use]
pub fn identity_key(job_key: &Key, identity: &Identity) -> Key {
    let mailbox = if identity.root_mailbox { "mailbox of root" } else { "user" };
    let programs = if identity.programs { "programs" } else { "files" };
    // No name holds a NUL byte.
    let userbase = identity.userbase.as_deref().unwrap_or_default();
    job_key.derive(&format!("{mailbox} {programs} {}\0{userbase}", identity.account))
}

/// For whom a worker works. One worker serves all jobs of its identity.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Identity {
    /// Name of the account, looked up when the worker is started.
    pub account: String,
    /// The table that it is looked up in; `None` for the accounts of the system.
    pub userbase: Option<String>,
    /// The one exception: root's mailbox, served by a worker under the daemon's own user.
    pub root_mailbox: bool,
    /// Whether its jobs start programs ([`JobRecord::starts_programs`]) or need the system's look-up
    /// of names ([`Method::looks_up_names`]). A worker that does neither is confined.
    pub programs: bool,
}

/// One delivery: what the queue tells the worker, past the dispatcher.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JobRecord {
    /// Number of the job, unlike every earlier one of this queue.
    pub job: u64,
    /// The envelope to deliver.
    pub envelope: EnvelopeId,
    /// The identity it is delivered under.
    pub identity: Identity,
    /// The recipient's user name: `USER` and `%{user.username}`.
    pub user: String,
    /// The table in which the recipient is found; `None` for the accounts of the system.
    pub userbase: Option<String>,
    /// How.
    pub method: Method,
    /// Whether an administrator has put another program in place of [`Method::helper`].
    pub overridden: bool,
    /// Text of the action's wrapper, in which `%{mda}` stands for the command.
    pub wrapper: Option<String>,
    /// Sender of the envelope.
    pub sender: ReversePath,
    /// The address given in RCPT.
    pub recipient: Mailbox,
    /// The address after expansion.
    pub destination: Mailbox,
    /// Text after the sub-address delimiter; empty without one.
    pub subaddress: String,
    /// Delimiter of sub-addresses, for the modifier `strip`.
    pub delimiter: String,
}

/// How a message is delivered locally.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Method {
    /// To a command's standard input, through the shell: the `mda` action.
    Command {
        /// The command, with format specifiers.
        line: String,
    },
    /// Appended to a file that an alias names.
    File {
        /// Absolute path.
        path: String,
    },
    /// To an LMTP server.
    Lmtp {
        /// `host:port` or the path of a socket.
        destination: String,
        /// Whether RCPT names the recipient's address instead of the user.
        recipient_address: bool,
    },
    /// Into a Maildir.
    Maildir {
        /// Path with format specifiers; `None` for the user's own `Maildir`.
        path: Option<String>,
        /// Whether marked spam goes to the junk folder.
        junk: bool,
    },
    /// Appended to the user's system mailbox.
    Mbox,
    /// To a command that an alias or `.forward` names, through the shell.
    Pipe {
        /// The command, with format specifiers.
        line: String,
    },
}

impl JobRecord {
    /// Whether the delivery takes the documented shell form: a command, an action with a wrapper,
    /// a helper program that is not ours, or a path that only a shell can read.
    #[must_use]
    pub fn starts_programs(&self) -> bool {
        self.wrapper.is_some() || self.overridden || self.method.starts_programs()
    }
}

/// Helper programs that may be overridden: the others run in any case.
pub const HELPERS: [&str; 4] = ["mail.lmtp", "mail.local", "mail.maildir", "mail.mboxfile"];

impl Method {
    /// How `action` delivers: by what an alias named, or else by its own method. `None` if it only
    /// forwards or expands, and nothing was named.
    #[must_use]
    pub fn of(action: &LocalAction, exec: Option<&Exec>) -> Option<Self> {
        Some(match (exec, &action.method) {
            (None, ConfigMethod::ExpandOnly | ConfigMethod::ForwardOnly) => return None,
            (Some(Exec::Command(line)), _) => Self::Pipe { line: line.clone() },
            (Some(Exec::File(path)), _) => Self::File { path: path.clone() },
            (None, ConfigMethod::Lmtp { destination, recipient_address }) => Self::Lmtp {
                destination: destination.clone(),
                recipient_address: *recipient_address,
            },
            (None, ConfigMethod::Maildir { path, junk }) => {
                Self::Maildir { path: path.clone(), junk: *junk }
            }
            (None, ConfigMethod::Mbox) => Self::Mbox,
            (None, ConfigMethod::Mda { command }) => Self::Command { line: command.clone() },
        })
    }

    /// The helper program whose work a worker does itself, unless it is overridden.
    #[must_use]
    pub const fn helper(&self) -> Option<&'static str> {
        match self {
            Self::Command { .. } | Self::Pipe { .. } => None,
            Self::File { .. } => Some("mail.mboxfile"),
            Self::Lmtp { .. } => Some("mail.lmtp"),
            Self::Maildir { .. } => Some("mail.maildir"),
            Self::Mbox => Some("mail.local"),
        }
    }

    /// As [`JobRecord::starts_programs`], for an action without a wrapper and with our helpers.
    #[must_use]
    pub fn starts_programs(&self) -> bool {
        let needs_shell = |text: &str| text.contains(['$', '`', '\\']);
        match self {
            Self::Command { .. } | Self::Pipe { .. } => true,
            Self::Lmtp { destination, .. } => needs_shell(destination),
            Self::Maildir { path, .. } => path.as_deref().is_some_and(needs_shell),
            Self::File { .. } | Self::Mbox => false,
        }
    }
}

impl Method {
    /// Whether it needs the address of a host that is given by name. What the system's look-up
    /// reads and whom it asks is the system's matter, so a confined worker cannot do it; `localhost`
    /// and addresses need none.
    #[must_use]
    pub fn looks_up_names(&self) -> bool {
        let Self::Lmtp { destination, .. } = self else { return false };
        if destination.starts_with(['/', '[']) || destination.parse::<IpAddr>().is_ok() {
            return false;
        }
        let host = destination.split_once(':').map_or(destination.as_str(), |(host, _)| host);
        !host.eq_ignore_ascii_case("localhost") && host.parse::<IpAddr>().is_err()
    }
}

/// What the dispatcher says to a worker.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum DispatcherToWorker {
    /// Do a job (request; answered by [`WorkerToDispatcher::Outcome`]).
    ///
    /// Carries a descriptor, open for reading, exactly if the body is [`JobBody::Descriptor`].
    Deliver {
        /// A [`JobRecord`].
        ticket: Sealed,
        /// The message.
        body: JobBody,
    },
    /// A piece of the body announced by the request with this number, in order (notice).
    Piece {
        /// Job that it belongs to, as in the ticket.
        job: u64,
        /// The bytes.
        bytes: Blob,
    },
}

/// How a message reaches a worker. Lines end in LF.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum JobBody {
    /// In a file; read from its beginning with positioned reads.
    Descriptor {
        /// Length of the message in bytes.
        size: u64,
    },
    /// Here.
    Inline(Blob),
    /// In notices that follow.
    Pieces {
        /// Length of the message in bytes, at most [`crate::model::limits::BODY_IN_LOG`].
        size: u64,
    },
}

/// What a worker says to the dispatcher.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum WorkerToDispatcher {
    /// What came of a job (reply). Its text is at most [`crate::model::limits::WORKER_ANSWER`].
    Outcome(Report),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_other_hosts_are_looked_up() {
        let cases = [
            ("/var/run/lmtp", false),
            ("localhost", false),
            ("LocalHost:24", false),
            ("127.0.0.1:24", false),
            ("::1", false),
            ("[::1]:24", false),
            ("[IPv6:::1]:24", false),
            ("dovecot.example.org", true),
            ("dovecot:24", true),
            ("%{user.username}:24", true),
        ];
        for (destination, expected) in cases {
            let destination = destination.to_owned();
            let method = Method::Lmtp { destination, recipient_address: false };
            assert_eq!(method.looks_up_names(), expected, "{method:?}");
        }
        assert!(!Method::Mbox.looks_up_names());
    }
}
