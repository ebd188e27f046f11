//! What is known about the ways to other hosts: sessions, pauses and penalties.
//!
//! Counts and pauses are kept by remote address, by source address, by destination domain, and by
//! route: a source and a remote address with its port. A route whose session ended before it was
//! ready is disabled for a while. Time comes in as a value; nothing here waits.
//!
//! Sources: the queue page of the specification, 3.5, 3.7, 3.9 and 3.13. Routes are told apart by
//! port, so that a smart host that is down does not block its neighbour on the same address.
//! Limits: what is neither in use nor pausing is forgotten by [`Network::forget`]; 20,000 penalties.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::limits::Limits;

/// A disabled route waits this many seconds times its penalty squared.
const PENALTY: u64 = 15;
const LONGEST_PENALTY: u64 = 3600;
/// Penalties remembered at once; beyond, the one that ends first ends now.
const MAX_DISABLED: usize = 20_000;
/// How soon a limit that another relay's sessions use up is looked at again.
pub const RECHECK: Duration = Duration::from_secs(5);

/// A way to a host.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouteId {
    /// Our address, if it is configured.
    pub source: Option<IpAddr>,
    /// The server.
    pub remote: SocketAddr,
}

impl RouteId {
    /// `SRC <-> IP (name)` as in logs.
    #[must_use]
    pub fn named(self, name: Option<&str>) -> NamedRoute<'_> {
        NamedRoute { route: self, name }
    }
}

/// A route and the name of its server, for logs.
#[derive(Clone, Copy, Debug)]
pub struct NamedRoute<'a> {
    route: RouteId,
    name: Option<&'a str>,
}

impl fmt::Display for NamedRoute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.route.source {
            Some(source) => write!(f, "{} <-> ", AddressText(source))?,
            None => f.write_str("[] <-> ")?,
        }
        let remote = AddressText(self.route.remote.ip());
        match self.name {
            Some(name) => write!(f, "{remote} ({name})"),
            None => write!(f, "{remote} ({remote})"),
        }
    }
}

/// An address as logs have it: IPv6 in brackets.
#[derive(Clone, Copy, Debug)]
pub struct AddressText(pub IpAddr);

impl fmt::Display for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Sessions of something that is limited, and when it may have another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Open sessions, those being connected included.
    pub sessions: usize,
    /// Not before then.
    free_at: Option<Instant>,
}

impl Usage {
    /// Whether one more session is possible now.
    #[must_use]
    pub fn room(&self, most: usize, now: Instant) -> Room {
        match self.free_at {
            Some(at) if at > now => Room::From(at),
            _ if self.sessions >= most => Room::Full,
            _ => Room::Now,
        }
    }

    /// Counts a session that begins, and lets others pause.
    pub fn open(&mut self, now: Instant, delay: Duration) {
        self.sessions += 1;
        self.pause(now, delay);
    }

    /// Counts a session that ended.
    pub fn close(&mut self) {
        self.sessions = self.sessions.saturating_sub(1);
    }

    fn pause(&mut self, now: Instant, delay: Duration) {
        if !delay.is_zero() {
            self.free_at = self.free_at.max(now.checked_add(delay));
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.sessions == 0 && self.free_at.is_none_or(|at| at <= now)
    }
}

/// Whether one more session is possible.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Room {
    /// After a pause.
    From(Instant),
    /// When another session ends.
    Full,
    /// Now.
    Now,
}

/// Collects why no session can be opened, over several things that are limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait(Option<Instant>);

impl Wait {
    /// Takes note of one of them; true if it does not stand in the way.
    pub fn admits(&mut self, room: Room, now: Instant) -> bool {
        let at = match room {
            Room::Now => return true,
            Room::From(at) => at,
            Room::Full => now + RECHECK,
        };
        self.0 = Some(self.0.map_or(at, |known| known.min(at)));
        false
    }

    /// When to look again, if anything stood in the way.
    #[must_use]
    pub fn until(self) -> Option<Instant> {
        self.0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Route {
    usage: Usage,
    penalty: u32,
    disabled_until: Option<Instant>,
    /// A session was ready since the route was last disabled.
    proven: bool,
}

/// All hosts, sources, domains and routes in use.
#[derive(Debug, Default)]
pub struct Network {
    hosts: HashMap<IpAddr, Usage>,
    sources: HashMap<Option<IpAddr>, Usage>,
    domains: HashMap<String, Usage>,
    routes: HashMap<RouteId, Route>,
    disabled: BinaryHeap<Reverse<(Instant, RouteId)>>,
    blocks: HashSet<(IpAddr, String)>,
}

/// Whether a route can take a session now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouteState {
    /// Not before the penalty is over.
    Disabled,
    /// Yes; it has this many.
    Open(usize),
    /// Later, as said to [`Wait`].
    Waits,
}

/// A route as administrators see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteStatus {
    /// Which route.
    pub route: RouteId,
    /// Open sessions.
    pub sessions: usize,
    /// How often it failed lately.
    pub penalty: u32,
    /// Until when it is not used.
    pub disabled_until: Option<Instant>,
}

impl Network {
    /// Whether source and domain admit a session.
    pub fn admits(
        &self,
        source: Option<IpAddr>,
        domain: &str,
        limits: &Limits,
        now: Instant,
        wait: &mut Wait,
    ) -> bool {
        let of_source = self.sources.get(&source).copied().unwrap_or_default();
        let of_domain = self.domains.get(domain).copied().unwrap_or_default();
        wait.admits(of_source.room(limits.max_conn_per_source, now), now)
            && wait.admits(of_domain.room(limits.max_conn_per_domain, now), now)
    }

    /// Whether the host and the route admit a session.
    pub fn route_state(
        &self,
        id: RouteId,
        limits: &Limits,
        now: Instant,
        wait: &mut Wait,
    ) -> RouteState {
        let host = self.hosts.get(&id.remote.ip()).copied().unwrap_or_default();
        if !wait.admits(host.room(limits.max_conn_per_host, now), now) {
            return RouteState::Waits;
        }
        let Some(route) = self.routes.get(&id) else { return RouteState::Open(0) };
        if route.disabled_until.is_some() {
            return RouteState::Disabled;
        }
        let most = if route.proven { limits.max_conn_per_route } else { 1 };
        if wait.admits(route.usage.room(most, now), now) {
            RouteState::Open(route.usage.sessions)
        } else {
            RouteState::Waits
        }
    }

    /// Counts a session that is about to connect.
    pub fn open(&mut self, id: RouteId, domain: &str, limits: &Limits, now: Instant) {
        let delay = limits.conn_delay_route.unwrap_or_default();
        self.hosts.entry(id.remote.ip()).or_default().open(now, limits.conn_delay_host);
        self.sources.entry(id.source).or_default().open(now, limits.conn_delay_source);
        self.routes.entry(id).or_default().usage.open(now, delay);
        if let Some(usage) = self.domains.get_mut(domain) {
            usage.open(now, limits.conn_delay_domain);
        } else {
            let mut usage = Usage::default();
            usage.open(now, limits.conn_delay_domain);
            self.domains.insert(domain.to_owned(), usage);
        }
    }

    /// The session on this route is ready for mail.
    pub fn prove(&mut self, id: RouteId) {
        if let Some(route) = self.routes.get_mut(&id) {
            route.proven = true;
        }
    }

    /// Counts a session that ended.
    pub fn close(&mut self, id: RouteId, domain: &str, limits: &Limits, now: Instant) {
        if let Some(usage) = self.hosts.get_mut(&id.remote.ip()) {
            usage.close();
        }
        if let Some(usage) = self.sources.get_mut(&id.source) {
            usage.close();
        }
        if let Some(usage) = self.domains.get_mut(domain) {
            usage.close();
        }
        if let Some(route) = self.routes.get_mut(&id) {
            route.usage.close();
            route.usage.pause(now, limits.reconn_delay_route.unwrap_or_default());
        }
    }

    /// A session ended before it was ready: the route is not used for a while, which is returned.
    pub fn disable(&mut self, id: RouteId, now: Instant) -> Duration {
        let route = self.routes.entry(id).or_default();
        route.penalty = route.penalty.saturating_add(1);
        route.proven = false;
        let penalty = u64::from(route.penalty);
        let seconds = penalty.saturating_mul(penalty).saturating_mul(PENALTY).min(LONGEST_PENALTY);
        let delay = Duration::from_secs(seconds);
        let until = now + delay;
        route.disabled_until = route.disabled_until.max(Some(until));
        self.disabled.push(Reverse((until, id)));
        if self.disabled.len() > MAX_DISABLED
            && let Some(Reverse((_, first))) = self.disabled.pop()
        {
            self.enable(first);
        }
        delay
    }

    /// Ends the penalties that are over; the routes that are usable again.
    pub fn enable_due(&mut self, now: Instant) -> Vec<RouteId> {
        let mut enabled = Vec::new();
        while let Some(&Reverse((at, id))) = self.disabled.peek()
            && at <= now
        {
            self.disabled.pop();
            // Another penalty, or an administrator, may have changed it meanwhile.
            if self.routes.get(&id).is_some_and(|route| route.disabled_until == Some(at))
                && self.enable(id)
            {
                enabled.push(id);
            }
        }
        enabled
    }

    /// Ends a penalty at once; false if the route is not disabled.
    pub fn enable(&mut self, id: RouteId) -> bool {
        let Some(route) = self.routes.get_mut(&id) else { return false };
        if route.disabled_until.take().is_none() {
            return false;
        }
        route.penalty = route.penalty.saturating_sub(1);
        true
    }

    /// Blocks mail from a source address to a domain; an empty domain means every domain.
    /// False if it was blocked already.
    pub fn block(&mut self, source: IpAddr, domain: &str) -> bool {
        self.blocks.insert((source, domain.to_ascii_lowercase()))
    }

    /// Ends a block; false if there was none.
    pub fn unblock(&mut self, source: IpAddr, domain: &str) -> bool {
        self.blocks.remove(&(source, domain.to_ascii_lowercase()))
    }

    /// Whether an administrator blocked mail from `source` to `domain` (in lower case).
    #[must_use]
    pub fn is_blocked(&self, source: Option<IpAddr>, domain: &str) -> bool {
        let Some(source) = source.filter(|_| !self.blocks.is_empty()) else { return false };
        [domain, ""].into_iter().any(|name| self.blocks.contains(&(source, name.to_owned())))
    }

    /// All blocks, sorted.
    #[must_use]
    pub fn blocks(&self) -> Vec<(IpAddr, String)> {
        let mut blocks: Vec<_> = self.blocks.iter().cloned().collect();
        blocks.sort();
        blocks
    }

    /// All routes that are known, sorted.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        let mut routes: Vec<RouteStatus> = self
            .routes
            .iter()
            .map(|(id, route)| RouteStatus {
                route: *id,
                sessions: route.usage.sessions,
                penalty: route.penalty,
                disabled_until: route.disabled_until,
            })
            .collect();
        routes.sort_by_key(|status| status.route);
        routes
    }

    /// Forgets what is neither used, pausing nor disabled.
    pub fn forget(&mut self, now: Instant) {
        self.hosts.retain(|_, usage| !usage.is_idle(now));
        self.sources.retain(|_, usage| !usage.is_idle(now));
        self.domains.retain(|_, usage| !usage.is_idle(now));
        self.routes.retain(|_, route| !route.usage.is_idle(now) || route.disabled_until.is_some());
    }
}

#[cfg(test)]
mod tests;
