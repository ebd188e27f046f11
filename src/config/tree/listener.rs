//! Listeners and addresses in the tree of a configuration.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::{FilterId, ListenerTls, Span, TableId};

/// One source of sessions: an address that is listened on, or the local submission socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Listener {
    /// Where it stands; `None` for the socket listener that exists without being written.
    pub span: Option<Span>,
    /// What is listened on.
    pub endpoint: Endpoint,
    /// `tag`: what rules match on, empty without one; at most 32 bytes.
    pub tag: String,
    /// `hostname`: the name in the greeting, instead of [`crate::config::Config::server_name`].
    pub hostname: Option<String>,
    /// `hostnames`: names by the listening address (service `addrname`), before `hostname`.
    pub hostnames: Option<TableId>,
    /// Whether DSN is offered; `no-dsn` switches it off.
    pub dsn: bool,
    /// `mask-src`: whether the Received line leaves the client out.
    pub mask_source: bool,
    /// Whether PIPELINING is offered; `no-pipelining` switches it off.
    pub pipelining: bool,
    /// Whether CHUNKING may be offered; `no-chunking` forbids it.
    pub chunking: bool,
    /// Whether SMTPUTF8 may be offered; `no-smtputf8` forbids it.
    pub smtputf8: bool,
    /// Whether LIMITS may be offered; `no-limits` forbids it.
    pub limits: bool,
    /// Encryption, if there is any.
    pub tls: Option<ListenerTls>,
    /// `auth` or `auth-optional`; never without [`Self::tls`].
    pub auth: Option<ListenerAuth>,
    /// `received-auth`: whether the Received line says who has logged in.
    pub received_auth: bool,
    /// `senders`: who may send as whom.
    pub senders: Option<Senders>,
    /// `filter`: what sessions go through.
    pub filter: Option<FilterId>,
    /// `proxy-v2`: whether each connection begins with a header of the PROXY protocol.
    pub proxy: bool,
}

/// Who may log in on a listener.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListenerAuth {
    /// `auth`: nobody else may send. With `auth-optional` anybody may.
    pub required: bool,
    /// Users with their passwords (service `credentials`); the system's accounts without it.
    pub table: Option<TableId>,
}

/// `senders`: the addresses that a user may send from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Senders {
    /// Addresses by user (service `mailaddrmap`).
    pub table: TableId,
    /// `masquerade`: addresses in the header From become that of the envelope.
    pub masquerade: bool,
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
