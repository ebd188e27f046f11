//! What holds where the configuration says nothing.
//!
//! Source: smtpd.conf(5); the numbers are those that administrators of OpenSMTPD rely on.

use std::time::Duration;

use super::tree::{
    Bounce, Limit, MdaLimits, Mta, MtaLimits, Queue, SchedulerLimits, Smtp, TaskLimits,
};

const HOUR: u64 = 60 * 60;

/// Port of `listen on` without `port`.
pub(super) const SMTP_PORT: u16 = 25;

/// The least that `smtp limit max-rcpt` may be (RFC 5321, section 4.5.3.1.8).
pub(super) const LEAST_MAX_RECIPIENTS: i64 = 100;

impl Default for Smtp {
    fn default() -> Self {
        Self {
            max_message_size: 35 * 1024 * 1024,
            sub_address_delimiter: '+',
            max_recipients: Limit::new(1000),
            max_mails: Limit::new(100),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(4 * 24 * HOUR) }
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
