//! The typed tree of a configuration: what `smtpd.conf` means once it was read and checked.
//!
//! [`super::load`] makes it, *parent* sends it to the other roles, and nothing changes it later: a
//! reload makes a new one. Names of tables, actions, filters and certificates are resolved to indices;
//! each statement keeps the [`Span`] where it stands, so that a later complaint can say where.
//!
//! Source: smtpd.conf(5).

mod action;
mod filter;
mod listener;
mod tls;

use serde::{Deserialize, Serialize};

pub use self::action::*;
pub use self::filter::*;
pub use self::listener::*;
pub use self::tls::*;
use super::limits::{Bounce, MdaLimits, Mta, Queue, SchedulerLimits, Smtp, Srs};

/// A whole configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Config {
    /// Names of the files that were read, main file first; [`Span::file`] counts into it.
    pub sources: Vec<String>,
    /// The name of this server, for greetings and `for local`.
    pub server_name: String,
    /// Addresses of this machine's interfaces when the configuration was read.
    pub local_addresses: Vec<LocalAddress>,
    /// Tables, the built-in ones first; [`TableId`] counts into it.
    pub tables: Vec<TableDecl>,
    /// Where sessions come from. Exactly one of them is [`Endpoint::Socket`], the first.
    pub listeners: Vec<Listener>,
    /// Actions in the order of the file; [`ActionId`] counts into it.
    pub actions: Vec<Action>,
    /// Rules in the order in which they are tried; never empty.
    pub rules: Vec<Rule>,
    /// `pki`: certificates with their keys; [`PkiId`] counts into it.
    pub pki: Vec<Pki>,
    /// `ca`: authorities; [`AuthorityId`] counts into it.
    pub authorities: Vec<Authority>,
    /// `proc` and `proc-exec`: programs beside the server; [`ProcessId`] counts into it.
    pub processes: Vec<Process>,
    /// `filter`: filters in the order of the file; [`FilterId`] counts into it.
    pub filters: Vec<Filter>,
    /// `admd`: who vouches for what filters find, instead of [`Self::server_name`].
    pub admd: Option<String>,
    /// Commands around delivery commands (`mda wrapper`); [`WrapperId`] counts into it.
    pub wrappers: Vec<Wrapper>,
    /// `smtp`: limits of sessions.
    pub smtp: Smtp,
    /// `queue`.
    pub queue: Queue,
    /// `bounce`.
    pub bounce: Bounce,
    /// `mta`: outgoing connections.
    pub mta: Mta,
    /// `mda limit`: local deliveries.
    pub mda: MdaLimits,
    /// `scheduler limit`.
    pub scheduler: SchedulerLimits,
    /// `srs`: senders of forwarded mail.
    pub srs: Srs,
}

/// Where something stands in the configuration.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Span {
    /// Index into [`Config::sources`].
    pub file: u16,
    /// Line, from 1.
    pub line: u32,
    /// Column of the first byte, from 1.
    pub column: u32,
    /// Bytes in that line.
    pub length: u32,
}

/// Index of a table in [`Config::tables`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct TableId(pub u32);

/// Index of an action in [`Config::actions`]. Valid for one configuration only: envelopes keep the
/// action's name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ActionId(pub u32);

/// Index of a wrapper in [`Config::wrappers`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct WrapperId(pub u32);

/// A `match` line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rule {
    /// Where it stands.
    pub span: Span,
    /// `tag`, of the listener.
    pub tag: Option<Criterion<TableMatch>>,
    /// `from`; [`Source::Local`] when it is not written.
    pub from: Criterion<Source>,
    /// `for`; [`Destination::Local`] when it is not written.
    pub to: Criterion<Destination>,
    /// `helo`.
    pub helo: Option<Criterion<TableMatch>>,
    /// `auth`.
    pub auth: Option<Criterion<Login>>,
    /// `tls`: whether the session is encrypted.
    pub tls: Option<Criterion<()>>,
    /// `mail-from`.
    pub mail_from: Option<Criterion<TableMatch>>,
    /// `rcpt-to`.
    pub rcpt_to: Option<Criterion<TableMatch>>,
    /// What happens when all of them hold.
    pub decision: Decision,
}

/// One criterion of a rule.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Criterion<T> {
    /// `!`: holds when the test does not.
    pub negated: bool,
    /// The test.
    pub test: T,
}

/// A key is looked for in a table.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TableMatch {
    /// The table.
    pub table: TableId,
    /// `regex`: its entries are regular expressions.
    pub regex: bool,
}

/// Where a session comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Source {
    /// Any client.
    Any,
    /// This machine, and addresses that an expansion produced.
    Local,
    /// `rdns`: the client's name, or that it has one.
    Name(Option<TableMatch>),
    /// The local submission socket.
    Socket,
    /// `src`: the client's address.
    Src(TableMatch),
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Destination {
    /// Any domain.
    Any,
    /// The recipient's domain.
    Domain(TableMatch),
    /// A name or address of this machine.
    Local,
}

/// Who a session has logged in as.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Login {
    /// Anyone.
    Any,
    /// A user in a table.
    User(TableMatch),
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Decision {
    /// The recipient is accepted, if the action can take it.
    Action(ActionId),
    /// The recipient is refused.
    Reject,
}

/// A table as declared; [`crate::table`] holds contents.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TableDecl {
    /// Its name: `<dynamic:N>` for one written as an argument, in angle brackets for a built-in one.
    pub name: String,
    /// Where it stands; `None` for a built-in one.
    pub span: Option<Span>,
    /// Where its contents come from.
    pub source: TableSource,
    /// What it holds. A file's is that of its first reading, and is kept when it is read again.
    pub kind: TableKind,
}

/// Where a table's contents come from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TableSource {
    /// Made from [`Config::server_name`] and [`Config::local_addresses`].
    BuiltIn(BuiltIn),
    /// `db:`: a map file with this path, as makemap(8) writes it.
    Db(String),
    /// A file with this path.
    File(String),
    /// Entries written in the configuration.
    Inline(Vec<TableEntry>),
    /// A program that answers over a pipe (smtpd-tables(7)).
    Program {
        /// What follows `table-` in the name of the program.
        backend: String,
        /// A path that the program is given, usually that of its own configuration.
        parameter: Option<String>,
    },
    /// The accounts of the system.
    Users,
}

/// The tables that every configuration has, besides the system's accounts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum BuiltIn {
    /// `<anydestination>`: all domains.
    AnyDestination,
    /// `<anyhost>`: all clients.
    AnyHost,
    /// `<localhost>`: clients on this machine.
    LocalHost,
    /// `<localnames>`: names and addresses of this machine.
    LocalNames,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TableKind {
    /// Asked key by key; it has no listing of its own.
    Dynamic,
    /// Keys alone.
    List,
    /// Keys with values.
    Mapping,
    /// Nothing yet (`table t static`, or a file that could not be read).
    Undecided,
}

/// One entry of a table, as written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TableEntry {
    /// The key.
    pub key: String,
    /// The value, in mappings.
    pub value: Option<String>,
}

impl Config {
    /// The table with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn table(&self, id: TableId) -> Option<&TableDecl> {
        self.tables.get(id.0 as usize)
    }

    /// The table with this name.
    #[must_use]
    pub fn table_named(&self, name: &str) -> Option<TableId> {
        index_of(&self.tables, |table| table.name == name).map(TableId)
    }

    /// The action with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn action(&self, id: ActionId) -> Option<&Action> {
        self.actions.get(id.0 as usize)
    }

    /// The action with this name, as an envelope keeps it.
    #[must_use]
    pub fn action_named(&self, name: &str) -> Option<ActionId> {
        index_of(&self.actions, |action| action.name == name).map(ActionId)
    }

    /// The certificate with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn pki(&self, id: PkiId) -> Option<&Pki> {
        self.pki.get(id.0 as usize)
    }

    /// The authority with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn authority(&self, id: AuthorityId) -> Option<&Authority> {
        self.authorities.get(id.0 as usize)
    }

    /// The authority with this name; case does not count.
    #[must_use]
    pub fn authority_named(&self, name: &str) -> Option<AuthorityId> {
        index_of(&self.authorities, |authority| authority.name.eq_ignore_ascii_case(name))
            .map(AuthorityId)
    }

    /// The process with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(id.0 as usize)
    }

    /// The process with this name.
    #[must_use]
    pub fn process_named(&self, name: &str) -> Option<ProcessId> {
        index_of(&self.processes, |process| process.name == name).map(ProcessId)
    }

    /// The filter with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn filter(&self, id: FilterId) -> Option<&Filter> {
        self.filters.get(id.0 as usize)
    }

    /// The filter with this name.
    #[must_use]
    pub fn filter_named(&self, name: &str) -> Option<FilterId> {
        index_of(&self.filters, |filter| filter.name == name).map(FilterId)
    }

    /// The wrapper with this index; `None` for an index of another configuration.
    #[must_use]
    pub fn wrapper(&self, id: WrapperId) -> Option<&Wrapper> {
        self.wrappers.get(id.0 as usize)
    }

    /// The wrapper with this name.
    #[must_use]
    pub fn wrapper_named(&self, name: &str) -> Option<WrapperId> {
        index_of(&self.wrappers, |wrapper| wrapper.name == name).map(WrapperId)
    }
}

fn index_of<T>(all: &[T], wanted: impl FnMut(&T) -> bool) -> Option<u32> {
    all.iter().position(wanted).and_then(|index| u32::try_from(index).ok())
}

impl TableId {
    /// `<localnames>`.
    pub const LOCALNAMES: Self = Self(0);
    /// `<localhost>`.
    pub const LOCALHOST: Self = Self(1);
    /// `<anyhost>`.
    pub const ANYHOST: Self = Self(2);
    /// `<anydestination>`.
    pub const ANYDESTINATION: Self = Self(3);
    /// `<getpwnam>`: the accounts of the system.
    pub const GETPWNAM: Self = Self(4);
}
