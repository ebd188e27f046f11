//! The typed tree of a configuration: what `smtpd.conf` means once it was read and checked.
//!
//! [`super::load`] makes it, *parent* sends it to the other roles, and nothing changes it later: a
//! reload makes a new one. Names of tables and actions are resolved to indices; each statement keeps
//! the [`Span`] where it stands, so that a later complaint can say where. Only what has an effect is
//! here: the parser refuses the rest of the language by name.
//!
//! Source: smtpd.conf(5).

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{Bounce, MdaLimits, Mta, Queue, SchedulerLimits, Smtp};

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

/// An address of one of this machine's interfaces.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// For a link-local IPv6 address: number and name of its interface.
    pub scope: Option<Scope>,
}

/// The interface that a link-local address belongs to.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Scope {
    /// The system's number of the interface.
    pub index: u32,
    /// Its name, as in `fe80::1%eth0`.
    pub name: String,
}

/// One source of sessions: an address that is listened on, or the local submission socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Listener {
    /// Where it stands; `None` for the socket listener that exists without being written.
    pub span: Option<Span>,
    /// What is listened on.
    pub endpoint: Endpoint,
    /// `tag`: what rules match on, empty without one; at most 32 bytes.
    pub tag: String,
    /// `hostname`: the name in the greeting, instead of [`Config::server_name`].
    pub hostname: Option<String>,
    /// `hostnames`: names by the listening address (service `addrname`), before `hostname`.
    pub hostnames: Option<TableId>,
    /// Whether DSN is offered; `no-dsn` switches it off.
    pub dsn: bool,
    /// `mask-src`: whether the Received line leaves the client out.
    pub mask_source: bool,
    /// Whether PIPELINING is offered; `no-pipelining` switches it off.
    pub pipelining: bool,
}

/// What a listener listens on.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Endpoint {
    /// A TCP socket.
    Network {
        /// The address to bind to.
        address: LocalAddress,
        /// The port, never 0.
        port: u16,
    },
    /// Local submission through the control socket, and what the server itself sends.
    Socket,
}

/// A way to handle mail that a rule selected.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Action {
    /// Its name; no two actions share one.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// `ttl`: how long an envelope may stay in the queue, instead of [`Queue::ttl`].
    pub ttl: Option<Duration>,
    /// What it does.
    pub kind: ActionKind,
}

/// What an action does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ActionKind {
    /// Delivers on this machine.
    Local(LocalAction),
    /// Sends to other servers.
    Relay(RelayAction),
}

/// Delivery on this machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LocalAction {
    /// How a message reaches its recipient.
    pub method: Method,
    /// `user`: the account that delivers for everyone, instead of each recipient's own.
    pub user: Option<String>,
    /// `alias` or `virtual`: what recipients stand for.
    pub mapping: Option<Mapping>,
    /// `userbase`: where recipients' accounts are found; [`TableId::GETPWNAM`] without the option.
    pub userbase: TableId,
    /// `wrapper`: the command around the delivery command.
    pub wrapper: Option<WrapperId>,
}

/// How a message reaches its local recipient.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Method {
    /// `expand-only`: none; an alias or `.forward` must have named a delivery.
    ExpandOnly,
    /// `forward-only`: none; everything must end as addresses elsewhere.
    ForwardOnly,
    /// An LMTP server: `host:port` or the path of a socket, with format specifiers.
    Lmtp {
        /// The server.
        destination: String,
        /// `rcpt-to`: names the expanded recipient address, not the user.
        recipient_address: bool,
    },
    /// A Maildir.
    Maildir {
        /// Its path with format specifiers; `Maildir` in the home without one. A leading `~/` is
        /// already `%{user.directory}/`.
        path: Option<String>,
        /// `junk`: spam goes into the folder `.Junk`.
        junk: bool,
    },
    /// The user's file in the system's mail spool.
    Mbox,
    /// A shell command, with format specifiers.
    Mda {
        /// The command as written.
        command: String,
    },
}

/// What recipients of a local action stand for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Mapping {
    /// `alias`: by user name.
    Alias(TableId),
    /// `virtual`: by user and domain, and who is not in it does not exist.
    Virtual(TableId),
}

/// Sending to other servers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RelayAction {
    /// `host`: smart hosts, used in turn (service `relayhost`), instead of the domain's exchangers.
    pub host: Option<TableId>,
    /// `src`: addresses to connect from, used in turn (service `source`).
    pub source: Option<TableId>,
    /// `helo`: the name in EHLO, instead of [`Config::server_name`].
    pub helo: Option<String>,
    /// `mail-from`: parts that replace those of the sender, unless it is null.
    pub mail_from: Option<SenderRewrite>,
}

/// Parts of the envelope sender that a relay action replaces.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SenderRewrite {
    /// The new local part.
    pub local: Option<String>,
    /// The new domain.
    pub domain: Option<String>,
}

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

/// A command around delivery commands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wrapper {
    /// Its name.
    pub name: String,
    /// The command; `%{mda}` in it is the delivery command.
    pub command: String,
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

impl LocalAddress {
    /// The socket address of this address with `port`, scope included.
    #[must_use]
    pub fn with_port(&self, port: u16) -> SocketAddr {
        let index = self.scope.as_ref().map_or(0, |scope| scope.index);
        match self.address {
            IpAddr::V4(_) => SocketAddr::new(self.address, port),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, index).into(),
        }
    }
}

impl From<IpAddr> for LocalAddress {
    fn from(address: IpAddr) -> Self {
        Self { address, scope: None }
    }
}

impl std::fmt::Display for LocalAddress {
    /// The form of logs, tables and rules: IPv6 in brackets, with its scope.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.address, &self.scope) {
            (IpAddr::V4(address), _) => write!(f, "{address}"),
            (IpAddr::V6(address), None) => write!(f, "[{address}]"),
            (IpAddr::V6(address), Some(scope)) => write!(f, "[{address}%{}]", scope.name),
        }
    }
}
