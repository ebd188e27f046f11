//! What a session is told once: the listener's settings and who the client is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::config::{FilterId, Senders, TableId, TlsMode};
use crate::model::envelope::Source;
use crate::model::limits;

/// Silence after which the shell ends a session, in any state, without a reply.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Default of `smtp limit max-rcpt`.
pub const MAX_RECIPIENTS: usize = 1000;
/// Default of `smtp limit max-mails`.
pub const MAX_MESSAGES: u32 = 100;

/// `auth` and `auth-optional`: AUTH is offered, on encrypted sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuthSettings {
    /// Whether it is required before MAIL: `auth`.
    pub required: bool,
    /// Users with their passwords, for the shell; the system's accounts without it.
    pub table: Option<TableId>,
    /// Whether SCRAM-SHA-256 (and -PLUS, if the connection can be bound) is offered besides PLAIN
    /// and LOGIN: a user of the table has a verifier.
    pub scram: bool,
}

/// What one listener demands and offers. Shared by all of its sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether clients can log in.
    pub auth: Option<AuthSettings>,
    /// Name by which we greet, and the domain of addresses without one.
    pub hostname: Arc<str>,
    /// The `hostname` option of the listener, else the server name: the domain that header
    /// addresses and a Message-ID get. The `hostnames` table never changes it.
    pub listener_name: Arc<str>,
    /// Whether Date and Message-ID are added where missing: listeners bound to exactly 127.0.0.1
    /// or ::1, and port 587. The control socket's sessions always do.
    pub completes_headers: bool,
    /// Whether delivery reports may be asked for (RFC 3461); off with `no-dsn`.
    pub dsn: bool,
    /// Whether commands may be sent without waiting (RFC 2920); off with `no-pipelining`.
    pub pipelining: bool,
    /// Whether content may be sent in chunks (RFC 3030); off with `no-chunking`.
    pub chunking: bool,
    /// Whether addresses and headers may be in UTF-8 (RFC 6531); off with `no-smtputf8`.
    pub smtputf8: bool,
    /// Whether [`Self::max_messages`] and [`Self::max_recipients`] are told (RFC 9422); off with
    /// `no-limits`.
    pub limits: bool,
    /// Which addresses those who have logged in may send from.
    pub senders: Option<Senders>,
    /// Whether the Received header of an encrypted session says who has logged in:
    /// `received-auth`.
    pub received_auth: bool,
    /// Whether each connection begins with a header of the PROXY protocol: `proxy-v2`.
    pub proxy: bool,
    /// Whether the client is left out of the Received header: `mask-src`.
    pub masks_source: bool,
    /// Filter or chain that decides about its sessions.
    pub filter: Option<FilterId>,
    /// Name that rules match with `tag`; empty without one.
    pub tag: Arc<str>,
    /// Encryption; `None` where it is not offered.
    pub tls: Option<TlsOffer>,
    /// Largest message, in bytes as received with one byte a line end.
    pub max_message_size: u64,
    /// Recipients of one message.
    pub max_recipients: usize,
    /// Messages of one session.
    pub max_messages: u32,
    /// Time zone of the dates in headers.
    pub zone: TimeZone,
    /// Silence after which the shell calls [`Session::end`](super::Session::end).
    pub idle_timeout: Duration,
}

impl Settings {
    /// The settings of `listen on` an address without options, for a server called `hostname`.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        let hostname = Arc::<str>::from(hostname);
        Self {
            auth: None,
            listener_name: Arc::clone(&hostname),
            hostname,
            completes_headers: false,
            dsn: true,
            pipelining: true,
            chunking: true,
            smtputf8: true,
            limits: true,
            senders: None,
            received_auth: false,
            proxy: false,
            masks_source: false,
            filter: None,
            tag: Arc::from(""),
            tls: None,
            max_message_size: limits::MESSAGE_SIZE,
            max_recipients: MAX_RECIPIENTS,
            max_messages: MAX_MESSAGES,
            zone: TimeZone::UTC,
            idle_timeout: IDLE_TIMEOUT,
        }
    }
}

/// Encryption of a listener's sessions.
#[derive(Clone, Debug)]
pub struct TlsOffer {
    /// When a session is encrypted.
    pub mode: TlsMode,
    /// Whether a handshake can succeed now, which changes while sessions run. STARTTLS is answered
    /// 454 while it cannot: the key was not loaded, or *keys* does not answer.
    available: Arc<AtomicBool>,
}

impl TlsOffer {
    /// What a listener offers, as long as `available` says so.
    #[must_use]
    pub fn new(mode: TlsMode, available: Arc<AtomicBool>) -> Self {
        Self { mode, available }
    }

    /// Whether a handshake can succeed now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }
}

/// Number of a session: random, printed with 16 hexadecimal digits at the head of its log lines.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The client of a session.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connected from.
    pub source: Source,
    /// Zone of a link-local IPv6 address, the text after `%`.
    pub zone: Option<Box<str>>,
    /// Its name by reverse look-up. `None` while that look-up runs: the session greets, and
    /// waits for [`Answer::Hostname`](super::Answer::Hostname) at MAIL.
    pub hostname: Option<Box<str>>,
    /// What the listener's `hostnames` table has for our address: greeted with instead of
    /// [`Settings::hostname`].
    pub server_name: Option<Arc<str>>,
    /// Whether a proxy says that it comes from a socket of its machine: rules take it for the
    /// control socket, and nothing else does.
    pub proxied: bool,
}

/// Stands for the name of a client that has none.
pub const UNKNOWN_HOSTNAME: &str = "<unknown>";

impl Peer {
    /// A client that connected from `address`; its name is still being looked up.
    #[must_use]
    pub fn remote(address: std::net::IpAddr) -> Self {
        Self {
            source: Source::Ip(address),
            zone: None,
            hostname: None,
            server_name: None,
            proxied: false,
        }
    }

    /// The control socket: `sendmail`, or a report of our own. Such a session is authenticated
    /// from the start, and its line ends are read leniently. `server_name` stands for its host.
    #[must_use]
    pub fn local(server_name: &str) -> Self {
        Self {
            source: Source::Local,
            zone: None,
            hostname: Some(Box::from(server_name)),
            server_name: None,
            proxied: false,
        }
    }

    /// A client that a proxy has from a socket of its machine. It is not authenticated, and held
    /// to the rules of the network.
    #[must_use]
    pub fn behind_proxy(server_name: &str) -> Self {
        Self { proxied: true, ..Self::local(server_name) }
    }

    /// Whether this is the control socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.source == Source::Local && !self.proxied
    }

    /// The address as logs have it: dotted IPv4, IPv6 in brackets with its zone, or `local`.
    #[must_use]
    pub fn address(&self) -> String {
        match (&self.zone, self.source) {
            (Some(zone), Source::Ip(address)) if address.is_ipv6() => format!("[{address}%{zone}]"),
            _ => self.source.to_string(),
        }
    }

    /// The address in exactly one pair of brackets, as greetings and Received headers have it.
    #[must_use]
    pub fn bracketed_address(&self) -> String {
        let address = self.address();
        if address.starts_with('[') { address } else { format!("[{address}]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: smtp case 223.
    #[test]
    fn addresses_have_one_pair_of_brackets_and_their_zone() {
        let mut scoped = Peer::remote("fe80::1".parse().unwrap());
        scoped.zone = Some("eth0".into());
        let cases = [
            (Peer::remote("10.9.8.7".parse().unwrap()), "10.9.8.7", "[10.9.8.7]"),
            (Peer::remote("::1".parse().unwrap()), "[::1]", "[::1]"),
            (scoped, "[fe80::1%eth0]", "[fe80::1%eth0]"),
            (Peer::local("mx.example.org"), "local", "[local]"),
        ];
        for (peer, plain, bracketed) in cases {
            assert_eq!(peer.address(), plain);
            assert_eq!(peer.bracketed_address(), bracketed);
        }
        crate::spec_case::ran("smtp", 223);
    }
}
