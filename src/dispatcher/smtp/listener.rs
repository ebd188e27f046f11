//! Listening sockets: accepting, pausing, and starting sessions.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::connection::Connection;
use super::mechanisms::Offer;
use super::{AuthSettings, Peer, Session, SessionId, Settings, TlsOffer, proxied};
use crate::config::{Config, Endpoint, Listener, LocalAddress};
use crate::dispatcher::filters::link::{Ends, FilterLink};
use crate::dispatcher::shared::{Counted, Shared};
use crate::dispatcher::tls::Door;
use crate::filter::Direction;
use crate::ipc::message::lookup::{DispatcherToLookup, LookupToDispatcher};
use crate::model::dns::Reverse;
use crate::proto::proxy::{Client, ProxyError};
use crate::time::local_zone;

/// Pause after a failed accept, as when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Descriptors that sessions leave to outgoing connections, deliveries and channels.
const RESERVED_DESCRIPTORS: u64 = 64;

/// Whether sessions are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepting {
    /// Not any more: the role leaves.
    Never,
    /// Not now: an administrator paused it.
    Paused,
    /// Yes.
    Yes,
}

/// The settings of a listener's sessions.
#[must_use]
pub fn settings_of(config: &Config, listener: &Listener, server_name: &str) -> Settings {
    let mut settings = Settings::new(listener.hostname.as_deref().unwrap_or(server_name));
    if let Endpoint::Network { address, port } = &listener.endpoint {
        let loopback = ["127.0.0.1", "::1"].contains(&address.address.to_string().as_str());
        settings.completes_headers = loopback || *port == 587;
    }
    settings.dsn = listener.dsn;
    settings.pipelining = listener.pipelining;
    settings.auth = listener.auth.map(|auth| AuthSettings {
        required: auth.required,
        table: auth.table,
        scram: false,
    });
    settings.received_auth = listener.received_auth;
    settings.senders = listener.senders;
    settings.chunking = listener.chunking;
    settings.smtputf8 = listener.smtputf8;
    settings.limits = listener.limits;
    settings.proxy = listener.proxy;
    settings.masks_source = listener.mask_source;
    settings.filter = listener.filter;
    settings.tag = Arc::from(listener.tag.as_str());
    settings.max_message_size = config.smtp.max_message_size;
    let limit = |limit: crate::config::Limit| limit.get().unwrap_or(u32::MAX);
    settings.max_recipients = limit(config.smtp.max_recipients) as usize;
    settings.max_messages = limit(config.smtp.max_mails);
    settings.zone = local_zone();
    settings
}

/// Accepts on one socket for as long as the role runs.
///
/// # Errors
/// The socket cannot be watched.
pub fn serve(
    shared: &Arc<Shared>,
    listener: &Listener,
    door: Option<Arc<Door>>,
    socket: OwnedFd,
    accepting: watch::Receiver<Accepting>,
) -> io::Result<()> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from_std(socket)?;
    let setup = &shared.setup;
    let mut settings = settings_of(&setup.config, listener, &setup.server_name);
    settings.tls =
        door.as_ref().map(|door| TlsOffer::new(door.settings().mode, Arc::clone(door.available())));
    let users = listener.auth.and_then(|auth| auth.table);
    let offer = Arc::new(Offer::new(settings, users));
    let hostnames = listener
        .hostnames
        .and_then(|id| setup.config.table(id))
        .map(|table| Arc::<str>::from(table.name.as_str()));
    tokio::spawn(accept(Arc::clone(shared), socket, offer, door, hostnames, accepting));
    Ok(())
}

async fn accept(
    shared: Arc<Shared>,
    socket: TcpListener,
    offer: Arc<Offer>,
    door: Option<Arc<Door>>,
    hostnames: Option<Arc<str>>,
    mut accepting: watch::Receiver<Accepting>,
) {
    // The last quarter is for large bodies, outgoing connections and deliveries.
    let most = shared.setup.descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 4 * 3;
    let most = i64::try_from(most.max(16)).unwrap_or(i64::MAX);
    if door.is_some() {
        shared.tls.first_look().await;
    }
    // Whether the last attempt to accept failed: it may again, so nothing is over yet.
    let mut failed = false;
    loop {
        let now = *accepting.borrow_and_update();
        match now {
            Accepting::Never => return,
            Accepting::Paused => {
                if accepting.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Accepting::Yes => {}
        }
        if shared.counters.sessions.load(Ordering::Relaxed) >= most {
            shared.ceiling.reached("Client limit reached");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        if !failed {
            shared.ceiling.is_over();
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            changed = accepting.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match accepted {
            Ok((stream, address)) => {
                failed = false;
                shared.ceiling.is_over();
                let shared = Arc::clone(&shared);
                let (offer, hostnames) = (Arc::clone(&offer), hostnames.clone());
                let door = door.clone();
                tokio::spawn(session(shared, offer, door, hostnames, stream, address));
            }
            // Only this client is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                failed = true;
                shared.ceiling.reached(error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a listener has for a session: settings, and encryption if it offers that.
struct Terms {
    settings: Arc<Settings>,
    door: Option<Arc<Door>>,
}

async fn session(
    shared: Arc<Shared>,
    offer: Arc<Offer>,
    door: Option<Arc<Door>>,
    hostnames: Option<Arc<str>>,
    stream: TcpStream,
    address: SocketAddr,
) {
    // Replies are written whole: waiting for more would only delay them.
    let _unsupported = stream.set_nodelay(true);
    let _counted = Counted::new(&shared.counters.sessions);
    let local = stream.local_addr().ok();
    let own_name = async |shared: &Shared| match (&hostnames, local) {
        (Some(table), Some(local)) => greeting_name(shared, table, local.ip().to_canonical()).await,
        _ => None,
    };
    let client = canonical(address);
    let terms = Terms { settings: offer.settings(&shared).await, door };
    if !terms.settings.proxy {
        let own_name = own_name(&shared).await;
        return converse(&shared, terms, stream, Some(client), local, own_name).await;
    }
    let Ok(id) = shared.random().map(SessionId) else { return };
    let proxy = client_at(&shared.setup.config, client).address();
    tracing::info!("{id} smtp event=proxy address={proxy}");
    match proxied::accept(stream).await {
        Ok((stream, passed_on)) => {
            let client = match passed_on {
                Client::Proxy => Some(client),
                Client::Address(address) => Some(canonical(address)),
                Client::Socket => None,
            };
            let own_name = own_name(&shared).await;
            converse(&shared, terms, stream, client, local, own_name).await;
        }
        Err(reason) => {
            tracing::info!("proxy {id} event=closed address={proxy} reason=\"{reason}\"");
            if matches!(reason, proxied::Closed::Proxy(ProxyError::Text)) {
                tracing::warn!(
                    "warn: proxy {id}: the text header of version 1 is not supported: {proxy} must \
                     send version 2"
                );
            }
        }
    }
}

/// The address with an IPv4 address as such, also where an IPv6 socket has received it.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(_) => address,
        v4 => SocketAddr::new(v4, address.port()),
    }
}

/// A client on the network, with the zone of a link-local address.
fn client_at(config: &Config, client: SocketAddr) -> Peer {
    Peer { zone: zone_of(client, &config.local_addresses), ..Peer::remote(client.ip()) }
}

/// The zone of a link-local client: the name of its interface, or the system's number of one that
/// was not there when the configuration was read.
fn zone_of(client: SocketAddr, known: &[LocalAddress]) -> Option<Box<str>> {
    let SocketAddr::V6(client) = client else { return None };
    let index = client.scope_id();
    if index == 0 {
        return None;
    }
    let mut scopes = known.iter().filter_map(|local| local.scope.as_ref());
    let name = scopes.find(|scope| scope.index == index).map(|scope| scope.name.clone());
    Some(name.unwrap_or_else(|| index.to_string()).into())
}

/// Serves a session of a client; `None` is one on a socket of a proxy's machine.
async fn converse<S>(
    shared: &Arc<Shared>,
    terms: Terms,
    stream: S,
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
    own_name: Option<Arc<str>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
{
    let counters = &shared.counters;
    let counted = match client.map(|client| client.ip()) {
        Some(IpAddr::V4(_)) => &counters.inet4,
        Some(IpAddr::V6(_)) => &counters.inet6,
        None => &counters.local,
    };
    let _counted = Counted::new(counted);
    let mut peer = match client {
        Some(client) => client_at(&shared.setup.config, client),
        None => Peer::behind_proxy(&shared.setup.server_name),
    };
    peer.server_name = own_name;
    let Ok(id) = shared.random() else { return };
    let Terms { settings, door } = terms;
    let idle_timeout = settings.idle_timeout;
    let filters = settings.filter.map(|filter| {
        let text = |end: Option<SocketAddr>| end.map(address_text).unwrap_or_default();
        let ends = match client {
            Some(client) => Ends { source: address_text(client), destination: text(local) },
            None => socket_ends(shared),
        };
        FilterLink::new(shared.filters.clone(), id, filter, Direction::In, ends)
    });
    let session = Session::new(SessionId(id), settings, peer);
    let naming = Arc::clone(shared);
    let name = client.map(|client| async move { naming.name_of(client.ip()).await });
    let connection = Connection::new(stream, session, Arc::clone(shared), idle_timeout);
    connection.with_tls(door).with_filters(filters).serve(name).await;
}

/// The two ends of a local session.
fn socket_ends(shared: &Shared) -> Ends {
    let path = format!("unix:{}", shared.setup.control_socket);
    Ends { source: path.clone(), destination: path }
}

/// An address with its port: `1.2.3.4:25`, `[2001:db8::1]:25`.
fn address_text(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

async fn greeting_name(shared: &Shared, table: &str, address: IpAddr) -> Option<Arc<str>> {
    let request = DispatcherToLookup::AddressName { table: table.to_owned(), address };
    match shared.lookup.request(&request, None).await {
        Ok((LookupToDispatcher::Value(name), _)) => name.map(Arc::from),
        Ok(_) | Err(_) => None,
    }
}

/// Serves local submission over a socket that control has passed.
///
/// # Errors
/// The socket cannot be watched.
pub fn serve_submission(shared: &Arc<Shared>, socket: OwnedFd) -> io::Result<()> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let stream = UnixStream::from_std(socket)?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move { serve_local(&shared, stream).await });
    Ok(())
}

/// Serves a session of our own or of `sendmail`, to its end.
pub async fn serve_local<S>(shared: &Arc<Shared>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
{
    let setup = &shared.setup;
    let listener = setup.config.listeners.iter().find(|one| one.endpoint == Endpoint::Socket);
    let mut settings = match listener {
        Some(listener) => settings_of(&setup.config, listener, &setup.server_name),
        None => Settings::new(&setup.server_name),
    };
    settings.completes_headers = true;
    let idle_timeout = settings.idle_timeout;
    let peer = Peer::local(&setup.server_name);
    let _counted = (Counted::new(&shared.counters.sessions), Counted::new(&shared.counters.local));
    let Ok(id) = shared.random() else { return };
    let filters = settings.filter.map(|filter| {
        FilterLink::new(shared.filters.clone(), id, filter, Direction::In, socket_ends(shared))
    });
    let session = Session::new(SessionId(id), Arc::new(settings), peer);
    let connection = Connection::new(stream, session, Arc::clone(shared), idle_timeout);
    connection.with_filters(filters).serve(None::<std::future::Ready<Reverse>>).await;
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use super::*;
    use crate::config::Scope;

    // Proves: smtp case 223, where the session begins; that it works is with `Peer`.
    #[test]
    fn a_link_local_client_has_its_zone() {
        let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
        let scope = |index, name: &str| Some(Scope { index, name: name.to_owned() });
        let local = |scope| LocalAddress { address: link_local.into(), scope };
        let known = [
            LocalAddress::from(IpAddr::from([127, 0, 0, 1])),
            local(scope(2, "eth0")),
            local(scope(3, "eth1")),
        ];
        let text = |address: &str, index: u32| {
            let address = SocketAddrV6::new(address.parse().unwrap(), 25, 0, index);
            let client = canonical(address.into());
            let peer = Peer { zone: zone_of(client, &known), ..Peer::remote(client.ip()) };
            peer.bracketed_address()
        };
        let cases = [
            ("fe80::1", 2, "[fe80::1%eth0]"),
            ("fe80::1", 3, "[fe80::1%eth1]"),
            ("fe80::1", 7, "[fe80::1%7]"),
            ("2001:db8::1", 0, "[2001:db8::1]"),
            ("::ffff:10.9.8.7", 0, "[10.9.8.7]"),
        ];
        for (address, index, expected) in cases {
            assert_eq!(text(address, index), expected);
        }
        crate::spec_case::ran("smtp", 223);
    }
}
