//! Filters in the tree of a configuration: programs and conditions in the path of a session.

use serde::{Deserialize, Serialize};

use super::{Span, TableMatch};

/// Index of a process in [`super::Config::processes`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ProcessId(pub u32);

/// Index of a filter in [`super::Config::filters`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct FilterId(pub u32);

/// `proc`, or what `proc-exec` starts: a program that runs beside the server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Process {
    /// Its name; no two share one.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// The command line. One that does not begin with `/` is below the directory of helpers.
    pub command: String,
    /// `user`, instead of the daemon's.
    pub user: Option<String>,
    /// `group`, instead of the user's.
    pub group: Option<String>,
    /// `chroot`: its root directory.
    pub chroot: Option<String>,
}

/// `filter`, or a chain written as an argument.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Filter {
    /// Its name: `<dynchain:N>`, N in hexadecimal, for one written as an argument.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// What it does.
    pub kind: FilterKind,
}

/// What a filter does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FilterKind {
    /// `phase`: decides by itself.
    BuiltIn(BuiltInFilter),
    /// `chain`: these one after the other; none of them is a chain, and none is there twice.
    Chain(Vec<FilterId>),
    /// `proc-exec`: asks a program of its own.
    OwnProcess(ProcessId),
    /// `proc`: asks a program that others may ask too.
    Process(ProcessId),
}

/// A condition and what happens when it holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuiltInFilter {
    /// When it is looked at.
    pub phase: FilterPhase,
    /// `!`: holds when the condition does not.
    pub negated: bool,
    /// The condition.
    pub condition: FilterCondition,
    /// What happens.
    pub decision: FilterDecision,
}

/// When a built-in filter is looked at, in the order of a session.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum FilterPhase {
    /// A client has connected.
    Connect,
    /// HELO.
    Helo,
    /// EHLO.
    Ehlo,
    /// MAIL.
    MailFrom,
    /// RCPT.
    RcptTo,
    /// DATA.
    Data,
    /// The end of the content.
    Commit,
}

/// What a built-in filter looks at.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FilterCondition {
    /// Whether the session has logged in, and as whom.
    Auth(Option<TableMatch>),
    /// Whether name and address of the client agree.
    Fcrdns,
    /// The name that the client gave.
    Helo(TableMatch),
    /// The sender; nothing for the null sender.
    MailFrom(TableMatch),
    /// The recipient.
    RcptTo(TableMatch),
    /// Whether the client's address has a name, and which.
    Rdns(Option<TableMatch>),
    /// The client's address.
    Src(TableMatch),
}

/// What a built-in filter does when its condition holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FilterDecision {
    /// No further filter is asked in this phase.
    Bypass,
    /// The session ends with this reply.
    Disconnect(String),
    /// The message is marked as spam.
    Junk,
    /// The command is refused with this reply.
    Reject(String),
    /// An event with this text is reported.
    Report(String),
    /// The parameter of the command becomes this text.
    Rewrite(String),
}

impl FilterPhase {
    /// All phases.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Helo,
        Self::Ehlo,
        Self::MailFrom,
        Self::RcptTo,
        Self::Data,
        Self::Commit,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Ehlo => "ehlo",
            Self::MailFrom => "mail-from",
            Self::RcptTo => "rcpt-to",
            Self::Data => "data",
            Self::Commit => "commit",
        }
    }
}
