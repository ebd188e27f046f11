//! The envelope: who a message is from, to whom one copy of it goes, and what became of it so far.
//!
//! An envelope has three parts of different origin. [`Origin`] is what the session that accepted
//! the message knew. [`Route`] is what the rules decided for one recipient; it alone may name a
//! user or a command, and travels under a seal ([`crate::ipc::seal`]). [`Progress`] is what the
//! attempts so far brought about.
//!
//! Text form and field names for `smtpctl show envelope`: the queue page of the specification, 1.6.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::id::EnvelopeId;
use super::mailbox::{Mailbox, ReversePath};
use super::outcome::EnhancedStatus;

/// One copy of a message on its way to one destination.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Envelope {
    /// Its number.
    pub id: EnvelopeId,
    /// What the accepting session knew.
    pub origin: Origin,
    /// What the rules decided.
    pub route: Route,
    /// What the client asked to be told about this recipient.
    pub dsn: RecipientDsn,
    /// What happened so far.
    pub progress: Progress,
}

/// Facts of the session and transaction in which a message was accepted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Origin {
    /// Sender of the message; delivery reports go there.
    pub sender: ReversePath,
    /// Name by which we greeted: HELO name of reports.
    pub smtp_name: String,
    /// Argument of the client's HELO or EHLO.
    pub helo: String,
    /// The client's name by reverse look-up; `<unknown>` without one.
    pub hostname: String,
    /// Authenticated user; empty without one.
    pub username: String,
    /// Where the client connected from.
    pub source: Source,
    /// Tag of the listener; empty without one.
    pub tag: String,
    /// Whether the session was authenticated or local.
    pub authenticated: bool,
    /// How much of the message a failure report returns (RFC 3461, section 4.3).
    pub ret: Option<Ret>,
    /// The client's identifier of the transaction, as received (RFC 3461, section 4.4).
    pub envid: Option<String>,
    /// Whether the message was handed in with SMTPUTF8.
    pub smtputf8: Smtputf8,
}

/// Whether a message was handed in with SMTPUTF8 (RFC 6531), which a server must offer to get what
/// is not ASCII of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Smtputf8 {
    /// It was not: addresses are in ASCII, and headers count as if they were.
    #[default]
    Absent,
    /// It was, and its headers are in ASCII.
    Addresses,
    /// It was, and its headers are not in ASCII.
    Headers,
}

impl Envelope {
    /// Whether a server must offer SMTPUTF8 to get this envelope from `sender`: for its addresses
    /// also where the client had no need of it, but the `mail-from` of an action brings one in.
    #[must_use]
    pub fn needs_smtputf8(&self, sender: &ReversePath) -> bool {
        self.origin.smtputf8 == Smtputf8::Headers
            || !sender.as_str().is_ascii()
            || !self.route.destination.as_str().is_ascii()
    }
}

/// Where a client connected from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Source {
    /// An address, without port.
    Ip(IpAddr),
    /// The control socket: `sendmail`, or a report of our own.
    Local,
}

impl std::fmt::Display for Source {
    /// `local`, a dotted IPv4 address, or an IPv6 address in brackets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// How much of the message a failure report returns.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

/// What the rules decided for one recipient. Made by the lookup role alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Route {
    /// The address given in RCPT.
    pub recipient: Mailbox,
    /// The address after aliases and virtual domains.
    pub destination: Mailbox,
    /// Name of the action in the configuration.
    pub action: String,
    /// How it is delivered.
    pub kind: DeliveryKind,
    /// Result of an expansion that rules treat as local.
    pub internal: bool,
}

/// How an envelope is delivered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum DeliveryKind {
    /// A delivery report about this envelope, to its sender.
    Bounce(BounceKind),
    /// To a local mailbox or command.
    Local(LocalDelivery),
    /// To another server.
    Relay,
}

/// A local delivery.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LocalDelivery {
    /// The user looked up for it, lower-cased as the tables have it.
    pub user: String,
    /// What an alias named instead of the action's own method.
    pub exec: Option<Exec>,
    /// Text after the sub-address delimiter, lower-cased; empty without one.
    pub subaddress: String,
}

/// What an alias or a `.forward` named instead of the action's own method.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Exec {
    /// `|command`
    Command(String),
    /// `/file`
    File(String),
}

/// What a delivery report says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum BounceKind {
    /// Not delivered after `delay` seconds; tried for `ttl` seconds in all.
    Delayed {
        /// Seconds of the warning interval that passed.
        delay: u64,
        /// Seconds that the message stays in the queue in all.
        ttl: u64,
    },
    /// Delivered.
    Delivered,
    /// Given up.
    Failed,
    /// Handed to a server that does not report further.
    Relayed,
}

/// What the client asked to be told about one recipient (RFC 3461, sections 4.1 and 4.2).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RecipientDsn {
    /// When to report.
    pub notify: Notify,
    /// The original recipient, `type;xtext`, as received.
    pub orcpt: Option<String>,
}

/// When to report, as a set; empty means that the client did not say.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Notify(pub u8);

impl Notify {
    /// `SUCCESS`
    pub const SUCCESS: u8 = 1;
    /// `FAILURE`
    pub const FAILURE: u8 = 2;
    /// `DELAY`
    pub const DELAY: u8 = 4;
    /// `NEVER`
    pub const NEVER: u8 = 8;

    /// Whether all of `bits` are in the set.
    #[must_use]
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// Whether a failure is reported: asked for, or nothing said (RFC 3461, section 4.1).
    #[must_use]
    pub fn wants_failure(self) -> bool {
        self.0 == 0 || self.has(Self::FAILURE)
    }

    /// Whether a delay is reported: asked for, or nothing said.
    #[must_use]
    pub fn wants_delay(self) -> bool {
        self.0 == 0 || self.has(Self::DELAY)
    }
}

/// What the attempts so far brought about. Times are seconds since 1970, 0 for never.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Progress {
    /// When the envelope was made: the base of retries and expiry.
    pub created: i64,
    /// When the last attempt ended.
    pub last_try: i64,
    /// Threshold of the last delay warning.
    pub last_bounce: i64,
    /// Number of temporary failures.
    pub retries: u16,
    /// Text of the last failure, at most [`super::limits::STATUS_TEXT`] bytes.
    pub error: String,
    /// Class and detail of the last status.
    pub status: Option<EnhancedStatus>,
}
