//! Between dispatcher and lookup: recipients, names, routes of relays.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::TableId;
use crate::ipc::blob::Blob;
use crate::ipc::seal::Sealed;
use crate::model::dns::{DnsFailure, Exchange, Reverse};
use crate::model::envelope::{Route, Source};
use crate::model::{Mailbox, ReversePath};
use crate::table::Service;

/// Purpose under which the key of sealed routes is derived, by parent, lookup and queue.
pub const ROUTE_KEY: &str = "pillarbox route 1";

/// What is sealed for one envelope: a route, bound to one transaction.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SealedRoute {
    /// The transaction that asked.
    pub transaction: u64,
    /// Its sender.
    pub sender: ReversePath,
    /// What the rules decided.
    pub route: Route,
}

/// Facts of a session that rules may ask for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SessionFacts {
    /// Where the client connected from.
    pub source: Source,
    /// Argument of HELO or EHLO.
    pub helo: String,
    /// Name by reverse look-up; empty without one.
    pub reverse_name: String,
    /// Tag of the listener; empty without one.
    pub tag: String,
    /// Authenticated user.
    pub username: Option<String>,
    /// Whether the session counts as authenticated (local ones do).
    pub authenticated: bool,
    /// Whether the session is encrypted.
    pub secure: bool,
}

/// What the dispatcher asks lookup.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum DispatcherToLookup {
    /// What to call ourselves at one of our addresses (answered by [`LookupToDispatcher::Value`]).
    AddressName {
        /// Table of names by address: `hostnames` of a listener, `helo-src` of a relay.
        table: String,
        /// The address that was connected to, or that is connected from.
        address: IpAddr,
    },
    /// Check credentials (answered by [`LookupToDispatcher::Authenticated`]).
    Authenticate {
        /// Users with their passwords; the system's accounts without it.
        table: Option<TableId>,
        /// The user name as sent.
        user: Blob,
        /// The password as sent.
        password: Password,
        /// Where the client connected from.
        source: Source,
    },
    /// Name of a client (answered by [`LookupToDispatcher::Client`]).
    Client {
        /// Its address.
        address: IpAddr,
    },
    /// Whether a key is in a table, for a built-in filter (answered by
    /// [`LookupToDispatcher::Contains`]).
    Contains {
        /// The table.
        table: TableId,
        /// How keys are compared.
        service: Service,
        /// The key.
        key: String,
    },
    /// Mail exchangers of a domain, best first (answered by [`LookupToDispatcher::Exchanges`]).
    Exchanges {
        /// The domain, or an address literal.
        domain: String,
    },
    /// Who gets mail for a recipient (answered by [`LookupToDispatcher::Expanded`]).
    Expand {
        /// Number that binds the answer to the transaction; drawn by the dispatcher.
        transaction: u64,
        /// The session.
        session: SessionFacts,
        /// Sender of the transaction.
        sender: ReversePath,
        /// The recipient.
        recipient: Mailbox,
    },
    /// The sender to announce for forwarded mail, on a relay that rewrites it (answered by
    /// [`LookupToDispatcher::ForwardedSender`]).
    ForwardedSender {
        /// The sender as it came.
        sender: Mailbox,
        /// The recipient that it came for, whose domain the new sender has.
        recipient: Mailbox,
    },
    /// Addresses of a host (answered by [`LookupToDispatcher::Exchanges`], preference 0).
    Host {
        /// Its name, or an address literal.
        name: String,
    },
    /// The list in a table whose entries are used in turn, or the entry whose turn it is
    /// (answered by [`LookupToDispatcher::List`]).
    List {
        /// Name of the table.
        table: String,
        /// What the entries are for.
        purpose: ListPurpose,
    },
    /// The relay URL for a domain (answered by [`LookupToDispatcher::Value`]).
    RelayHost {
        /// Table of URLs by domain: `domain` of a relay.
        table: String,
        /// The destination's domain, in lower case.
        domain: String,
    },
    /// Which mechanisms the users of a table can log in with (answered by
    /// [`LookupToDispatcher::Mechanisms`]).
    Mechanisms {
        /// Users with their passwords or verifiers.
        table: TableId,
    },
    /// What came of a proof of SCRAM (answered by [`LookupToDispatcher::Authenticated`], which may
    /// also say that there were too many wrong ones).
    Proof {
        /// Where the client connected from.
        source: Source,
        /// Whether it was right.
        accepted: bool,
    },
    /// Whether a user may send from an address (answered by [`LookupToDispatcher::Sender`]).
    Sender {
        /// Addresses by user (service `mailaddrmap`).
        table: TableId,
        /// Who has logged in.
        user: String,
        /// The address of MAIL.
        sender: ReversePath,
    },
    /// The verifier of a user for SCRAM (answered by [`LookupToDispatcher::Verifier`]).
    Verifier {
        /// Users with their verifiers.
        table: TableId,
        /// The user name.
        user: String,
        /// Where the client connected from.
        source: Source,
    },
}

/// A password on its way to where it is checked. Erased when it is dropped, and never shown.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct Password(pub zeroize::Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The verdict on credentials.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Credentials {
    /// They are right.
    Accepted,
    /// They could not be checked now.
    Failed,
    /// Too many failures from this address.
    Limited,
    /// They are wrong.
    Rejected,
}

/// What the entries of a list are for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ListPurpose {
    /// URLs of hosts to relay to.
    RelayHost,
    /// Addresses to connect from.
    Source,
}

/// What lookup answers.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum LookupToDispatcher {
    /// The verdict on credentials.
    Authenticated(Credentials),
    /// Name of a client.
    Client(Reverse),
    /// Whether a key is there; `None` if the table could not be read.
    Contains(Option<bool>),
    /// Where mail goes.
    Exchanges(Result<Vec<Exchange>, DnsFailure>),
    /// What became of a recipient.
    Expanded(Expansion),
    /// The sender to announce; the same if it cannot be rewritten.
    ForwardedSender(Mailbox),
    /// The list, or one entry where a program takes turns; `None` if the table could not be read.
    List(Option<Vec<String>>),
    /// With what the users of a table can log in, besides PLAIN and LOGIN.
    Mechanisms {
        /// SCRAM-SHA-256: an entry of the table is a verifier.
        scram: bool,
    },
    /// Whether a sender is allowed; `None` if the table could not be read.
    Sender(Option<bool>),
    /// The value in a table; `None` without one, or if the table could not be read.
    Value(Option<String>),
    /// What there is to prove for a user.
    Verifier(VerifierAnswer),
}

/// What a client that wants to log in with SCRAM has to prove.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub enum VerifierAnswer {
    /// It could not be found out now.
    Failed,
    /// That it knows the password of this verifier, in the text form of RFC 5803; for a user who is
    /// not there an invented one. Erased when it is dropped, and never shown.
    Found(zeroize::Zeroizing<String>),
    /// Too many failures from this address.
    Limited,
    /// Nothing: there is a hash of another form, with which only a password can be compared. Some
    /// users who are not there get this answer too.
    Missing,
}

impl std::fmt::Debug for VerifierAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Failed => "Failed",
            Self::Found(_) => "Found(…)",
            Self::Limited => "Limited",
            Self::Missing => "Missing",
        })
    }
}

/// What became of a recipient.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum Expansion {
    /// One [`SealedRoute`] for each envelope, at least one.
    Accepted(Vec<Sealed>),
    /// The reply to give: code 4yz or 5yz and its text.
    Refused {
        /// The reply line, without line end.
        reply: String,
    },
}
