//! Between dispatcher and lookup: recipients, names, routes of relays.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ipc::seal::Sealed;
use crate::model::dns::{DnsFailure, Exchange, Reverse};
use crate::model::envelope::{Route, Source};
use crate::model::{Mailbox, ReversePath};

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
    /// Name of a client (answered by [`LookupToDispatcher::Client`]).
    Client {
        /// Its address.
        address: IpAddr,
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
    /// Addresses of a host (answered by [`LookupToDispatcher::Exchanges`], preference 0).
    Host {
        /// Its name, or an address literal.
        name: String,
    },
    /// Name by which a listener greets (answered by [`LookupToDispatcher::Name`]).
    ListenerName {
        /// Table of names, by the address that was connected to.
        table: String,
        /// That address.
        address: IpAddr,
    },
    /// The list in a table whose entries are used in turn, or the entry whose turn it is
    /// (answered by [`LookupToDispatcher::List`]).
    List {
        /// Name of the table.
        table: String,
        /// What the entries are for.
        purpose: ListPurpose,
    },
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
    /// Name of a client.
    Client(Reverse),
    /// Where mail goes.
    Exchanges(Result<Vec<Exchange>, DnsFailure>),
    /// What became of a recipient.
    Expanded(Expansion),
    /// The list, or one entry where a program takes turns; `None` if the table could not be read.
    List(Option<Vec<String>>),
    /// The name, if the table has one.
    Name(Option<String>),
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
