//! Listening sockets: accepting, pausing, and starting sessions.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::connection::Connection;
use super::filter_link::{Ends, FilterLink};
use super::{Peer, Session, SessionId, Settings};
use crate::config::{Config, Endpoint, Listener};
use crate::dispatcher::shared::{Counted, Shared};
use crate::filter::Direction;
use crate::ipc::message::lookup::{DispatcherToLookup, LookupToDispatcher};
use crate::model::dns::Reverse;
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
    socket: OwnedFd,
    accepting: watch::Receiver<Accepting>,
) -> io::Result<()> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from_std(socket)?;
    let setup = &shared.setup;
    let settings = Arc::new(settings_of(&setup.config, listener, &setup.server_name));
    let hostnames = listener
        .hostnames
        .and_then(|id| setup.config.table(id))
        .map(|table| Arc::<str>::from(table.name.as_str()));
    tokio::spawn(accept(Arc::clone(shared), socket, settings, hostnames, accepting));
    Ok(())
}

async fn accept(
    shared: Arc<Shared>,
    socket: TcpListener,
    settings: Arc<Settings>,
    hostnames: Option<Arc<str>>,
    mut accepting: watch::Receiver<Accepting>,
) {
    let most = shared.setup.descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2;
    let most = i64::try_from(most.max(16)).unwrap_or(i64::MAX);
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
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = accepting.changed() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                let shared = Arc::clone(&shared);
                let (settings, hostnames) = (Arc::clone(&settings), hostnames.clone());
                tokio::spawn(session(shared, settings, hostnames, stream, address));
            }
            Err(error) => {
                tracing::warn!("warn: smtp: cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn session(
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    hostnames: Option<Arc<str>>,
    stream: TcpStream,
    address: SocketAddr,
) {
    // Replies are written whole: waiting for more would only delay them.
    let _unsupported = stream.set_nodelay(true);
    let client = address.ip().to_canonical();
    let mut peer = Peer::remote(client);
    if let (Some(table), Ok(local)) = (hostnames, stream.local_addr()) {
        peer.server_name = greeting_name(&shared, &table, local.ip().to_canonical()).await;
    }
    let counted = if client.is_ipv4() { &shared.counters.inet4 } else { &shared.counters.inet6 };
    let _counted = (Counted::new(&shared.counters.sessions), Counted::new(counted));
    let Ok(id) = shared.random() else { return };
    let idle_timeout = settings.idle_timeout;
    let filters = settings.filter.map(|filter| {
        let ends = Ends {
            source: address_text(SocketAddr::new(client, address.port())),
            destination: stream.local_addr().map(address_text).unwrap_or_default(),
        };
        FilterLink::new(Arc::clone(&shared), id, filter, Direction::In, ends)
    });
    let session = Session::new(SessionId(id), settings, peer);
    let naming = Arc::clone(&shared);
    let name = async move { naming.name_of(client).await };
    let connection = Connection::new(stream, session, Arc::clone(&shared), idle_timeout);
    connection.with_filters(filters).serve(Some(name)).await;
}

/// An address with its port: `1.2.3.4:25`, `[2001:db8::1]:25`.
fn address_text(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

async fn greeting_name(
    shared: &Shared,
    table: &str,
    address: std::net::IpAddr,
) -> Option<Arc<str>> {
    let request = DispatcherToLookup::ListenerName { table: table.to_owned(), address };
    match shared.lookup.request(&request, None).await {
        Ok((LookupToDispatcher::Name(name), _)) => name.map(Arc::from),
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
        let path = format!("unix:{}", shared.setup.control_socket);
        let ends = Ends { source: path.clone(), destination: path };
        FilterLink::new(Arc::clone(shared), id, filter, Direction::In, ends)
    });
    let session = Session::new(SessionId(id), Arc::new(settings), peer);
    let connection = Connection::new(stream, session, Arc::clone(shared), idle_timeout);
    connection.with_filters(filters).serve(None::<std::future::Ready<Reverse>>).await;
}
