//! Names and addresses: where mail for a domain goes, and what an address is called.
//!
//! Everything is asked of the servers in `resolv.conf`, which is read, like the hosts file, when
//! [`Dns`] is made: before the process loses its view of the file system. Answers are cached for
//! the time that they state. Nothing is decided about sending.
//!
//! Sources: the queue page of the specification, 3.4; the SMTP page, 1.3; RFC 5321 section 5,
//! RFC 7505 (null MX), RFC 8601 (iprev).
//! Limits: the best 64 exchanges of a domain, 64 addresses each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::task::JoinSet;

use crate::model::dns::{Confirmed, DnsFailure, Exchange, Reverse, address_literal};
use crate::model::envelope::Source;
use crate::model::mailbox::MAX_DOMAIN;
use crate::proto::escape::quoted;

const MAX_EXCHANGES: usize = 64;
const MAX_ADDRESSES: usize = 64;

/// Which servers are asked, and how.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    servers: ResolverConfig,
    options: ResolverOpts,
}

/// The resolver could not be made ready.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare the resolver: {0}")]
pub struct DnsStartError(#[from] NetError);

impl DnsConfig {
    /// What `resolv.conf` says. Without one, or without servers in it: the server on this host,
    /// as the system's own resolver does it.
    #[must_use]
    pub fn from_system() -> Self {
        match read_system_conf() {
            Ok((servers, mut options)) => {
                options.use_hosts_file = ResolveHosts::Always;
                Self { servers, options }
            }
            Err(error) => {
                tracing::warn!("warn: resolv.conf: {error}; asking the server on this host");
                let mut local = Self::with_server(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
                local.options.use_hosts_file = ResolveHosts::Always;
                local
            }
        }
    }

    /// One server at an address and port of its own, and no hosts file: for tests.
    #[must_use]
    pub fn with_server(server: SocketAddr) -> Self {
        let with_port = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections =
            vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
        let mut servers = ResolverConfig::from_name_servers(vec![]);
        servers.add_name_server(NameServerConfig::new(server.ip(), true, connections));
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        Self { servers, options }
    }
}

/// The resolver of the lookup role. Clones share the cache.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
}

impl Dns {
    /// A resolver; reads the hosts file now and opens sockets only when asked.
    ///
    /// # Errors
    /// The system refused what the resolver needs.
    pub fn new(config: DnsConfig) -> Result<Self, DnsStartError> {
        let mut builder =
            TokioResolver::builder_with_config(config.servers, TokioRuntimeProvider::default());
        *builder.options_mut() = config.options;
        Ok(Self { resolver: builder.build()? })
    }

    /// The exchanges of `domain`, best first; exchanges of equal preference stay in the order of the
    /// answer. One whose addresses are not known has none, and at least one has some: a backup must
    /// find itself even then. A domain without MX records is its own exchange.
    ///
    /// # Errors
    /// Says whether trying again can help.
    pub async fn mx(&self, domain: &str) -> Result<Vec<Exchange>, DnsFailure> {
        if domain.starts_with('[') {
            return literal(domain).map(|own| vec![own]).ok_or(DnsFailure::DoesNotExist);
        }
        let name = absolute(domain).ok_or(DnsFailure::DoesNotExist)?;
        let answer = match self.resolver.lookup(name.clone(), RecordType::MX).await {
            Ok(answer) => answer,
            Err(error) => match kind(&error) {
                Kind::NoData => return self.own_address(domain, name).await,
                Kind::NoName => return Err(DnsFailure::DoesNotExist),
                Kind::Unknown => return Err(DnsFailure::Temporary),
            },
        };
        let mut records: Vec<(u16, &Name)> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::MX(mx) => Some((mx.preference, &mx.exchange)),
                _ => None,
            })
            .collect();
        if records.is_empty() {
            return self.own_address(domain, name).await;
        }
        records.retain(|(preference, exchange)| {
            !(is_localhost(exchange) || (*preference == 0 && exchange.is_root()))
        });
        if records.is_empty() {
            return Err(DnsFailure::RefusesMail);
        }
        records.sort_by_key(|(preference, _)| *preference);
        records.truncate(MAX_EXCHANGES);

        let mut tasks = JoinSet::new();
        for (place, (preference, exchange)) in records.into_iter().enumerate() {
            let (dns, exchange) = (self.clone(), exchange.clone());
            tasks.spawn(async move {
                let addresses = dns.addresses(exchange.clone()).await.unwrap_or_default();
                (place, Exchange { preference, host: text(&exchange), addresses })
            });
        }
        let mut found = Vec::with_capacity(tasks.len());
        while let Some(one) = tasks.join_next().await {
            // A task that panicked is an exchange without addresses.
            found.extend(one);
        }
        if found.iter().all(|(_, exchange)| exchange.addresses.is_empty()) {
            return Err(DnsFailure::NoExchange);
        }
        found.sort_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(_, exchange)| exchange).collect())
    }

    /// The addresses of a host, such as a smart host, as one exchange; never asks for MX records.
    /// A name with few dots is completed as `resolv.conf` says.
    ///
    /// # Errors
    /// [`DnsFailure::HostNotFound`] when no address is known, for whatever reason.
    pub async fn host(&self, name: &str) -> Result<Exchange, DnsFailure> {
        if name.starts_with('[') {
            return literal(name).ok_or(DnsFailure::HostNotFound);
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(Exchange { preference: 0, host: name.to_owned(), addresses: vec![address] });
        }
        let parsed = parse(name).ok_or(DnsFailure::HostNotFound)?;
        let addresses = self.addresses(parsed).await.map_err(|_| DnsFailure::HostNotFound)?;
        if addresses.is_empty() {
            return Err(DnsFailure::HostNotFound);
        }
        Ok(Exchange { preference: 0, host: name.to_owned(), addresses })
    }

    /// The name of `address`, and whether the name leads back to it.
    pub async fn reverse(&self, address: IpAddr) -> Reverse {
        let answer = match self.resolver.reverse_lookup(address).await {
            Ok(answer) => answer,
            Err(error) => {
                let shown = Source::Ip(address);
                let confirmed = unconfirmed(&error, || format!("getnameinfo: {shown}"));
                return Reverse { name: None, confirmed };
            }
        };
        let first = answer.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some(name.0.clone()),
            _ => None,
        });
        // A name that no host can have is no name: it would only confuse whoever reads the log.
        let Some((name, host)) = first.and_then(|name| host_name(&name).map(|text| (name, text)))
        else {
            return Reverse { name: None, confirmed: Confirmed::Fail };
        };
        let family = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        let confirmed = match self.resolver.lookup(name, family).await {
            Ok(answer) => {
                let same =
                    answer.answers().iter().any(|record| record.data.ip_addr() == Some(address));
                if same { Confirmed::Pass } else { Confirmed::Fail }
            }
            Err(error) => unconfirmed(&error, || format!("getaddrinfo: {host}")),
        };
        Reverse { name: Some(host), confirmed }
    }

    /// The domain as its own exchange, when it has no MX records.
    async fn own_address(&self, domain: &str, name: Name) -> Result<Vec<Exchange>, DnsFailure> {
        let addresses = match self.addresses(name).await {
            Ok(addresses) => addresses,
            Err(Kind::NoName | Kind::NoData) => return Err(DnsFailure::NoExchange),
            Err(Kind::Unknown) => return Err(DnsFailure::Temporary),
        };
        if addresses.is_empty() {
            return Err(DnsFailure::NoExchange);
        }
        Ok(vec![Exchange { preference: 0, host: domain.to_owned(), addresses }])
    }

    /// All addresses of `name`, IPv6 first.
    async fn addresses(&self, name: Name) -> Result<Vec<IpAddr>, Kind> {
        let answer = self.resolver.lookup_ip(name).await.map_err(|error| kind(&error))?;
        let mut addresses: Vec<IpAddr> = answer.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv4);
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }
}

/// What a failed look-up means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// The name exists, without such records.
    NoData,
    /// The name does not exist.
    NoName,
    /// Nothing is known: no answer, or one that speaks of the server's troubles.
    Unknown,
}

fn kind(error: &NetError) -> Kind {
    let NetError::Dns(DnsError::NoRecordsFound(nothing)) = error else { return Kind::Unknown };
    match nothing.response_code {
        ResponseCode::NXDomain => Kind::NoName,
        ResponseCode::NoError => Kind::NoData,
        _ => Kind::Unknown,
    }
}

/// What a failed look-up says about a client's name. One that says nothing is logged, by the name of
/// the function that people's log parsers know.
fn unconfirmed(error: &NetError, looked_up: impl FnOnce() -> String) -> Confirmed {
    match kind(error) {
        Kind::NoData | Kind::NoName => Confirmed::Fail,
        Kind::Unknown => {
            tracing::warn!("{}: {}", looked_up(), quoted(error.to_string().as_bytes()));
            Confirmed::Error
        }
    }
}

fn literal(domain: &str) -> Option<Exchange> {
    let address = address_literal(domain)?;
    Some(Exchange { preference: 0, host: domain.to_owned(), addresses: vec![address] })
}

/// `name` as DNS has it; `None` for what no name server can know.
fn parse(name: &str) -> Option<Name> {
    let parsed = if name.is_ascii() { Name::from_ascii(name) } else { Name::from_utf8(name) };
    parsed.ok().filter(|name| !name.is_root())
}

/// `name` without completion by search domains.
fn absolute(name: &str) -> Option<Name> {
    let mut name = parse(name)?;
    name.set_fqdn(true);
    Some(name)
}

fn text(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

fn is_localhost(name: &Name) -> bool {
    text(name).eq_ignore_ascii_case("localhost")
}

/// `name` as text, if a host may be called so.
fn host_name(name: &Name) -> Option<String> {
    let text = text(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!text.is_empty() && text.len() <= MAX_DOMAIN && text.bytes().all(plain)).then_some(text)
}

#[cfg(test)]
mod tests;
