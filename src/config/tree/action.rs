//! Actions in the tree of a configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AuthorityId, Ciphers, FilterId, PkiId, Protocols, RelayTls, Span, TableId, WrapperId};

/// A way to handle mail that a rule selected.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Action {
    /// Its name; no two actions share one.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// `ttl`: how long an envelope may stay in the queue, instead of [`crate::config::Queue::ttl`].
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
    /// At most one of `host`, `domain` and `backup` is given.
    pub host: Option<TableId>,
    /// `domain`: a smart host by the destination's domain (service `relayhost`).
    pub domain: Option<TableId>,
    /// `backup`: only exchangers that are better than this server.
    pub backup: Option<Backup>,
    /// `src`: addresses to connect from, used in turn (service `source`).
    pub source: Option<TableId>,
    /// `helo`: the name in EHLO, instead of [`crate::config::Config::server_name`].
    pub helo: Option<String>,
    /// `mail-from`: parts that replace those of the sender, unless it is null.
    pub mail_from: Option<SenderRewrite>,
    /// `helo-src`: the name in EHLO by the address to connect from (service `addrname`), before
    /// `helo`; only where [`Self::source`] is given.
    pub helo_source: Option<TableId>,
    /// `tls`: no delivery without encryption.
    pub tls: Option<RelayTls>,
    /// `auth`: user and password by the label of a smart host (service `credentials`).
    pub auth: Option<TableId>,
    /// `pki`: the certificate to show.
    pub pki: Option<PkiId>,
    /// `ca`: whom certificates are checked against, instead of the system's authorities.
    pub authority: Option<AuthorityId>,
    /// `ciphers`, instead of [`crate::config::Smtp::ciphers`].
    pub ciphers: Option<Ciphers>,
    /// `protocols`, instead of all.
    pub protocols: Option<Protocols>,
    /// `srs`: the sender of forwarded mail is rewritten.
    pub srs: bool,
    /// `filter`: what outgoing sessions go through.
    pub filter: Option<FilterId>,
}

/// `backup`: mail goes to exchangers that the domain prefers to this server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Backup {
    /// `mx`: the name that this server has among them, instead of the one in its greeting.
    pub name: Option<String>,
}

/// Parts of the envelope sender that a relay action replaces.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SenderRewrite {
    /// The new local part.
    pub local: Option<String>,
    /// The new domain.
    pub domain: Option<String>,
}

/// A command around delivery commands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wrapper {
    /// Its name.
    pub name: String,
    /// The command; `%{mda}` in it is the delivery command.
    pub command: String,
}
