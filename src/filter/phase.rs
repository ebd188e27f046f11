//! The moments of a session at which filters decide.

use serde::{Deserialize, Serialize};

/// A moment at which a filter may be asked (5.5 of the SMTP page).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Phase {
    /// A client has connected; nothing was sent yet.
    Connect,
    /// HELO with a valid name.
    Helo,
    /// EHLO with a valid name.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH; the parameter has the credentials.
    Auth,
    /// MAIL, before its options are read.
    MailFrom,
    /// RCPT, before its options are read.
    RcptTo,
    /// DATA, or the first BDAT of a message.
    Data,
    /// A line of the message, still dot-stuffed.
    DataLine,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
    /// NOOP.
    Noop,
    /// The end of the content.
    Commit,
    /// HELP: may be registered, is never asked.
    Help,
    /// The command of that name: may be registered, is never asked.
    Wiz,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Helo,
        Self::Ehlo,
        Self::StartTls,
        Self::Auth,
        Self::MailFrom,
        Self::RcptTo,
        Self::Data,
        Self::DataLine,
        Self::Rset,
        Self::Quit,
        Self::Noop,
        Self::Commit,
        Self::Help,
        Self::Wiz,
    ];

    /// Its place in [`Self::ALL`] as one bit, lowest first.
    #[must_use]
    pub fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Its name in requests and registrations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::MailFrom => "mail-from",
            Self::RcptTo => "rcpt-to",
            Self::Data => "data",
            Self::DataLine => "data-line",
            Self::Rset => "rset",
            Self::Quit => "quit",
            Self::Noop => "noop",
            Self::Commit => "commit",
            Self::Help => "help",
            Self::Wiz => "wiz",
        }
    }

    /// Its name in the event `filter-response`.
    #[must_use]
    pub fn response_name(self) -> &'static str {
        match self {
            Self::Connect => "connected",
            Self::StartTls => "tls",
            other => other.name(),
        }
    }
}
