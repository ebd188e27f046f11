//! Numbers of the configuration: what sessions, connections and deliveries may do, and what holds
//! where nothing is said.
//!
//! Source: smtpd.conf(5).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tree::{Ciphers, Secret};

const HOUR: u64 = 60 * 60;

/// Port of `listen on` without `port`.
pub(super) const SMTP_PORT: u16 = 25;
/// Port of `listen on` with `smtps` and without `port`.
pub(super) const SMTPS_PORT: u16 = 465;

/// The least that `smtp limit max-rcpt` may be (RFC 5321, section 4.5.3.1.8).
pub(super) const LEAST_MAX_RECIPIENTS: i64 = 100;

/// A number that something may not exceed. A negative number in the file means no limit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limit(Option<u32>);

/// `smtp`: what sessions may do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Smtp {
    /// `max-message-size`, in bytes.
    pub max_message_size: u64,
    /// `sub-addr-delim`: separates user and tag of a local part. Printable ASCII, not `@`.
    pub sub_address_delimiter: char,
    /// `limit max-rcpt`: recipients a transaction, at least 100.
    pub max_recipients: Limit,
    /// `limit max-mails`: transactions a session.
    pub max_mails: Limit,
    /// `ciphers`: cipher suites where a listener or a relay says nothing; all without it.
    pub ciphers: Option<Ciphers>,
}

/// `queue`: what the spool keeps.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Queue {
    /// `ttl`: how long an undeliverable envelope stays.
    pub ttl: Duration,
    /// `compression`: whether message contents are compressed.
    pub compression: bool,
    /// `encryption`: whether message contents are encrypted, and where the key comes from.
    pub encryption: Option<QueueKey>,
}

/// Where the key of an encrypted spool comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum QueueKey {
    /// The terminal is asked for it.
    Asked,
    /// It is the first line of standard input.
    StandardInput,
    /// It is written in the configuration: 32 bytes.
    Written(Secret),
}

/// `srs`: how senders of forwarded mail are rewritten (Sender Rewriting Scheme).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Srs {
    /// `key`: signs rewritten senders; without it none is, and none is turned back.
    pub key: Option<Secret>,
    /// `key backup`: an earlier key, still good for turning back.
    pub backup_key: Option<Secret>,
    /// `ttl`: how many days a rewritten sender can be turned back.
    pub days: u32,
}

/// `bounce`: notices to senders.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Bounce {
    /// `warn-interval`: ages at which a delay is announced, in the order of the file, one to four.
    pub warn_intervals: Vec<Duration>,
}

/// `mta`: outgoing connections.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mta {
    /// `max-deferred`: envelopes remembered for a host that is not reachable.
    pub max_deferred: Limit,
    /// `limit` without a domain.
    pub limits: MtaLimits,
    /// `limit for domain`: by destination domain or smart host, compared byte for byte.
    pub domains: Vec<(String, MtaLimits)>,
}

/// The address family of outgoing connections.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Family {
    /// IPv4 alone.
    Inet4,
    /// IPv6 alone.
    Inet6,
}

/// `mta limit`: how hard other servers may be pressed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MtaLimits {
    /// `inet4`, `inet6`: the only family to use.
    pub family: Option<Family>,
    /// Connections to one address.
    pub max_connections_per_host: Limit,
    /// Connections from one source to one address.
    pub max_connections_per_route: Limit,
    /// Connections from one source.
    pub max_connections_per_source: Limit,
    /// Connections from one source for one relay.
    pub max_connections_per_connector: Limit,
    /// Connections for one relay.
    pub max_connections_per_relay: Limit,
    /// Connections for one domain.
    pub max_connections_per_domain: Limit,
    /// Time between two connections to one address.
    pub connection_delay_host: Duration,
    /// Time between two connections from one source to one address.
    pub connection_delay_route: Duration,
    /// Time between two connections from one source.
    pub connection_delay_source: Duration,
    /// Time between two connections from one source for one relay.
    pub connection_delay_connector: Duration,
    /// Time between two connections for one relay.
    pub connection_delay_relay: Duration,
    /// Time between two connections for one domain.
    pub connection_delay_domain: Duration,
    /// Time after a disconnect before the route is used again.
    pub reconnection_delay_route: Duration,
    /// Messages a session.
    pub session_mail_max: Limit,
    /// Pause between two transactions of a session.
    pub session_transaction_delay: Duration,
    /// How long the last idle session of a relay stays open.
    pub session_keepalive: Duration,
    /// Refused recipients in a row before a session ends; 0 in the file means no limit.
    pub max_failures_per_session: Limit,
    /// How many tasks may wait.
    pub tasks: TaskLimits,
}

/// How many tasks may wait for one relay or one user.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TaskLimits {
    /// `task-hiwat`: from here on envelopes are held back.
    pub high: Limit,
    /// `task-lowat`: from here on they are asked for again.
    pub low: Limit,
    /// `task-release`: how many at a time.
    pub release: Limit,
}

/// `mda limit`: local deliveries.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MdaLimits {
    /// Deliveries at a time.
    pub max_session: Limit,
    /// Deliveries at a time for one user.
    pub max_session_per_user: Limit,
    /// How many tasks may wait.
    pub tasks: TaskLimits,
}

/// `scheduler limit`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SchedulerLimits {
    /// `max-inflight`: envelopes handed out and not yet answered.
    pub max_inflight: Limit,
    /// `max-schedule`: envelopes a round.
    pub max_schedule: Limit,
    /// `max-evp-batch-size`: envelopes of one answer.
    pub max_envelope_batch: Limit,
    /// `max-msg-batch-size`: messages of one answer.
    pub max_message_batch: Limit,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self(None);

    /// At most `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(Some(number))
    }

    /// The number, `None` without a limit.
    #[must_use]
    pub const fn get(self) -> Option<u32> {
        self.0
    }
}

impl From<i64> for Limit {
    /// The limit as a file writes it: negative for none; more than fits is none too.
    fn from(number: i64) -> Self {
        Self(u32::try_from(number).ok())
    }
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            max_message_size: 35 * 1024 * 1024,
            sub_address_delimiter: '+',
            max_recipients: Limit::new(1000),
            max_mails: Limit::new(100),
            ciphers: None,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(4 * 24 * HOUR), compression: false, encryption: None }
    }
}

impl Default for Srs {
    fn default() -> Self {
        Self { key: None, backup_key: None, days: 4 }
    }
}

impl Default for Bounce {
    fn default() -> Self {
        Self { warn_intervals: vec![Duration::from_secs(4 * HOUR)] }
    }
}

impl Default for Mta {
    fn default() -> Self {
        Self { max_deferred: Limit::new(100), limits: MtaLimits::default(), domains: Vec::new() }
    }
}

impl Default for MtaLimits {
    fn default() -> Self {
        Self {
            family: None,
            max_connections_per_host: Limit::new(10),
            max_connections_per_route: Limit::new(5),
            max_connections_per_source: Limit::new(100),
            max_connections_per_connector: Limit::new(20),
            max_connections_per_relay: Limit::new(100),
            max_connections_per_domain: Limit::new(100),
            connection_delay_host: Duration::ZERO,
            connection_delay_route: Duration::from_secs(5),
            connection_delay_source: Duration::ZERO,
            connection_delay_connector: Duration::ZERO,
            connection_delay_relay: Duration::from_secs(2),
            connection_delay_domain: Duration::ZERO,
            reconnection_delay_route: Duration::from_secs(3),
            session_mail_max: Limit::new(100),
            session_transaction_delay: Duration::ZERO,
            session_keepalive: Duration::from_secs(10),
            max_failures_per_session: Limit::new(25),
            tasks: TaskLimits::default(),
        }
    }
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { high: Limit::new(50), low: Limit::new(30), release: Limit::new(10) }
    }
}

impl Default for MdaLimits {
    fn default() -> Self {
        Self {
            max_session: Limit::new(50),
            max_session_per_user: Limit::new(7),
            tasks: TaskLimits::default(),
        }
    }
}

impl Default for SchedulerLimits {
    fn default() -> Self {
        Self {
            max_inflight: Limit::new(5000),
            max_schedule: Limit::new(10),
            max_envelope_batch: Limit::new(256),
            max_message_batch: Limit::new(1024),
        }
    }
}
