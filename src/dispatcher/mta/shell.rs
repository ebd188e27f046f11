//! The relays at work: what is shared between sessions, look-ups and those who bring mail.
//!
//! Locks: a relay's may be held while the network's is taken, never the other way round; neither
//! is held across an await. After everything that could change a relay's mind, [`Mta::advance`]
//! asks it and does what it wants.

mod submit;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::action::RelayKey;
use super::deferred::Deferred;
use super::directory::{Directory, Event, Sink};
use super::log::DeliveryLine;
use super::network::{Network, RouteId, RouteStatus};
use super::relay::{Relay, RelayFailure, Step};
use super::rotation::Rotations;
use super::session::{Class, Verdict};
use super::{Settings, connection, prepare};
use crate::model::Envelope;
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};

/// Sessions that end between two looks for what can be forgotten.
const FORGET_EVERY: u32 = 64;
/// Names of servers that are remembered.
const NAMES: usize = 10_000;
/// How long a name is remembered.
const NAME_AGE: Duration = Duration::from_secs(3600);

/// Outgoing mail. Clones are the same.
///
/// Tasks are spawned on the runtime in which [`Mta::submit`] is called; those that are under way
/// end with it.
#[derive(Clone)]
pub struct Mta {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RwLock<Arc<Settings>>,
    directory: Arc<dyn Directory>,
    sink: Arc<dyn Sink>,
    rotations: Rotations,
    state: Mutex<State>,
    /// Whether anything is deferred: spares the lock on every acceptance.
    has_deferred: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    relays: HashMap<RelayKey, Arc<Post>>,
    relays_made: u64,
    pub(super) network: Network,
    deferred: Deferred,
    /// Names of servers, and when to ask again.
    names: HashMap<IpAddr, (Arc<str>, Instant)>,
    sessions_ended: u32,
}

/// A relay where sessions meet those who bring mail.
pub(super) struct Post {
    relay: Mutex<Relay>,
    /// Told when a message waits and so does a session.
    pub(super) work: Notify,
    /// No longer in the table: mail must go to a new one. Changed under the relay's lock.
    is_gone: AtomicBool,
    /// A timer is set for this time.
    timer: Mutex<Option<Instant>>,
}

impl Post {
    pub(super) fn lock(&self) -> MutexGuard<'_, Relay> {
        lock(&self.relay)
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }
}

/// A relay as administrators see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelayStatus {
    /// Number of its hold queue.
    pub id: u64,
    /// `[relay:…]`
    pub text: String,
    /// Messages that wait.
    pub waiting: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Whether new envelopes are held.
    pub on_hold: bool,
}

/// The runtime's clock, which tests can move.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A lock, whoever panicked while holding it: every change made under ours leaves a valid state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mta {
    /// Outgoing mail without any mail yet.
    pub fn new(settings: Settings, directory: Arc<dyn Directory>, sink: Arc<dyn Sink>) -> Self {
        let shared = Shared {
            settings: RwLock::new(Arc::new(settings)),
            directory,
            sink,
            rotations: Rotations::default(),
            state: Mutex::default(),
            has_deferred: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Uses other settings for mail submitted from now on. Relays whose action did not change go on.
    pub fn configure(&self, settings: Settings) {
        let mut current = self.shared.settings.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
    }

    /// Blocks mail from a source address to a domain; an empty domain means every domain.
    /// False if it was blocked already.
    pub fn block(&self, source: IpAddr, domain: &str) -> bool {
        self.state().network.block(source, domain)
    }

    /// Ends a block; false if there was none.
    pub fn unblock(&self, source: IpAddr, domain: &str) -> bool {
        self.state().network.unblock(source, domain)
    }

    /// All blocks, sorted.
    #[must_use]
    pub fn blocks(&self) -> Vec<(IpAddr, String)> {
        self.state().network.blocks()
    }

    /// All routes in use or disabled, sorted.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        self.state().network.routes()
    }

    /// Uses a disabled route again; false if it is not disabled.
    pub fn enable_route(&self, route: RouteId) -> bool {
        let enabled = self.state().network.enable(route);
        if enabled {
            let name = self.known_name(route.remote.ip());
            let named = route.named(name.as_deref());
            tracing::info!("smtp-out: Enabling route {named} per admin request");
        }
        enabled
    }

    /// All relays with work or sessions, by the number of their hold queue.
    #[must_use]
    pub fn relays(&self) -> Vec<RelayStatus> {
        let posts: Vec<Arc<Post>> = self.state().relays.values().cloned().collect();
        let mut relays: Vec<RelayStatus> = posts
            .iter()
            .map(|post| {
                let relay = post.lock();
                RelayStatus {
                    id: relay.id,
                    text: relay.key.to_string(),
                    waiting: relay.waiting(),
                    sessions: relay.sessions(),
                    on_hold: relay.is_on_hold(),
                }
            })
            .collect();
        relays.sort_by_key(|status| status.id);
        relays
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.shared.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn directory(&self) -> &dyn Directory {
        &*self.shared.directory
    }

    pub(super) fn rotations(&self) -> &Rotations {
        &self.shared.rotations
    }

    pub(super) fn tell(&self, event: Event) {
        self.shared.sink.event(event);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }

    /// The relay for `key`, made if there is none.
    fn post(&self, key: &RelayKey) -> Arc<Post> {
        let mut state = self.state();
        if let Some(post) = state.relays.get(key) {
            return Arc::clone(post);
        }
        state.relays_made += 1;
        let settings = self.settings();
        let relay = Relay::new(key.clone(), state.relays_made, settings.limits.of(&key.domain));
        let post = Arc::new(Post {
            relay: Mutex::new(relay),
            work: Notify::new(),
            is_gone: AtomicBool::new(false),
            timer: Mutex::new(None),
        });
        state.relays.insert(key.clone(), Arc::clone(&post));
        post
    }

    /// Asks a relay what it wants, and does it, until it wants nothing.
    pub(super) fn advance(&self, post: &Arc<Post>) {
        loop {
            let now = now();
            let mut relay = post.lock();
            let mut state = self.state();
            let enabled = state.network.enable_due(now);
            let step = relay.next_step(&mut state.network, now);
            drop(state);
            self.log_enabled(&enabled);
            match step {
                Step::Connect(plan) => {
                    drop(relay);
                    tokio::spawn(connection::run(self.clone(), Arc::clone(post), plan));
                }
                Step::Fail(failure) => {
                    let line = failure.log_line(&relay.connector_text(failure));
                    drop(relay);
                    if let Some(line) = line {
                        tracing::info!("{line}");
                    }
                    return self.fail_waiting(post, failure);
                }
                Step::Idle => {
                    if relay.is_over() {
                        post.is_gone.store(true, Ordering::Release);
                        self.state().relays.remove(&relay.key);
                    }
                    return;
                }
                Step::Prepare => {
                    drop(relay);
                    tokio::spawn(prepare::run(self.clone(), Arc::clone(post)));
                    return;
                }
                Step::Wait(at) => {
                    drop(relay);
                    return self.advance_at(post, at);
                }
            }
        }
    }

    /// Asks the relay again at that time, unless a timer does so before.
    fn advance_at(&self, post: &Arc<Post>, at: Instant) {
        let mut timer = lock(&post.timer);
        if timer.is_some_and(|earlier| earlier <= at) {
            return;
        }
        *timer = Some(at);
        drop(timer);
        let (mta, post): (Self, Weak<Post>) = (self.clone(), Arc::downgrade(post));
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let Some(post) = post.upgrade() else { return };
            {
                let mut timer = lock(&post.timer);
                if *timer == Some(at) {
                    *timer = None;
                }
            }
            mta.advance(&post);
        });
    }

    /// Defers everything that waits on a relay that has no way out.
    fn fail_waiting(&self, post: &Arc<Post>, failure: RelayFailure) {
        let verdict = Verdict::temporary(&failure.to_string());
        let remember = failure == RelayFailure::Network;
        self.settle_waiting(post, &verdict, remember);
    }

    /// Settles everything that waits on a relay, without a session.
    pub(super) fn settle_waiting(&self, post: &Arc<Post>, verdict: &Verdict, remember: bool) {
        let (tasks, event, domain) = {
            let mut relay = post.lock();
            let (tasks, event) = relay.drain();
            (tasks, event, relay.key.domain.clone())
        };
        for envelope in tasks.iter().flat_map(|task| &task.envelopes) {
            if remember {
                self.remember(&domain, envelope);
            }
            self.settle_unsent(envelope, Some(&domain), verdict);
        }
        if let Some(event) = event {
            self.tell(event);
        }
        // Nothing waits now, so this can only find that the relay is over.
        self.advance(post);
    }

    fn defer_unsent(&self, envelope: &Envelope, domain: Option<&str>, text: &str) {
        self.settle_unsent(envelope, domain, &Verdict::temporary(text));
    }

    /// Settles an envelope for which there was no session.
    fn settle_unsent(&self, envelope: &Envelope, domain: Option<&str>, verdict: &Verdict) {
        let line = DeliveryLine {
            session: 0,
            envelope,
            source: None,
            relay: domain.unwrap_or(envelope.route.destination.domain()),
            delay: age(envelope),
            verdict,
        };
        tracing::info!("{line}");
        self.tell(Event::Settled { envelope: envelope.id, outcome: outcome(verdict) });
    }

    /// Remembers an envelope until its destination takes mail.
    pub(super) fn remember(&self, domain: &str, envelope: &Envelope) {
        let most = self.settings().max_deferred;
        if most == 0 {
            return;
        }
        self.state().deferred.remember(domain, envelope.id, most, now());
        self.shared.has_deferred.store(true, Ordering::Relaxed);
    }

    /// The destination took a message: what was deferred for it is due.
    pub(super) fn accepted(&self, domain: &str) {
        if !self.shared.has_deferred.load(Ordering::Relaxed) {
            return;
        }
        let envelopes = {
            let mut state = self.state();
            let envelopes = state.deferred.accepted(domain, now());
            let any = !state.deferred.is_empty();
            self.shared.has_deferred.store(any, Ordering::Relaxed);
            envelopes
        };
        if !envelopes.is_empty() {
            self.tell(Event::Retry { envelopes });
        }
    }

    /// The name of a server, if it was asked for before.
    pub(super) fn known_name(&self, address: IpAddr) -> Option<Arc<str>> {
        let state = self.state();
        let (name, stale_at) = state.names.get(&address)?;
        (*stale_at > now()).then(|| Arc::clone(name))
    }

    /// Keeps the name of a server for log lines.
    pub(super) fn keep_name(&self, address: IpAddr, name: &Arc<str>) {
        let mut state = self.state();
        if state.names.len() >= NAMES {
            state.names.clear();
        }
        state.names.insert(address, (Arc::clone(name), now() + NAME_AGE));
    }

    /// A session ended before it was ready: its route is left alone for a while.
    pub(super) fn disable(&self, route: RouteId) {
        let name = self.known_name(route.remote.ip());
        let delay = self.state().network.disable(route, now());
        let named = route.named(name.as_deref());
        tracing::info!("smtp-out: Disabling route {named} for {}s", delay.as_secs());
        let mta = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let enabled = mta.state().network.enable_due(now());
            mta.log_enabled(&enabled);
        });
    }

    fn log_enabled(&self, routes: &[RouteId]) {
        for route in routes {
            let name = self.known_name(route.remote.ip());
            tracing::info!("smtp-out: Enabling route {}", route.named(name.as_deref()));
        }
    }

    /// Looks from time to time for what can be forgotten.
    pub(super) fn session_ended(&self) {
        let mut state = self.state();
        state.sessions_ended = state.sessions_ended.wrapping_add(1);
        if state.sessions_ended.is_multiple_of(FORGET_EVERY) {
            state.network.forget(now());
        }
    }
}

/// Seconds since the envelope was made.
pub(super) fn age(envelope: &Envelope) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let created = u64::try_from(envelope.progress.created).unwrap_or(0);
    now.saturating_sub(created)
}

/// What a verdict means for the queue. Enhanced codes of other servers are not read: reports say
/// 4.0.0 and 5.0.0 (queue page of the specification, 3.11).
pub(super) fn outcome(verdict: &Verdict) -> Outcome {
    let failure =
        |class| Failure { text: verdict.text.clone(), status: EnhancedStatus::new(class, 0, 0) };
    match verdict.class {
        Class::Ok { dsn_relayed } => Outcome::Delivered { dsn_relayed },
        Class::NotAscii => Outcome::Permanent(Failure {
            text: verdict.text.clone(),
            status: EnhancedStatus::new(5, 6, 7),
        }),
        Class::PermFail => Outcome::Permanent(failure(5)),
        Class::TempFail { .. } => Outcome::Temporary(failure(4)),
    }
}

#[cfg(test)]
mod tests;
