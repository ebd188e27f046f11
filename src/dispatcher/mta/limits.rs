//! Limits of outgoing mail (`mta limit`), the specification's queue page, 3.5.
//!
//! Three delays spare hosts that are not ours: the pause between connections of a route and of a
//! relay, and the pause after a disconnect. A smart host was named by the administrator, who wants
//! mail to go there as fast as it takes it, so there they hold only when the configuration sets them.

use std::collections::HashMap;
use std::time::Duration;

/// Limits for mail to one domain, or the defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The only address family used; `None` for both.
    pub family: Option<Family>,
    /// Sessions to one remote address.
    pub max_conn_per_host: usize,
    /// Sessions for one pair of source and remote address.
    pub max_conn_per_route: usize,
    /// Sessions from one source address.
    pub max_conn_per_source: usize,
    /// Sessions for one pair of source address and relay.
    pub max_conn_per_connector: usize,
    /// Sessions for one relay.
    pub max_conn_per_relay: usize,
    /// Sessions for one destination domain.
    pub max_conn_per_domain: usize,
    /// Gap between connections to one remote address.
    pub conn_delay_host: Duration,
    /// Gap between connections of one route; `None`: 5 s to exchanges, none to a smart host.
    pub conn_delay_route: Option<Duration>,
    /// Gap between connections from one source address.
    pub conn_delay_source: Duration,
    /// Gap between connections of one connector.
    pub conn_delay_connector: Duration,
    /// Gap between connections of one relay; `None`: 2 s to exchanges, none to a smart host.
    pub conn_delay_relay: Option<Duration>,
    /// Gap between connections for one domain.
    pub conn_delay_domain: Duration,
    /// Gap after a disconnect of a route; `None`: 3 s to exchanges, none to a smart host.
    pub reconn_delay_route: Option<Duration>,
    /// Accepted messages in one session; for LMTP, recipients.
    pub session_mail_max: usize,
    /// Pause between transactions, and after RSET.
    pub session_transaction_delay: Duration,
    /// How long the last session of a relay stays open without work.
    pub session_keepalive: Duration,
    /// Rejected recipients in a row before a session gives up; 0 for no limit.
    pub max_failures_per_session: usize,
    /// Messages waiting on a relay from which on envelopes are held.
    pub task_hiwat: usize,
    /// Messages waiting at which holding ends.
    pub task_lowat: usize,
    /// Envelopes released at [`Limits::task_lowat`].
    pub task_release: usize,
}

/// An address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// `inet4`
    Inet4,
    /// `inet6`
    Inet6,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            family: None,
            max_conn_per_host: 10,
            max_conn_per_route: 5,
            max_conn_per_source: 100,
            max_conn_per_connector: 20,
            max_conn_per_relay: 100,
            max_conn_per_domain: 100,
            conn_delay_host: Duration::ZERO,
            conn_delay_route: None,
            conn_delay_source: Duration::ZERO,
            conn_delay_connector: Duration::ZERO,
            conn_delay_relay: None,
            conn_delay_domain: Duration::ZERO,
            reconn_delay_route: None,
            session_mail_max: 100,
            session_transaction_delay: Duration::ZERO,
            session_keepalive: Duration::from_secs(10),
            max_failures_per_session: 25,
            task_hiwat: 50,
            task_lowat: 30,
            task_release: 10,
        }
    }
}

impl Limits {
    /// The limits with every delay settled, for a relay that is a smart host or not.
    #[must_use]
    pub fn settled(mut self, smart_host: bool) -> Self {
        let or = |delay: Option<Duration>, seconds: u64| {
            Some(delay.unwrap_or(Duration::from_secs(if smart_host { 0 } else { seconds })))
        };
        self.conn_delay_route = or(self.conn_delay_route, 5);
        self.conn_delay_relay = or(self.conn_delay_relay, 2);
        self.reconn_delay_route = or(self.reconn_delay_route, 3);
        self
    }
}

/// The default limits, and those of domains that have their own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LimitTable {
    /// For every domain that is not named.
    pub default: Limits,
    /// By destination domain or smart host, exactly as written in the configuration.
    pub domains: HashMap<String, Limits>,
}

impl LimitTable {
    /// The limits for `domain`, a destination domain or the name of a smart host.
    #[must_use]
    pub fn of(&self, domain: &str) -> &Limits {
        self.domains.get(domain).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_not_configured_spare_exchanges_but_not_a_smart_host() {
        let seconds = |limits: Limits| {
            [limits.conn_delay_route, limits.conn_delay_relay, limits.reconn_delay_route]
                .map(|delay| delay.unwrap().as_secs())
        };
        assert_eq!(seconds(Limits::default().settled(false)), [5, 2, 3]);
        assert_eq!(seconds(Limits::default().settled(true)), [0, 0, 0]);
        let configured =
            Limits { conn_delay_route: Some(Duration::from_secs(7)), ..Limits::default() };
        assert_eq!(seconds(configured.settled(true)), [7, 0, 0]);
    }

    #[test]
    fn limits_of_a_domain_are_found_as_written() {
        let own = Limits { task_hiwat: 1, ..Limits::default() };
        let domains = HashMap::from([("Example.org".to_owned(), own.clone())]);
        let table = LimitTable { default: Limits::default(), domains };
        assert_eq!(table.of("Example.org"), &own);
        assert_eq!(table.of("example.org"), &Limits::default());
    }
}
