//! Which route a new session takes (queue page of the specification, 3.7).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Address, RelayFailure};
use crate::dispatcher::mta::limits::{Family, Limits};
use crate::dispatcher::mta::network::{Network, RouteId, RouteState, Wait};

/// The choice of a route for one own address.
pub(super) struct Choice<'a> {
    pub(super) network: &'a Network,
    pub(super) limits: &'a Limits,
    pub(super) port: u16,
    pub(super) source: Option<IpAddr>,
    pub(super) now: Instant,
}

impl Choice<'_> {
    /// The best route; `None` if there is one that must wait, as said to `wait`.
    ///
    /// A worse level of preference is used only if every address of the better ones is disabled.
    pub(super) fn of(
        &self,
        addresses: &[Address],
        below: Option<u16>,
        wait: &mut Wait,
    ) -> Result<Option<RouteId>, RelayFailure> {
        let mut failure = RelayFailure::NoExchange;
        for level in addresses.chunk_by(|a, b| a.preference == b.preference) {
            let preference = level.first().map(|address| address.preference);
            if below.is_some_and(|own| preference >= Some(own)) {
                break;
            }
            let mut best: Option<(usize, RouteId)> = None;
            let mut waits = false;
            for address in level {
                if !self.family_fits(address.ip) {
                    if failure == RelayFailure::NoExchange {
                        failure = RelayFailure::Family;
                    }
                    continue;
                }
                let remote = SocketAddr::new(address.ip, self.port);
                let route = RouteId { source: self.source, remote };
                match self.network.route_state(route, self.limits, self.now, wait) {
                    RouteState::Disabled => failure = RelayFailure::Network,
                    RouteState::Waits => waits = true,
                    RouteState::Open(sessions) => {
                        if best.is_none_or(|(fewest, _)| sessions < fewest) {
                            best = Some((sessions, route));
                        }
                    }
                }
            }
            if best.is_some() || waits {
                return Ok(best.map(|(_, route)| route));
            }
        }
        Err(failure)
    }

    fn family_fits(&self, address: IpAddr) -> bool {
        let configured = match self.limits.family {
            Some(Family::Inet4) => address.is_ipv4(),
            Some(Family::Inet6) => address.is_ipv6(),
            None => true,
        };
        configured && self.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    }
}
