//! Between dispatcher and lookup: recipients, names, routes of relays.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{FilterId, TableId};
use crate::filter::{Decision, Direction, Event, Fcrdns, Phase};
use crate::ipc::blob::Blob;
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
    /// Ask the filters of a session about a phase (answered by [`LookupToDispatcher::Filtered`]).
    FilterAsk {
        /// The session.
        session: u64,
        /// The phase; never [`Phase::DataLine`].
        phase: Phase,
        /// Its parameter; empty for [`Phase::Connect`].
        parameter: Blob,
    },
    /// A session with filters begins: before everything else about it (answered by
    /// [`LookupToDispatcher::FilterInterests`] when all of its programs are ready).
    FilterBegin {
        /// The session; its number is its name in the protocol of filters.
        session: u64,
        /// Its filter or chain.
        filter: FilterId,
        /// Incoming or outgoing.
        direction: Direction,
        /// The client's name, `<unknown>` without one.
        hostname: String,
        /// Whether the name leads back to the address.
        fcrdns: Fcrdns,
        /// Where it connected from.
        source: Source,
    },
    /// A session with filters has ended, after its last event (notice).
    FilterEnd {
        /// The session.
        session: u64,
    },
    /// What has happened in a session, in order with its questions (notice).
    FilterEvents {
        /// The session.
        session: u64,
        /// The events: microseconds since 1970, and what happened.
        events: Vec<(u64, Event)>,
    },
    /// Lines of a message for the filters, and the turn of what comes out of them (answered by
    /// [`LookupToDispatcher::FilterLines`]). One at a time for a session.
    FilterLines {
        /// The session.
        session: u64,
        /// Lines, dot-stuffed, each with a line feed, the final dot too; at most
        /// [`FILTER_LINES`](crate::model::limits::FILTER_LINES) bytes, so that a long line may be
        /// cut between two requests. Empty to wait for output.
        lines: Blob,
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
    /// Where mail goes.
    Exchanges(Result<Vec<Exchange>, DnsFailure>),
    /// What became of a recipient.
    Expanded(Expansion),
    /// What the filters decided.
    Filtered(Decision),
    /// What the filters of a session want to know. Everything else need not be sent.
    FilterInterests(Interests),
    /// What came out of the filters.
    FilterLines {
        /// Bytes of the lines sent that were taken; the rest is to be sent again.
        taken: u32,
        /// Lines, each with a line feed, still dot-stuffed, without the final dot; at most
        /// [`FILTER_LINES`](crate::model::limits::FILTER_LINES) bytes, so that a long line may be
        /// cut between two replies.
        output: Blob,
        /// What comes next.
        flow: LineFlow,
    },
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

/// What the filters of a session want to know.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Interests {
    /// Any event at all, `filter-response` included.
    pub events: bool,
    /// Phases that a filter decides, by their place in [`Phase::ALL`], lowest bit first. While
    /// [`Self::events`] is set all phases are asked: `filter-response` is told for each.
    pub phases: u16,
}

/// How the lines of a message come out of its filters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum LineFlow {
    /// A filter broke off: the message fails temporarily.
    Broken,
    /// The final dot came out: the message is complete.
    Ended,
    /// More comes.
    More,
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
